"""Checkpoints that are published off the host: where they go, and what becomes of failures."""

import os
import re
import time

import pytest

from harness.procs import run, wait_until
from harness.programs import TOP, is_sanitized, program
from harness.syslogd import Syslogd

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
