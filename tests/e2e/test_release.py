"""No octet of a key leaves before its record is on the disk and under a committed signed checkpoint.

A preloaded library (shim/hold.c) stops the server just before a sync, or the signer just before
its reply; meanwhile every connection is watched.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from cp3py.messages import request
from harness import shim
from harness.answers import given
from harness.clock import Clock
from harness.hold import REPLY, SYNC, Hold
from harness.procs import run, wait_until
from harness.programs import program

# Long enough for an answer that is on its way: one takes 2 ms.  Nothing is waited for in it.
WATCH_S = 0.5
# After 2 s of the server's clock a signature counts as failed: these are 40 s.
SLOW = 1 / 20


@pytest.fixture(scope="session")
def library(workdir):
    return shim.build(workdir, "hold")


@pytest.fixture
def held_tekd(new_tekd, library):
    """A server under the shim, whose patience is longer than the tests'; as (tekd, hold).

    Only that with the signer is not a setting: after two seconds requests are told "busy".  Who
    holds that gives the server a clock, and slows it down.  Connections are made before anything
    is held.
    """
    made = []

    def make(clock=None, **audit):
        tekd = new_tekd(name="tekd_testclock" if clock else "tekd", hsm={"timeout_ms": 60000},
                        audit=audit,
                        limits={"request_deadline_ms": 60000, "request_timeout_ms": 60000})
        hold = Hold(library, tekd.folder)
        made.append(hold)
        tekd.env.update(hold.env)
        tekd.env.update(clock.env if clock else {})
        return tekd.start(), hold

    yield make
    for hold in made:
        hold.release(SYNC)
        hold.release(REPLY)


def quiet(tekd, hold):
    """Waits until nothing is left to be written: all is signed, and no sync for two of the second
    that a record which nobody waits for may ride."""
    state = {"count": None, "since": 0}

    def settled():
        store = tekd.look("status")["store"]
        now = (hold.count(SYNC), hold.count(REPLY), store["records"], store["signed"])
        if now != state["count"]:
            state.update(count=now, since=time.monotonic())
        return store["records"] == store["signed"] and time.monotonic() - state["since"] > 2.2
    wait_until(settled, "a quiet log", 60)


class Clients:
    """Connections that sent a request and wait for its answer."""

    def __init__(self, tekd, connections):
        self.tekd = tekd
        self.idle = {name: [tekd.connect(name) for _ in range(connections)]
                     for name in ("bsa-1", "bsa-2")}
        self.all = sum(self.idle.values(), [])
        self.waiting = []  # (connection, request, media)

    def send(self, m, media="xml"):
        c = self.idle[m.source].pop()
        c.send_message(m, media)
        self.waiting.append((c, m, media))

    def send_batch(self, first):
        """New contents of two BSAs, and repeats on other connections of what is under way."""
        for n in range(12):
            m = request(f"{first}-{n}", f"urn:three:{first}-{n // 3}", f"bsa-{n % 2 + 1}")
            for media in ("xml", "json", "xml"):
                self.send(m, media)

    def heard(self, seconds):
        """The first one to which an octet comes within that time, or None."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for c, m, _ in self.waiting:
                if c.wait_octet(0.001):
                    return m
        return None

    def assert_silent(self, seconds=WATCH_S):
        m = self.heard(seconds)
        assert m is None, f"an octet came for {m.mid}"

    def answers(self):
        found = []
        for c, m, media in self.waiting:
            r = c.read_response()
            found.append((m, given(r, m, self.tekd.template.bsas[m.source], media)))
        self.waiting = []
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for c in self.all:
            c.close()


@pytest.mark.parametrize("n", [1, 2], ids=["records", "checkpoint"])
def test_nothing_leaves_while_a_sync_is_held(held_tekd, mid, n):
    """The first sync of a batch makes its records durable, the second its checkpoint."""
    tekd, hold = held_tekd()
    known = request(mid, "urn:three:known", "bsa-1")
    with tekd.connect() as c:
        first = given(c.ask(known), known, tekd.template.bsas["bsa-1"])
    with Clients(tekd, 38) as clients:
        quiet(tekd, hold)
        hold.arm(SYNC, n)
        clients.send_batch(mid + "-b")
        hold.wait_held(SYNC)
        assert hold.count(REPLY) >= n - 1
        clients.assert_silent()
        # Those that come now wait as well, also for what was answered long ago: the store stands
        # still.
        clients.send(known)
        clients.send_batch(mid + "-c")
        clients.assert_silent()
        assert hold.is_held(SYNC)
        hold.release(SYNC)
        answers = clients.answers()
    assert len(answers) == 73
    assert [a.data for m, a in answers if m is known] == [first.data]
    assert_one_answer_each(tekd, answers)


@pytest.mark.smoke
def test_nothing_leaves_while_the_signature_is_held(held_tekd, folder, mid):
    """Records are durable, not yet signed.  What is under an older checkpoint is given meanwhile;
    the others wait, every one of them, and are given their keys with the signature."""
    clock = Clock(folder)
    tekd, hold = held_tekd(clock)
    known = request(mid, "urn:three:known", "bsa-1")
    with tekd.connect() as c:
        first = given(c.ask(known), known, tekd.template.bsas["bsa-1"])
    with Clients(tekd, 36) as clients, tekd.connect() as other:
        quiet(tekd, hold)
        hold.arm(REPLY, 1)
        clock.run(SLOW)
        clients.send_batch(mid + "-b")
        hold.wait_held(REPLY)
        clients.assert_silent()
        assert given(other.ask(known), known, tekd.template.bsas["bsa-1"]).data == first.data
        clients.send_batch(mid + "-c")
        clients.assert_silent()
        assert hold.is_held(REPLY)
        hold.release(REPLY)
        clock.run(1)
        answers = clients.answers()
    assert len(answers) == 2 * 36
    assert_one_answer_each(tekd, answers + [(known, first)])


def assert_one_answer_each(tekd, answers):
    """Repeats got what the first of their Message ID got; the log verifies and has each."""
    data = {}
    for m, answer in answers:
        assert data.setdefault((m.source, m.mid), answer.data) == answer.data
    log = tekd.audit()
    assert set(data) <= set(log.ledger)
    assert len(log.of("request.answered")) == len(log.ledger)


class Asker:
    """A connection that has always one request under way."""

    def __init__(self, tekd, name, prefix):
        self.tekd, self.name, self.prefix = tekd, name, prefix
        self.connection = tekd.connect(name)
        self.answered = 0
        self.ask()

    def ask(self):
        mid = f"{self.prefix}-{self.answered}"
        self.asked = request(mid, f"urn:{mid}", self.name)
        self.connection.send_message(self.asked)

    def take(self, seconds):
        """Whether an answer came within that time; if so it asks again at once."""
        if not self.connection.wait_octet(seconds):
            return False
        given(self.connection.read_response(), self.asked, self.tekd.template.bsas[self.name])
        self.answered += 1
        self.ask()
        return True


@pytest.mark.parametrize("n", [6, 9, 14])
def test_held_sync_in_the_middle_of_a_load(held_tekd, mid, n):
    """Whichever sync it is: what was released before it arrives, then there is silence."""
    tekd, hold = held_tekd()
    quiet(tekd, hold)
    hold.arm(SYNC, n)
    askers = [Asker(tekd, f"bsa-{i % 2 + 1}", f"{mid}-{i}") for i in range(24)]
    last = time.monotonic()
    while not hold.is_held(SYNC) or time.monotonic() - last < WATCH_S:
        for a in askers:
            if a.take(0.001):
                last = time.monotonic()
    assert hold.is_held(SYNC) and sum(a.answered for a in askers) > 0
    hold.release(SYNC)
    for a in askers:
        assert a.take(30)
        a.connection.close()
    # The last requests of all are still under way, or their clients have gone.
    log = tekd.audit()
    assert sum(a.answered for a in askers) <= len(log.ledger)


# ---- deliveries ------------------------------------------------------------------------------------

@pytest.fixture
def held_stage(new_stage, library, folder):
    """Two BSAs, one that is pushed to and one that collects, and a server under the shim."""
    hold = Hold(library, folder)
    stage = new_stage(["p-0", "p-1"], env=hold.env, hsm={"timeout_ms": 60000},
                      push={"retry_initial_s": 600, "retry_max_s": 600, "attempt_timeout_s": 60})
    stage.start(url=False)
    stage.tekd.tekctl("bsa", "set", "p-0", "--url", stage["p-0"].url)
    yield stage, hold
    hold.release(SYNC)
    hold.release(REPLY)


def in_background(work):
    """Its result, when it is asked for."""
    return ThreadPoolExecutor(1).submit(work)


@pytest.mark.smoke
@pytest.mark.parametrize("slot, n", [(SYNC, 1), (SYNC, 2), (REPLY, 1)],
                         ids=["records", "checkpoint", "signature"])
def test_no_delivery_leaves_before_its_record_is_released(held_stage, content, slot, n):
    """Neither to the BSA that is pushed to nor to the one that waits in a poll."""
    stage, hold = held_stage
    pushed, collects = stage["p-0"], stage["p-1"]
    earlier = stage.deliver(content)  # so that there is a TEK
    assert collects.confirm(collects.collect(60)) == 204
    stage.wait(earlier[0])
    poll = in_background(lambda: collects.collect(60))
    quiet(stage.tekd, hold)
    hold.arm(slot, n)
    prepared = in_background(lambda: stage.deliver(content))
    hold.wait_held(slot)
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        assert len(pushed.received()) == len(collects.received()) == 1 and not poll.done()
    assert hold.is_held(slot) and not prepared.done()
    hold.release(slot)
    first, second = prepared.result(60)
    stage.wait(first)
    m = poll.result(60)
    assert m.mid == second and collects.confirm(m) == 204
    assert stage.wait(second)["attempts"] == 1
    stage.verify()


def test_a_confirmation_is_durable_before_its_204(held_stage, content):
    stage, hold = held_stage
    bsa = stage["p-0"]
    bsa.plays("taken")
    mid, = stage.deliver(content, "p-0")
    wait_until(lambda: bsa.received(mid), "the delivery")
    quiet(stage.tekd, hold)
    hold.arm(SYNC, 1)
    m = request(mid, content, "bsm.example.net", "p-0")
    answer = in_background(lambda: bsa.confirm(m))
    hold.wait_held(SYNC)
    assert not wait([answer], WATCH_S).done
    assert hold.is_held(SYNC)
    hold.release(SYNC)
    assert answer.result(60) == 204
    stage.tekd.kill()
    bsa.plays("confirm")
    stage.tekd.start()
    stage.wait(mid)
    events = stage.verify().deliveries[mid].events()
    # Unless it was signed in time it is asked for once more; but its record is there.
    assert events[:3] == ["prepared", "attempt", "confirmed"] and events[-1] == "confirmed", events


# ---- the other setting -----------------------------------------------------------------------------

def test_release_durable_does_not_wait_for_the_signature(held_tekd, mid):
    """The other setting; and that the tests above would see an answer that leaves early."""
    tekd, hold = held_tekd(release="durable", checkpoint_max_delay_ms=3000)
    m = request(mid, "urn:three:x", "bsa-1")
    with Clients(tekd, 2) as clients:
        quiet(tekd, hold)
        hold.arm(REPLY, 1)
        clients.send(m)
        assert clients.heard(30) == m
        clients.answers()
        hold.wait_held(REPLY)
        # But it does wait for the disk.
        hold.arm(SYNC, 1)
        clients.send(m.but(mid=mid + "-2", content="urn:three:y"))
        hold.wait_held(SYNC)
        clients.assert_silent()
        hold.release(SYNC)
        clients.answers()
    hold.release(REPLY)
    log = tekd.audit(release=None)
    assert len(log.ledger) == 2
    # The server that enrolled the BSAs, and this one.
    assert [r["release"] for r in log.of("log.started")] == ["signed", "durable"]


def test_the_log_says_what_was_promised_and_what_left_early(new_tekd, mid):
    """An answer and its answer.sent under one checkpoint: not with signed, and durable says so."""
    tekd = new_tekd(audit={"release": "durable", "checkpoint_max_delay_ms": 60000}).start()
    # From here on nothing is signed before the stop, which records what was sent.
    tekd.tekctl("audit", "checkpoint")
    m = request(mid, "urn:three:x", "bsa-1")
    with tekd.connect() as c:
        given(c.ask(m), m, tekd.template.bsas["bsa-1"])

    tekd.restart(audit={"release": "signed", "checkpoint_max_delay_ms": None})
    with tekd.connect() as c:
        given(c.ask(m), m, tekd.template.bsas["bsa-1"])  # a repeat
        m = m.but(mid=mid + "-2")
        given(c.ask(m), m, tekd.template.bsas["bsa-1"])
    log = tekd.audit(release=None)
    # The server that enrolled the BSAs, and these two.
    assert [r["release"] for r in log.of("log.started")] == ["signed", "durable", "signed"]
    assert [(r["ev"], r["mid"]) for r in log.early] == [("answer.sent", mid)]
    assert len(log.of("request.repeated")) == 1
    said = verified(tekd)
    assert said["release"] == {"signed": 2, "durable": 1, "unknown": 0}
    assert (said["answered"], said["sent_early"]) == (2, 1)


def verified(tekd):
    """What tek-audit says of the log so far."""
    done = run([program("tek-audit"), "verify", tekd.export(), "--key",
                tekd.path("checkpoint.pem"), "--first", "--json"])
    return json.loads(done.stdout)


def test_answer_that_would_be_too_late_is_503_and_given_on_repeat(new_tekd, library, mid):
    """The deadline passes while the disk stands still; the record was written all the same."""
    tekd = new_tekd(hsm={"timeout_ms": 60000}, limits={"request_deadline_ms": 1000})
    hold = Hold(library, tekd.folder)
    tekd.env.update(hold.env)
    tekd.start()
    try:
        quiet(tekd, hold)
        hold.arm(SYNC, 1)
        m = request(mid, "urn:three:x", "bsa-1")
        with tekd.connect() as c:
            r = c.ask(m)
            assert (r.status, r.header("cp3-reason")) == (503, "busy")
            assert int(r.header("retry-after")) >= 1
            assert (r.message().status, r.message().form) == (1, "efficient")
            assert hold.is_held(SYNC)
            hold.release(SYNC)
            answer = given(c.ask(m), m, tekd.template.bsas["bsa-1"])
            assert given(c.ask(m), m, tekd.template.bsas["bsa-1"]).data == answer.data
        log = tekd.audit()
        assert len(log.of("tek.generated")) == len(log.of("request.answered")) == 1
    finally:
        hold.release(SYNC)
