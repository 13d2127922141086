"""Crypto-periods on the tests' clock: no period missing, none made twice, every TEK in time.

tekd_testclock is tekd with another clock object, which the test moves; the BSAs live by the same
clock.  While deliveries of the next period are expected the time passes at a steady speed, whatever
tekd does; what is left of a period in which nothing is to happen is skipped.
"""

from collections import Counter
from datetime import datetime, timezone

import pytest

from cp3py.messages import request
from harness.answers import given, refused
from harness.clock import Clock
from harness.procs import wait_until

PERIOD_S, LEAD_S = 60, 45
CONTENTS = 20
SPEED = 10  # so that the lead is 4.5 s of ours
US = 1_000_000
# Deadlines of tekd's own pass ten times as fast, too.
PATIENT = {"hsm": {"timeout_ms": 30000}, "limits": {"request_deadline_ms": 30000},
           "push": {"attempt_timeout_s": 60, "deadline_s": 3600, "retry_max_s": 5}}


def micros(text):
    """An RFC 3339 time as microseconds."""
    form = "%Y-%m-%dT%H:%M:%S" + (".%f" if "." in text else "") + "Z"
    return int(datetime.strptime(text, form).replace(tzinfo=timezone.utc).timestamp()) * US + \
        (int(text.split(".")[1][:-1].ljust(6, "0")) if "." in text else 0)


class Periods:
    """A stage whose contents have crypto-periods, all of them given to all BSAs once."""

    def __init__(self, new_stage, folder, names=None, contents=CONTENTS):
        self.clock = Clock(folder)
        self.stage = new_stage(names, name="tekd_testclock", clock=self.clock.utc_us,
                               env=self.clock.env, **PATIENT).start()
        self.tekd = self.stage.tekd
        self.contents = [f"urn:period:{i}" for i in range(contents)]
        for content in self.contents:
            self.stage.add(content, "--period", str(PERIOD_S), "--lead", str(LEAD_S))
            self.stage.deliver(content)
        self.stage.wait_all()
        self.epoch = self._epochs()

    def _epochs(self):
        """Of each content, from what BSAs were told; and that it is the time of "content add"."""
        found = {}
        for e in self.received():
            found.setdefault(e["content"], micros(e["begins"]) - e["period"] * PERIOD_S * US)
        assert set(found) == set(self.contents)
        return found

    def received(self):
        """Deliveries whose period can be read."""
        return [e for e in self.stage.fleet.journal.lines(what="received")
                if e["period"] is not None]

    def readers(self):
        return [b.name for b in self.stage.fleet if "--no-key-info" not in b.peer.enrol]

    def begin_of(self, period):
        """When the first, and when the last content enters it."""
        begins = [epoch + period * PERIOD_S * US for epoch in self.epoch.values()]
        return min(begins), max(begins)

    def period_now(self):
        return (self.clock.utc_us() - min(self.epoch.values())) // (PERIOD_S * US)

    def delivered(self, period):
        """How many deliveries of it have come so far."""
        return self.stage.fleet.counts[period]

    def wanted(self):
        return len(self.contents) * len(self.readers())

    def play(self, periods):
        """Lives through so many starts of periods."""
        for _ in range(periods):
            upcoming = self.period_now() + 1
            first, last = self.begin_of(upcoming)
            if self.clock.utc_us() < first - LEAD_S * US - US:
                self.clock.jump_to(first - LEAD_S * US - US)
            self.clock.run(SPEED)
            wait_until(lambda p=upcoming, t=first: self.delivered(p) >= self.wanted() or
                       self.clock.utc_us() > t, f"the TEKs of period {upcoming}", 30)
            self.clock.run(1)
            assert self.delivered(upcoming) == self.wanted(), \
                f"period {upcoming} begins with {self.delivered(upcoming)} of {self.wanted()}"
            self.stage.wait_all()  # or the jump would be a time-out of what is under way
            self.clock.jump_to(last + US)

    def check(self, periods):
        """Of each content and BSA every one of these periods, once and before it began."""
        seen = Counter()
        keys = {}
        for e in self.received():
            if e["period"] not in periods:
                continue
            seen[e["content"], e["period"], e["bsa"]] += 1
            keys.setdefault((e["content"], e["period"]), set()).add(e["key"])
            begin = self.epoch[e["content"]] + e["period"] * PERIOD_S * US
            assert micros(e["begins"]) // US == begin // US
            assert (micros(e["ends"]) - micros(e["begins"])) == PERIOD_S * US
            assert e["t"] < begin, f"{e} came after the period began"
        wanted = {(c, p, b) for c in self.contents for p in periods for b in self.readers()}
        assert set(seen) == wanted, f"missing: {sorted(wanted - set(seen))[:5]}"
        assert set(seen.values()) == {1}
        assert {len(k) for k in keys.values()} == {1}
        log = self.stage.verify()
        self.check_log(log, periods)
        made = Counter((r["content"], r["period"]) for r in log.of("tek.generated"))
        assert set(made.values()) == {1}, "a period was made twice"
        assert {(c, p) for c in self.contents for p in periods} <= set(made)
        return log, made


    def check_log(self, log, periods):
        """The same of all BSAs: some of them are not told which period it is."""
        told = Counter()
        for d in log.deliveries.values():
            content, period = d.prepared["content"], d.prepared["period"]
            if period not in periods:
                continue
            told[content, period, d.peer] += 1
            begin = self.epoch[content] + period * PERIOD_S * US
            assert d.confirmed and micros(d.confirmed["t"]) < begin, f"{d.mid}: {d.confirmed}"
        wanted = {(c, p, b.name) for c in self.contents for p in periods for b in self.stage.fleet}
        assert set(told) == wanted, f"missing: {sorted(wanted - set(told))[:5]}"
        assert set(told.values()) == {1}


def live(new_stage, folder, minutes, tell):
    p = Periods(new_stage, folder)
    first = p.period_now() + 1
    p.play(minutes * 60 // PERIOD_S)
    periods = range(first, p.period_now() + 1)
    assert len(periods) == minutes * 60 // PERIOD_S
    p.stage.wait_all()
    log, made = p.check(periods)
    early = sorted((p.epoch[e["content"]] + e["period"] * PERIOD_S * US - e["t"]) / US
                   for e in p.received() if e["period"] in periods)
    tell(f"{len(periods)} periods of {CONTENTS} contents for {len(p.stage.fleet.bsas)} BSAs: "
         f"{len(made)} TEKs, {len(log.deliveries)} deliveries; before their start: "
         f"{early[0]:.1f} s at least, {early[len(early) // 2]:.1f} s in the middle")
    assert all(d.state == "confirmed" for d in log.deliveries.values())
    p.tekd.stop()


def test_half_an_hour_of_periods(new_stage, folder, tell):
    live(new_stage, folder, 30, tell)


@pytest.mark.soak
def test_six_hours_of_periods(new_stage, folder, tell):
    live(new_stage, folder, 360, tell)


def test_a_stop_over_several_periods_is_followed_by_no_storm(new_stage, folder):
    p = Periods(new_stage, folder, ["p-0", "p-1", "p-4"], contents=5)
    p.play(1)
    p.stage.wait_all()
    before = p.stage.verify()
    last = p.period_now()
    p.tekd.stop()
    p.clock.jump(7 * PERIOD_S * US + 5 * US)  # early in a period: the next is not announced yet
    p.tekd.start()
    now = p.period_now()
    assert now == last + 7
    wait_until(lambda: p.delivered(now) == p.wanted(), "the TEKs of the current period")
    p.stage.wait_all()
    p.play(2)
    p.stage.wait_all()
    log = p.stage.verify()
    made = Counter((r["content"], r["period"]) for r in log.records[len(before.records):]
                   if r["ev"] == "tek.generated")
    assert made == Counter({(c, n): 1 for c in p.contents for n in range(now, now + 3)})
    new = len(log.deliveries) - len(before.deliveries)
    assert new == 3 * len(p.contents) * len(p.stage.fleet.bsas)
    p.tekd.stop()


def test_requests_get_the_current_or_the_announced_period(new_stage, folder):
    p = Periods(new_stage, folder, ["p-0"], contents=1)
    content, bsa = p.contents[0], p.stage["p-0"]
    p.play(1)
    current = p.period_now()

    def ask(mid, period=None):
        m = request(mid, content, bsa.name, period=period)
        with p.tekd.connect(bsa.name) as c:
            return m, c.ask(m, bsa.media)

    def given_period(mid, period=None):
        m, r = ask(mid, period)
        return given(r, m, bsa.peer, bsa.media).key_info

    def no_period(mid, period):
        m, r = ask(mid, period)
        refused(r, m, "no-period", media=bsa.media)

    assert given_period("m-1")["period"] == current
    assert given_period("m-2", current)["period"] == current
    no_period("m-3", current - 1)  # over
    no_period("m-4", current + 1)  # not announced yet
    p.clock.jump_to(p.begin_of(current + 1)[0] - LEAD_S * US + US)
    wait_until(lambda: p.delivered(current + 1), "the next period's TEK")
    announced = given_period("m-5", current + 1)
    assert announced["period"] == current + 1 and \
        micros(announced["notBefore"]) // US == p.begin_of(current + 1)[0] // US
    assert given_period("m-6")["period"] == current
    no_period("m-7", current + 2)
    p.clock.jump_to(p.begin_of(current + 1)[0] + US)
    assert given_period("m-8")["keyID"] == announced["keyID"]
    no_period("m-9", current)
    # What was answered stays answered: the MessageID of a period that is over gives its key.
    assert given_period("m-2", current)["period"] == current
    p.tekd.stop()


def test_a_step_of_utc_hangs_nothing(new_stage, folder):
    """An hour back, and two forward again: what is current is what the clock says."""
    p = Periods(new_stage, folder, ["p-0"], contents=1)
    p.play(1)
    for n, step_s in enumerate((-3600, 7200), 1):
        p.clock.step(step_s * US)
        mid, = p.stage.deliver("urn:beside", "p-0")
        p.stage.wait(mid)
        wait_until(lambda n=n: p.tekd.log().count("event=clock-step") == n, "the step to be seen")
    now = p.period_now()
    wait_until(lambda: p.delivered(now) >= 1, "the TEK of the period that is current now")
    log = p.stage.verify()
    assert len(log.of("clock.step")) == 2
    p.tekd.stop()
