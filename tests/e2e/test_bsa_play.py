"""tek-bsa listen as a BSA that refuses, is slow, goes away, or confirms later."""

import threading
import time

import pytest

from cp3py import client
from harness.tekbsa import records, written
from harness.procs import wait_until

def test_status_1_takes_nothing(bsm, start_bsa, keys, journal):
    bsa = start_bsa("listen", "--status", 1, "--out", keys, "--journal", journal, "--once")
    m, tek = bsm.delivery()
    assert bsm.push(bsa.port, m).status == 1
    assert bsa.wait() == 0 and bsa.said() == ""
    assert written(keys) == {} and records(journal) == []
    bsa = start_bsa("listen", "--out", keys, "--journal", journal)
    assert bsm.push(bsa.port, m).status == 0
    assert list(written(keys).values()) == [tek.hex() + "\n"]
    assert bsm.confirmed(m) == {0, 1}


def test_delay_keeps_the_answer_back(bsm, start_bsa):
    bsa = start_bsa("listen", "--delay", 700)
    port = bsa.port
    begin = time.monotonic()
    assert bsm.push(port, bsm.delivery()[0]).status == 0
    assert time.monotonic() - begin >= 0.7


@pytest.mark.parametrize("n", [1, 3])
def test_drop_takes_the_first_and_answers_nothing(bsm, start_bsa, keys, n):
    bsa = start_bsa("listen", "--drop", n, "--out", keys, "--count", 1)
    port = bsa.port
    m, tek = bsm.delivery()
    for _ in range(n):
        with bsm.connect(port) as c, pytest.raises((client.HttpError, OSError)):
            c.ask(m)
    # what was lost is the confirmation only
    assert list(written(keys).values()) == [tek.hex() + "\n"]
    assert bsm.push(port, m).status == 0
    assert bsa.wait() == 0
    assert [d.get("dropped", False) for d in bsa.deliveries()] == [True] * n + [False]
    assert [d["repeated"] for d in bsa.deliveries()] == [False] + [True] * n


def test_drop_all(bsm, start_bsa):
    bsa = start_bsa("listen", "--drop", "all")
    port = bsa.port
    for _ in range(3):
        with bsm.connect(port) as c, pytest.raises((client.HttpError, OSError)):
            c.ask(bsm.delivery()[0])
    assert bsa.stop() == 0
    assert all(d["dropped"] and "answer" not in d for d in bsa.deliveries())


# ---- late confirmations --------------------------------------------------------------------------

@pytest.mark.smoke
@pytest.mark.parametrize("media", ["xml", "json"])
@pytest.mark.parametrize("form", ["full", "efficient"])
def test_late_confirmations(bsm, start_bsa, media, form):
    bsm.start()
    bsa = start_bsa("listen", "--late", bsm.url, "--form", form, "--count", 2)
    sent = [bsm.delivery()[0] for _ in range(2)]
    for m in sent:
        r = bsm.ask(bsa.port, m, media)
        assert (r.status, r.body) == (202, b"")
    assert bsa.wait() == 0
    assert [(c.mid, c.status, c.form, status) for c, status in bsm.confirmations] == \
        [(m.mid, 0, form, 204) for m in sent]
    assert [d["answer"] for d in bsa.deliveries()] == [202, 202]
    assert [(d["message_id"], d["accepted"]) for d in bsa.printed if d["event"] == "confirmation"] \
        == [(m.mid, 204) for m in sent]


def test_a_late_confirmation_that_is_refused(bsm, start_bsa):
    bsm.start()
    bsa = start_bsa("listen", "--late", bsm.url, "--once")
    m, _ = bsm.delivery()
    del bsm.deliveries[m.mid]
    assert bsm.ask(bsa.port, m).status == 202
    assert bsa.wait() == 1
    assert bsa.said() == ("tek-bsa: Confirmation: expected 204, found 409 "
                          '{"title": "no such delivery", "status": 409}; '
                          "CP3-Reason: unknown-message")
    assert bsa.wait_printed("confirmation")["reason"] == "unknown-message"


def test_a_late_confirmation_that_nobody_takes(bsm, start_bsa):
    bsm.start()
    url = bsm.url
    bsm.stop()
    bsa = start_bsa("listen", "--late", url, "--once")
    assert bsm.ask(bsa.port, bsm.delivery()[0]).status == 202
    assert bsa.wait() == 1
    assert bsa.said().startswith(f"tek-bsa: Confirmation: expected an answer from {url}, found ")


def test_a_late_confirmation_goes_to_the_right_server_only(bsm, start_bsa):
    bsm.start(folder="other-pki")
    bsa = start_bsa("listen", "--late", bsm.url, "--once")
    assert bsm.ask(bsa.port, bsm.delivery()[0]).status == 202
    assert bsa.wait() == 1
    assert bsm.posts == 0 and "certificate" in bsa.said()


def test_pushes_go_on_while_a_late_confirmation_waits(bsm, start_bsa):
    bsm.start()
    bsm.hold = threading.Event()
    bsa = start_bsa("listen", "--late", bsm.url, "--count", 5)
    for _ in range(5):
        assert bsm.ask(bsa.port, bsm.delivery()[0]).status == 202
    wait_until(lambda: bsm.posts == 1, "the first confirmation")
    assert bsa.process.poll() is None and len(bsa.deliveries(5)) == 5
    bsm.hold.set()
    assert bsa.wait() == 0
    assert [status for _, status in bsm.confirmations] == [204] * 5



def test_a_signal_ends_late_confirmations(bsm, start_bsa):
    bsm.start()
    bsm.hold = threading.Event()
    bsa = start_bsa("listen", "--late", bsm.url)
    for _ in range(2):
        assert bsm.ask(bsa.port, bsm.delivery()[0]).status == 202
    wait_until(lambda: bsm.posts == 1, "the first confirmation")
    assert bsa.stop() == 0
    assert bsa.said() == ""
