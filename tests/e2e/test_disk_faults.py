"""The disk fails under a running server: the database's, then the anchor's.

A preloaded library (shim/fail.c) fails the calls.  Whatever happens, what a client has been given
stands in the log that the next start verifies, and is given again; and an operator is told why.
"""

import errno
import os
import re
import shutil
import ssl

import pytest

from cp3py.client import HttpError
from cp3py.messages import request
from harness import shim
from harness.answers import given
from harness.clock import Clock
from harness.fail import ANCHOR, DATABASE_SYNC, DATABASE_WRITE, FAILED, FOREVER, Fail
from harness.procs import wait_until
from harness.programs import is_sanitized

STORE_FAILED = 74
END_S = 120 if is_sanitized() else 30
GONE = (OSError, ssl.SSLError, HttpError)
# Of the script below; how many syncs it makes is not the same in every run.
SOME = (1, 2, 3, 4, 6, 9, 13, 18, 24, 31)
HEARTBEAT_US = 300_000_000
BEATS = 5
MANY = 12  # syncs that the script makes at least


@pytest.fixture(scope="session")
def library(workdir):
    return shim.build(workdir, "fail")


@pytest.fixture
def fail(library, folder):
    page = Fail(library, folder)
    yield page
    page.close()


@pytest.fixture
def stage(new_stage, fail):
    """A server under the shim with two BSAs, stopped."""
    stage = new_stage(["p-0", "p-4"], env=fail.env,
                      audit={"checkpoint_max_delay_ms": 200}).start()
    stage.tekd.stop()
    return stage


class Script:
    """Requests and pushes as long as the server is there; remembers what was given."""

    def __init__(self, stage):
        self.stage = stage
        self.tekd = stage.tekd
        self.given = {}  # request -> Data

    def ask(self, mid, content, name="p-0"):
        """The HTTP status; None when nobody answered."""
        bsa = self.stage[name]
        m = request(mid, content, name)
        try:
            with self.tekd.connect(name) as c:
                r = c.ask(m, bsa.media)
        except GONE:
            return None
        if r.status == 200:
            data = given(r, m, bsa.peer, bsa.media).data
            assert self.given.setdefault((mid, content, name), data) == data
        return r.status

    def play(self):
        for n in range(3):
            self.ask(f"m-{n}", f"urn:{n}")
            self.ask(f"m-{n}", f"urn:{n}", "p-4")
            self.ask(f"m-{n}", f"urn:{n}")  # a repeat
            for words in (("content", "add", f"urn:push:{n}"), ("deliver", f"urn:push:{n}"),
                          ("key", "rotate", f"urn:{n}")):
                self.tekd.tekctl(*words, check=False)

    def check(self):
        """After another start: all of it is there, once; the deliveries come to their end."""
        for mid, content, name in list(self.given):
            assert self.ask(mid, content, name) == 200
        self.stage.wait_all()
        log = self.stage.verify()
        assert {(name, mid) for mid, _, name in self.given} <= set(log.ledger)
        return log


def started(tekd):
    """Starts it; whether it came to serve."""
    tekd.start(wait=None)
    wait_until(lambda: tekd.process.poll() is not None or (tekd.probe("/readyz") or (0,))[0] == 200,
               "a server or its end", END_S)
    return tekd.process.poll() is None


def ended(tekd):
    """Its exit status: by itself, or because it was asked to."""
    if tekd.process.poll() is None:
        tekd.process.terminate()
    return tekd.wait_end(END_S)


def fails_at(stage, fail, k):
    """The script with the k-th sync of the database failing; whether there was a k-th."""
    script = Script(stage)
    fail.set(DATABASE_SYNC, FAILED, 0)
    fail.arm(DATABASE_SYNC, k, errno.EIO)
    if started(stage.tekd):
        script.play()
    status = ended(stage.tekd)
    fail.heal(DATABASE_SYNC)
    if fail.failed(DATABASE_SYNC) == 0:
        assert k > MANY and status == 0, "too few syncs to show anything"
        return False
    assert status == STORE_FAILED, stage.tekd.log()[-3000:]
    said = stage.tekd.log()
    assert "error store event=database call=" in said and "code=SQLITE_IOERR" in said
    stage.tekd.start()
    script.check()
    return True


@pytest.mark.parametrize("k", SOME)
def test_a_failed_sync_loses_nothing_that_was_given(stage, fail, k):
    fails_at(stage, fail, k)
    stage.tekd.stop()


@pytest.mark.soak
def test_every_failed_sync_loses_nothing_that_was_given(stage, fail, tell):
    """On the same database, so that each run also starts from what the one before left."""
    k = 1
    while fails_at(stage, fail, k):
        stage.tekd.stop()
        k += 1
    tell(f"{k - 1} runs, each with another sync of the database failing")


def test_a_full_disk_refuses_keys_and_goes_on_when_there_is_room(stage, fail):
    tekd, script = stage.tekd, Script(stage)
    tekd.start()
    assert script.ask("before", "urn:x") == 200
    pid = tekd.pid
    fail.arm(DATABASE_WRITE, 1, errno.ENOSPC, FOREVER)
    assert [script.ask(f"full-{n}", f"urn:full:{n}") for n in range(5)] == [503] * 5
    assert script.ask("before", "urn:x") in (200, 503)
    status, why = tekd.probe("/readyz")
    assert status == 503 and "no space" in why
    assert "no space" in tekd.ctl("status")["store"]["reason"]
    assert "code=SQLITE_FULL" in tekd.log() and "event=cannot-write" in tekd.log()
    fail.heal(DATABASE_WRITE)
    wait_until(lambda: tekd.probe("/readyz")[0] == 200, "room again")
    assert "event=writes-again" in tekd.log()
    assert script.ask("after", "urn:x") == 200
    assert tekd.pid == pid and tekd.process.poll() is None
    log = script.check()
    assert sum(r["count"] for r in log.of("audit.gap")) >= 1
    tekd.stop()


def test_a_disk_that_is_full_for_hours_leaves_a_gap_and_no_silence(new_stage, fail, folder):
    """Several heartbeats long: the first record after it says why there was none."""
    clock = Clock(folder)
    stage = new_stage(["p-0"], name="tekd_testclock", clock=clock.utc_us,
                      env={**fail.env, **clock.env}).start()
    tekd, script = stage.tekd, Script(stage)
    assert script.ask("before", "urn:x") == 200
    fail.arm(DATABASE_WRITE, 1, errno.ENOSPC, FOREVER)
    for _ in range(BEATS):
        failed = fail.failed(DATABASE_WRITE)
        clock.jump(HEARTBEAT_US)
        wait_until(lambda: tekd.look("status") and fail.failed(DATABASE_WRITE) > failed,
                   "an attempt")
    fail.heal(DATABASE_WRITE)
    wait_until(lambda: tekd.probe("/readyz")[0] == 200, "room again")
    log = script.check()
    gap, = log.of("audit.gap")
    assert gap["count"] >= BEATS - 1
    tekd.stop()
    tekd.start()
    script.check()
    tekd.stop()


@pytest.mark.parametrize("error, words", [(errno.EROFS, "SQLITE_(IOERR|READONLY)"),
                                          (errno.EIO, "SQLITE_IOERR")])
def test_a_disk_that_takes_no_more_ends_the_server(stage, fail, error, words):
    """A volume that was remounted read-only, or is broken: nobody knows what is on it."""
    tekd, script = stage.tekd, Script(stage)
    tekd.start()
    assert script.ask("before", "urn:x") == 200
    fail.arm(DATABASE_WRITE, 1, error, FOREVER)
    assert script.ask("lost", "urn:lost") in (503, None)
    assert tekd.wait_end(END_S) == STORE_FAILED
    assert_said(tekd, f"error store event=database call=.* code={words}")
    assert_said(tekd, "error store event=latched error=TEKD_EIO why=")
    fail.heal(DATABASE_WRITE)
    tekd.start()
    assert script.ask("lost", "urn:lost") == 200
    script.check()
    tekd.stop()


def assert_said(tekd, pattern):
    assert re.search(pattern, tekd.log()), tekd.log()[-3000:]


def replace(path):
    """An equal file in its place: another one all the same."""
    shutil.copy(path, path + ".copy")
    os.rename(path + ".copy", path)


@pytest.mark.parametrize("file", ["tekd.db", "tekd.db-wal"])
@pytest.mark.parametrize("take_away", [os.unlink, replace, lambda p: os.rename(p, p + ".moved")],
                         ids=["deleted", "replaced", "moved"])
def test_a_database_that_is_taken_away_ends_the_server(stage, take_away, file):
    """What is written to a file without a name is gone with the process: no key is given for it."""
    tekd, script = stage.tekd, Script(stage)
    tekd.start()
    assert script.ask("before", "urn:x") == 200
    take_away(tekd.path(file))
    assert script.ask("lost", "urn:lost") in (503, None)
    assert tekd.wait_end(END_S) == STORE_FAILED
    assert_said(tekd, f"error store event=database-gone path=.*{file} ")


def test_what_was_in_a_log_that_is_deleted_is_saved(stage):
    """SQLite's write-ahead log: what was committed was in no other file."""
    tekd, script = stage.tekd, Script(stage)
    tekd.start()
    for i in range(20):
        assert script.ask(f"before-{i}", f"urn:{i}") == 200
    os.unlink(tekd.path("tekd.db-wal"))
    assert script.ask("lost", "urn:lost") in (503, None)
    assert tekd.wait_end(END_S) == STORE_FAILED
    tekd.start()
    script.check()
    tekd.stop()


def test_a_start_without_the_database_is_told_by_the_anchor(stage):
    os.unlink(stage.tekd.path("tekd.db"))
    stage.tekd.start(wait=None)
    assert stage.tekd.wait_end(END_S) == STORE_FAILED
    assert_said(stage.tekd, "event=tamper check=anchor-")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failing_anchor_is_told_and_stops_no_key(stage, fail, error):
    tekd, script = stage.tekd, Script(stage)
    tekd.start()
    fail.arm(ANCHOR, 1, error, FOREVER)
    assert script.ask("one", "urn:x") == 200
    wait_until(lambda: tekd.look("status")["store"]["anchor"]["failing"], "an anchor that fails")
    assert_said(tekd, f"warn store event=anchor-failed .*errno={errno.errorcode[error]}")
    assert script.ask("two", "urn:y") == 200
    fail.heal(ANCHOR)
    assert script.ask("three", "urn:z") == 200
    wait_until(lambda: not tekd.look("status")["store"]["anchor"]["failing"], "an anchor again")
    script.check()
    tekd.stop()
