"""Checkpoints that are published off the host: where they go, and what becomes of failures."""

import os
import re
import time

import pytest

from cp3py.auditlog import Log
from harness.pki import Ca
from harness.procs import run, wait_until
from harness.programs import TOP, is_sanitized, program
from harness.syslogd import Syslogd
from harness.tsa import Tsa
from reader import verifier

KEYS_S = 10 if is_sanitized() else 2  # a key comes within, whoever hangs


def block(document, name):
    """The commands of a document that begin with this comment."""
    with open(os.path.join(TOP, "docs", document), encoding="utf-8") as f:
        return re.search(rf"^```bash\n# {name}\n(.*?)^```$", f.read(), re.M | re.S)[1]


def shell(text, cwd, **env):
    return run(["bash", "-euo", "pipefail", "-c", text], cwd=cwd, env={**os.environ, **env})


def published(tekd, by):
    return next(p for p in tekd.ctl("status")["published"] if p["by"] == by)


def wait_published(tekd, by, size=1):
    """Until a note over so many records is there."""
    return wait_until(lambda: (p := published(tekd, by))["size"] >= size and p,
                      f"{by} over {size} records")


def wait_failing(tekd, by, reason):
    found = wait_until(lambda: (p := published(tekd, by))["failing"] and p, f"{by} to fail")
    assert re.search(reason, found["reason"]), found
    return found


def assert_keys_go_on(tekd):
    """Quickly, and tekd is as ready as ever."""
    begun = time.monotonic()
    n = assert_keys_go_on.n = getattr(assert_keys_go_on, "n", 0) + 1
    assert tekd.ask(f"published-{n}", f"urn:published:{n}").status == 200
    assert time.monotonic() - begun < KEYS_S
    assert tekd.probe("/readyz")[0] == 200


def covered(tekd):
    """The size that a checkpoint has now."""
    return tekd.ctl("audit", "checkpoint")["size"]


# ---- syslog ----

@pytest.fixture
def syslogd(folder):
    daemons = []

    def start(path=os.path.join(folder, "log")):
        daemons.append(Syslogd(path))
        return daemons[-1]

    start.path = os.path.join(folder, "log")
    yield start
    for daemon in daemons:
        daemon.close()


def test_notes_in_syslog_are_those_of_the_log(new_tekd, syslogd, folder):
    daemon = syslogd()
    tekd = new_tekd(audit={"syslog": {"socket": syslogd.path, "facility": "local3"}}).start()
    size = covered(tekd)
    state = wait_published(tekd, "syslog", size)
    assert (state["to"], state["failing"], state["epoch"]) == (syslogd.path, False, 1)
    last = wait_until(daemon.messages, "a message")[-1]
    assert re.match(rb"<157>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d tekd\[%d\]: checkpoint [ -~]+\Z"
                    % tekd.pid, last), last
    log = os.path.join(folder, "syslog")
    with open(log, "wb") as f:  # as a daemon writes it to a file
        for message in daemon.messages():
            f.write(b"Jan  1 00:00:00 host " + message.split(b" ", 3)[3] + b"\n")
    shell(block("audit.md", "note-from-syslog"), folder, LOG=log, TMP=folder)
    kept = os.path.join(folder, "note")
    # What an auditor does with it: it is a note that the log of later leads through.
    assert_keys_go_on(tekd)
    export = tekd.export()
    run([program("tek-audit"), "verify", export, "--key", tekd.path("checkpoint.pem"), "--since",
         kept])
    tekd.stop()


def test_syslog_that_fails_is_told_and_stops_no_key(new_tekd, syslogd):
    tekd = new_tekd(audit={"syslog": {"socket": syslogd.path}}).start()
    wait_failing(tekd, "syslog", "No such file or directory")
    assert 'warn publish event=failed by=syslog to=' + syslogd.path in tekd.log()
    assert "FAILING since" in tekd.tekctl("status").stdout
    assert_keys_go_on(tekd)
    daemon = syslogd()
    wait_until(daemon.messages, "a message")
    wait_until(lambda: not published(tekd, "syslog")["failing"], "an end of the failures")
    assert "info publish event=works-again by=syslog" in tekd.log()
    assert "FAILING" not in tekd.tekctl("status").stdout
    tekd.stop()


def test_syslog_that_hangs_delays_nobody_and_no_stop(new_tekd, syslogd):
    daemon = syslogd()
    daemon.fill()
    tekd = new_tekd(audit={"syslog": {"socket": syslogd.path}}).start()
    wait_failing(tekd, "syslog", "the daemon has not read for 2000 ms")
    assert_keys_go_on(tekd)
    assert tekd.ctl("status")["store"]["anchor"]["failing"] is False
    tekd.stop()


# ---- time stamps ----

# In a time stamp, what is before the hash: SHA-256, no parameters, an OCTET STRING.
IMPRINT = bytes.fromhex("608648016503040201" "0500" "0420")

@pytest.fixture
def new_tsa(folder):
    made = []

    def make(ca=None):
        made.append(Tsa(os.path.join(folder, f"tsa-{len(made)}"), ca))
        return made[-1]

    yield make
    for tsa in made:
        tsa.close()


def stamped(new_tekd, tsa, **more):
    return new_tekd(audit={"timestamp": {"url": tsa.url, "tsa_ca": tsa.ca_file, **more}})


def anchors(export):
    return sorted(os.listdir(os.path.join(export, "anchors")))


def verify(tekd, export, *options):
    return run([program("tek-audit"), "verify", export, "--key", tekd.path("checkpoint.pem"),
                "--first", *options], check=False)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_time_stamps_are_verified_kept_and_exported(new_tekd, new_tsa, folder, scheme):
    web_ca = Ca(os.path.join(folder, "web"), "web-ca")
    tsa = new_tsa(web_ca if scheme == "https" else None)
    tekd = stamped(new_tekd, tsa, **({"tls_ca": web_ca.path("web-ca.crt")}
                                     if scheme == "https" else {}))
    tekd.start()
    size = covered(tekd)
    state = wait_published(tekd, "timestamp", size)
    assert (state["to"], state["failing"], state["reason"]) == (tsa.url, False, "")
    tsa.mood = "broken"  # the last one stays
    state = published(tekd, "timestamp")
    export = tekd.export()
    names = anchors(export)
    # Of a day one is kept; the day may have ended while the test ran.
    assert [n.rpartition(".")[2] for n in names] in (["note", "tsr"], ["note", "tsr"] * 2), names
    assert re.fullmatch(rf"1-{state['size']}-\d{{8}}\.tsr", names[-1]), names
    # Four that check it, none of which knows the others.
    shell(block("audit.md", "check-timestamp"), export, TSA=tsa.ca_file,
          NAME=f"anchors/{names[-1][:-4]}")
    r = verify(tekd, export, "--tsa", tsa.ca_file)
    assert r.returncode == 0 and re.search(
        rf"^time stamps: \d, the newest of \S+Z over size {state['size']}; their signatures are good$",
        r.stdout, re.M), r
    assert "without --tsa their signatures were not looked at" in verify(tekd, export).stdout
    assert verify(tekd, export, "--tsa", tekd.path("pki", "ca.crt")).returncode == 1
    with open(tekd.path("checkpoint.pem"), "rb") as f:
        verifier.verify(export, f.read())
    assert names[-1] in Log(export, tekd.path("checkpoint.pem")).stamps
    for no_ca in ("nowhere", tekd.path("checkpoint.pem")):
        assert verify(tekd, export, "--tsa", no_ca).returncode == 3
    tekd.stop()


MOODS = {
    "replaying": "it answers another question|it stamps other octets",
    "refusing": "refused with status 2: Message digest algorithm is not supported",
    "expired": "certificate refused: .*expired",
    "cut": "not a time stamp",
    "broken": "^HTTP 500$",
    "elsewhere": "^HTTP 302: redirects are not followed$",
    "another_type": 'not a time stamp: Content-Type "text/html.?"',
    "endless": "^answer longer than 65536 octets$",
}


@pytest.mark.parametrize("mood", MOODS)
def test_an_answer_that_is_no_time_stamp_is_told_and_stops_no_key(new_tekd, new_tsa, mood):
    tsa = new_tsa()
    tekd = stamped(new_tekd, tsa).start()
    wait_published(tekd, "timestamp")
    tsa.mood = mood
    assert_keys_go_on(tekd)
    wait_failing(tekd, "timestamp", MOODS[mood])
    assert "warn publish event=failed by=timestamp to=" + tsa.url in tekd.log()
    assert_keys_go_on(tekd)
    size = covered(tekd)
    tsa.mood = "good"
    wait_published(tekd, "timestamp", size)
    assert "info publish event=works-again by=timestamp" in tekd.log()
    assert verify(tekd, tekd.export(), "--tsa", tsa.ca_file).returncode == 0
    tekd.stop()


def test_a_tsa_that_hangs_delays_nobody_and_no_stop(new_tekd, new_tsa, syslogd):
    tsa, daemon = new_tsa(), syslogd()
    tekd = stamped(new_tekd, tsa)
    tekd.configure(audit={"syslog": {"socket": syslogd.path}})
    tsa.mood = "hanging"
    tekd.start()
    wait_until(lambda: tsa.asked, "a question")
    assert_keys_go_on(tekd)
    wait_published(tekd, "syslog", covered(tekd))
    assert daemon.messages()
    begun = time.monotonic()
    tekd.stop()
    assert time.monotonic() - begun < 10
    assert "by=timestamp" not in tekd.log()  # it was ended by the stop and has not failed


def test_a_tsa_that_nobody_serves_is_told(new_tekd, new_tsa):
    tsa = new_tsa()
    tekd = stamped(new_tekd, tsa)
    tsa.close()
    tekd.start()
    wait_failing(tekd, "timestamp", "^refused$")
    assert_keys_go_on(tekd)
    assert anchors(tekd.export()) == []
    tekd.stop()


def test_a_folder_that_cannot_be_written_is_told(new_tekd, new_tsa):
    tsa = new_tsa()
    tekd = stamped(new_tekd, tsa)
    with open(tekd.path("no-folder"), "w", encoding="ascii"):
        pass
    tekd.configure(audit={"published_dir": "no-folder"})
    tekd.start()
    wait_failing(tekd, "timestamp", "^what was got could not be kept: open .*no-folder: Not a dir")
    assert_keys_go_on(tekd)
    tekd.stop()


@pytest.mark.parametrize("what, words", [
    ("note", "anchor|timestamp"), ("tsr", "timestamp")])
def test_what_was_kept_and_changed_is_found_out(new_tekd, new_tsa, what, words):
    tsa = new_tsa()
    tekd = stamped(new_tekd, tsa).start()
    wait_published(tekd, "timestamp", covered(tekd))
    folder = tekd.path("anchor", "checkpoint.published")
    name = next(n for n in sorted(os.listdir(folder)) if n.endswith(what))
    with open(os.path.join(folder, name), "r+b") as f:
        octets = bytearray(f.read())
        at = octets.index(b"tekd") if what == "note" else octets.index(IMPRINT) + len(IMPRINT)
        octets[at] ^= 1
        f.seek(0)
        f.write(octets)
    tsa.mood = "broken"  # or a good one takes its place
    export = tekd.export()
    r = verify(tekd, export, "--tsa", tsa.ca_file)
    with open(tekd.path("checkpoint.pem"), "rb") as f, pytest.raises(verifier.Refused):
        verifier.verify(export, f.read())
    assert r.returncode == 1 and re.search(f"FAILED anchors/.*: ({words}): ", r.stderr), r
    tekd.stop()
