"""Keys that sign the audit log are replaced and added, in a real token: clients see nothing but
answers, auditors follow from the old key to the new one, and nothing else is taken for a change.

Every export is looked at by tek-audit and by both verifiers of the tests, which must agree.
"""

import os
import random
import re
import shutil
import sqlite3
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from cp3py import auditlog, messages
from cp3py.note import Keys, Note, NoteError, split
from harness import shim
from harness.answers import checked, given
from harness.hold import REPLY, Hold
from harness.load import Load
from harness.procs import run, wait_until
from harness.programs import TOP, program, softhsm
from reader import verifier
from test_audit_go import gocheck  # noqa: F401  pylint: disable=unused-import

# pylint: disable=redefined-outer-name

OLD, NEW, THIRD = "tekd-checkpoint", "tekd-checkpoint-2", "tekd-checkpoint-3"
ED, ED_NEW = "tekd-ed25519", "tekd-ed25519-2"
BEFORE = "hsm.checkpoint_key_before"
STORE_FAILED = 74
KILLS = 6
CLIENTS = 8


# ---- a server and its keys -------------------------------------------------------------------------

def provision(tekd, label, kind="p256"):
    """A key beside those that are there; its public half's file."""
    path = tekd.path(f"{label}.pem")
    run([program("tek-provision"), "key", "checkpoint", "--type", kind, "--label", label, "--out",
         path, "--module", softhsm(), "--profile", "softhsm", "--env",
         f"SOFTHSM2_CONF={tekd.path('softhsm2.conf')}", "--pin-file", tekd.path("hsm.pin"),
         "--token", "pkcs11:token=tekd"])
    return path


@pytest.fixture
def tekd(new_tekd):
    """A server with a second key in its token, not started; tekd.old and tekd.new are their files."""
    server = new_tekd()
    server.old = server.path("checkpoint.pem")
    server.new = provision(server, NEW)
    return server


def keys(now=None, before=None, ed=None, ed_before=None):
    """Settings; None: not set."""
    return {"checkpoint_key": now, "checkpoint_key_before": before, "checkpoint_ed25519_key": ed,
            "checkpoint_ed25519_key_before": ed_before}


OVERLAP = keys(NEW, OLD)


def ask(tekd, *mids):
    for mid in mids:
        assert tekd.ask(mid, f"urn:{mid}").status == 200


def read(*names):
    with open(os.path.join(*names), "rb") as f:
        return f.read()


def signers(tekd):
    return tekd.ctl("status")["store"]["signers"]


def key_id(tekd, path, epoch=1):
    """As status shows it."""
    note = Note(f"bsm.example.net/tekd/audit/{epoch}\n0\n".encode() + b"A" * 43 +
                b"=\n\n\xe2\x80\x94 bsm.example.net/tekd/audit/%d AAAAAAA=\n" % epoch)
    return note.key_id(auditlog.load_key(path)).hex()


def meta(tekd):
    db = sqlite3.connect(tekd.path("tekd.db"))
    try:
        return {name: bytes(value) for name, value in db.execute("SELECT name, value FROM meta")}
    finally:
        db.close()


def fingerprint(path):
    return Keys.fingerprint(auditlog.load_key(path))


# ---- auditors --------------------------------------------------------------------------------------

def export(tekd, epoch=None):
    tekd.exports += 1
    folder = tekd.path(f"export-{tekd.exports}")
    tekd.tekctl("audit", "export", folder, *(["--epoch", str(epoch)] if epoch else []))
    return folder


def takes_ours(folder, paths, since):
    words = [w for path in paths for w in ("--key", path)]
    done = run([program("tek-audit"), "verify", folder, *words,
                *(["--since", since] if since else ["--first"])], check=False)
    assert done.returncode in (0, 1), done
    return done.returncode == 0


def takes_theirs(folder, path, since):
    try:
        auditlog.Log(folder, path, since=Note(read(since)) if since else None)
        return True
    except (auditlog.AuditError, NoteError):
        return False


def takes_reader(folder, path, since):
    try:
        verifier.verify(folder, read(path), read(since) if since else None)
        return True
    except verifier.Refused:
        return False


def takes(folder, *paths, since=None):
    """Whether the export is verified by the key; all verifiers agree.  Ours alone takes several."""
    ours = takes_ours(folder, paths, since)
    if len(paths) == 1:
        assert takes_theirs(folder, paths[0], since) == ours
        assert takes_reader(folder, paths[0], since) == ours
    return ours


def notes_of(folder):
    return split(read(folder, "checkpoints.txt"))


def lines_of(folder):
    """How many lines each note has."""
    return [len(n.signatures) for n in notes_of(folder)]


def named(folder):
    return [r["key"] for r in map(auditlog.parse, read(folder, "audit.jsonl").splitlines())
            if r["ev"] == "log.signkey"]


def has_keys(folder, *paths):
    """keys/ holds these and no others."""
    found = {read(folder, "keys", name) for name in os.listdir(os.path.join(folder, "keys"))}
    return found == {read(path) for path in paths}


def save(note, path):
    with open(path, "wb") as f:
        f.write(note.octets)
    return path


# ---- a key is replaced -----------------------------------------------------------------------------

def load_on(tekd, prefix):
    return Load(tekd, CLIENTS, lambda i, n: (messages.request(
        f"{prefix}-{i}-{n}", f"urn:{prefix}:{i}:{n % 20}", "bsa-1"), "xml")).start()


def assert_answers_only(tekd, *loads):
    for load in loads:
        for _, m, media, r in load.answered:
            given(checked(r), m, tekd.template.bsas["bsa-1"], media)


@pytest.mark.smoke
def test_replaced_under_load(tekd, gocheck):
    """Both starts with clients that ask all the time; then all auditors, before, in and after."""
    tekd.start()
    first = load_on(tekd, "a")
    wait_until(lambda: len(first.answered) > 100, "answers")
    early = save(notes_of(tekd.export())[-1], tekd.path("early"))
    tekd.restart(hsm=OVERLAP)
    second = load_on(tekd, "b")
    wait_until(lambda: len(second.answered) > 100, "answers")
    status = tekd.ctl("status")["store"]
    assert status["signers"] == [key_id(tekd, tekd.new), key_id(tekd, tekd.old)]
    assert status["signers_before"] == [{"key": key_id(tekd, tekd.old), "setting": BEFORE}]
    assert f" {key_id(tekd, tekd.old)} (until {BEFORE} is taken out)\n" in \
        tekd.tekctl("status").stdout
    changed = [line for line in tekd.log().splitlines() if "event=sign-key-changed" in line]
    assert len(changed) == 1 and " info store " in changed[0]
    assert f"before={fingerprint(tekd.old)} now={fingerprint(tekd.new)}" in changed[0]
    tekd.ctl("audit", "close-epoch")
    middle = len(second.answered)
    wait_until(lambda: len(second.answered) > middle + 100, "answers in the second epoch")
    tekd.restart(hsm=keys(NEW))
    third = load_on(tekd, "c")
    wait_until(lambda: len(third.answered) > 100, "answers")
    third.stop()
    first.join()
    second.join()
    assert_answers_only(tekd, first, second, third)
    assert not third.errors
    assert signers(tekd) == [key_id(tekd, tekd.new)]
    assert tekd.log().count("event=sign-key-changed") == 1

    one, two = export(tekd, 1), export(tekd, 2)
    assert named(one) == [fingerprint(tekd.new)] and named(two) == []
    lines = lines_of(one)
    assert lines == sorted(lines) and set(lines) == {1, 2}
    lines = lines_of(two)
    assert lines == sorted(lines, reverse=True) and set(lines) == {1, 2}
    assert has_keys(one, tekd.old, tekd.new) and has_keys(two, tekd.old, tekd.new)
    # The epoch of the change is for who has the old key, the next one for who has the new one.
    assert takes(one, tekd.old) and takes(one, tekd.old, since=early)
    assert not takes(one, tekd.new) and not takes(one, tekd.old, tekd.new)
    end = os.path.join(one, "checkpoint")
    assert takes(two, tekd.new) and takes(two, tekd.new, since=end)
    assert not takes(two, tekd.old) and not takes(two, tekd.old, tekd.new)
    # Go's packages know of no log.signkey: each note is by one of the keys that they are given.
    for folder in (one, two):
        done = gocheck(folder, tekd.old, tekd.new)
        assert done.returncode == 0 and done.stdout, done
    assert gocheck(one, tekd.old).returncode == 0 and gocheck(two, tekd.new).returncode == 0
    assert gocheck(one, tekd.new).returncode == 1 and gocheck(two, tekd.old).returncode == 1
    tekd.stop()


def test_during_the_overlap_either_key_serves(tekd):
    """An epoch that lies in it, by the old one, by the new one, and by both."""
    tekd.start()
    ask(tekd, "m-1")
    tekd.restart(hsm=OVERLAP)
    tekd.ctl("audit", "close-epoch")
    ask(tekd, "m-2")
    tekd.restart()
    ask(tekd, "m-3")
    folder = export(tekd)
    assert named(folder) == [] and set(lines_of(folder)) == {2}
    for paths in ((tekd.old,), (tekd.new,), (tekd.old, tekd.new)):
        assert takes(folder, *paths)
    tekd.stop()


def test_change_within_one_epoch(tekd):
    """The old key alone leads through to notes that it has not signed."""
    tekd.start()
    ask(tekd, "m-1")
    early = save(notes_of(tekd.export())[-1], tekd.path("early"))
    tekd.restart(hsm=OVERLAP)
    ask(tekd, "m-2")
    between = save(notes_of(tekd.export())[-1], tekd.path("between"))
    tekd.restart(hsm=keys(NEW))
    ask(tekd, "m-3")
    folder = tekd.export()
    assert len(Note(read(folder, "checkpoint")).signatures) == 1
    for since in (None, early, between):
        assert takes(folder, tekd.old, since=since)
        assert not takes(folder, tekd.new, since=since)
    tekd.stop()


def test_key_is_taken_back(tekd):
    """From the old key to the new one and back: the old one is in use and has been replaced."""
    tekd.start()
    ask(tekd, "m-1")
    for n, settings in enumerate((OVERLAP, keys(NEW), keys(OLD, NEW), keys(OLD))):
        tekd.restart(hsm=settings)
        ask(tekd, f"m-2-{n}")
    assert signers(tekd) == [key_id(tekd, tekd.old)]
    tekd.ctl("audit", "close-epoch")
    ask(tekd, "m-3")
    one, two = export(tekd, 1), export(tekd, 2)
    assert named(one) == [fingerprint(tekd.new), fingerprint(tekd.old)] and named(two) == []
    assert has_keys(one, tekd.old, tekd.new) and has_keys(two, tekd.old)
    assert takes(one, tekd.old) and not takes(one, tekd.new)
    assert takes(two, tekd.old, since=os.path.join(one, "checkpoint"))
    tekd.stop()


def manual():
    """Of the section that tells how: [(language, text)] of its blocks."""
    with open(os.path.join(TOP, "docs", "operations.md"), encoding="utf-8") as f:
        text = f.read()
    section = text.split("\n### Replacing the key that signs the log\n")[1].split("\n## ")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S)


def shell(tekd, text):
    path = ":".join([*{os.path.dirname(program(p)) for p in ("tekctl", "tek-audit",
                                                             "tek-provision")},
                     os.environ["PATH"]])
    text = text.replace("/usr/lib/softhsm/libsofthsm2.so", softhsm())
    return run(["bash", "-euo", "pipefail", "-c", text], cwd=tekd.folder, timeout=120,
               env={**os.environ, "PATH": path, "SOFTHSM2_CONF": tekd.path("softhsm2.conf")}).stdout


def test_steps_of_the_manual(new_tekd):
    """Its commands and its settings, as they stand there."""
    (_, make), (language, settings), (_, verify) = manual()
    assert language == "yaml"
    tekd = new_tekd().start()
    ask(tekd, "m-1")
    said = shell(tekd, make)
    new = tekd.path(f"{NEW}.pem".replace("tekd-", ""))
    assert fingerprint(new) in said
    named_there = dict(re.findall(r"^  (\w+): (\S+)$", settings, re.M))
    assert named_there == {k: v for k, v in OVERLAP.items() if v}
    tekd.restart(hsm=named_there)
    ask(tekd, "m-2")
    assert fingerprint(new) in shell(tekd, verify)
    tekd.restart(hsm={"checkpoint_key_before": None})
    tekd.ctl("audit", "close-epoch")
    ask(tekd, "m-3")
    assert takes(tekd.export(), new)
    tekd.stop()


# ---- Ed25519 beside it -----------------------------------------------------------------------------

def test_ed25519_is_added_and_replaced(tekd):
    ed, ed_new = provision(tekd, ED, "ed25519"), provision(tekd, ED_NEW, "ed25519")
    tekd.start()
    ask(tekd, "m-1")
    tekd.restart(hsm=keys(ed=ED))
    ask(tekd, "m-2")
    tekd.ctl("audit", "close-epoch")
    tekd.restart(hsm=keys(ed=ED_NEW, ed_before=ED))
    ask(tekd, "m-3")
    store = tekd.ctl("status")["store"]
    assert len(store["signers"]) == 3
    assert [k["setting"] for k in store["signers_before"]] == ["hsm.checkpoint_ed25519_key_before"]
    tekd.restart(hsm=keys(ed=ED_NEW))
    ask(tekd, "m-4")
    tekd.ctl("audit", "close-epoch")
    one, two, three = (export(tekd, n) for n in (1, 2, 3))
    assert named(one) == [fingerprint(ed)] and named(two) == [fingerprint(ed_new)]
    assert has_keys(two, tekd.old, ed, ed_new) and has_keys(three, tekd.old, ed_new)
    assert takes(one, tekd.old) and not takes(one, ed)
    # Of each kind who has the key of the beginning, or both, comes to the end.
    assert takes(two, tekd.old) and takes(two, ed) and takes(two, tekd.old, ed)
    assert not takes(two, ed_new)
    assert takes(three, ed_new) and takes(three, tekd.old, ed_new) and not takes(three, ed)
    tekd.stop()


def test_both_kinds_at_once(tekd):
    ed, ed_new = provision(tekd, ED, "ed25519"), provision(tekd, ED_NEW, "ed25519")
    tekd.configure(hsm=keys(ed=ED))
    tekd.start()
    ask(tekd, "m-1")
    tekd.ctl("audit", "close-epoch")
    tekd.restart(hsm=keys(NEW, OLD, ED_NEW, ED))
    ask(tekd, "m-2")
    assert signers(tekd) == [key_id(tekd, path, 2) for path in (tekd.new, ed_new, tekd.old, ed)]
    tekd.restart(hsm=keys(NEW, ed=ED_NEW))
    ask(tekd, "m-3")
    folder = tekd.export()
    assert named(folder) == [fingerprint(tekd.new), fingerprint(ed_new)]
    assert set(lines_of(folder)) == {2, 4} and has_keys(folder, tekd.old, ed, tekd.new, ed_new)
    assert takes(folder, tekd.old) and takes(folder, ed) and takes(folder, tekd.old, ed)
    assert not takes(folder, tekd.new) and not takes(folder, ed_new)
    tekd.stop()


# ---- a token that is away, a server that is killed -------------------------------------------------

def test_token_comes_after_the_start(tekd):
    tekd.start()
    ask(tekd, "m-1")
    tekd.stop()
    tekd.configure(hsm=OVERLAP)
    os.rename(tekd.path("tokens"), tekd.path("away"))
    os.mkdir(tekd.path("tokens"))
    tekd.start(wait="alive")
    assert tekd.probe("/readyz")[0] == 503
    assert "sign-key-changed" not in tekd.log()
    os.rmdir(tekd.path("tokens"))
    os.rename(tekd.path("away"), tekd.path("tokens"))
    tekd.wait_for("/readyz", 200, 60)
    ask(tekd, "m-2")
    wait_until(lambda: "event=sign-key-changed" in tekd.log(), "the change")
    folder = tekd.export()
    assert named(folder) == [fingerprint(tekd.new)]
    assert takes(folder, tekd.old)
    tekd.restart(hsm=keys(NEW))
    ask(tekd, "m-3")
    assert takes(tekd.export(), tekd.old)
    tekd.stop()


def test_killed_at_any_moment_of_the_change(tekd, tell):
    seed = random.randrange(2 ** 32)
    moments = random.Random(seed)
    begun = time.monotonic()
    tekd.start()
    took = time.monotonic() - begun
    ask(tekd, "m-1")
    tekd.stop()
    tekd.configure(hsm=OVERLAP)
    for _ in range(KILLS):
        tekd.start(wait=None)
        time.sleep(moments.uniform(0, took))  # a moment of the start
        tekd.kill()
    done = "key-retired-1" in meta(tekd)
    tekd.start()
    ask(tekd, "m-2")
    folder = tekd.export()
    records = named(folder)
    assert set(records) == {fingerprint(tekd.new)}
    assert takes(folder, tekd.old)
    tekd.restart(hsm=keys(NEW))
    ask(tekd, "m-3")
    folder = tekd.export()
    assert named(folder) == records and takes(folder, tekd.old)
    tekd.stop()
    tell(f"{KILLS} kills in {took * 1000:.0f} ms, seed {seed}: log.signkey {len(records)} times, "
         f"{'complete' if done else 'not complete'} before the last start")


@pytest.fixture
def held(folder, tekd):
    hold = Hold(shim.build(folder, "hold"), tekd.folder)
    tekd.env.update(hold.env)
    yield hold
    hold.close()


def kill_before_the_note(tekd, held):
    """log.signkey is committed, and no checkpoint is over it."""
    held.arm(REPLY, 1)
    tekd.start(wait="alive")
    held.wait_held(REPLY)
    tekd.kill()
    held.release(REPLY)


def assert_refused(tekd, check, *words):
    done = run([program("tekd"), "--config", tekd.path("tekd.yaml"), "--check"], check=False)
    assert done.returncode == STORE_FAILED, done
    tekd.start(wait=None)
    assert tekd.wait_end() == STORE_FAILED, tekd.log()[-2000:]
    line = [x for x in tekd.log().splitlines() if "event=tamper" in x][-1]
    assert f" check={check} " in line and all(w in line for w in words), line


def test_key_before_is_needed_until_a_note_is_over_the_change(tekd, held):
    tekd.start()
    ask(tekd, "m-1")
    tekd.stop()
    tekd.configure(hsm=OVERLAP)
    kill_before_the_note(tekd, held)
    kill_before_the_note(tekd, held)
    assert "key-retired-1" not in meta(tekd)
    tekd.configure(hsm=keys(NEW))
    assert_refused(tekd, "checkpoint-key", fingerprint(tekd.old), fingerprint(tekd.new), BEFORE)
    # Nor is there a way back to the old one: the log has named the new one.
    tekd.configure(hsm=keys())
    assert_refused(tekd, "record-signkey", fingerprint(tekd.new))
    tekd.configure(hsm=OVERLAP)
    tekd.start()
    ask(tekd, "m-2")
    folder = tekd.export()
    assert named(folder) == [fingerprint(tekd.new)] * 3
    assert takes(folder, tekd.old)
    tekd.restart(hsm=keys(NEW))
    assert takes(tekd.export(), tekd.old)
    tekd.stop()
    assert "key-retired-1" in meta(tekd) and "key-retired-2" not in meta(tekd)


# ---- what is no change -----------------------------------------------------------------------------

def test_settings_that_do_not_fit(tekd):
    third = provision(tekd, THIRD)
    tekd.start()
    ask(tekd, "m-1")
    tekd.stop()
    tekd.configure(hsm=keys(NEW))
    assert_refused(tekd, "checkpoint-key", fingerprint(tekd.old), fingerprint(tekd.new), BEFORE)
    tekd.configure(hsm=keys(NEW, THIRD))
    assert_refused(tekd, "checkpoint-key", fingerprint(tekd.old), fingerprint(third), BEFORE)
    tekd.configure(hsm=keys(OLD, NEW))
    assert_refused(tekd, "checkpoint-key", fingerprint(tekd.new), BEFORE)
    tekd.configure(hsm=keys(NEW, "nobody's"))
    tekd.start(wait=None)
    assert tekd.wait_end() == 1
    assert "hsm-refused" in tekd.log() and "nobody's" in tekd.log()
    for settings, where in ((keys(NEW, NEW), "checkpoint_key_before"),
                            (keys(ed_before=ED), "checkpoint_ed25519_key_before")):
        tekd.configure(hsm=settings)
        done = run([program("tekd"), "--config", tekd.path("tekd.yaml"), "--check"], check=False)
        assert done.returncode == 1, done
        assert "tekd.yaml:4:" in done.stderr and f"hsm.{where}: expected" in done.stderr, done
    # None of it has left a mark.
    tekd.configure(hsm=keys())
    tekd.start()
    folder = tekd.export()
    assert named(folder) == [] and set(lines_of(folder)) == {1} and takes(folder, tekd.old)
    tekd.stop()


def strip(octets, key_path):
    """The note without the line of this key."""
    note = Note(octets)
    gone = note.key_id(auditlog.load_key(key_path))
    text, lines = octets.split(b"\n\n")
    kept = [line for line, (i, _) in zip(lines.splitlines(True), note.signatures) if i != gone]
    assert len(kept) == len(note.signatures) - 1
    return text + b"\n\n" + b"".join(kept)


def test_the_newest_checkpoint_by_the_retired_key_alone(tekd):
    """Who has stolen it, and the disk, makes none that is taken, in the overlap or after it."""
    tekd.start()
    ask(tekd, "m-1")
    tekd.restart(hsm=OVERLAP)
    ask(tekd, "m-2")
    tekd.stop()
    whole = tekd.path("whole.db")
    shutil.copy(tekd.path("tekd.db"), whole)
    db = sqlite3.connect(tekd.path("tekd.db"))
    with db:
        size, note = db.execute("SELECT size, note FROM checkpoint ORDER BY size DESC").fetchone()
        db.execute("UPDATE checkpoint SET note = ? WHERE size = ?",
                   (strip(bytes(note), tekd.new), size))
    db.close()
    for settings in (OVERLAP, keys(NEW)):
        tekd.configure(hsm=settings)
        assert_refused(tekd, "checkpoint-signature", "keys that it replaced")
    shutil.copy(whole, tekd.path("tekd.db"))
    tekd.start()
    tekd.stop()


def test_key_that_is_named_and_never_signs(tekd):
    """log.signkey of a change, in a log whose notes never have a line of it."""
    tekd.start()
    ask(tekd, "m-1")
    tekd.restart(hsm=OVERLAP)
    ask(tekd, "m-2")
    folder = tekd.export()
    tekd.stop()
    whole = notes_of(folder)
    assert takes(folder, tekd.old) and not os.listdir(os.path.join(folder, "anchors"))
    by_the_old = [strip(n.octets, tekd.new) if len(n.signatures) > 1 else n.octets for n in whole]
    rewrite(folder, by_the_old)
    assert named(folder) == [fingerprint(tekd.new)]
    assert takes(folder, tekd.old) and not takes(folder, tekd.new)
    assert verifier.verify(folder, read(tekd.old)).trusted_keys == [key_id(tekd, tekd.old)]
    # A last note of the new key alone is one of a stranger.
    rewrite(folder, by_the_old[:-1] + [strip(whole[-1].octets, tekd.old)])
    assert not takes(folder, tekd.old)


def sums(folder):
    names = sorted(os.path.relpath(os.path.join(d, f), folder) for d, _, files in os.walk(folder)
                   for f in files if f != "SHA256SUMS")
    done = run(["sha256sum", *names], cwd=folder)
    with open(os.path.join(folder, "SHA256SUMS"), "w", encoding="ascii") as f:
        f.write(done.stdout)


def test_ed25519_line_does_not_stand_for_the_main_key(tekd):
    """An export whose last note has lost the line of the key that the auditor brings."""
    ed = provision(tekd, ED, "ed25519")
    assert isinstance(auditlog.load_key(ed), ed25519.Ed25519PublicKey)
    tekd.start()
    ask(tekd, "m-1")
    tekd.restart(hsm=keys(ed=ED))
    ask(tekd, "m-2")
    folder = tekd.export()
    tekd.stop()
    assert takes(folder, tekd.old)
    notes = [n.octets for n in notes_of(folder)]
    rewrite(folder, notes[:-1] + [strip(notes[-1], tekd.old)])
    assert not takes(folder, tekd.old)
    rewrite(folder, notes[:-1] + [strip(notes[-1], ed)])
    assert takes(folder, tekd.old)


def rewrite(folder, notes):
    """All notes of an export; the last one is the checkpoint."""
    with open(os.path.join(folder, "checkpoints.txt"), "wb") as f:
        f.write(b"\n".join(notes) + b"\n")
    with open(os.path.join(folder, "checkpoint"), "wb") as f:
        f.write(notes[-1])
    sums(folder)
