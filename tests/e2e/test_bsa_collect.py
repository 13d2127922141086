"""tek-bsa collect: deliveries that wait at a BSM."""

import os
import re
import signal
import threading

import pytest

from harness import hold
from harness.tekbsa import KILLED, records, written
from harness.bsm import WRONG
from harness.procs import wait_until

def put(bsm, m, media="xml"):
    bsm.collectable.append((m.encode(media), media))


@pytest.mark.smoke
@pytest.mark.parametrize("media", ["xml", "json"])
@pytest.mark.parametrize("form", ["full", "efficient"])
def test_collect_takes_what_waits(bsm, start_bsa, keys, media, form):
    bsm.start()
    sent = [bsm.delivery() for _ in range(3)]
    for m, _ in sent:
        put(bsm, m, media)
    bsa = start_bsa("collect", "--url", bsm.url, "--form", form, "--out", keys, "--wait", 0)
    assert bsa.wait() == 0 and bsa.said() == ""
    assert [(c.mid, c.status, c.form, status) for c, status in bsm.confirmations] == \
        [(m.mid, 0, form, 204) for m, _ in sent]
    assert sorted(written(keys).values()) == sorted(tek.hex() + "\n" for _, tek in sent)
    assert [(d["message_id"], d["accepted"]) for d in bsa.deliveries()] == \
        [(m.mid, 204) for m, _ in sent]
    assert [query for _, query in bsm.gets] == [{"wait": ["0"]}] * 4


def test_collect_waits_for_the_next(bsm, start_bsa):
    bsm.start()
    bsa = start_bsa("collect", "--url", bsm.url, "--once", "--wait", 60)
    wait_until(lambda: bsm.gets, "the question")
    put(bsm, bsm.delivery()[0])
    assert bsa.wait() == 0
    assert [query for _, query in bsm.gets] == [{"wait": ["60"]}]


def test_collect_does_not_hammer_a_server_that_does_not_wait(bsm, start_bsa):
    bsm.start()
    bsm.answers = [(204,)] * 3
    bsa = start_bsa("collect", "--url", bsm.url, "--wait", 30)
    wait_until(lambda: len(bsm.gets) == 3, "three questions")
    times = [t for t, _ in bsm.gets]
    assert times[1] - times[0] > 0.9 and times[2] - times[1] > 0.9
    assert bsa.stop() == 0


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_collect_refuses_what_is_wrong_and_goes_on(bsm, start_bsa, keys, wrong):
    change, check, expected, found = WRONG[wrong]
    bsm.start()
    bad, good = change(bsm.delivery()[0]), bsm.delivery()[0]
    bsm.deliveries[bad.mid] = (bad, set())
    put(bsm, bad)
    put(bsm, good)
    bsa = start_bsa("collect", "--url", bsm.url, "--count", 2, "--out", keys)
    assert bsa.wait() == 1
    assert [(c.mid, c.status, status) for c, status in bsm.confirmations] == \
        [(bad.mid, 1, 204), (good.mid, 0, 204)]
    assert bsa.said() == f"tek-bsa: {check}: expected {expected}, found {found}"
    assert len(written(keys)) == 1


def test_collect_confirms_nothing_that_it_cannot_read(bsm, start_bsa):
    bsm.start()
    m, _ = bsm.delivery()
    bsm.collectable += [(b"<KeyDelivery/>", "xml"), (m.encode("xml"), "text/plain")]
    put(bsm, m)
    bsa = start_bsa("collect", "--url", bsm.url, "--count", 3)
    assert bsa.wait() == 1
    assert [d.get("failed_check") for d in bsa.deliveries()] == ["message", "media type", None]
    assert [(c.mid, status) for c, status in bsm.confirmations] == [(m.mid, 204)]


def test_collect_says_why_a_confirmation_was_not_taken(bsm, start_bsa):
    bsm.start()
    m, _ = bsm.delivery()
    del bsm.deliveries[m.mid]
    put(bsm, m)
    bsa = start_bsa("collect", "--url", bsm.url, "--once")
    assert bsa.wait() == 1
    assert "expected 204, found 409" in bsa.said()
    assert bsa.said().endswith("; CP3-Reason: unknown-message")
    assert (bsa.deliveries(1)[0]["accepted"], bsa.deliveries(1)[0]["reason"]) == \
        (409, "unknown-message")


ANSWERS = {
    "403": ([(403, (), b"{}")], 1, "HTTP status: expected 200, found 403 {}"),
    "404": ([(404,)], 1, "HTTP status: expected 200, found 404"),
    "503": ([(503, [("CP3-Reason", "busy")])], 3,
            "HTTP status: expected 200, found 503; CP3-Reason: busy"),
    "302": ([(302, [("Location", "/cp3")])], 1, "HTTP status: expected 200, found 302"),
}


@pytest.mark.parametrize("answer", sorted(ANSWERS))
def test_collect_ends_when_the_server_gives_none(bsm, start_bsa, answer):
    bsm.start()
    bsm.answers, status, said = ANSWERS[answer]
    bsm.answers = list(bsm.answers)
    bsa = start_bsa("collect", "--url", bsm.url)
    assert bsa.wait() == status
    assert bsa.said() == f"tek-bsa: {said}"
    assert len(bsm.gets) == 1


def test_collect_with_nobody_there(bsm, start_bsa):
    bsm.start()
    url = bsm.url
    bsm.stop()
    bsa = start_bsa("collect", "--url", url)
    assert bsa.wait() == 3
    assert bsa.said().startswith(f"tek-bsa: HTTPS: expected an answer from {url}/deliveries")


def test_collect_when_the_server_goes_before_the_confirmation(bsm, start_bsa, journal):
    bsm.start()
    m, _ = bsm.delivery()
    put(bsm, m)
    bsm.hold = threading.Event()
    bsa = start_bsa("collect", "--url", bsm.url, "--journal", journal, "--timeout", 1)
    assert bsa.wait() == 3
    assert "Confirmation: expected an answer from" in bsa.said()
    # it was remembered, so that it is confirmed when it comes again
    bsm.hold.set()
    put(bsm, m)
    bsa = start_bsa("collect", "--url", bsm.url, "--journal", journal, "--once")
    assert bsa.wait() == 0
    assert bsa.deliveries(1)[0]["repeated"] is True and bsm.confirmed(m) == {0}


def test_collect_speaks_to_the_right_server_only(bsm, start_bsa):
    bsm.start(folder="other-pki")
    put(bsm, bsm.delivery()[0])
    bsa = start_bsa("collect", "--url", bsm.url)
    assert bsa.wait() == 1
    assert bsm.gets == []


def test_collect_as_a_stranger(bsm, start_bsa):
    bsm.start()
    put(bsm, bsm.delivery()[0])
    bsa = start_bsa("collect", "--url", bsm.url, pki="other-pki")
    assert bsa.wait() in (1, 3)  # TLS 1.3: the alert, or a connection that is cut
    assert bsm.gets == [] and re.search("unknown ca|certificate", bsa.said())


@pytest.mark.parametrize("n", sorted(KILLED))
def test_collect_killed_between_write_and_confirmation(bsm, start_bsa, keys, journal, held, n):
    has_key, has_record, repeated = KILLED[n]
    bsm.start()
    options = ("--url", bsm.url, "--out", keys, "--journal", journal)
    bsa = start_bsa("collect", *options, env=held.env)
    wait_until(lambda: bsm.gets, "the question")
    held.arm(hold.SYNC, n)
    m, tek = bsm.delivery()
    put(bsm, m)
    held.wait_held(hold.SYNC)
    assert bsm.posts == 0, "a confirmation before it was on the disk"
    bsa.kill()
    held.release(hold.SYNC)
    name = f"urn%3Ax%3Anews.{m.key_info['keyID']}.tek"
    assert (name in os.listdir(keys)) is has_key
    assert (records(journal) == [m.mid]) is has_record
    put(bsm, m)
    bsa = start_bsa("collect", *options, "--once")
    assert bsa.wait() == 0
    assert bsa.deliveries(1)[0]["repeated"] is repeated
    assert written(keys) == {name: tek.hex() + "\n"} and records(journal) == [m.mid]
    assert bsm.confirmed(m) == {0}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_collect_that_waits(bsm, start_bsa, number):
    bsm.start()
    bsa = start_bsa("collect", "--url", bsm.url, "--wait", 60)
    wait_until(lambda: bsm.gets, "the question")
    assert bsa.stop(number) == 0
    assert bsa.said() == ""
