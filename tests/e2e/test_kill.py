"""kill -9 of tekd at random moments with requests in flight: what anybody received stands.

A run starts the server, puts requests on many connections, kills it, starts it again and checks
every answer that any client received in this run or an earlier one: it is in the store, in the
log, under a checkpoint whose signature verifies with the public key as pkcs11-tool reads it from
the token, and is given again octet for octet.

In flight is what a client had sent whole before the kill and what was never answered.
"""

import os
import random
import sqlite3
import time
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import serialization

from cp3py import auditlog
from cp3py.messages import request
from harness.answers import checked, given
from harness.load import Load, together
from harness.procs import run, wait_until
from harness.programs import program, softhsm, tool

CLIENTS = 56
IN_FLIGHT = 32  # sent and never answered, in each run that counts
WAITING = 44  # that have no answer yet just before it: some are on their way


def key_from_token(tekd):
    """The checkpoint key's public half, read by a program that is not ours."""
    path = tekd.path("key-from-token.der")
    run([tool("pkcs11-tool"), "--module", softhsm(), "--token-label", "tekd", "--read-object",
         "--type", "pubkey", "--label", "tekd-checkpoint", "-o", path],
        env={**os.environ, "SOFTHSM2_CONF": tekd.path("softhsm2.conf")})
    with open(path, "rb") as f:
        key = serialization.load_der_public_key(f.read())
    pem = tekd.path("key-from-token.pem")
    with open(pem, "wb") as f:
        f.write(key.public_bytes(serialization.Encoding.PEM,
                                 serialization.PublicFormat.SubjectPublicKeyInfo))
    return pem


class History:
    """All that clients received, over all runs."""

    def __init__(self, tekd, seed):
        self.tekd = tekd
        self.random = random.Random(seed)
        self.answers = {}  # (bsa, mid) -> (request, media, body)
        self.turn = 0

    @staticmethod
    def bsa_of(i):
        return f"bsa-{i % 2 + 1}"

    def next_request(self, i, n):
        """Mostly new contents; some shared between clients, some repeats of this run's own."""
        name = self.bsa_of(i)
        kind = (i + n) % 4
        content = f"urn:k:{self.turn}:{n}" if kind == 0 else f"urn:k:{self.turn}:{i}:{n}"
        serial = n - 1 if kind == 3 and n > 0 else n
        if serial != n:  # the Message ID before, with its content
            before = (i + serial) % 4
            content = f"urn:k:{self.turn}:{serial}" if before == 0 else \
                f"urn:k:{self.turn}:{i}:{serial}"
        return request(f"k-{self.turn}-{i}-{serial}", content, name), ("xml", "json")[i % 3 == 0]

    def one_run(self, offset_s):
        """Load, kill, restart; returns (answered, in flight when it was killed)."""
        self.turn += 1
        load = Load(self.tekd, CLIENTS, self.next_request, self.bsa_of).start()
        wait_until(lambda: load.in_flight() >= WAITING, "requests in flight")
        self.tekd.note_family()
        time.sleep(offset_s)  # the random moment itself
        wait_until(lambda: load.in_flight() >= WAITING, "requests in flight", pause_s=0)
        moment = self.tekd.kill_now()
        load.join()
        in_flight = load.in_flight(moment)
        assert len(load.errors) == CLIENTS  # each saw its connection end
        for i, m, media, r in load.answered:
            given(checked(r), m, self.tekd.template.bsas[m.source], media)
            key = (m.source, m.mid)
            before = self.answers.setdefault(key, (m, media, r.body))
            assert before[2] == r.body, f"two answers under {key}"
        self.tekd.start()
        return len(load.answered), in_flight

    def check_log(self, key_path):
        folder = self.tekd.export()
        log = auditlog.Log(folder, key_path)
        done = run([program("tek-audit"), "verify", folder, "--key", key_path, "--first"])
        assert done.returncode == 0
        for key, (m, _, body) in self.answers.items():
            record = log.ledger[key]
            assert record["out"] == sha256(body).hexdigest(), key
            assert record["content"] == m.content
            assert record["seq"] < log.checkpoint.size
            assert record["seq"] not in log.unattested, f"{key} left without a checkpoint"
        return log

    def check_repeats(self, keys):
        """The same octets again, now."""
        keys = list(keys)
        connections = [(self.tekd.connect("bsa-1"), self.tekd.connect("bsa-2")) for _ in range(4)]

        def work(i):
            for m, media, body in (self.answers[k] for k in keys[i::4]):
                r = connections[i][m.source == "bsa-2"].ask(m, media)
                assert r.status == 200 and r.body == body, (m, r)

        together(4, work)
        for pair in connections:
            for c in pair:
                c.close()

    def check_store(self):
        """In the database itself; the server is stopped."""
        db = sqlite3.connect(self.tekd.path("tekd.db"))
        try:
            rows = {(name, mid): content for name, mid, content in db.execute(
                "SELECT bsa.id, message.id, content.id FROM message"
                " JOIN bsa ON bsa.row = message.bsa JOIN content ON content.row = message.content")}
        finally:
            db.close()
        for key, (m, _, _) in self.answers.items():
            assert rows[key] == m.content


def kill_many(tekd, runs, seed, tell):
    history = History(tekd, seed)
    key_path = key_from_token(tekd)
    counted = 0
    while counted < runs:
        offset = history.random.uniform(0, 0.3)
        answered, in_flight = history.one_run(offset)
        # A kill may come just when many answers have left: it is checked, and does not count.
        counted += in_flight >= IN_FLIGHT
        assert history.turn - counted <= 2 + runs // 5, f"too few in flight: {in_flight}"
        new = [k for k in history.answers if k[1].startswith(f"k-{history.turn}-")]
        history.check_repeats(new)
        tell(f"run {counted} of {runs}, seed {seed}: killed after {offset * 1000:.0f} ms, "
             f"{answered} answered / {in_flight} of {CLIENTS} sent and not answered")
        if history.turn % 10 == 0:
            history.check_log(key_path)
    log = history.check_log(key_path)
    history.check_repeats(history.answers)
    assert len(log.of("log.recovered")) <= history.turn
    tekd.stop()
    history.check_store()
    tell(f"{history.turn} runs, {len(history.answers)} answers, {len(log.records)} records, "
         f"{len(log.unattested)} unattested")


@pytest.mark.smoke
def test_what_was_answered_survives_kill_9(tekd, tell):
    kill_many(tekd, 5, random.randrange(2 ** 32), tell)


@pytest.mark.soak
def test_what_was_answered_survives_50_kills(tekd, tell):
    kill_many(tekd, 50, random.randrange(2 ** 32), tell)


def test_kill_9_during_the_start_leaves_log_and_token_whole(tekd, mid, content):
    """Recovery itself may be killed, and a login in the middle of which SoftHSM writes its file."""
    m = request(mid, content, "bsa-1")
    with tekd.connect() as c:
        body = c.ask(m).body
    tekd.kill()
    for turn in range(20):
        tekd.start(wait=None)
        time.sleep(random.uniform(0.01, 0.1))  # a moment of the start
        tekd.kill()
    tekd.start()
    with tekd.connect() as c:
        assert c.ask(m).body == body
    log = tekd.audit()
    assert len(log.ledger) == 1
    run([program("tek-audit"), "verify", tekd.export(), "--key", key_from_token(tekd), "--first"])
