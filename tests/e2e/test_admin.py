"""Operators: tekctl, its exit statuses and documents, who may; tekd's options, signals, probes."""

import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from cp3py.messages import request
from cp3py.note import Note
from cp3py.auditlog import load_key
from harness import pki, procs, state
from harness.answers import given
from harness.load import Load
from harness.procs import run, wait_until
from harness.programs import program, softhsm, tool
from harness.tekd import free_port

as_root = pytest.mark.skipif(os.getuid() != 0, reason="other users can be tried by root only")
OPERATORS, READERS = "users", "games"  # groups of every Debian


def gid(name):
    import grp
    return grp.getgrnam(name).gr_gid


def user(group=None):
    """The words before a command that make it one of nobody's, in that group."""
    return [tool("setpriv"), "--reuid", "65534", "--regid", str(gid(group or "nogroup")),
            "--clear-groups"]


def failing(tekd, *words, **more):
    """A command that is refused: exit status 1, a sentence on stderr, nothing on stdout."""
    done = tekd.tekctl(*words, check=False, **more)
    assert done.returncode == 1, done
    assert done.stderr.startswith("tekctl: ") and done.stderr.endswith("\n"), done
    assert done.stdout == "", done
    return done.stderr


# ---- documents and exit statuses -------------------------------------------------------------------

def test_empty_lists_are_arrays(new_tekd):
    tekd = new_tekd(fresh=True).start()
    assert tekd.ctl("bsa", "list") == []
    assert tekd.ctl("content", "list") == []
    assert tekd.ctl("audit", "ledger") == []


def test_status(tekd, mid, content):
    assert tekd.ask(mid, content).status == 200
    assert tekd.ask(mid, content).status == 200
    s = tekd.ctl("status")
    assert (s["bsm_id"], s["instance"], s["ready"], s["reason"]) == \
        (state.BSM, "tekd-a", True, "")
    assert s["counts"] == {"bsas": 4, "contents": 1, "teks": 1, "messages": 1}
    assert (s["keys"]["answered"], s["keys"]["repeated"], s["keys"]["refused"]) == (1, 1, 0)
    assert s["hsm"]["state"] == "ready" and s["hsm"]["token"] == "tekd"
    assert s["hsm"]["prevents_wrap_out"] is False  # SoftHSM cannot, and that is said
    assert s["store"]["epoch"] == 1 and s["store"]["signed"] <= s["store"]["records"]
    text = tekd.tekctl("status").stdout
    assert "tekd" in text and not text.startswith("{")
    h = tekd.ctl("hsm", "status")
    assert sorted(w["role"] for w in h["workers"]) == ["audit", "key", "key"]
    assert all(w["ready"] and procs.is_alive(w["pid"]) for w in h["workers"])


def anchor_of(tekd):
    return tekd.look("status")["store"]["anchor"]


def test_status_says_how_far_the_anchor_is(new_tekd, mid, content):
    tekd = new_tekd().start()
    path = tekd.path("anchor", "checkpoint")
    assert tekd.ask(mid, content).status == 200


    def whole():
        """It is over all records, and for longer than a record that nobody waits for may ride,
        with its signature: no more will come."""
        a = anchor_of(tekd)
        return a if a["beyond"] == 0 and a["age_s"] > 3 else None

    a = wait_until(whole, "an anchor over all of it")
    with open(path, "rb") as f:
        assert Note(f.read()).size == a["size"] == tekd.ctl("status")["store"]["records"]
    assert (a["file"], a["failing"]) == (path, False)
    assert a["age_s"] < 60 and a["written"].endswith("Z")
    text = tekd.tekctl("status").stdout
    line = rf"epoch 1, size {a['size']}, written {a['written']} \(\d+ s ago\), 0 records beyond it"
    assert re.search(rf"^anchor +{line}\n +{re.escape(path)}$", text, re.M), text

    # Its volume goes: it stays what it was, an alarm, and keys are given.
    os.rename(tekd.path("anchor"), tekd.path("gone"))
    assert tekd.ask(mid + "-2", content).status == 200
    wait_until(lambda: anchor_of(tekd)["failing"], "the anchor cannot be written")
    b = anchor_of(tekd)
    assert (b["size"], b["written"]) == (a["size"], a["written"]) and b["beyond"] > 0
    assert tekd.ctl("status")["ready"]
    assert re.search(rf"^anchor +FAILING: cannot be written, epoch 1, size {a['size']}, written ",
                     tekd.tekctl("status").stdout, re.M)
    os.rename(tekd.path("gone"), tekd.path("anchor"))
    wait_until(lambda: not anchor_of(tekd)["failing"], "the anchor is written again")
    assert anchor_of(tekd)["size"] > a["size"]

    # A start knows the one that is there; without one there is nothing to say.
    tekd.restart(audit={"anchor_interval_s": 3600})
    assert anchor_of(tekd)["written"] is not None and anchor_of(tekd)["size"] > b["size"]
    tekd.restart(audit={"anchor_file": None})
    assert anchor_of(tekd) is None
    assert re.search(r"^anchor +none: audit.anchor_file is not set$",
                     tekd.tekctl("status").stdout, re.M)


def test_low_space_is_an_alarm(new_tekd, mid, content):
    """Below what is set; without a setting below 2048 MB or a tenth of the volume."""
    tekd = new_tekd(limits={"free_warn_mb": None})
    v = os.statvfs(tekd.folder)
    size, room = v.f_blocks * v.f_frsize, v.f_bavail * v.f_frsize
    warn = max(2048 << 20, size // 10)
    if abs(room - warn) > 256 << 20:  # else it may be crossed meanwhile
        tekd.start()
        said = re.findall(r"event=free-space-low octets=\d+ warn=(\d+)", tekd.log())
        assert [abs(int(w) - warn) < 1000 for w in said] == [True] * (room < warn)
        tekd.stop()
    more = (size >> 20) + 1  # than can be free
    os.unlink(tekd.log_path)
    tekd.configure(limits={"free_warn_mb": more})
    tekd.start()
    assert re.findall(r"warn store event=free-space-low octets=\d+ warn=(\d+)", tekd.log()) == \
        [str(more << 20)]
    assert tekd.ask(mid, content).status == 200


@pytest.mark.parametrize("words", [
    [], ["nonsense"], ["bsa"], ["bsa", "show"], ["bsa", "show", "a", "b"], ["status", "x"],
    ["status", "--what"], ["content", "add", "c", "--bits", "many"], ["bsa", "add", "--cert"],
    ["bsa", "retire-kek"], ["bsa", "retire-kek", "bsa-1"], ["bsa", "retire-kek", "a", "a/1", "a/2"],
    ["bsa", "add", "x", "--keep-old-kek"], ["bsa", "set", "x", "--keep-old-kek=yes"],
    ["hsm", "retry", "--ask-pin", "yes"], ["key", "rotate"], ["--nonsense", "status"],
    ["nonsense", "--help"], ["bsa", "nonsense", "--help"], ["b", "--help"], ["status", "--helpless"],
    ["", "--help"]])
def test_usage_is_2(shared, words):
    done = shared.tekctl(*words, check=False)
    assert done.returncode == 2 and done.stderr and done.stdout == "", done


def test_sentences_begin_with_the_program(shared):
    for words in (["bsa", "list", "--what"], ["bsa", "show", "x", "--what"], ["status", "--json=1"],
                  ["bsa", "add", "x", "--cert"]):
        error = shared.tekctl(*words, check=False).stderr
        assert error.startswith("tekctl: "), error


def test_pin_is_asked_for_on_a_terminal_only(shared):
    done = shared.tekctl("hsm", "retry", "--ask-pin", check=False)
    assert done.returncode == 2 and "standard input is no terminal" in done.stderr, done


@pytest.fixture
def babbler(folder):
    """babbler(answer): a socket whose server sends this to whoever asks, and hangs up."""
    made = []

    def make(answer):
        path = os.path.join(folder, f"babbler-{len(made)}.sock")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        made.append(server)

        def serve():
            try:
                while True:
                    peer, _ = server.accept()
                    with peer, peer.makefile("rb") as lines:
                        lines.readline()
                        peer.sendall(answer)
            except OSError:  # closed
                pass
        threading.Thread(target=serve, daemon=True).start()
        return path

    yield make
    for server in made:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.parametrize("answer, words, status, says", [
    (b"", ["status"], 3, "without an answer"),
    (b'{"ok": true, "result": {}}', ["status"], 3, "without an answer"),  # no line end
    (b'["ok"]\n', ["status"], 3, "without an answer"),
    (b'{"ok": false}\n', ["status"], 1, "refused"),
    (b'{"ok": true}\n', ["status"], 1, "has no result"),
    (b'{"ok": true, "result": 1}\n', ["--json", "status"], 1, "has no result"),
    (b'{"ok": true, "result": {}}\n', ["audit", "ledger"], 1, "names no epoch"),
    (b'{"ok": true, "result": {"epoch": 1}}\n', ["audit", "ledger"], 3, "was cut"),
    (b'{"ok": true, "result": {}}\n', ["audit", "export", "/nowhere/x"], 1, "/nowhere/x.part"),
])
def test_answers_that_are_none_are_told(babbler, answer, words, status, says):
    done = run([program("tekctl"), "--socket", babbler(answer), *words], check=False)
    assert done.returncode == status and says in done.stderr, done
    assert done.stderr.startswith("tekctl: ") and done.stdout == "", done


@pytest.mark.parametrize("result, words", [
    ([1, None], ["deliver", "urn:x"]), ({"list": [1, None]}, ["bsa", "list"]),
    ({"store": {"signers": [1]}, "published": 1}, ["status"]), ({"workers": [1]}, ["hsm", "status"]),
])
def test_results_of_another_kind_break_nothing(babbler, result, words):
    path = babbler(json.dumps({"ok": True, "result": result}).encode() + b"\n")
    for json_option in ([], ["--json"]):
        done = run([program("tekctl"), "--socket", path, *json_option, *words], check=False)
        assert done.returncode == 0 and done.stderr == "", done
        if json_option:
            json.loads(done.stdout)


def into(where, argv):
    """A command whose standard output goes there, as a shell has it."""
    return run(["/bin/sh", "-c", f'exec "$@" {where}', "sh", *argv], check=False)


@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_output_that_gets_nowhere_is_no_success(tekd, where):
    for words in (["status"], ["--json", "status"], ["bsa", "list"], ["--json", "bsa", "list"],
                  ["bsa", "show", "bsa-1"], ["audit", "ledger"], ["audit", "checkpoint"],
                  ["audit", "export", tekd.path("export-" + where[-4:].strip("/&-"))],
                  ["--version"]):
        done = into(where, tekd.tekctl_argv(*words))
        assert done.returncode == 1, done
        assert "standard output cannot be written" in done.stderr, done
    # What prints nothing has nothing to miss.
    assert into(where, tekd.tekctl_argv("bsa", "disable", "bsa-1")).returncode == 0
    tekd.stop()
    for arguments in (["--version"], ["--help"], ["--sample-config"],
                      ["--config", tekd.path("tekd.yaml"), "--check"]):
        assert into(where, [program("tekd"), *arguments]).returncode == 1, arguments


@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
@pytest.mark.parametrize("name, status", [("tek-audit", 3), ("tek-provision", 1), ("tek-bsa", 1)])
def test_what_cannot_be_printed_was_not_said(name, status, where):
    for word in ("--version", "--help"):
        done = into(where, [program(name), word])
        assert done.returncode == status and "standard output" in done.stderr, done


def test_a_file_that_cannot_be_read_is_not_sent(shared):
    done = shared.tekctl("bsa", "add", "x", "--cert", shared.folder, "--kek", "x", check=False)
    assert done.returncode == 2 and done.stderr == f"tekctl: {shared.folder}: Is a directory\n", done


def test_no_server_is_3(folder):
    done = run([program("tekctl"), "--socket", os.path.join(folder, "none.sock"), "status"],
               check=False)
    assert done.returncode == 3 and "is tekd running" in done.stderr, done


def test_help_and_version_are_0():
    for name in ("tekd", "tekctl", "tek-audit", "tek-provision", "tek-bsa", "tekd-hsm"):
        done = run([program(name), "--help"])
        assert "usage" in done.stdout.lower() or name in done.stdout
        assert done.stderr == ""
        assert "--version" in done.stdout, name
        done = run([program(name), "--version"])
        assert re.fullmatch(rf"{name} \d+\.\d+\.\d+\n", done.stdout), done


def commands_of(name):
    """Those that a program's --help tells."""
    line = {"tekctl": r"^  ([a-z][a-z-]*(?: [a-z][a-z-]*)?)(?= [A-Z\[]|$)",
            "tek-audit": r"tek-audit ([a-z]+)", "tek-provision": r"^  ([a-z]+(?: +[a-z]+)?)  ",
            "tek-bsa": r"^  ([a-z]+)  "}[name]
    return [words.split() for words in re.findall(line, run([program(name), "--help"]).stdout, re.M)]


@pytest.mark.parametrize("name, least", [("tekctl", 25), ("tek-audit", 3), ("tek-provision", 12),
                                         ("tek-bsa", 3)])
def test_help_of_a_command_is_0(name, least):
    commands = commands_of(name)
    assert len(commands) >= least
    for words in commands:
        done = run([program(name), *words, "--help"])
        assert " ".join(words) in done.stdout and done.stderr == "", done
        assert len(words) == 1 or name == "tek-provision" or len(done.stdout.splitlines()) == 2, done


@pytest.mark.parametrize("name", ["tekctl", "tek-provision"])
def test_help_of_the_first_word_of_commands_is_0(name):
    commands = [words for words in commands_of(name) if len(words) == 2]
    for first in {words[0] for words in commands}:
        done = run([program(name), first, "--help"])
        told = [words for words in commands if re.search(rf"\b{' +'.join(words)}\b", done.stdout)]
        assert told == [words for words in commands if words[0] == first] and done.stderr == "", done


@pytest.mark.parametrize("words", [["-h"], ["status", "-h"], ["bsa", "add", "--help"],
                                   ["--json", "bsa", "add", "x", "--help", "--cert"], ["bsa", "-h"],
                                   ["deliver", "--json", "--help"]])
def test_help_needs_no_server_and_no_arguments(folder, words):
    done = run([program("tekctl"), "--socket", os.path.join(folder, "none.sock"), *words])
    assert done.stdout.startswith("usage: tekctl [--socket PATH] [--json] ") and done.stderr == ""


def test_commands_that_programs_name_exist():
    """tekd-hsm points to others."""
    named = re.findall(r"(tek-provision|tekctl) ([a-z]+(?: [a-z]+)*)\.",
                       run([program("tekd-hsm"), "--help"]).stdout)
    assert len(named) == 2
    for name, words in named:
        assert re.search(rf"^  {words}( |$)", run([program(name), "--help"]).stdout, re.M), words


def test_bsa_documents(tekd):
    ids = [b["id"] for b in tekd.ctl("bsa", "list")]
    assert sorted(ids) == ["bsa-1", "bsa-2", "bsa-3", "bsa-4"]
    b = tekd.ctl("bsa", "show", "bsa-3")
    assert (b["enabled"], b["form"], b["media"], b["entitle"]) == \
        (True, "efficient", "xml", ["urn:three:*"])
    assert b["certs"] == [pki.fingerprint(tekd.path("pki", "bsa-3.crt"))]
    assert b["kek"]["label"] == "bsa-3-kek" and b["kek"]["wrap"] == "aes-kwp"
    tekd.tekctl("bsa", "set", "bsa-3", "--media", "json", "--form", "full", "--url",
                "https://localhost:1/x", "--ca", tekd.path("pki", "ca.crt"), "--entitle", "a",
                "--entitle", "b")
    b = tekd.ctl("bsa", "show", "bsa-3")
    assert (b["form"], b["media"], b["entitle"], b["url"], b["has_ca"]) == \
        ("full", "json", ["a", "b"], "https://localhost:1/x", True)
    before = tekd.ctl("bsa", "list")
    tekd.restart()
    assert tekd.ctl("bsa", "list") == before


@pytest.mark.parametrize("n", [0, 1, 501])
def test_keys_are_shown_as_one_document_however_many(tekd, n):
    """They come by the page of 500."""
    content = "urn:\u00fc\\\""
    tekd.tekctl("content", "add", content)
    for _ in range(n):
        tekd.look("key rotate", content=content)
    text = tekd.tekctl("--json", "key", "list", content).stdout
    keys = json.loads(text)
    assert [(k["period"], k["version"]) for k in keys] == [(0, v + 1) for v in range(n)]
    assert text == json.dumps(keys, indent=2) + "\n"
    text = tekd.tekctl("content", "show", content).stdout
    shown = json.loads(text)
    assert (shown["content_id"], shown["period_s"], shown["keys"]) == (content, 0, keys)
    assert list(shown)[-1] == "keys" and len(shown) == 8
    assert text == json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
    assert tekd.tekctl("--json", "content", "show", content).stdout == text
    lines = tekd.tekctl("key", "list", content).stdout.splitlines()
    assert lines[0].split() == ["KEY-ID", "PERIOD", "VERSION", "BITS", "CREATED", "STATE"]
    assert [line.split() for line in lines[1:]] == \
        [[k["key_id"], "0", str(k["version"]), "128", k["created"]] for k in keys]


# ---- what is refused -------------------------------------------------------------------------------

def test_enrolments_that_are_refused_change_nothing(tekd):
    cert = tekd.path("pki", "stranger.crt")
    before = tekd.ctl("bsa", "list")
    run([tool("pkcs11-tool"), "--module", softhsm(), "--token-label", "tekd", "--login", "--pin",
         tekd.template.pin, "--keygen", "--key-type", "AES:32", "--label", "weak", "--id", "77"],
        env={**os.environ, "SOFTHSM2_CONF": tekd.path("softhsm2.conf")})
    base = ["--kek", "bsa-1-kek", "--cert", cert]
    long = [word for n in range(65) for word in ("--entitle", f"x{n}")]
    for words, says in [
            (["bsa-1", *base], "enrolled already"),
            (["bsa-5", *base], "enrolled already"),  # its KEK is that of bsa-1
            (["bsa-5", "--kek", "bsa-1-kek", "--cert", tekd.path("pki", "bsa-2.crt")], "already"),
            (["bsa-5", "--kek", "no-such-kek", "--cert", cert], "no-such-kek"),
            (["bsa-5", "--kek", "weak", "--cert", cert], "weak"),
            (["bsa-5", "--kek", "tekd-storage", "--cert", cert], "tekd-storage"),
            (["bsa-5", "--kek", "bsa-1-kek"], "certificate"),
            (["bsa-5", "--cert", cert], "KEK"),
            (["bsa-5", "--kek", "bsa-1-kek", "--cert", tekd.path("hsm.pin")], "certificate"),
            (["", *base], "ID"), ([" x", *base], "ID"), (["x\ny", *base], "ID"),
            (["x" * 256, *base], "ID"),
            (["bsa-5", *base, "--wrap", "rot13"], "rot13"),
            (["bsa-5", *base, "--url", "http://localhost/"], "https"),
            (["bsa-5", *base, "--form", "short"], "form"),
            (["bsa-5", *base, *long], "64"),
            (["bsa-5", *base, "--cert", cert, "--cert", cert], "certificates")]:
        assert says in failing(tekd, "bsa", "add", *words), words
    for words in (["bsa", "show", "bsa-9"], ["bsa", "disable", "bsa-9"],
                  ["bsa", "set", "bsa-9", "--form", "full"]):
        assert "no such BSA" in failing(tekd, *words)
    assert tekd.ctl("bsa", "list") == before
    assert len(tekd.audit().of("bsa.enrolled")) == 4
    # Files are read by tekctl, as its caller; tekd never opens what is named to it.
    done = tekd.tekctl("bsa", "set", "bsa-1", "--cert", tekd.path("nowhere.crt"), check=False)
    assert done.returncode in (1, 2) and "nowhere.crt" in done.stderr


def test_contents_and_keys_that_are_refused(tekd, content):
    tekd.tekctl("content", "add", content)
    assert "already" in failing(tekd, "content", "add", content)
    assert "128, 192 or 256" in failing(tekd, "content", "add", "other", "--bits", "64")
    for bad in ("", " x", "x\x01", "x" * 1025):
        assert "ContentID" in failing(tekd, "content", "add", bad)
    assert "no such content" in failing(tekd, "content", "show", "none")
    assert "no such content" in failing(tekd, "key", "list", "none")
    assert "none" in failing(tekd, "key", "rotate", "none")
    assert "UUID" in failing(tekd, "key", "destroy", "none")
    unknown = "01a2040e-6f0e-7759-8f2c-70db47d2de91"
    assert "no TEK has this key ID" in failing(tekd, "key", "destroy", unknown)
    assert [c["content_id"] for c in tekd.ctl("content", "list")] == [content]


# ---- who may ---------------------------------------------------------------------------------------

READS = [["status"], ["hsm", "status"], ["bsa", "list"], ["bsa", "show", "bsa-1"],
         ["content", "list"], ["content", "show", "urn:c"], ["key", "list", "urn:c"],
         ["audit", "ledger"]]


def changes(tekd):
    cert = tekd.path("pki", "stranger.crt")
    return [["hsm", "retry"], ["bsa", "add", "bsa-5", "--cert", cert, "--kek", "bsa-1-kek"],
            ["bsa", "set", "bsa-1", "--form", "efficient"], ["bsa", "disable", "bsa-1"],
            ["bsa", "enable", "bsa-1"], ["bsa", "retire-kek", "bsa-1", "bsa-1/1"],
            ["content", "add", "urn:new"], ["key", "rotate", "urn:c"],
            ["key", "destroy", "01a2040e-6f0e-7759-8f2c-70db47d2de91"], ["audit", "checkpoint"],
            ["audit", "export", tekd.path("export-x")]]


@as_root
def test_other_users_may_nothing_readers_may_look_operators_may_all(new_tekd):
    tekd = new_tekd(admin={"group": OPERATORS, "readonly_group": READERS}).start()
    tekd.tekctl("content", "add", "urn:c")
    before = tekd.ctl("status")["store"]["records"]
    for words in READS:
        assert "may not use this socket" in failing(tekd, *words, prefix=user())
        assert tekd.tekctl(*words, prefix=user(READERS)).returncode == 0
    for words in changes(tekd):
        assert "may not use this socket" in failing(tekd, *words, prefix=user())
        assert "may look, but not" in failing(tekd, *words, prefix=user(READERS))
    assert tekd.ctl("status")["store"]["records"] == before
    tekd.tekctl("content", "add", "urn:new", prefix=user(OPERATORS))
    added = tekd.audit().of("content.added")
    assert [(r["content"], r["actor"], r["uid"]) for r in added] == \
        [("urn:c", "root", 0), ("urn:new", "nobody", 65534)]


# Holds that many connections, says so when one of them is told to try again, and at the end how many
# nobody answered or closed.
HOLD = """
import select, socket, sys
held = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[2]))]
for s in held:
    s.connect(sys.argv[1])
ended, _, _ = select.select(held, [], [], 60)
print("held", flush=True)
sys.stdin.readline()
ended, _, _ = select.select(held, [], [], 0)
print(len(held) - len(ended), flush=True)
"""


@as_root
def test_readers_cannot_keep_out_who_may_change_things(new_tekd):
    """Four of them are served, sixteen wait."""
    tekd = new_tekd(admin={"group": OPERATORS, "readonly_group": READERS}).start()
    with subprocess.Popen([*user(READERS), sys.executable, "-c", HOLD, tekd.path("tekd.sock"), "21"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hold:
        assert hold.stdout.readline() == "held\n"
        tekd.tekctl("content", "add", "urn:a")
        tekd.tekctl("content", "add", "urn:b", prefix=user(OPERATORS))
        assert "busy" in failing(tekd, "status", prefix=user(READERS))
        assert hold.communicate("\n", timeout=30) == ("20\n", None)
    assert len(tekd.ctl("content", "list", prefix=user(READERS))) == 2


@as_root
def test_without_groups_only_tekds_user_and_root_may(tekd):
    for group in (None, OPERATORS, READERS):
        assert "may not use this socket" in failing(tekd, "status", prefix=user(group))


def changes_made(tekd, content):
    """Every command that changes something, in an order in which it may, with what the log calls
    it; "KEY" is the ID of a TEK, "MESSAGE" that of a delivery."""
    kek, (wrap, *_) = next(iter(tekd.template.spare.items()))
    return [
        (["content", "add", content], "content.added"),
        (["bsa", "set", "bsa-1", "--form", "efficient", "--url", "https://localhost:1/x", "--ca",
          tekd.path("pki", "ca.crt")], "bsa set"),
        (["bsa", "disable", "bsa-1"], "bsa disable"), (["bsa", "enable", "bsa-1"], "bsa enable"),
        (["key", "rotate", content], "key rotate"),
        (["deliver", content, "--bsa", "bsa-1"], "deliver"),
        (["delivery", "retry", "MESSAGE"], "delivery retry"),
        (["delivery", "abandon", "MESSAGE", "--reason", "why"], "delivery.abandoned"),
        (["key", "destroy", "KEY"], "tek.destroyed"),
        (["bsa", "add", "bsa-5", "--cert", tekd.path("pki", "stranger.crt"), "--kek", kek,
          "--wrap", wrap], "bsa add"),
        (["bsa", "disable", "bsa-5"], "bsa disable"),
        (["bsa", "retire-kek", "bsa-5", "bsa-5/1"], "kek.retired"),
        (["audit", "checkpoint"], "audit checkpoint"), (["hsm", "retry"], "hsm retry"),
        (["audit", "export", tekd.path("an-export")], "audit export"),
        (["audit", "close-epoch"], "audit close-epoch"),
    ]


READING = {"status", "hsm status", "bsa list", "bsa show", "content list", "content show",
           "key list", "delivery list", "delivery show", "audit ledger"}


def test_every_command_is_known_as_reading_or_changing(tekd, content):
    """What is added is added here: a change is a record."""
    commands = [" ".join(words) for words in commands_of("tekctl")]
    made = {" ".join(words) for words, _ in changes_made(tekd, content)}
    changing = {c for c in commands if any(m == c or m.startswith(c + " ") for m in made)}
    assert set(commands) == READING | changing and not READING & changing, commands


def real(tekd, content, words):
    """With the IDs that are meant."""
    ids = {"KEY": lambda: tekd.ctl("key", "list", content)[0]["key_id"],
           "MESSAGE": lambda: tekd.ctl("delivery", "list")[-1]["message_id"]}
    return [ids[w]() if w in ids else w for w in words]


def test_every_change_prints_one_document(tekd, content):
    for words, _ in changes_made(tekd, content):
        done = tekd.tekctl("--json", *real(tekd, content, words))
        try:
            document = json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"{words} printed {done.stdout!r}") from None
        assert done.stderr == "", done
        if words[:2] == ["audit", "export"]:
            with open(os.path.join(words[2], "audit.jsonl"), "rb") as f:
                records = f.read().count(b"\n")
            with open(os.path.join(words[2], "checkpoints.txt"), "rb") as f:
                notes = f.read().count(b"\n\n") // 2
            assert document == {"records": records, "checkpoints": notes, "directory": words[2]}


def test_every_change_is_a_record_with_its_actor(tekd, content):
    import getpass
    me, by = getpass.getuser(), None
    seen = len(tekd.audit().records)
    # What fails changes nothing and is no record.
    tekd.tekctl("bsa", "disable", "bsa-9", check=False)
    assert [r.get("action") for r in tekd.audit().records[seen:]] == ["audit export"]
    seen += 1
    for words, action in changes_made(tekd, content):
        tekd.tekctl(*real(tekd, content, words))
        if action == "audit close-epoch":
            break
        new = tekd.audit().records[seen:-1]  # but for this export of ours
        seen += len(new) + 1
        by = [r for r in new if "actor" in r]
        assert by and all(r["actor"] == me and r["uid"] == os.getuid() for r in by), (words, new)
        assert action in [r.get("action", r["ev"]) for r in by], (words, new)
        if action == "bsa set":
            pem = sha256_of(tekd.path("pki", "ca.crt"))
            assert [(r["detail"], r["media"], r["form"], r["key_info"], r["url"], r["ca"])
                    for r in by if r.get("action") == action] == \
                [("bsa-1", "xml", "efficient", True, "https://localhost:1/x", pem)]


def sha256_of(path):
    with open(path, "rb") as f:
        return sha256(f.read()).hexdigest()


# ---- the socket itself -----------------------------------------------------------------------------

def talk(tekd, octets, half_close=True):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(tekd.path("tekd.sock"))
        s.sendall(octets)
        if half_close:
            s.shutdown(socket.SHUT_WR)
        answer = b""
        while True:
            part = s.recv(65536)
            if not part:
                return answer
            answer += part


@pytest.mark.parametrize("octets", [
    b"\n", b"nonsense\n", b"[]\n", b"{}\n", b'{"command":7}\n', b'{"command":"nonsense"}\n',
    b'{"command":"status","command":"bsa list"}\n', b'{"command":"bsa show"}\n',
    b'{"command":"bsa show","id":7}\n', b'{"command":"bsa add","id":"x","certs":7}\n',
    b'{"command":"bsa add","id":"x","certs":[7],"kek":"y"}\n',
    b'{"command":"content add","content":"c","bits":-1}\n', b"\xff\xfe\n", b"[" * 5000 + b"\n"],
    ids=lambda o: repr(o)[:40])
def test_bad_requests_on_the_socket_get_an_error(shared, octets):
    answer = json.loads(talk(shared, octets))
    assert answer["ok"] is False and answer["error"] and answer["code"].startswith("TEKD_E")


def test_requests_without_end_or_too_long_are_dropped(shared):
    assert talk(shared, b'{"command":') == b""
    assert talk(shared, b"") == b""
    try:
        assert talk(shared, b'{"x":"' + b"y" * 400000, half_close=False) == b""
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert shared.ctl("status")["ready"]


# ---- the log ---------------------------------------------------------------------------------------

def test_checkpoint_and_anchor_verify(tekd, mid, content):
    assert tekd.ask(mid, content).status == 200
    key = load_key(tekd.path("checkpoint.pem"))
    note = Note(tekd.tekctl("audit", "checkpoint").stdout.encode())
    note.verify(key)
    assert tekd.ctl("audit", "checkpoint")["size"] > note.size

    def anchored():
        with open(tekd.path("anchor", "checkpoint"), "rb") as f:
            anchor = Note(f.read())
        anchor.verify(key)
        return anchor.size >= note.size
    wait_until(anchored, "the anchor")


def test_ledger_lists_what_was_answered(tekd, mid):
    for name in ("bsa-1", "bsa-2"):
        for content in ("urn:a", "urn:b"):
            assert tekd.ask(f"{mid}-{content}", content, name).status == 200
    ledger = tekd.ctl("audit", "ledger")
    found = {(e["bsa"], e["message_id"]): e for e in ledger}
    log = tekd.audit()
    assert set(found) == set(log.ledger) and len(ledger) == 4
    for key, e in found.items():
        assert (e["key_id"], e["content_id"]) == (log.ledger[key]["keyid"],
                                                  log.ledger[key]["content"])
    assert len(tekd.ctl("audit", "ledger", "--bsa", "bsa-1")) == 2
    assert len(tekd.ctl("audit", "ledger", "--bsa", "bsa-1", "--content", "urn:b")) == 1
    assert tekd.ctl("audit", "ledger", "--bsa", "bsa-9") == []


def test_an_export_shows_its_progress_on_a_terminal_only(tekd):
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.run(tekd.tekctl_argv("audit", "export", tekd.path("shown")), stderr=theirs,
                              stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        os.close(theirs)
        shown = terminal.read(4096).decode()
    n = int(done.stdout.split()[0])
    with open(tekd.path("shown", "audit.jsonl"), "rb") as f:
        assert f.read().count(b"\n") == n
    assert f"\r{n} of {n} records" in shown
    assert tekd.tekctl("audit", "export", tekd.path("quiet")).stderr == ""


def test_an_export_that_nobody_reads_holds_nobody_up(tekd):
    load = Load(tekd, 8, lambda i, n: (request(f"x-{i}-{n}", f"urn:{n % 4}", "bsa-1"), "xml")).start()
    wait_until(lambda: len(load.answered) > 1500, "answers")
    load.stop()
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(tekd.path("tekd.sock"))
        s.sendall(b'{"command":"audit export"}\n')
        begun = s.recv(100)
        assert b'"ok":true' in begun
        for n in range(20):
            assert tekd.ask(f"beside-{n}", "urn:0").status == 200
        assert tekd.ctl("status")["ready"]
        folder = tekd.export()  # another one
        rest = b""
        while not rest.endswith(b"\nE\n"):
            part = s.recv(65536)
            assert part
            rest += part
    records = [line[2:] for line in rest.split(b"\n") if line.startswith(b"R ")]
    with open(os.path.join(folder, "audit.jsonl"), "rb") as f:
        assert f.read().startswith(b"\n".join(records) + b"\n")
    assert sum(b"beside-" in r for r in records) == 0  # it was of before


def test_the_ledger_for_people_shows_only_printable_ascii(tekd):
    """A Message ID is what a peer made it."""
    for mid in ("m\u009b2J", "ü\\", "plain"):
        assert tekd.ask(mid, "urn:a", media="json").status == 200
    text = tekd.tekctl("audit", "ledger").stdout
    assert text.isascii() and all(c == "\n" or c.isprintable() for c in text)
    shown = [line.split()[2] for line in text.splitlines()[1:]]
    assert shown == ["m\\xc2\\x9b2J", "\\xc3\\xbc\\x5c", "plain"]


def test_a_name_of_a_peer_is_no_formula(tekd):
    """Both ledgers as CSV: nothing but printable ASCII, and nothing that a spreadsheet runs."""
    names = {"=1+1": "\\x3d1+1", "@a,-b;+c": "\\x40a,\\x2db;\\x2bc", 'q", =2': 'q", \\x3d2',
             "m\u009b2J": "m\\xc2\\x9b2J", "a-b@c": "a-b@c", "ü\\": "\\xc3\\xbc\\x5c"}
    for mid in names:
        assert tekd.ask(mid, "urn:a", media="json").status == 200
    folder = tekd.export()
    for text in (tekd.tekctl("audit", "ledger", "--csv").stdout,
                 run([program("tek-audit"), "ledger", folder, "--csv"]).stdout):
        assert text.isascii() and all(c == "\n" or c.isprintable() for c in text)
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
        assert [r["message_id"] for r in rows] == list(names.values())
        back = [re.sub(rb"\\x(..)", lambda m: bytes.fromhex(m[1].decode()),
                       r["message_id"].encode()).decode() for r in rows]
        assert back == list(names)


def test_a_name_of_a_peer_is_no_command_for_a_terminal(tekd):
    """U+009B is legal in CP-3, and the beginning of one; ü is nothing of the kind."""
    content = "urn:ü\u009b2J"
    assert tekd.ask("m-1", content, media="json").status == 200
    tekd.ctl("deliver", content, "--bsa", "bsa-1")
    for words in (["content", "list"], ["content", "show", content], ["delivery", "list"]):
        shown = tekd.tekctl(*words).stdout
        assert "urn:ü\\u009b2J" in shown
        assert all(c == "\n" or c.isprintable() for c in shown)
        text = tekd.tekctl("--json", *words).stdout
        assert "\u009b" not in text
        assert json.dumps(content, ensure_ascii=False).replace("\u009b", "\\u009b") in text
    assert content in [e["content_id"] for e in tekd.ctl("audit", "ledger")]
    refused = failing(tekd, "key", "list", "urn:none\u009b2J")
    assert "urn:none\\u009b2J" in refused and refused.strip().isprintable()


def test_export_is_never_written_over(tekd):
    folder = tekd.export()
    with open(os.path.join(folder, "audit.jsonl"), "rb") as f:
        before = f.read()
    assert "is there already" in failing(tekd, "audit", "export", folder)
    with open(os.path.join(folder, "audit.jsonl"), "rb") as f:
        assert f.read() == before


# ---- tekd's own options ----------------------------------------------------------------------------

def tekd_run(*arguments):
    return run([program("tekd"), *arguments], check=False)


@pytest.mark.parametrize("arguments", [[], ["--nonsense"], ["--config"], ["--check"],
                                       ["--config", "x", "y"]])
def test_usage_of_tekd_is_2(arguments):
    done = tekd_run(*arguments)
    assert done.returncode == 2 and "usage" in done.stderr, done


def test_check_says_what_was_found(tekd, mid, content):
    assert tekd.ask(mid, content).status == 200
    check = ["--config", tekd.path("tekd.yaml"), "--check"]
    done = tekd_run(*check)  # another tekd has the store
    assert done.returncode != 0 and "store" in done.stdout + done.stderr, done
    tekd.stop()
    done = tekd_run(*check)
    assert done.returncode == 0, done
    assert re.search(r"^token +ok +tekd", done.stdout, re.M), done.stdout
    assert re.search(r"^store +ok +\d+ records", done.stdout, re.M), done.stdout
    assert re.search(r"^keys +ok", done.stdout, re.M), done.stdout
    assert "BAD" not in done.stdout
    tekd.start()
    tekd.audit()


@pytest.mark.parametrize("old, new, says", [
    ("bsm_id:", "bsm_idd:", "bsm_idd"),
    ("policy:", "policy: {}\npolicy:", "policy"),
    ("workers", "wrokers", "wrokers"),
    ('"workers": 2', '"workers": 0', "1..32"),
    ('"workers": 2', '"workers": "many"', "many"),
    ('"release": "signed"', '"release": "never"', "never"),
    ("store:", "#", "store"),
    ("tls:", "tls: [", "not YAML"),
    ('"pin_file": "hsm.pin", ', "", "pin"),
    ('"token": "pkcs11:token=tekd"', '"token": "pkcs11:token=tekd;pin-value=1"', "token"),
])
def test_config_errors_name_the_place_and_what_is_expected(new_tekd, old, new, says):
    tekd = new_tekd()
    path = tekd.path("tekd.yaml")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    assert old in text
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace(old, new, 1))
    done = tekd_run("--config", path)
    assert done.returncode == 1, done
    first = done.stderr.splitlines()[0]
    assert re.match(rf"tekd: {re.escape(path)}(:\d+:\d+)?: ", first) and says in first, done.stderr


def test_sample_config_is_taken(folder):
    text = tekd_run("--sample-config").stdout
    path = os.path.join(folder, "tekd.yaml")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace("bsm_id:", "bsm_id_:", 1))
    assert "bsm_id_" in tekd_run("--config", path).stderr
    for required in ("bsm_id", "listen", "tls", "hsm", "store"):
        assert re.search(rf"^{required}:", text, re.M)


def test_files_that_are_no_good_stop_the_start(new_tekd):
    for name, keys in [("no certificate", {"certificate": "hsm.pin"}),
                       ("key of another", {"key": "pki/bsa-1.key"}),
                       ("no CA", {"client_ca": "nowhere.pem"}), ("no CRL", {"crl": "hsm.pin"}),
                       ("key for all to read", {"key": "open.key"})]:
        tekd = new_tekd(tls=keys)
        shutil.copy(tekd.path("pki", "tekd.key"), tekd.path("open.key"))
        os.chmod(tekd.path("open.key"), 0o644)
        tekd.start(wait=None)
        assert tekd.wait_end() == 1, name
        assert "tls" in tekd.log() or "http" in tekd.log(), name


# ---- one at a time ---------------------------------------------------------------------------------

def test_second_tekd_on_the_same_store_is_refused(tekd, mid, content):
    path = tekd.path("second.yaml")
    with open(tekd.path("tekd.yaml"), encoding="utf-8") as f:
        text = f.read()
    for port in (tekd.port, tekd.admin_port):
        text = text.replace(str(port), str(free_port()))
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace("tekd.sock", "second.sock"))
    done = tekd_run("--config", path)
    assert done.returncode in (1, 74), done
    assert "store" in done.stderr
    # Another store, but the same admin socket.
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace("tekd.db", "second.db").replace("anchor/", "second-"))
    done = tekd_run("--config", path)
    assert done.returncode == 1 and "socket-in-use" in done.stderr, done
    assert tekd.ctl("status")["ready"]
    assert tekd.ask(mid, content).status == 200
    tekd.audit()


def test_port_that_is_taken_stops_the_start(tekd, new_tekd):
    other = new_tekd(listen=[{"address": "127.0.0.1", "port": tekd.port}])
    other.start(wait=None)
    assert other.wait_end() == 1
    assert "cannot-listen" in other.log()


def test_socket_left_by_a_killed_tekd_is_replaced(tekd):
    tekd.kill()
    assert os.path.exists(tekd.path("tekd.sock"))
    tekd.start()
    assert tekd.ctl("status")["ready"]
    tekd.stop()
    assert not os.path.exists(tekd.path("tekd.sock"))


# ---- signals ---------------------------------------------------------------------------------------

@pytest.mark.smoke
@pytest.mark.tsan
def test_sigterm_under_load_loses_no_request(tekd):
    """What it took it answers; what is in the log as answered has come."""
    load = Load(tekd, 32, lambda i, n: (request(f"t-{i}-{n}", f"urn:{i}:{n}", f"bsa-{i % 2 + 1}"),
                                        "xml"), lambda i: f"bsa-{i % 2 + 1}").start()
    wait_until(lambda: len(load.answered) > 100, "answers")
    tekd.stop()
    load.join()
    for _, m, media, r in load.answered:
        if r.status == 200:
            given(r, m, tekd.template.bsas[m.source], media)
        else:
            assert r.status == 503, r
    came = {(m.source, m.mid) for _, m, _, r in load.answered if r.status == 200}
    tekd.start()
    log = tekd.audit()
    assert set(log.ledger) == came
    sent = {(r["peer"], r["mid"]) for r in log.of("answer.sent")}
    assert sent == came
    assert not log.unattested and not log.of("log.recovered")


# Patience that ends long after a stop has to.
LONG = {"limits": {"request_deadline_ms": 60000, "request_timeout_ms": 60000},
        "hsm": {"timeout_ms": 60000, "tls_timeout_ms": 60000}}
TLS_KEY_IN_HSM = {"tls": {"certificate": "pki/tekd-tls.crt", "key": "pkcs11:object=tekd-tls"}}


@pytest.mark.parametrize("settings", [{}, LONG], ids=["default", "long"])
def test_sigterm_with_everything_hung_takes_at_most_ten_seconds(new_tekd, mid, settings):
    tekd = new_tekd(**settings).start()
    _, children = tekd.hsm_processes()
    tekd.note_family()
    idle = tekd.connect()
    half = tekd.connect()
    half.send(b"POST /cp3 HTTP/1.1\r\nHost: x\r\nContent-Le")
    for pid in children:
        procs.kill(pid, signal.SIGSTOP)
    with tekd.connect() as waiting:
        waiting.send_message(request(mid, "urn:x", "bsa-1"))
        wait_until(lambda: tekd.look("status")["http"]["requests"] >= 1, "the request")
        tekd.stop()
        answer = waiting.read_response()
        assert (answer.status, answer.header("cp3-reason")) == (503, "busy")
    idle.close()
    half.close()
    tekd.start()
    tekd.audit()


def connects(tekd):
    try:
        tekd.connect().close()
    except OSError:
        pass


def test_sigterm_ends_what_handshakes_and_operators_wait_for_in_the_hsm(new_tekd):
    tekd = new_tekd(**LONG, **TLS_KEY_IN_HSM).start()
    tekd.tekctl("content", "add", "urn:hung")
    tekd.note_family()
    open_one = tekd.connect()
    for pid in tekd.hsm_processes()[1]:
        procs.kill(pid, signal.SIGSTOP)
    before = tekd.look("status")["http"]["accepted"]
    with ThreadPoolExecutor(2) as pool:
        handshake = pool.submit(connects, tekd)
        rotation = pool.submit(tekd.tekctl, "key", "rotate", "urn:hung", check=False)
        wait_until(lambda: tekd.look("status")["http"]["accepted"] > before, "the handshake")
        tekd.stop()
        handshake.result()
        assert rotation.result().returncode != 0
    assert open_one.is_closed_by_peer()
    open_one.close()
    tekd.start()
    tekd.audit()


def test_sigint_stops_as_well(tekd):
    procs.kill(tekd.pid, signal.SIGINT)
    assert tekd.wait_end() == 0
    tekd.start()
    log = tekd.audit()
    assert log.of("log.stopped")[-1]["seq"] + 1 == log.of("log.started")[-1]["seq"]


def test_sighup_takes_new_files_and_keeps_the_old_ones_when_they_are_broken(tekd, mid, content):
    def shown():
        with tekd.connect("bsa-2") as c:
            return c.sock.getpeercert(True)

    m = request(mid, content, "bsa-1")
    first = shown()
    bsa = tekd.template.bsas["bsa-1"]
    with tekd.connect() as open_one:
        given(open_one.ask(m), m, bsa)
        for name in ("tekd.crt", "tekd.key", "ca.crt", "ca.crl"):
            path = tekd.path("pki", name)
            with open(path, "rb") as f:
                good = f.read()
            for bad in (b"", b"nonsense", good[:len(good) // 2]):
                with open(path, "wb") as f:
                    f.write(bad)
                tekd.hup()
                assert shown() == first
                given(open_one.ask(m), m, bsa)
            with open(path, "wb") as f:
                f.write(good)
        assert "reload-refused" in tekd.log() and "event=reloaded" not in tekd.log()
        shutil.copy(tekd.path("pki", "bsa-4.crt"), tekd.path("pki", "tekd.crt"))
        shutil.copy(tekd.path("pki", "bsa-4.key"), tekd.path("pki", "tekd.key"))
        tekd.hup()
        assert shown() != first
        given(open_one.ask(m), m, bsa)


def changed_config(tekd):
    return tekd.audit().of("config.changed")


def test_sighup_is_a_record_of_who_and_what(tekd):
    import getpass
    first = len(changed_config(tekd))
    with open(tekd.path("pki", "ca.crl"), "rb") as f:
        good = f.read()
    with open(tekd.path("pki", "ca.crl"), "wb") as f:
        f.write(b"nonsense")
    tekd.hup()
    assert len(changed_config(tekd)) == first  # it was refused
    with open(tekd.path("pki", "ca.crl"), "wb") as f:
        f.write(good)
    tekd.hup()
    shutil.copy(tekd.path("pki", "bsa-4.crt"), tekd.path("pki", "tekd.crt"))
    shutil.copy(tekd.path("pki", "bsa-4.key"), tekd.path("pki", "tekd.key"))
    tekd.hup()
    wait_until(lambda: len(changed_config(tekd)) == first + 2, "both are recorded")
    assert [(r["actor"], r["uid"], r["detail"]) for r in changed_config(tekd)[first:]] == \
        [(getpass.getuser(), os.getuid(), detail) for detail in
         ("SIGHUP: the same files",
          f"SIGHUP: tls.certificate={sha256_of(tekd.path('pki', 'bsa-4.crt'))}")]


def test_another_configuration_is_a_record_at_the_start(tekd):
    first = changed_config(tekd)
    tekd.restart()
    assert changed_config(tekd) == first
    before = tekd.audit().of("log.started")[-1]["config"]
    tekd.restart(policy={"message_window_s": 86400})
    log = tekd.audit()
    started, changed = log.of("log.started")[-1], log.of("config.changed")[len(first):]
    assert [(r["seq"], r["actor"], r["config"], r["detail"]) for r in changed] == \
        [(started["seq"] + 1, "tekd", started["config"], f"start: the one before was {before}")]
    assert started["config"] == sha256_of(tekd.path("tekd.yaml")) != before
    tekd.kill()
    tekd.start()
    assert changed_config(tekd) == first + changed


def test_sighup_under_load_disturbs_nobody(tekd):
    load = Load(tekd, 8, lambda i, n: (request(f"h-{i}-{n}", f"urn:{n}", "bsa-1"), "xml")).start()
    for turn in range(10):
        wait_until(lambda: len(load.answered) > 20 * (turn + 1), "answers")
        tekd.hup()
    load.stop()
    assert not load.errors and {r.status for *_, r in load.answered} == {200}


# ---- probes ----------------------------------------------------------------------------------------

def test_probes(tekd):
    assert tekd.probe("/healthz") == (200, "alive\n")
    assert tekd.probe("/readyz") == (200, "ready\n")
    assert tekd.probe("/readyz?x=y") == (200, "ready\n")
    for path in ("/", "/cp3", "/nothing", "/healthz/"):
        assert tekd.probe(path)[0] == 404
    done = subprocess.run(["/usr/bin/python3", "-c", f"""
import http.client
c = http.client.HTTPConnection("127.0.0.1", {tekd.admin_port}, timeout=10)
c.request("POST", "/readyz", b"")
print(c.getresponse().status)
"""], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "405\n"


def test_no_probes_unless_configured(new_tekd):
    tekd = new_tekd(admin={"http": None}).start(wait=None)
    wait_until(lambda: tekd.tekctl("status", check=False).returncode == 0, "the admin socket")
    assert tekd.probe("/healthz") is None
