"""HTTP, TLS and the order of checks: everything the wire's table says, against a real server."""

import glob
import os
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from cp3py import client, messages
from cp3py.messages import request
from harness import pki, state
from harness.answers import checked, given, problem, refused
from harness.procs import wait_until
from harness.programs import TOP
from harness.tekd import Tekd

SAMPLES = os.path.join(TOP, "tests", "data", "cp3")
OTHER = "urn:other:1"


@pytest.fixture(scope="module")
def servers(workdir, template, enrolled):
    """Servers by their policy, made when asked for the first time."""
    made = {}

    def get(**policy):
        key = tuple(sorted(policy.items()))
        if key not in made:
            folder = os.path.join(workdir, f"http-{len(made)}")
            made[key] = Tekd(state.copy(enrolled, folder), template, policy=policy)
            made[key].start()
            made[key].tekctl("content", "add", "urn:three:known")
            made[key].tekctl("content", "add", "urn:known")
        return made[key]

    yield get
    for server in made.values():
        server.close()


@pytest.fixture
def strict(servers):
    """Contents are made by operators only; there are urn:known and urn:three:known."""
    return servers(auto_content=False)


@pytest.fixture
def mapped(servers):
    return servers(auto_content=False, refusal_http="mapped")


# ---- a key ----------------------------------------------------------------------------------------

@pytest.mark.smoke
@pytest.mark.parametrize("media", ["xml", "json"])
@pytest.mark.parametrize("name", ["bsa-1", "bsa-2", "bsa-4"])
def test_key_is_given_and_unwraps(shared, name, media, mid, content):
    m = request(mid, content, name)
    bsa = shared.template.bsas[name]
    with shared.connect(name) as c:
        answer = given(c.ask(m, media), m, bsa, media)
    assert len(shared.clear(name, answer.data)) == 16


@pytest.mark.parametrize("media", ["xml", "json"])
def test_efficient_form_is_what_the_bsa_was_enrolled_with(shared, media, mid, content):
    bsa = shared.template.bsas["bsa-3"]
    with shared.connect("bsa-3") as c:
        m = request(mid, f"urn:three:{content}", "bsa-3")
        answer = given(c.ask(m, media), m, bsa, media)
        assert answer.form == "efficient"
        assert len(shared.clear("bsa-3", answer.data)) == 16
        # Refusals too.
        m = request(mid + "-2", "urn:four", "bsa-3")
        refused(c.ask(m, media), m, "not-entitled", media=media, form="efficient")


def test_all_bsas_get_the_same_tek_each_under_its_own_kek(shared, mid):
    content = f"urn:three:{mid}"
    data = {}
    for name, bsa in shared.template.bsas.items():
        m = request(mid, content, name)
        with shared.connect(name) as c:
            data[name] = given(c.ask(m), m, bsa).data
    assert len(set(data.values())) == 4
    assert len({shared.clear(name, d) for name, d in data.items()}) == 1


def test_text_xml_charset_and_bom_are_taken(shared, mid, content):
    with shared.connect() as c:
        for i, (kind, prefix) in enumerate([
                ("text/xml", b""), ("application/xml; charset=UTF-8", b""),
                ('Application/XML;charset="utf-8"', b""), ("application/xml", b"\xef\xbb\xbf"),
                ("application/json; charset=utf-8", b"")]):
            media = "json" if "json" in kind else "xml"
            m = request(f"{mid}-{i}", content, "bsa-1")
            r = c.post(prefix + m.encode(media), content_type=kind)
            given(r, m, shared.template.bsas["bsa-1"], media)


def test_version_1_and_none_are_taken_others_are_not(shared, mid, content):
    with shared.connect() as c:
        for version in (None, 1):
            m = request(f"{mid}-{version}", content, "bsa-1", version=version)
            given(c.ask(m), m, shared.template.bsas["bsa-1"])
        for version in (2, 4294967295):
            m = request(f"{mid}-{version}", content, "bsa-1", version=version)
            refused(c.ask(m), m, "unsupported-version")


@pytest.mark.parametrize("text", [
    "m" * 255, "\u00e9" * 127, "a b  c", "&<>\"'", "\u20ac\U0001f511 \\ /", "\u200b"])
def test_message_id_comes_back_octet_by_octet(shared, text, content):
    for media in ("xml", "json"):
        m = request(text, content + media, "bsa-1")
        with shared.connect() as c:
            first = c.ask(m, media)
        if first.header("cp3-reason") == "duplicate-message-id":
            continue  # used by the other media already: that is another test's business
        given(first, m, shared.template.bsas["bsa-1"], media)


def test_keep_alive_serves_many_on_one_connection_also_pipelined(shared, mid, content):
    bsa = shared.template.bsas["bsa-1"]
    with shared.connect() as c:
        for i in range(20):
            m = request(f"{mid}-{i}", content, "bsa-1")
            given(c.ask(m), m, bsa)
        for i in range(5):
            c.send_message(request(f"{mid}-p{i}", content, "bsa-1"))
        for i in range(5):
            given(c.read_response(), request(f"{mid}-p{i}", content, "bsa-1"), bsa)


def test_chunked_request_body_is_read(shared, mid, content):
    m = request(mid, content, "bsa-1")
    body = m.encode()
    with shared.connect() as c:
        c.send(client.head("POST", "/cp3", [("Host", "x"), ("Content-Type", "application/xml"),
                                            ("Transfer-Encoding", "chunked")]))
        for i in range(0, len(body), 100):
            chunk = body[i:i + 100]
            c.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        c.send(b"0\r\n\r\n")
        given(c.read_response(), m, shared.template.bsas["bsa-1"])


def test_expect_continue_is_answered(shared, mid, content):
    m = request(mid, content, "bsa-1")
    body = m.encode()
    with shared.connect() as c:
        c.send(client.head("POST", "/cp3", [
            ("Host", "x"), ("Content-Type", "application/xml"), ("Expect", "100-continue"),
            ("Content-Length", str(len(body)))]))
        assert c.sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        c.send(body)
        given(c.read_response(), m, shared.template.bsas["bsa-1"])


# ---- the order of checks ---------------------------------------------------------------------------

@pytest.fixture
def used(strict, mid):
    """A MessageID of bsa-3 that was answered."""
    m = request(mid, "urn:three:known", "bsa-3")
    with strict.connect("bsa-3") as c:
        given(c.ask(m), m, strict.template.bsas["bsa-3"])
    return m


# From first to last: what violates a check and what it leads to.
CHECKS = [
    ({"source": "bsa-1"}, "wrong-source"),
    ({"destination": "elsewhere"}, "wrong-destination"),
    ({"version": 2}, "unsupported-version"),
    ({"content": OTHER}, "not-entitled"),
    ({"content": "urn:three:unknown"}, "duplicate-message-id"),
    ({"mid": "fresh", "content": "urn:three:unknown"}, "unknown-content"),
    ({"mid": "fresh-too", "period": 7}, "no-period"),
]


@pytest.mark.parametrize("i", range(len(CHECKS)), ids=[c[1] for c in CHECKS])
def test_each_check_alone(strict, used, i):
    violation, reason = CHECKS[i]
    m = used.but(**{**violation, **({"mid": used.mid + violation["mid"]}
                                    if "mid" in violation else {})})
    with strict.connect("bsa-3") as c:
        refused(c.ask(m), m, reason, form="efficient")


@pytest.mark.parametrize("i", range(len(CHECKS) - 1),
                         ids=[f"{a[1]}-before-{b[1]}" for a, b in zip(CHECKS, CHECKS[1:])])
def test_of_two_violated_checks_the_earlier_one_is_told(strict, used, i):
    later = dict(CHECKS[i + 1][0])
    later.pop("mid", None)
    both = {**later, **CHECKS[i][0]}
    if "mid" in CHECKS[i][0]:
        both["mid"] = used.mid + both["mid"] + "-both"
    m = used.but(**both)
    with strict.connect("bsa-3") as c:
        refused(c.ask(m), m, CHECKS[i][1], form="efficient")


def test_used_message_id_with_another_period_is_a_duplicate(strict, used):
    """Message ID before period: the first answer had none."""
    with strict.connect("bsa-3") as c:
        m = used.but(period=7)
        refused(c.ask(m), m, "duplicate-message-id", form="efficient")


def test_certificate_comes_before_everything_in_the_message(strict, mid):
    for i, (body, media) in enumerate([
            (request(mid, OTHER, "bsa-1", "elsewhere", version=2).encode(), "xml"),
            (b"<no", "xml"), (b"", "xml"), (b"x", "json")]):
        with strict.connect("stranger") as c:
            document = problem(c.post(body, media), 403)
            assert "not enrolled" in document["title"], i
            assert c.is_closed_by_peer()


def test_wrong_source_is_no_reason_to_learn_of_contents(strict, mid):
    """Entitlement is decided before any look-up: known or not, the answer is the same."""
    with strict.connect("bsa-3") as c:
        for content in ("urn:known", "urn:nowhere"):
            m = request(mid, content, "bsa-3")
            refused(c.ask(m), m, "not-entitled", form="efficient")


def test_media_type_is_told_before_the_body_is_read(strict):
    with strict.connect() as c:
        problem(c.post(b"<no", content_type="text/plain"), 415)


def test_certificate_comes_before_the_media_type(strict):
    with strict.connect("stranger") as c:
        problem(c.post(b"<no", content_type="text/plain"), 403)


def strangers_records(tekd):
    return [r for r in tekd.audit().of("request.refused") if r["reason"] == "not-enrolled"]


def test_certificate_comes_before_path_and_method(tekd):
    asked = [("GET", "/cp3"), ("POST", "/nothing"), ("BREW", "/cp3/deliveries"),
             ("GET", "/cp3/deliveries"), ("OPTIONS", "*")]
    for method, path in asked * 3:
        with tekd.connect("stranger") as c:
            r = c.request(method, path)
            assert "not enrolled" in problem(r, 403)["title"], (method, path)
            assert c.is_closed_by_peer()
    # Ten a minute, then how many more there were.
    tekd.restart()
    records = strangers_records(tekd)
    assert all(r["addr"].startswith("127.0.0.1:") for r in records)
    assert [r.get("count", 1) for r in records] == [1] * 10 + [len(asked) * 3 - 10]


def test_a_disabled_bsa_learns_of_no_path_and_an_enabled_one_does(tekd):
    with tekd.connect() as c:
        problem(c.request("GET", "/nothing"), 404)
        problem(c.request("OPTIONS", "*"), 404)
        tekd.tekctl("bsa", "disable", "bsa-1")
        problem(c.request("GET", "/nothing"), 403)
        assert c.is_closed_by_peer()


# ---- refusals as HTTP statuses ---------------------------------------------------------------------

def test_mapped_refusals(mapped, mid):
    with mapped.connect("bsa-3") as c:
        m = request(mid, "urn:three:known", "bsa-3")
        given(c.ask(m), m, mapped.template.bsas["bsa-3"])
        for i, (violation, reason) in enumerate(CHECKS):
            status = {"wrong-source": 403, "not-entitled": 403, "wrong-destination": 421,
                      "unknown-content": 404, "duplicate-message-id": 409}.get(reason, 422)
            bad = m.but(**{**violation, **({"mid": f"{mid}-{i}"} if "mid" in violation else {})})
            for media in ("xml", "json"):
                refused(c.ask(bad, media), bad, reason, status, media, "efficient")
        key = mapped.ctl("key", "list", "urn:three:known")[0]["key_id"]
        mapped.tekctl("key", "destroy", key)
        refused(c.ask(m), m, "key-gone", 410, form="efficient")


def test_unmapped_refusals_keep_the_connection(strict, mid):
    with strict.connect() as c:
        for _ in range(3):
            m = request(mid, "urn:nowhere", "bsa-1")
            refused(c.ask(m), m, "unknown-content")


# ---- broken messages -------------------------------------------------------------------------------

def sample(name):
    with open(os.path.join(SAMPLES, name), "rb") as f:
        return f.read()


SAMPLE_NAMES = sorted(os.path.basename(p) for p in glob.glob(os.path.join(SAMPLES, "*.*ml")) +
                      glob.glob(os.path.join(SAMPLES, "*.json")))


@pytest.mark.parametrize("name", [n for n in SAMPLE_NAMES if n.startswith("bad_")])
def test_bad_samples_end_in_400(shared, name):
    media = "json" if name.endswith("json") else "xml"
    with shared.connect() as c:
        r = checked(c.post(sample(name), media))
        assert r.status == 400 and r.header("cp3-reason") == "malformed", r
        if r.media is None:
            document = problem(r, 400, "malformed")
            assert document["line"] >= 0 and document["element"] and document["detail"], document
        else:
            m = r.message()
            assert (m.tag, m.status, m.form) == (2, 1, "efficient"), m
        # Bad input changes nothing: the next request is answered.
        good = request("after-" + name, "urn:x:after", "bsa-1")
        given(c.ask(good), good, shared.template.bsas["bsa-1"])


@pytest.mark.parametrize("name", [n for n in SAMPLE_NAMES if n.startswith(("ok_2", "ok_3"))])
def test_tags_2_and_3_do_not_belong_here(shared, name):
    media = "json" if name.endswith("json") else "xml"
    with shared.connect() as c:
        problem(c.post(sample(name), media), 400, "malformed")


@pytest.mark.parametrize("name", [n for n in SAMPLE_NAMES if n.startswith("ok_4")])
def test_confirmation_of_nothing_is_409(shared, name):
    media = "json" if name.endswith("json") else "xml"
    with shared.connect() as c:
        problem(c.post(sample(name), media), 409, "unknown-message")


def test_broken_request_with_a_legal_message_id_is_answered_to_it(shared, mid):
    ns = messages.NS
    bad = {
        "xml": [f'<KeyRequest xmlns="{ns}"><Tag>1</Tag><MessageID>{mid}</MessageID></KeyRequest>',
                f'<KeyRequest xmlns="{ns}"><Source>s</Source><Tag>1</Tag><What/><MessageID>{mid}'
                '</MessageID><ContentID>c</ContentID><Destination>d</Destination></KeyRequest>'],
        "json": ['{"Tag":1,"MessageID":"%s"}' % mid,
                 '{"MessageID":"%s","ContentID":7,"Tag":1,"Source":"s","Destination":"d"}' % mid],
    }
    with shared.connect() as c:
        for media, bodies in bad.items():
            for body in bodies:
                refused(c.post(body.encode(), media), request(mid, "c", "s"), "malformed", 400,
                        media, "efficient")


def test_problem_names_line_element_and_reason(shared):
    body = (f'<KeyRequest xmlns="{messages.NS}">\n<Tag>1</Tag>\n<ContentID>c</ContentID>\n'
            '<Destination>d</Destination>\n<Source>bsa-1</Source></KeyRequest>')
    with shared.connect() as c:
        document = problem(c.post(body.encode()), 400, "malformed")
        assert document["element"] == "MessageID" and "MessageID" in document["detail"], document
        document = problem(c.post(b'{"Tag":1,\n"MessageID":"a","MessageID":"b"}', "json"), 400,
                           "malformed")
        assert document["element"] == "MessageID" and document["line"] == 2, document
        document = problem(c.post(b"<a>\n\n<b>"), 400, "malformed")
        assert document["line"] == 3, document


@pytest.mark.parametrize("body, media", [
    (b"", "xml"), (b"", "json"), (b"{}", "xml"), (b"<a/>", "json"), (b"[1]", "json"),
    (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "xml"),
    (b"<?php x?><a/>", "xml"), (b"\xff\xfe<\0a\0/\0>\0", "xml"), (b"<" * 60000, "xml"),
    (b"[" * 60000, "json"), (b"<a>" * 20000, "xml"), (b'{"Tag":1e400}', "json"),
    (b"\0" * 100, "xml"), (b'{"Tag":1,"MessageID":"\xff"}', "json"),
], ids=lambda x: repr(x)[:24])
def test_hostile_bodies_end_in_400(shared, body, media):
    with shared.connect() as c:
        document = problem(c.post(body, media), 400, "malformed")
        assert document["detail"]
        assert "root:" not in str(document)


# ---- HTTP ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", ["/", "/cp3/", "/cp3/x", "/CP3", "/cp3%2f", "//cp3", "/cp3x",
                                  "/healthz", "/readyz", "/metrics"])
def test_unknown_paths_are_404(shared, path):
    with shared.connect() as c:
        problem(c.post(b"x", path=path), 404)
        problem(c.request("GET", path), 404)


def test_query_belongs_to_the_path_it_follows(shared, mid, content):
    m = request(mid, content, "bsa-1")
    with shared.connect() as c:
        given(c.post(m.encode(), path="/cp3?x=y"), m, shared.template.bsas["bsa-1"])


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_other_methods_are_405_with_allow(shared, method):
    with shared.connect() as c:
        r = c.request(method, "/cp3")
        problem(r, 405)
        assert r.header("allow") == "POST"


def test_head_is_405_without_a_body(shared):
    with shared.connect() as c:
        c.send_request("HEAD", "/cp3")
        top = b""
        while b"\r\n\r\n" not in top:
            top += c.sock.recv(65536)
        assert top.startswith(b"HTTP/1.1 405 "), top
        assert top.endswith(b"\r\n\r\n"), top


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "application/xml2",
                                  "application/xml; charset=iso-8859-1", "application/soap+xml",
                                  "text/html", "multipart/form-data", "xml", " "])
def test_other_media_types_are_415(shared, kind, mid, content):
    with shared.connect() as c:
        problem(c.post(request(mid, content, "bsa-1").encode(), content_type=kind), 415)


def test_missing_media_type_is_415(shared, mid, content):
    with shared.connect() as c:
        problem(c.request("POST", "/cp3", request(mid, content, "bsa-1").encode()), 415)


def test_body_of_64_kib_is_read_and_one_octet_more_is_413(shared, mid, content):
    m = request(mid, content, "bsa-1")
    body = m.encode()
    with shared.connect() as c:
        given(c.post(body + b" " * (65536 - len(body))), m, shared.template.bsas["bsa-1"])
    with shared.connect() as c:
        c.send(client.head("POST", "/cp3", [("Host", "x"), ("Content-Type", "application/xml"),
                                            ("Content-Length", "65537")]))
        r = checked(c.read_response())
        assert r.status == 413, r


def in_chunks(body, size=4096):
    parts = [body[at:at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def test_chunked_body_of_less_than_64_kib_is_read_and_of_64_kib_is_413(shared, mid, content):
    m = request(mid, content, "bsa-1")
    top = client.head("POST", "/cp3", [("Host", "x"), ("Content-Type", "application/xml"),
                                       ("Transfer-Encoding", "chunked")])
    body = m.encode()
    with shared.connect() as c:
        c.send(top + in_chunks(body + b" " * (65535 - len(body))))
        given(c.read_response(), m, shared.template.bsas["bsa-1"])
    with shared.connect() as c:
        c.send(top + in_chunks(body + b" " * (65536 - len(body)))[:-len("0\r\n\r\n")])
        assert checked(c.read_response()).status == 413


def test_body_that_is_announced_too_big_is_413_before_it_is_sent(shared):
    with shared.connect() as c:
        c.send(client.head("POST", "/cp3", [("Host", "x"), ("Content-Type", "application/xml"),
                                            ("Content-Length", str(10 ** 9))]))
        r = checked(c.read_response())
        assert r.status == 413, r


def test_body_that_grows_too_big_in_chunks_is_not_read_to_its_end(shared):
    """413, or the connection ends under what we still send, when 64 KiB have come."""
    with shared.connect() as c:
        c.send(client.head("POST", "/cp3", [("Host", "x"), ("Content-Type", "application/xml"),
                                            ("Transfer-Encoding", "chunked")]))
        sent = 0
        try:
            while not c.wait_octet(0):
                c.send(b"1000\r\n" + b" " * 4096 + b"\r\n")
                sent += 4096
                assert sent < 10 ** 8
            assert checked(c.read_response()).status == 413
        except (OSError, client.HttpError):
            pass
        assert sent >= 65536


@pytest.mark.parametrize("octets", [b"NONSENSE\r\n\r\n", b"POST /cp3\r\n\r\n",
                                    b"POST /cp3 HTTP/1.1\r\nno colon\r\n\r\n",
                                    b"\x16\x03\x01\x00\xff\r\n\r\n"])
def test_broken_request_line_or_header_is_400_and_closed(shared, octets):
    with shared.connect() as c:
        c.send(octets)
        r = c.read_response()
        assert (r.status, r.body) == (400, b"Bad Request"), r
        # The one answer that is written without us, as docs/protocol.md says.
        assert r.header("cache-control") is None, r
        assert c.is_closed_by_peer()


def test_http2_is_not_spoken(shared, mid, content):
    with shared.connect() as c:
        c.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        top = c.sock.recv(65536)
        assert top == b"" or top.startswith(b"HTTP/1.1 4"), top
    m = request(mid, content, "bsa-1")
    with shared.connect() as c:  # an offer to upgrade is passed over
        body = m.encode()
        r = c.request("POST", "/cp3", body, [
            ("Content-Type", "application/xml"), ("Connection", "Upgrade, HTTP2-Settings"),
            ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")])
        given(r, m, shared.template.bsas["bsa-1"])


def test_connection_close_is_honoured(shared, mid, content):
    m = request(mid, content, "bsa-1")
    with shared.connect() as c:
        r = c.request("POST", "/cp3", m.encode(), [("Content-Type", "application/xml"),
                                                   ("Connection", "close")])
        given(r, m, shared.template.bsas["bsa-1"])
        assert c.is_closed_by_peer()


def test_slow_clients_are_closed(new_tekd, mid, content):
    tekd = new_tekd(limits={"request_timeout_ms": 700}).start()
    body = request(mid, content, "bsa-1").encode()
    top = client.head("POST", "/cp3", [("Host", "x"), ("Content-Type", "application/xml"),
                                       ("Content-Length", str(len(body)))])
    starts = [b"", b"POST /c", top, top + body[:50]]
    open_ones = []
    for octets in starts:
        open_ones.append(tekd.connect())
        open_ones[-1].send(octets)
    for c in open_ones:
        assert c.is_closed_by_peer(10)
        c.close()
    assert tekd.audit().ledger == {}


def reads_nothing(tekd):
    """Sends until nothing more is taken."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    raw.connect(("127.0.0.1", tekd.port))
    sock = tekd.tls().wrap_socket(raw, server_hostname="localhost")
    sock.settimeout(0.3)
    try:
        while True:
            sock.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    except OSError:
        return sock


def test_who_reads_no_answers_is_cut(new_tekd, mid, content):
    tekd = new_tekd(limits={"request_timeout_ms": 700, "connections": 8}).start()
    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(reads_nothing, [tekd] * 8))
    m = request(mid, content, "bsa-1")
    wait_until(lambda: tekd.ctl("status")["http"]["connections"] == 0, "all were cut")
    assert tekd.ctl("status")["http"]["timed_out"] == 8
    given(tekd.ask(m.mid, m.content), m, tekd.template.bsas["bsa-1"])
    assert "event=answer-not-taken" in tekd.log()
    for sock in held:
        sock.close()


def test_connections_beyond_the_limit_are_closed_and_room_is_made_again(new_tekd, mid, content):
    tekd = new_tekd(limits={"connections": 4}).start()
    held = [tekd.connect() for _ in range(4)]
    m = request(mid, content, "bsa-1")
    for i, c in enumerate(held):
        given(c.ask(m), m, tekd.template.bsas["bsa-1"])
    with pytest.raises((OSError, client.HttpError)):
        with tekd.connect() as c:
            c.ask(m)
    for c in held:
        c.close()

    def served():
        try:
            return tekd.ask(m.mid, m.content).status == 200
        except (OSError, client.HttpError):
            return False
    wait_until(served, "room for a connection")


UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def logged(tekd):
    """What the log calls the requests that failed by our fault, in order."""
    return [m[1] for line in tekd.log().splitlines() if "event=request-failed" in line
            for m in re.finditer(f"correlation=({UUID})", line)]


def test_fault_of_ours_is_500_internal_and_in_the_log(new_tekd, mid, content):
    """A stored TEK that its KEK does not open: the database was damaged."""
    import sqlite3
    tekd = new_tekd().start()
    assert tekd.ask(mid, content).status == 200
    tekd.stop()
    with sqlite3.connect(tekd.path("tekd.db")) as db:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
        assert "tek" in tables, tables
        assert db.execute("UPDATE tek SET stored = zeroblob(length(stored))").rowcount == 1
    db.close()
    tekd.start()
    m = request(mid, content, "bsa-2")
    with tekd.connect("bsa-2") as c:
        told = []
        for media in ("xml", "json"):
            r = c.ask(m, media)
            refused(r, m, "internal", 500, media, "efficient")
            told.append(r.header("cp3-correlation"))
            assert re.fullmatch(UUID, told[-1]), r
        assert len(set(told)) == 2
        # Who tells it finds it: each answer's is on its own line of the log.
        wait_until(lambda: logged(tekd) == told, "the same in the log")
        other = m.but(content=content + "x")
        given(c.ask(other), other, tekd.template.bsas["bsa-2"])


# ---- TLS -------------------------------------------------------------------------------------------

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def alert_of(tekd, tls, session=None):
    """The alert by which a client is refused: during the handshake, or after it (TLS 1.3)."""
    with pytest.raises(ssl.SSLError) as e:
        with client.Connection(tekd.port, tls, session=session) as c:
            c.sock.recv(1)
    assert "alert" in str(e.value).lower(), e.value
    return str(e.value).lower()


def cases(tekd):
    """What is wrong, the alert, the cause in the record."""
    return [
        (lambda **v: tekd.tls(None, **v), ("certificate required", "handshake failure"),
         "no-certificate"),
        (lambda **v: tekd.tls("bsa-1", "other-pki", **v), ("unknown ca",), "unknown-ca"),
        (lambda **v: tekd.tls("revoked", **v), ("certificate revoked",), "revoked"),
        (lambda **v: tekd.tls("expired", **v), ("certificate expired",), "expired"),
        (lambda **v: tekd.tls("not-yet", **v), ("bad certificate", "certificate expired"),
         "not-yet-valid"),
        (lambda **v: tekd.tls("server-only", **v), ("unsupported certificate",), "wrong-purpose"),
    ]


@pytest.mark.smoke
def test_strangers_get_a_tls_alert_and_leave_a_record(tekd):
    times = 3
    for tls, alerts, cause in cases(tekd):
        for version in (V12, V13):
            for _ in range(times):
                alert = alert_of(tekd, tls(minimum=version, maximum=version))
                assert any(a in alert for a in alerts), (cause, alert)
    old = ssl.TLSVersion.TLSv1_1
    assert "protocol version" in alert_of(tekd, tekd.tls("bsa-1", minimum=old, maximum=old))
    first = {r["cause"]: r for r in tekd.audit().of("tls.refused")}
    assert set(first) == {c for _, _, c in cases(tekd)} | {"protocol"}
    assert all(r["addr"].startswith("127.0.0.1:") and r["count"] == 1 for r in first.values())
    assert tekd.ctl("status")["http"]["handshakes_failed"] == 2 * times * 6 + 1
    # One a minute and cause, then how many more there were.
    tekd.restart()
    records = tekd.audit().of("tls.refused")
    for _, _, cause in cases(tekd):
        assert [r["count"] for r in records if r["cause"] == cause] == [1, 2 * times - 1]


def test_good_clients_are_served_by_tls_1_2_and_1_3_without_alpn(shared, mid, content):
    for version, name in ((V12, "TLSv1.2"), (V13, "TLSv1.3")):
        tls = client.context(shared.path("pki", "ca.crt"), shared.path("pki", "bsa-1.crt"),
                             shared.path("pki", "bsa-1.key"), version, version)
        tls.set_alpn_protocols(["h2", "http/1.1"])
        m = request(f"{mid}-{name}", content, "bsa-1")
        with client.Connection(shared.port, tls) as c:
            assert c.sock.version() == name
            assert c.sock.selected_alpn_protocol() is None
            given(c.ask(m), m, shared.template.bsas["bsa-1"])
    with shared.connect() as c:
        assert c.sock.version() == "TLSv1.3"


@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
def test_sessions_are_not_resumed(shared, version, mid, content):
    tls = shared.tls("bsa-1", minimum=version, maximum=version)
    sessions = []
    for i in range(3):
        session = sessions[-1] if sessions else None
        m = request(f"{mid}-{version}-{i}", content, "bsa-1")
        with client.Connection(shared.port, tls, session=session) as c:
            given(c.ask(m), m, shared.template.bsas["bsa-1"])
            assert not c.sock.session_reused
            if c.sock.session is not None:
                assert not c.sock.session.has_ticket
                sessions.append(c.sock.session)


def test_plain_http_on_the_tls_port_gets_nothing(shared):
    import socket
    with socket.create_connection(("127.0.0.1", shared.port), 10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not s.recv(65536).startswith(b"HTTP/")


def test_expired_crl_refuses_everybody(tekd, mid, content):
    assert tekd.ask(mid, content).status == 200
    with tekd.connect() as open_one:
        tekd.template.ca.write_crl(tekd.path("pki", "ca.crl"), -2 * pki.DAY, -pki.DAY)
        tekd.hup()
        assert "alert" in alert_of(tekd, tekd.tls("bsa-2"))
        r = open_one.ask(request(mid, content, "bsa-1"))
        problem(r, 403)
        assert open_one.is_closed_by_peer()
    tekd.template.ca.write_crl(tekd.path("pki", "ca.crl"))
    tekd.hup()
    assert tekd.ask(mid, content).status == 200
    causes = {r["cause"] for r in tekd.audit().of("tls.refused")}
    assert causes == {"crl-expired"}


def assert_not_ready_for_the_crl(tekd, since):
    """/readyz and tekctl say which file, and since when; it is alive."""
    path = tekd.path("pki", "ca.crl")
    reason = f"the CRL expired at {since:%Y-%m-%dT%H:%M:%S}.000000Z and BSAs are refused: {path}"
    assert tekd.probe("/readyz") == (503, f"not ready: {reason}\n")
    assert tekd.probe("/healthz")[0] == 200
    status = tekd.ctl("status")
    assert (status["ready"], status["reason"]) == (False, reason)
    assert "alert" in alert_of(tekd, tekd.tls("bsa-2"))


def test_expired_crl_is_not_ready(tekd, mid, content):
    """Whether it comes by a reload or expires while it serves; a fresh one mends it."""
    ca, path = tekd.template.ca, tekd.path("pki", "ca.crl")
    since = pki.now() - pki.DAY
    ca.write_crl(path, -2 * pki.DAY, -pki.DAY)
    assert tekd.probe("/readyz")[0] == 200  # it was not told yet
    tekd.hup()
    assert_not_ready_for_the_crl(tekd, next_update(path))
    assert abs(next_update(path) - since) < pki.HOUR

    ca.write_crl(path, end=timedelta(seconds=4))
    tekd.hup()
    assert tekd.probe("/readyz")[0] == 200 or pki.now() >= next_update(path)
    tekd.wait_for("/readyz", 503)
    assert pki.now() >= next_update(path)
    assert_not_ready_for_the_crl(tekd, next_update(path))

    # One that does not parse changes nothing.
    with open(path, "wb") as f:
        f.write(b"nothing")
    tekd.hup()
    assert tekd.probe("/readyz")[0] == 503
    ca.write_crl(path)
    tekd.hup()
    assert tekd.probe("/readyz") == (200, "ready\n")
    assert tekd.ask(mid, content).status == 200


def test_crl_that_is_not_valid_yet_is_not_ready(tekd, mid, content):
    ca, path = tekd.template.ca, tekd.path("pki", "ca.crl")
    ca.write_crl(path, begin=pki.DAY)
    tekd.hup()
    status, text = tekd.probe("/readyz")
    assert status == 503 and re.fullmatch(
        f"not ready: the CRL is not valid before .*Z and BSAs are refused: {path}\n", text), text
    assert "alert" in alert_of(tekd, tekd.tls("bsa-2"))
    # It is said at once, not only when certificates are looked at the next time.
    wait_until(lambda: "event=crl-not-yet-valid" in tekd.log(), "the warning")
    ca.write_crl(path)
    tekd.hup()
    assert tekd.probe("/readyz") == (200, "ready\n")
    assert tekd.ask(mid, content).status == 200
    assert {r["cause"] for r in tekd.audit().of("tls.refused")} == {"crl-not-yet-valid"}


def next_update(path):
    from cryptography import x509
    with open(path, "rb") as f:
        return x509.load_pem_x509_crl(f.read()).next_update


def test_start_with_an_expired_crl_is_alive_and_not_ready(new_tekd, mid, content):
    tekd = new_tekd()
    path = tekd.path("pki", "ca.crl")
    tekd.template.ca.write_crl(path, -2 * pki.DAY, -pki.DAY)
    tekd.start(wait="alive")
    tekd.wait_for("/readyz", 503)
    wait_until(lambda: "CRL" in tekd.probe("/readyz")[1], "nothing but the CRL is missing")
    assert_not_ready_for_the_crl(tekd, next_update(path))
    tekd.template.ca.write_crl(path)
    tekd.hup()
    assert tekd.probe("/readyz")[0] == 200
    assert tekd.ask(mid, content).status == 200


def test_server_key_in_the_hsm_signs_handshakes(new_tekd, mid, content):
    tekd = new_tekd(tls={"certificate": "pki/tekd-tls.crt", "key": "pkcs11:object=tekd-tls"})
    tekd.start()
    for version in (V12, V13):
        tls = tekd.tls("bsa-1", minimum=version, maximum=version)
        for i in range(5):
            m = request(f"{mid}-{version}-{i}", content, "bsa-1")
            with client.Connection(tekd.port, tls) as c:
                given(c.ask(m), m, tekd.template.bsas["bsa-1"])
                given(c.ask(m), m, tekd.template.bsas["bsa-1"])
    assert "certificate revoked" in alert_of(tekd, tekd.tls("revoked"))
    assert [w["role"] for w in tekd.ctl("hsm", "status")["workers"]].count("tls") == 1
    tekd.stop()
