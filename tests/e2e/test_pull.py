"""The pull case: which TEK, for whom, under which Message ID; and what is recorded of it."""

import shutil
import ssl
import time
from collections import Counter
from hashlib import sha256

import pytest

from cp3py import client
from cp3py.client import HttpError
from cp3py.messages import request
from harness import pki
from harness.answers import checked, given, problem, refused
from harness.load import Load, together
from harness.procs import wait_until


def stored(answer):
    """What a repeat has to give again, whatever the media type and form."""
    return answer.data, answer.key_info, answer.time


def ask(tekd, m, media="xml", bsa=None, cert=None):
    """One request on a connection of its own; the message of the answer, which gives a key."""
    bsa = bsa or tekd.template.bsas[m.source]
    with tekd.connect(cert or bsa.name) as c:
        return given(c.ask(m, media), m, bsa, media)


# ---- the same Message ID ---------------------------------------------------------------------------

@pytest.mark.smoke
def test_repeat_gives_the_same_also_after_restart_and_kill(tekd, mid, content):
    m = request(mid, content, "bsa-1")
    first = ask(tekd, m)
    again = [
        m,
        m.but(version=1),
        m.but(time="2026-01-01T00:00:00Z"),
        m.but(time="3976214400"),
    ]

    def all_the_same():
        for repeat in again:
            for media in ("xml", "json"):
                assert stored(ask(tekd, repeat, media)) == stored(first)

    all_the_same()
    tekd.restart()
    all_the_same()
    tekd.kill()
    tekd.start()
    all_the_same()
    log = tekd.audit()
    assert len(log.ledger) == 1
    assert len(log.of("tek.generated")) == 1
    repeats = log.of("request.repeated")
    assert {(r["mid"], r["peer"]) for r in repeats} == {(mid, "bsa-1")}
    assert {r["ref"] for r in repeats} == {f"1/{log.ledger['bsa-1', mid]['seq']}"}


def test_repeat_gives_the_same_octets(tekd, mid, content):
    for name in ("bsa-1", "bsa-3", "bsa-4"):
        for media in ("xml", "json"):
            m = request(f"{mid}-{media}", f"urn:three:{content}", name)
            with tekd.connect(name) as c:
                bodies = {c.ask(m, media).body for _ in range(5)}
            assert len(bodies) == 1
            out = tekd.audit().ledger[name, m.mid]["out"]
            assert sha256(bodies.pop()).hexdigest() == out


def test_repeat_in_another_form_gives_the_same_data(tekd, mid, content):
    m = request(mid, content, "bsa-1")
    first = ask(tekd, m)
    tekd.tekctl("bsa", "set", "bsa-1", "--form", "efficient")
    with tekd.connect() as c:
        answer = c.ask(m).message()
    assert answer.form == "efficient" and answer.data == first.data
    tekd.tekctl("bsa", "set", "bsa-1", "--form", "full", "--no-key-info")
    with tekd.connect() as c:
        answer = c.ask(m).message()
    assert (answer.data, answer.time, answer.key_info) == (first.data, first.time, None)
    tekd.audit()


@pytest.mark.tsan
@pytest.mark.smoke
def test_32_at_once_under_one_message_id_get_one_answer(tekd, mid, content):
    m = request(mid, content, "bsa-1")
    connections = [tekd.connect() for _ in range(32)]
    answers = together(32, lambda i: connections[i].ask(m, ("xml", "json")[i % 2]))
    for c in connections:
        c.close()
    found = {repr(stored(given(r, m, tekd.template.bsas["bsa-1"], ("xml", "json")[i % 2])))
             for i, r in enumerate(answers)}
    assert len(found) == 1
    assert len({r.body for r in answers}) == 2  # one for each media type
    log = tekd.audit()
    assert len(log.of("request.answered")) == 1 and len(log.of("tek.generated")) == 1
    assert len(log.of("request.repeated")) == 31


def test_other_content_under_a_used_message_id_is_refused_and_the_first_stands(tekd, mid, content):
    m = request(mid, content, "bsa-1")
    first = ask(tekd, m)
    other = m.but(content=content + "-other")
    with tekd.connect() as c:
        refused(c.ask(other), other, "duplicate-message-id")
        refused(c.ask(m.but(period=1)), m, "duplicate-message-id")
    assert stored(ask(tekd, m)) == stored(first)
    tekd.restart()
    with tekd.connect() as c:
        refused(c.ask(other), other, "duplicate-message-id")
    assert stored(ask(tekd, m)) == stored(first)
    # It is used by this BSA only, and the other content is free for another Message ID.
    assert ask(tekd, m.but(source="bsa-2")).data != first.data
    ask(tekd, other.but(mid=mid + "-2"))
    log = tekd.audit()
    assert {r["reason"] for r in log.of("request.refused")} == {"duplicate-message-id"}


def test_two_contents_at_once_under_one_message_id_one_wins(tekd, mid):
    for turn in range(10):
        ms = [request(f"{mid}-{turn}", f"urn:{turn}:{i % 2}", "bsa-1") for i in range(8)]
        connections = [tekd.connect() for _ in ms]
        answers = together(8, lambda i: connections[i].ask(ms[i]))
        for c in connections:
            c.close()
        won = {m.content for m, r in zip(ms, answers) if r.message().status == 0}
        assert len(won) == 1
        for m, r in zip(ms, answers):
            if m.content in won:
                given(r, m, tekd.template.bsas["bsa-1"])
            else:
                refused(r, m, "duplicate-message-id")
    tekd.audit()


def test_refusal_does_not_use_up_the_message_id(new_tekd, mid, content):
    tekd = new_tekd(policy={"auto_content": False}).start()
    m = request(mid, content, "bsa-1")
    with tekd.connect() as c:
        refused(c.ask(m), m, "unknown-content")
        tekd.tekctl("content", "add", content)
        given(c.ask(m), m, tekd.template.bsas["bsa-1"])


# ---- one TEK for all -------------------------------------------------------------------------------

@pytest.mark.tsan
def test_two_bsas_racing_for_200_new_contents_get_the_same_teks(tekd):
    names = ("bsa-1", "bsa-2")
    clients = 8  # of each; every content is asked for by each BSA twice
    per_client = 50
    connections = [tekd.connect(names[i % 2]) for i in range(2 * clients)]

    def work(i):
        found = []
        for n in range(per_client):
            content = f"urn:race:{(i // 2 * per_client + n) % 200}"
            m = request(f"r-{i}-{n}", content, names[i % 2])
            r = connections[i].ask(m, ("xml", "json")[n % 2])
            found.append((content, given(r, m, tekd.template.bsas[names[i % 2]],
                                         ("xml", "json")[n % 2])))
        return found

    results = together(2 * clients, work)
    for c in connections:
        c.close()
    teks, data = {}, {}
    for i, found in enumerate(results):
        for content, m in found:
            tek = tekd.clear(names[i % 2], m.data)
            assert teks.setdefault(content, tek) == tek
            assert data.setdefault((content, i % 2), m.data) == m.data
    assert len(teks) == 200 and len(set(teks.values())) == 200  # every TEK distinct
    assert all(len(t) == 16 for t in teks.values())
    assert all(data[c, 0] != data[c, 1] for c in teks)
    log = tekd.audit()
    assert len(log.of("tek.generated")) == 200
    assert len({r["content"] for r in log.of("tek.generated")}) == 200
    assert len(log.ledger) == 2 * clients * per_client


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_teks_have_the_bits_of_their_content(tekd, mid, bits):
    content = f"urn:three:{bits}"
    tekd.tekctl("content", "add", content, "--bits", str(bits))
    teks = set()
    for name in tekd.template.bsas:
        m = request(mid, content, name)
        answer = ask(tekd, m)
        if answer.key_info:
            assert answer.key_info["bits"] == bits
        teks.add(tekd.clear(name, answer.data))
    assert len(teks) == 1 and len(teks.pop()) * 8 == bits


def test_data_of_one_bsa_does_not_open_with_the_kek_of_another(tekd, mid, content):
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap
    data = ask(tekd, request(mid, content, "bsa-1")).data
    with pytest.raises(InvalidUnwrap):
        tekd.clear("bsa-2", data)


# ---- contents and keys -----------------------------------------------------------------------------

def test_contents_have_to_be_added_unless_requests_may_make_them(new_tekd, mid, content):
    tekd = new_tekd(policy={"auto_content": False}).start()
    m = request(mid, content, "bsa-1")
    with tekd.connect() as c:
        refused(c.ask(m), m, "unknown-content")
    assert tekd.ctl("content", "list") == []
    tekd.tekctl("content", "add", content)
    ask(tekd, m)
    shown = tekd.ctl("content", "show", content)
    assert shown["content_id"] == content and len(shown["keys"]) == 1
    # With auto_content the request makes it, and it says so.
    tekd.restart(policy={"auto_content": True})
    ask(tekd, m.but(mid=mid + "-2", content=content + "-2"))
    assert {c["content_id"]: c["by_request"] for c in tekd.ctl("content", "list")} == \
        {content: False, content + "-2": True}


def test_rotate_makes_a_new_version_and_old_messages_keep_theirs(tekd, mid, content):
    m = request(mid, content, "bsa-1")
    first = ask(tekd, m)
    key_id = tekd.ctl("key", "rotate", content)["key_id"]
    second = ask(tekd, m.but(mid=mid + "-2"))
    assert second.key_info["keyID"] == key_id != first.key_info["keyID"]
    assert tekd.clear("bsa-1", second.data) != tekd.clear("bsa-1", first.data)
    assert stored(ask(tekd, m)) == stored(first)
    # Every BSA gets the current one.
    other = ask(tekd, request(mid, content, "bsa-2"))
    assert tekd.clear("bsa-2", other.data) == tekd.clear("bsa-1", second.data)
    keys = tekd.ctl("key", "list", content)
    assert [(k["version"], k["destroyed"]) for k in keys] == [(1, False), (2, False)]
    tekd.restart()
    assert stored(ask(tekd, m)) == stored(first)
    assert ask(tekd, m.but(mid=mid + "-3")).data == second.data
    assert len(tekd.audit().of("tek.generated")) == 2


def test_destroyed_key_is_gone_for_its_messages_and_a_new_one_is_made(tekd, mid, content):
    m = request(mid, content, "bsa-1")
    first = ask(tekd, m)
    ask(tekd, m.but(source="bsa-2"))
    key_id = first.key_info["keyID"]
    tekd.tekctl("key", "destroy", key_id)

    def gone():
        for name in ("bsa-1", "bsa-2"):
            with tekd.connect(name) as c:
                refused(c.ask(m.but(source=name)), m.but(source=name), "key-gone")

    gone()
    second = ask(tekd, m.but(mid=mid + "-2"))
    assert second.key_info["keyID"] != key_id
    assert tekd.clear("bsa-1", second.data) != tekd.clear("bsa-1", first.data)
    tekd.restart()
    gone()
    assert ask(tekd, m.but(mid=mid + "-3")).data == second.data
    log = tekd.audit()
    assert [(r["keyid"], r["actor"]) for r in log.of("tek.destroyed")] == [(key_id, "root")]
    assert [k["destroyed"] for k in tekd.ctl("key", "list", content)] == [True, False]
    again = tekd.tekctl("key", "destroy", key_id, check=False)
    assert again.returncode == 1 and again.stderr


def test_rotate_and_destroy_under_load_never_split_the_bsas(tekd, content):
    """However keys change meanwhile: two messages with one keyID carry one TEK."""
    def next_request(i, n):
        return request(f"l-{i}-{n}", content, f"bsa-{i % 2 + 1}"), "xml"

    load = Load(tekd, 16, next_request, lambda i: f"bsa-{i % 2 + 1}").start()
    for turn in range(10):
        wait_until(lambda: len(load.answered) > turn * 50, "answers")
        key_id = tekd.ctl("key", "rotate", content)["key_id"]
        if turn % 2:
            tekd.tekctl("key", "destroy", key_id)
    load.stop()
    assert not load.errors
    teks = {}
    for i, m, media, r in load.answered:
        name = f"bsa-{i % 2 + 1}"
        answer = given(r, m, tekd.template.bsas[name], media)
        tek = tekd.clear(name, answer.data)
        assert teks.setdefault(answer.key_info["keyID"], tek) == tek
    assert len(set(teks.values())) == len(teks) > 5
    tekd.audit()


# ---- limits ----------------------------------------------------------------------------------------

def test_contents_that_one_bsa_may_make_are_limited(new_tekd, mid):
    tekd = new_tekd(limits={"per_bsa_auto_contents": 3}).start()
    with tekd.connect() as c:
        for i in range(3):
            m = request(f"{mid}-{i}", f"urn:{i}", "bsa-1")
            given(c.ask(m), m, tekd.template.bsas["bsa-1"])
        over = request(f"{mid}-x", "urn:x", "bsa-1")
        refused(c.ask(over), over, "unknown-content")
        known = request(f"{mid}-y", "urn:1", "bsa-1")
        given(c.ask(known), known, tekd.template.bsas["bsa-1"])
    ask(tekd, request(mid, "urn:x", "bsa-2"))
    tekd.restart()
    over = request(f"{mid}-z", "urn:z", "bsa-1")
    with tekd.connect() as c:
        refused(c.ask(over), over, "unknown-content")
    ask(tekd, request(f"{mid}-w", "urn:x", "bsa-1"))


def test_requests_of_one_bsa_under_way_are_limited(new_tekd, content):
    """More than it may have at once get 503 and try again; other BSAs do not notice."""
    tekd = new_tekd(limits={"per_bsa_concurrency": 2}).start()

    def next_request(i, n):
        return request(f"c-{i}-{n}", f"{content}-{i}-{n}", "bsa-1"), "xml"

    load = Load(tekd, 24, next_request).start()
    with tekd.connect("bsa-2") as c:
        for n in range(50):
            m = request(f"o-{n}", f"{content}-o-{n}", "bsa-2")
            given(c.ask(m), m, tekd.template.bsas["bsa-2"])
    load.stop()
    statuses = Counter(r.status for _, _, _, r in load.answered)
    assert set(statuses) == {200, 503}, statuses
    for _, _, _, r in load.answered:
        checked(r)
        if r.status == 503:
            assert r.header("cp3-reason") == "busy" and int(r.header("retry-after")) >= 1
    assert not load.errors
    # Nobody is left behind in the count.
    ask(tekd, request("after", content, "bsa-1"))


# ---- who gets nothing ------------------------------------------------------------------------------

def assert_last_refusal(tekd, **expected):
    last = tekd.audit().of("request.refused")[-1]
    assert {k: last.get(k) for k in expected} == expected, last


def test_refusals_leave_their_records(new_tekd, mid):
    tekd = new_tekd(policy={"auto_content": False}).start()
    cert = pki.fingerprint(tekd.path("pki", "bsa-3.crt"))
    base = request(mid, "urn:three:1", "bsa-3")
    for change, reason in [({"source": "bsa-1"}, "wrong-source"),
                           ({"destination": "x"}, "wrong-destination"),
                           ({"version": 3}, "unsupported-version"),
                           ({"content": "urn:no"}, "not-entitled"), ({}, "unknown-content")]:
        m = base.but(**change)
        with tekd.connect("bsa-3") as c:
            refused(c.ask(m), m, reason, form="efficient")
        assert_last_refusal(tekd, reason=reason, peer="bsa-3", mid=mid, content=m.content, cert=cert)
    with tekd.connect("bsa-3") as c:
        assert c.post(b"<no").status == 400
    assert_last_refusal(tekd, reason="malformed", peer="bsa-3", cert=cert)
    with tekd.connect("stranger") as c:
        problem(c.ask(base), 403)
    assert_last_refusal(tekd, reason="not-enrolled", peer=None, mid=None,
                        cert=pki.fingerprint(tekd.path("pki", "stranger.crt")))
    with tekd.connect() as c:
        problem(c.post(base.but(tag=4, status=0).encode()), 409, "unknown-message")
    unmatched = tekd.audit().of("confirm.unmatched")
    assert [(r["mid"], r["peer"], r["reason"]) for r in unmatched] == \
        [(mid, "bsa-1", "unknown-message")]
    assert tekd.audit().ledger == {}
    assert tekd.ctl("status")["counts"]["teks"] == 0


def test_disabled_bsa_gets_nothing_until_enabled(tekd, mid, content):
    m = request(mid, content, "bsa-1")
    first = ask(tekd, m)
    with tekd.connect() as open_one:
        given(open_one.ask(m), m, tekd.template.bsas["bsa-1"])
        tekd.tekctl("bsa", "disable", "bsa-1")
        problem(open_one.ask(m), 403)
        assert open_one.is_closed_by_peer()
    with tekd.connect() as c:
        problem(c.ask(m), 403)
    assert_last_refusal(tekd, reason="disabled", peer="bsa-1")
    tekd.restart()
    with tekd.connect() as c:
        problem(c.ask(m), 403)
    tekd.tekctl("bsa", "enable", "bsa-1")
    assert stored(ask(tekd, m)) == stored(first)


@pytest.mark.tsan
def test_disabled_while_under_way_gets_nothing_more(tekd, content):
    """After "bsa disable" came back no key leaves, whatever was under way, and no repeat of one."""
    for turn in range(6):
        asked_at = [[] for _ in range(16)]

        def next_request(i, n):
            asked_at[i].append(time.monotonic())
            # Every third is the one before once more; most clients only repeat their first: a repeat
            # takes so little time that few are under way.
            n = 0 if i % 4 else n - (n % 3 == 2)
            return request(f"d-{turn}-{i}-{n}", f"{content}-{n % 50}", "bsa-1"), "xml"

        load = Load(tekd, 16, next_request).start()
        wait_until(lambda: len(load.answered) > 100, "answers")
        tekd.tekctl("bsa", "disable", "bsa-1")
        came_back = time.monotonic()
        load.join()  # every connection is closed by its 403
        assert not load.errors, load.errors
        last = {}
        for i, m, media, r in load.answered:
            last[i] = r
            asked = asked_at[i].pop(0)
            if r.status == 200:
                given(r, m, tekd.template.bsas["bsa-1"], media)
                assert asked < came_back, m
        assert len(last) == 16 and all(r.status == 403 for r in last.values())
        log = tekd.audit()
        disabled = log.of("bsa.disabled")[-1]["seq"]
        assert not [r for r in log.of("request.answered") if r["seq"] > disabled]
        # Their records come later: what counts is what was in the log when they were decided on.
        repeats = [r for r in log.of("request.repeated") if r["mid"].startswith(f"d-{turn}-")]
        assert repeats and all(int(r["after"].split("/")[1]) < disabled for r in repeats), disabled
        tekd.tekctl("bsa", "enable", "bsa-1")


def test_revoked_certificate_gets_nothing_also_on_an_open_connection(tekd, mid, content):
    m = request(mid, content, "bsa-1")
    with tekd.connect() as open_one, tekd.connect("bsa-2") as other:
        given(open_one.ask(m), m, tekd.template.bsas["bsa-1"])
        revoke(tekd, "bsa-1")
        tekd.hup()
        problem(open_one.ask(m), 403)
        assert open_one.is_closed_by_peer()
        with pytest.raises((ssl.SSLError, HttpError), match="alert"):
            with tekd.connect() as c:
                c.ask(m)
        # The others go on, on the connection they have.
        m = request(mid, content, "bsa-2")
        given(other.ask(m), m, tekd.template.bsas["bsa-2"])
    log = tekd.audit()
    assert [(r["cause"], r["count"]) for r in log.of("tls.refused")] == [("revoked", 1)]
    tekd.restart()
    records = tekd.audit().of("tls.refused")
    assert sum(r["count"] for r in records) == 2 and {r["cause"] for r in records} == {"revoked"}


def revoke(tekd, name):
    from cryptography import x509
    with open(tekd.path("pki", f"{name}.crt"), "rb") as f:
        cert = x509.load_pem_x509_certificate(f.read())
    ca = tekd.template.ca
    ca.revoke(cert)
    try:
        ca.write_crl(tekd.path("pki", "ca.crl"))
    finally:
        ca.revoked.pop()  # of this test only


def test_changed_ca_refuses_the_old_and_takes_the_new(tekd, mid, content):
    """With SIGHUP: also the old one's open connection ends, as nobody would open it again."""
    m, m2 = request(mid, content, "bsa-1"), request(mid, content, "bsa-2")
    tekd.tls("bsa-1")  # it goes on trusting the server, by the file as it is now
    trusted = shutil.copy(tekd.path("pki", "ca.crt"), tekd.path("trusted.crt"))
    ca = pki.Ca(tekd.path("new-pki"), "new")
    ca.issue("bsa-2")
    tekd.tekctl("bsa", "set", "bsa-2", "--cert", tekd.path("new-pki", "bsa-2.crt"))
    new = client.context(trusted, *(tekd.path("new-pki", f"bsa-2.{e}") for e in ("crt", "key")))

    def ask_new():
        with client.Connection(tekd.port, new) as c:
            return c.ask(m2)

    with tekd.connect() as open_one:
        given(open_one.ask(m), m, tekd.template.bsas["bsa-1"])
        with pytest.raises((ssl.SSLError, HttpError), match="alert"):
            ask_new()  # not yet
        shutil.copy(tekd.path("new-pki", "new.crt"), tekd.path("pki", "ca.crt"))
        ca.write_crl(tekd.path("pki", "ca.crl"))
        tekd.hup()
        assert "reload-refused" not in tekd.log()
        problem(open_one.ask(m), 403)
        assert open_one.is_closed_by_peer()
    with pytest.raises((ssl.SSLError, HttpError), match="alert"):
        ask(tekd, m)
    given(ask_new(), m2, tekd.template.bsas["bsa-2"])
    assert [(r["cause"], r["count"]) for r in tekd.audit().of("tls.refused")] == [("unknown-ca", 1)]
    tekd.restart()  # what was not written one by one is in the count
    given(ask_new(), m2, tekd.template.bsas["bsa-2"])
    records = tekd.audit().of("tls.refused")
    assert sum(r["count"] for r in records) == 3 and {r["cause"] for r in records} == {"unknown-ca"}


def test_two_certificates_of_a_bsa_until_the_old_one_goes(tekd, mid, content):
    m = request(mid, content, "bsa-1")
    bsa = tekd.template.bsas["bsa-1"]
    first = ask(tekd, m)
    with tekd.connect("bsa-1-next") as c:
        problem(c.ask(m), 403)
    both = ["--cert", tekd.path("pki", "bsa-1.crt"), "--cert", tekd.path("pki", "bsa-1-next.crt")]
    tekd.tekctl("bsa", "set", "bsa-1", *both)
    for cert in ("bsa-1", "bsa-1-next"):
        assert stored(ask(tekd, m, cert=cert, bsa=bsa)) == stored(first)
    assert len(tekd.ctl("bsa", "show", "bsa-1")["certs"]) == 2
    # One certificate never serves two BSAs.
    taken = tekd.tekctl("bsa", "set", "bsa-2", "--cert", tekd.path("pki", "bsa-1-next.crt"),
                        check=False)
    assert taken.returncode == 1, taken
    with tekd.connect("bsa-1") as open_one:
        given(open_one.ask(m), m, bsa)
        tekd.tekctl("bsa", "set", "bsa-1", *both[2:])
        problem(open_one.ask(m), 403)
        assert open_one.is_closed_by_peer()
    assert stored(ask(tekd, m, cert="bsa-1-next", bsa=bsa)) == stored(first)
    tekd.restart()
    with tekd.connect("bsa-1") as c:
        problem(c.ask(m), 403)
    assert stored(ask(tekd, m, cert="bsa-1-next", bsa=bsa)) == stored(first)
    enrolled = [r for r in tekd.audit().of("bsa.enrolled") if r["bsa"] == "bsa-1"]
    assert [r["cert"].count(",") for r in enrolled] == [0, 1, 0]


def test_entitlement_changes_at_once(tekd, mid):
    m = request(mid, "urn:a:1", "bsa-1")
    with tekd.connect() as c:
        given(c.ask(m), m, tekd.template.bsas["bsa-1"])
        tekd.tekctl("bsa", "set", "bsa-1", "--entitle", "urn:b:*", "--entitle", "urn:[cd]:?")
        refused(c.ask(m), m, "not-entitled")  # a repeat passes all checks again
        for i, (content, may) in enumerate([
                ("urn:b:", True), ("urn:b:x/y", True), ("urn:c:1", True), ("urn:d:12", False),
                ("urn:e:1", False), ("xurn:b:1", False), ("URN:B:1", False)]):
            m = request(f"{mid}-{i}", content, "bsa-1")
            if may:
                given(c.ask(m), m, tekd.template.bsas["bsa-1"])
            else:
                refused(c.ask(m), m, "not-entitled")


def test_bsa_without_entitlement_gets_nothing(new_tekd, mid, content):
    tekd = new_tekd(fresh=True).start()
    bsa = tekd.template.bsas["bsa-1"]
    tekd.tekctl("bsa", "add", "bsa-1", "--cert", tekd.path("pki", "bsa-1.crt"), "--kek",
                bsa.kek_label)
    m = request(mid, content, "bsa-1")
    with tekd.connect() as c:
        refused(c.ask(m), m, "not-entitled")


def malformed(c, n):
    return c.post((b"<no", b"", b"\xff\xfe", b"<a/>")[n % 4]) if n % 8 < 4 else c.post(b"{", "json")


def refused_askers(tekd):
    """(certificate, how often, ask(connection, n), [status and reason of n, taken in turn])."""
    spare, (wrap, *_) = next(iter(tekd.template.spare.items()))
    tekd.tekctl("bsa", "add", "bsa-5", "--cert", tekd.path("pki", "bsa-1-next.crt"), "--kek", spare,
                "--wrap", wrap)
    tekd.tekctl("bsa", "disable", "bsa-5")

    def of_two(c, n):  # of which each is refused
        change = {"version": 9} if n % 2 else {"destination": "elsewhere"}
        return c.ask(request(f"n-{n}", "urn:1", "bsa-2").but(**change))

    plain = request("n", "urn:1", "bsa-1")
    return [
        ("bsa-1", 1500, lambda c, n: c.ask(request(f"n-{n}", "urn:1", "bsa-2")),
         [(200, "wrong-source")]),
        ("bsa-3", 1500, lambda c, n: c.ask(request(f"n-{n}", "urn:no", "bsa-3")),
         [(200, "not-entitled")]),
        *2 * [("bsa-2", 1500, of_two, [(200, "wrong-destination"), (200, "unsupported-version")])],
        *2 * [("bsa-4", 1500, malformed, [(400, "malformed")])],
        # Each of these is the end of its connection.
        ("stranger", 500, lambda c, n: c.ask(plain), [(403, None)]),
        ("bsa-1-next", 500, lambda c, n: c.ask(plain), [(403, None)]),
    ]


def test_ten_thousand_refusals_cost_only_the_records_they_may(tekd, mid):
    """10 a minute and peer one by one, then a summary a minute with the count; no sync each."""
    askers = refused_askers(tekd)
    before = tekd.ctl("status")["store"]

    def work(i):
        cert, times, ask_it, expected = askers[i]
        c = tekd.connect(cert)
        for n in range(times):
            r = ask_it(c, n)
            assert (r.status, r.header("cp3-reason")) == expected[n % len(expected)], r
            if r.header("connection") == "close":
                c.close()
                c = tekd.connect(cert)
        c.close()

    together(len(askers), work, timeout=500)
    after = tekd.ctl("status")["store"]
    log = tekd.audit()
    refusals = log.of("request.refused")
    assert {r["reason"] for r in refusals} == \
        {"wrong-source", "not-entitled", "wrong-destination", "unsupported-version", "malformed",
         "not-enrolled", "disabled"}
    minutes = 1 + int(seconds_between(refusals[0]["t"], refusals[-1]["t"]) // 60)
    by_peer = Counter(r.get("peer") for r in refusals)
    expected = {"bsa-1": 1500, "bsa-2": 3000, "bsa-3": 1500, "bsa-4": 3000, "bsa-5": 500, None: 500}
    assert sum(expected.values()) == 10000
    assert set(by_peer) == set(expected)
    assert all(10 <= n <= 11 * minutes for n in by_peer.values()), by_peer
    # Few records, and few batches, for they ride along.
    may = len(expected) * 11 * minutes + 10
    assert after["records"] - before["records"] <= may
    assert after["batches"] - before["batches"] <= may
    # Nothing is lost: what was not written one by one is in the counts.
    tekd.stop()
    tekd.start()
    total = Counter()
    for r in tekd.audit().of("request.refused"):
        total[r.get("peer")] += r.get("count", 1)
    assert total == expected
    ask(tekd, request(mid, "urn:1", "bsa-1"))


def seconds_between(a, b):
    from datetime import datetime
    form = "%Y-%m-%dT%H:%M:%S.%fZ"
    return (datetime.strptime(b, form) - datetime.strptime(a, form)).total_seconds()


def test_200_refused_handshakes_cost_two_records(tekd):
    """Fewer than above, for each costs a handshake: one record, and one with the rest in it."""
    tls = tekd.tls("revoked")

    def work(_):
        for _ in range(25):
            with pytest.raises((ssl.SSLError, OSError)):
                with client.Connection(tekd.port, tls) as c:
                    c.sock.recv(1)

    together(8, work)
    assert [r["count"] for r in tekd.audit().of("tls.refused")] == [1]
    tekd.restart()
    assert [r["count"] for r in tekd.audit().of("tls.refused")] == [1, 199]
