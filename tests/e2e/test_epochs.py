"""Epochs of the audit log: keys and deliveries go on over the boundary, and each epoch verifies."""

import concurrent.futures
import json
import os
import random
import shutil
import time
from collections import Counter
from datetime import datetime, timezone
from hashlib import sha256

import pytest

from cp3py import auditlog
from cp3py.messages import request
from cp3py.note import Note
from harness.answers import checked, given
from harness.clock import Clock
from harness.load import Load
from harness.procs import run, wait_until
from harness.programs import program
from reader import verifier

CLIENTS = 12
KILLS = 6
FEW_RECORDS = 1000  # the smallest epoch there is


def read(*names):
    with open(os.path.join(*names), "rb") as f:
        return f.read()


def bsa_of(i):
    return f"bsa-{i % 2 + 1}"


# ---- all epochs, by all verifiers ------------------------------------------------------------------

def export(tekd, epoch):
    tekd.exports += 1
    folder = tekd.path(f"epoch-{epoch}-{tekd.exports}")
    tekd.tekctl("audit", "export", folder, "--epoch", str(epoch))
    return folder


def tek_audit(tekd, folder, *since):
    return run([program("tek-audit"), "verify", folder, "--key", tekd.path("checkpoint.pem"),
                *(since or ("--first",))], check=False)


def pending(folder):
    return [json.loads(line)["mid"] for line in read(folder, "pending.jsonl").splitlines()]


class Epochs:
    """Every epoch of a server's log, exported and verified: by tek-audit, by the tests' own
    verifier and by the reader of the documentation, from the note of the one before on."""

    def __init__(self, tekd):
        self.tekd = tekd
        self.key = read(tekd.path("checkpoint.pem"))
        self.folders, self.logs = [], []
        for epoch in range(1, tekd.ctl("status")["store"]["epoch"] + 1):
            self._add(export(tekd, epoch))
        for folder, log in zip(self.folders, self.logs[1:]):
            assert pending(folder) == self.carried_first(log)

    def _add(self, folder):
        since = os.path.join(self.folders[-1], "checkpoint") if self.folders else None
        for words in ((), ("--since", since)) if since else ((),):
            done = tek_audit(self.tekd, folder, *words)
            assert done.returncode == 0, done.stderr
        note = read(since) if since else None
        verifier.verify(folder, self.key, note)
        self.folders.append(folder)
        self.logs.append(auditlog.Log(folder, self.tekd.path("checkpoint.pem"),
                                      since=Note(note) if note else None))

    @staticmethod
    def carried_first(log):
        """What was open when the epoch before ended: at once behind what the server says of itself."""
        mids = []
        for r in log.records[1:]:
            if r["ev"] == "delivery.carried":
                mids.append(r["mid"])
            elif mids or not r["ev"].startswith(("log.", "clock.", "audit.")):
                break
        return mids

    def ledger(self):
        """(peer, mid) -> request.answered; each stands in one epoch."""
        found = {}
        for log in self.logs:
            assert not found.keys() & log.ledger.keys()
            found.update(log.ledger)
        return found

    def check_answers(self, answers):
        """What clients were given is in the log, under a checkpoint, as they got it."""
        ledger = self.ledger()
        attested = [{r["seq"] for r in log.records} - log.unattested for log in self.logs]
        for (peer, mid), body in answers.items():
            record = ledger[peer, mid]
            assert record["out"] == sha256(body).hexdigest(), mid
            assert any(log.ledger.get((peer, mid)) is record and record["seq"] in good
                       for log, good in zip(self.logs, attested)), f"{mid} is not attested"

    def check_deliveries(self, mids):
        """Each was confirmed once in all epochs together, in what counts."""
        counted = Counter(r["mid"] for log in self.logs for r in log.of("delivery.confirmed")
                          if r["seq"] not in log.unattested)
        assert {mid: counted[mid] for mid in mids} == {mid: 1 for mid in mids}

    def of(self, event):
        return [(log.epoch, r) for log in self.logs for r in log.of(event)]


class Answers:
    """What clients were given, octet for octet."""

    def __init__(self, tekd):
        self.tekd = tekd
        self.turn = 0
        self.bodies = {}  # (peer, mid) -> body
        self.requests = {}

    def next_request(self, i, n):
        """New contents, known ones, and one of five the Message ID before once more."""
        n -= n % 5 == 4
        return request(f"e-{self.turn}-{i}-{n}", f"urn:e:{self.turn * (n % 2)}:{n % 50}",
                       bsa_of(i)), "xml"

    def load(self):
        self.turn += 1
        return Load(self.tekd, CLIENTS, self.next_request, bsa_of).start()

    def take(self, load):
        for _, m, media, r in load.answered:
            given(checked(r), m, self.tekd.template.bsas[m.source], media)
            key = (m.source, m.mid)
            self.requests[key] = m
            assert self.bodies.setdefault(key, r.body) == r.body, f"two answers under {key}"

    def check_repeats(self, keys):
        with self.tekd.connect("bsa-1") as one, self.tekd.connect("bsa-2") as two:
            for key in keys:
                r = (one if key[0] == "bsa-1" else two).ask(self.requests[key], "xml")
                assert r.status == 200 and r.body == self.bodies[key], key


# ---- what goes on ----------------------------------------------------------------------------------

def test_pulls_go_on_over_the_boundary(tekd):
    answers = Answers(tekd)
    load = answers.load()
    for epoch in (1, 2, 3):
        asked = sum(load.asked)
        wait_until(lambda n=asked: sum(load.asked) > n + 5 * CLIENTS, "requests")
        closed = tekd.ctl("audit", "close-epoch")
        assert closed["epoch"] == epoch
        assert closed["checkpoint"].startswith(f"{tekd.settings['bsm_id']}/tekd/audit/{epoch}\n"
                                               f"{closed['size']}\n")
    load.stop()
    assert not load.errors and sum(load.asked) == len(load.answered)
    answers.take(load)
    answers.check_repeats(answers.bodies)  # of all epochs, now
    epochs = Epochs(tekd)
    assert len(epochs.logs) == 4
    epochs.check_answers(answers.bodies)
    assert {r["ref"].split("/")[0] for r in epochs.logs[3].of("request.repeated")} >= set("123")
    for log in epochs.logs[:3]:
        assert [r["action"] for r in log.of("admin.action")][-1] == "audit close-epoch"
        assert log.records[-1]["ev"] == "log.closed"
    for epoch, log in enumerate(epochs.logs, 1):
        listed = json.loads(tekd.tekctl("--json", "audit", "ledger", "--epoch", str(epoch)).stdout)
        assert {(e["bsa"], e["message_id"]) for e in listed} == set(log.ledger)
    listed = json.loads(tekd.tekctl("--json", "audit", "ledger").stdout)
    assert {e["message_id"] for e in listed} == {mid for _, mid in epochs.logs[3].ledger}
    tekd.stop()
    assert tekd.log().count("event=epoch-closed") == tekd.log().count("event=epoch-opened") == 3


def test_deliveries_go_on_over_the_boundary(new_stage):
    """Slow, forgetful and refusing BSAs: each delivery is confirmed once, and had one Data."""
    stage = new_stage(push={"retry_max_s": 1, "attempt_timeout_s": 2}).start()
    chance = random.Random(5)
    for bsa in stage.fleet:
        bsa.plays(*(chance.choice(["confirm", "later", "reject", "twice", "taken"])
                    for _ in range(40)), "confirm")
        bsa.pause_s = chance.uniform(0, 0.05)
    mids = []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        orders = [pool.submit(stage.deliver, f"urn:over:{n}") for n in range(16)]
        for n in (4, 8, 12):
            orders[n].result()
            stage.tekd.ctl("audit", "close-epoch")
        for order in orders:
            mids += order.result()
    stage.wait_all(120)
    stage.fleet.posted()
    epochs = Epochs(stage.tekd)
    assert len(epochs.logs) == 4
    epochs.check_deliveries(mids)
    out = {r["mid"]: r["out"] for _, r in epochs.of("delivery.prepared")}
    carried = [r for _, r in epochs.of("delivery.carried")]
    assert len(carried) > 10 and all(out[r["mid"]] == r["out"] for r in carried)
    assert {e["octets"] for e in stage.fleet.journal.lines(what="received")} == \
        {out[mid] for mid in mids}
    stage.tekd.stop()


def test_a_delivery_is_confirmed_in_the_next_epoch(new_stage):
    stage = new_stage(push={"retry_max_s": 1, "attempt_timeout_s": 2}).start()
    for bsa in stage.fleet:
        bsa.plays("reject")
    mids = stage.deliver("urn:x")
    stage.tekd.ctl("audit", "close-epoch")
    stage.tekd.ctl("audit", "close-epoch")  # carried twice
    for bsa in stage.fleet:
        bsa.plays("confirm")
    stage.wait_all()
    epochs = Epochs(stage.tekd)
    assert set(pending(epochs.folders[1])) == set(mids) and pending(epochs.folders[2]) == []
    assert all(d.state == "confirmed" for d in epochs.logs[2].deliveries.values())
    epochs.check_deliveries(mids)
    shown = stage.tekd.ctl("delivery", "show", mids[0])
    events = [(e["epoch"], e["event"]) for e in shown["history"]]
    assert events[0] == (1, "delivery.prepared") and events[-1] == (3, "delivery.confirmed")
    assert [e for e, name in events if name == "delivery.carried"] == [2, 3]
    listed = json.loads(stage.tekd.tekctl("--json", "audit", "ledger", "--epoch", "2").stdout)
    assert {(e["message_id"], e["state"]) for e in listed} <= \
        {(mid, state) for mid in mids for state in ("prepared", "rejected", "in-flight")}
    stage.tekd.stop()


def test_what_was_given_up_in_the_epoch_before_is_confirmed_late(new_stage):
    """It was not carried, and its records refer to where it was prepared."""
    stage = new_stage(["p-0"]).start(url=False)
    bsa, tekd = stage["p-0"], stage.tekd
    mids = [stage.deliver("urn:x")[0] for _ in range(2)]
    came = [bsa.collect(), bsa.collect()]
    for mid in mids:
        tekd.tekctl("delivery", "abandon", mid, "--reason", "test")
    tekd.ctl("audit", "close-epoch")
    assert [bsa.confirm(came[0]), bsa.confirm(came[0])] == [204, 204]
    tekd.ctl("audit", "close-epoch")
    assert [bsa.confirm(came[1], 1), bsa.confirm(came[1])] == [204, 204]
    epochs = Epochs(tekd)
    assert epochs.of("delivery.carried") == []
    assert [(e, r["late"], r["ref"].split("/")[0]) for e, r in epochs.of("delivery.confirmed")] == \
        [(2, True, "1"), (3, True, "1")]
    epochs.check_deliveries(mids)
    tekd.stop()


def test_an_operator_disables_who_then_gets_it_in_the_next_epoch(new_stage):
    """What had ended before is open again: it is carried when it is sent, not when it may not be."""
    stage = new_stage(["p-0"], push={"deadline_s": 6}).start()
    bsa, tekd = stage["p-0"], stage.tekd
    bsa.plays("reject")
    mid, = stage.deliver("urn:x")
    stage.wait(mid, "unconfirmed")
    tekd.ctl("audit", "close-epoch")
    assert Epochs(tekd).logs[1].of("delivery.carried") == []
    tekd.tekctl("bsa", "disable", "p-0")
    tekd.tekctl("delivery", "retry", mid)
    bsa.plays("confirm")
    tekd.tekctl("bsa", "enable", "p-0")
    stage.wait(mid)
    epochs = Epochs(tekd)
    epochs.check_deliveries([mid])
    assert epochs.logs[1].deliveries[mid].events()[:2] == ["carried", "attempt"]
    tekd.stop()


# ---- when ------------------------------------------------------------------------------------------

def test_it_ends_with_so_many_records(new_tekd):
    tekd = new_tekd(audit={"epoch_records": FEW_RECORDS}).start()
    answers = Answers(tekd)
    load = answers.load()
    wait_until(lambda: tekd.look("status")["store"]["epoch"] >= 3, "the third epoch", 120)
    load.stop()
    answers.take(load)
    assert not load.errors
    epochs = Epochs(tekd)
    assert all(log.checkpoint.size >= FEW_RECORDS for log in epochs.logs[:-1])
    epochs.check_answers(answers.bodies)
    answers.check_repeats(list(answers.bodies)[::7])
    tekd.restart()
    assert tekd.ctl("status")["store"]["epoch"] == len(epochs.logs)
    tekd.stop()


def test_it_ends_with_the_year(new_stage, folder):
    """The clock is set over it, and later a little back."""
    clock = Clock(folder)
    year = datetime.now(timezone.utc).year + 1
    stage = new_stage(["p-0"], name="tekd_testclock", clock=clock.utc_us, env=clock.env,
                      push={"deadline_s": 90 * 86400}).start()
    stage["p-0"].plays("reject")
    mid, = stage.deliver("urn:x")
    new_year = int(datetime(year, 1, 1, tzinfo=timezone.utc).timestamp()) * 1_000_000
    clock.step(new_year + 60_000_000 - clock.utc_us())
    wait_until(lambda: stage.tekd.look("status")["store"]["epoch"] == 2, "the second epoch")
    stage["p-0"].plays("confirm")
    stage.wait(mid)
    clock.step(-120_000_000)  # the year before ends once
    wait_until(lambda: stage.tekd.log().count("event=clock-step") == 2, "the step back")
    stage.tekd.stop()
    stage.tekd.start(wait="alive")  # the CRL has expired by then
    epochs = Epochs(stage.tekd)
    assert [e for e, _ in epochs.of("clock.step")] == [1, 2]
    assert epochs.logs[0].records[-1]["t"].startswith(str(year))
    epochs.check_deliveries([mid])
    stage.tekd.stop()


# ---- kill -9 ---------------------------------------------------------------------------------------

def test_kill_9_around_the_boundary(tekd, tell):
    chance = random.Random()
    answers = Answers(tekd)
    for _ in range(KILLS):
        load = answers.load()
        wait_until(lambda: len(load.answered) > 3 * CLIENTS, "answers")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            closing = pool.submit(tekd.tekctl, "audit", "close-epoch", check=False)
            time.sleep(chance.uniform(0, 0.06))  # the random moment itself
            tekd.kill()
            closing.result()
        load.join()
        answers.take(load)
        tekd.start()
        answers.check_repeats([k for k in answers.bodies if k[1].startswith(f"e-{answers.turn}-")])
    answers.check_repeats(answers.bodies)
    epochs = Epochs(tekd)
    epochs.check_answers(answers.bodies)
    opened = [r for _, r in epochs.of("log.opened")][1:]
    tell(f"{KILLS} kills, {len(epochs.logs)} epochs ({sum('heartbeat' in r for r in opened)} opened "
         f"by the one that closed, {sum('heartbeat' not in r for r in opened)} by the next start), "
         f"{len(answers.bodies)} answers")
    tekd.stop()


def test_kill_9_around_the_boundary_with_deliveries_under_way(new_stage, tell):
    stage = new_stage(["p-0", "p-1", "p-2", "p-4"],
                      push={"retry_max_s": 1, "attempt_timeout_s": 2}).start()
    chance = random.Random()
    mids = []
    for turn in range(KILLS):
        for bsa in stage.fleet:
            bsa.plays(*(chance.choice(["confirm", "later", "reject"]) for _ in range(8)), "confirm")
        stage.fleet.hold()
        for n in range(5):
            mids += stage.deliver(f"urn:kill:{turn}:{n}")
        stage.fleet.release()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            closing = pool.submit(stage.tekd.tekctl, "audit", "close-epoch", check=False)
            time.sleep(chance.uniform(0, 0.06))
            stage.tekd.kill()
            closing.result()
        stage.tekd.start()
    stage.wait_all(120)
    stage.fleet.posted()
    epochs = Epochs(stage.tekd)
    epochs.check_deliveries(mids)
    tell(f"{KILLS} kills, {len(epochs.logs)} epochs, {len(mids)} deliveries, "
         f"{len(epochs.of('delivery.carried'))} carried, {len(epochs.of('delivery.unknown'))} "
         f"unknown")
    stage.tekd.stop()


# ---- what does not belong together -----------------------------------------------------------------

def resum(folder):
    """SHA256SUMS as whoever changes an export writes it."""
    lines = []
    for d, _, files in os.walk(folder):
        for name in files:
            if name != "SHA256SUMS":
                lines.append(f"{sha256(read(d, name)).hexdigest()}  "
                             f"{os.path.relpath(os.path.join(d, name), folder)}\n")
    with open(os.path.join(folder, "SHA256SUMS"), "w", encoding="ascii") as f:
        f.writelines(sorted(lines))


def assert_refused(tekd, folder, text, since=None):
    """By all three."""
    done = tek_audit(tekd, folder, *(["--since", since] if since else []))
    assert done.returncode == 1 and text in done.stderr, done
    note = read(since) if since else None
    with pytest.raises(auditlog.AuditError):
        auditlog.Log(folder, tekd.path("checkpoint.pem"), since=Note(note) if note else None)
    with pytest.raises(verifier.Refused):
        verifier.verify(folder, read(tekd.path("checkpoint.pem")), note)


def test_what_does_not_belong_together_is_found(tekd):
    tekd.ask("m-1", "urn:x", "bsa-1")
    early = tekd.export()
    tekd.ask("m-2", "urn:x", "bsa-1")
    tekd.ctl("audit", "close-epoch")
    tekd.ask("m-3", "urn:x", "bsa-1")
    first, second = Epochs(tekd).folders
    # A note from the middle of the epoch before: its end is yet to be verified.
    assert_refused(tekd, second, "verify the rest of that epoch first",
                   since=os.path.join(early, "checkpoint"))
    # The link cut: record 0 is not what was signed, nor is it a beginning.
    cut = tekd.path("cut")
    shutil.copytree(second, cut)
    opened, rest = read(cut, "audit.jsonl").split(b"\n", 1)
    record = json.loads(opened)
    del record["note"]
    octets = json.dumps(record, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    with open(os.path.join(cut, "audit.jsonl"), "wb") as f:
        f.write(octets.encode() + b"\n" + rest)
    resum(cut)
    assert_refused(tekd, cut, "epoch: expected the last note")
    # The epochs the wrong way round.
    assert_refused(tekd, first, "origin", since=os.path.join(second, "checkpoint"))
    refused = tekd.tekctl("audit", "export", tekd.path("none"), "--epoch", "3", check=False)
    assert refused.returncode == 1 and "expected 1 to 2" in refused.stderr
    refused = tekd.tekctl("audit", "ledger", "--epoch", "0", check=False)
    assert refused.returncode != 0
    tekd.stop()
