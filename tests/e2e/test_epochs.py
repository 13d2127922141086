"""Epochs of the audit log: keys and deliveries go on over the boundary, and each epoch verifies."""

import json
import os
import shutil
import threading
from hashlib import sha256

import pytest

from cp3py import auditlog
from cp3py.note import Note
from harness.procs import run
from harness.programs import program

KILLS = 6


def export(tekd, epoch):
    folder = tekd.path(f"epoch-{epoch}")
    tekd.tekctl("audit", "export", folder, "--epoch", str(epoch))
    return folder


def tek_audit(tekd, folder, *since):
    return run([program("tek-audit"), "verify", folder, "--key", tekd.path("checkpoint.pem"),
                *(since or ("--first",))], check=False)


def last_note(folder):
    with open(os.path.join(folder, "checkpoint"), "rb") as f:
        return Note(f.read())


def verify_all(tekd):
    """Every epoch, each since the one before, by both verifiers; the logs."""
    logs, since = [], None
    for epoch in range(1, tekd.ctl("status")["store"]["epoch"] + 1):
        folder = export(tekd, epoch)
        logs.append(auditlog.Log(folder, tekd.path("checkpoint.pem"), since=since))
        done = tek_audit(tekd, folder, *(["--since", logs[-2].note_path] if since else []))
        assert done.returncode == 0, done.stderr
        assert tek_audit(tekd, folder).returncode == 0
        logs[-1].note_path = os.path.join(folder, "checkpoint")
        since = last_note(folder)
    return logs


class Asking(threading.Thread):
    """Asks for keys until it is told to stop; what it was answered."""

    def __init__(self, tekd, bsa):
        super().__init__()
        self.tekd, self.bsa = tekd, bsa
        self.ended = threading.Event()
        self.answers = []

    def run(self):
        while not self.ended.is_set():
            mid = f"{self.bsa}-{len(self.answers)}"
            try:
                answer = self.tekd.ask(mid, f"urn:{len(self.answers) % 7}", self.bsa)
            except OSError:  # it was killed
                continue
            self.answers.append((mid, answer.status))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()


def test_pulls_go_on_over_the_boundary(tekd):
    tekd.start()
    first = tekd.ask("m-1", "urn:x", "bsa-1")
    with Asking(tekd, "bsa-1") as a, Asking(tekd, "bsa-2") as b:
        for epoch in (1, 2, 3):
            assert tekd.ctl("audit", "close-epoch")["epoch"] == epoch
    assert tekd.ask("m-1", "urn:x", "bsa-1").body == first.body  # answered in epoch 1
    assert all(status == 200 for _, status in a.answers + b.answers)
    logs = verify_all(tekd)
    assert len(logs) == 4
    known = {mid for log in logs for _, mid in log.ledger}
    assert {mid for mid, _ in a.answers + b.answers} <= known
    assert [r["ref"].split("/")[0] for r in logs[3].of("request.repeated")] == ["1"]
    assert [r["action"] for r in logs[0].of("admin.action")][-1] == "audit close-epoch"
    listed = json.loads(tekd.tekctl("--json", "audit", "ledger", "--epoch", "1").stdout)
    assert {e["message_id"] for e in listed} == {mid for _, mid in logs[0].ledger}
    tekd.stop()
    assert "epoch-closed" in tekd.log() and "epoch-opened" in tekd.log()


def test_a_delivery_is_confirmed_in_the_next_epoch(new_stage):
    stage = new_stage(push={"retry_max_s": 1, "attempt_timeout_s": 2}).start()
    for bsa in stage.fleet:
        bsa.plays("reject")
    stage.add("urn:x")
    mids = stage.deliver("urn:x")
    stage.tekd.ctl("audit", "close-epoch")
    for bsa in stage.fleet:
        bsa.plays("confirm")
    stage.wait_all()
    first, second = verify_all(stage.tekd)
    with open(os.path.join(os.path.dirname(first.note_path), "pending.jsonl"), "rb") as f:
        pending = {json.loads(line)["mid"] for line in f}
    assert pending == {r["mid"] for r in second.of("delivery.carried")} == set(mids)
    assert all(d.state == "confirmed" for d in second.deliveries.values())
    shown = stage.tekd.ctl("delivery", "show", mids[0])
    events = [(e["epoch"], e["event"]) for e in shown["history"]]
    assert events[0] == (1, "delivery.prepared") and events[-1] == (2, "delivery.confirmed")
    stage.tekd.stop()


def test_kill_9_around_the_boundary(tekd):
    tekd.start()
    for turn in range(KILLS):
        with Asking(tekd, "bsa-1"):
            closing = threading.Thread(target=lambda: tekd.tekctl("audit", "close-epoch",
                                                                  check=False))
            closing.start()
            threading.Event().wait(0.005 * turn)  # the moment itself
            tekd.kill()
            closing.join()
            tekd.start()
        assert tekd.ask(f"after-{turn}", "urn:x", "bsa-2").status == 200
    verify_all(tekd)
    tekd.stop()


def resum(folder):
    """SHA256SUMS as whoever changes an export writes it."""
    lines = []
    for d, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(d, name)
            if name != "SHA256SUMS":
                with open(path, "rb") as f:
                    lines.append(f"{sha256(f.read()).hexdigest()}  "
                                 f"{os.path.relpath(path, folder)}\n")
    with open(os.path.join(folder, "SHA256SUMS"), "w", encoding="ascii") as f:
        f.writelines(sorted(lines))


def test_what_does_not_belong_together_is_found(tekd):
    tekd.start()
    tekd.ask("m-1", "urn:x", "bsa-1")
    early = tekd.export()
    tekd.ask("m-2", "urn:x", "bsa-1")
    tekd.ctl("audit", "close-epoch")
    tekd.ask("m-3", "urn:x", "bsa-1")
    verify_all(tekd)
    second = tekd.path("epoch-2")
    # A note from the middle of the epoch before: its end is yet to be verified.
    done = tek_audit(tekd, second, "--since", os.path.join(early, "checkpoint"))
    assert done.returncode == 1 and "verify the rest of that epoch first" in done.stderr
    with pytest.raises(auditlog.AuditError):
        auditlog.Log(second, tekd.path("checkpoint.pem"), since=last_note(early))
    # The link cut: record 0 is not what was signed, nor is it a beginning.
    cut = tekd.path("cut")
    shutil.copytree(second, cut)
    with open(os.path.join(cut, "audit.jsonl"), "rb") as f:
        opened, rest = f.read().split(b"\n", 1)
    record = json.loads(opened)
    del record["note"]
    octets = json.dumps(record, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    with open(os.path.join(cut, "audit.jsonl"), "wb") as f:
        f.write(octets.encode() + b"\n" + rest)
    resum(cut)
    done = tek_audit(tekd, cut)
    assert done.returncode == 1 and "epoch: expected the last note" in done.stderr
    with pytest.raises(auditlog.AuditError):
        auditlog.Log(cut, tekd.path("checkpoint.pem"))
    refused = tekd.tekctl("audit", "export", tekd.path("none"), "--epoch", "3", check=False)
    assert refused.returncode == 1 and "expected 1 to 2" in refused.stderr
    tekd.stop()
