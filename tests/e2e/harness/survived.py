"""What a database holds, read without tekd: after a power cut, from a copy of its files."""

import os
import sqlite3
from hashlib import sha256

from cp3py.auditlog import load_key, parse
from cp3py.merkle import Tree
from cp3py.note import Note

CONFIRMED = 4  # a delivery's state


class Survived:
    """The database in that folder, whose files are whole or were cut.

    Whatever was lost, what is there has to be right: the file, the numbering and form of records,
    and every checkpoint over them.
    """

    def __init__(self, folder, key_path, known=None):
        """known: a dictionary for the records of several cuts, so that each is parsed once."""
        self._known = {} if known is None else known
        db = sqlite3.connect(os.path.join(folder, "tekd.db"))
        try:
            found = db.execute("PRAGMA integrity_check").fetchall()
            assert found == [("ok",)], found
            self._read_log(db, load_key(key_path))
            self._read_tables(db)
        finally:
            db.close()

    def _read_log(self, db, key):
        lines = db.execute("SELECT seq, octets FROM leaf ORDER BY seq").fetchall()
        assert [seq for seq, _ in lines] == list(range(len(lines)))
        self.records = [self._parsed(octets) for _, octets in lines]
        assert all(r["seq"] == seq for seq, r in enumerate(self.records))
        self.notes = {n.size: n for n in (Note(octets) for octets, in db.execute(
            "SELECT note FROM checkpoint ORDER BY size"))}
        tree = Tree()
        for n in range(len(lines) + 1):
            if n in self.notes:
                assert self.notes[n].root == tree.root(), f"the root at size {n} is another"
            if n < len(lines):
                tree.append(lines[n][1])
        self.signed = max(self.notes)  # records that the newest checkpoint covers
        assert self.signed <= len(lines)
        self.notes[self.signed].verify(key)

    def _parsed(self, octets):
        if octets not in self._known:
            self._known[octets] = parse(octets)
        return self._known[octets]

    def _read_tables(self, db):
        self.messages = {(bsa, mid): (content, seq) for bsa, mid, content, seq in db.execute(
            "SELECT bsa.id, message.id, content.id, message.seq FROM message"
            " JOIN bsa ON bsa.row = message.bsa JOIN content ON content.row = message.content")}
        self.states = dict(db.execute("SELECT mid, state FROM delivery"))
        self.answered, self.prepared, self.attempted, self.confirmed = {}, {}, {}, {}
        for r in self.records:
            if r["ev"] == "request.answered":
                self.answered[r["peer"], r["mid"]] = r
            elif r["ev"] == "delivery.prepared":
                self.prepared[r["mid"]] = r
            elif r["ev"] == "delivery.attempt":
                self.attempted.setdefault(r["mid"], r)
            elif r["ev"] == "delivery.confirmed":
                self.confirmed[r["mid"]] = r

    def is_signed(self, record):
        return record is not None and record["seq"] < self.signed

    def has_answer(self, m, body):
        """Of a request that was answered with a key: its row, and its record under a checkpoint."""
        r = self.answered.get((m.source, m.mid))
        return self.is_signed(r) and \
            (r["out"], r["content"]) == (sha256(body).hexdigest(), m.content) and \
            self.messages.get((m.source, m.mid)) == (m.content, r["seq"])

    def has_delivery(self, mid):
        """Of a MessageID that an operator was told of."""
        return mid in self.prepared and mid in self.states

    def has_left(self, mid, out):
        """Of a key that a BSA has: who has it is under a checkpoint, and so is that it left."""
        r = self.prepared.get(mid)
        return self.is_signed(r) and r["out"] == out and self.is_signed(self.attempted.get(mid))

    def has_confirmation(self, mid):
        """Of a confirmation that was answered with 204."""
        return mid in self.confirmed and self.states.get(mid) == CONFIRMED

    def has_anchor(self, note):
        """Of a note that stood in the anchor file."""
        return note.size in self.notes and self.notes[note.size].root == note.root
