"""Verifies an exported audit log against the public key of its checkpoints.

As a program:  python3 -m cp3py.auditlog DIR KEY.pem [LAST-NOTE]

Covers what pull and push leave in an epoch of a log: canonical records, numbering, the tree, every
checkpoint, the note that binds it to the epoch before, the life of the server, the references
between records, the life of each delivery, and that a key was sent only under a checkpoint.
Anything it does not know it refuses.
"""

import base64
import json
import os
import re
import sys
from hashlib import sha256

from cryptography.hazmat.primitives import serialization

from .merkle import Tree
from .note import Keys, Note, NoteError, split

HEX32 = re.compile(r"[0-9a-f]{64}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

# What a record of each event must tell.
EVENTS = {
    "log.opened": "origin", "log.closed": "",
    "log.started": "version config heartbeat", "log.stopped": "",
    "log.recovered": "from to", "log.heartbeat": "", "log.signkey": "key",
    "audit.gap": "count kind", "clock.step": "delta_us", "config.changed": "actor detail",
    "admin.action": "actor uid action detail",
    "tek.generated": "keyid content bits kekid", "tek.rewrapped": "keyid kekid",
    "tek.destroyed": "keyid actor",
    "kek.added": "kekid label wrap fp imported", "kek.retired": "kekid actor",
    "bsa.enrolled": "bsa cert kekid entitle actor", "bsa.disabled": "bsa actor",
    "content.added": "content bits actor", "hsm.lost": "reason", "hsm.back": "reason",
    "hsm.weakness": "token detail",
    "request.answered": "mid peer cert addr dir content keyid kekid out req",
    "answer.sent": "ref mid peer out",
    "request.repeated": "ref mid peer out addr cert after",
    "request.refused": "reason addr", "tls.refused": "cause addr count",
    "delivery.prepared": "mid peer dir content keyid kekid out",
    "delivery.carried": "ref mid peer content keyid kekid out",
    "delivery.attempt": "ref mid peer addr", "delivery.confirmed": "ref mid peer cert out",
    "delivery.rejected": "ref mid peer", "delivery.unconfirmed": "ref mid peer",
    "delivery.abandoned": "ref mid peer reason actor", "delivery.unknown": "ref mid peer",
    "confirm.unmatched": "mid peer reason addr", "confirm.duplicate": "ref mid peer",
}

# Of a delivery: which events may follow in which state, and the state after each.  The states of
# no attempt under way: prepared, rejected, unknown; of no attempt at all any more: the last three.
AFTER = {"delivery.attempt": "in-flight", "delivery.confirmed": "confirmed",
         "delivery.rejected": "rejected", "delivery.unconfirmed": "unconfirmed",
         "delivery.abandoned": "abandoned", "delivery.unknown": "unknown",
         "confirm.duplicate": "confirmed"}
OPEN = {"prepared", "in-flight", "rejected", "unknown"}
BEFORE = {"delivery.attempt": OPEN | {"unconfirmed"},  # by an operator's retry
          "delivery.confirmed": OPEN | {"unconfirmed", "abandoned"},
          "delivery.rejected": OPEN | {"unconfirmed", "abandoned"},
          "delivery.unconfirmed": OPEN, "delivery.abandoned": OPEN,
          "delivery.unknown": {"in-flight"}, "confirm.duplicate": {"confirmed"}}


class Delivery:
    """A Key Delivery as the log tells it."""

    def __init__(self, prepared):
        self.prepared = prepared
        self.records = [prepared]
        self.state = "prepared"
        self.confirmed = None  # the delivery.confirmed that counts
        self.mid, self.peer = prepared["mid"], prepared["peer"]
        self.held = False  # whoever prepared or sent it had promised release: signed
        self.carried = prepared["ev"] == "delivery.carried"  # it may have been sent before

    def events(self):
        """Without the part before the point, for those of the delivery itself."""
        return [r["ev"].replace("delivery.", "") for r in self.records]

    def attempts(self):
        return [r for r in self.records if r["ev"] == "delivery.attempt"]


class AuditError(Exception):
    pass


def need(condition, what):
    if not condition:
        raise AuditError(what)


def parse(octets):
    """One record; its octets have to be the one canonical form (RFC 8785) of a flat object."""
    pairs = json.loads(octets.decode("utf-8"), object_pairs_hook=list)
    need(isinstance(pairs, list) and all(isinstance(p, tuple) for p in pairs), "not an object")
    record = dict(pairs)
    need(len(record) == len(pairs), "a key twice")
    for key, value in record.items():
        need(re.fullmatch(r"[a-z_]{1,15}", key), f"key {key!r}")
        need(type(value) in (str, int, bool), f"{key} is {value!r}")
        need(type(value) is not int or 0 <= value < 2 ** 53, f"{key} is {value!r}")
    again = json.dumps(record, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    need(again.encode("utf-8") == octets, f"not canonical: {octets!r}")
    return record


def read(path, *names):
    with open(os.path.join(path, *names), "rb") as f:
        return f.read()


def load_key(path):
    octets = read(path)
    if b"-----BEGIN" in octets:
        return serialization.load_pem_public_key(octets)
    return serialization.load_der_public_key(octets)


def check_sums(folder):
    listed = {}
    for line in read(folder, "SHA256SUMS").decode().splitlines():
        digest, name = re.fullmatch(r"([0-9a-f]{64})  (\S+)", line).groups()
        need(name not in listed, f"SHA256SUMS: {name} twice")
        listed[name] = digest
    found = {os.path.relpath(os.path.join(d, f), folder) for d, _, files in os.walk(folder)
             for f in files} - {"SHA256SUMS"}
    need(found == set(listed), f"SHA256SUMS lists {sorted(listed)}, there are {sorted(found)}")
    for name, digest in listed.items():
        need(sha256(read(folder, name)).hexdigest() == digest, f"{name}: another SHA-256")


def cosignature_time(line):
    """Seconds since 1970 of a line of C2SP tlog-cosignature."""
    found = re.fullmatch("\u2014 [^ +]+ ([A-Za-z0-9+/=]+)", line.decode())
    octets = base64.b64decode(found[1], validate=True) if found else b""
    need(len(octets) == 4 + 8 + 64, f"no cosignature: {line!r}")
    return int.from_bytes(octets[4:12], "big")


class Log:
    """A verified log: `records`, `checkpoint`, and what follows from them."""

    def __init__(self, folder, key_path, since=None, release="signed"):
        """release: what every log.started has to promise; None: whatever it does."""
        self.release = release
        check_sums(folder)
        key = load_key(key_path)
        lines = read(folder, "audit.jsonl").split(b"\n")
        need(lines.pop() == b"", "audit.jsonl: the last line has no end")
        self.checkpoint = Note(read(folder, "checkpoint"))
        self.log, number = self.checkpoint.origin.rsplit("/", 1)
        need(re.fullmatch(r"[1-9]\d*", number), f"origin {self.checkpoint.origin}")
        self.epoch = int(number)
        self.key, self.before = key, None  # the last note of the epoch before
        if since and since.origin == f"{self.log}/{self.epoch - 1}":
            since, self.before = None, since
        notes = split(read(folder, "checkpoints.txt"))
        need(notes and notes[-1].octets == self.checkpoint.octets,
             "checkpoints.txt does not end with the checkpoint")
        need(self.checkpoint.size == len(lines),
             f"{len(lines)} records under a checkpoint of {self.checkpoint.size}")
        anchors = self._read_anchors(folder)
        for note in notes + anchors + ([since] if since else []):
            need(note.origin == self.checkpoint.origin, f"origin {note.origin}")
        self.sizes = [n.size for n in notes]
        need(self.sizes == sorted(self.sizes), f"sizes {self.sizes}")
        self._check_tree(lines, notes + anchors + ([since] if since else []))
        self.records = []
        for seq, line in enumerate(lines):
            self.records.append(parse(line))
            need(self.records[-1].get("seq") == seq, f"record {seq} says {self.records[-1]}")
        self.keys = Keys(key, [load_key(os.path.join(folder, "keys", name))
                               for name in sorted(os.listdir(os.path.join(folder, "keys")))])
        self._check_signatures(notes + anchors + ([since] if since else []))
        self._check_records()
        self._check_life()
        self._check_messages()
        self._check_deliveries()

    def _read_anchors(self, folder):
        """The notes; of time stamps, that they are over the hash of their note. The time that a
        cosignature says is kept with its line; who made it is not looked at here."""
        notes, self.stamps, self.cosigned = [], {}, {}
        for name in sorted(os.listdir(os.path.join(folder, "anchors"))):
            octets = read(folder, "anchors", name)
            if name.endswith(".cosigned"):
                *lines, line, end = octets.split(b"\n")
                need(end == b"", f"{name}: the last line has no end")
                notes.append(Note(b"\n".join(lines) + b"\n"))
                self.cosigned[name] = notes[-1], cosignature_time(line), line
                continue
            if not name.endswith(".tsr"):
                notes.append(Note(octets))
                continue
            note = read(folder, "anchors", name[:-4] + ".note")
            # sha256, NULL; then the hash: messageImprint of RFC 3161 section 2.4.1
            imprint = bytes.fromhex("0609608648016503040201" "0500" "0420") + sha256(note).digest()
            need(imprint in octets, f"{name} is over another note")
            self.stamps[name] = Note(note)
        return notes

    def _check_signatures(self, notes):
        """By the key that was brought, or one that log.signkey introduced by then."""
        for note in sorted(notes, key=lambda n: n.size):
            self.keys.check(note, {r["key"] for r in self.records[:note.size]
                                   if r["ev"] == "log.signkey"})

    @staticmethod
    def _check_tree(lines, notes):
        wanted = {}
        for note in notes:
            wanted.setdefault(note.size, []).append(note)
        tree = Tree()
        for n in range(len(lines) + 1):
            for note in wanted.pop(n, ()):
                need(note.root == tree.root(), f"the root at size {n} is another")
            if n < len(lines):
                tree.append(lines[n])
        need(not wanted, f"notes of sizes {sorted(wanted)}, beyond the log")

    def _check_records(self):
        for r in self.records:
            where = f"record {r['seq']}"
            need(r.get("v") == 1 and TIME.fullmatch(r.get("t", "")) and r.get("inst"), where)
            need(r.get("ev") in EVENTS, f"{where}: event {r.get('ev')}")
            missing = set(EVENTS[r["ev"]].split()) - set(r)
            need(not missing, f"{where}: {r['ev']} without {missing}")
            for key in {"out", "req", "fp", "config"} & set(r):
                need(HEX32.fullmatch(r[key]), f"{where}: {key}={r[key]}")
        need(self.records[0]["ev"] == "log.opened", "it does not begin with log.opened")
        need(self.records[0]["origin"] == self.checkpoint.origin, "log.opened: another origin")
        self._check_link(self.records[0].get("note"))

    def _check_link(self, text):
        """From the second epoch on record 0 has the last note of the one before."""
        need((text is not None) == (self.epoch > 1), f"log.opened of epoch {self.epoch}: {text!r}")
        if text is None:
            return
        note = Note(text.encode("utf-8"))
        need(note.origin == f"{self.log}/{self.epoch - 1}", f"log.opened: note of {note.origin}")
        note.verify(self.key)
        if self.before:
            self.before.verify(self.key)
            need((note.size, note.root) == (self.before.size, self.before.root),
                 "log.opened: not the note that the epoch before was seen to end with")

    def _check_life(self):
        """opened, then started ... stopped; after a crash recovered before started.

        A stop whose record no checkpoint covered any more is a crash like others.
        """
        self.unattested = set()
        state, stopped = "running" if "heartbeat" in self.records[0] else "new", None
        for r in self.records[1:]:
            ev, where = r["ev"], f"record {r['seq']} {r['ev']}"
            need(state != "closed", f"{where} behind log.closed")
            if ev == "log.started":
                need(state in ("new", "stopped", "recovered"), f"{where} in a log that is {state}")
                need(r["release"] in ([self.release] if self.release else ["signed", "durable"]),
                     f"{where}: release {r['release']}")
                state = "running"
            elif ev == "log.recovered":
                need(state in ("new", "running", "recovered") or
                     (state == "stopped" and r["from"] <= stopped),
                     f"{where} in a log that is {state}")
                need(r["to"] == r["seq"] - 1 and r["from"] <= r["seq"], where)
                self.unattested.update(range(r["from"], r["to"] + 1))
                state = "recovered"
            elif ev == "log.stopped":
                need(state == "running", f"{where} in a log that is {state}")
                state, stopped = "stopped", r["seq"]
            elif ev == "log.closed":
                need(state == "running", f"{where} in a log that is {state}")
                need(r["seq"] in self.sizes, f"{where}: over records under no checkpoint")
                state = "closed"
            elif ev != "log.signkey":
                need(state == "running", f"{where} in a log that is {state}")

    def _check_messages(self):
        self.ledger = {}  # (peer, mid) -> request.answered
        self.early = []  # records that say that a key had left before a checkpoint covered it
        gone = {}  # keyid or kekid -> seq of the record that ended it
        self.disabled = set()
        teks, keks, bsas, promised = {}, set(), set(), self.records[0].get("release")
        later = self.epoch > 1  # what it names for the first time is of an epoch before
        for r in self.records:
            ev, where = r["ev"], f"record {r['seq']} {r['ev']}"
            if later and ev in ("request.answered", "tek.generated", "kek.retired",
                                "tek.destroyed"):
                self._take_as_known(r, gone, teks, keks, bsas)
            if ev == "log.started":
                promised = r["release"]
            elif ev == "tek.generated":
                need(r["keyid"] not in teks and r["kekid"] in keks, where)
                teks[r["keyid"]] = r["content"]
            elif ev == "kek.added":
                need(r["kekid"] not in keks, where)
                keks.add(r["kekid"])
            elif ev == "bsa.enrolled":
                bsas.add(r["bsa"])
                self.disabled.discard(r["bsa"])
            elif ev == "bsa.disabled":
                bsas.discard(r["bsa"])
                self.disabled.add(r["bsa"])
            elif ev == "kek.retired":
                need(r["kekid"] in keks, where)
                keks.discard(r["kekid"])
                gone[r["kekid"]] = r["seq"]
            elif ev == "tek.destroyed":
                need(r["keyid"] in teks, where)
                gone[r["keyid"]] = r["seq"]
            elif ev == "request.answered":
                need((r["peer"], r["mid"]) not in self.ledger, f"{where}: answered before")
                need(teks.get(r["keyid"]) == r["content"], f"{where}: the TEK is of another content")
                need(r["kekid"] in keks and r["peer"] in bsas and r["dir"] == "pull", where)
                need(r["keyid"] not in gone, f"{where}: the TEK was destroyed")
                self.ledger[r["peer"], r["mid"]] = r
            elif ev in ("answer.sent", "request.repeated"):
                self._check_reference(r, promised, where)
            if ev == "request.repeated":
                self._check_decided(r, gone, where)

    def _take_as_known(self, r, gone, teks, keks, bsas):
        """Of an epoch before, unless this one says that it is over."""
        if "kekid" in r and r["kekid"] not in gone:
            keks.add(r["kekid"])
        if r["ev"] != "tek.generated" and "keyid" in r and r["keyid"] not in gone:
            teks.setdefault(r["keyid"], r.get("content"))
        if "peer" in r and r["peer"] not in self.disabled:
            bsas.add(r["peer"])

    def _check_reference(self, r, promised, where):
        epoch, seq = map(int, r["ref"].split("/"))
        if 1 <= epoch < self.epoch:
            return  # it was answered in an epoch before, which shows that
        need(epoch == self.epoch and seq < r["seq"], where)
        first = self.records[seq]
        need(first["ev"] == "request.answered", f"{where}: refers to {first['ev']}")
        need((first["mid"], first["peer"]) == (r["mid"], r["peer"]), f"{where}: of another message")
        if not any(seq < size <= r["seq"] for size in self.sizes):
            need(promised == "durable", f"{where}: before a checkpoint covered record {seq}")
            self.early.append(r)

    def _check_decided(self, r, gone, where):
        """Recorded when it was given; decided before its TEK was destroyed or its KEK retired."""
        epoch, after = map(int, r["after"].split("/"))
        if epoch < self.epoch or int(r["ref"].split("/")[0]) < self.epoch:
            return
        first = self.records[int(r["ref"].split("/")[1])]
        need(after < r["seq"], where)
        for name in (first["keyid"], first["kekid"]):
            need(after < gone.get(name, r["seq"]), f"{where}: decided after the end of {name}")

    def _check_deliveries(self):
        self.deliveries = {}  # MessageID -> Delivery
        teks, certs, promised = {}, {}, self.records[0].get("release")
        for r in self.records:
            ev, where = r["ev"], f"record {r['seq']} {r['ev']}"
            if ev == "log.started":
                promised = r["release"]
            elif ev == "tek.generated":
                teks[r["keyid"]] = (r["content"], r.get("period"))
            elif ev == "tek.destroyed":
                teks.pop(r["keyid"], None)
            elif ev == "bsa.enrolled":
                certs[r["bsa"]] = r["cert"].split(",")
            elif ev == "bsa.disabled":
                certs.pop(r["bsa"], None)
            elif ev == "delivery.carried":
                need(self.epoch > 1 and r["mid"] not in self.deliveries, where)
                need(1 <= int(r["ref"].split("/")[0]) < self.epoch, f"{where}: from {r['ref']}")
                self.deliveries[r["mid"]] = Delivery(r)
            elif ev == "delivery.prepared":
                if self.epoch > 1:
                    teks.setdefault(r["keyid"], (r["content"], r.get("period")))
                    certs.setdefault(r["peer"], None)
                need(r["mid"] not in self.deliveries and (r["peer"], r["mid"]) not in self.ledger,
                     f"{where}: {r['mid']} was used before")
                need(teks.get(r["keyid"]) == (r["content"], r.get("period")),
                     f"{where}: the TEK is {teks.get(r['keyid'])}")
                need(r["peer"] in certs and r["kekid"].startswith(r["peer"] + "/") and
                     r["dir"] == "push", where)
                self.deliveries[r["mid"]] = Delivery(r)
                self.deliveries[r["mid"]].held = promised == "signed"
            elif ev in AFTER:
                if self._is_of_before(r):
                    need(ev != "delivery.attempt" and r.get("late", ev != "delivery.confirmed"),
                         f"{where}: of what was not carried")
                    continue
                if ev == "delivery.attempt" and promised != "signed":
                    self.deliveries[r["mid"]].held = False
                self._check_step(r, certs, where)

    def _is_of_before(self, r):
        """Of one that had ended in an epoch before, so that it was not carried."""
        epoch = int(r["ref"].split("/")[0])
        return 1 <= epoch < self.epoch and r["mid"] not in self.deliveries

    def _check_step(self, r, certs, where):
        d = self.deliveries.get(r["mid"])
        need(d and r["peer"] == d.peer, f"{where}: of no delivery")
        epoch, seq = map(int, r["ref"].split("/"))
        need((epoch, seq) == (self.epoch, d.prepared["seq"]), f"{where}: refers to {r['ref']}")
        lost = d.state == "confirmed" and d.confirmed["seq"] in self.unattested
        need(d.state in BEFORE[r["ev"]] or
             ((lost or d.carried) and r["ev"] == "delivery.unknown"),
             f"{where}: of a delivery that is {d.state}")
        d.records.append(r)
        if r["ev"] in ("delivery.confirmed", "delivery.rejected"):
            self._check_left(d, r, where)
        if r["ev"] == "delivery.confirmed":
            need(r["out"] == d.prepared["out"], f"{where}: out of another message")
            known = certs.get(r["peer"], None if self.epoch > 1 else ())
            need(known is None or r["cert"] in known, f"{where}: not the BSA's certificate")
            d.confirmed = r
        if r["ev"] == "delivery.rejected" and d.state in ("unconfirmed", "abandoned"):
            return
        d.state = AFTER[r["ev"]]

    def _check_left(self, d, r, where):
        """An answer: there was an attempt, and a checkpoint covered its record before it left."""
        if d.carried:
            return  # it may have been sent in the epoch before
        need(d.attempts(), f"{where}: before any attempt")
        first = d.attempts()[0]["seq"]
        need(not d.held or any(first < size <= r["seq"] for size in self.sizes),
             f"{where}: no checkpoint covered the attempt, record {first}")

    def of(self, event):
        return [r for r in self.records if r["ev"] == event]


def main(arguments):
    if len(arguments) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    since = Note(read(arguments[2])) if len(arguments) == 3 else None
    try:
        log = Log(arguments[0], arguments[1], since)
    except (AuditError, NoteError, ValueError, KeyError, OSError) as e:
        print(f"FAILED: {type(e).__name__}: {e}")
        return 1
    confirmed = sum(d.state == "confirmed" for d in log.deliveries.values())
    print(f"{len(log.records)} records, {len(log.ledger)} answered, {len(log.deliveries)} prepared, "
          f"{confirmed} confirmed, {len(log.unattested)} unattested: good")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
