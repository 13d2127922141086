"""The life of a BSA's KEK: replaced, kept, retired; what is given before, after and meanwhile."""

import dataclasses
import getpass
import os

import pytest

from cp3py.messages import request
from cp3py.unwrap import unwrap
from harness.answers import given, refused
from harness.load import Load
from harness.procs import run, wait_until
from harness.programs import program

FIRST, SECOND, THIRD = "spare-aes-kw-1", "spare-aes-kw-2", "spare-aes-kwp-1"


def with_kek(tekd, label):
    """bsa-1 as it is with that KEK."""
    wrap, kek = tekd.template.spare[label]
    return dataclasses.replace(tekd.template.bsas["bsa-1"], kek_label=label, wrap=wrap, kek=kek)


def give(tekd, label, *more):
    tekd.tekctl("bsa", "set", "bsa-1", "--kek", label, "--wrap", tekd.template.spare[label][0],
                *more)
    return with_kek(tekd, label)


def ask(tekd, m, bsa, media="xml"):
    with tekd.connect(bsa.name) as c:
        return given(c.ask(m, media), m, bsa, media)


def gone(tekd, *messages):
    with tekd.connect() as c:
        for m in messages:
            refused(c.ask(m), m, "key-gone")


def clear(bsa, answer):
    return unwrap(bsa.wrap, bsa.kek, answer.data)


def keks(tekd):
    """[(kekID, state, label)] as bsa show has it."""
    return [(k["kek_id"], k["state"], k["label"]) for k in tekd.ctl("bsa", "show", "bsa-1")["keks"]]


def audited(tekd):
    """The log, verified by the tests and by tek-audit."""
    run([program("tek-audit"), "verify", tekd.export(), "--key", tekd.path("checkpoint.pem"),
         "--first"])
    return tekd.audit()


def failing(tekd, *words):
    done = tekd.tekctl(*words, check=False)
    assert done.returncode == 1 and done.stdout == "", done
    return done.stderr


# ---- one after the other ---------------------------------------------------------------------------

@pytest.mark.smoke
def test_another_kek_retires_the_one_before_it(tekd, mid, content):
    old = tekd.template.bsas["bsa-1"]
    m, later = request(mid, content, "bsa-1"), request(f"{mid}-2", content, "bsa-1")
    of_another = request(mid, content, "bsa-2")
    first = ask(tekd, m, old)
    assert ask(tekd, m, old).data == first.data
    second = ask(tekd, of_another, tekd.template.bsas["bsa-2"])
    new = give(tekd, FIRST)

    def holds():
        gone(tekd, m, m.but(version=1))
        with tekd.connect() as c:
            refused(c.ask(m.but(content="other")), m.but(content="other"), "duplicate-message-id")
        answer = ask(tekd, later, new)
        assert answer.key_info["kekID"] == "bsa-1/2"
        assert clear(new, answer) == clear(old, first)
        assert ask(tekd, of_another, tekd.template.bsas["bsa-2"]).data == second.data

    holds()
    tekd.restart()
    holds()
    tekd.kill()
    tekd.start()
    holds()
    log = audited(tekd)
    added = [r for r in log.of("kek.added") if r["kekid"].startswith("bsa-1/")]
    retired, = log.of("kek.retired")
    assert [(r["kekid"], r["label"]) for r in added] == \
        [("bsa-1/1", "bsa-1-kek"), ("bsa-1/2", FIRST)]
    assert retired["kekid"] == "bsa-1/1" and retired["seq"] == added[1]["seq"] + 1
    for r in (added[1], retired):
        assert (r["actor"], r["uid"]) == (getpass.getuser(), os.getuid())
    assert keks(tekd) == [("bsa-1/1", "retired", "bsa-1-kek"), ("bsa-1/2", "current", FIRST)]


@pytest.mark.smoke
def test_kek_that_is_kept_answers_repeats_until_it_is_retired(tekd, mid, content):
    old = tekd.template.bsas["bsa-1"]
    m, later = request(mid, content, "bsa-1"), request(f"{mid}-2", content, "bsa-1")
    with tekd.connect() as c:
        first = c.ask(m)
    given(first, m, old)
    new = give(tekd, THIRD, "--keep-old-kek")  # of another wrap, too
    for _ in range(2):
        with tekd.connect() as c:
            assert c.ask(m).body == first.body
        answer = ask(tekd, later, new)
        assert (answer.key_info["kekID"], len(clear(new, answer))) == ("bsa-1/2", 16)
        assert keks(tekd) == [("bsa-1/1", "kept", "bsa-1-kek"), ("bsa-1/2", "current", THIRD)]
        tekd.restart()
    tekd.tekctl("bsa", "retire-kek", "bsa-1", "bsa-1/1")
    for _ in range(2):
        gone(tekd, m)
        assert ask(tekd, later, new).data == answer.data
        assert keks(tekd)[0] == ("bsa-1/1", "retired", "bsa-1-kek")
        tekd.restart()
    log = audited(tekd)
    retired, = log.of("kek.retired")
    assert (retired["kekid"], retired["actor"], retired["uid"]) == \
        ("bsa-1/1", getpass.getuser(), os.getuid())


def test_show_says_what_the_log_says(tekd):
    give(tekd, FIRST)
    give(tekd, SECOND, "--keep-old-kek")
    log = audited(tekd)
    shown = tekd.ctl("bsa", "show", "bsa-1")
    assert [k["state"] for k in shown["keks"]] == ["retired", "kept", "current"]
    assert shown["kek"] == shown["keks"][2]
    recorded = {r["kekid"]: r for r in log.of("kek.added")}
    for k in shown["keks"]:
        r = recorded[k["kek_id"]]
        assert (k["label"], k["wrap"], k["fingerprint"], k["imported"], k["added"]) == \
            (r["label"], r["wrap"], r["fp"], r["imported"], r["t"])
    tekd.restart()
    assert tekd.ctl("bsa", "show", "bsa-1") == shown


def test_what_cannot_be_retired_or_taken(tekd, mid, content):
    old = tekd.template.bsas["bsa-1"]
    m = request(mid, content, "bsa-1")
    first = ask(tekd, m, old)
    start = len(tekd.audit().records)
    assert "bsa set bsa-1 --kek LABEL" in failing(tekd, "bsa", "retire-kek", "bsa-1", "bsa-1/1")
    for kek in ("bsa-1/2", "bsa-2/1", "storage/1", "bsa-1", ""):
        assert "has no KEK" in failing(tekd, "bsa", "retire-kek", "bsa-1", kek)
    assert "no such BSA" in failing(tekd, "bsa", "retire-kek", "bsa-9", "bsa-1/1")
    assert "without a new one" in failing(tekd, "bsa", "set", "bsa-1", "--keep-old-kek")
    for label in ("bsa-2-kek", "tekd-storage", "no-such-kek", THIRD):  # THIRD is for another wrap
        failing(tekd, "bsa", "set", "bsa-1", "--kek", label)
    assert ask(tekd, m, old).data == first.data
    assert {r["ev"] for r in tekd.audit().records[start:]} <= \
        {"admin.action", "request.repeated", "answer.sent", "log.heartbeat"}
    give(tekd, FIRST)
    assert "retired already" in failing(tekd, "bsa", "retire-kek", "bsa-1", "bsa-1/1")
    assert "never taken again" in failing(tekd, "bsa", "set", "bsa-1", "--kek", "bsa-1-kek")
    gone(tekd, m)
    audited(tekd)


def test_disabled_bsa_without_a_kek_needs_another_one(tekd, mid, content):
    old = tekd.template.bsas["bsa-1"]
    m = request(mid, content, "bsa-1")
    ask(tekd, m, old)
    tekd.tekctl("bsa", "disable", "bsa-1")
    tekd.tekctl("bsa", "retire-kek", "bsa-1", "bsa-1/1")
    tekd.restart()
    assert tekd.ctl("bsa", "show", "bsa-1")["kek"] is None
    assert "bsa-1 " in tekd.tekctl("bsa", "list").stdout
    assert "its KEK is retired" in failing(tekd, "bsa", "enable", "bsa-1")
    with tekd.connect() as c:
        assert c.ask(m).status == 403
    new = give(tekd, FIRST)
    tekd.tekctl("bsa", "enable", "bsa-1")
    gone(tekd, m)
    ask(tekd, m.but(mid=f"{mid}-2"), new)
    audited(tekd)


# ---- meanwhile -------------------------------------------------------------------------------------

CLIENTS = 32


class Changes(Load):
    """Clients that ask under a new Message ID, and one of the last ones again, in turn: half of
    them for new contents, which takes them to the HSM, the others for known ones."""

    def __init__(self, tekd, content):
        super().__init__(tekd, CLIENTS, self.request)
        self.content = content

    def request(self, i, n):
        number = n // 2 if n % 2 == 0 else max(0, n // 2 - 3)
        name = f"{i}-{number}" if i % 2 else number % 4
        return request(f"k-{i}-{number}", f"{self.content}-{name}", "bsa-1"), "xml"

    def under_way_while(self, command):
        """Runs it with all clients waiting for an answer; how many requests each had sent then."""
        before = len(self.answered)
        wait_until(lambda: len(self.answered) > before + 300, "answers", 60)
        wait_until(lambda: self.in_flight() == CLIENTS, "requests under way")
        command()
        return list(self.asked)


@pytest.mark.tsan
def test_32_requests_under_way_while_the_kek_changes(tekd, content):
    """Every answer is under a KEK that was not retired before its record; none that was asked for
    after the command gives the old one."""
    versions = {1: tekd.template.bsas["bsa-1"], 2: with_kek(tekd, FIRST),
                3: with_kek(tekd, SECOND), 4: with_kek(tekd, THIRD)}
    load = Changes(tekd, content).start()
    until = {1: load.under_way_while(lambda: give(tekd, FIRST))}
    load.under_way_while(lambda: give(tekd, SECOND, "--keep-old-kek"))
    until[2] = load.under_way_while(lambda: tekd.tekctl("bsa", "retire-kek", "bsa-1", "bsa-1/2"))
    until[3] = load.under_way_while(lambda: give(tekd, THIRD))
    load.under_way_while(lambda: None)
    load.stop()
    assert not load.errors
    log = audited(tekd)
    retired = {int(r["kekid"].split("/")[1]): r["seq"] for r in log.of("kek.retired")}
    assert set(retired) == {1, 2, 3}
    sent = {r["mid"] for r in log.of("answer.sent")}
    count, teks, data, gone_keys, seen = [0] * CLIENTS, {}, {}, 0, set()
    for i, m, _, r in load.answered:
        n, count[i] = count[i], count[i] + 1
        record = log.ledger["bsa-1", m.mid]
        version = int(record["kekid"].split("/")[1])
        if r.header("cp3-reason"):
            refused(r, m, "key-gone")
            assert version in retired
            # A first request is refused only where its answer was recorded and had not left.
            assert n % 2 == 1 or m.mid not in sent
            gone_keys += 1
            continue
        answer = given(r, m, versions[version])
        assert answer.key_info["kekID"] == record["kekid"]
        assert record["seq"] < retired.get(version, len(log.records))
        assert version not in until or n < until[version][i]
        assert data.setdefault(m.mid, answer.data) == answer.data
        tek = clear(versions[version], answer)
        assert teks.setdefault(m.content, tek) == tek
        seen.add(version)
    assert seen == {1, 2, 3, 4} and gone_keys > 0 and len(set(teks.values())) == len(teks)
