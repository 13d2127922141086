"""README and docs/: their commands do what they say, what they name is there.

Every block of shell and every "$ command" of the documents is run, in the order of RUN, in the state
directory of a quickstart that serves; a block that nobody runs fails test_every_block_is_run.
"""

import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass

import pytest

from harness.procs import run, wait_until
from harness.programs import BUILD, TOP, program, softhsm

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
CONSOLE = re.compile(r"^    \$ .*(?:\n    .*)*", re.M)

DOCUMENTS = sorted([os.path.join(TOP, "README.md"), *glob.glob(os.path.join(TOP, "docs", "*.md"))])


@dataclass(frozen=True)
class Block:
    """Of a document: shell to be run, or a console with commands and what they print."""
    file: str
    number: int  # from 1, among those of its kind
    kind: str
    text: str

    @property
    def key(self):
        return f"{self.file} {self.kind} {self.number}"


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def blocks_of(path):
    text = read(path)
    name = os.path.basename(path)
    shells = [m[2] for m in FENCE.finditer(text) if m[1] in ("sh", "bash", "shell", "console")]
    consoles = CONSOLE.findall(FENCE.sub("", text))
    return [Block(name, i, "shell", t) for i, t in enumerate(shells, 1)] + \
           [Block(name, i, "console", t) for i, t in enumerate(consoles, 1)]


BLOCKS = {b.key: b for path in DOCUMENTS for b in blocks_of(path)}

# Run here, in this order, in the state directory.
RUN = ["README.md shell 2", "operations.md shell 1", "operations.md shell 8",
       "operations.md shell 2", "operations.md shell 3",
       *(f"operations.md shell {n}" for n in range(4, 8)),  # an encryptor is enrolled
       "provisioning.md shell 1", "provisioning.md shell 2", "provisioning.md console 1",
       "tek-bsa.md console 1",
       "tek-audit.md console 1", "tek-audit.md console 2", "tek-audit.md console 3"]
# Not run here, and why.
ELSEWHERE = {
    "README.md shell 1": "test_two_commands_of_the_readme; whole: the token tests, and every test",
    "README.md shell 3": "test_presets_of_the_readme; the installation: unit/install",
    "README.md shell 4": "tests/docker/run",
    **{f"docker.md shell {n}": "tests/docker/run" for n in range(1, 12)},
    "tek-bsa.md console 2": "test_listen_of_the_manual",
    "tek-bsa.md console 3": "test_collect_of_the_manual",
    "operations.md shell 9": "test_steps_of_the_manual",
    "operations.md shell 10": "test_steps_of_the_manual",
    "audit.md shell 1": "test_notes_in_syslog_are_those_of_the_log",
    "audit.md shell 2": "tests/unit/test_audit_docs.c",
    "audit.md shell 3": "test_time_stamps_are_verified_kept_and_exported",
    "audit.md shell 4": "test_checkpoints_are_cosigned_verified_kept_and_exported",
    "audit.md shell 5": "tests/unit/test_audit_docs.c",
}


@pytest.fixture(scope="module")
def place(quickstart_turn):
    """A folder with a quickstart that serves; place.state is its state directory."""
    folder = tempfile.mkdtemp(prefix="tekd-docs-")
    # The README's tour starts where the build and the state directory are.
    os.symlink(BUILD, os.path.join(folder, "build"))
    place = Place(folder)
    try:
        with quickstart_turn():
            place.start()
        yield place
        place.stop()
    finally:
        place.close()
        shutil.rmtree(folder)


class Place:
    """A quickstart under way."""

    def __init__(self, folder):
        self.folder = folder
        self.state = os.path.join(folder, "demo")
        self.log = os.path.join(folder, "quickstart.log")
        self.process = None

    def start(self):
        argv = [os.path.join(TOP, "provisioning", "quickstart"), "--build", BUILD, "--dir",
                self.state]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.folder)

        def serves():
            assert self.process.poll() is None, self.said()
            return "serving until Ctrl-C" in self.said()

        try:
            wait_until(serves, "the quickstart serves", 120)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.said()}") from None

    def said(self):
        return read(self.log)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 143, self.said()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()  # it stops its tekd
            self.process.wait(60)

    def port(self):
        return re.search(r"port: (\d+)", read(os.path.join(self.state, "tekd.yaml")))[1]

    def fit(self, text):
        """With the places of this machine in the text."""
        folders = re.findall(r"https://localhost:(\d+)/", text)
        for port in folders:
            text = text.replace(f"localhost:{port}/", f"localhost:{self.port()}/")
        return text.replace("/usr/lib/softhsm/libsofthsm2.so", softhsm()) \
                   .replace("MODULE", softhsm()).replace("LABEL", "tekd-checkpoint") \
                   .replace("--token-label TOKEN", "--token-label tekd")

    def shell(self, text, cwd=None, check=True):
        """By bash, with the programs in PATH; stops at the first that fails."""
        path = ":".join([*{os.path.dirname(program(p)) for p in
                           ("tekctl", "tek-audit", "tek-bsa", "tek-provision")},
                         os.environ["PATH"]])
        env = {**os.environ, "PATH": path,
               "SOFTHSM2_CONF": os.path.join(self.state, "softhsm2.conf")}
        return run(["bash", "-euo", "pipefail", "-c", self.fit(text)], cwd=cwd or self.state,
                   env=env, check=check, timeout=120)

    def ctl(self, *words):
        return json.loads(run([program("tekctl"), "--socket",
                               os.path.join(self.state, "tekd.sock"), "--json", *words]).stdout)


def console_commands(text):
    """[(command, [lines it prints])] of a console."""
    lines = [line[4:] for line in text.splitlines()]
    found = []
    for line in lines:
        if line.startswith("$ "):
            found.append([line[2:], []])
        elif found[-1][0].endswith("\\"):
            found[-1][0] = found[-1][0][:-1] + line
        else:
            found[-1][1].append(line)
    return found


def shape(lines):
    """What does not change from run to run: the first words of the lines, without numbers."""
    return {re.sub(r"\d+", "N", line.split()[0]) for line in lines if line.split()}


def test_every_block_is_run():
    assert set(BLOCKS) == {*RUN, *ELSEWHERE}


def run_block(place, block):
    if block.kind == "shell":
        # The tour begins above the state directory.
        return place.shell(block.text, place.folder if "cd demo" in block.text else None).stdout
    for command, printed in console_commands(block.text):
        out = place.shell(command).stdout.splitlines()
        if printed:
            assert shape(out) == shape(printed), f"{block.key}: {command}\n" + "\n".join(out)
    return None


def prepare(place, block):
    """What the text before a block supposes."""
    if block.file == "tek-audit.md" and "audit export" not in block.text:
        name = re.search(r"tek-audit verify (\S+)", block.text)[1]
        place.shell(f"tekctl --socket tekd.sock audit export {shlex.quote(name)}")


def test_blocks_run_one_after_the_other(place):
    said = {}
    for key in RUN:
        block = BLOCKS[key]
        prepare(place, block)
        try:
            said[key] = run_block(place, block)
        except AssertionError as e:
            raise AssertionError(f"{key}\n{block.text}\n{e}") from None
    # The KEK that the encryptor opened is the one that it is enrolled with.
    enrolled = place.ctl("bsa", "show", "bsa-9")
    assert said["operations.md shell 6"].split()[0] == enrolled["kek"]["fingerprint"]
    assert enrolled["kek"]["fingerprint"] in said["operations.md shell 5"]
    assert len(enrolled["certs"]) == 1


def test_fingerprint_of_the_documents_is_that_of_the_server(place):
    out = place.shell(BLOCKS["provisioning.md shell 1"].text).stdout.split()[0]
    assert out == place.ctl("bsa", "show", "bsa-1")["kek"]["fingerprint"]


def test_commands_to_try_next_work(place):
    """Those that the quickstart ends with, as they stand there."""
    said = place.said()
    text = said[said.index("commands to try next") + len("commands to try next"):]
    text = text[:text.index("==>")]
    done = place.shell("shopt -s expand_aliases\n" + text)
    assert "check_value" in done.stdout  # tek-bsa's, the last of them
    assert "bsa-1" in done.stdout


def test_readme_says_true_of_this_token(place):
    """A PIN holder can wrap keys out of SoftHSM: status and the audit log say so."""
    assert place.ctl("status")["hsm"]["prevents_wrap_out"] is False
    folder = os.path.join(place.state, "weakness")
    place.shell("tekctl --socket tekd.sock audit export weakness --epoch 1")
    with open(os.path.join(folder, "audit.jsonl"), encoding="utf-8") as f:
        events = [json.loads(line)["ev"] for line in f]
    assert events.count("hsm.weakness") == 1


def test_two_commands_of_the_readme():
    commands = [line.split("#")[0].split() for line in
                BLOCKS["README.md shell 1"].text.splitlines()]
    assert [c[0] for c in commands] == ["provisioning/quickstart", "tests/run"]
    for command in commands:
        path = os.path.join(TOP, command[0])
        usage = run([path, "--help"]).stdout
        assert os.access(path, os.X_OK)
        assert all(option in usage for option in command[1:])


def test_presets_of_the_readme():
    with open(os.path.join(TOP, "CMakePresets.json"), encoding="utf-8") as f:
        presets = [p["name"] for p in json.load(f)["configurePresets"]]
    said = re.search(r"^Presets: (.*?)\. ", read(os.path.join(TOP, "README.md")), re.M)[1]
    assert re.findall(r"`(\w+)`", said) == presets
    used = re.findall(r"--preset (\w+)", BLOCKS["README.md shell 3"].text)
    assert used and set(used) <= set(presets)


@pytest.mark.parametrize("path", DOCUMENTS, ids=os.path.basename)
def test_files_that_are_named_are_there(path):
    tops = "|".join(sorted(os.listdir(TOP)))
    named = re.findall(rf"`((?:{tops})/[\w./*-]*)`", read(path))
    # What a build, a quickstart or an installation makes is not in the tree.
    missing = [n for n in named if not glob.glob(os.path.join(TOP, n)) and
               not n.startswith(("build/", "demo/", "lib/systemd/", "lib/sysusers.d/"))]
    tests = re.findall(r"`(test_\w+\.(?:py|c))`", read(path))
    missing += [t for t in tests if not glob.glob(os.path.join(TOP, "tests", "*", t))]
    assert missing == []


def names(line):
    """What a printed line of fields tells: its first word, and what stands before each "="."""
    return line.split()[0], re.findall(r" (\w+)=", line)


def run_for_a_bsm(bsm, block, fit, wait_for):
    """A console of a BSA, with the BSM of the tests; the lines that it and the manual have."""
    (command, printed), = console_commands(block.text)
    os.makedirs(os.path.join(bsm.folder, "bsa"))
    shutil.copy(bsm.kek_path, os.path.join(bsm.folder, "bsa"))
    shutil.copy(bsm.pem("bsm.crt"), bsm.pem("tekd.crt"))
    log = os.path.join(bsm.folder, "printed")
    env = {**os.environ, "PATH": f"{os.path.dirname(program('tek-bsa'))}:{os.environ['PATH']}"}
    with open(log, "wb") as out, \
            subprocess.Popen(["bash", "-c", "exec " + fit(command)], cwd=bsm.folder, env=env,
                             stdout=out) as process:
        try:
            wait_until(lambda: wait_for(read(log)), command)
        finally:
            process.terminate()
        assert process.wait(30) == 0
    return read(log).splitlines(), printed


def test_listen_of_the_manual(bsm):
    pushed = []

    def push_once(text):
        port = re.search(r"^listening .* port=(\d+)\n", text)
        if port and not pushed:
            m, _ = bsm.delivery(content="urn:example:content:news")
            pushed.append(bsm.push(int(port[1]), m))
        return pushed and text.count("\n") == 2

    out, said = run_for_a_bsm(bsm, BLOCKS["tek-bsa.md console 2"],
                              lambda text: text.replace("--port 9443", "--port 0"), push_once)
    assert [names(line) for line in out] == [names(line) for line in said]
    assert pushed[0].status == 0
    assert len(os.listdir(os.path.join(bsm.folder, "keys"))) == 1


def test_collect_of_the_manual(bsm):
    bsm.start()
    m, _ = bsm.delivery(content="urn:example:content:news")
    bsm.collectable.append((m.encode("xml"), "xml"))
    out, said = run_for_a_bsm(bsm, BLOCKS["tek-bsa.md console 3"],
                              lambda text: text.replace("https://localhost:8443/cp3", bsm.url),
                              lambda text: len(bsm.gets) == 2 and text.endswith("\n"))
    assert [names(line) for line in out] == [names(line) for line in said]
    assert bsm.confirmed(m) == {0}


MANUALS = {"tek-audit.md": "tek-audit", "tek-bsa.md": "tek-bsa", "provisioning.md": "tek-provision"}


def helps(name):
    """All that a program says of itself."""
    text = run([program(name), "--help"]).stdout
    for word in set(re.findall(r"^  +([a-z]+(?: +[a-z]+)?)  ", text, re.M)):
        done = run([program(name), *word.split(), "--help"], check=False)
        text += done.stdout + done.stderr
    return text


@pytest.mark.parametrize("manual", MANUALS)
def test_options_of_the_manuals_are_those_of_the_programs(manual):
    text = read(os.path.join(TOP, "docs", manual))
    usage = "\n".join(line for line in FENCE.sub("", text).splitlines()
                      if line.startswith(f"    {MANUALS[manual]} ") or line.startswith("         "))
    said = set(re.findall(r"--[a-z-]+", usage))
    known = set(re.findall(r"--[a-z-]+", helps(MANUALS[manual])))
    assert said and said <= known | {"--help"}, said - known
    left_out = known - set(re.findall(r"--[a-z-]+", text)) - {"--help"}
    assert not left_out or manual == "provisioning.md"  # that one tells the usual ways only


def test_sample_is_what_tekd_prints():
    assert run([program("tekd"), "--sample-config"]).stdout == \
        read(os.path.join(TOP, "docs", "tekd.yaml.sample"))


def test_settings_that_are_named_exist():
    section, keys = "", set()
    for line in read(os.path.join(TOP, "docs", "tekd.yaml.sample")).splitlines():
        outer, inner = re.match(r"([a-z_]+):", line), re.match(r"  #?([a-z_0-9]+):", line)
        section = outer[1] if outer else section
        if inner:
            keys.add(f"{section}.{inner[1]}")
    sections = "|".join({k.split(".")[0] for k in keys})
    # Events of the audit log look alike.
    events = set(re.findall(r'"([a-z.]+)"', read(os.path.join(TOP, "lib", "audit", "events.def"))))
    for path in DOCUMENTS:
        named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)`", read(path)))
        assert named <= keys | events | {"audit.jsonl"}, path


LOG_CALL = re.compile(r'\blog_event\(\s*([^"]*?),\s*"([a-z]+)",\s*(.*?)(?:,\s*LOG_|\);)', re.S)
# The event comes through a function (its area), or from a table.
LOG_THROUGH = {"pem_fail": "tls", "warn_of_end": "tls", "warn_of_start": "tls", "say_late": "push"}
LOG_INDIRECT = {"server/tls/pem.c", "server/watch.c", "server/push/watch.c", "pkcs11/client/pool.c"}


def add_call(found, level, area, event):
    """Of one call; false if the event is not said there.  Of two levels and two events one each."""
    levels = re.findall(r"LOG_([A-Z]+)", level)
    events = re.findall(r'"([a-z-]+)"', event)
    assert levels, event
    for i, name in enumerate(events):
        own = levels[i:i + 1] if len(events) == len(levels) else levels
        found.setdefault((area, name), set()).update(x.lower() for x in own)
    return bool(events)


def events_of_the_sources():
    """{(area, event): levels}; no levels where the event comes from elsewhere."""
    found, indirect = {}, set()
    for top in ("lib", "server", "pkcs11", "bsa", "provisioning"):
        for path in glob.glob(os.path.join(TOP, top, "**", "*.c"), recursive=True):
            text = read(path)
            calls = LOG_CALL.findall(text)
            assert len(calls) == len(re.findall(r"\blog_event\(", text)), path
            if not all([add_call(found, *call) for call in calls]):
                indirect.add(os.path.relpath(path, TOP))
            for name, area in LOG_THROUGH.items():
                for event in re.findall(rf'\b{name}\(\s*"([a-z-]+)"', text):
                    found.setdefault((area, event), set())
    pool = read(os.path.join(TOP, "pkcs11", "client", "pool.c"))
    table = re.search(r"events\[\] = \{(.*?)\};", pool, re.S)
    found.update({("hsm", event): set() for event in re.findall(r'"([a-z-]+)"', table[1])})
    assert indirect == LOG_INDIRECT
    return found


def test_every_event_of_the_log_is_in_its_table():
    """And the other way round, with its levels."""
    said = {}
    for line in read(os.path.join(TOP, "docs", "log-events.md")).splitlines():
        if not line.startswith("| `"):
            continue
        _, area, events, levels, meaning, advice, _ = (c.strip() for c in line.split("|"))
        assert meaning and advice, line
        for event in re.findall(r"`([a-z-]+)`", events):
            assert (area.strip("`"), event) not in said, line
            said[area.strip("`"), event] = set(levels.split(", "))
    found = events_of_the_sources()
    assert set(said) == set(found)
    assert {k: said[k] for k, levels in found.items() if levels} == \
        {k: levels for k, levels in found.items() if levels}


def test_every_reason_is_in_its_table():
    text = read(os.path.join(TOP, "docs", "protocol.md"))
    said = re.findall(r"^\| `([a-z-]+)` \|", text[text.index("## Reasons"):], re.M)
    names = re.findall(r'\[CP3_REASON_\w+\] = "([a-z-]+)"',
                       read(os.path.join(TOP, "lib", "cp3", "cp3_names.c")))
    assert len(said) == len(names) > 0 and set(said) == set(names)


def test_threads_have_the_names_that_are_documented(new_tekd):
    """With the TLS key in the HSM, and checkpoints published: there are all of them."""
    text = read(os.path.join(TOP, "docs", "operations.md"))
    said = text[text.index("## Threads"):].split("\n\n")[0].split("Processes")[0]
    documented = set(re.findall(r"`([a-z-]+)`", said))
    published = {"syslog": {"socket": "nobody.sock"},
                 "timestamp": {"url": "http://127.0.0.1:1/", "tsa_ca": "pki/ca.crt"},
                 "witness": {"url": "http://127.0.0.1:1/", "key": "pki/nobody.vkey"}}
    tekd = new_tekd(tls={"certificate": "pki/tekd-tls.crt", "key": "pkcs11:object=tekd-tls"},
                    audit=published)
    tekd.start()
    there = {read(path).strip() for path in glob.glob(f"/proc/{tekd.pid}/task/*/comm")}
    assert there == documented | {"tekd"}
