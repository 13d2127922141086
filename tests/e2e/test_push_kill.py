"""kill -9 of tekd while deliveries are under way: the BSAs' journal is the witness.

At the end every MessageID that left has one Data, is confirmed once in what the log counts, and no
BSA was given anything that the log does not know.
"""

import concurrent.futures
import random
import subprocess
import time
from collections import Counter

import pytest

CONTENTS = 20  # to ten BSAs each: 200 deliveries a run

# An attempt is longer than the BSAs are held; what was only taken or refused is sent again soon.
PUSH = {"attempt_timeout_s": 2, "retry_max_s": 1}
ORDERS = 4  # at a time, so that they are not held for long


class Run:
    """Deliveries, a kill in the middle of them, and a start."""

    STEPS = ["confirm", "later", "confirm-efficient", "twice", "later-twice", "reject", "reset"]

    def __init__(self, stage, seed):
        self.stage = stage
        self.random = random.Random(seed)
        self.turn = 0
        self.said = set()  # MessageIDs that tekctl printed

    def shuffle_scripts(self):
        """All kinds of behaviour for a while, then the right one."""
        for bsa in self.stage.fleet:
            steps = [self.random.choice(self.STEPS) for _ in range(2 * CONTENTS)]
            bsa.plays(*steps, "confirm")
            bsa.pause_s = self.random.uniform(0, 0.05)

    def once(self):
        """How many were under way when it was killed; all are through when this returns."""
        self.turn += 1
        self.shuffle_scripts()
        self.stage.fleet.hold()
        contents = [f"urn:kill:{self.turn}:{i}" for i in range(CONTENTS)]
        with concurrent.futures.ThreadPoolExecutor(ORDERS) as pool:
            for mids in pool.map(self.stage.deliver, contents):
                self.said.update(mids)
        self.stage.fleet.release()
        time.sleep(self.random.uniform(0, 0.6))  # the random moment itself
        under_way = len(self.stage.tekd.ctl("delivery", "list", "--pending"))
        self.stage.tekd.kill()
        self.stage.tekd.start()
        self.stage.wait_all(120)
        return under_way

    def kill_inside_an_order(self):
        """What tekctl was not told of may have been prepared all the same."""
        self.turn += 1
        self.stage.add(f"urn:kill:{self.turn}:0")
        client = subprocess.Popen(  # pylint: disable=consider-using-with
            self.stage.tekd.tekctl_argv("deliver", f"urn:kill:{self.turn}:0"),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(self.random.uniform(0, 0.03))
        self.stage.tekd.kill()
        client.wait(30)
        self.stage.tekd.start()
        self.stage.wait_all(120)

    def check(self):
        """What the BSAs have in their journal against what the verified log says."""
        self.stage.fleet.posted()
        log = self.stage.verify()
        journal = self.stage.fleet.journal.lines()
        data, octets = {}, {}
        for e in journal:
            if e["what"] == "received":
                data.setdefault(e["mid"], set()).add((e["bsa"], e["data"]))
                octets.setdefault(e["mid"], set()).add(e["octets"])
        yes = Counter(e["mid"] for e in journal if e.get("status") == 0)
        assert self.said <= set(log.deliveries)
        assert set(data) <= set(log.deliveries), "a BSA has what the log does not know"
        for mid, d in log.deliveries.items():
            assert len(data[mid]) == 1 and data[mid].pop()[0] == d.peer, mid
            assert octets[mid] == {d.prepared["out"]}, mid
            counted = [r for r in d.records if r["ev"] == "delivery.confirmed" and
                       r["seq"] not in log.unattested]
            assert len(counted) == 1 and yes[mid] >= 1, (mid, d.events(), yes[mid])
        return log


def kill_many(stage, runs, seed, tell):
    run = Run(stage, seed)
    all_under_way = 0
    for n in range(runs):
        under_way = run.once()
        all_under_way += under_way
        tell(f"run {n + 1} of {runs}, seed {seed}: {under_way} of {CONTENTS * 10} under way at the kill")
    run.kill_inside_an_order()
    log = run.check()
    events = Counter(r["ev"] for r in log.records)
    tell(f"{runs} kills: {len(log.deliveries)} deliveries, "
         f"{events['delivery.attempt']} attempts, {events['delivery.unknown']} unknown, "
         f"{events['confirm.duplicate']} duplicates, {len(log.unattested)} unattested records")
    assert events["delivery.unknown"] > 0
    assert all_under_way >= 10 * runs, "too few were under way at the kills to show anything"
    stage.tekd.stop()


def test_deliveries_survive_kill_9(new_stage, tell):
    kill_many(new_stage(push=PUSH).start(), 5, random.randrange(2 ** 32), tell)


@pytest.mark.soak
def test_deliveries_survive_50_kills(new_stage, tell):
    kill_many(new_stage(push=PUSH).start(), 50, random.randrange(2 ** 32), tell)
