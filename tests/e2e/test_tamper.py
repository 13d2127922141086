"""Who changes the database or the anchor while the server is down: the next start, or its
background check, tells, each with a word of its own.

The tests play the database's administrator: Python's own sqlite3 on the file of a server that was
stopped, or killed.  What can be done to an export stands in test_audit_reader.py.
"""

import base64
import os
import re
import shutil
import sqlite3
import struct
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cp3py.messages import request
from harness import state
from harness.pki import new_key
from harness.once import once
from harness.procs import wait_until
from harness.programs import is_sanitized
from harness.stage import Stage
from harness.tekd import Tekd

SECOND = 1 << 40  # where the leaves of the second epoch begin, and its checkpoints
LIMIT_S = 120 if is_sanitized() else 30
STORE_FAILED = 74
BSA = "p-0"


# ---- the server that is tampered with --------------------------------------------------------------

def use(stage, prefix):
    """Twenty answers and two confirmed deliveries."""
    with stage.tekd.connect(BSA) as c:
        for i in range(20):
            m = request(f"{prefix}-{i}", f"urn:{i}", BSA)
            assert c.ask(m, stage[BSA].media).status == 200
    for i in range(2):
        stage.wait(stage.deliver(f"urn:push:{prefix}:{i}", BSA)[0])


@pytest.fixture(scope="module")
def ended(push_template):
    """Folders of a server that was stopped, of one that was killed, and of one that was stopped in
    its second epoch, with a delivery that had been carried into it."""
    return once("ended", lambda folder: end_three_times(folder, push_template))


def end_three_times(top, push_template):
    stage = Stage(os.path.join(top, "server"), push_template, [BSA])
    folders = {}
    try:
        for how, end in (("stopped", stage.tekd.stop), ("killed", stage.tekd.kill)):
            stage.start() if not folders else stage.tekd.start()
            use(stage, how)
            # What the anchor does not cover yet may be cut off, and status says how much that is.
            wait_until(lambda: stage.tekd.look("status")["store"]["anchor"]["beyond"] == 0,
                       "the anchor")
            end()
            if os.path.exists(stage.tekd.path("tekd.sock")):  # of the one that was killed
                os.unlink(stage.tekd.path("tekd.sock"))
            folders[how] = state.copy(stage.tekd.folder, os.path.join(top, how))
        stage.tekd.start()
        stage[BSA].plays("reject")
        mid, = stage.deliver("urn:carried", BSA)
        stage.tekd.ctl("audit", "close-epoch")
        stage[BSA].plays("confirm")
        stage.wait(mid)
        use(stage, "epochs")
        wait_until(lambda: stage.tekd.look("status")["store"]["anchor"]["beyond"] == 0, "the anchor")
        stage.tekd.stop()
        folders["epochs"] = state.copy(stage.tekd.folder, os.path.join(top, "epochs"))
        return folders
    finally:
        stage.close()


@pytest.fixture
def revived(ended, folder, push_template):
    """revived(how): a server of its own on a copy of that folder, not started."""
    made = []

    def make(how="stopped", **settings):
        made.append(Tekd(state.copy(ended[how], os.path.join(folder, "server")), push_template,
                         **settings))
        return made[-1]

    yield make
    for tekd in made:
        tekd.close()


def sql(tekd, statement, *values, rows=None):
    """What it selects; a change is of so many rows."""
    db = sqlite3.connect(tekd.path("tekd.db"))
    try:
        with db:
            done = db.execute(statement, values)
            assert rows in (None, done.rowcount), done.rowcount
            return done.fetchall()
    finally:
        db.close()


def assert_refused(tekd, check):
    """It ends with the status of a failed store, at the start or once the old part was read."""
    tekd.start(wait=None)
    assert tekd.wait_end(LIMIT_S) == STORE_FAILED, tekd.log()[-2000:]
    assert f"store event=tamper check={check} record=" in tekd.log(), tekd.log()[-2000:]


# ---- records ---------------------------------------------------------------------------------------

def leaves(tekd):
    return [(seq, bytes(octets)) for seq, octets in
            sql(tekd, "SELECT seq, octets FROM leaf ORDER BY seq")]


def put(tekd, seq, octets):
    sql(tekd, "UPDATE leaf SET octets = ? WHERE seq = ?", octets, seq, rows=1)


def find(tekd, event, n=0):
    """The n-th record of that event; -1: the last."""
    return [x for x in leaves(tekd) if b'"ev":"%s"' % event.encode() in x[1]][n]


def edit(event, old, new, n=0):
    def change(tekd):
        seq, octets = find(tekd, event, n)
        assert old in octets
        put(tekd, seq, octets.replace(old, new, 1))
    return change


def edit_at(where, old=b'"v":1', new=b'"v":2'):
    def change(tekd):
        all_leaves = leaves(tekd)
        seq, octets = all_leaves[where if where != "middle" else len(all_leaves) // 2]
        put(tekd, seq, octets.replace(old, new, 1))
    return change


def swap(tekd):
    (one, a), (other, b) = leaves(tekd)[10:12]
    put(tekd, one, b.replace(b'"seq":%d' % other, b'"seq":%d' % one))
    put(tekd, other, a.replace(b'"seq":%d' % one, b'"seq":%d' % other))


def insert(tekd):
    """One more in the middle, the later ones moved and numbered anew."""
    for seq, octets in reversed(leaves(tekd)[12:]):
        sql(tekd, "UPDATE leaf SET seq = ?, octets = ? WHERE seq = ?", seq + 1,
            octets.replace(b'"seq":%d' % seq, b'"seq":%d' % (seq + 1)), seq, rows=1)
    sql(tekd, "INSERT INTO leaf (seq, octets) VALUES (12, ?)",
        leaves(tekd)[11][1].replace(b'"seq":11', b'"seq":12'))


def delete(where):
    return lambda tekd: sql(tekd, f"DELETE FROM leaf WHERE seq = {where}", rows=1)


def delete_moved(tekd):
    """Gone from the middle, the later ones numbered anew."""
    sql(tekd, "DELETE FROM leaf WHERE seq = 12")
    for seq, octets in leaves(tekd)[12:]:
        sql(tekd, "UPDATE leaf SET seq = ?, octets = ? WHERE seq = ?", seq - 1,
            octets.replace(b'"seq":%d' % seq, b'"seq":%d' % (seq - 1)), seq, rows=1)


def move_confirmation(tekd):
    """The confirmation of one delivery becomes that of the other."""
    seq, octets = find(tekd, "delivery.confirmed")
    other = find(tekd, "delivery.prepared", 1)[1]
    mid = [x.split(b'"mid":"')[1].split(b'"')[0] for x in (octets, other)]
    put(tekd, seq, octets.replace(*mid))


def append(event=None, seq_off=1, **changes):
    """A copy of the last record, or of the last one of an event, behind the log."""
    def change(tekd):
        last = leaves(tekd)[-1][0]
        seq, octets = find(tekd, event, -1) if event else leaves(tekd)[-1]
        octets = octets.replace(b'"seq":%d' % seq, b'"seq":%d' % (last + seq_off))
        for old, new in changes.get("octets", ()):
            assert old in octets
            octets = octets.replace(old, new, 1)
        sql(tekd, "INSERT INTO leaf (seq, octets) VALUES (?, ?)", last + changes.get("at", 1),
            octets)
    return change


# ---- checkpoints -----------------------------------------------------------------------------------

def newest(tekd, n=0):
    """(size, note, range), n-th from the end."""
    return sql(tekd, "SELECT size, note, range FROM checkpoint ORDER BY size DESC"
               " LIMIT 1 OFFSET ?", n)[0]


def renote(change):
    def of(tekd):
        size, note, _ = newest(tekd)
        after = change(bytes(note))
        assert after != note
        sql(tekd, "UPDATE checkpoint SET note = ? WHERE size = ?", after, size, rows=1)
    return of


def other_signature(note):
    text, _, signature = note.rpartition(b" ")
    other = b"B" if signature[20:21] == b"A" else b"A"  # still base64
    return text + b" " + signature[:20] + other + signature[21:]


def signed_by(key, text, origin):
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(text, ec.ECDSA(hashes.SHA256()))
    return text + "\n— ".encode() + origin + b" " + base64.b64encode(
        sha256(der).digest()[:4] + signature) + b"\n"


def other_key(note):
    """The same tree, signed by a key of the administrator's."""
    text = note[:note.index(b"\n\n") + 1]
    return signed_by(new_key(), text, text.split(b"\n")[0])


def other_origin(note):
    return note.replace(b"/tekd/audit/1", b"/tekd/audit/9")


def other_log(note):
    return note.replace(b"/tekd/audit/", b"x/tekd/audit/")


def re_range(change):
    def of(tekd):
        size, _, octets = newest(tekd)
        sql(tekd, "UPDATE checkpoint SET range = ? WHERE size = ?", change(bytes(octets)), size)
    return of


def older_note(tekd):
    size = newest(tekd)[0]
    sql(tekd, "UPDATE checkpoint SET note = ? WHERE size = ?", newest(tekd, 1)[1], size, rows=1)


def swap_notes(tekd):
    (one, a, _), (other, b, _) = newest(tekd), newest(tekd, 1)
    sql(tekd, "UPDATE checkpoint SET note = ? WHERE size = ?", b, one)
    sql(tekd, "UPDATE checkpoint SET note = ? WHERE size = ?", a, other)


def drop_checkpoints(tekd):
    sql(tekd, "DELETE FROM checkpoint")


def drop_newest(tekd):
    sql(tekd, "DELETE FROM checkpoint WHERE size = ?", newest(tekd)[0], rows=1)


def drop_of_anchor(tekd):
    """An older anchor whose checkpoint is gone."""
    size, note, _ = newest(tekd, 3)
    write_anchor(tekd, bytes(note))
    sql(tekd, "DELETE FROM checkpoint WHERE size = ?", size, rows=1)


def truncate(records_only=False):
    """The end is gone, what is left is whole in itself: the anchor knows."""
    def change(tekd):
        older = newest(tekd, 4)[0]
        sql(tekd, "DELETE FROM leaf WHERE seq >= ?", older)
        if not records_only:
            sql(tekd, "DELETE FROM checkpoint WHERE size > ?", older)
    return change


def store_key(tekd):
    der = new_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    sql(tekd, "UPDATE meta SET value = ? WHERE name = 'key'", der, rows=1)


# ---- the anchor ------------------------------------------------------------------------------------

def read_anchor(tekd):
    with open(tekd.path("anchor", "checkpoint"), "rb") as f:
        return f.read()


def write_anchor(tekd, octets):
    with open(tekd.path("anchor", "checkpoint"), "wb") as f:
        f.write(octets)


def re_anchor(change):
    return lambda tekd: write_anchor(tekd, change(read_anchor(tekd)))


def larger(note):
    lines = note.split(b"\n")
    lines[1] = b"%d" % (int(lines[1]) + 1)
    return b"\n".join(lines)


# ---- the table -------------------------------------------------------------------------------------

STOPPED = {
    "record 1, an octet": (edit_at(1), "root"),
    "a record in the middle, an octet": (edit_at("middle"), "root"),
    "the last record, an octet": (edit_at(-1), "root"),
    "another spelling": (edit("log.started", b'"v":1,', b'"v": 1,'), "root"),
    "a key twice in a line": (edit("log.started", b'"v":1,', b'"v":1,"v":1,'), "root"),
    "another BSA in an answer": (
        edit("request.answered", b'"peer":"p-0"', b'"peer":"p-1"'), "root"),
    "another time": (edit("request.answered", b'"t":"20', b'"t":"19', 3), "root"),
    "a confirmation moved to another Message ID": (move_confirmation, "root"),
    "an attempt made a confirmation": (
        edit("delivery.attempt", b"delivery.attempt", b"delivery.confirmed"), "root"),
    "two records swapped": (swap, "root"),
    "a record deleted": (delete(20), "root"),
    "record 0 deleted": (delete(0), "root"),
    "the last record deleted": (delete("(SELECT max(seq) FROM leaf)"), "records"),
    "a record deleted, the rest moved": (delete_moved, "records"),
    "a record inserted, the rest moved": (insert, "root"),
    "a record appended": (
        append(octets=[(b"log.stopped", b"log.heartbeat")]), "record-after-stop"),
    "a confirmation appended": (append("delivery.confirmed"), "record-after-stop"),
    "a start appended": (append("log.started"), "record-after-stop"),
    "truncated to a signed size": (truncate(), "anchor-beyond-database"),
    "truncated records, whole checkpoints": (truncate(records_only=True), "records"),
    "the signature of the newest note": (renote(other_signature), "checkpoint-signature"),
    "a note of another key": (renote(other_key), "checkpoint-signature"),
    "a note of another origin": (renote(other_origin), "checkpoint-origin"),
    "a note of another size": (renote(larger), "checkpoint-form"),
    "a note that is none": (renote(lambda note: b"nothing"), "checkpoint-form"),
    "an older note in its place": (older_note, "checkpoint-form"),
    "two notes swapped": (swap_notes, "checkpoint-form"),
    "the stored range, an octet": (
        re_range(lambda o: o[:-1] + bytes([o[-1] ^ 1])), "checkpoint-range"),
    "the stored range cut off": (re_range(lambda o: o[:-32]), "checkpoint-form"),
    "the newest checkpoint deleted": (drop_newest, "anchor-beyond-database"),
    "all checkpoints deleted": (drop_checkpoints, "anchor-beyond-database"),
    "the checkpoint of the anchor deleted": (drop_of_anchor, "anchor-checkpoint"),
    "the stored public key": (store_key, "checkpoint-key"),
    "the anchor of the future": (re_anchor(larger), "anchor-signature"),
    "the anchor of another key": (re_anchor(other_key), "anchor-signature"),
    "the anchor of another log": (re_anchor(other_log), "anchor-origin"),
    "the anchor of another epoch": (re_anchor(other_origin), "anchor-signature"),
    "an anchor that is none": (re_anchor(lambda note: b"nothing"), "anchor-form"),
}

# A tail that no checkpoint covers is adopted after a crash: if it is whole.
KILLED = {
    "a record in the middle, an octet": (edit_at("middle"), "root"),
    "a record behind a hole": (append(at=2, seq_off=2), "record-missing"),
    "a record with another number": (append(seq_off=7), "record-number"),
    "a line that is no record": (append(octets=[(b"{", b"[")]), "record-form"),
    "truncated to a signed size": (truncate(), "anchor-beyond-database"),
    "a note of another key": (renote(other_key), "checkpoint-signature"),
}


# ---- epochs ----------------------------------------------------------------------------------------

def relink(change):
    """Record 0 of the second epoch."""
    def of(tekd):
        octets = dict(leaves(tekd))[SECOND]
        after = change(octets)
        assert b"log.opened" in octets and after != octets
        put(tekd, SECOND, after)
    return of


def of_another_size(octets):
    return re.sub(rb'("note":"[^\\]*\\n)\d', rb"\g<1>9", octets)


def delete_carried(tekd):
    """As if it had never been open; the later ones are moved and numbered anew."""
    gone = find(tekd, "delivery.carried")[0]
    sql(tekd, "DELETE FROM leaf WHERE seq = ?", gone, rows=1)
    for seq, octets in [x for x in leaves(tekd) if x[0] > gone]:
        n = seq - SECOND
        sql(tekd, "UPDATE leaf SET seq = ?, octets = ? WHERE seq = ?", seq - 1,
            octets.replace(b'"seq":%d' % n, b'"seq":%d' % (n - 1)), seq, rows=1)


def forget(*tables, where, epoch=None):
    def change(tekd):
        for table, column in (("leaf", "seq"), ("checkpoint", "size")):
            if table in tables:
                sql(tekd, f"DELETE FROM {table} WHERE {where.format(column)}")
        if epoch is not None:
            number_epoch(epoch)(tekd)
    return change


def number_epoch(n):
    return lambda tekd: sql(tekd, "UPDATE meta SET value = ? WHERE name = 'epoch'",
                            str(n).encode(), rows=1)


def behind_its_end(tekd):
    seq, octets = [x for x in leaves(tekd) if x[0] < SECOND][-1]
    assert b"log.closed" in octets
    sql(tekd, "INSERT INTO leaf (seq, octets) VALUES (?, ?)", seq + 1,
        octets.replace(b"log.closed", b"log.heartbeat").replace(b'"seq":%d' % seq,
                                                                b'"seq":%d' % (seq + 1)))


EPOCHS = {
    "the link cut": (relink(lambda o: re.sub(rb',"note":"[^"]*"', b"", o)), "root"),
    "the link to another note": (relink(of_another_size), "root"),
    "what was carried deleted, the rest moved": (delete_carried, "records"),
    "an octet of the epoch before": (edit_at(1), "root"),
    "the first record of the epoch before deleted": (delete(0), "root"),
    "the end of the epoch before deleted": (
        delete(f"(SELECT max(seq) FROM leaf WHERE seq < {SECOND})"), "epoch-before"),
    "a record behind the end of the epoch before": (behind_its_end, "epoch-before"),
    "the last checkpoint of the epoch before deleted": (forget(
        "checkpoint", where="{0} = (SELECT max({0}) FROM checkpoint WHERE {0} < %d)" % SECOND),
        "epoch-before"),
    "the epoch before deleted": (
        forget("leaf", "checkpoint", where=f"{{0}} < {SECOND}"), "epoch-before"),
    "the second epoch deleted": (
        forget("leaf", "checkpoint", where=f"{{0}} >= {SECOND}", epoch=1), "anchor-beyond-database"),
    "the second epoch's records deleted": (forget("leaf", where=f"{{0}} >= {SECOND}"), "epoch"),
    "back to the first epoch": (number_epoch(1), "epoch"),
    "on to a third epoch": (number_epoch(3), "epoch"),
}


@pytest.mark.parametrize("what", EPOCHS)
def test_a_log_of_two_epochs_that_was_changed_is_refused(revived, what):
    change, check = EPOCHS[what]
    tekd = revived("epochs")
    change(tekd)
    assert_refused(tekd, check)


@pytest.mark.parametrize("what", STOPPED)
def test_a_stopped_servers_log_that_was_changed_is_refused(revived, what):
    change, check = STOPPED[what]
    tekd = revived()
    change(tekd)
    assert_refused(tekd, check)


@pytest.mark.parametrize("what", KILLED)
def test_a_killed_servers_log_that_was_changed_is_refused(revived, what):
    change, check = KILLED[what]
    tekd = revived("killed")
    change(tekd)
    assert_refused(tekd, check)


@pytest.mark.parametrize("how", ["stopped", "killed", "epochs"])
def test_what_nobody_changed_starts(revived, how):
    tekd = revived(how).start()
    assert tekd.ctl("status")["ready"]
    tekd.audit()


# ---- pages -----------------------------------------------------------------------------------------

ROWS = 2000  # more than the background reads at once, on many pages
# Each row is of a content, a key, a BSA that nobody asks for.
FILL = {
    "content": "SELECT 1000 + n, 'urn:fill:' || n, 128, 0, 0, 0, 0, 0",
    "tek": "SELECT 1000 + n, CAST(n AS BLOB), 1000 + n, 0, 1, 128, 1, zeroblob(40), 0, 0",
    "export": "SELECT 1000, 1000 + n, zeroblob(40)",
    "holder": "SELECT 1000, 1000 + n, 1000",
    "message": "SELECT 1000, 'm-' || n, 1000, 0, 1000, 1000, 1 << 60, 1",
}
INNER = (2, 5)  # kinds of pages, of an index and of a table, with others under them


def fill(tekd, table):
    sql(tekd, f"INSERT INTO {table} {FILL[table]} FROM (WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL"
        " SELECT n + 1 FROM i WHERE n < ?) SELECT n FROM i)", ROWS, rows=ROWS)


def zero_page(tekd, table):
    """One with some of the last rows."""
    size, = sql(tekd, "PRAGMA page_size")[0]
    number, = sql(tekd, "SELECT rootpage FROM sqlite_schema WHERE name = ?", table)[0]
    with open(tekd.path("tekd.db"), "r+b") as f:
        def read(number):
            f.seek((number - 1) * size)
            return f.read(size)
        page = read(number)
        assert page[0] in INNER
        while page[0] in INNER:
            cells, = struct.unpack_from(">H", page, 3)
            at, = struct.unpack_from(">H", page, 12 + 2 * (cells - 1))
            number, = struct.unpack_from(">I", page, at)
            page = read(number)
        f.seek((number - 1) * size)
        f.write(bytes(size))


@pytest.mark.parametrize("table", FILL)
def test_a_page_that_was_zeroed_after_a_clean_stop_is_noticed(revived, table):
    """By the background, which reads the tables that no hash covers, though nobody asks for it;
    the contents the start itself reads."""
    tekd = revived()
    fill(tekd, table)
    zero_page(tekd, table)
    tekd.start(wait=None)
    assert tekd.wait_end(LIMIT_S) == STORE_FAILED, tekd.log()[-2000:]
    who = "reading failed" if table == "content" else "background check"
    assert f'store event=latched error=TEKD_EIO why="{who}"' in tekd.log(), tekd.log()[-2000:]
    assert "code=SQLITE_CORRUPT" in tekd.log()


def test_tables_of_many_whole_pages_are_taken(revived):
    """The control: it is not the rows above that end the server."""
    tekd = revived()
    for table in FILL:
        fill(tekd, table)
    tekd.start()
    # Messages are what it reads last; it counts them.
    wait_until(lambda: tekd.look("status")["counts"]["messages"] >= ROWS, "all is read", LIMIT_S)
    tekd.stop()
    assert "event=latched" not in tekd.log()


def test_old_backup_is_found(revived):
    tekd = revived()
    shutil.copy(tekd.path("tekd.db"), tekd.path("backup.db"))
    tekd.start()
    for i in range(5):
        with tekd.connect(BSA) as c:
            assert c.ask(request(f"b-{i}", f"urn:{i}", BSA), "xml").status == 200
    tekd.stop()
    for name in ("tekd.db-wal", "tekd.db-shm"):
        if os.path.exists(tekd.path(name)):
            os.unlink(tekd.path(name))
    shutil.copy(tekd.path("backup.db"), tekd.path("tekd.db"))
    assert_refused(tekd, "anchor-beyond-database")


def is_signed(store):
    return store["records"] == store["signed"]


def test_a_confirmation_forged_after_a_crash_is_unattested_and_counts_for_nothing(
        ended, folder, push_template):
    """It cannot be told from one of the last moment: so none of them counts."""
    stage = Stage(os.path.join(folder, "server"), push_template, [BSA])
    try:
        stage.start()
        stage.wait(stage.deliver("urn:forged", BSA)[0])
        stage[BSA].plays("taken")
        mid, = stage.deliver("urn:forged", BSA)
        wait_until(lambda: stage[BSA].received(mid), "the delivery")
        wait_until(lambda: is_signed(stage.tekd.look("status")["store"]), "a signed log")
        stage.tekd.kill()
        prepared = next(x for x in leaves(stage.tekd) if mid.encode() in x[1])
        true = find(stage.tekd, "delivery.confirmed", -1)[1]
        out = prepared[1].split(b'"out":"')[1][:64]
        fields = {b"mid": mid.encode(), b"out": out, b"ref": b"1/%d" % prepared[0]}
        forged = [(b'"%s":"%s"' % (k, true.split(b'"%s":"' % k)[1].split(b'"')[0]),
                   b'"%s":"%s"' % (k, v)) for k, v in fields.items()]
        append("delivery.confirmed", octets=forged)(stage.tekd)
        number = leaves(stage.tekd)[-1][0]
        stage[BSA].plays("confirm")
        stage.tekd.start()
        stage.wait(mid)
        log = stage.verify()
        assert number in log.unattested
        assert [r["seq"] in log.unattested for r in log.deliveries[mid].records
                if r["ev"] == "delivery.confirmed"] == [True, False]
        assert len(stage[BSA].received(mid)) >= 2, "it was sent again"
    finally:
        stage.close()


def test_database_of_another_bsm_is_refused(revived):
    tekd = revived(bsm_id="other.example.net")
    tekd.start(wait=None)
    assert tekd.wait_end(LIMIT_S) in (1, STORE_FAILED)
    assert "event=database-of-another what=bsm_id" in tekd.log()
    tekd.configure(bsm_id=state.BSM)
    tekd.start()
    wait_until(lambda: tekd.look("status")["ready"], "it is ready again")
