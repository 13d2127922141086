"""tek-bsa listen: repeated deliveries, restarts, kill -9, a full disk."""

import os

import pytest

from cp3py import client
from harness import hold
from harness.tekbsa import KILLED, records, written
from harness.procs import run

def test_a_repetition_is_confirmed_and_not_written_again(bsm, start_bsa, keys):
    bsa = start_bsa("listen", "--out", keys)
    first, _ = bsm.delivery(key_info=False)
    newer, tek = bsm.delivery(key_info=False)
    for m in (first, newer, first):
        assert bsm.push(bsa.port, m).status == 0
    # also in another encoding and at another time
    assert bsm.push(bsa.port, first.but(time="2027-01-01T00:00:00Z"), "json").status == 0
    assert [d["repeated"] for d in bsa.deliveries(4)] == [False, False, True, True]
    assert written(keys) == {"urn%3Ax%3Anews.tek": tek.hex() + "\n"}


@pytest.mark.parametrize("what", ["data", "content"])
def test_something_else_under_a_used_message_id_is_refused(bsm, start_bsa, keys, what):
    bsa = start_bsa("listen", "--out", keys)
    m, tek = bsm.delivery()
    assert bsm.push(bsa.port, m).status == 0
    other, _ = bsm.delivery(mid=m.mid, content="urn:x:other",
                            tek=tek if what == "content" else None)
    if what == "data":
        other = other.but(content=m.content)
        bsm.deliveries[m.mid] = (other, set())
    assert bsm.push(bsa.port, other).status == 1
    assert bsa.deliveries(2)[1]["failed_check"] == "repetition"
    assert list(written(keys).values()) == [tek.hex() + "\n"]
    bsm.deliveries[m.mid] = (m, {0})
    assert bsm.push(bsa.port, m).status == 0


@pytest.mark.parametrize("with_journal", [True, False])
def test_a_journal_outlives_the_program(bsm, start_bsa, keys, journal, with_journal):
    options = ["--out", keys] + (["--journal", journal] if with_journal else [])
    first, again, other = bsm.delivery()[0], bsm.delivery()[0], bsm.delivery()[0]
    bsa = start_bsa("listen", *options)
    for m in (first, again):
        assert bsm.push(bsa.port, m).status == 0
    assert bsa.stop() == 0
    bsa = start_bsa("listen", *options)
    # with another key under its MessageID, and as it was
    altered = bsm.ask(bsa.port, first.but(data=other.data)).message()
    assert altered.status == (1 if with_journal else 0)
    assert bsm.push(bsa.port, again).status == 0
    assert bsa.deliveries(2)[1]["repeated"] is with_journal
    if with_journal:
        assert records(journal) == [first.mid, again.mid]


def test_a_journal_and_a_folder_have_one_program(bsm, start_bsa, keys, journal):
    start_bsa("listen", "--out", keys, "--journal", journal).wait_printed("listening")
    second = start_bsa("listen", "--journal", journal)
    assert second.wait() == 1
    assert second.said() == f"tek-bsa: --journal {journal}: another tek-bsa has it"
    third = start_bsa("listen", "--out", keys)
    assert third.wait() == 1
    assert third.said() == f"tek-bsa: --out {keys}: another tek-bsa writes there"


# ---- kill -9 -------------------------------------------------------------------------------------

def push_into_a_hold(bsm, bsa, m, held, n):
    """Pushes; the n-th sync of it is held; tek-bsa is killed there.  No answer came."""
    held.arm(hold.SYNC, n)
    c = bsm.connect(bsa.port)
    c.send_message(m)
    held.wait_held(hold.SYNC)
    assert not c.wait_octet(0), "an answer before it was on the disk"
    bsa.kill()
    with pytest.raises((client.HttpError, OSError)):
        c.read_response()
    c.close()
    held.release(hold.SYNC)


@pytest.mark.parametrize("n", sorted(KILLED))
def test_killed_between_write_and_confirmation(bsm, start_bsa, keys, journal, held, n):
    has_key, has_record, repeated = KILLED[n]
    options = ("--out", keys, "--journal", journal)
    bsa = start_bsa("listen", *options, env=held.env)
    bsa.wait_printed("listening")
    m, tek = bsm.delivery()
    push_into_a_hold(bsm, bsa, m, held, n)
    name = f"urn%3Ax%3Anews.{m.key_info['keyID']}.tek"
    assert (name in os.listdir(keys)) is has_key
    assert (records(journal) == [m.mid]) is has_record
    bsa = start_bsa("listen", *options)
    bsa.wait_printed("listening")
    if not has_key:
        assert os.listdir(keys) == []  # what was half written is gone
    assert bsm.push(bsa.port, m).status == 0
    assert bsa.deliveries(1)[0]["repeated"] is repeated
    assert written(keys) == {name: tek.hex() + "\n"} and records(journal) == [m.mid]


def test_killed_before_the_confirmation_left(bsm, start_bsa, keys, journal):
    bsa = start_bsa("listen", "--out", keys, "--journal", journal, "--delay", 600000)
    m, tek = bsm.delivery()
    with bsm.connect(bsa.port) as c:
        c.send_message(m)
        bsa.wait_printed("delivery")
        bsa.kill()
        with pytest.raises((client.HttpError, OSError)):
            c.read_response()
    bsa = start_bsa("listen", "--out", keys, "--journal", journal)
    assert bsm.push(bsa.port, m).status == 0
    assert bsa.deliveries(1)[0]["repeated"] is True
    assert list(written(keys).values()) == [tek.hex() + "\n"]


def test_a_disk_that_is_full_is_no_success(bsm, start_bsa, keys, journal):
    """Files may have 20 octets: no key fits."""
    bsa = start_bsa("listen", "--out", keys, "--journal", journal, "--count", 1)
    bsa.wait_printed("listening")
    run(["prlimit", "--pid", bsa.process.pid, "--fsize=20"])
    m, _ = bsm.delivery()
    assert bsm.push(bsa.port, m).status == 1
    assert bsa.wait() == 1
    assert (bsa.deliveries(1)[0]["failed_check"], bsa.deliveries(1)[0]["found"]) == \
        ("out", "File too large")
    assert os.listdir(keys) == [] and records(journal) == []
