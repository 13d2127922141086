"""Exports and proofs against Go's own packages for signed notes and Merkle trees (gocheck/).

They were written by others, for Go's checksum database.  That a log is well signed and whole is
said here by somebody who never saw our code.
"""

import base64
import os
import re
import shutil
from dataclasses import dataclass
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cp3py import auditlog, messages
from cp3py.note import Note, split
from harness.pki import new_key
from harness.once import once
from harness.procs import run
from harness.programs import program, softhsm, tool
from harness.stage import Stage
from reader import verifier

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gocheck")
GOCODE = "/usr/share/gocode"  # where Debian's packages of Go sources are
SAMPLES = 16  # as in gocheck


# ---- the checker ---------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def gocheck():
    """gocheck(folder, key..., proofs=()): the finished process."""
    def build(folder):
        path = os.path.join(folder, "gocheck")
        env = {"PATH": os.environ["PATH"], "HOME": folder, "GO111MODULE": "off", "GOPATH": GOCODE,
               "GOCACHE": os.path.join(folder, "go-cache"), "GOENV": "off", "GOFLAGS": "-p=1",
               "GOPROXY": "off", "GOTOOLCHAIN": "local"}
        os.mkdir(folder)
        run([tool("go"), "build", "-o", path, "."], timeout=300, env=env, cwd=SOURCE)
        return path

    path = once("gocheck", build)

    def check(folder, *keys, proofs=()):
        words = [w for proof in proofs for w in ("--proof", proof)]
        return run([path, folder, *keys, *words], check=False)

    return check


def test_its_source_is_formatted():
    assert run([tool("gofmt"), "-l", SOURCE]).stdout == ""


def assert_taken(done, notes, *signatures, proofs=0):
    """All of it was checked, and as much as there is.  signatures: (key, how many notes)."""
    sizes = [n.size for n in notes] + [notes[-1].size]
    inclusions = sum(len({*range(0, size - 1, size // SAMPLES + 1), size - 1}) for size in sizes)
    by = ", ".join(sorted(f"{n} by {key_id(notes[0].origin, key).hex()}" for key, n in signatures))
    assert done.returncode == 0, done
    assert done.stdout == (
        f"checked {notes[0].origin}: {sizes[-1]} records, {len(sizes)} notes (signatures: {by}), "
        f"{inclusions} inclusions, {len(sizes)} extensions, {proofs} proofs\n")


def assert_refused(done, what):
    assert done.returncode == 1 and done.stdout == "", done
    assert re.fullmatch(f"FAILED {what}\n", done.stderr), done.stderr


# ---- what it is given ----------------------------------------------------------------------------

@dataclass(frozen=True)
class Exported:
    """Of one server: an early export, the last one, the public key's file, Message IDs."""
    early: str
    folder: str
    key_path: str
    pulled: tuple
    pushed: str

    @property
    def notes(self):
        return split(read(self.folder, "checkpoints.txt"))

    @property
    def origin(self):
        return self.notes[0].origin

    @property
    def records(self):
        return read(self.folder, "audit.jsonl").split(b"\n")[:-1]


@pytest.fixture(scope="module")
def exported(push_template):
    return once("audit-go", lambda folder: make_exports(folder, push_template))


def make_exports(folder, push_template):
    """Pulls and a push, a restart, and the same again."""
    stage = Stage(folder, push_template, ["p-0", "p-1"])
    try:
        stage.start()
        tekd, pulled = stage.tekd, [f"m-{n}" for n in range(12)]
        ask(tekd, pulled[:6])
        early = tekd.export()
        stage.wait(stage.deliver("urn:push", "p-0")[0])
        tekd.restart()
        ask(tekd, pulled[6:])
        ask(tekd, pulled[:2])
        mid = stage.deliver("urn:push", "p-1")[0]
        stage.wait(mid)
        last = tekd.export()
        tekd.stop()
        return Exported(early, last, tekd.path("checkpoint.pem"), tuple(pulled), mid)
    finally:
        stage.close()


def ask(tekd, mids):
    with tekd.connect("p-0") as c:
        for mid in mids:
            assert c.ask(messages.request(mid, f"urn:{mid}", "p-0")).status == 200


def prove(folder, mid, path):
    done = run([program("tek-audit"), "prove", folder, mid])
    with open(path, "w", encoding="utf-8") as f:
        f.write(done.stdout)
    return path


def read(folder, name):
    with open(os.path.join(folder, name), "rb") as f:
        return f.read()


def write(path, octets):
    with open(path, "wb") as f:
        f.write(octets)
    return path


# ---- epochs --------------------------------------------------------------------------------------

def test_each_epoch_is_a_tree_of_its_own(gocheck, new_tekd, folder):
    tekd = new_tekd().start()
    assert tekd.ask("m-1", "urn:x").status == 200
    tekd.ctl("audit", "close-epoch")
    assert tekd.ask("m-2", "urn:x").status == 200
    key = tekd.path("checkpoint.pem")
    for epoch in (1, 2):
        exported = tekd.path(f"epoch-{epoch}")
        tekd.tekctl("audit", "export", exported, "--epoch", str(epoch))
        notes = split(read(exported, "checkpoints.txt"))
        assert notes[0].origin.endswith(f"/tekd/audit/{epoch}")
        proof = prove(exported, f"m-{epoch}", os.path.join(folder, f"proof-{epoch}"))
        assert_taken(gocheck(exported, key, proofs=[proof]), notes, (key, len(notes) + 1), proofs=1)
    # A checkpoint, and a proof, of the other epoch.
    done = gocheck(exported, key, proofs=[os.path.join(folder, "proof-1")])
    assert done.returncode == 1 and done.stdout == "", done
    shutil.copy(tekd.path("epoch-1", "checkpoint"), os.path.join(exported, "checkpoint"))
    done = gocheck(exported, key)
    assert done.returncode == 1 and done.stdout == "", done
    tekd.stop()


# ---- a second line of the HSM's own --------------------------------------------------------------

ED25519_LABEL = "tekd-checkpoint-ed25519"


def provision_ed25519(tekd):
    path = tekd.path("checkpoint-ed25519.pem")
    run([program("tek-provision"), "key", "checkpoint", "--type", "ed25519", "--label",
         ED25519_LABEL, "--out", path, "--module", softhsm(), "--profile", "softhsm", "--env",
         f"SOFTHSM2_CONF={tekd.path('softhsm2.conf')}", "--pin-file", tekd.path("hsm.pin"),
         "--token", "pkcs11:token=tekd"])
    return path


def export_epoch(tekd, epoch, name):
    folder = tekd.path(name)
    tekd.tekctl("audit", "export", folder, "--epoch", str(epoch))
    return folder


def tek_audit(folder, *keys):
    words = [w for key in keys for w in ("--key", key)]
    return run([program("tek-audit"), "verify", folder, *words, "--first"], check=False)


def lines_of(folder):
    return [len(n.signatures) for n in split(read(folder, "checkpoints.txt"))]


def test_ed25519_key_of_the_hsm(gocheck, new_tekd):
    """Set between two starts, taken away between two starts; every verifier, by each key."""
    tekd = new_tekd()
    main, second = tekd.path("checkpoint.pem"), provision_ed25519(tekd)
    tekd.start()
    assert tekd.ask("m-1", "urn:x").status == 200
    tekd.restart(hsm={"checkpoint_ed25519_key": ED25519_LABEL})
    assert tekd.ask("m-2", "urn:x").status == 200
    assert len(tekd.ctl("status")["store"]["signers"]) == 2
    tekd.ctl("audit", "close-epoch")
    assert tekd.ask("m-3", "urn:x").status == 200

    # From then on: the notes before it have one line.
    first = export_epoch(tekd, 1, "epoch-1")
    lines = lines_of(first)
    before = lines.index(2)
    assert before > 0 and lines == [1] * before + [2] * (len(lines) - before)
    assert tek_audit(first, main).returncode == 0
    for keys in ((second,), (main, second)):
        done = tek_audit(first, *keys)
        assert done.returncode == 1 and "found none of" in done.stderr, done

    # An epoch that has both lines throughout.
    whole = export_epoch(tekd, 2, "epoch-2")
    notes = split(read(whole, "checkpoints.txt"))
    assert set(lines_of(whole)) == {2} and len(os.listdir(os.path.join(whole, "keys"))) == 2
    for keys in ((main,), (second,), (main, second)):
        done = tek_audit(whole, *keys)
        assert done.returncode == 0, done
    for key in (main, second):
        verifier.verify(whole, read(*os.path.split(key)))
        auditlog.Log(whole, key)
        theirs = os.path.join(whole, "keys",
                              f"{notes[0].key_id(auditlog.load_key(key)).hex()}.pem")
        assert read(*os.path.split(theirs)) == read(*os.path.split(key))
        done = gocheck(whole, key)
        assert done.returncode == 0 and f", {len(notes) + 1} notes" in done.stdout, done
        assert f"{len(notes) + 1} by {notes[0].key_id(auditlog.load_key(key)).hex()}" in done.stdout
    done = gocheck(whole, main, second, proofs=[prove(whole, "m-3", tekd.path("proof"))])
    assert done.returncode == 0 and done.stdout.count(f"{len(notes) + 1} by ") == 2, done

    # Taken away again.
    tekd.restart(hsm={"checkpoint_ed25519_key": None})
    assert tekd.ask("m-4", "urn:x").status == 200
    assert len(tekd.ctl("status")["store"]["signers"]) == 1
    last = export_epoch(tekd, 2, "epoch-2-later")
    lines = lines_of(last)
    assert lines == sorted(lines, reverse=True) and set(lines) == {1, 2}
    assert tek_audit(last, main).returncode == 0 and tek_audit(last, second).returncode == 1
    tekd.stop()


def test_ed25519_key_that_is_not_there(new_tekd):
    tekd = new_tekd(hsm={"checkpoint_ed25519_key": "nobody's"})
    tekd.start(wait=None)
    assert tekd.wait_end() != 0
    assert "hsm-refused" in tekd.log() and "nobody's" in tekd.log()


# ---- what can be made of it by somebody without the HSM ------------------------------------------

def spki(key, encoding=Encoding.DER):
    return key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def is_ed25519(key):
    return isinstance(key, ed25519.Ed25519PrivateKey)


def key_id(origin, key):
    """Of a private key, or the PEM file of a public one of P-256."""
    if isinstance(key, str):
        pem = read(*os.path.split(key)).decode()
        return sha256(base64.b64decode("".join(pem.split("\n")[1:-2]))).digest()[:4]
    if is_ed25519(key):
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return sha256(origin.encode() + b"\n\x01" + raw).digest()[:4]
    return sha256(spki(key)).digest()[:4]


def signature_line(text, key, name=None, identifier=None):
    origin = text.split(b"\n")[0].decode()
    signature = key.sign(text) if is_ed25519(key) else key.sign(text, ec.ECDSA(hashes.SHA256()))
    blob = base64.b64encode((identifier or key_id(origin, key)) + signature).decode()
    return f"\u2014 {name or origin} {blob}\n".encode()


def signed(text, *keys):
    return text + b"\n" + b"".join(signature_line(text, key) for key in keys)


class Forged:
    """A copy of the last export that can be changed."""

    def __init__(self, exported, folder):
        self.folder = os.path.join(folder, "forged")
        shutil.copytree(exported.folder, self.folder)
        self.notes = [n.octets for n in exported.notes]

    def write_key(self, key):
        """The file of its public key, next to the export."""
        path = f"{self.folder}-{key_id('', key).hex()}.pem"
        return write(path, spki(key, Encoding.PEM))

    def records(self, change):
        """change(list of lines)"""
        lines = read(self.folder, "audit.jsonl").split(b"\n")
        before = list(lines)
        change(lines)
        assert lines != before
        write(os.path.join(self.folder, "audit.jsonl"), b"\n".join(lines))

    def note(self, i, octets):
        assert octets != self.notes[i]
        self.notes[i] = octets
        self.save()

    def sign(self, *keys):
        """All notes by these keys instead."""
        self.notes = [signed(Note(n).text, *keys) for n in self.notes]
        self.save()

    def save(self):
        """The last note is `checkpoint`, too; the sums are right, for those who read them."""
        write(os.path.join(self.folder, "checkpoint"), self.notes[-1])
        write(os.path.join(self.folder, "checkpoints.txt"),
              b"".join(n + b"\n" for n in self.notes))
        lines = [line.split("  ") for line in read(self.folder, "SHA256SUMS").decode().split("\n")]
        sums = "".join(f"{sha256(read(self.folder, name)).hexdigest()}  {name}\n"
                       for _, name in lines[:-1])
        write(os.path.join(self.folder, "SHA256SUMS"), sums.encode())


@pytest.fixture
def forged(exported, folder):
    return Forged(exported, folder)


@pytest.fixture(params=["ecdsa", "ed25519"])
def own_key(request):
    return new_key() if request.param == "ecdsa" else ed25519.Ed25519PrivateKey.generate()


def root(note):
    """As a regular expression of what it says."""
    return re.escape(base64.b64encode(note.root).decode())


def other_root(text):
    origin, size, old, end = text.split(b"\n")
    return b"\n".join((origin, size, (b"B" if old[:1] == b"A" else b"A") + old[1:], end))


# ---- exports -------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_export_is_taken(gocheck, exported):
    notes = exported.notes
    assert len(notes) > 10 and len({n.size for n in notes}) > 10
    assert_taken(gocheck(exported.folder, exported.key_path), notes,
                 (exported.key_path, len(notes) + 1))


@pytest.mark.parametrize("change", ["edited", "swapped", "left out"])
@pytest.mark.parametrize("at", [1, 20])
def test_changed_record_is_refused_at_the_first_note_over_it(gocheck, exported, forged, change, at):
    def edit(lines):
        lines[at] = lines[at].replace(b'"v":1', b'"v":2')

    def swap(lines):
        lines[at], lines[at + 1] = lines[at + 1], lines[at]

    def leave_out(lines):
        del lines[at]

    # A swapped pair shows as soon as a note is over the first of the two.
    forged.records({"edited": edit, "swapped": swap, "left out": leave_out}[change])
    i, n = next((i, n) for i, n in enumerate(exported.notes) if n.size > at)
    assert_refused(gocheck(forged.folder, exported.key_path),
                   f"checkpoints.txt, note {i}: signed root {root(n)} at size {n.size}, "
                   "the records have .{44}")


def test_missing_last_record_is_refused(gocheck, exported, forged):
    size = len(exported.records)
    first = next(i for i, n in enumerate(exported.notes) if n.size == size)
    forged.records(lambda lines: lines.pop(-2))
    assert_refused(gocheck(forged.folder, exported.key_path),
                   f"checkpoints.txt, note {first}: over {size} records, there are {size - 1}")


def test_record_behind_the_checkpoint_is_refused(gocheck, exported, forged):
    size = len(exported.records)
    forged.records(lambda lines: lines.insert(-1, lines[-2]))
    assert_refused(gocheck(forged.folder, exported.key_path),
                   f"checkpoint: over {size} records, there are {size + 1}")


def test_last_record_without_its_end_is_refused(gocheck, exported, forged):
    forged.records(lambda lines: lines.pop())
    assert_refused(gocheck(forged.folder, exported.key_path),
                   "audit.jsonl: the last line has no end")


# ---- notes ---------------------------------------------------------------------------------------

def test_notes_of_ed25519_are_taken_like_those_of_ecdsa(gocheck, exported, forged, own_key):
    forged.sign(own_key)
    key = forged.write_key(own_key)
    notes = exported.notes
    assert_taken(gocheck(forged.folder, key), notes, (own_key, len(notes) + 1))
    # Both keys are trusted; there need not be a signature of each.
    assert_taken(gocheck(forged.folder, exported.key_path, key), notes, (own_key, len(notes) + 1))
    # Ours reads the same.
    run([program("tek-audit"), "verify", forged.folder, "--key", key, "--first"])
    assert_refused(gocheck(forged.folder, exported.key_path),
                   "checkpoints.txt, note 0: note has no verifiable signatures")


def test_two_signatures_are_both_verified(gocheck, exported, forged, own_key):
    """The line of the HSM's key and one of another: a line of a trusted key may not be wrong."""
    forged.notes = [n + signature_line(Note(n).text, own_key) for n in forged.notes]
    forged.save()
    key, notes = forged.write_key(own_key), exported.notes
    assert_taken(gocheck(forged.folder, exported.key_path, key), notes,
                 (exported.key_path, len(notes) + 1), (own_key, len(notes) + 1))
    assert_taken(gocheck(forged.folder, exported.key_path), notes,
                 (exported.key_path, len(notes) + 1))

    wrong = signature_line(b"x" + notes[2].text, own_key, notes[2].origin,
                           key_id(notes[2].origin, own_key))
    forged.note(2, notes[2].octets + wrong)
    assert_refused(gocheck(forged.folder, exported.key_path, key),
                   "checkpoints.txt, note 2: invalid signature for key "
                   rf"{notes[2].origin}\+{key_id(notes[2].origin, own_key).hex()}")


def test_signed_note_with_another_root_is_refused(gocheck, forged, own_key):
    """By a trusted key: only the records speak against it."""
    forged.sign(own_key)
    text = other_root(Note(forged.notes[7]).text)
    forged.note(7, signed(text, own_key))
    n = Note(forged.notes[7])
    assert_refused(gocheck(forged.folder, forged.write_key(own_key)),
                   f"checkpoints.txt, note 7: signed root {root(n)} at size {n.size}, "
                   "the records have .{44}")


def test_changed_root_is_refused_by_the_signature(gocheck, exported, forged):
    n = exported.notes[4]
    forged.note(4, n.octets.replace(n.text, other_root(n.text)))
    assert_refused(gocheck(forged.folder, exported.key_path),
                   "checkpoints.txt, note 4: invalid signature for key "
                   rf"{n.origin}\+{key_id(n.origin, exported.key_path).hex()}")


def test_signature_of_another_key_is_refused(gocheck, exported, forged, own_key):
    """With that key's identifier it is a stranger's, with the trusted one's it is wrong."""
    n = exported.notes[3]
    forged.note(3, signed(n.text, own_key))
    assert_refused(gocheck(forged.folder, exported.key_path),
                   "checkpoints.txt, note 3: note has no verifiable signatures")
    trusted = key_id(n.origin, exported.key_path)
    forged.note(3, n.text + b"\n" + signature_line(n.text, own_key, identifier=trusted))
    assert_refused(gocheck(forged.folder, exported.key_path),
                   "checkpoints.txt, note 3: invalid signature for key "
                   rf"{n.origin}\+{trusted.hex()}")


@pytest.mark.parametrize("change, what", [
    (lambda text: text + b"extension\n", "not in the one form of a checkpoint"),
    (lambda text: text.replace(b"=\n", b"=\n\n", 1), "not in the one form of a checkpoint"),
    (lambda text: text.replace(b"\n", b"\n0", 1), "malformed tree note"),
    (lambda text: text.replace(b"=\n", b"\n"), "malformed tree note"),
    (lambda text: re.sub(rb"\n[0-9]+\n", b"\n0\n", text), "a checkpoint over no records")])
def test_signed_note_in_another_form_is_refused(gocheck, forged, own_key, change, what):
    forged.sign(own_key)
    forged.notes[5] = signed(change(Note(forged.notes[5]).text), own_key)
    forged.save()
    assert_refused(gocheck(forged.folder, forged.write_key(own_key)),
                   f"checkpoints.txt, note 5: {what}")


def test_signed_note_of_another_log_is_refused(gocheck, exported, forged, own_key):
    """What is signed under the name of this log may still be the tree of another."""
    forged.sign(own_key)
    text = Note(forged.notes[5]).text.replace(b"/audit/1\n", b"/audit/2\n")
    forged.note(5, text + b"\n" + signature_line(text, own_key, exported.origin,
                                                key_id(exported.origin, own_key)))
    assert_refused(gocheck(forged.folder, forged.write_key(own_key)),
                   f"checkpoints.txt, note 5: a note of another log, not of {exported.origin}")


def test_further_signature_lines_are_refused(gocheck, exported, forged):
    n = exported.notes[6]
    forged.note(6, n.octets + signature_line(n.text, new_key(), "somebody.else"))
    assert_refused(gocheck(forged.folder, exported.key_path),
                   'checkpoints.txt, note 6: a signature under the name "somebody.else"')
    forged.note(6, n.octets + n.octets[len(n.text) + 1:])
    assert_refused(gocheck(forged.folder, exported.key_path),
                   "checkpoints.txt, note 6: 2 signature lines, 1 different ones")
    forged.note(6, n.octets + b"".join(signature_line(n.text, new_key()) for _ in range(4)))
    assert_refused(gocheck(forged.folder, exported.key_path),
                   "checkpoints.txt, note 6: 5 signature lines, 5 different ones")


def test_order_and_end_of_the_notes_are_checked(gocheck, exported, forged):
    sizes = [n.size for n in exported.notes]
    at = next(i for i in range(1, len(sizes)) if sizes[i] > sizes[i - 1])
    a, b = forged.notes[at - 1], forged.notes[at]
    forged.note(at - 1, b)
    forged.note(at, a)
    assert_refused(gocheck(forged.folder, exported.key_path),
                   f"checkpoints.txt, note {at}: size {sizes[at - 1]} after {sizes[at]}")
    older = [n.octets for n in exported.notes if n.size < sizes[-1]]
    write(os.path.join(forged.folder, "checkpoints.txt"), b"".join(n + b"\n" for n in older))
    assert_refused(gocheck(forged.folder, exported.key_path),
                   "checkpoints.txt does not end with the tree of checkpoint")


# ---- proofs --------------------------------------------------------------------------------------

def test_proofs_are_taken(gocheck, exported, folder):
    """Also those of an earlier export: its checkpoint is one that the log went through."""
    proofs = [prove(exported.folder, mid, os.path.join(folder, mid))
              for mid in (*exported.pulled, exported.pushed)]
    proofs += [prove(exported.early, mid, os.path.join(folder, f"early-{mid}"))
               for mid in exported.pulled[:6]]
    notes = exported.notes
    assert_taken(gocheck(exported.folder, exported.key_path, proofs=proofs), notes,
                 (exported.key_path, len(notes) + 1), proofs=len(proofs))


def test_proof_of_another_record_is_refused(gocheck, exported, folder):
    mids = exported.pulled[:2]
    a, b = (read(folder, os.path.basename(prove(exported.folder, mid, os.path.join(folder, mid))))
            .split(b"\n", 3) for mid in mids)
    path, size = os.path.join(folder, "forged"), len(exported.records)
    index, other_index = a[2].split()[1].decode(), b[2].split()[1].decode()
    assert a[:1] == b[:1] and a[1] != b[1] and a[2] != b[2] and a[3] != b[3]
    for forgery in ([a[0], b[1], a[2], a[3]],  # the record
                    [a[0], a[1], a[2], b[3]]):  # the path
        write(path, b"\n".join(forgery))
        assert_refused(gocheck(exported.folder, exported.key_path, proofs=[path]),
                       f"{path}: not record {index} of {size}: invalid transparency proof")
    for other in (other_index, str(size), "-1"):
        write(path, b"\n".join([a[0], a[1], f"index {other}".encode(), a[3]]))
        assert_refused(gocheck(exported.folder, exported.key_path, proofs=[path]),
                       f"{path}: not record {other} of {size}: .+")


@pytest.mark.parametrize("old, new, what", [
    (b"proof@v1", b"proof@v2", "no tlog-proof"), (b"\n\n", b"\n", ".+ is no hash"),
    (b"\nextra ", b"\nextra", "a proof without the record"),
    (b"\nindex ", b"\nindex 0", '"index 0.+" is no index'),
    (b"=\n", b"=\nAAAA\n", '"AAAA" is no hash'),
    (b"\n\n", b"\n" + base64.b64encode(bytes(32)) + b"\n\n",
     "not record .*: invalid transparency proof"),
    ("\n\u2014".encode(), "x\n\u2014".encode(), "malformed note"),
    (b"/audit/1\n", b"/audit/2\n", "invalid signature for key .+")])
def test_proof_in_another_form_is_refused(gocheck, exported, folder, old, new, what):
    path = prove(exported.folder, exported.pulled[3], os.path.join(folder, "proof"))
    octets = read(folder, "proof")
    assert old in octets
    write(path, octets.replace(old, new, 1))
    assert_refused(gocheck(exported.folder, exported.key_path, proofs=[path]), f"{path}: {what}")


def test_proof_under_another_root_is_refused(gocheck, exported, forged, folder, own_key):
    """A proof that is right in itself, of a log with another record: it is not of these records."""
    forged.sign(own_key)
    path = os.path.join(folder, "proof")
    whole = read(folder, os.path.basename(prove(forged.folder, exported.pulled[3], path)))
    head, note = whole.split(b"\n\n", 1)
    write(path, head + b"\n\n" + signed(other_root(Note(note).text), own_key))
    assert_refused(gocheck(forged.folder, forged.write_key(own_key), proofs=[path]),
                   f"{path}: signed root .{{44}} at size {len(exported.records)}, "
                   "the records have .{44}")


# ---- keys ----------------------------------------------------------------------------------------

def test_another_key_is_refused(gocheck, exported, folder):
    path = os.path.join(folder, "key.pem")
    write(path, spki(new_key(), Encoding.PEM))
    assert_refused(gocheck(exported.folder, path),
                   "checkpoints.txt, note 0: note has no verifiable signatures")
    write(path, spki(ec.generate_private_key(ec.SECP384R1()), Encoding.PEM))
    assert_refused(gocheck(exported.folder, path), f"{path}: a key on the curve P-384")
    write(path, b"no PEM")
    assert_refused(gocheck(exported.folder, path), f"{path}: no public key in PEM")
