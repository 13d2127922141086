"""The push case: what a BSA may do with a Key Delivery, and what tekd makes of it.

Each test has a content of its own; the log has to tell exactly what happened, and the delivery has
to stand where docs/protocol.md says.
"""

import itertools
import re
import shutil

import pytest

from cp3py.messages import confirmation, request
from harness import pki
from harness.answers import given, problem
from harness.procs import wait_until

_turn = itertools.count()


@pytest.fixture
def stage(shared_stage):
    yield shared_stage
    shared_stage.wait_all()


@pytest.fixture
def bsa(stage):
    """One of the ten; the next test gets the next one."""
    b = list(stage.fleet)[next(_turn) % len(stage.fleet.bsas)]
    yield b
    b.plays("confirm")


def deliver(stage, bsa, content):
    return stage.deliver(content, bsa.name)[0]


def outcomes(stage):
    """How many confirmations and rejections the status counts."""
    d = stage.tekd.ctl("status")["deliveries"]
    return d["confirmed"], d["rejected"]


def rejections(stage, mid):
    """The warnings in the log for operators."""
    return [line for line in stage.tekd.log().splitlines()
            if "warn push event=rejected" in line and mid in line]


def unmatched(stage, bsa):
    return [r["reason"] for r in stage.tekd.audit().of("confirm.unmatched")
            if r["peer"] == bsa.name]


# ---- the right thing -------------------------------------------------------------------------------

@pytest.mark.smoke
@pytest.mark.parametrize("step", ["confirm", "confirm-full", "confirm-efficient", "later",
                                  "later-204", "later-efficient", "confirm-other-media"])
def test_a_confirmation_confirms(stage, bsa, content, step):
    bsa.plays(step)
    mid = deliver(stage, bsa, content)
    d = stage.wait(mid)
    assert (d["bsa"], d["content_id"], d["attempts"]) == (bsa.name, content, 1)
    stage.fleet.posted()
    assert bsa.posted(mid) == ([(204, None)] if "later" in step else [])
    came, = bsa.received(mid)
    log = stage.tekd.audit()
    delivery = log.deliveries[mid]
    assert delivery.events() == ["prepared", "attempt", "confirmed"]
    assert came["octets"] == delivery.prepared["out"]
    assert came["key"] in (d["key_id"], None) and d["key_id"] == delivery.prepared["keyid"]
    assert delivery.confirmed.get("late", False) is False
    assert delivery.attempts()[0]["addr"] == f"127.0.0.1:{bsa.port}"
    assert delivery.confirmed["addr"].startswith("127.0.0.1")


def test_every_kind_of_bsa_gets_the_same_tek_by_push_and_by_pull(stage, content):
    """All wraps, media and forms; the fleet compares the clear TEKs by key ID."""
    mids = stage.deliver(content)
    by_bsa = {stage.wait(m)["bsa"]: m for m in mids}
    assert set(by_bsa) == set(stage.fleet.bsas)
    log = stage.tekd.audit()
    assert len({log.deliveries[m].prepared["keyid"] for m in mids}) == 1
    for bsa in stage.fleet:
        m = request(f"m-{content}", content, bsa.name)
        with stage.tekd.connect(bsa.name) as c:
            answer = given(c.ask(m, bsa.media), m, bsa.peer, bsa.media)
        came, = bsa.received(by_bsa[bsa.name])
        if not bsa.peer.wrap.startswith("rsa"):  # which is as random in each wrap
            assert answer.data.hex() == came["data"]
        if answer.key_info:
            assert answer.key_info["keyID"] == log.deliveries[mids[0]].prepared["keyid"]


def test_deliver_again_is_another_delivery_of_the_same_tek(stage, bsa, content):
    first, second = deliver(stage, bsa, content), deliver(stage, bsa, content)
    assert first < second  # MessageIDs rise
    assert stage.wait(first)["key_id"] == stage.wait(second)["key_id"]
    assert len(bsa.received(first)) == len(bsa.received(second)) == 1


def test_connections_are_kept(stage, bsa, content):
    before = bsa.server.connections
    for i in range(12):
        stage.wait(deliver(stage, bsa, f"{content}-{i}"))
    assert bsa.server.connections - before <= 2


# ---- Status 1 and confirmations too many -----------------------------------------------------------

@pytest.mark.parametrize("step", ["reject", "later-reject"])
def test_status_1_is_recorded_and_tried_again(stage, bsa, content, step):
    before = outcomes(stage)
    bsa.plays(step, "confirm")
    mid = deliver(stage, bsa, content)
    d = stage.wait(mid, "rejected", seconds=5)
    assert "Status 1" in why(d)
    assert stage.wait(mid)["attempts"] == 2
    assert len(rejections(stage, mid)) == 1
    assert outcomes(stage) == (before[0] + 1, before[1] + 1)
    stage.fleet.posted()
    assert bsa.posted(mid) == ([(204, None)] if "later" in step else [])
    assert stage.events(mid) == ["prepared", "attempt", "rejected", "attempt", "confirmed"]


@pytest.mark.parametrize("step, posts", [("twice", 1), ("later-twice", 2)])
def test_a_second_confirmation_changes_nothing(stage, bsa, content, step, posts):
    bsa.plays(step)
    mid = deliver(stage, bsa, content)
    stage.wait(mid)
    stage.fleet.posted()
    assert bsa.posted(mid) == [(204, None)] * posts
    assert stage.show(mid)["state"] == "confirmed"
    assert stage.events(mid) == ["prepared", "attempt", "confirmed", "confirm.duplicate"]


def test_status_1_after_0_is_no_confirmation(stage, bsa, content):
    bsa.plays("confirm-then-reject")
    mid = deliver(stage, bsa, content)
    stage.wait(mid)
    stage.fleet.posted()
    assert bsa.posted(mid) == [(409, "already-confirmed")]
    assert stage.show(mid)["state"] == "confirmed"
    assert stage.events(mid) == ["prepared", "attempt", "confirmed"]
    assert "already-confirmed" in unmatched(stage, bsa)


# ---- what is no confirmation -----------------------------------------------------------------------

REASONS = {"mid": "unknown-message", "content": "wrong-content", "source": "wrong-source",
           "destination": "wrong-destination"}


@pytest.mark.parametrize("how", ["", "-later"])
@pytest.mark.parametrize("what", REASONS)
def test_a_confirmation_that_does_not_match_is_none(stage, bsa, content, what, how):
    before = unmatched(stage, bsa)
    bsa.plays(f"wrong-{what}{how}", "confirm")
    mid = deliver(stage, bsa, content)
    assert stage.wait(mid)["attempts"] == 2
    stage.fleet.posted()
    log = stage.tekd.audit()
    assert log.deliveries[mid].events() == ["prepared", "attempt", "attempt", "confirmed"]
    assert unmatched(stage, bsa)[len(before):] == [REASONS[what]]
    if how:
        wrong = stage.fleet.journal.lines(bsa=bsa.name, what="posted")[-1]
        assert (wrong["http"], wrong["reason"]) == (409, REASONS[what])


def test_a_confirmation_of_another_bsas_delivery_is_none(stage, content):
    one, other = stage["p-0"], stage["p-4"]
    one.plays("taken")
    try:
        mid = deliver(stage, one, content)
        wait_until(lambda: one.received(mid), "the delivery")
        m = confirmation(given_to(one, mid, content))
        for lie in (confirmation(m, form="efficient"), m, m.but(source=other.name)):
            r = other.post(lie)
            assert (r.status, r.header("cp3-reason")) == (409, "unknown-message"), r
        assert stage.show(mid)["state"] == "in-flight"
        assert one.post(m).status == 204
        stage.wait(mid)
    finally:
        one.plays("confirm")
    assert stage.events(mid) == ["prepared", "attempt", "confirmed"]
    assert unmatched(stage, other)[-3:] == ["unknown-message"] * 3


def given_to(bsa, mid, content):
    """The delivery, as far as a confirmation of it needs it."""
    return request(mid, content, "bsm.example.net", bsa.name)


def test_an_answer_to_one_delivery_does_not_confirm_another(stage, bsa, content):
    """The MessageID in an answer has to be that of the message it answers."""
    bsa.plays("taken")
    first = deliver(stage, bsa, content)
    wait_until(lambda: bsa.received(first), "the first delivery")

    async def confuse(b, x, m):
        if m.mid == first:  # sent again before the second came
            return await b.tell(x, m, 202)
        b.plays("confirm")
        await b.say(x, confirmation(m).but(mid=first))
    from harness.behaviour import TABLE
    TABLE["confuse"] = confuse
    try:
        bsa.plays("confuse")
        second = deliver(stage, bsa, content)
        stage.wait(second)
        stage.wait(first)
    finally:
        del TABLE["confuse"]
    assert stage.events(second)[:3] == ["prepared", "attempt", "attempt"]
    assert len(bsa.received(first)) >= 2, "confirmed by an answer to another message"


def test_confirmations_that_match_nothing_cost_only_the_records_they_may(stage, bsa):
    earlier = len(unmatched(stage, bsa))
    before = stage.tekd.ctl("status")["store"]["records"]
    with stage.tekd.connect(bsa.name) as c:
        for i in range(200):
            m = confirmation(given_to(bsa, f"none-{i}", "urn:x"))
            problem(c.ask(m, bsa.media), 409, "unknown-message")
    # 200 may take longer than a minute: two windows of ten, and the summary of the first; and what
    # came earlier may have been in the same minute.
    least = max(10 - earlier, 1)
    assert least <= unmatched(stage, bsa)[earlier:].count("unknown-message") <= 21
    assert least <= stage.tekd.ctl("status")["store"]["records"] - before <= 30


def test_the_summary_of_confirmations_that_match_nothing_tells_all_of_them(new_stage):
    """At the latest a stop writes it; the verifiers of both sides take it."""
    stage = new_stage(["p-0"]).start()
    with stage.tekd.connect("p-0") as c:
        for i in range(50):
            m = confirmation(given_to(stage["p-0"], f"none-{i}", "urn:x"))
            problem(c.ask(m, stage["p-0"].media), 409, "unknown-message")
    stage.tekd.restart()
    told = stage.verify().of("confirm.unmatched")
    assert sum(r.get("count", 1) for r in told) == 50
    assert [r["reason"] for r in told] == ["unknown-message"] * len(told) and len(told) <= 21


# ---- answers that are failed attempts --------------------------------------------------------------

NOT = "not a confirmation"
FAILURES = {
    "500": "HTTP 500", "503": "HTTP 503", "404": "HTTP 404", "confirm-in-500": "HTTP 500",
    "confirm-in-202": "HTTP 202", "redirect": "HTTP 307", "html": NOT,
    "empty": "HTTP 200 without", "broken": NOT, "status-2": NOT, "half-full": NOT,
    "other-tag": NOT, "other-type": NOT, "doctype": NOT, "huge": "longer than 65536",
    "endless": "longer than|header line without end", "garbage": "not an HTTP answer",
    "reset": "connection", "close": "closed without an answer", "cut": "cut short",
    "hang": "time-out", "drip": "time-out",
}


def why(d):
    """What went wrong last, in words."""
    return d["last_error"]


@pytest.mark.parametrize("step", FAILURES)
def test_a_failed_attempt_is_tried_again(stage, bsa, content, step):
    bsa.listens()  # ends the connections that were kept: see below
    bsa.plays(step, "confirm")
    mid = deliver(stage, bsa, content)
    seen = {}

    def failed():
        seen.update(stage.show(mid))
        return seen["state"] == "prepared" and seen["attempts"] == 1 and why(seen)
    wait_until(failed, "the first attempt to fail")
    assert re.search(FAILURES[step], why(seen)), why(seen)
    d = stage.wait(mid)
    assert d["attempts"] == 2
    assert stage.events(mid) == ["prepared", "attempt", "attempt", "confirmed"]
    assert len({e["octets"] for e in bsa.received(mid)}) == 1


@pytest.mark.parametrize("step", ["reset", "close"])
def test_a_kept_connection_that_ends_under_a_request_is_no_failed_attempt(stage, bsa, content, step):
    """Its other end may have been given up for idle: the same request goes out on a new one."""
    stage.wait(deliver(stage, bsa, content))
    bsa.plays(step, "confirm")
    mid = deliver(stage, bsa, content)
    assert stage.wait(mid)["attempts"] == 1
    assert len(bsa.received(mid)) == 2
    assert stage.events(mid) == ["prepared", "attempt", "confirmed"]


def test_nobody_listens(stage, bsa, content):
    bsa.silent()
    mid = deliver(stage, bsa, content)
    wait_until(lambda: stage.show(mid)["attempts"] >= 2, "two attempts")
    assert "refused" in why(stage.show(mid))
    assert stage.tekd.ctl("delivery", "list", "--pending")[0]["message_id"] == mid
    bsa.listens()
    d = stage.wait(mid)
    assert stage.events(mid) == ["prepared"] + ["attempt"] * d["attempts"] + ["confirmed"]


def test_no_handshake_is_answered(stage, bsa, content):
    bsa.mute()
    mid = deliver(stage, bsa, content)
    wait_until(lambda: why(stage.show(mid)), "an attempt that failed")
    assert re.search("time-?out", why(stage.show(mid)))
    bsa.listens()
    stage.wait(mid)


# ---- whose server it is ----------------------------------------------------------------------------

SERVERS = {  # certificate, its folder, whether it is enrolled, what is wrong
    "another CA": ("p-other", "other-pki", True, "CA"),
    "another name": ("elsewhere", "pki", True, "name"),
    "not enrolled": ("stranger", "pki", False, "enrol"),
    "revoked": ("revoked", "pki", True, "revoked"),
    "expired": ("expired", "pki", True, "expired"),
}


@pytest.mark.parametrize("what", SERVERS)
def test_no_key_leaves_to_a_server_that_is_not_the_bsas(stage, bsa, content, what):
    cert, folder, enrolled, words = SERVERS[what]
    own = stage.tekd.path("pki", f"{bsa.name}.crt")
    if enrolled:
        stage.tekd.tekctl("bsa", "set", bsa.name, "--cert", own, "--cert",
                          stage.tekd.path(folder, f"{cert}.crt"))
    bsa.wears(cert, folder)
    try:
        mid = deliver(stage, bsa, content)
        wait_until(lambda: stage.show(mid)["attempts"] >= 2, "two attempts")
        assert re.search(words, why(stage.show(mid))), why(stage.show(mid))
        assert bsa.received(mid) == []
    finally:
        bsa.wears(bsa.name)
        stage.tekd.tekctl("bsa", "set", bsa.name, "--cert", own)
    stage.wait(mid)
    assert len(bsa.received(mid)) == 1


def test_the_next_certificate_serves_as_well(stage, bsa, content):
    own = stage.tekd.path("pki", f"{bsa.name}.crt")
    stage.tekd.tekctl("bsa", "set", bsa.name, "--cert", own, "--cert",
                      stage.tekd.path("pki", "stranger.crt"))
    bsa.wears("stranger")
    try:
        stage.wait(deliver(stage, bsa, content))
    finally:
        bsa.wears(bsa.name)
        stage.tekd.tekctl("bsa", "set", bsa.name, "--cert", own)


def test_the_push_clients_key_may_be_in_the_hsm(new_stage, content):
    """Every BSA of the fleet looks whose certificate it is that delivers."""
    stage = new_stage(["p-0", "p-1"], tls={"certificate": "pki/tekd-tls.crt",
                                           "key": "pkcs11:object=tekd-tls"})
    stage.fleet.tekd_cert = pki.fingerprint(stage.tekd.path("pki", "tekd-tls.crt"))
    stage.start()
    for i in range(3):
        for mid in stage.deliver(f"{content}-{i}"):
            stage.wait(mid)
        stage["p-1"].listens()  # its connection ends: the next one is another handshake
    assert [b.server.connections for b in stage.fleet] == [1, 3]
    assert not re.search("key-in-hsm|error", stage.tekd.log())
    stage.verify()


def test_files_that_requests_cannot_take_pushes_do_not_take_either(new_stage, content):
    """A certificate of another key than the HSM's."""
    stage = new_stage(["p-0"], tls={"certificate": "pki/tekd-tls.crt",
                                    "key": "pkcs11:object=tekd-tls"})
    stage.fleet.tekd_cert = pki.fingerprint(stage.tekd.path("pki", "tekd-tls.crt"))
    stage.start()
    stage.wait(*stage.deliver(content, "p-0"))
    shutil.copy(stage.tekd.path("pki", "tekd.crt"), stage.tekd.path("pki", "tekd-tls.crt"))
    stage.tekd.hup()
    assert "key-does-not-fit-certificate" in stage.tekd.log()
    stage["p-0"].listens()  # its connection ends: the next one is another handshake
    stage.wait(*stage.deliver(content + "-2", "p-0"))
    assert stage["p-0"].server.connections == 2
    assert "push event=reloaded" not in stage.tekd.log()
    stage.verify()


# ---- what is in flight when tekd goes --------------------------------------------------------------

@pytest.mark.smoke
def test_what_was_in_flight_at_a_crash_is_sent_again(new_stage, content):
    stage = new_stage(["p-0", "p-1", "p-2"]).start()
    stage["p-0"].plays("hang")
    stage["p-1"].plays("taken")
    stage["p-2"].silent()
    mids = stage.deliver(content, "p-0", "p-1", "p-2")
    wait_until(lambda: stage["p-0"].received(mids[0]) and stage["p-1"].received(mids[1]),
               "the deliveries")
    wait_until(lambda: stage.show(mids[2])["state"] == "prepared" and why(stage.show(mids[2])),
               "a failed attempt")
    stage.tekd.kill()
    stage["p-0"].plays("confirm")
    stage["p-1"].plays("confirm")
    stage["p-2"].listens()
    stage.tekd.start()
    for mid in mids:
        stage.wait(mid)
    log = stage.verify()
    for mid in mids[:2]:
        events = log.deliveries[mid].events()
        assert events.count("unknown") >= 1 and events[-2:] == ["attempt", "confirmed"], events
    # One that is known not to have left is not unknown.
    assert set(log.deliveries[mids[2]].events()) == {"prepared", "attempt", "confirmed"}


def test_deliveries_survive_a_restart(new_stage, content):
    stage = new_stage(["p-0"]).start()
    stage["p-0"].silent()
    mid, = stage.deliver(content, "p-0")
    stage.tekd.restart()
    stage["p-0"].listens()
    stage.wait(mid)
    came, = stage["p-0"].received(mid)
    assert came["octets"] == stage.verify().deliveries[mid].prepared["out"]


# ---- deadlines, operators --------------------------------------------------------------------------

def test_a_delivery_past_its_deadline_is_unconfirmed_and_a_late_confirmation_counts(
        new_stage, content):
    stage = new_stage(["p-0", "p-1"], push={"deadline_s": 6}).start()
    for bsa in stage.fleet:
        bsa.plays("taken")
    one, other = stage.deliver(content, "p-0", "p-1")
    for mid in (one, other):
        stage.wait(mid, "unconfirmed")
    assert "warn push event=deadline-near" in stage.tekd.log()
    m = given_to(stage["p-0"], one, content)
    assert stage["p-0"].confirm(m, 1) == 204
    assert stage.show(one)["state"] == "unconfirmed"  # Status 1 is only recorded
    assert stage["p-0"].confirm(m) == 204
    assert stage.show(one)["state"] == "confirmed"
    # Sent again, with time of its own, by an operator.
    stage["p-1"].plays("confirm")
    stage.tekd.tekctl("delivery", "retry", other)
    stage.wait(other)
    log = stage.verify()
    assert log.deliveries[one].events()[-3:] == ["unconfirmed", "rejected", "confirmed"]
    assert log.deliveries[one].confirmed["late"] is True
    assert log.deliveries[other].events()[-3:] == ["unconfirmed", "attempt", "confirmed"]
    assert len(stage["p-1"].received(other)) >= 2


def test_an_operator_abandons_and_retries(new_stage, content):
    stage = new_stage(["p-0", "p-1"], push={"retry_initial_s": 600, "retry_max_s": 600}).start()
    for bsa in stage.fleet:
        bsa.plays("500")
    one, other = stage.deliver(content, "p-0", "p-1")
    for mid in (one, other):
        wait_until(lambda m=mid: why(stage.show(m)), "an attempt that failed")
    stage.tekd.tekctl("delivery", "abandon", one, "--reason", "the encryptor is gone")
    assert stage.show(one)["state"] == "abandoned"
    stage["p-1"].plays("confirm")
    stage.tekd.tekctl("delivery", "retry", other)  # not in ten minutes
    stage.wait(other)
    for words in (("retry", one), ("retry", other), ("abandon", other, "--reason", "x"),
                  ("abandon", one, "--reason", "x"),
                  ("retry", "00000000-0000-7000-8000-000000000000"), ("show", "nonsense")):
        done = stage.tekd.tekctl("delivery", *words, check=False)
        assert done.returncode == 1 and done.stderr.startswith("tekctl: "), done
    assert stage["p-0"].confirm(given_to(stage["p-0"], one, content)) == 204
    assert stage.show(one)["state"] == "confirmed"
    log = stage.verify()
    abandoned = [r for r in log.deliveries[one].records if r["ev"] == "delivery.abandoned"]
    assert [r["reason"] for r in abandoned] == ["the encryptor is gone"]
    assert log.deliveries[one].confirmed["late"] is True
    assert len(stage["p-0"].received(one)) == 1


def test_deliveries_of_a_destroyed_key_are_abandoned(new_stage, content):
    stage = new_stage(["p-0", "p-1"]).start()
    stage["p-0"].silent()
    open_one, confirmed = stage.deliver(content, "p-0", "p-1")
    stage.wait(confirmed)
    key = stage.show(open_one)["key_id"]
    stage.tekd.tekctl("key", "destroy", key)
    assert stage.show(open_one)["state"] == "abandoned"
    assert stage.show(confirmed)["state"] == "confirmed"
    done = stage.tekd.tekctl("delivery", "retry", open_one, check=False)
    assert done.returncode == 1, done
    stage["p-0"].listens()
    log = stage.verify()
    last = log.deliveries[open_one].records[-1]
    assert (last["ev"], last["reason"]) == ("delivery.abandoned", "key-gone")
    assert stage["p-0"].received() == []


def test_nothing_goes_to_a_disabled_bsa(new_stage, content):
    stage = new_stage(["p-0", "p-1"]).start()
    bsa, other = stage["p-0"], stage["p-1"]
    for b in (bsa, other):
        b.plays("500")
    mid, others = stage.deliver(content, "p-0", "p-1")
    wait_until(lambda: len(bsa.received(mid)) >= 2, "two attempts")
    stage.tekd.tekctl("bsa", "disable", "p-0")
    bsa.plays("confirm")
    # The other one, whose back-off is the same, is tried again and again meanwhile.
    attempts, tried = len(bsa.received(mid)), len(other.received(others))
    wait_until(lambda: len(other.received(others)) >= tried + 3, "attempts at the other BSA")
    assert len(bsa.received(mid)) <= attempts + 1  # one may have been on its way
    attempts = len(bsa.received(mid))
    other.plays("confirm")
    stage.wait(others)
    # Another delivery to another BSA's name would be refused as well.
    done = stage.tekd.tekctl("deliver", content, "--bsa", "p-0", check=False)
    assert done.returncode == 1, done
    with stage.tekd.connect("p-0") as c:
        problem(c.request("GET", "/cp3/deliveries?wait=3"), 403)
    assert stage.show(mid)["state"] in ("prepared", "in-flight")
    assert len(bsa.received(mid)) == attempts
    stage.tekd.tekctl("bsa", "enable", "p-0")
    stage.wait(mid)
    assert len(bsa.received(mid)) <= attempts + 2
    stage.verify()


@pytest.mark.parametrize("names, words", [
    (["p-0", "nobody"], "nobody"), (["p-0", "p-1"], "p-1"), (["p-2", "p-0"], "p-2")])
def test_nothing_is_prepared_when_one_bsa_cannot_have_it(new_stage, content, names, words):
    stage = new_stage(["p-0", "p-1", "p-2"]).start()
    stage.tekd.tekctl("bsa", "set", "p-1", "--entitle", "urn:other:*")
    stage.tekd.tekctl("bsa", "disable", "p-2")
    options = [w for n in names for w in ("--bsa", n)]
    stage.add(content)
    done = stage.tekd.tekctl("deliver", content, *options, check=False)
    assert done.returncode == 1 and words in done.stderr and done.stdout == "", done
    assert stage.tekd.ctl("delivery", "list") == []
    assert stage.verify().deliveries == {}
    # Without names it goes to those that can.
    mids = stage.tekd.tekctl("deliver", content).stdout.split()
    assert [stage.wait(m)["bsa"] for m in mids] == ["p-0"]


def test_lists_and_history(new_stage, content):
    stage = new_stage(["p-0", "p-1"]).start()
    assert stage.tekd.ctl("delivery", "list") == []
    assert stage.tekd.ctl("delivery", "list", "--pending") == []
    stage["p-0"].plays("reject", "500", "confirm")
    stage["p-1"].plays("reject")
    one, other = stage.deliver(content, "p-0", "p-1")
    d = stage.wait(one)
    assert [d["message_id"] for d in stage.tekd.ctl("delivery", "list")] == [one, other]
    pending, = stage.tekd.ctl("delivery", "list", "--pending")
    assert (pending["message_id"], pending["bsa"]) == (other, "p-1")
    assert set(d) >= {"message_id", "bsa", "content_id", "key_id", "state", "attempts", "history"}
    told = [h["event"] for h in d["history"]]
    log = stage.verify()
    assert told == [r["ev"] for r in log.deliveries[one].records]
    assert log.deliveries[one].events() == \
        ["prepared", "attempt", "rejected", "attempt", "attempt", "confirmed"]
    text = stage.tekd.tekctl("delivery", "show", one).stdout
    assert one in text and "confirmed" in text
    assert other in stage.tekd.tekctl("delivery", "list", "--pending").stdout


# ---- rotation --------------------------------------------------------------------------------------

def test_a_rotation_goes_to_those_who_hold_the_content(new_stage, content):
    names = ["p-0", "p-1", "p-2", "p-4", "p-5", "p-6"]
    stage = new_stage(names).start()
    holders, other = names[:4], f"{content}-other"
    for mid in stage.deliver(content, *holders) + stage.deliver(other, "p-5"):
        stage.wait(mid)
    puller = stage["p-6"]  # who pulled holds it as well
    m = request("pulled", content, puller.name)
    with stage.tekd.connect(puller.name) as c:
        given(c.ask(m, puller.media), m, puller.peer, puller.media)
    stage.tekd.tekctl("bsa", "disable", "p-1")
    stage.tekd.tekctl("bsa", "set", "p-2", "--entitle", "urn:other:*")
    before = {d["message_id"] for d in stage.tekd.ctl("delivery", "list")}
    key = stage.tekd.tekctl("key", "rotate", content).stdout.split()[-1]

    def through():
        new = [d for d in stage.tekd.ctl("delivery", "list") if d["message_id"] not in before]
        return len(new) >= 3 and all(d["state"] == "confirmed" for d in new) and new
    new = wait_until(through, "the new TEK to be confirmed")
    assert sorted(d["bsa"] for d in new) == ["p-0", "p-4", "p-6"]
    assert {d["key_id"] for d in new} == {key}
    log = stage.verify()
    assert [log.deliveries[d["message_id"]].events() for d in new] == \
        [["prepared", "attempt", "confirmed"]] * 3
    assert len(log.deliveries) == len(before) + 3
