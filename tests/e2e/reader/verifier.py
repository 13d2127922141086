#!/usr/bin/python3
"""Offline verifier for an exported audit log, written from docs/audit.md alone: it shares nothing
with the product, nor with the tests' other verifier (cp3py/auditlog.py), but that page.

Section and step numbers in the docstrings are those of that page. The log is read in one pass
(step 1, the plain file sums, reads every file once before); what is kept is the compact range,
one table of Message IDs and one of keys, KEKs and peers.
"""
from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO, Iterator, Optional, Union

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256

MAX_RECORD = 8192
MAX_INTEGER = 2**53 - 1
MAX_FIELDS = 24
MAX_SMALL_FILE = 65536
SECOND_US = 1_000_000
DEFAULT_WINDOW_S = 604800
MAX_HEARTBEAT_S = 86400
MAX_JUMPS = 64  # of an instance that wait for their reason

Record = dict[str, Any]
Ref = tuple[int, int]


class Refused(Exception):
    """The first thing that is wrong, in the words the command prints."""

    def __init__(self, step: str, where: str, expected: str, found: object) -> None:
        self.step, self.where, self.expected, self.found = step, where, expected, shown(found)
        super().__init__(f"{step}: {where}: expected {expected} found {self.found}")


def shown(value: object) -> str:
    """Foreign octets as one short ASCII line: they must not steer a terminal."""
    text = ascii(value) if isinstance(value, (str, bytes)) else str(value)
    return text if len(text) <= 160 else text[:157] + "..."


def require(right: bool, step: str, where: str, expected: str, found: object) -> None:
    if not right:
        raise Refused(step, where, expected, found)


# ---------------------------------------------------------------- records ("A record", step 5)

EVENTS_TEXT = """
log.opened: origin [note] [heartbeat] [window] [release]
log.closed:
log.started: version heartbeat config [window] [release]
log.stopped:
log.recovered: from to
log.heartbeat:
log.signkey: key
audit.gap: count kind
clock.step: delta_us
config.changed: actor detail [config] [uid]
admin.action: actor uid action detail [media] [form] [key_info] [url] [ca]
tek.generated: keyid content bits kekid [period]
tek.rewrapped: keyid kekid
tek.destroyed: keyid actor
kek.added: kekid label wrap fp imported [actor]
kek.retired: kekid actor
bsa.enrolled: bsa cert kekid entitle actor
bsa.disabled: bsa actor
content.added: content bits actor [period_s] [lead_s] [epoch]
hsm.lost: reason
hsm.back: reason
hsm.weakness: token detail
request.answered: mid peer cert addr dir content keyid kekid out req [period]
answer.sent: ref mid peer out
request.repeated: ref mid peer out addr cert [keyid] [after]
request.refused: reason addr [peer] [mid] [content] [cert] [count]
delivery.prepared: mid peer dir content keyid kekid out [period]
delivery.attempt: ref mid peer addr
delivery.confirmed: ref mid peer cert out [late]
delivery.rejected: ref mid peer
delivery.unconfirmed: ref mid peer
delivery.unknown: ref mid peer
delivery.abandoned: ref mid peer reason actor
delivery.carried: ref mid peer content keyid kekid out [dir] [period]
confirm.unmatched: mid peer reason addr [content] [cert] [count]
confirm.duplicate: ref mid peer
tls.refused: cause addr count
"""


def read_event_table(text: str) -> dict[str, tuple[list[str], list[str]]]:
    """Section "Events": event -> (required fields, fields that may be absent)."""
    table = {}
    for line in text.strip().splitlines():
        name, _, fields = line.partition(":")
        words = fields.split()
        table[name] = ([w for w in words if w[0] != "["], [w[1:-1] for w in words if w[0] == "["])
    return table


EVENTS = read_event_table(EVENTS_TEXT)
COMMON = ["v", "seq", "t", "inst", "ev"]
INTEGERS = set("v seq bits period count heartbeat window from to uid period_s lead_s".split())
BOOLEANS = {"imported", "late", "key_info"}
HASH = re.compile(r"[0-9a-f]{64}")
HASHES = re.compile(r"([0-9a-f]{64}(,[0-9a-f]{64})*)?")
REF = re.compile(r"([1-9][0-9]{0,15})/(0|[1-9][0-9]{0,15})")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
SHAPES = {"ref": REF, "after": REF, "dir": re.compile("pull|push"),
          "delta_us": re.compile(r"-?[0-9]+"), "cert": HASH, "out": HASH, "req": HASH,
          "key": HASH, "config": HASH, "fp": HASH, "ca": HASH}
EPOCH_START = datetime(1970, 1, 1, tzinfo=timezone.utc)

PAIR = re.compile(
    rb'"([a-z_]{1,15})":(?:'
    rb'"((?:[^"\\\x00-\x1f]|\\["\\btnfr]|\\u00(?:0[1-7be-f]|1[0-9a-f]))*)"'
    rb'|(true|false)|(0|[1-9][0-9]{0,15}))([,}])')
ESCAPE = re.compile(r"\\(u00..|.)")
SHORT_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def unescape(match: re.Match[str]) -> str:
    code = match.group(1)
    return SHORT_ESCAPES[code] if len(code) == 1 else chr(int(code[1:], 16))


def parse_value(text: Optional[bytes], word: Optional[bytes], digits: bytes) -> Any:
    """One of the three is there. UnicodeDecodeError is a ValueError."""
    if text is not None:
        return ESCAPE.sub(unescape, text.decode("utf-8"))
    if word is not None:
        return word == b"true"
    if int(digits) > MAX_INTEGER:
        raise ValueError
    return int(digits)


def parse_record(line: bytes, where: str) -> Record:
    """Step 5: take a record apart. PAIR only matches the one canonical spelling, so nothing needs
    to be written again and compared."""
    record: Record = {}
    last, position, end = b"", 1, b","
    require(line[:1] == b"{", "5", where, "a record that begins with {", line[:60])
    while end == b",":
        found = line[position:position + 60]
        pair = PAIR.match(line, position)
        if pair is None:
            raise Refused("5", where, "a key of 1 to 15 characters and a canonical value", found)
        key, *value, end = pair.groups()
        require(key > last, "5", where, "keys in order, each once", found)
        try:
            record[key.decode()] = parse_value(*value)
        except ValueError:
            raise Refused("5", where, "UTF-8, or at most 2^53 - 1", found) from None
        last, position = key, pair.end()
    require(position == len(line), "5", where, "nothing after the record", line[position:])
    require(len(record) <= MAX_FIELDS, "5", where, f"at most {MAX_FIELDS} keys", len(record))
    return record


def microseconds(text: str) -> Optional[int]:
    """`t` as microseconds since 1970; None if there is no such time."""
    if TIME.fullmatch(text) is None:
        return None
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")
    except ValueError:
        return None
    return (moment.replace(tzinfo=timezone.utc) - EPOCH_START) // timedelta(microseconds=1)


def value_fits(event: str, name: str, value: object) -> bool:
    """Of what kind a value is, by the name of its field ("A record")."""
    if name in INTEGERS or name in BOOLEANS:
        return type(value) is (int if name in INTEGERS else bool)
    if not isinstance(value, str):
        return False
    if name in ("t", "epoch"):
        return microseconds(value) is not None
    shape = HASHES if (event, name) == ("bsa.enrolled", "cert") else SHAPES.get(name)
    return shape is None or shape.fullmatch(value) is not None


def check_fields(record: Record, seq: int, where: str) -> None:
    """Step 5: number, known event, and the event's fields."""
    event = record.get("ev")
    require(isinstance(event, str) and event in EVENTS, "5", where, "a known event", event)
    required, optional = EVENTS[str(event)]
    for name in COMMON + required + optional:
        if name in record:
            require(value_fits(str(event), name, record[name]), "5", where,
                    f"a fitting value of {name}", record[name])
        else:
            require(name in optional, "5", where, f"{event} with {name}", "none")
    require(record["v"] == 1, "5", where, "v 1", record["v"])
    require(record["seq"] == seq, "5", where, f"seq {seq}", record["seq"])


def parse_ref(text: str) -> Ref:
    epoch, seq = text.split("/")
    return int(epoch), int(seq)


# ------------------------------------------------------ tree, keys, notes ("Tree and checkpoint")

class CompactRange:
    """Roots of the perfect subtrees, largest first: all that appending and the root need."""

    def __init__(self) -> None:
        self.size = 0
        self.roots: list[bytes] = []

    def append(self, octets: bytes) -> None:
        node = hashlib.sha256(b"\0" + octets).digest()
        bits = self.size
        while bits & 1:
            node = hashlib.sha256(b"\1" + self.roots.pop() + node).digest()
            bits >>= 1
        self.roots.append(node)
        self.size += 1

    def root(self) -> bytes:
        if not self.roots:
            return hashlib.sha256(b"").digest()  # RFC 6962, section 2.1: the empty tree
        node = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            node = hashlib.sha256(b"\1" + left + node).digest()
        return node


P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")
PEM_BEGIN, PEM_END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"


class CheckpointKey:
    """A public key that may sign checkpoints. The DER is compared with the two fixed shapes, for
    key id and `log.signkey` are over exactly these octets."""

    def __init__(self, pem: bytes) -> None:
        text = pem.strip()
        if not (text.startswith(PEM_BEGIN) and text.endswith(PEM_END)):
            raise ValueError("not one PUBLIC KEY in PEM")
        body = text[len(PEM_BEGIN):-len(PEM_END)]
        self.der = base64.b64decode(b"".join(body.split()), validate=True)
        self.public: Union[ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey]
        if self.der.startswith(P256_PREFIX):
            point = self.der[len(P256_PREFIX):]
            if len(point) != 65 or point[0] != 4:
                raise ValueError("not an uncompressed point")
            self.public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        elif self.der.startswith(ED25519_PREFIX):
            self.public = ed25519.Ed25519PublicKey.from_public_bytes(
                self.der[len(ED25519_PREFIX):])
        else:
            raise ValueError("neither ECDSA P-256 nor Ed25519")
        self.fingerprint = hashlib.sha256(self.der).hexdigest()

    @property
    def is_ed25519(self) -> bool:
        return isinstance(self.public, ed25519.Ed25519PublicKey)

    def key_id(self, origin: str) -> bytes:
        if isinstance(self.public, ed25519.Ed25519PublicKey):
            text = origin.encode() + b"\n\1" + self.der[len(ED25519_PREFIX):]
            return hashlib.sha256(text).digest()[:4]
        return hashlib.sha256(self.der).digest()[:4]

    def verifies(self, signature: bytes, text: bytes) -> bool:
        try:
            if isinstance(self.public, ed25519.Ed25519PublicKey):
                self.public.verify(signature, text)
            else:
                self.public.verify(signature, text, ec.ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True


NOTE = re.compile(rb"(([^\n]+)\n(0|[1-9][0-9]{0,15})\n([A-Za-z0-9+/]{43}=)\n)\n"
                  rb"((?:\xe2\x80\x94 [^\n ]+ [A-Za-z0-9+/=]+\n){1,4})")
ORIGIN = re.compile(r"([^\s+]+)/tekd/audit/([1-9][0-9]{0,15})")


@dataclass(frozen=True)
class Note:
    text: bytes
    origin: str
    log: str
    epoch: int
    size: int
    root: bytes
    signatures: tuple[tuple[bytes, bytes], ...]  # key id, signature


def strict_base64(text: bytes) -> Optional[bytes]:
    """None unless `text` is the one spelling of its octets: a note has one form."""
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return octets if base64.b64encode(octets) == text else None


def parse_note(data: bytes, step: str, where: str) -> Note:
    """A checkpoint as "Tree and checkpoint" describes it, without extensions or other names."""
    match = NOTE.fullmatch(data)
    if match is None:
        raise Refused(step, where, "a note of three lines and one to four signatures", data)
    text, origin_octets, size, root_text, lines = match.groups()
    origin = origin_octets.decode("utf-8", "replace")
    parts = ORIGIN.fullmatch(origin)
    if parts is None or "\ufffd" in origin:
        raise Refused(step, where, "an origin <id>/tekd/audit/<epoch>", origin_octets)
    root = strict_base64(root_text)
    if root is None or int(size) > MAX_INTEGER:
        raise Refused(step, where, "a size and a root in base64", text)
    signatures = []
    for line in lines[:-1].split(b"\n"):  # splitlines would also cut at a CR inside a name
        _, name, encoded = line.split(b" ")
        require(name == origin_octets, step, where, "signatures under the origin only", name)
        blob = strict_base64(encoded)
        if blob is None or len(blob) < 5:
            raise Refused(step, where, "base64 of key id and signature", encoded)
        signatures.append((blob[:4], blob[4:]))
    return Note(text, origin, parts.group(1), int(parts.group(2)), int(size), root,
                tuple(signatures))


class KeyRing:
    """Step 4: who is trusted, and who becomes trusted."""

    def __init__(self, brought: CheckpointKey) -> None:
        self.trusted = [brought]
        self.candidates: list[CheckpointKey] = []  # of keys/, trusted by nobody yet
        self.named: set[str] = set()

    def check(self, note: Note, step: str, where: str) -> None:
        """Step 3: a signature of a trusted key verifies, and none of a trusted key fails. What is
        of another kind than the key that was brought is looked at, but is not enough."""
        good = 0
        strangers = []
        for key_id, signature in note.signatures:
            keys = [k for k in self.trusted if k.key_id(note.origin) == key_id]
            if keys:
                require(any(k.verifies(signature, note.text) for k in keys), step, where,
                        f"a right signature of {key_id.hex()} at size {note.size}", "a wrong one")
                good += any(k.is_ed25519 == self.trusted[0].is_ed25519 for k in keys)
            else:
                strangers.append((key_id, signature))
        require(good > 0, step, where, f"a signature of a trusted key at size {note.size}",
                "none")
        for key_id, signature in strangers:
            self._introduce(note, key_id, signature)

    def _introduce(self, note: Note, key_id: bytes, signature: bytes) -> None:
        for key in self.candidates:
            if (key.fingerprint in self.named and key.key_id(note.origin) == key_id
                    and key.verifies(signature, note.text)):
                self.trusted.append(key)
                return


# ------------------------------------------------------------------- the folder ("An export")

SUM_LINE = re.compile(rb"([0-9a-f]{64})  ([^\n\\\0]+)\n")
KEY_NAME = re.compile(r"keys/[0-9a-f]{8}\.pem")
ANCHOR_NAME = re.compile(r"anchors/(?!\.{1,2}\Z)[^/]+", re.DOTALL)
FIXED_NAMES = ("audit.jsonl", "checkpoint", "checkpoints.txt", "pending.jsonl")


def der(data: bytes) -> tuple[int, bytes, bytes]:
    """The tag and the contents of the first element of DER, and what is behind it."""
    if len(data) < 2:
        raise ValueError("an element cut short")
    tag, length, start = data[0], data[1], 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if length > len(data) - start:
        raise ValueError("an element cut short")
    return tag, data[start:start + length], data[start + length:]


def der_path(data: bytes, *steps: tuple[int, int]) -> bytes:
    """The contents that a path leads to: each step is a tag, and how many elements are before it."""
    contents = data
    for tag, before in steps:
        rest = contents
        for _ in range(before):
            _, _, rest = der(rest)
        found, contents, _ = der(rest)
        if found != tag:
            raise ValueError(f"tag {found:#04x} where {tag:#04x} belongs")
    return contents


COSIGNATURE = re.compile("\u2014 ([^ +\n]+) ([A-Za-z0-9+/]+=*)\n".encode())
LAST_SECOND = 253402300799  # of the year 9999


def parse_cosignature(line: bytes) -> tuple[bytes, bytes, int, bytes]:
    """Name, key id, time in seconds, signature of a line of C2SP tlog-cosignature."""
    match = COSIGNATURE.fullmatch(line)
    blob = strict_base64(match[2]) if match else None
    if match is None or blob is None or len(blob) != 4 + 8 + 64:
        raise ValueError("no cosignature line")
    when = int.from_bytes(blob[4:12], "big")
    if when > LAST_SECOND:
        raise ValueError("a time behind the year 9999")
    return match[1], blob[:4], when, blob[12:]


class WitnessKey:
    """A verifier key: NAME+HASH+BASE64."""

    def __init__(self, text: str) -> None:
        parts = text.split("+", 2)
        data = strict_base64(parts[2].encode()) if len(parts) == 3 else None
        if data is None or len(data) != 33 or data[0] != 4:
            raise ValueError("no verifier key for cosignatures")
        self.name = parts[0].encode()
        self.key_id = hashlib.sha256(self.name + b"\n" + data).digest()[:4]
        if self.key_id.hex() != parts[1]:
            raise ValueError("the hash of another key")
        self.public = ed25519.Ed25519PublicKey.from_public_bytes(data[1:])

    def verifies(self, line: bytes, text: bytes) -> bool:
        name, key_id, when, signature = parse_cosignature(line)
        if (name, key_id) != (self.name, self.key_id):
            return False
        try:
            self.public.verify(signature, b"cosignature/v1\ntime %d\n" % when + text)
        except InvalidSignature:
            return False
        return True


SHA256_OID = bytes.fromhex("608648016503040201")
SEQUENCE, OCTETS, OID, INTEGER, EXPLICIT = 0x30, 0x04, 0x06, 0x02, 0xA0


def stamped_hash(answer: bytes) -> bytes:
    """The SHA-256 that a granted TimeStampResp (RFC 3161 section 2.4.2) is over."""
    if der(answer)[2]:
        raise ValueError("octets behind it")
    status = der_path(answer, (SEQUENCE, 0), (SEQUENCE, 0), (INTEGER, 0))
    if status not in (b"\0", b"\1"):
        raise ValueError(f"status {status.hex()}")
    # ContentInfo -> SignedData -> EncapsulatedContentInfo -> TSTInfo
    info = der_path(answer, (SEQUENCE, 0), (SEQUENCE, 1), (EXPLICIT, 1), (SEQUENCE, 0),
                    (SEQUENCE, 2), (EXPLICIT, 1), (OCTETS, 0))
    imprint = der_path(info, (SEQUENCE, 0), (SEQUENCE, 2))
    if der_path(imprint, (SEQUENCE, 0), (OID, 0)) != SHA256_OID:
        raise ValueError("a hash that is not SHA-256")
    return der_path(imprint, (OCTETS, 1))


class Export:
    """The files that SHA256SUMS names. Only regular files are opened: no link, pipe or device, and
    nothing behind a link in the place of a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.names: list[str] = []

    def open(self, name: str) -> BinaryIO:
        parent, _, last = name.rpartition("/")
        above = None
        try:
            above = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
            if parent:
                outer, above = above, os.open(
                    parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
                os.close(outer)
            descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=above)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise Refused("1", file_at(name), "a readable file", reason) from None
        finally:
            if above is not None:
                os.close(above)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Refused("1", file_at(name), "a regular file", "something else")
        return os.fdopen(descriptor, "rb")

    def small(self, name: str) -> bytes:
        with self.open(name) as file:
            data = file.read(MAX_SMALL_FILE + 1)
        require(len(data) <= MAX_SMALL_FILE, "1", file_at(name), "a small file", "a large one")
        return data

    def check_sums(self) -> None:
        """Step 1. Sums tell a damaged copy from a forged one; nothing else rests on them."""
        seen: set[str] = set()
        with self.open("SHA256SUMS") as file:
            while line := file.readline(MAX_RECORD):
                match = SUM_LINE.fullmatch(line)
                if match is None:
                    raise Refused("1", file_at("SHA256SUMS"), "<hash>  <name>", line)
                name = os.fsdecode(match.group(2))
                right = (name in FIXED_NAMES or KEY_NAME.fullmatch(name)
                         or ANCHOR_NAME.fullmatch(name))
                require(bool(right), "1", file_at("SHA256SUMS"), "a file of an export", name)
                require(name not in seen, "1", file_at("SHA256SUMS"), "each name once", name)
                seen.add(name)
                self._compare(name, match.group(1).decode())
        for name in FIXED_NAMES:
            require(name in seen, "1", file_at("SHA256SUMS"), f"a sum of {name}", "none")
        self.names = sorted(seen)

    def _compare(self, name: str, expected: str) -> None:
        digest = hashlib.sha256()
        with self.open(name) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        require(digest.hexdigest() == expected, "1", file_at(name), f"SHA-256 {expected}",
                digest.hexdigest())

    def notes(self) -> Iterator[Note]:
        """checkpoints.txt, one note at a time: its own empty line, then the one that ends it."""
        where = file_at("checkpoints.txt")
        with self.open("checkpoints.txt") as file:
            data, empty = b"", 0
            while line := file.readline(MAX_RECORD):
                empty += line == b"\n"
                if empty == 2:
                    yield parse_note(data, "3", where)
                    data, empty = b"", 0
                    continue
                data += line
                require(len(data) <= MAX_SMALL_FILE, "3", where, "a note", data)
            require(data == b"", "3", where, "an empty line after each note", data)


def file_at(name: str) -> str:
    return "file " + ascii(name)[1:-1]


# ------------------------------------------------------------------ life and time (steps 6 and 7)

@dataclass
class Jump:
    seq: int
    t: int
    change: int


@dataclass
class Instance:
    """One server instance. `state`: new, running, recovered, stopped."""
    state: str = "new"
    heartbeat_us: int = 0
    release: Optional[str] = None
    last_t: Optional[int] = None
    hsm_lost: bool = False
    jumps: list[Jump] = field(default_factory=list)  # not explained yet

    def run(self, record: Record) -> None:
        """From `log.started`, or from `log.opened` where it goes on."""
        self.state, self.hsm_lost = "running", False
        self.heartbeat_us = record["heartbeat"] * SECOND_US
        self.release = record.get("release")

    def refuse_jumps(self) -> None:
        for jump in self.jumps:
            raise Refused("7", f"record {jump.seq}", "a reason for a jump of t",
                          f"{jump.change / SECOND_US} s")


@dataclass
class Entry:
    """A record with what the steps need to know about the place where it stands."""
    record: Record
    seq: int
    event: str
    t: int
    newest_note: int  # size of the newest note before it
    inst: Instance = field(default_factory=Instance)

    def __getitem__(self, name: str) -> Any:
        return self.record[name]

    def need(self, step: str, right: bool, expected: str, found: object) -> None:
        require(right, step, f"record {self.seq}", expected, found)


@dataclass
class Outage:
    seq: int
    inst: str
    seconds: float
    why: str


class Life:
    """Steps 6 and 7: what may follow what, and how `t` may go on, for each `inst`."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.instances: dict[str, Instance] = {}
        self.closed = False
        self.outages: list[Outage] = []
        self.unattested: list[tuple[int, int]] = []

    def take(self, entry: Entry) -> None:
        event = entry.event
        entry.need("6", not self.closed, "nothing after log.closed", event)
        entry.need("6", (event == "log.opened") == (entry.seq == 0),
                   "log.opened as record 0 and nowhere else", event)
        inst = entry.inst = self.instances.setdefault(entry["inst"], Instance())
        was_running = inst.state == "running"
        self._step(inst, entry)
        if event == "log.recovered":  # an outage counts from the last record written running
            inst.refuse_jumps()
            return
        if was_running:
            self._follow_clock(inst, entry)
        elif event == "log.started" and inst.last_t is not None:
            self._outage(entry, entry.seq, entry.t - inst.last_t, "not running")
        inst.last_t = entry.t if inst.state != "new" else None
        self.closed = event == "log.closed"

    def _step(self, inst: Instance, entry: Entry) -> None:
        """Step 6 for one record."""
        if entry.event in ("log.opened", "log.started"):
            seconds = entry.record.get("heartbeat", 1)
            entry.need("7", 1 <= seconds <= MAX_HEARTBEAT_S, "a heartbeat within a day", seconds)
        if entry.event == "log.opened":
            if self.epoch > 1 and "heartbeat" in entry.record:
                inst.run(entry.record)
        elif entry.event == "log.started":
            entry.need("6", inst.state != "running", "a stop or log.recovered before a start",
                       "an instance that runs")
            inst.run(entry.record)
        elif entry.event == "log.recovered":
            self._check_recovered(entry)
            inst.state = "recovered"
        else:
            entry.need("6", inst.state == "running",
                       "a start or log.recovered of an instance that does not run", entry.event)
            if entry.event == "log.stopped":
                inst.state = "stopped"

    def _check_recovered(self, entry: Entry) -> None:
        """`log.recovered` names all records since the newest note, and no other."""
        first, last = entry["from"], entry["to"]
        entry.need("6", last == entry.seq - 1, f"to {entry.seq - 1}", last)
        entry.need("6", first == entry.newest_note, f"from {entry.newest_note}", first)
        if first <= last:
            self.unattested.append((first, last))

    def _follow_clock(self, inst: Instance, entry: Entry) -> None:
        """Step 7 from one record of a running instance to its next."""
        event = entry.event
        assert inst.last_t is not None
        if event == "log.heartbeat":
            inst.refuse_jumps()
        change = entry.t - inst.last_t
        if not -SECOND_US <= change <= 2 * inst.heartbeat_us:
            if change > 0 and inst.hsm_lost:
                self._outage(entry, entry.seq, change, "HSM lost")
            else:
                if len(inst.jumps) == MAX_JUMPS:
                    inst.refuse_jumps()
                inst.jumps.append(Jump(entry.seq, entry.t, change))
        if event in ("clock.step", "hsm.lost", "hsm.back", "audit.gap"):
            inst.jumps = [jump for jump in inst.jumps if not self._explains(entry, jump)]
        if event in ("hsm.lost", "hsm.back"):
            inst.hsm_lost = event == "hsm.lost"
        if event == "log.stopped":
            inst.refuse_jumps()

    def _explains(self, entry: Entry, jump: Jump) -> bool:
        """`clock.step` explains every jump, the others a rise only; all within two heartbeats."""
        if (abs(entry.t - jump.t) > 2 * entry.inst.heartbeat_us
                or (jump.change < 0 and entry.event != "clock.step")):
            return False
        self._outage(entry, jump.seq, jump.change, entry.event)
        return True

    def _outage(self, entry: Entry, seq: int, change: int, why: str) -> None:
        self.outages.append(Outage(seq, entry["inst"], change / SECOND_US, why))


# --------------------------------------------------------------------------- keys (step 8)

UNKNOWN = object()  # no record of this epoch has said it yet; None is "without a period"
GIVING = {"request.answered", "delivery.prepared", "delivery.carried"}
NAMING_A_KEK = GIVING | {"tek.generated", "tek.rewrapped", "bsa.enrolled"}


@dataclass
class Tek:
    content: object = UNKNOWN
    period: object = UNKNOWN
    destroyed: Optional[int] = None


class Keys:
    """Step 8. In epoch 1 everything must have been made before it is named; later, what is named
    for the first time is taken to be of an earlier epoch."""

    def __init__(self, epoch: int) -> None:
        self.later_epoch = epoch > 1
        self.teks: dict[str, Tek] = {}
        self.keks: dict[str, Optional[int]] = {}  # -> number of the record that retired it
        self.peers: dict[str, list[tuple[int, bool]]] = {}  # since when, whether enabled

    def take(self, entry: Entry) -> None:
        event = entry.event
        if event in NAMING_A_KEK:
            entry.need("8", self._retired(entry) is None, "a kekid that is not retired",
                       entry["kekid"])
        if event == "kek.added":
            entry.need("8", entry["kekid"] not in self.keks, "a kekid added once", entry["kekid"])
            self.keks[entry["kekid"]] = None
        elif event == "kek.retired":
            self.keks[entry["kekid"]] = self._retired(entry) or entry.seq
        elif event in ("bsa.enrolled", "bsa.disabled"):
            history = self.peers.setdefault(entry["bsa"], [])
            history.append((entry.seq, event == "bsa.enrolled"))
        elif event == "tek.generated":
            entry.need("8", entry["keyid"] not in self.teks,
                       "a keyid generated once, before it is named", entry["keyid"])
            self.teks[entry["keyid"]] = Tek(entry["content"], entry.record.get("period"))
        elif event in ("tek.rewrapped", "tek.destroyed"):
            self._tek(entry).destroyed = entry.seq if event == "tek.destroyed" else None
        elif event in GIVING:
            self._give(entry)

    def _tek(self, entry: Entry) -> Tek:
        keyid = entry["keyid"]
        entry.need("8", self.later_epoch or keyid in self.teks, "a keyid that was generated",
                   keyid)
        tek = self.teks.setdefault(keyid, Tek())
        entry.need("8", tek.destroyed is None, "a keyid that is not destroyed", keyid)
        return tek

    def _retired(self, entry: Entry) -> Optional[int]:
        kekid = entry["kekid"]
        entry.need("8", self.later_epoch or kekid in self.keks, "a kekid that was added", kekid)
        return self.keks.setdefault(kekid, None)

    def _give(self, entry: Entry) -> None:
        tek, period = self._tek(entry), entry.record.get("period")
        tek.content = entry["content"] if tek.content is UNKNOWN else tek.content
        tek.period = period if tek.period is UNKNOWN else tek.period
        entry.need("8", tek.content == entry["content"], f"content {shown(tek.content)}",
                   entry["content"])
        entry.need("8", period == tek.period, f"period {tek.period}", period)
        self._check_peer(entry, entry.seq)

    def _check_peer(self, entry: Entry, at: int) -> None:
        history = self.peers.get(entry["peer"], [])
        enabled = next((on for seq, on in reversed(history) if seq <= at), self.later_epoch)
        entry.need("8", enabled, f"a peer enrolled and not disabled at {at}", entry["peer"])

    def check_repeat(self, entry: Entry, keyid: Optional[str], kekid: Optional[str],
                     at: int) -> None:
        """What counts for a repeat is the state at `after`, here record number `at`."""
        tek = self.teks.get(keyid) if keyid is not None else None
        gone = tek.destroyed if tek is not None else None
        entry.need("8", gone is None or gone > at, f"a keyid not destroyed by {at}", keyid)
        gone = self.keks.get(kekid) if kekid is not None else None
        entry.need("8", gone is None or gone > at, f"a kekid not retired by {at}", kekid)
        self._check_peer(entry, at)


# ----------------------------------------------------------------------- messages (step 9)

@dataclass
class Given:
    """A `request.answered`, `delivery.prepared` or `delivery.carried` and what came of it."""
    entry: Entry
    repeated: bool = False
    first_attempt: Optional[int] = None
    all_signed: bool = True
    confirmed: Optional[int] = None
    open: bool = True

    def __getitem__(self, name: str) -> Any:
        return self.entry.record[name]


CLOSING = {"delivery.confirmed", "delivery.rejected", "delivery.unconfirmed",
           "delivery.abandoned"}
OF_A_DELIVERY = CLOSING | {"delivery.attempt", "delivery.unknown", "confirm.duplicate"}


class Messages:
    """Step 9: answers, deliveries, and that nothing left before its checkpoint. A `ref` into an
    earlier epoch cannot be followed and is taken as it is."""

    def __init__(self, epoch: int, keys: Keys) -> None:
        self.epoch, self.keys = epoch, keys
        self.window_us = DEFAULT_WINDOW_S * SECOND_US
        self.answers: dict[int, Given] = {}
        self.deliveries: dict[int, Given] = {}
        self.newest: dict[tuple[str, str], Entry] = {}
        self.confirmed_in_tail: list[Given] = []
        self.unpromised = 0

    def attest(self) -> None:
        """A note covers everything so far: confirmations count from now on."""
        self.confirmed_in_tail.clear()

    def _reopen(self) -> None:
        """`log.recovered` named the tail: no confirmation in it counts (section "Start", 6)."""
        for delivery in self.confirmed_in_tail:
            delivery.confirmed, delivery.open = None, True
        self.confirmed_in_tail.clear()

    def take(self, entry: Entry) -> None:
        event = entry.event
        if event in ("log.opened", "log.started"):
            self._promise(entry)
        elif event == "log.recovered":
            self._reopen()
        elif event == "request.answered":
            self.answers[entry.seq] = self._given(entry)
        elif event in ("answer.sent", "request.repeated"):
            self._left(entry)
        elif event == "delivery.carried":
            entry.need("9", parse_ref(entry["ref"])[0] < self.epoch, "a ref into an earlier epoch",
                       entry["ref"])
            self.deliveries[entry.seq] = self._given(entry)
        elif event == "delivery.prepared":
            self.deliveries[entry.seq] = self._given(entry)
        elif event in OF_A_DELIVERY:
            self._delivery(entry)

    def _promise(self, entry: Entry) -> None:
        release = entry.inst.release
        entry.need("9", release in (None, "signed", "durable"), "release signed or durable",
                   release)
        if entry.event == "log.started" or entry.inst.state == "running":  # it goes on
            self.window_us = entry.record.get("window", DEFAULT_WINDOW_S) * SECOND_US

    def _given(self, entry: Entry) -> Given:
        """A Message ID of a peer stands for one key under one KEK: an answer's within the window,
        a delivery's for good."""
        name = (entry["peer"], entry["mid"])
        before = self.newest.get(name)
        if before is not None and (before.event != "request.answered" or
                                   entry.t - before.t <= self.window_us):
            for what in ("keyid", "kekid"):
                entry.need("9", before[what] == entry[what], f"{what} {shown(before[what])} again",
                           entry[what])
        self.newest[name] = entry
        return Given(entry)

    def _follow(self, entry: Entry, table: dict[int, Given]) -> Optional[Given]:
        """What `ref` names: of the same peer and Message ID; None if of an earlier epoch."""
        epoch, seq = parse_ref(entry["ref"])
        if epoch < self.epoch:
            return None
        given = table.get(seq) if epoch == self.epoch else None
        if given is None:
            raise Refused("9", f"record {entry.seq}", "a ref to an earlier record of its kind",
                          entry["ref"])
        for name in ("peer", "mid"):
            entry.need("9", given[name] == entry[name], f"the {name} of {entry['ref']}",
                       entry[name])
        return given

    def _release(self, entry: Entry, signed: bool, seq: int) -> None:
        """Where it was promised, the newest note before `entry` covers record `seq`."""
        entry.need("9", not signed or entry.newest_note > seq,
                   f"a note over record {seq} before this one",
                   f"the newest with size {entry.newest_note}")
        self.unpromised += not signed

    def _left(self, entry: Entry) -> None:
        """`answer.sent` and `request.repeated`."""
        answer = self._follow(entry, self.answers)
        if answer is not None:
            newest = self.newest[entry["peer"], entry["mid"]]
            entry.need("9", newest is answer.entry, f"a ref to the newest answer, {newest.seq}",
                       entry["ref"])
        if entry.event == "request.repeated":
            self._repeat(entry, answer)
        elif answer is not None and not answer.repeated:
            entry.need("9", entry["out"] == answer["out"], f"out {answer['out']}", entry["out"])
        if answer is not None:
            self._release(entry, entry.inst.release == "signed", answer.entry.seq)

    def _repeat(self, entry: Entry, answer: Optional[Given]) -> None:
        """A repeat gives the same key, and might be given when it was decided (step 8)."""
        keyid, kekid = entry.record.get("keyid"), None
        if answer is not None:
            entry.need("9", keyid in (None, answer["keyid"]), f"keyid {shown(answer['keyid'])}",
                       keyid)
            answer.repeated = True
            keyid, kekid = answer["keyid"], answer["kekid"]
        if "after" in entry.record:
            after = parse_ref(entry["after"])
            entry.need("8", after < (self.epoch, entry.seq), "after before this record",
                       entry["after"])
            at = after[1] if after[0] == self.epoch else -1
            self.keys.check_repeat(entry, keyid, kekid, at)

    def _delivery(self, entry: Entry) -> None:
        event, delivery = entry.event, self._follow(entry, self.deliveries)
        if event == "delivery.attempt" or (event == "delivery.confirmed"
                                           and not entry.record.get("late", False)):
            entry.need("9", delivery is not None, "a ref into this epoch", entry["ref"])
        if delivery is None or event == "confirm.duplicate":
            return
        entry.need("9", delivery.confirmed is None,
                   f"nothing after the confirmation {delivery.confirmed}", event)
        if event == "delivery.attempt":
            delivery.all_signed = delivery.all_signed and entry.inst.release == "signed"
            if delivery.first_attempt is None:
                delivery.first_attempt = entry.seq
        elif event in ("delivery.confirmed", "delivery.rejected"):
            self._outcome(delivery, entry)
        if event in CLOSING:
            delivery.open = False

    def _outcome(self, delivery: Given, entry: Entry) -> None:
        """Confirmed or rejected: after an attempt, and (release) after a note over the first."""
        first, carried = delivery.first_attempt, delivery.entry.event == "delivery.carried"
        entry.need("9", carried or first is not None, "a delivery.attempt before", "none")
        if entry.event == "delivery.confirmed":
            entry.need("9", entry["out"] == delivery["out"], f"out {delivery['out']}",
                       entry["out"])
            if delivery.confirmed is None:
                delivery.confirmed = entry.seq
                self.confirmed_in_tail.append(delivery)
        if not carried and first is not None:
            signed = delivery.all_signed and entry.inst.release == "signed"
            self._release(entry, signed, first)


# ------------------------------------------------------------------------------ the whole

@dataclass
class Summary:
    origin: str
    size: int
    root: str
    notes: int
    trusted_keys: list[str]
    events: dict[str, int]
    outages: list[Outage]
    unattested: list[tuple[int, int]]
    pending: int
    unpromised: int
    cosigned: int  # notes whose cosignature was verified

    def lines(self) -> Iterator[str]:
        yield f"{ascii(self.origin)[1:-1]}: {self.size} records, root {self.root}"
        yield f"notes: {self.notes}; trusted keys: {', '.join(self.trusted_keys)}"
        yield "events: " + ", ".join(f"{name} {n}" for name, n in sorted(self.events.items()))
        yield f"pending deliveries: {self.pending}; left without a promise: {self.unpromised}"
        yield f"cosignatures verified: {self.cosigned}"
        for first, last in self.unattested:
            yield f"unattested: records {first} to {last}"
        for outage in self.outages:
            yield (f"outage: record {outage.seq}: {shown(outage.inst)}: {outage.seconds} s: "
                   f"{outage.why}")


class Verification:
    """Steps 1 to 10 over one export."""

    def __init__(self, folder: str, key: CheckpointKey, since: Optional[bytes],
                 witness: Optional[WitnessKey]) -> None:
        self.witness, self.cosigned = witness, 0
        self.export = Export(folder)
        self.export.check_sums()
        self.ring = KeyRing(key)
        self.tree = CompactRange()
        self.notes_seen = self.newest_note = 0
        self.events: dict[str, int] = {}
        self.checkpoint = parse_note(self.export.small("checkpoint"), "2", "file checkpoint")
        self.elsewhere: list[tuple[str, Note]] = []
        self._read_anchors()
        self.remembered = parse_note(since, "2", "remembered note") if since is not None else None
        self._place_remembered()
        self.elsewhere.sort(key=lambda item: -item[1].size)
        self._read_keys()
        epoch = self.checkpoint.epoch
        self.life, self.keys = Life(epoch), Keys(epoch)
        self.messages = Messages(epoch, self.keys)
        self.notes = self.export.notes()
        self.last_listed: Optional[Note] = None
        self.next_listed = self._next_listed()

    def _place_remembered(self) -> None:
        """Step 2: the same log, in the same epoch or the next one."""
        note, now = self.remembered, self.checkpoint
        if note is None:
            return
        require(now.log == note.log and now.epoch in (note.epoch, note.epoch + 1), "2",
                "file checkpoint", f"origin of {shown(note.origin)} or the epoch after it",
                now.origin)
        if now.epoch == note.epoch:
            self._expect_at_size("remembered note", note)

    def _expect_at_size(self, where: str, note: Note) -> None:
        """Step 3: keep a note from elsewhere until the range has its size."""
        require(note.origin == self.checkpoint.origin, "3", where,
                f"origin {shown(self.checkpoint.origin)}", note.origin)
        require(note.size <= self.checkpoint.size, "3", where,
                f"a size within the {self.checkpoint.size} records", note.size)
        self.elsewhere.append((where, note))

    def _read_anchors(self) -> None:
        for name in self.export.names:
            if not name.startswith("anchors/"):
                continue
            where = file_at(name)
            if name.endswith(".tsr"):
                self._check_stamp(name, where)
            elif name.endswith(".cosigned"):
                self._expect_at_size(where, self._cosigned(name, where))
            else:
                self._expect_at_size(where, parse_note(self.export.small(name), "3", where))

    def _cosigned(self, name: str, where: str) -> Note:
        """A note and one cosignature, which is verified if there is a key to do it with."""
        octets = self.export.small(name)
        end = octets.rfind(b"\n", 0, max(len(octets) - 1, 0)) + 1
        note, line = parse_note(octets[:end], "3", where), octets[end:]
        try:
            parse_cosignature(line)
        except ValueError as error:
            raise Refused("3", where, "a cosignature", str(error)) from None
        if self.witness is not None:
            require(self.witness.verifies(line, note.text), "3", where,
                    f"a cosignature of {shown(self.witness.name.decode())}", line)
            self.cosigned += 1
        return note

    def _check_stamp(self, name: str, where: str) -> None:
        """A time stamp is over the note of its name; who signed it is not looked at here."""
        note = name[:-len(".tsr")] + ".note"
        require(note in self.export.names, "3", where, f"the note {shown(note)}", "none")
        wanted = hashlib.sha256(self.export.small(note)).digest()
        try:
            found = stamped_hash(self.export.small(name))
        except ValueError as error:
            raise Refused("3", where, "a TimeStampResp", str(error)) from None
        require(found == wanted, "3", where, f"a stamp over {wanted.hex()}", found.hex())

    def _read_keys(self) -> None:
        """Keys of the export are candidates only (step 4)."""
        for name in self.export.names:
            if not name.startswith("keys/"):
                continue
            try:
                key = CheckpointKey(self.export.small(name))
            except ValueError as error:
                raise Refused("4", file_at(name), "a P-256 or Ed25519 key", str(error)) from None
            key_id = key.key_id(self.checkpoint.origin).hex()
            require(name == f"keys/{key_id}.pem", "4", file_at(name), "the name of its key id",
                    key_id)
            self.ring.candidates.append(key)

    def _next_listed(self) -> Optional[Note]:
        """The next note of checkpoints.txt; sizes never fall ("An export")."""
        note = next(self.notes, None)
        where, last, end = "file checkpoints.txt", self.last_listed, self.checkpoint
        if note is None:
            found = "none" if last is None else f"size {last.size}"
            require(last is not None and (last.size, last.root) == (end.size, end.root), "3",
                    where, "size and root of checkpoint in the last note", found)
            return None
        floor = last.size if last is not None else 0
        require(floor <= note.size <= end.size, "3", where,
                f"a size from {floor} to {end.size}", note.size)
        self.last_listed = note
        return note

    def _check_note(self, where: str, note: Note) -> None:
        """Step 3 for one note whose size the range has reached."""
        require(note.origin == self.checkpoint.origin, "3", where,
                f"origin {shown(self.checkpoint.origin)}", note.origin)
        root = self.tree.root()
        require(note.root == root, "3", where,
                f"root {base64.b64encode(root).decode()} at size {note.size}",
                base64.b64encode(note.root).decode())
        self.ring.check(note, "3", where)
        self.notes_seen += 1
        self.newest_note = note.size
        self.messages.attest()

    def _check_notes(self, size: int) -> None:
        """Step 3, before record `size`: listed, elsewhere, and at the end `checkpoint`."""
        while self.next_listed is not None and self.next_listed.size == size:
            self._check_note("file checkpoints.txt", self.next_listed)
            self.next_listed = self._next_listed()
        while self.elsewhere and self.elsewhere[-1][1].size == size:
            self._check_note(*self.elsewhere.pop())
        if size == self.checkpoint.size:
            self._check_note("file checkpoint", self.checkpoint)

    def _take(self, octets: bytes) -> None:
        """Steps 5 to 10 for one record."""
        seq = self.tree.size
        where = f"record {seq}"
        self.tree.append(octets)
        record = parse_record(octets, where)
        check_fields(record, seq, where)
        t = microseconds(record["t"])
        assert t is not None  # check_fields has looked
        entry = Entry(record, seq, record["ev"], t, self.newest_note)
        self.life.take(entry)
        if entry.event == "log.opened":
            self._open_epoch(record, where)
        elif entry.event == "log.signkey":
            self.ring.named.add(record["key"])
        self.keys.take(entry)
        self.messages.take(entry)
        self.events[entry.event] = self.events.get(entry.event, 0) + 1

    def _open_epoch(self, record: Record, where: str) -> None:
        """Step 10: an epoch hangs on the last note of the one before."""
        now = self.checkpoint
        require(record["origin"] == now.origin, "6", where, f"origin {shown(now.origin)}",
                record["origin"])
        if now.epoch == 1:
            return
        require("note" in record, "10", where, f"a note of epoch {now.epoch - 1}", "none")
        note = parse_note(str(record["note"]).encode(), "10", where)
        require((note.log, note.epoch) == (now.log, now.epoch - 1), "10", where,
                f"a note of epoch {now.epoch - 1} of {shown(now.log)}", note.origin)
        self.ring.check(note, "10", where)
        old = self.remembered
        if old is not None and old.epoch == note.epoch:
            require((old.size, old.root) == (note.size, note.root), "10", where,
                    f"size {old.size} and root of the remembered note", f"size {note.size}")

    def run(self) -> Summary:
        end = self.checkpoint.size
        with self.export.open("audit.jsonl") as file:
            while True:
                size = self.tree.size
                self._check_notes(size)
                line = file.readline(MAX_RECORD + 1)
                if line == b"":
                    break
                where = f"record {size}"
                require(size < end, "3", where, f"no record beyond the {end} signed ones", line)
                require(line.endswith(b"\n"), "3", where,
                        f"at most {MAX_RECORD} octets and a line end", line[-40:])
                self._take(line[:-1])
        require(size == end, "3", f"record {size}", f"{end} records", size)
        require(size > 0, "6", "record 0", "log.opened", "no record")
        for inst in self.life.instances.values():
            inst.refuse_jumps()
        return self._summary()

    def _summary(self) -> Summary:
        origin = self.checkpoint.origin
        return Summary(
            origin, self.checkpoint.size, base64.b64encode(self.checkpoint.root).decode(),
            self.notes_seen, [k.key_id(origin).hex() for k in self.ring.trusted], self.events,
            self.life.outages, self.life.unattested,
            sum(d.open for d in self.messages.deliveries.values()), self.messages.unpromised,
            self.cosigned)


def verify(folder: str, trusted_pem: bytes, since: Optional[bytes] = None,
           witness: Optional[str] = None) -> Summary:
    """Verify the export in `folder`. Raises Refused for the first thing that is wrong, and
    ValueError if `trusted_pem` or `witness`, which the caller brings, is no key."""
    key = CheckpointKey(trusted_pem)
    cosigner = WitnessKey(witness) if witness is not None else None
    try:
        return Verification(folder, key, since, cosigner).run()
    except OSError as error:
        raise Refused("1", "file " + shown(folder), "readable files", str(error)) from None


def main(arguments: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Verify an exported audit log offline.")
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--key", required=True, metavar="PUB.pem")
    memory = parser.add_mutually_exclusive_group(required=True)
    memory.add_argument("--first", action="store_true", help="no note is remembered")
    memory.add_argument("--since", metavar="NOTE", help="the note verified last time")
    options = parser.parse_args(arguments)
    try:
        with open(options.key, "rb") as file:
            pem = file.read(MAX_SMALL_FILE)
        since = None
        if options.since is not None:
            with open(options.since, "rb") as file:
                since = file.read(MAX_SMALL_FILE)
        CheckpointKey(pem)
    except (OSError, ValueError) as error:
        print(f"verifier: {shown(str(error))}", file=sys.stderr)
        return 2
    try:
        summary = verify(options.folder, pem, since)
    except Refused as refused:
        print(f"refused: {refused}")
        return 1
    for line in summary.lines():
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
