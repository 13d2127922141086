"""No clear TEK and no PIN in tekd's memory, its files, its logs and a core dump of it.

Every test of absence stands beside one where the same scan of the same places finds what was
planted there.
"""

import base64
import os
import pty
import subprocess
import sys

import pytest

from cp3py import client
from cp3py.messages import request
from harness import procs, scan
from harness.answers import checked, given
from harness.load import Load
from harness.procs import run, wait_until
from harness.programs import is_sanitized, tool
from harness.scan import Scanner

PINS = ("hsm.pin", "so.pin")  # what holds a PIN by its nature

pytestmark = pytest.mark.skipif(is_sanitized() != "", reason="shadow memory has no end")


@pytest.fixture(scope="session")
def scanner(workdir):
    """scanner(secrets) makes a Scanner."""
    library = scan.build(workdir)
    return lambda secrets: Scanner(library, secrets)


def core_of(pid, folder):
    prefix = os.path.join(folder, "core")
    run([tool("gcore"), "-o", prefix, pid], timeout=300)
    return f"{prefix}.{pid}"


def forms(found):
    """The forms in which something was found: raw, hex, base64."""
    return {label.split(" as ")[1].split()[0].replace("upper-case", "hex") for label in found}


def test_patterns_of_base64_meet_the_secret_wherever_it_stands(scanner):
    secret = bytes(range(200, 216))
    s = scanner({"it": secret})
    for before in range(7):
        for after in range(5):
            text = base64.b64encode(os.urandom(before) + secret + os.urandom(after))
            assert forms(s.scan(b"xx" + text + b"yy")) == {"base64"}
    assert s.scan(secret[:15]) == set()


def test_what_is_planted_in_a_process_is_found_in_its_memory_and_core(folder, scanner):
    secret = os.urandom(16)
    s = scanner({"tek": secret})
    program = ("import sys, base64; k = bytes.fromhex(sys.stdin.readline()); "
               "a = {'raw': lambda: bytearray(k), 'hex': lambda: bytearray(k.hex().encode()), "
               "'base64': lambda: bytearray(base64.b64encode(b'x' + k))}[sys.argv[1]](); "
               "k = bytes(16); print('ready', flush=True); sys.stdin.read()")
    for form in ("raw", "hex", "base64"):
        with subprocess.Popen([sys.executable, "-c", program, form], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as p:
            try:
                p.stdin.write(secret.hex().encode() + b"\n")
                p.stdin.flush()
                assert p.stdout.readline() == b"ready\n"
                found, seen = s.scan_process(p.pid)
                assert form in forms(found) and seen > 1000000
                assert form in forms(s.scan_file(core_of(p.pid, folder)))
            finally:
                p.kill()


LOGS_ALL = {"level": "debug", "format": "json"}


def busy_server(new_tekd):
    """A server that did all it can do, and is doing it; the TEKs it gave, as the BSAs see them."""
    tekd = new_tekd(log=LOGS_ALL).start()
    load = Load(tekd, 8, lambda i, n: (request(f"s-{i}-{n}", f"urn:three:{n}", f"bsa-{i % 4 + 1}"),
                                       ("xml", "json")[n % 2]), lambda i: f"bsa-{i % 4 + 1}")
    load.start()
    wait_until(lambda: len(load.answered) > 150, "answers")
    content = "urn:three:0"
    tekd.tekctl("key", "rotate", content)
    tekd.tekctl("key", "destroy", tekd.ctl("key", "list", content)[0]["key_id"])
    for name in ("expired", "stranger"):
        with pytest.raises((OSError, client.HttpError, AssertionError)):
            with tekd.connect(name) as c:
                given(c.post(b"<broken"), request("m", "c", "s"), None)
    procs.kill([w["pid"] for w in tekd.ctl("hsm", "status")["workers"] if w["role"] == "key"][0])
    tekd.export()
    wait_until(lambda: len(load.answered) > 300, "answers")
    return tekd, load


def secrets_of(tekd, load):
    teks = {}
    for _, m, _, r in list(load.answered):
        if checked(r).status == 200 and r.message().status == 0:
            tek = tekd.clear(m.source, r.message().data)
            teks[f"TEK of {m.content} {tek[:2].hex()}"] = tek
    assert len(teks) > 20
    return {**teks, "PIN": tekd.template.pin.encode()}


def test_tekd_holds_no_tek_and_no_pin(new_tekd, folder, scanner):
    tekd, load = busy_server(new_tekd)
    for moment in ("under load", "after it"):
        s = scanner(secrets_of(tekd, load))
        found, seen = s.scan_process(tekd.pid)
        assert (found, seen > 1000000) == (set(), True), moment
        assert s.scan_file(core_of(tekd.pid, folder)) == set(), moment
        if moment == "under load":
            load.stop()
    # Files: the database and its log, the token, the logs, the export; not what holds the PIN.
    s = scanner(secrets_of(tekd, load))
    assert s.scan_folder(tekd.folder, leave_out=PINS) == {}
    tekd.stop()
    assert s.scan_folder(tekd.folder, leave_out=PINS) == {}


def test_the_same_scan_finds_what_is_planted_in_tekd(new_tekd, folder, scanner):
    """The TEK comes back to it in a MessageID, in hex and in base64, and raw in half a body."""
    tekd = new_tekd(log=LOGS_ALL).start()
    m = request("first", "urn:three:0", "bsa-1")
    with tekd.connect() as c:
        tek = tekd.clear("bsa-1", given(c.ask(m), m, tekd.template.bsas["bsa-1"]).data)
    s = scanner({"TEK": tek, "PIN": tekd.template.pin.encode()})
    assert s.scan_process(tekd.pid)[0] == set()
    with tekd.connect() as c, tekd.connect() as half:
        for n, mid in enumerate((tek.hex(), base64.b64encode(tek).decode(), tekd.template.pin)):
            m = request(mid, f"urn:three:{n}", "bsa-1")
            given(c.ask(m), m, tekd.template.bsas["bsa-1"])
            # Broken ones get into the debug log, if anything does.
            c.post(m.encode()[:-3])
        half.send(client.head("POST", "/cp3", [("Host", "x"), ("Content-Length", "5000"),
                                               ("Content-Type", "application/xml")]) + tek * 100)
        wait_until(lambda: "TEK as raw" in s.scan_process(tekd.pid)[0], "the half body in memory")
        found, _ = s.scan_process(tekd.pid)
        assert {"TEK as raw", "TEK as hex", "PIN as raw"} <= found
        assert forms(found) >= {"raw", "hex", "base64"}
        assert forms(s.scan_file(core_of(tekd.pid, folder))) >= {"raw", "hex", "base64"}
    tekd.export()
    tekd.stop()
    files = s.scan_folder(tekd.folder, leave_out=PINS)
    in_files = {os.path.basename(path): hits for path, hits in files.items()}
    for name in ("tekd.db", "audit.jsonl"):
        assert {"TEK as hex", "PIN as raw"} <= in_files[name]
        assert forms(in_files[name]) >= {"hex", "base64"}


# ---- a PIN that passes through tekd ----------------------------------------------------------------

def read_until(terminal, text):
    shown = b""
    while text not in shown:
        shown += os.read(terminal, 1000)
    return shown


def retry_with_pin(tekd):
    """As typed on a terminal; what that showed."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0):
        with subprocess.Popen(tekd.tekctl_argv("hsm", "retry", "--ask-pin"), stdin=theirs,
                              stdout=theirs, stderr=theirs, start_new_session=True) as p:
            os.close(theirs)
            shown = read_until(ours, b"PIN: ")
            os.write(ours, tekd.template.pin.encode() + b"\n")
            shown += read_until(ours, b"\n")
            assert p.wait(60) == 0
    return shown


def test_a_pin_that_passes_through_tekd_does_not_stay_there(new_tekd, folder, scanner):
    """By a descriptor at the start, and from tekctl after the death of tekd-hsm."""
    tekd = new_tekd(log=LOGS_ALL, hsm={"pin_file": None, "pin_fd": 7}).start_with_pin_fd()
    s = scanner({"PIN": tekd.template.pin.encode()})
    m = request("m", "urn:x", "bsa-1")
    with tekd.connect() as c:
        given(c.ask(m), m, tekd.template.bsas["bsa-1"])

    def assert_nowhere():
        found, seen = s.scan_process(tekd.pid)
        assert (found, seen > 1000000) == (set(), True)
        assert s.scan_file(core_of(tekd.pid, folder)) == set()
        assert s.scan_folder(tekd.folder, leave_out=PINS) == {}

    assert_nowhere()
    parent, _ = tekd.hsm_processes()
    procs.kill(parent)
    wait_until(lambda: "PIN" in tekd.look("hsm status")["reason"], "a PIN is asked for", 60)
    assert_nowhere()
    assert s.scan(retry_with_pin(tekd)) == set()
    tekd.wait_for("/readyz", seconds=60)
    assert_nowhere()
    with tekd.connect() as c:
        m = m.but(mid="m-2")
        given(c.ask(m), m, tekd.template.bsas["bsa-1"])
    # It did pass: who needs it has it, in memory that the same scan sees.
    assert "PIN as raw" in s.scan_process(tekd.hsm_processes()[0])[0]
    assert_nowhere()
    tekd.stop()
    assert s.scan_folder(tekd.folder, leave_out=PINS) == {}


def test_the_same_scan_finds_what_is_planted_in_the_log_of_tekd(new_tekd, scanner):
    """By tekd: it writes the name of a group that does not exist."""
    tekd = new_tekd(log=LOGS_ALL).start()
    m = request("first", "urn:three:0", "bsa-1")
    with tekd.connect() as c:
        tek = tekd.clear("bsa-1", given(c.ask(m), m, tekd.template.bsas["bsa-1"]).data)
    tekd.stop()
    s = scanner({"TEK": tek, "PIN": tekd.template.pin.encode()})
    assert s.scan_file(tekd.log_path) == set()
    for planted in (tek.hex(), tekd.template.pin):
        tekd.configure(admin={"group": planted})
        tekd.start()
        tekd.stop()
    found = s.scan_folder(tekd.folder, leave_out=(*PINS, "tekd.yaml"))
    assert list(found) == [tekd.log_path]
    assert {"TEK as hex", "PIN as raw"} <= found[tekd.log_path]
