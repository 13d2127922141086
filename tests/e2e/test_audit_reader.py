"""tek-audit beside a verifier that was written from docs/audit.md alone (reader/): what one of them
refuses the other refuses as well, and what one takes the other takes.  Exports are built and signed
here, untouched and manipulated, and one is a real server's.

`resigned` manipulations change the records before everything is signed with the right key, so
only the step that reads their meaning can find them; `on_disk` ones change the finished folder.
"""
from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cp3py import auditlog
from cp3py.merkle import Tree
from cp3py.messages import request
from harness.programs import TOP, find, program
from harness.stage import Stage
from harness.witness import Cosigner
from reader import verifier

LOG = "bsm.test"
HASH_A, HASH_B = "a" * 64, "b" * 64
# tek-audit: 1 it is refused, 3 a file could not be read, among them what is no file or no note.
REFUSED = (1, 3)


@pytest.fixture
def tmp_path(folder: str) -> Path:
    """Goes with the test."""
    return Path(folder)


# ------------------------------------------------------------------------------- the builder

class Signer:
    def __init__(self, kind: str) -> None:
        self.ed = kind == "ed25519"
        self.key: Any = (ed25519.Ed25519PrivateKey.generate() if self.ed
                         else ec.generate_private_key(ec.SECP256R1()))
        public = self.key.public_key()
        self.der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def key_id(self, origin: str) -> bytes:
        octets = origin.encode() + b"\n\x01" + self.der[-32:] if self.ed else self.der
        return hashlib.sha256(octets).digest()[:4]

    def line(self, text: bytes, origin: str) -> bytes:
        signature = self.key.sign(text) if self.ed else self.key.sign(text, ec.ECDSA(SHA256()))
        blob = base64.b64encode(self.key_id(origin) + signature)
        return "\u2014 ".encode() + origin.encode() + b" " + blob + b"\n"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.der).hexdigest()


A, B, C, STRANGER = Signer("ecdsa"), Signer("ecdsa"), Signer("ed25519"), Signer("ecdsa")


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, by its recursive definition."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + mth(leaves[:half]) + mth(leaves[half:])).digest()


def make_note(lines: list[bytes], signers: list[Signer], origin: str) -> bytes:
    return sign_note(len(lines), mth(lines), signers, origin)


def sign_note(size: int, root: bytes, signers: list[Signer], origin: str) -> bytes:
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()
    return text + b"\n" + b"".join(s.line(text, origin) for s in signers)


def canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class At:
    """A reference to the record with this label, `epoch/seq` when it is written."""

    def __init__(self, label: str) -> None:
        self.label = label


class Scenario:
    """Records with labels, and notes between them."""

    def __init__(self, epoch: int = 1, signers: Optional[list[Signer]] = None) -> None:
        self.epoch, self.signers = epoch, signers or [A]
        self.origin = f"{LOG}/tekd/audit/{epoch}"
        self.items: list[dict[str, Any]] = []
        self.octets: dict[str, Callable[[bytes], bytes]] = {}
        self.keys: list[Signer] = [A, B, C]
        self.anchors: dict[str, bytes] = {}
        self.shown_size: Optional[int] = None

    def add(self, label: str, ev: str, /, dt: int = 1000, at: Optional[int] = None,
            **fields: Any) -> None:
        item = {"label": label, "dt": dt, "fields": {"ev": ev, "inst": "vm", "v": 1, **fields}}
        self.items.insert(len(self.items) if at is None else at, item)

    def note(self, *signers: Signer, at: Optional[int] = None) -> None:
        item = {"label": "", "note": list(signers) or self.signers}
        self.items.insert(len(self.items) if at is None else at, item)

    def index(self, label: str) -> int:
        return next(i for i, item in enumerate(self.items) if item["label"] == label)

    def seq(self, label: str) -> int:
        return sum("note" not in item for item in self.items[:self.index(label)])

    def after(self, label: str, new: str, ev: str, /, **fields: Any) -> None:
        self.add(new, ev, at=self.index(label) + 1, **fields)

    def set(self, label: str, /, **fields: Any) -> None:
        self.items[self.index(label)]["fields"].update(fields)

    def drop(self, label: str, *names: str) -> None:
        for name in names:
            del self.items[self.index(label)]["fields"][name]

    def dt(self, label: str, us: int) -> None:
        self.items[self.index(label)]["dt"] = us

    def remove(self, label: str) -> None:
        del self.items[self.index(label)]

    def remove_note_before(self, label: str) -> None:
        i = self.index(label)
        while "note" not in self.items[i]:
            i -= 1
        del self.items[i]

    def cut_after(self, label: str) -> None:
        del self.items[self.index(label) + 1:]

    def build(self) -> tuple[list[bytes], list[bytes]]:
        lines: list[bytes] = []
        notes: list[bytes] = []
        tree = Tree()
        clock = datetime(2026, 1, 1)
        for item in self.items:
            if "note" in item:
                notes.append(sign_note(tree.size, tree.root(), item["note"], self.origin))
                continue
            clock += timedelta(microseconds=item["dt"])
            record = {k: (f"{self.epoch}/{self.seq(v.label)}" if isinstance(v, At) else v)
                      for k, v in item["fields"].items()}
            record.setdefault("seq", len(lines))
            record.setdefault("t", clock.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
            octets = canonical(record)
            lines.append(self.octets.get(item["label"], lambda o: o)(octets))
            tree.append(lines[-1])
        return lines, notes

    def write(self, folder: Path) -> Path:
        lines, notes = self.build()
        for name in ("keys", "anchors"):
            (folder / name).mkdir(parents=True)
        (folder / "audit.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        (folder / "checkpoint").write_bytes(notes[-1])
        (folder / "checkpoints.txt").write_bytes(b"".join(note + b"\n" for note in notes))
        (folder / "pending.jsonl").write_bytes(b"")
        for key in self.keys:
            (folder / f"keys/{key.key_id(self.origin).hex()}.pem").write_bytes(key.pem)
        for name, note in self.anchors.items():
            (folder / "anchors" / name).write_bytes(note)
        write_sums(folder)
        return folder


def write_sums(folder: Path) -> None:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "SHA256SUMS"]
    sums = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}\n"
                   for p in files)
    (folder / "SHA256SUMS").write_text(sums)


MSG = {"mid": "m1", "peer": "p1"}
DEL = {"mid": "d1", "peer": "p1"}
START = {"version": "1", "heartbeat": 300, "config": HASH_A}


def answered(mid: str = "m1", keyid: str = "T1", **more: Any) -> dict[str, Any]:
    return {"mid": mid, "peer": "p1", "cert": HASH_A, "addr": "x", "dir": "pull", "content": "c1",
            "keyid": keyid, "kekid": "k1", "out": HASH_A, "req": HASH_B, **more}


def prepared(mid: str, **more: Any) -> dict[str, Any]:
    return {"mid": mid, "peer": "p1", "dir": "push", "content": "c1", "keyid": "T1",
            "kekid": "k1", "out": HASH_A, **more}


def kek(name: str) -> dict[str, Any]:
    return {"kekid": name, "label": name, "wrap": "aes-kw", "fp": HASH_A, "imported": False}


def standard() -> Scenario:
    """Epoch 1: a stop, a change of the key, a crash with an unattested confirmation."""
    s = Scenario()
    s.add("opened", "log.opened", origin=s.origin)
    s.add("start1", "log.started", release="signed", **START)
    s.note()
    s.add("kek-s", "kek.added", **kek("s1"))
    s.add("kek-1", "kek.added", **kek("k1"))
    s.add("enrol", "bsa.enrolled", bsa="p1", cert=HASH_A, kekid="k1", entitle="*", actor="root")
    s.add("tek1", "tek.generated", keyid="T1", content="c1", bits=128, kekid="s1")
    s.add("tek2", "tek.generated", keyid="T2", content="c1", bits=128, kekid="s1", period=7)
    s.add("answer1", "request.answered", **answered())
    s.note()
    s.add("sent1", "answer.sent", ref=At("answer1"), out=HASH_A, **MSG)
    s.add("repeat1", "request.repeated", ref=At("answer1"), out=HASH_A, addr="x", cert=HASH_A,
          keyid="T1", after=At("sent1"), **MSG)
    s.add("answer2", "request.answered", **answered("m2", "T2", period=7))
    s.note()
    s.add("sent2", "answer.sent", ref=At("answer2"), out=HASH_A, mid="m2", peer="p1")
    s.add("push1", "delivery.prepared", **prepared("d1"))
    s.add("try1", "delivery.attempt", ref=At("push1"), addr="y", **DEL)
    s.note()
    s.add("conf1", "delivery.confirmed", ref=At("push1"), cert=HASH_A, out=HASH_A, **DEL)
    s.note()
    s.add("dup1", "confirm.duplicate", ref=At("push1"), **DEL)
    s.add("beat1", "log.heartbeat", dt=300_000_000)
    s.add("signkey", "log.signkey", key=B.fingerprint)
    s.note(A, B)
    s.add("weird", "admin.action", actor='r"\\\b\t\n\f\r\u0001\u001f\u007fé\U0001f511', uid=0,
          action="a", detail="")
    s.add("stop1", "log.stopped")
    s.note(B)
    s.add("start2", "log.started", dt=7200_000_000, release="signed", **START)
    s.note(B)
    s.add("push3", "delivery.prepared", **prepared("d3"))
    s.add("try3", "delivery.attempt", ref=At("push3"), addr="y", mid="d3", peer="p1")
    s.note(B)
    s.add("conf3", "delivery.confirmed", ref=At("push3"), cert=HASH_A, out=HASH_A, mid="d3",
          peer="p1")
    s.add("late3", "log.heartbeat")
    s.add("recovered", "log.recovered", dt=60_000_000, **{"from": 0, "to": 0})
    fix_recovered(s)
    s.add("start3", "log.started", release="signed", **START)
    s.note(B)
    s.add("unknown3", "delivery.unknown", ref=At("push3"), mid="d3", peer="p1")
    s.add("try3b", "delivery.attempt", ref=At("push3"), addr="y", mid="d3", peer="p1")
    s.note(B)
    s.add("conf3b", "delivery.confirmed", ref=At("push3"), cert=HASH_A, out=HASH_A, mid="d3",
          peer="p1")
    s.add("lost", "hsm.lost", reason="r")
    s.add("back", "hsm.back", reason="r", dt=3000_000_000)
    s.add("step", "clock.step", dt=-5_000_000, delta_us="-5000000")
    s.add("kek-2", "kek.added", **kek("k2"))
    s.add("end", "log.closed")
    s.note(B)
    return s


def fix_recovered(s: Scenario) -> None:
    s.set("recovered", **{"from": s.seq("conf3"), "to": s.seq("recovered") - 1})


def second(previous: Optional[bytes] = None) -> Scenario:
    """Epoch 2 goes on from the last note of the standard epoch 1, signed by A here."""
    s = Scenario(epoch=2)
    s.keys = [A]
    s.add("opened", "log.opened", origin=s.origin, note=(previous or last_note()).decode(),
          heartbeat=300, release="signed")
    s.add("carried", "delivery.carried", ref="1/20", mid="d9", peer="p1", content="c1",
          keyid="T1", kekid="k1", out=HASH_A)
    s.note()
    s.add("conf9", "delivery.confirmed", ref=At("carried"), cert=HASH_A, out=HASH_A, mid="d9",
          peer="p1")
    s.add("repeat1", "request.repeated", ref="1/8", out=HASH_A, addr="x", cert=HASH_A,
          keyid="T1", after="1/30", **MSG)
    s.add("answer5", "request.answered", **answered("m5", "T1"))
    s.note()
    s.add("sent5", "answer.sent", ref=At("answer5"), out=HASH_A, mid="m5", peer="p1")
    s.add("end", "log.heartbeat")
    s.note()
    return s


def last_note(signer: Signer = A, size: int = 42) -> bytes:
    return make_note([b"%d" % i for i in range(size)], [signer], f"{LOG}/tekd/audit/1")


# --------------------------------------------------------------------------------- controls

def tek_audit(folder: Path | str, pem: bytes,
              since: Optional[bytes]) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as aside:
        key, note = Path(aside, "key.pem"), Path(aside, "note")
        key.write_bytes(pem)
        note.write_bytes(since or b"")
        seen = ["--first"] if since is None else ["--since", str(note)]
        return subprocess.run([program("tek-audit"), "verify", str(folder), "--key", str(key),
                               *seen], capture_output=True, text=True, timeout=60, check=False)


def verify(folder: Path | str, pem: bytes, since: Optional[bytes] = None) -> verifier.Summary:
    """Both, which have to agree; what the reader says."""
    theirs = tek_audit(folder, pem, since)
    try:
        summary = verifier.verify(str(folder), pem, since)
    except verifier.Refused as e:
        assert theirs.returncode in REFUSED, f"tek-audit takes what the reader refuses: {e}"
        raise
    assert theirs.returncode == 0, f"tek-audit refuses what the reader takes: {theirs.stderr}"
    return summary


def refused(folder: Path, pem: bytes = A.pem, since: Optional[bytes] = None) -> verifier.Refused:
    with pytest.raises(verifier.Refused) as caught:
        verify(folder, pem, since)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.smoke
def test_a_real_servers_log(new_stage: Callable[..., Stage]) -> None:
    """Pulls, pushes, a stop and a crash; a note of before the last part is remembered."""
    stage = new_stage(["p-0", "p-4"]).start()
    key = Path(stage.tekd.path("checkpoint.pem")).read_bytes()
    for turn, end in enumerate((stage.tekd.stop, stage.tekd.kill, lambda: None)):
        for mid in stage.deliver(f"urn:reader:{turn}"):
            stage.wait(mid)
        with stage.tekd.connect("p-0") as c:
            assert c.ask(request(f"pulled-{turn}", "urn:reader:pull", "p-0"),
                         stage["p-0"].media).status == 200
        seen = Path(stage.tekd.export(), "checkpoint").read_bytes()
        end()
        if turn < 2:
            stage.tekd.start()
    folder = stage.tekd.export()
    summary = verify(folder, key)
    assert summary.events["request.answered"] == 3 and summary.events["delivery.confirmed"] >= 6
    assert verify(folder, key, seen).size == summary.size
    edit(Path(folder), "audit.jsonl", lambda d: d.replace(b"urn:reader:1", b"urn:reader:9", 1))
    assert refused(Path(folder), key).step == "3"


@pytest.mark.parametrize("batch", ["1", "32", "64"])
def test_the_log_of_the_benchmark(batch: str, tmp_path: Path) -> None:
    """What is measured with it is measured of a log that all verifiers take."""
    folder = tmp_path / "log"
    done = subprocess.run([find("bench_log"), "--dir", folder, "--records", "4000", "--batch",
                           batch], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    pem = next((folder / "keys").iterdir())
    summary = verify(folder, pem.read_bytes())
    assert (summary.size, summary.pending) == (told["records"], 0)
    assert auditlog.Log(str(folder), str(pem))
    edit(folder, "audit.jsonl", lambda d: d.replace(b"192.0.2.1:", b"192.0.2.9:", 1))
    assert refused(folder, pem.read_bytes()).step == "3"


def test_control(tmp_path: Path) -> None:
    s = standard()
    lines, notes = s.build()
    s.anchors = {"one": notes[3], "odd-na_me.1": notes[7]}
    summary = verify(s.write(tmp_path / "e"), A.pem)
    assert summary.size == len(lines)
    assert summary.unattested == [(s.seq("conf3"), s.seq("late3"))]
    assert len(summary.trusted_keys) == 2 and summary.pending == 0
    assert len(summary.outages) == 4
    for note in notes:
        verify(tmp_path / "e", A.pem, note)


def test_control_epoch_2(tmp_path: Path) -> None:
    folder = second().write(tmp_path / "e")
    verify(folder, A.pem)
    verify(folder, A.pem, last_note())


def test_control_ed25519_only(tmp_path: Path) -> None:
    s = Scenario(signers=[C])
    s.add("opened", "log.opened", origin=s.origin)
    s.add("start", "log.started", **START)
    s.note()
    assert verify(s.write(tmp_path / "e"), C.pem).size == 2


def test_control_durable_is_counted(tmp_path: Path) -> None:
    s = standard()
    for label in ("start1", "start2", "start3"):
        s.set(label, release="durable")
    s.remove_note_before("sent1")
    assert verify(s.write(tmp_path / "e"), A.pem).unpromised == 6


def test_control_many_crashes(tmp_path: Path) -> None:
    """However many tails were recovered, none is left out: the last one has the confirmation."""
    crashes, tails = 4200, []
    s = Scenario(signers=[C])
    s.add("opened", "log.opened", origin=s.origin)
    s.add("start", "log.started", release="signed", **START)
    s.add("kek-s", "kek.added", **kek("s1"))
    s.add("kek-1", "kek.added", **kek("k1"))
    s.add("enrol", "bsa.enrolled", bsa="p1", cert=HASH_A, kekid="k1", entitle="*", actor="root")
    s.add("tek1", "tek.generated", keyid="T1", content="c1", bits=128, kekid="s1")
    s.add("push1", "delivery.prepared", **prepared("d1"))
    s.note()
    s.add("try1", "delivery.attempt", ref=At("push1"), addr="y", **DEL)
    size = s.seq("try1") + 1
    for turn in range(crashes):
        s.note()
        if turn < crashes - 1:
            s.add("", "log.heartbeat")
        else:
            s.add("conf1", "delivery.confirmed", ref=At("push1"), cert=HASH_A, out=HASH_A, **DEL)
        s.add("", "log.recovered", **{"from": size, "to": size})
        s.add("", "log.started", release="signed", **START)
        tails.append((size, size))
        size += 3
    s.note()
    folder = s.write(tmp_path / "e")
    summary = verify(folder, C.pem)
    assert (summary.unattested, summary.pending, summary.size) == (tails, 1, size)

    key = tmp_path / "key.pem"
    key.write_bytes(C.pem)
    command = [program("tek-audit"), "verify", str(folder), "--key", str(key), "--first"]
    said = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True).stdout)
    assert [(r["from"], r["to"]) for r in said["recovered"]] == tails
    assert len(said["outages"]) == len(summary.outages) == crashes
    assert (said["unattested"], said["pending"], said["confirmed_unattested"]) == (crashes, 1, 1)
    text = subprocess.run([*command, "--ledger"], check=True, capture_output=True, text=True).stdout
    assert text.count("\nunattested: records ") == text.count("\noutage: ") == crashes
    row = text.splitlines()[-1].split("\t")
    assert (row[0], row[3], row[-1]) == ("d1", "unknown", "false")


# ------------------------------------------- manipulations that are signed with the right key

NUL = b'"x\\u0000":1,'


def replace(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(octets: bytes) -> bytes:
        assert old in octets
        return octets.replace(old, new, 1)
    return change


def octets(label: str, old: bytes, new: bytes) -> Callable[[Scenario], None]:
    return lambda s: s.octets.update({label: replace(old, new)})


def chain(*changes: Callable[[Scenario], Any]) -> Callable[[Scenario], None]:
    def change(s: Scenario) -> None:
        for one in changes:
            one(s)
    return change


Change = Callable[[Scenario], Any]
# name -> (step, label of the record that is refused, change)
RESIGNED: dict[str, tuple[str, str, Change]] = {
    # step 5, the form
    "space": ("5", "kek-1", octets("kek-1", b'":"', b'": "')),
    "order of keys": ("5", "kek-1", octets("kek-1", b'{"ev":', b'{"z":1,"ev":')),
    "key twice": ("5", "beat1", octets("beat1", b'{', b'{"ev":"log.heartbeat",')),
    "null": ("5", "beat1", octets("beat1", b'{', b'{"a":null,')),
    "nesting": ("5", "beat1", octets("beat1", b'{', b'{"a":{},')),
    "deep nesting": ("5", "beat1", octets("beat1", b'{', b'{"a":' + b"[" * 8000)),
    "fraction": ("5", "beat1", octets("beat1", b'"v":1', b'"v":1.0')),
    "sign": ("5", "beat1", octets("beat1", b'{', b'{"a":-1,')),
    "leading zero": ("5", "beat1", octets("beat1", b'"v":1', b'"v":01')),
    "2^53": ("5", "beat1", octets("beat1", b'{', b'{"a":9007199254740992,')),
    "huge number": ("5", "beat1", octets("beat1", b'{', b'{"a":' + b"9" * 8000 + b',')),
    "escaped letter": ("5", "weird", octets("weird", "é".encode(), b"\\u00e9")),
    "escaped slash": ("5", "beat1", octets("beat1", b'"inst":"vm"', b'"inst":"\\/"')),
    "upper-case escape": ("5", "weird", octets("weird", b"\\u001f", b"\\u001F")),
    "long escape of tab": ("5", "weird", octets("weird", b"\\t", b"\\u0009")),
    "U+0000": ("5", "weird", octets("weird", b"\\u001f", b"\\u0000")),
    "raw control": ("5", "weird", octets("weird", b"\\t", b"\t")),
    "invalid UTF-8": ("5", "weird", octets("weird", "é".encode(), b"\xe9")),
    "surrogate": ("5", "weird", octets("weird", "é".encode(), b"\xed\xa0\x80")),
    "key of 16": ("5", "beat1", octets("beat1", b'{', b'{"aaaaaaaaaaaaaaaa":1,')),
    "key with digit": ("5", "beat1", octets("beat1", b'{', b'{"a1":1,')),
    "25 keys": ("5", "beat1", lambda s: s.set(
        "beat1", **{"x" * i: i for i in range(1, 15)}, **{"y" * i: i for i in range(1, 7)})),
    "junk after": ("5", "beat1", octets("beat1", b'"v":1}', b'"v":1} ')),
    "empty line": ("5", "beat1", lambda s: s.octets.update({"beat1": lambda o: b""})),
    "empty object": ("5", "beat1", lambda s: s.octets.update({"beat1": lambda o: b"{}"})),
    "v 2": ("5", "beat1", lambda s: s.set("beat1", v=2)),
    "v true": ("5", "beat1", lambda s: s.set("beat1", v=True)),
    "seq": ("5", "beat1", lambda s: s.set("beat1", seq=3)),
    "no inst": ("5", "beat1", lambda s: s.drop("beat1", "inst")),
    "inst a number": ("5", "beat1", lambda s: s.set("beat1", inst=1)),
    "t a number": ("5", "beat1", lambda s: s.set("beat1", t=1)),
    "t without zeros": ("5", "weird", lambda s: s.set("weird", t="2026-1-1T00:05:00.1Z")),
    "t short": ("5", "beat1", lambda s: s.set("beat1", t="2026-01-01T00:00:00Z")),
    "t February 30": ("5", "beat1", lambda s: s.set("beat1", t="2026-02-30T00:00:00.000000Z")),
    "unknown event": ("5", "beat1", lambda s: s.set("beat1", ev="log.beat")),
    "field missing": ("5", "sent1", lambda s: s.drop("sent1", "out")),
    "hash in capitals": ("5", "sent1", lambda s: s.set("sent1", out="A" * 64)),
    "ref without epoch": ("5", "sent1", lambda s: s.set("sent1", ref="8")),
    "bits a string": ("5", "tek1", lambda s: s.set("tek1", bits="128")),
    "late a string": ("5", "conf1", lambda s: s.set("conf1", late="no")),
    "imported 0": ("5", "kek-1", lambda s: s.set("kek-1", imported=0)),
    "uid a string": ("5", "weird", lambda s: s.set("weird", uid="0")),
    "window a string": ("5", "start1", lambda s: s.set("start1", window="1")),
    "period true": ("5", "tek2", lambda s: s.set("tek2", period=True)),
    "cert of an answer a list": ("5", "answer1", lambda s: s.set(
        "answer1", cert=HASH_A + "," + HASH_B)),
    "cert of enrolment with a space": ("5", "enrol", lambda s: s.set(
        "enrol", cert=HASH_A + ", " + HASH_B)),
    "after without epoch": ("5", "repeat1", lambda s: s.set("repeat1", after="9")),
    "delta_us with a plus": ("5", "step", lambda s: s.set("step", delta_us="+5")),
    "epoch of a content no time": ("5", "content", lambda s: s.after(
        "enrol", "content", "content.added", content="c1", bits=128, actor="r", epoch="1")),
    "leap second": ("5", "beat1", lambda s: s.set("beat1", t="2016-12-31T23:59:60.000000Z")),
    "long line": ("3", "beat1", lambda s: s.set("beat1", x="y" * 9000)),
    # step 6, life
    "opened again": ("6", "again", lambda s: s.after("beat1", "again", "log.opened",
                                                     origin=s.origin)),
    "not opened": ("6", "start1", lambda s: s.remove("opened")),
    "origin in log.opened": ("6", "opened", lambda s: s.set("opened", origin="x/tekd/audit/1")),
    "record before start": ("6", "kek-s", lambda s: s.remove("start1")),
    "start while running": ("6", "again", lambda s: s.after("beat1", "again", "log.started",
                                                            **START)),
    "record after stop": ("6", "again", lambda s: s.after("stop1", "again", "log.heartbeat")),
    "stop after stop": ("6", "again", lambda s: s.after("stop1", "again", "log.stopped")),
    "crash not told": ("6", "start3", lambda s: s.remove("recovered")),
    "record after recovered": ("6", "again", lambda s: s.after("recovered", "again",
                                                               "log.heartbeat")),
    "recovered from": ("6", "recovered", lambda s: s.set(
        "recovered", **{"from": s.seq("late3")})),
    "recovered to": ("6", "recovered", lambda s: s.set("recovered", to=s.seq("conf3"))),
    "recovered takes attested": ("6", "recovered", lambda s: s.set(
        "recovered", **{"from": s.seq("try3")})),
    "after closed": ("6", "again", lambda s: s.after("end", "again", "log.heartbeat")),
    "unknown instance": ("6", "beat1", lambda s: s.set("beat1", inst="other")),
    # step 7, time
    "heartbeat of no time": ("7", "start1", lambda s: s.set("start1", heartbeat=0)),
    "heartbeat of two days": ("7", "start1", lambda s: s.set("start1", heartbeat=172800)),
    "silence": ("7", "beat1", lambda s: s.dt("beat1", 600_000_001)),
    "clock back": ("7", "sent1", lambda s: s.dt("sent1", -1_000_001)),
    "gap explains no fall": ("7", "sent1", chain(
        lambda s: s.dt("sent1", -2_000_000),
        lambda s: s.after("sent1", "gap", "audit.gap", count=1, kind="k"))),
    "reason after the heartbeat": ("7", "sent1", chain(
        lambda s: s.dt("sent1", 700_000_000),
        lambda s: s.after("beat1", "late", "clock.step", delta_us="1"))),
    "reason after two heartbeats": ("7", "sent1", chain(
        lambda s: s.dt("sent1", 700_000_000),
        lambda s: s.after("repeat1", "late", "clock.step", delta_us="1", dt=600_000_000))),
    "reason for the last of two jumps": ("7", "sent1", chain(
        lambda s: s.dt("sent1", 700_000_000), lambda s: s.dt("repeat1", -700_000_000),
        lambda s: s.after("repeat1", "late", "clock.step", delta_us="1"))),
    "more jumps than wait": ("7", "sent1", chain(
        lambda s: s.dt("sent1", -2_000_000),
        *[lambda s, n=n: s.after(f"back{n - 1}" if n else "sent1", f"back{n}", "admin.action",
                                 actor="r", uid=0, action="a", detail="", dt=-2_000_000)
          for n in range(64)],
        lambda s: s.after("back63", "step", "clock.step", delta_us="1"))),
    "reason before the jump": ("7", "sent1", chain(
        lambda s: s.dt("sent1", 700_000_000),
        lambda s: s.after("answer1", "early", "clock.step", delta_us="1"))),
    "reason of another instance": ("7", "sent1", chain(
        lambda s: s.dt("sent1", 700_000_000),
        lambda s: s.after("sent1", "other", "log.started", **START),
        lambda s: s.set("other", inst="two"),
        lambda s: s.after("other", "late", "clock.step", delta_us="1"),
        lambda s: s.set("late", inst="two"))),
    "jump before the stop": ("7", "weird", lambda s: s.dt("weird", 700_000_000)),
    "silence before the stop": ("7", "stop1", lambda s: s.dt("stop1", 700_000_000)),
    "silence after hsm.back": ("7", "end", lambda s: s.dt("end", 700_000_000)),
    "step without clock.step": ("7", "kek-2", chain(lambda s: s.remove("step"),
                                                    lambda s: s.dt("kek-2", -5_000_000))),
    # step 8, keys
    "generated twice": ("8", "again", lambda s: s.after(
        "tek2", "again", "tek.generated", keyid="T1", content="c1", bits=128, kekid="s1")),
    "never generated": ("8", "answer1", lambda s: s.remove("tek1")),
    "other content": ("8", "answer1", lambda s: s.set("answer1", content="c2")),
    "other period": ("8", "answer2", lambda s: s.set("answer2", period=8)),
    "period left out": ("8", "answer2", lambda s: s.drop("answer2", "period")),
    "given after destroyed": ("8", "push1", lambda s: s.after(
        "sent2", "gone", "tek.destroyed", keyid="T1", actor="root")),
    "destroyed but never generated": ("8", "gone", lambda s: s.after(
        "sent2", "gone", "tek.destroyed", keyid="T8", actor="root")),
    "rewrapped after destroyed": ("8", "again", chain(
        lambda s: s.after("beat1", "gone", "tek.destroyed", keyid="T2", actor="root"),
        lambda s: s.after("gone", "again", "tek.rewrapped", keyid="T2", kekid="s1"))),
    "destroyed twice": ("8", "again", chain(
        lambda s: s.after("beat1", "gone", "tek.destroyed", keyid="T2", actor="root"),
        lambda s: s.after("gone", "again", "tek.destroyed", keyid="T2", actor="root"))),
    "rewrapped, never generated": ("8", "again", lambda s: s.after(
        "beat1", "again", "tek.rewrapped", keyid="T8", kekid="s1")),
    "rewrapped under a retired kek": ("8", "again", chain(
        lambda s: s.after("beat1", "gone", "kek.retired", kekid="s1", actor="root"),
        lambda s: s.after("gone", "again", "tek.rewrapped", keyid="T2", kekid="s1"))),
    "enrolled under a retired kek": ("8", "again", chain(
        lambda s: s.after("recovered", "gone", "kek.retired", kekid="k1", actor="root"),
        lambda s: s.items.insert(s.index("gone"), s.items.pop(s.index("start3"))),
        lambda s: s.after("gone", "again", "bsa.enrolled", bsa="p1", cert=HASH_A, kekid="k1",
                          entitle="*", actor="root"))),
    "enrolled under an unknown kek": ("8", "enrol", lambda s: s.set("enrol", kekid="k9")),
    "pushed to a disabled peer": ("8", "push1", lambda s: s.after(
        "sent2", "off", "bsa.disabled", bsa="p1", actor="root")),
    "kek added twice": ("8", "kek-2", lambda s: s.set("kek-2", kekid="k1")),
    "kek never added": ("8", "tek1", lambda s: s.remove("kek-s")),
    "given under a retired kek": ("8", "push1", lambda s: s.after(
        "sent2", "gone", "kek.retired", kekid="k1", actor="root")),
    "wrapped under a retired kek": ("8", "tek1", lambda s: s.after(
        "enrol", "gone", "kek.retired", kekid="s1", actor="root")),
    "not enrolled": ("8", "answer1", lambda s: s.set("enrol", bsa="p2")),
    "disabled": ("8", "answer1", lambda s: s.after("enrol", "off", "bsa.disabled", bsa="p1",
                                                   actor="root")),
    "repeat of a destroyed key": ("8", "repeat1", chain(
        lambda s: s.after("sent1", "gone", "tek.destroyed", keyid="T1", actor="root"),
        lambda s: s.set("repeat1", after=At("gone")))),
    "repeat under a retired kek": ("8", "repeat1", chain(
        lambda s: s.after("sent1", "gone", "kek.retired", kekid="k1", actor="root"),
        lambda s: s.set("repeat1", after=At("gone")))),
    "repeat to a disabled peer": ("8", "repeat1", chain(
        lambda s: s.after("sent1", "off", "bsa.disabled", bsa="p1", actor="root"),
        lambda s: s.set("repeat1", after=At("off")))),
    "after is the future": ("8", "repeat1", lambda s: s.set("repeat1", after=At("beat1"))),
    # step 9, messages
    "two keys under one mid": ("9", "answer2", lambda s: s.set("answer2", mid="m1")),
    "repeat refers to an older answer": ("9", "repeat1", lambda s: s.after(
        "sent1", "more", "request.answered", **answered())),
    "two keys pushed under one mid": ("9", "again", lambda s: s.after(
        "push1", "again", "delivery.prepared", **prepared("d1", keyid="T2", period=7))),
    "unknown in the tail of its confirmation": ("9", "again", lambda s: s.after(
        "late3", "again", "delivery.unknown", ref=At("push3"), mid="d3", peer="p1")),
    "two keks under one mid": ("9", "again", chain(
        lambda s: s.after("kek-1", "kek-3", "kek.added", **kek("k3")),
        lambda s: s.after("sent1", "again", "request.answered", **answered(kekid="k3")))),
    "other key at the end of the window": ("9", "answer2", chain(
        lambda s: s.set("start1", window=1), lambda s: s.dt("answer2", 998_000),
        lambda s: s.set("answer2", mid="m1"))),
    "sent other octets, repeated later": ("9", "sent1", lambda s: s.set("sent1", out=HASH_B)),
    "sent refers to no answer": ("9", "sent1", lambda s: s.set("sent1", ref=At("tek1"))),
    "sent refers to itself": ("9", "sent1", lambda s: s.set("sent1", ref=At("sent1"))),
    "sent refers to a later epoch": ("9", "sent1", lambda s: s.set("sent1", ref="2/8")),
    "sent refers to a delivery": ("9", "again", lambda s: s.after(
        "push1", "again", "answer.sent", ref=At("push1"), out=HASH_A, **DEL)),
    "sent to another peer": ("9", "sent1", lambda s: s.set("sent1", peer="p2")),
    "sent of another mid": ("9", "sent1", lambda s: s.set("sent1", mid="m9")),
    "sent other octets": ("9", "sent2", lambda s: s.set("sent2", out=HASH_B)),
    "repeat of another key": ("9", "repeat1", lambda s: s.set("repeat1", keyid="T2")),
    "repeat of another mid": ("9", "repeat1", lambda s: s.set("repeat1", mid="m9")),
    "attempt of nothing": ("9", "try1", lambda s: s.set("try1", ref="1/9")),
    "attempt to another peer": ("9", "try1", lambda s: s.set("try1", peer="p2")),
    "confirmed without attempt": ("9", "conf1", lambda s: s.remove("try1")),
    "rejected without attempt": ("9", "no", lambda s: s.after("push1", "no", "delivery.rejected",
                                                              ref=At("push1"), **DEL)),
    "confirmed other octets": ("9", "conf1", lambda s: s.set("conf1", out=HASH_B)),
    "attempt after confirmed": ("9", "again", lambda s: s.after(
        "dup1", "again", "delivery.attempt", ref=At("push1"), addr="y", **DEL)),
    "confirmed twice": ("9", "again", lambda s: s.after(
        "dup1", "again", "delivery.confirmed", ref=At("push1"), cert=HASH_A, out=HASH_A, **DEL)),
    "after confirmed, note follows": ("9", "again", lambda s: s.after(
        "conf1", "again", "delivery.unknown", ref=At("push1"), **DEL)),
    "carried in epoch 1": ("9", "again", lambda s: s.after(
        "sent2", "again", "delivery.carried", ref=At("sent2"), mid="d9", peer="p1", content="c1",
        keyid="T1", kekid="k1", out=HASH_A)),
    # step 9, release
    "release unknown": ("9", "start1", lambda s: s.set("start1", release="soon")),
    "sent before its note": ("9", "sent1", lambda s: s.remove_note_before("sent1")),
    "repeated before its note": ("9", "repeat1", chain(
        lambda s: s.remove_note_before("sent1"), lambda s: s.remove("sent1"),
        lambda s: s.set("repeat1", after=At("answer1")))),
    "confirmed before the note": ("9", "conf1", lambda s: s.remove_note_before("conf1")),
    "rejected before the note": ("9", "no", lambda s: s.after(
        "try1", "no", "delivery.rejected", ref=At("push1"), **DEL)),
}


@pytest.mark.parametrize("name", RESIGNED)
def test_resigned(name: str, tmp_path: Path) -> None:
    step, label, change = RESIGNED[name]
    s = standard()
    change(s)
    if not name.startswith("recovered"):
        fix_recovered(s) if any(i["label"] == "recovered" for i in s.items) else None
    found = refused(s.write(tmp_path / "e"))
    assert (found.step, found.where) == (step, f"record {s.seq(label)}"), str(found)


EPOCH_2: dict[str, tuple[str, str, Change]] = {
    "no note": ("10", "opened", lambda s: s.drop("opened", "note")),
    "note of a stranger": ("10", "opened", lambda s: s.set(
        "opened", note=last_note(STRANGER).decode())),
    "note of another log": ("10", "opened", lambda s: s.set("opened", note=make_note(
        [b"x"], [A], "other/tekd/audit/1").decode())),
    "note of its own epoch": ("10", "opened", lambda s: s.set("opened", note=make_note(
        [b"x"], [A], s.origin).decode())),
    "note damaged": ("10", "opened", lambda s: s.set("opened", note="x")),
    "carried from this epoch": ("9", "carried", lambda s: s.set("carried", ref=At("opened"))),
    "carried, destroyed": ("8", "carried", lambda s: s.after(
        "opened", "gone", "tek.destroyed", keyid="T1", actor="r")),
    "carried, kek retired": ("8", "carried", lambda s: s.after(
        "opened", "gone", "kek.retired", kekid="k1", actor="r")),
    "carried, peer disabled": ("8", "carried", lambda s: s.after(
        "opened", "off", "bsa.disabled", bsa="p1", actor="r")),
    "carried, attempt after confirmed": ("9", "again", chain(
        lambda s: s.after("conf9", "again", "delivery.attempt", ref=At("carried"), addr="y",
                          mid="d9", peer="p1"),
        lambda s: s.note(at=s.index("again")))),
    "repeat of a key destroyed here": ("8", "repeat1", chain(
        lambda s: s.after("conf9", "gone", "tek.destroyed", keyid="T1", actor="r"),
        lambda s: s.set("repeat1", after=At("gone")))),
    "after in a later epoch": ("8", "repeat1", lambda s: s.set("repeat1", after="3/0")),
    "ref to another kind in this epoch": ("9", "sent5", lambda s: s.set("sent5", ref="2/0")),
    "carried is missing, confirmed": ("9", "conf9", chain(
        lambda s: s.set("conf9", ref="1/20"), lambda s: s.remove("carried"))),
    "carried is missing, confirmed, not late": ("9", "conf9", chain(
        lambda s: s.set("conf9", ref="1/20", late=False), lambda s: s.remove("carried"))),
    "carried is missing, attempt": ("9", "try9", chain(
        lambda s: s.after("carried", "try9", "delivery.attempt", ref="1/20", addr="y", mid="d9",
                          peer="p1"),
        lambda s: s.remove("carried"), lambda s: s.remove("conf9"))),
    "carried, attempt of what it was before": ("9", "try9", lambda s: s.after(
        "carried", "try9", "delivery.attempt", ref="1/20", addr="y", mid="d9", peer="p1")),
    "carried, other out": ("9", "conf9", lambda s: s.set("conf9", out=HASH_B)),
    "carried, other peer": ("9", "conf9", lambda s: s.set("conf9", peer="p7")),
    "generated after carried": ("8", "again", lambda s: s.after(
        "carried", "again", "tek.generated", keyid="T1", content="c1", bits=128, kekid="s1")),
    "carried, another period": ("8", "answer5", lambda s: s.set("carried", period=7)),
    "carried, period left out": ("8", "carried", chain(
        lambda s: s.after("opened", "tek", "tek.generated", keyid="T1", content="c1", bits=128,
                          kekid="s1", period=7), lambda s: s.set("answer5", period=7))),
    "carried, period a string": ("5", "carried", lambda s: s.set("carried", period="7")),
    "another content than carried": ("8", "answer5", lambda s: s.set("answer5", content="c2")),
    "goes on without heartbeat": ("6", "carried", lambda s: s.drop("opened", "heartbeat")),
    "release promised in log.opened": ("9", "sent5", lambda s: s.remove_note_before("sent5")),
    "release unknown": ("9", "opened", lambda s: s.set("opened", release="no")),
    "window a string": ("5", "opened", lambda s: s.set("opened", window="1")),
    "other key in the window that goes on": ("9", "again", lambda s: s.after(
        "answer5", "again", "request.answered", **answered("m5", "T3"))),
    "silence at once": ("7", "carried", lambda s: s.dt("carried", 700_000_000)),
}


@pytest.mark.parametrize("name", EPOCH_2)
def test_epoch_2(name: str, tmp_path: Path) -> None:
    step, label, change = EPOCH_2[name]
    s = second()
    change(s)
    found = refused(s.write(tmp_path / "e"))
    assert (found.step, found.where) == (step, f"record {s.seq(label)}"), str(found)


ALLOWED: dict[str, Change] = {
    "silence explained at once": lambda s: s.dt("step", 900_000_000),
    "two jumps explained by one step": chain(
        lambda s: s.dt("sent1", 700_000_000), lambda s: s.dt("repeat1", -300_000_000),
        lambda s: s.after("repeat1", "step", "clock.step", delta_us="1")),
    "as many jumps as wait": chain(
        *[lambda s, n=n: s.after(f"back{n - 1}" if n else "sent1", f"back{n}", "admin.action",
                                 actor="r", uid=0, action="a", detail="", dt=-2_000_000)
          for n in range(64)],
        lambda s: s.after("back63", "step", "clock.step", delta_us="1")),
    "silence explained soon": chain(
        lambda s: s.dt("sent1", 700_000_000),
        lambda s: s.after("repeat1", "gap", "audit.gap", count=1, kind="k")),
    "repeat decided before destruction": chain(
        lambda s: s.after("sent2", "gone", "tek.destroyed", keyid="T2", actor="r"),
        lambda s: s.after("gone", "again", "request.repeated", ref=At("answer2"), out=HASH_A,
                          addr="x", cert=HASH_A, keyid="T2", after=At("sent2"), mid="m2",
                          peer="p1")),
    "silence explained within two heartbeats": chain(
        lambda s: s.dt("sent1", 700_000_000),
        lambda s: s.after("sent1", "gap", "audit.gap", count=1, kind="k", dt=600_000_000)),
    "repeat without after": chain(
        lambda s: s.drop("repeat1", "after", "keyid"),
        lambda s: s.after("sent1", "off", "bsa.disabled", bsa="p1", actor="r"),
        lambda s: s.after("repeat1", "on", "bsa.enrolled", bsa="p1", cert=HASH_A, kekid="k1",
                          entitle="*", actor="r")),
    "attempt after all was taken back": chain(
        lambda s: s.after("push3", "gone", "tek.destroyed", keyid="T1", actor="r"),
        lambda s: s.after("push3", "off", "bsa.disabled", bsa="p1", actor="r"),
        lambda s: s.after("push3", "end", "kek.retired", kekid="k1", actor="r")),
    "enrolled with two certificates": lambda s: s.set("enrol", cert=HASH_A + "," + HASH_B),
    "content with an epoch": lambda s: s.after(
        "enrol", "content", "content.added", content="c1", bits=128, actor="r", period_s=60,
        lead_s=5, epoch="2026-01-01T00:00:00.000000Z"),
    "crash during a start": lambda s: s.after(
        "recovered", "more", "log.recovered", **{"from": s.seq("conf3"),
                                                 "to": s.seq("recovered")}),
    "confirmed late": lambda s: s.set("conf1", late=True),
    "repeat decided before disabling": chain(
        lambda s: s.after("sent1", "off", "bsa.disabled", bsa="p1", actor="r"),
        lambda s: s.after("repeat1", "on", "bsa.enrolled", bsa="p1", cert=HASH_A, kekid="k1",
                          entitle="*", actor="r")),
    "same key again": chain(
        lambda s: s.after("sent1", "more", "request.answered", **answered()),
        lambda s: s.set("repeat1", ref=At("more")),
        lambda s: s.items.insert(s.index("repeat1"), {"label": "", "note": [A]})),
    "other key after the window": chain(
        lambda s: s.set("start1", window=1), lambda s: s.dt("answer2", 1_500_000),
        lambda s: s.set("answer2", mid="m1"), lambda s: s.set("sent2", mid="m1")),
    "repeat has other octets": chain(
        lambda s: s.set("repeat1", out=HASH_B),
        lambda s: s.after("repeat1", "more", "answer.sent", ref=At("answer1"), out=HASH_B,
                          **MSG)),
    "8192 octets": lambda s: s.octets.update({"beat1": lambda o: o[:-1] + b',"x":"' + b"y" * (
        8192 - len(o) - 7) + b'"}'}),
    "extra fields of any kind": lambda s: s.set("beat1", zzz=True, uid="x", out=1),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str, tmp_path: Path) -> None:
    s = standard()
    ALLOWED[name](s)
    fix_recovered(s)
    verify(s.write(tmp_path / "e"), A.pem)


ALLOWED_EPOCH_2: dict[str, Change] = {
    "refs into earlier epochs": chain(
        lambda s: s.set("carried", ref="1/99"), lambda s: s.set("repeat1", ref="1/9", after="1/10"),
        lambda s: s.after("sent5", "old", "answer.sent", ref="1/3", out=HASH_B, mid="x", peer="y"),
        lambda s: s.after("sent5", "late", "delivery.confirmed", ref="1/4", out=HASH_B, mid="x",
                          peer="y", cert=HASH_A, late=True)),
    "other key after the window that goes on": chain(
        lambda s: s.set("opened", window=1),
        lambda s: s.after("sent5", "again", "request.answered", dt=1_500_000,
                          **answered("m5", "T3"))),
    "carried, pushed before its note": lambda s: s.after(
        "carried", "try9", "delivery.attempt", ref=At("carried"), addr="y", mid="d9", peer="p1"),
    "carried with its period": chain(
        lambda s: s.set("carried", dir="push", period=7), lambda s: s.set("answer5", period=7)),
}


@pytest.mark.parametrize("name", ALLOWED_EPOCH_2)
def test_allowed_epoch_2(name: str, tmp_path: Path) -> None:
    s = second()
    ALLOWED_EPOCH_2[name](s)
    verify(s.write(tmp_path / "e"), A.pem)


def test_event_table_is_that_of_the_page() -> None:
    rows = re.findall(r"^\| (`[a-z].*?) \|(.*?)\|", Path(TOP, "docs", "audit.md").read_text("utf-8")
                      .split("### Events")[1].split("## Tree")[0], re.MULTILINE)
    page = {name: fields for names, fields in rows for name in re.findall("`(.*?)`", names)}
    assert verifier.EVENTS == verifier.read_event_table(
        "\n".join(f"{name}: {fields}" for name, fields in page.items()))


# ------------------------------------------------------------------------ notes and keys

def test_stranger_signs_everything(tmp_path: Path) -> None:
    s = Scenario(signers=[STRANGER])
    s.keys = [STRANGER]
    s.add("opened", "log.opened", origin=s.origin)
    s.add("start", "log.started", **START)
    s.note()
    assert refused(s.write(tmp_path / "e")).step == "3"


def test_key_never_named(tmp_path: Path) -> None:
    s = standard()
    s.set("signkey", key=STRANGER.fingerprint)
    assert refused(s.write(tmp_path / "e")).step == "3"


def test_key_never_signed_together(tmp_path: Path) -> None:
    s = standard()
    s.items[s.index("signkey") + 1]["note"] = [A]
    assert refused(s.write(tmp_path / "e")).step == "3"


def test_key_signed_before_it_was_named(tmp_path: Path) -> None:
    s = standard()
    s.items[s.index("dup1") - 1]["note"] = [A, B]
    s.items[s.index("signkey") + 1]["note"] = [A]
    assert refused(s.write(tmp_path / "e")).step == "3"


def test_new_key_not_in_keys(tmp_path: Path) -> None:
    s = standard()
    s.keys = [A]
    assert refused(s.write(tmp_path / "e")).step == "3"


def test_key_named_twice(tmp_path: Path) -> None:
    """As after a crash between the record and the note over it."""
    s = standard()
    s.add("signkey again", "log.signkey", at=s.index("signkey") + 1, key=B.fingerprint)
    fix_recovered(s)
    assert len(verify(s.write(tmp_path / "e"), A.pem).trusted_keys) == 2
    s.items[s.index("signkey again") + 1]["note"] = [A]
    assert refused(s.write(tmp_path / "f")).step == "3"


def with_ed25519(*later: Signer) -> Scenario:
    """A key of another kind is introduced with the new one; one note behind that is by `later`."""
    s = standard()
    s.add("signkey2", "log.signkey", at=s.index("signkey"), key=C.fingerprint)
    fix_recovered(s)
    for item in s.items[s.index("signkey"):]:
        if "note" in item:
            item["note"] = [*item["note"], C]
    s.items[s.index("stop1") + 1]["note"] = list(later)
    return s


def test_key_of_another_kind_signs_beside(tmp_path: Path) -> None:
    summary = verify(with_ed25519(B, C).write(tmp_path / "e"), A.pem)
    assert len(summary.trusted_keys) == 3
    assert len(verify(with_ed25519(B).write(tmp_path / "f"), A.pem).trusted_keys) == 3


def test_key_of_another_kind_takes_no_place(tmp_path: Path) -> None:
    assert refused(with_ed25519(C).write(tmp_path / "e")).step == "3"
    assert refused(with_ed25519(STRANGER, C).write(tmp_path / "f")).step == "3"


def test_wrong_line_of_an_introduced_key(tmp_path: Path) -> None:
    s = with_ed25519(B, C)
    folder = s.write(tmp_path / "e")
    lines, notes = s.build()
    for signer in (B, C):
        other = make_note(lines[:-1], [signer], s.origin).splitlines(True)[-1]
        whole = make_note(lines, [x for x in (B, C) if x is not signer], s.origin)
        edit(folder, "checkpoint", lambda d: whole + other)
        assert refused(folder).where == "file checkpoint"


def test_key_that_is_named_and_never_signs(tmp_path: Path) -> None:
    s = standard()
    s.set("signkey", key=STRANGER.fingerprint)
    s.keys = [A, STRANGER]
    for item in s.items:
        item.update({"note": [A]} if "note" in item else {})
    assert len(verify(s.write(tmp_path / "e"), A.pem).trusted_keys) == 1
    s.items[s.index("stop1") + 1]["note"] = [STRANGER]
    assert refused(s.write(tmp_path / "f")).step == "3"


def test_wrong_key_brought(tmp_path: Path) -> None:
    assert refused(standard().write(tmp_path / "e"), pem=STRANGER.pem).step == "3"
    assert refused(tmp_path / "e", pem=B.pem).step == "3"


def test_one_wrong_signature_of_a_trusted_key(tmp_path: Path) -> None:
    s = standard()
    folder = s.write(tmp_path / "e")
    lines, notes = s.build()
    other = make_note(lines[:-1], [A], s.origin).splitlines(True)[-1]
    edit(folder, "checkpoint", lambda d: d + other)
    found = refused(folder)
    assert (found.step, found.where) == ("3", "file checkpoint")


def with_since(tmp_path: Path, since: bytes, scenario: Optional[Scenario] = None) -> str:
    folder = (scenario or standard()).write(tmp_path / "e")
    return refused(folder, since=since).step


def test_truncated_to_a_signed_size(tmp_path: Path) -> None:
    """Without a remembered note nobody can see it; with one it is found."""
    full = standard()
    cut = standard()
    cut.cut_after("conf1")
    cut.note()
    folder = cut.write(tmp_path / "e")
    verify(folder, A.pem)
    for note in full.build()[1][-6:]:
        assert refused(folder, since=note).step == "3"


def test_history_rewritten_and_signed(tmp_path: Path) -> None:
    other = standard()
    other.set("enrol", entitle="all")
    assert with_since(tmp_path, other.build()[1][4]) == "3"


def test_since_of_a_stranger(tmp_path: Path) -> None:
    s = standard()
    lines = s.build()[0]
    assert with_since(tmp_path, make_note(lines[:9], [STRANGER], s.origin)) == "3"


def test_since_of_another_log(tmp_path: Path) -> None:
    assert with_since(tmp_path, make_note([b"x"], [A], "other/tekd/audit/1")) == "2"


def test_since_of_a_later_epoch(tmp_path: Path) -> None:
    assert with_since(tmp_path, make_note([b"x"], [A], f"{LOG}/tekd/audit/2")) == "2"


def test_since_two_epochs_back(tmp_path: Path) -> None:
    s = Scenario(epoch=3)
    s.add("opened", "log.opened", origin=s.origin)
    s.note()
    assert with_since(tmp_path, last_note(), s) == "2"


def test_since_is_not_the_end_of_the_epoch_before(tmp_path: Path) -> None:
    assert with_since(tmp_path, last_note(size=41), second()) == "10"


def test_since_has_another_root(tmp_path: Path) -> None:
    other = make_note([b"x"] * 42, [A], f"{LOG}/tekd/audit/1")
    assert with_since(tmp_path, other, second()) == "10"


def test_key_changed_in_the_epoch_before(tmp_path: Path) -> None:
    """The note that is remembered has the old key's signature, all of epoch 2 the new one's."""
    s = second(last_note(B))
    s.keys = s.signers = [B]
    for item in s.items:
        item.update({"note": [B]} if "note" in item else {})
    folder = s.write(tmp_path / "e")
    verify(folder, B.pem, last_note(A))
    assert refused(folder, A.pem, last_note(A)).step == "10"


def test_since_junk(tmp_path: Path) -> None:
    assert with_since(tmp_path, b"\xff\x00") == "2"


def test_anchor_of_other_history(tmp_path: Path) -> None:
    other = standard()
    other.set("enrol", entitle="all")
    s = standard()
    s.anchors = {"a": other.build()[1][4]}
    found = refused(s.write(tmp_path / "e"))
    assert (found.step, found.where) == ("3", "file anchors/a")


def test_anchor_of_another_epoch(tmp_path: Path) -> None:
    s = second()
    s.anchors = {"a": last_note()}
    assert refused(s.write(tmp_path / "e")).step == "3"


def test_anchor_beyond_the_end(tmp_path: Path) -> None:
    s = standard()
    s.anchors = {"a": make_note(s.build()[0] + [b"x"], [A], s.origin)}
    assert refused(s.write(tmp_path / "e")).step == "3"


def tlv(tag: int, *contents: bytes) -> bytes:
    """One element of DER, of up to 65535 octets."""
    octets = b"".join(contents)
    assert len(octets) < 65536
    length = bytes([len(octets)]) if len(octets) < 128 else b"\x82" + len(octets).to_bytes(2, "big")
    return bytes([tag]) + length + octets


def make_stamp(octets: bytes, status: int = 0, oid: str = "608648016503040201") -> bytes:
    """A TimeStampResp as far as it is read without its signature."""
    imprint = tlv(0x30, tlv(0x30, tlv(0x06, bytes.fromhex(oid)), tlv(0x05)),
                  tlv(0x04, hashlib.sha256(octets).digest()))
    info = tlv(0x30, tlv(0x02, b"\x01"), tlv(0x06, b"\x2a"), imprint, b"x" * 300)
    signed = tlv(0x30, tlv(0x02, b"\x03"), tlv(0x31),
                 tlv(0x30, tlv(0x06, b"\x2a"), tlv(0xA0, tlv(0x04, info))))
    return tlv(0x30, tlv(0x30, tlv(0x02, bytes([status]))),
               tlv(0x30, tlv(0x06, b"\x2a"), tlv(0xA0, signed)))


def test_time_stamp(tmp_path: Path) -> None:
    s = standard()
    note = s.build()[1][4]
    s.anchors = {"1-5-20261128.note": note, "1-5-20261128.tsr": make_stamp(note)}
    verifier.verify(str(s.write(tmp_path / "e")), A.pem)  # tek-audit wants the signature, too


@pytest.mark.parametrize("make, expected", [
    (lambda note: make_stamp(note + b"x"), "a stamp over"),
    (lambda note: make_stamp(note, status=2), "a TimeStampResp"),
    (lambda note: make_stamp(note, oid="608648016503040202"), "a TimeStampResp"),
    (lambda note: make_stamp(note)[:-330], "a TimeStampResp"),
    (lambda note: make_stamp(note) + b"x", "a TimeStampResp"),
    (lambda note: note, "a TimeStampResp"),
])
def test_time_stamp_that_is_none_of_its_note(tmp_path: Path, make, expected: str) -> None:
    s = standard()
    note = s.build()[1][4]
    s.anchors = {"a.note": note, "a.tsr": make(note)}
    found = refused(s.write(tmp_path / "e"))
    assert (found.step, found.where) == ("3", "file anchors/a.tsr")
    assert found.expected.startswith(expected)


def test_time_stamp_without_its_note(tmp_path: Path) -> None:
    s = standard()
    s.anchors = {"a.tsr": make_stamp(s.build()[1][4])}
    found = refused(s.write(tmp_path / "e"))
    assert (found.step, found.where) == ("3", "file anchors/a.tsr") and "a.note" in found.expected


WITNESS, OTHER_WITNESS = Cosigner("witness.example/w1"), Cosigner("witness.example/w2")


def cosign(note: bytes, by: Cosigner = WITNESS, when: int = 1764000000) -> bytes:
    return note + by.line(note[:note.index(b"\n\n") + 1], when)


def test_cosigned_note(tmp_path: Path) -> None:
    s = standard()
    s.anchors = {"1-5-20261128.cosigned": cosign(s.build()[1][4])}
    folder = str(s.write(tmp_path / "e"))
    assert verifier.verify(folder, A.pem).cosigned == 0
    assert verifier.verify(folder, A.pem, witness=WITNESS.vkey).cosigned == 1
    with pytest.raises(verifier.Refused):
        verifier.verify(folder, A.pem, witness=OTHER_WITNESS.vkey)
    for bad in ("", "w", WITNESS.vkey[:-4], WITNESS.vkey.replace("w1", "w2")):
        with pytest.raises(ValueError):
            verifier.verify(folder, A.pem, witness=bad)


@pytest.mark.parametrize("make", [
    lambda note, other: note,
    lambda note, other: cosign(cosign(note)),
    lambda note, other: cosign(note)[:-1],
    lambda note, other: cosign(note)[:-9] + b"\n",
    lambda note, other: cosign(note, when=253402300800),
    lambda note, other: note + b"\n",
    lambda note, other: b"",
    lambda note, other: cosign(other),
])
def test_cosigned_note_that_is_none(tmp_path: Path, make) -> None:
    s = standard()
    note = s.build()[1][4]
    other = make_note(s.build()[0][:4] + [b"x"], [A], s.origin)
    s.anchors = {"a.cosigned": make(note, other)}
    found = refused(s.write(tmp_path / "e"))
    assert found.step == "3"


def test_cosignature_over_another_note(tmp_path: Path) -> None:
    s = standard()
    notes = s.build()[1]
    line = cosign(notes[7])[len(notes[7]):]
    s.anchors = {"a.cosigned": notes[4] + line}
    folder = str(s.write(tmp_path / "e"))
    with pytest.raises(verifier.Refused) as found:
        verifier.verify(folder, A.pem, witness=WITNESS.vkey)
    assert (found.value.step, found.value.where) == ("3", "file anchors/a.cosigned")
    key = tmp_path / "key.pem"
    key.write_bytes(A.pem)
    done = subprocess.run([program("tek-audit"), "verify", folder, "--key", str(key), "--first",
                           "--witness", WITNESS.vkey], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "FAILED anchors/a.cosigned: cosigned:" in done.stderr


def test_right_root_under_another_origin(tmp_path: Path) -> None:
    """Signed with the right key over the right root, but it is a note of another log."""
    s = standard()
    lines, notes = s.build()
    other = make_note(lines[:2], [A], "other/tekd/audit/1")
    s.anchors = {"a": other}
    found = refused(s.write(tmp_path / "anchor"))
    assert (found.step, found.where) == ("3", "file anchors/a") and "origin" in found.expected
    folder = standard().write(tmp_path / "listed")
    edit(folder, "checkpoints.txt", lambda d: other + b"\n" + d)
    found = refused(folder)
    assert (found.step, found.where) == ("3", "file checkpoints.txt")
    assert "origin" in found.expected


def test_empty_log(tmp_path: Path) -> None:
    s = Scenario()
    s.note()
    found = refused(s.write(tmp_path / "e"))
    assert (found.step, found.where) == ("6", "record 0")


def test_note_from_elsewhere_counts_for_release(tmp_path: Path) -> None:
    s = standard()
    s.anchors = {"a": s.build()[1][1]}
    s.remove_note_before("sent1")
    verify(s.write(tmp_path / "e"), A.pem)


# --------------------------------------------------------------------- changes on the disk

def edit(folder: Path, name: str, change: Callable[[bytes], bytes], sums: bool = True) -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
    if sums:
        write_sums(folder)


def swap_lines(data: bytes) -> bytes:
    lines = data.splitlines(True)
    lines[5], lines[6] = lines[6], lines[5]
    return b"".join(lines)


def drop_note(data: bytes, n: int) -> bytes:
    parts = data.split(b"\n\n")
    return b"\n\n".join(parts[:2 * n] + parts[2 * n + 2:])


ON_DISK: dict[str, tuple[str, str, str, Callable[[bytes], bytes]]] = {
    "record edited": ("3", "file checkpoints.txt", "audit.jsonl",
                      lambda d: d.replace(b'"keyid":"T1"', b'"keyid":"T3"')),
    "record removed": ("5", "record 5", "audit.jsonl",
                       lambda d: b"".join(d.splitlines(True)[:5] + d.splitlines(True)[6:])),
    "records swapped": ("5", "record 5", "audit.jsonl", swap_lines),
    "last record cut": ("3", "record ", "audit.jsonl",
                        lambda d: b"".join(d.splitlines(True)[:-1])),
    "no last line end": ("3", "record ", "audit.jsonl", lambda d: d[:-1]),
    "CR LF": ("5", "record 0", "audit.jsonl", lambda d: d.replace(b"\n", b"\r\n", 1)),
    "record appended": ("3", "record ", "audit.jsonl", lambda d: d + b"{}\n"),
    "no records": ("3", "record 0", "audit.jsonl", lambda d: b""),
    "one endless line": ("3", "record 0", "audit.jsonl", lambda d: b"x" * 3_000_000),
    "checkpoint empty": ("2", "file checkpoint", "checkpoint", lambda d: b""),
    "checkpoint large": ("1", "file checkpoint", "checkpoint", lambda d: b"x" * 100_000),
    "extension line": ("2", "file checkpoint", "checkpoint",
                       lambda d: d.replace(b"\n\n", b"\nextension\n\n")),
    "other name signs": ("2", "file checkpoint", "checkpoint",
                         lambda d: d + "— other AAAAAAAA\n".encode()),
    "five signatures": ("2", "file checkpoint", "checkpoint",
                        lambda d: d + d.splitlines(True)[-1] * 4),
    "no signature": ("2", "file checkpoint", "checkpoint",
                     lambda d: b"".join(d.splitlines(True)[:4])),
    "hyphen for the dash": ("2", "file checkpoint", "checkpoint",
                            lambda d: d.replace("—".encode(), b"-")),
    "base64 not canonical": ("2", "file checkpoint", "checkpoint",
                             lambda d: d.replace(b"=\n\n", b"\n\n")),
    "size with zero": ("2", "file checkpoint", "checkpoint",
                       lambda d: d.replace(b"audit/1\n", b"audit/1\n0", 1)),
    "size of digits": ("2", "file checkpoint", "checkpoint",
                       lambda d: d.replace(b"audit/1\n", b"audit/1\n" + b"9" * 5000, 1)),
    "origin of no epoch": ("2", "file checkpoint", "checkpoint",
                           lambda d: d.replace(b"audit/1", b"audit/0")),
    "origin of another epoch": ("4", "file keys/", "checkpoint",
                                lambda d: d.replace(b"audit/1", b"audit/2")),
    "checkpoints empty": ("3", "file checkpoints.txt", "checkpoints.txt", lambda d: b""),
    "checkpoints junk": ("3", "file checkpoints.txt", "checkpoints.txt",
                         lambda d: bytes(range(256)) * 999),
    "checkpoints without the last": ("3", "file checkpoints.txt", "checkpoints.txt",
                                     lambda d: drop_note(d, 12)),
    "checkpoints not ended": ("3", "file checkpoints.txt", "checkpoints.txt", lambda d: d[:-1]),
    "sizes fall": ("3", "file checkpoints.txt", "checkpoints.txt",
                   lambda d: d + b"\n\n".join(d.split(b"\n\n")[:2]) + b"\n\n"),
    "note with a wrong root": ("3", "file checkpoints.txt", "checkpoints.txt",
                               lambda d: d.replace(b"audit/1\n2\n", b"audit/1\n3\n", 1)),
    "sums junk": ("1", "file SHA256SUMS", "SHA256SUMS", lambda d: b"\x00\xff\n"),
    "sums empty": ("1", "file SHA256SUMS", "SHA256SUMS", lambda d: b""),
    "sum of a file outside": ("1", "file SHA256SUMS", "SHA256SUMS",
                              lambda d: d + b"a" * 64 + b"  ../x\n"),
    "sum of a strange file": ("1", "file SHA256SUMS", "SHA256SUMS",
                              lambda d: d + b"a" * 64 + b"  README\n"),
    "sum of itself": ("1", "file SHA256SUMS", "SHA256SUMS",
                      lambda d: d + b"a" * 64 + b"  SHA256SUMS\n"),
    "sum of a missing file": ("1", "file anchors/x", "SHA256SUMS",
                              lambda d: d + b"a" * 64 + b"  anchors/x\n"),
    "sum twice": ("1", "file SHA256SUMS", "SHA256SUMS", lambda d: d + d.splitlines(True)[0]),
    "wrong sum": ("1", "file pending.jsonl", "pending.jsonl", lambda d: b"x"),
}


@pytest.mark.parametrize("name", ON_DISK)
def test_on_disk(name: str, tmp_path: Path) -> None:
    step, where, file, change = ON_DISK[name]
    folder = standard().write(tmp_path / "e")
    edit(folder, file, change, sums=file not in ("SHA256SUMS", "pending.jsonl"))
    found = refused(folder)
    assert found.step == step and found.where.startswith(where), str(found)


@pytest.mark.parametrize("name", verifier.FIXED_NAMES + ("SHA256SUMS",))
def test_missing_file(name: str, tmp_path: Path) -> None:
    folder = standard().write(tmp_path / "e")
    (folder / name).unlink()
    assert refused(folder).step == "1"
    if name != "SHA256SUMS":
        write_sums(folder)
        assert refused(folder).step == "1"


def test_pipes_links_folders_are_refused(tmp_path: Path) -> None:
    folder = standard().write(tmp_path / "e")
    path = folder / "pending.jsonl"
    for make in (os.mkfifo, Path.mkdir, lambda p: p.symlink_to("/dev/zero")):
        path.unlink() if path.exists() and not path.is_dir() else None
        path.rmdir() if path.is_dir() else None
        make(path)
        assert refused(folder).step == "1"


@pytest.mark.parametrize("folder_of_export", ["keys", "anchors"])
@pytest.mark.parametrize("place", ["inside", "outside", "absolute", "nowhere", "file"])
def test_links_in_place_of_folders_are_refused(tmp_path: Path, folder_of_export: str,
                                               place: str) -> None:
    """The same octets behind a link are none of the export, even if the link stays in it."""
    s = standard()
    s.anchors = {"a": s.build()[1][3]}
    folder = s.write(tmp_path / "e")
    path = folder / folder_of_export
    moved = folder / "moved" if place in ("inside", "nowhere") else tmp_path / "moved"
    path.rename(moved)
    if place == "file":
        path.write_bytes(b"x")
    else:
        path.symlink_to({"inside": Path("moved"), "outside": Path("../moved"),
                         "absolute": moved, "nowhere": Path("none")}[place])
    assert refused(folder).step == "1"
    done = tek_audit(folder, A.pem, None)
    assert done.returncode == 3 and done.stdout == "", done
    assert re.fullmatch(rf"tek-audit: {re.escape(str(path))}/\S+: its folder is a link, or no "
                        r"folder\n", done.stderr)
    path.unlink()
    moved.rename(path)
    verify(folder, A.pem)


@pytest.mark.parametrize("name", ["keys/", "anchors/"])
@pytest.mark.parametrize("place", ["inside", "outside", "nowhere", "folder"])
def test_links_in_folders_are_refused(tmp_path: Path, name: str, place: str) -> None:
    s = standard()
    s.anchors = {"a": s.build()[1][3]}
    folder = s.write(tmp_path / "e")
    path = next((folder / name).iterdir())
    moved = {"outside": tmp_path / "moved"}.get(place, path.with_name("moved"))
    path.rename(moved)
    path.symlink_to({"nowhere": Path("none"), "folder": Path("..")}.get(place, moved))
    assert refused(folder).step == "1"
    done = tek_audit(folder, A.pem, None)
    assert (done.returncode, done.stdout, done.stderr) == (
        3, "", f"tek-audit: {path}: no regular file\n")
    path.unlink()
    moved.rename(path)
    verify(folder, A.pem)


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    """It is what the auditor names."""
    standard().write(tmp_path / "e")
    (tmp_path / "link").symlink_to("e")
    verify(tmp_path / "link", A.pem)


def test_bad_key_files(tmp_path: Path) -> None:
    folder = standard().write(tmp_path / "e")
    (folder / "keys/00000000.pem").write_bytes(b"junk")
    write_sums(folder)
    assert refused(folder).step == "4"
    (folder / "keys/00000000.pem").write_bytes(STRANGER.pem)
    write_sums(folder)
    assert refused(folder).step == "4"


def test_unlisted_file_is_not_looked_at(tmp_path: Path) -> None:
    folder = standard().write(tmp_path / "e")
    (folder / "keys/readme").write_bytes(b"junk")
    verify(folder, A.pem)


def test_random_damage_never_a_traceback(tmp_path: Path) -> None:
    """Every outcome is a pass or a refusal; a changed octet under a signature never passes."""
    chance = random.Random(7)
    folder = standard().write(tmp_path / "e")
    names = ["audit.jsonl", "checkpoint", "checkpoints.txt", "SHA256SUMS"]
    for _ in range(150):
        path = folder / chance.choice(names)
        good = path.read_bytes()
        data = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        if path.name != "SHA256SUMS":
            write_sums(folder)
        if bytes(data) != good:
            refused(folder)
        path.write_bytes(good)
        write_sums(folder)


def test_random_signed_nonsense_never_a_traceback(tmp_path: Path) -> None:
    """Records with exchanged fields, moved and dropped, all signed: a pass or a refusal."""
    chance = random.Random(11)
    pool = [True, 0, 1, 2**53 - 1, "", "x", "1/8", "1/0", "2/3", "9" * 16 + "/1", HASH_A, "p1",
            "m1", "T1", "k1", "vm", "signed", "log.started", "\u2028\x7f"]
    for turn in range(200):
        s = standard() if turn % 3 else second()
        records = [i for i, item in enumerate(s.items) if "note" not in item]
        for _ in range(chance.randint(1, 3)):
            item = s.items[chance.choice(records)]
            name = chance.choice(sorted(item["fields"]))
            item["fields"][name] = chance.choice(pool)
            item["dt"] = chance.choice([0, 1000, -2_000_000, 900_000_000])
        try:
            verify(s.write(tmp_path / str(turn)), A.pem)
        except verifier.Refused:
            pass


def run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, verifier.__file__, *arguments],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_command(tmp_path: Path) -> None:
    folder = str(standard().write(tmp_path / "e"))
    key, note = tmp_path / "a.pem", tmp_path / "note"
    key.write_bytes(A.pem)
    note.write_bytes(standard().build()[1][2])
    status, out, _ = run(folder, "--key", str(key), "--first")
    assert status == 0 and "unattested" in out
    assert run(folder, "--key", str(key), "--since", str(note))[0] == 0
    assert run(folder, "--key", str(key))[0] == 2
    assert run(folder, "--key", str(key), "--first", "--since", str(note))[0] == 2
    assert run(folder, "--key", str(note), "--first")[0] == 2
    assert run(folder, "--key", "/nowhere", "--first")[0] == 2
    status, out, err = run("/nowhere", "--key", str(key), "--first")
    assert (status, err) == (1, "") and out.startswith("refused: 1: file SHA256SUMS: expected ")
    assert out.count("\n") == 1 and " found " in out
