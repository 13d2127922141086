"""A witness (C2SP tlog-witness) of its own making: verifies what it is sent, and cosigns; with moods."""

import base64
import hashlib
import re
import threading
import time

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cp3py.merkle import is_consistent
from cp3py.note import Note, NoteError

from .moody import Moody

DASH = "\u2014 "


class Refusal(Exception):
    """Ends a request with this status."""

    def __init__(self, status, body=b"", kind="text/plain"):
        super().__init__(status)
        self.status, self.body, self.kind = status, body, kind


class Cosigner:
    """A name and an Ed25519 key; `vkey` is its verifier key."""

    def __init__(self, name):
        self.name = name
        self.key = ed25519.Ed25519PrivateKey.generate()
        data = b"\x04" + self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
        self.vkey = f"{name}+{self.key_id.hex()}+{base64.b64encode(data).decode()}"

    def line(self, text, when):
        message = f"cosignature/v1\ntime {when}\n".encode() + text
        octets = self.key_id + when.to_bytes(8, "big") + self.key.sign(message)
        return f"{DASH}{self.name} {base64.b64encode(octets).decode()}\n".encode()


class Witness(Moody):
    """Serves until close()."""

    def __init__(self, ca=None, client_ca=None):
        """ca: a pki.Ca whose "witness-web" certificate is shown; None: plain HTTP. client_ca: the
        file of who signs the certificates that are asked for."""
        super().__init__()
        self.cosigner = Cosigner("witness.example/w1")
        self.stranger = Cosigner("stranger.example/w2")
        self.logs = {}  # origin: the public key of the log; who is not in it is unknown
        self.seen = {}  # origin: size and root
        self.lines = {}  # origin and size: what was answered
        self.proofs = []  # old size, new size, hashes of those that were good
        self.paths = set()
        self.lock = threading.Lock()
        self.serve("/log", ca, "witness-web", client_ca)

    def look(self, handler):
        self.paths.add(handler.path)

    @property
    def vkey(self):
        return self.cosigner.vkey

    def trust(self, origin, key):
        self.logs[origin] = key

    # ---- what the specification has a witness do ----

    def _known(self, note):
        key = self.logs.get(note.origin)
        if key is None:
            raise Refusal(404)
        try:
            note.verify(key)
        except NoteError:
            raise Refusal(403) from None

    @staticmethod
    def _read(body):
        head, _, octets = body.partition(b"\n\n")
        first, *proof = head.split(b"\n")
        old = re.fullmatch(rb"old (0|[1-9][0-9]*)", first)
        if old is None or len(proof) > 63:
            raise Refusal(400)
        hashes = [base64.b64decode(line, validate=True) for line in proof]
        if any(len(h) != 32 for h in hashes):
            raise Refusal(400)
        return int(old[1]), hashes, Note(octets)

    def _extends(self, old, proof, note):
        """Under the lock."""
        size, root = self.seen.get(note.origin, (0, None))
        if old > note.size:
            raise Refusal(400)
        if old != size or (size == note.size and root != note.root):
            raise Refusal(409, f"{size}\n".encode(), "text/x.tlog.size")
        if size == 0:
            if proof:
                raise Refusal(400)
        elif not is_consistent((size, root), (note.size, note.root), proof):
            raise Refusal(422)
        self.seen[note.origin] = note.size, note.root
        self.proofs.append((old, note.size, proof))

    def add(self, body):
        """The text that it cosigns."""
        old, proof, note = self._read(body)
        self._known(note)
        with self.lock:
            self._extends(old, proof, note)
        return note

    def answer(self, handler, body, cosign):
        try:
            note = self.add(body)
        except Refusal as refusal:
            handler.send(refusal.body, refusal.status, refusal.kind)
            return
        octets = cosign(note)
        self.lines.setdefault("first", octets)
        handler.send(octets)

    # ---- moods ----

    def when_good(self, handler, body):
        self.answer(handler, body, lambda n: self.cosigner.line(n.text, int(time.time())))

    def when_crowded(self, handler, body):
        """Others cosign as well, in ways that are not known."""
        now = int(time.time())
        self.answer(handler, body, lambda n: self.stranger.line(n.text, now)
                    + f"{DASH}{self.cosigner.name} AAAA\n".encode()
                    + self.cosigner.line(n.text, now))

    def when_wrong_key(self, handler, body):
        self.answer(handler, body, lambda n: self.stranger.line(n.text, int(time.time())))

    def when_another_text(self, handler, body):
        self.answer(handler, body, lambda n: self.cosigner.line(b"x" + n.text, int(time.time())))

    def when_replaying(self, handler, _):
        handler.send(self.lines["first"])

    def when_empty(self, handler, _):
        handler.send(b"")

    def when_unknown(self, handler, _):
        handler.send(b"", 404)

    def when_key_unknown(self, handler, _):
        handler.send(b"", 403)

    def when_unproven(self, handler, _):
        handler.send(b"", 422)

    def when_conflict_without_size(self, handler, _):
        handler.send(b"7\n", 409)

    def when_conflict_of_no_number(self, handler, _):
        handler.send(b"07\n", 409, "text/x.tlog.size")

    def when_ahead(self, handler, _):
        handler.send(b"123456789\n", 409, "text/x.tlog.size")

    def when_elsewhere_cosigned(self, handler, _):
        """The size of no checkpoint: the first of a log has more than one record."""
        handler.send(b"1\n", 409, "text/x.tlog.size")

    def when_undecided(self, handler, body):
        """Another size than was said, each time."""
        old, _, note = self._read(body)
        handler.send(f"{0 if old else note.size}\n".encode(), 409, "text/x.tlog.size")
