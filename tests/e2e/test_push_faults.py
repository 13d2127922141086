"""Bad BSAs among good ones: no good one notices, and when the bad ones are healed all is confirmed.

Each BSA gets the same number of deliveries in two runs on the same server: first all are good, then
half of them are bad in ways of their own and are healed at the end.
"""

from datetime import datetime

import pytest

from harness.procs import wait_until

CONTENTS = 20
BAD = {  # BSA -> what it plays, or what its server does
    "p-1": ["hang"],
    "p-3": ["500", "reset", "html"],
    "p-5": ["huge", "endless", "drip"],
    "p-7": ["taken", "reject", "wrong-mid", "status-2"],
    "p-9": None,  # wears a certificate that is nobody's
}


def micros(record):
    return int(datetime.strptime(record["t"], "%Y-%m-%dT%H:%M:%S.%fZ").timestamp() * 1e6)


def seconds_to_confirmation(log, mids, names):
    """Of each delivery to these BSAs, rising."""
    found = [log.deliveries[m] for m in mids]
    return sorted((micros(d.confirmed) - micros(d.prepared)) / 1e6 for d in found
                  if d.peer in names)


def p99(values):
    return values[min(len(values) - 1, len(values) * 99 // 100)]


def deliver_all(stage, label, is_through):
    """CONTENTS contents to all BSAs; the MessageIDs, when those that are looked at are through."""
    mids = [m for i in range(CONTENTS) for m in stage.deliver(f"urn:faults:{label}:{i}")]
    wait_until(lambda: is_through(stage.tekd.ctl("delivery", "list", "--pending")),
               "the deliveries to be confirmed", 120)
    return mids


def misbehave(stage):
    for name, plays in BAD.items():
        if plays:
            stage[name].plays(*plays)
        else:
            stage[name].wears("stranger")


def heal(stage):
    for name, plays in BAD.items():
        if plays:
            stage[name].plays("confirm")
        else:
            stage[name].wears(name)


def check_all_confirmed_once(stage, log, mids):
    journal = stage.fleet.journal.lines(what="received")
    for mid in mids:
        d = log.deliveries[mid]
        assert d.state == "confirmed" and d.events().count("confirmed") == 1, d.events()
        came = [e for e in journal if e["mid"] == mid]
        assert {(e["bsa"], e["octets"]) for e in came} == {(d.peer, d.prepared["out"])}


@pytest.mark.smoke
def test_bad_bsas_are_noticed_by_nobody_else_and_catch_up_when_healed(new_stage, tell):
    stage = new_stage(push={"retry_max_s": 2}).start()
    good = set(stage.fleet.bsas) - set(BAD)
    undisturbed = deliver_all(stage, "good", lambda pending: pending == [])
    misbehave(stage)
    mids = deliver_all(stage, "bad", lambda pending: not good & {d["bsa"] for d in pending})
    pending = stage.tekd.ctl("delivery", "list", "--pending")
    assert {d["bsa"] for d in pending} == set(BAD), "somebody bad confirmed"
    heal(stage)
    stage.wait_all(120)
    log = stage.verify()
    check_all_confirmed_once(stage, log, undisturbed + mids)
    before = seconds_to_confirmation(log, undisturbed, good)
    during = seconds_to_confirmation(log, mids, good)
    tell(f"good BSAs, prepared to confirmed: p99 {p99(before):.3f} s undisturbed, "
         f"{p99(during):.3f} s beside bad ones; worst {before[-1]:.3f} and {during[-1]:.3f} s")
    # Each at the first attempt, and none waited for a bad one's: those take seconds to time out.
    for mid in undisturbed + [m for m in mids if log.deliveries[m].peer in good]:
        assert log.deliveries[mid].events() == ["prepared", "attempt", "confirmed"]
    assert during[-1] < stage.tekd.settings["push"]["attempt_timeout_s"]


def test_a_bsa_that_hangs_holds_its_own_lane_only_while_it_hangs(new_stage):
    """One delivery under way while it fails, and all of them soon after it is well."""
    stage = new_stage(["p-0"], push={"retry_max_s": 1}).start()
    bsa = stage["p-0"]
    bsa.plays("hang")
    mids = [m for i in range(10) for m in stage.deliver(f"urn:lane:{i}")]
    wait_until(lambda: any(len(bsa.received(m)) > 1 for m in mids), "a second attempt")
    bsa.plays("confirm")
    stage.wait_all()
    check_all_confirmed_once(stage, stage.verify(), mids)
