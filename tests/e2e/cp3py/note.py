"""Checkpoints: C2SP signed notes with the three lines of a tlog-checkpoint."""

import base64
import re
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


class NoteError(Exception):
    pass


class Note:
    def __init__(self, octets):
        text, separator, signatures = octets.partition(b"\n\n")
        if not separator or not signatures.endswith(b"\n"):
            raise NoteError("not a text, an empty line and signature lines")
        self.octets = octets
        self.text = text + b"\n"
        lines = self.text.decode("utf-8").split("\n")
        if len(lines) != 4 or lines[3] != "":
            raise NoteError(f"not three lines: {lines}")
        self.origin, size, root = lines[:3]
        if not re.fullmatch(r"0|[1-9][0-9]*", size):
            raise NoteError(f"size {size!r}")
        self.size = int(size)
        self.root = base64.b64decode(root, validate=True)
        if len(self.root) != 32 or base64.b64encode(self.root).decode() != root:
            raise NoteError(f"root {root!r}")
        self.signatures = [self._signature(line)
                           for line in signatures.decode("utf-8").split("\n")[:-1]]
        if not self.signatures:
            raise NoteError("no signature")

    def _signature(self, line):
        dash, name, blob = line.split(" ")
        if dash != "\u2014" or name != self.origin:
            raise NoteError(f"signature line {line!r}")
        octets = base64.b64decode(blob, validate=True)
        return octets[:4], octets[4:]

    def key_id(self, public_key):
        if isinstance(public_key, ed25519.Ed25519PublicKey):
            raw = public_key.public_bytes(serialization.Encoding.Raw,
                                          serialization.PublicFormat.Raw)
            return sha256(self.origin.encode() + b"\n\x01" + raw).digest()[:4]
        spki = public_key.public_bytes(serialization.Encoding.DER,
                                       serialization.PublicFormat.SubjectPublicKeyInfo)
        return sha256(spki).digest()[:4]

    def verify(self, public_key):
        """ECDSA P-256 or Ed25519; NoteError unless one of the lines is its good signature."""
        if not self.is_signed_by(public_key):
            raise NoteError(f"not signed by the key {self.key_id(public_key).hex()}")

    def is_signed_by(self, public_key):
        """Whether there is a line of it; NoteError if that is a wrong one."""
        key_id = self.key_id(public_key)
        mine = [signature for i, signature in self.signatures if i == key_id]
        for signature in mine:
            try:
                if isinstance(public_key, ed25519.Ed25519PublicKey):
                    public_key.verify(signature, self.text)
                else:
                    public_key.verify(signature, self.text, ec.ECDSA(hashes.SHA256()))
            except InvalidSignature as e:
                raise NoteError("the signature does not verify") from e
        return bool(mine)


class Keys:
    """Who is believed: the key that was brought, and what log.signkey introduced."""

    def __init__(self, brought, candidates=()):
        self.brought, self.trusted, self.candidates = brought, [brought], list(candidates)

    @staticmethod
    def fingerprint(key):
        return sha256(key.public_bytes(serialization.Encoding.DER,
                                       serialization.PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    def check(self, note, named):
        """named: the fingerprints that log.signkey has named in the records under this note.

        A line of each kind that was not brought is looked at, but is not enough.
        """
        signed = [key for key in self.trusted if note.is_signed_by(key)]
        if not any(isinstance(key, type(self.brought)) for key in signed):
            raise NoteError(f"not signed by the key {note.key_id(self.brought).hex()}")
        for key in self.candidates:
            if self.fingerprint(key) in named and key not in self.trusted and \
                    self._has_signed(key, note):
                self.trusted.append(key)

    @staticmethod
    def _has_signed(key, note):
        try:
            return note.is_signed_by(key)
        except NoteError:
            return False  # a line of a stranger


def split(octets):
    """checkpoints.txt: notes, each followed by an empty line."""
    notes = []
    rest = octets
    while rest:
        text, a, rest = rest.partition(b"\n\n")
        signatures, b, rest = rest.partition(b"\n\n")
        if not a or not b:
            raise NoteError("a note without its end")
        notes.append(Note(text + a + signatures + b"\n"))
    return notes
