"""BSAs that cannot be reached collect: GET /cp3/deliveries, then the confirmation by POST.

What was rejected or ignored never stands before the next; a delivery that was handed out comes
again when its lease is over and not before; a BSA has one poll and its own deliveries only.
"""

import threading
import time

import pytest

from harness.answers import problem
from harness.procs import wait_until

LEASE_S = 3  # the back-off, which may be a quarter less


@pytest.fixture
def stage(new_stage):
    """Three BSAs behind NAT: no URL."""
    return new_stage(["p-0", "p-1", "p-2"], push={"retry_initial_s": LEASE_S,
                                                  "retry_max_s": LEASE_S}).start(url=False)


def deliver(stage, n, name="p-0"):
    return [stage.deliver(f"urn:collect:{i}", name)[0] for i in range(n)]


def collect_all(bsa, seconds=0):
    """GETs until there is none; the deliveries in their order."""
    found = []
    with bsa.fleet.tekd.connect(bsa.name) as c:
        while True:
            m = bsa.collect(seconds, c)
            if m is None:
                return found
            found.append(m)


class Poll:
    """An open poll in a thread of its own."""

    def __init__(self, bsa, wait):
        self.message = None
        self.seconds = None
        self.error = None
        self.done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(bsa, wait), daemon=True)
        self._thread.start()

    def _run(self, bsa, wait):
        begin = time.monotonic()
        try:
            self.message = bsa.collect(wait)
        except Exception as e:  # pylint: disable=broad-except
            self.error = e
        self.seconds = time.monotonic() - begin
        self.done.set()

    def join(self, seconds):
        assert self.done.wait(seconds), "the poll hangs"
        if self.error:
            raise self.error
        return self.message


# ---- the right thing -------------------------------------------------------------------------------

@pytest.mark.smoke
def test_collected_in_order_and_confirmed(stage):
    bsa = stage["p-0"]
    mids = deliver(stage, 3)
    assert all(stage.show(m)["state"] == "prepared" for m in mids)  # nobody is there to push to
    came = collect_all(bsa)
    assert [m.mid for m in came] == mids  # oldest first, each once
    assert all(stage.show(m)["state"] == "in-flight" for m in mids)
    assert [bsa.confirm(m) for m in came] == [204] * 3
    assert all(stage.show(m)["state"] == "confirmed" for m in mids)
    assert collect_all(bsa) == []
    log = stage.verify()
    for m in mids:
        assert log.deliveries[m].events() == ["prepared", "attempt", "confirmed"]
        assert log.deliveries[m].attempts()[0]["addr"].startswith("127.0.0.1")


def test_all_kinds_of_bsa_collect(stage, content):
    for mid, bsa in zip(stage.deliver(content), stage.fleet):
        m = bsa.collect()
        assert m.mid == mid and bsa.confirm(m) == 204
        stage.wait(mid)


def test_a_poll_is_answered_as_soon_as_there_is_one(stage):
    bsa = stage["p-0"]
    poll = Poll(bsa, 30)
    assert not poll.done.wait(0.5)
    mid, = deliver(stage, 1)
    assert poll.join(5).mid == mid
    assert poll.seconds < 10


def test_a_poll_ends_with_204_after_its_time(stage):
    begin = time.monotonic()
    assert stage["p-0"].collect(2) is None
    assert 1.9 <= time.monotonic() - begin < 10
    begin = time.monotonic()
    assert stage["p-0"].collect(0) is None
    assert time.monotonic() - begin < 1.5


def test_a_bsa_with_a_url_may_collect_too(new_stage, content):
    stage = new_stage(["p-0"]).start()
    bsa = stage["p-0"]
    bsa.silent()
    mid, = stage.deliver(content, "p-0")
    m = bsa.collect(30)  # between two attempts, when its lease is over
    assert m.mid == mid and bsa.confirm(m) == 204
    stage.wait(mid)
    stage.verify()


# ---- what was not confirmed ------------------------------------------------------------------------

def test_what_is_ignored_or_rejected_does_not_stand_before_the_next(stage):
    bsa = stage["p-0"]
    ignored, rejected, *others = deliver(stage, 6)
    with stage.tekd.connect(bsa.name) as c:
        assert bsa.collect(0, c).mid == ignored
        m = bsa.collect(0, c)
        assert m.mid == rejected
        assert [bsa.confirm(m, 1) for _ in range(2)] == [204, 204]  # the second is no news
        for mid in others:
            m = bsa.collect(0, c)
            assert m.mid == mid and bsa.confirm(m) == 204
    assert all(stage.show(mid)["state"] == "confirmed" for mid in others)
    assert stage.show(rejected)["state"] == "rejected"
    assert sum("warn push event=rejected" in line and rejected in line
               for line in stage.tekd.log().splitlines()) == 1
    counted = stage.tekd.ctl("status")["deliveries"]
    assert (counted["confirmed"], counted["rejected"]) == (len(others), 1)
    # Both come again, and may be ignored again.
    for _ in range(2):
        again = {bsa.collect(20).mid for _ in range(2)}
        assert again == {ignored, rejected}
    new, = deliver(stage, 1)
    m = bsa.collect(0)
    while m.mid != new:  # those two may be due again
        m = bsa.collect(0)
    assert bsa.confirm(m) == 204
    log = stage.verify()
    assert log.deliveries[rejected].events()[:4] == ["prepared", "attempt", "rejected", "rejected"]
    assert log.deliveries[ignored].events()[:3] == ["prepared", "attempt", "attempt"]


def test_a_delivery_that_was_handed_out_is_leased(stage):
    bsa = stage["p-0"]
    mid, = deliver(stage, 1)
    assert bsa.collect().mid == mid
    begin = time.monotonic()
    assert bsa.collect() is None
    assert bsa.collect(20).mid == mid  # the poll wakes when the lease is over
    assert LEASE_S * 3 / 4 - 0.5 <= time.monotonic() - begin <= LEASE_S + 5
    assert stage.show(mid)["attempts"] == 2
    bsa.confirm(bsa.collect(20))
    stage.wait(mid)


def test_a_poll_that_goes_away_takes_nothing_with_it(stage):
    """What was handed to a connection that had closed comes again."""
    bsa = stage["p-0"]
    c = stage.tekd.connect(bsa.name)
    c.send_request("GET", "/cp3/deliveries?wait=30")
    assert not c.wait_octet(0.5)
    c.close()
    mid, = deliver(stage, 1)
    m = bsa.collect(30)
    assert m.mid == mid and bsa.confirm(m) == 204
    stage.wait(mid)
    stage.verify()


# ---- one poll, and one's own -----------------------------------------------------------------------

def test_a_newer_poll_ends_the_older(stage):
    bsa = stage["p-0"]
    older = Poll(bsa, 60)
    assert not older.done.wait(0.5)
    newer = Poll(bsa, 60)
    assert older.join(10) is None
    assert not newer.done.wait(0.2)
    mid, = deliver(stage, 1)
    assert newer.join(10).mid == mid


def test_only_its_own(stage):
    one, other = stage["p-0"], stage["p-1"]
    theirs = Poll(other, 3)
    mids = deliver(stage, 3)
    assert theirs.join(20) is None
    assert collect_all(other) == []
    assert [m.mid for m in collect_all(one)] == mids
    for name in ("bsa-1", "stranger"):  # certificates of nobody enrolled here
        with stage.tekd.connect(name) as c:
            problem(c.request("GET", "/cp3/deliveries?wait=0"), 403)


@pytest.mark.parametrize("query", ["", "?wait=61", "?wait=-1", "?wait=x", "?wait=", "?wait=1&wait=2",
                                   "?when=1", "?wait=99999999999999999999"])
def test_queries(stage, query):
    """No wait is no waiting; what cannot be meant is refused."""
    with stage.tekd.connect("p-0") as c:
        r = c.request("GET", f"/cp3/deliveries{query}")
        if query == "":
            assert r.status == 204, r
        else:
            problem(r, 400)
        r = c.request("POST", "/cp3/deliveries", b"x", [("Content-Type", "application/xml")])
        assert r.status == 405 and r.header("allow"), r


def test_polls_hold_no_thread(new_stage):
    """More open polls than threads, and requests are answered beside them."""
    stage = new_stage(limits={"request_threads": 2}).start(url=False)
    open_polls = [Poll(bsa, 60) for bsa in stage.fleet]
    assert not open_polls[-1].done.wait(0.5)
    for i in range(20):
        assert stage.tekd.ask(f"m-{i}", f"urn:beside:{i}", "p-0").status == 200
    assert not any(p.done.is_set() for p in open_polls)
    begin = time.monotonic()
    stage.tekd.stop()  # which answers them
    assert time.monotonic() - begin < 10
    for p in open_polls:
        p.join(10)


def test_a_collected_delivery_is_sent_again_after_a_crash(stage):
    bsa = stage["p-0"]
    first, second = deliver(stage, 2)
    assert bsa.collect().mid == first
    stage.tekd.kill()
    stage.tekd.start()
    wait_until(lambda: stage.show(first)["state"] == "unknown", "the delivery to be unknown")
    assert stage.show(second)["state"] == "prepared"
    came = [bsa.collect(5), bsa.collect(5)]
    assert {m.mid for m in came} == {first, second}
    assert [bsa.confirm(m) for m in came] == [204, 204]
    log = stage.verify()
    assert log.deliveries[first].events() == ["prepared", "attempt", "unknown", "attempt",
                                              "confirmed"]
    assert log.deliveries[second].events() == ["prepared", "attempt", "confirmed"]
