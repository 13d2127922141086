"""Who changes the database while the server is down: the next start, or its background check, tells.

The tests play the database's administrator: Python's own sqlite3 on the file of a stopped server.
"""

import os
import shutil
import sqlite3

import pytest

from cp3py.messages import request
from harness.procs import wait_until
from harness.programs import is_sanitized

LIMIT_S = 120 if is_sanitized() else 30
STORE_FAILED = 74


@pytest.fixture
def used(tekd):
    """A stopped server whose log has some answers under an anchored checkpoint."""
    ask(tekd, "a", 20)
    tekd.stop()
    return tekd


def ask(tekd, prefix, n):
    with tekd.connect() as c:
        for i in range(n):
            assert c.ask(request(f"{prefix}-{i}", f"urn:{i}", "bsa-1")).status == 200


def change(tekd, statement, *values, rows=1):
    db = sqlite3.connect(tekd.path("tekd.db"))
    try:
        with db:
            assert db.execute(statement, values).rowcount == rows
    finally:
        db.close()


def rows(tekd, query):
    db = sqlite3.connect(tekd.path("tekd.db"))
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def assert_refused(tekd, check):
    """It ends with the status of a failed store, at the start or once the old part was read."""
    tekd.start(wait=None)
    assert tekd.wait_end(LIMIT_S) == STORE_FAILED, tekd.log()[-2000:]
    assert f"store event=tamper check={check} record=" in tekd.log(), tekd.log()[-2000:]


def test_what_nobody_changed_starts(used):
    used.start()
    ask(used, "b", 3)
    used.audit()


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_changed_record_is_found(used, where):
    leaves = rows(used, "SELECT seq, octets FROM leaf ORDER BY seq")
    seq, octets = {"first": leaves[1], "middle": leaves[len(leaves) // 2],
                   "last": leaves[-1]}[where]
    change(used, "UPDATE leaf SET octets = ? WHERE seq = ?",
           octets.replace(b'"v":1', b'"v":2'), seq)
    assert_refused(used, "root")


def test_deleted_record_is_found(used):
    change(used, "DELETE FROM leaf WHERE seq = 20")
    assert_refused(used, "root")


def test_truncated_log_is_found(used):
    """Records and checkpoints of the end gone, the rest whole in itself: the anchor knows."""
    size = rows(used, "SELECT max(size) FROM checkpoint")[0][0]
    older = rows(used, f"SELECT max(size) FROM checkpoint WHERE size < {size - 5}")[0][0]
    gone = len(rows(used, f"SELECT seq FROM leaf WHERE seq >= {older}"))
    change(used, "DELETE FROM leaf WHERE seq >= ?", older, rows=gone)
    change(used, "DELETE FROM checkpoint WHERE size > ?", older,
           rows=len(rows(used, f"SELECT size FROM checkpoint WHERE size > {older}")))
    assert_refused(used, "anchor-beyond-database")


def test_old_backup_is_found(used):
    shutil.copy(used.path("tekd.db"), used.path("backup.db"))
    used.start()
    ask(used, "b", 5)
    used.stop()
    for name in ("tekd.db-wal", "tekd.db-shm"):
        if os.path.exists(used.path(name)):
            os.unlink(used.path(name))
    shutil.copy(used.path("backup.db"), used.path("tekd.db"))
    assert_refused(used, "anchor-beyond-database")


def test_record_behind_log_stopped_is_found(used):
    """Whoever appends while the server is down has no signature for it."""
    seq, octets = rows(used, "SELECT seq, octets FROM leaf ORDER BY seq DESC LIMIT 1")[0]
    assert b'"ev":"log.stopped"' in octets
    change(used, "INSERT INTO leaf (seq, octets) VALUES (?, ?)", seq + 1,
           octets.replace(b"log.stopped", b"log.heartbeat").replace(b'"seq":%d' % seq,
                                                                    b'"seq":%d' % (seq + 1)))
    assert_refused(used, "record-after-stop")


def test_checkpoint_of_another_key_is_found(used):
    """Also one that fits the changed records: the signature is made in the HSM only."""
    size, note = rows(used, "SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1")[0]
    text, _, signature = bytes(note).rpartition(b" ")
    other = b"B" if signature[20:21] == b"A" else b"A"  # still base64
    forged = text + b" " + signature[:20] + other + signature[21:]
    change(used, "UPDATE checkpoint SET note = ? WHERE size = ?", forged, size)
    assert_refused(used, "checkpoint-signature")


def test_anchor_of_the_future_is_found(used):
    """The anchor file is newer than the database, which is the older backup's case from its side."""
    with open(used.path("anchor", "checkpoint"), "rb") as f:
        anchor = f.read()
    lines = anchor.split(b"\n")
    lines[1] = str(int(lines[1]) + 1).encode()
    with open(used.path("anchor", "checkpoint"), "wb") as f:
        f.write(b"\n".join(lines))
    assert_refused(used, "anchor-signature")


def test_database_of_another_bsm_is_refused(used):
    used.configure(bsm_id="other.example.net")
    used.start(wait=None)
    assert used.wait_end(LIMIT_S) in (1, STORE_FAILED)
    assert "event=database-of-another what=bsm_id" in used.log()
    used.configure(bsm_id="bsm.example.net")
    used.start()
    wait_until(lambda: used.ctl("status")["ready"], "it is ready again")
