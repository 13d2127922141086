"""provisioning/quickstart from the outside: what it shows is true, and its demo serves others."""

import os
import re
import signal
import subprocess

import pytest

from cp3py import auditlog, client
from cp3py.messages import request
from cp3py.unwrap import unwrap
from harness import procs
from harness.procs import run, wait_until
from harness.programs import BUILD, TOP, is_sanitized

QUICKSTART = os.path.join(TOP, "provisioning", "quickstart")
STEPS = ("token", "keys", "PKI", "configuration", "tekd", "enrolment", "Key Request",
         "the same Message ID", "bsa-1 listens", "Key Delivery", "audit log", "the audit records")

pytestmark = pytest.mark.skipif(is_sanitized() != "", reason="its patience is for a normal build")


class Demo:
    """A state directory of the quickstart, as another BSA program would use it."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def argv(self, *more):
        """The build folder as somebody types it who stands beside it."""
        return [QUICKSTART, "--build", os.path.relpath(BUILD), "--dir", self.folder, *more]

    def text(self, *names):
        with open(self.path(*names), encoding="utf-8") as f:
            return f.read()

    def kek(self):
        return bytes.fromhex(self.text("bsa", "bsa-1.kek").strip())

    def ask(self, mid, content, media="xml"):
        port = int(re.search(r"port: (\d+)", self.text("tekd.yaml"))[1])
        tls = client.context(self.path("pki", "ca.crt"), self.path("pki", "bsa-1.crt"),
                             self.path("pki", "bsa-1.key"))
        with client.Connection(port, tls) as c:
            r = c.ask(request(mid, content, "bsa-1"), media)
        assert r.status == 200, r
        return r.message()

    def tek(self, message):
        return unwrap("aes-kw", self.kek(), message.data)


@pytest.fixture
def demo(folder):
    return Demo(os.path.join(folder, "demo"))


def test_a_build_folder_that_is_not_there_is_refused(folder):
    done = run([QUICKSTART, "--build", os.path.join(folder, "none"), "--dir",
                os.path.join(folder, "demo")], check=False)
    assert done.returncode == 1 and done.stderr == \
        "quickstart: there is no build folder of that name\n", done
    assert os.listdir(folder) == []


def values(text, name):
    return re.findall(rf"^ +{name} +(\S+)$", text, re.M)


def test_once_and_again_and_serving(demo, quickstart_turn):
    with quickstart_turn():
        once_and_again_and_serving(demo)


def once_and_again_and_serving(demo):
    done = run(demo.argv("--once"), timeout=300)
    for step in STEPS:
        assert re.search(rf"^==> .*{step}", done.stdout, re.M), (step, done.stdout)
    # It ends with commands that need no server, and they work.
    *offline, serve = done.stdout.split("==> commands to try next\n")[1].splitlines()
    assert len(offline) == 2 and serve.split()[:3] == [QUICKSTART, "--dir", demo.folder]
    ledger, proof = (run(command.split()).stdout for command in offline)
    assert "bsa-1" in ledger and proof.startswith("c2sp.org/tlog-proof@v1\n")
    shown = re.search(r"TEK, unwrapped by the BSA: ([0-9a-f]{32})$", done.stdout, re.M)[1]
    assert re.search(r"verified \d+ records under checkpoint", done.stdout), done.stdout
    mid = values(done.stdout, "message_id")[0]
    assert f'"mid":"{mid}"' in done.stdout
    first = auditlog.Log(demo.path("audit", mid), demo.path("checkpoint.pem"))
    assert first.ledger["bsa-1", mid]["keyid"] == values(done.stdout, "key_id")[0]
    assert not os.path.exists(demo.path("tekd.sock"))
    # The pushed one: confirmed, as the log says, and unwrapped to the same TEK.
    pushed = [r for r in first.of("delivery.confirmed") if r["mid"] in done.stdout]
    assert len(pushed) == 1
    assert {demo.text("bsa", "teks", name).strip() for name in
            os.listdir(demo.path("bsa", "teks"))} == {shown}
    for name in ("hsm.pin", "bsa/bsa-1.kek", "pki/ca.key", "tekd.db"):
        assert os.stat(demo.path(name)).st_mode & 0o077 == 0, name

    # Again: what is there stays, and the TEK of the same content is the same.
    kept = {name: demo.text(*name.split("/")) for name in
            ("hsm.pin", "bsa/bsa-1.kek", "pki/ca.crt", "pki/bsa-1.crt", "checkpoint.pem")}
    again = run(demo.argv("--once"), timeout=300)
    assert kept == {name: demo.text(*name.split("/")) for name in kept}
    assert f"TEK, unwrapped by the BSA: {shown}" in again.stdout
    other = values(again.stdout, "message_id")[0]
    assert other != mid
    second = auditlog.Log(demo.path("audit", other), demo.path("checkpoint.pem"),
                          since=first.checkpoint)
    assert {("bsa-1", mid), ("bsa-1", other)} == set(second.ledger)

    # Without --once it serves on, also a BSA that is not ours; a signal ends all of it.
    with open(demo.path("out.txt"), "wb") as out:
        serving = subprocess.Popen(demo.argv(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   start_new_session=True)
    try:
        wait_until(lambda: "serving until Ctrl-C" in demo.text("out.txt"), "it serves", 120)
        assert re.search(r"^==> commands to try next", demo.text("out.txt"), re.M)
        content = re.search(r'"content":"([^"]+)"', done.stdout)[1]
        message = demo.ask("m-of-another-program", content)
        assert demo.tek(message).hex() == shown
        assert demo.tek(demo.ask("m-2", "urn:another", "json")).hex() != shown
        family = procs.descendants(serving.pid)
        assert len(family) >= 4
        serving.send_signal(signal.SIGINT)
        assert serving.wait(60) == 130
        wait_until(lambda: not any(procs.is_alive(p) for p in family), "the end of its processes")
    finally:
        for pid in procs.descendants(serving.pid) + [serving.pid]:
            procs.kill(pid)
        serving.wait()


@pytest.mark.parametrize("words", [["--nonsense"], ["--dir"], ["x"]])
def test_usage_is_2_and_makes_nothing(folder, words):
    done = run([QUICKSTART, *words], check=False, cwd=folder)
    assert done.returncode == 2 and "usage" in done.stderr
    assert os.listdir(folder) == []
