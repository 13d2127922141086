"""tek-bsa listen: deliveries that a BSM pushes, right and wrong, and who may push them."""

import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess

import pytest

from cp3py import client
from harness.tekbsa import Bsa, read, records, written
from harness.bsm import WRONG
from harness.load import together
from harness.procs import run, wait_until
from harness.programs import is_sanitized, program

# ---- deliveries that are right -------------------------------------------------------------------

@pytest.mark.smoke
@pytest.mark.parametrize("media", ["xml", "json"])
@pytest.mark.parametrize("form", ["full", "efficient"])
def test_listen_takes_a_delivery_and_confirms_it(bsm, start_bsa, keys, media, form):
    bsa = start_bsa("listen", "--form", form, "--out", keys)
    m, tek = bsm.delivery()
    confirmation = bsm.push(bsa.port, m, media)
    assert (confirmation.tag, confirmation.mid, confirmation.status) == (4, m.mid, 0)
    assert confirmation.form == form
    if form == "full":
        assert (confirmation.content, confirmation.source, confirmation.destination) == \
            (m.content, m.destination, m.source)
        assert confirmation.version == 1 and confirmation.time
    doc = bsa.wait_printed("delivery")
    assert (doc["message_id"], doc["content_id"]) == (m.mid, m.content)
    assert (doc["status"], doc["answer"], doc["repeated"]) == (0, 200, False)
    assert (doc["key_id"], doc["bits"]) == (m.key_info["keyID"], 128)
    assert read(doc["out"]) == tek.hex() + "\n"
    assert stat.S_IMODE(os.stat(doc["out"]).st_mode) == 0o600
    assert written(keys) == {f"urn%3Ax%3Anews.{m.key_info['keyID']}.tek": tek.hex() + "\n"}
    assert bsa.stop() == 0
    assert tek.hex() not in json.dumps(bsa.printed) + bsa.said()


@pytest.mark.parametrize("bits", [128, 192, 256])
@pytest.mark.parametrize("wrap", ["aes-kw", "aes-kwp"])
def test_listen_takes_every_wrap_and_length(bsm, start_bsa, keys, wrap, bits):
    bsa = start_bsa("listen", "--wrap", wrap, "--out", keys)
    m, tek = bsm.delivery(wrap=wrap, tek=os.urandom(bits // 8))
    assert bsm.push(bsa.port, m).status == 0
    assert list(written(keys).values()) == [tek.hex() + "\n"]


def test_without_key_info_a_content_has_one_file(bsm, start_bsa, keys):
    bsa = start_bsa("listen", "--out", keys)
    for _ in range(2):
        m, tek = bsm.delivery(key_info=False)
        assert bsm.push(bsa.port, m).status == 0
        assert written(keys) == {"urn%3Ax%3Anews.tek": tek.hex() + "\n"}


def test_content_ids_lead_nowhere_else(bsm, start_bsa, keys, folder):
    bsa = start_bsa("listen", "--out", keys)
    for content in ("../../evil", "/etc/evil", "a/b", ".", "x" * 1024, "\u00fc" * 400):
        assert bsm.push(bsa.port, bsm.delivery(content=content)[0]).status == 0
    assert len(written(keys)) == 6
    assert not os.path.exists(os.path.join(os.path.dirname(folder), "evil"))


def test_many_deliveries_on_one_connection(bsm, start_bsa):
    bsa = start_bsa("listen")
    with bsm.connect(bsa.port) as c:
        for n in range(20):
            m, _ = bsm.delivery()
            r = c.ask(m, ("xml", "json")[n % 2])
            assert r.status == 200 and bsm.judge(r.message()) == (204, None)
            assert r.header("cache-control") == "no-store"


# ---- deliveries that are wrong -------------------------------------------------------------------

@pytest.mark.parametrize("media", ["xml", "json"])
@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_a_wrong_delivery_is_confirmed_with_status_1(bsm, start_bsa, keys, journal, wrong, media):
    change, check, expected, found = WRONG[wrong]
    bsa = start_bsa("listen", "--out", keys, "--journal", journal, "--count", 2)
    m = change(bsm.delivery()[0])
    bsm.deliveries[m.mid] = (m, set())
    confirmation = bsm.push(bsa.port, m, media)
    assert confirmation.status == 1
    doc = bsa.wait_printed("delivery")
    assert (doc["failed_check"], doc["expected"], doc["found"]) == (check, expected, found)
    assert doc["status"] == 1 and "out" not in doc and "check_value" not in doc
    assert written(keys) == {} and records(journal) == []
    # the MessageID is not spent
    right, tek = bsm.delivery(mid=m.mid)
    assert bsm.push(bsa.port, right, media).status == 0
    assert bsa.wait() == 1
    assert list(written(keys).values()) == [tek.hex() + "\n"]
    assert bsa.said() == f"tek-bsa: {check}: expected {expected}, found {found}"


def without(name):
    return lambda m: re.sub(rf"<{name}>[^<]*</{name}>".encode(), b"", m.encode("xml"))


NO_DELIVERY = {
    "empty": (lambda m: b"", "message"),
    "text": (lambda m: b"hello", "message"),
    "json for xml": (lambda m: m.encode("json"), "message"),
    "half": (lambda m: m.encode("xml")[:100], "message"),
    "doctype": (lambda m: b"<!DOCTYPE x []>" + m.encode("xml").split(b"?>", 1)[1], "message"),
    "no ContentID": (without("ContentID"), "message"),
    "no MessageID": (without("MessageID"), "message"),
    "no Source": (without("Source"), "message"),
    "no Data": (without("Data"), "message"),
    "Status": (lambda m: m.but(status=0).encode("xml"), "message"),
    "Key Request": (lambda m: m.but(tag=1, data=None, key_info=None).encode("xml"), "Tag"),
    "Response": (lambda m: m.but(tag=2, status=0).encode("xml"), "Tag"),
    "Confirmation": (lambda m: m.but(tag=4, status=0, data=None, key_info=None).encode("xml"),
                     "Tag"),
}


@pytest.mark.parametrize("what", sorted(NO_DELIVERY))
def test_what_is_no_delivery_gets_400(bsm, start_bsa, keys, what):
    make, check = NO_DELIVERY[what]
    bsa = start_bsa("listen", "--out", keys, "--once")
    m, _ = bsm.delivery()
    with bsm.connect(bsa.port) as c:
        r = c.post(make(m))
        assert (r.status, r.header("content-type")) == (400, "application/problem+json"), r
        problem = json.loads(r.body)
        assert problem["status"] == 400 and problem["check"] == check and problem["found"]
        assert written(keys) == {}
        # it was no delivery: --once still waits for one, on the same connection
        r = c.ask(m)
        assert r.status == 200
    assert bsa.wait() == 0


def test_media_types_paths_and_methods(bsm, start_bsa):
    bsa = start_bsa("listen")
    body = bsm.delivery()[0].encode("xml")
    with bsm.connect(bsa.port) as c:
        for content_type in ("text/plain", "application/x", "application/xml; charset=x"):
            assert c.post(body, content_type=content_type).status == 415
        assert c.request("POST", "/cp3", body).status == 415
        assert c.post(body, path="/").status == 404
        assert c.post(body, path="/cp3/deliveries").status == 404
        for method in ("GET", "PUT", "DELETE"):
            r = c.request(method, "/cp3")
            assert (r.status, r.header("allow")) == (405, "POST")
        assert c.post(body, content_type="text/xml; charset=UTF-8").status == 200


def test_one_media_type_if_told(bsm, start_bsa):
    bsa = start_bsa("listen", "--media", "json")
    assert bsm.ask(bsa.port, bsm.delivery()[0], "xml").status == 415
    assert bsm.push(bsa.port, bsm.delivery()[0], "json").status == 0
    assert bsa.deliveries(1)[0]["expected"] == "application/json"


# ---- who delivers --------------------------------------------------------------------------------

STRANGERS = {
    "no certificate": ({"cert": None}, "certificate"),
    "another CA": ({"folder": "other-pki"}, "unable to get local issuer certificate"),
    "expired": ({"cert": "expired"}, "certificate has expired"),
    "for servers": ({"cert": "server-only"}, "unsuitable certificate purpose"),
    "old TLS": ({"maximum": ssl.TLSVersion.TLSv1_1, "minimum": ssl.TLSVersion.TLSv1_1}, "version"),
    "another of the CA": ({"cert": "bsa-2"}, "another certificate than that of --bsm-cert"),
}


@pytest.mark.parametrize("maximum", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("stranger", sorted(STRANGERS))
def test_strangers_deliver_nothing(bsm, start_bsa, stranger, maximum):
    how, said = STRANGERS[stranger]
    bsa = start_bsa("listen", "--bsm-cert", bsm.pem("bsm.crt"))
    m, _ = bsm.delivery()
    versions = {"maximum": getattr(ssl.TLSVersion, maximum), **how}
    port = bsa.port
    with pytest.raises(ssl.SSLError, match="alert"):  # it is told why, and says nothing before
        with bsm.connect(port, **versions) as c:
            c.sock.recv(1)
    wait_until(lambda: said in bsa.said(), f"{said}: {bsa.said()}")
    assert bsa.said().startswith("tek-bsa: TLS with 127.0.0.1: expected a client with a cert")
    assert bsa.deliveries() == []
    assert bsm.push(bsa.port, m).status == 0


def test_any_certificate_of_the_ca_without_bsm_cert(bsm, start_bsa):
    bsa = start_bsa("listen")
    with bsm.connect(bsa.port, cert="bsa-2") as c:
        assert c.ask(bsm.delivery()[0]).status == 200


def test_a_bsm_that_does_not_take_our_certificate_is_told_of(bsm, start_bsa):
    bsa = start_bsa("listen", cert="bsa-1", pki="other-pki")
    with pytest.raises(ssl.SSLError):
        bsm.connect(bsa.port)
    wait_until(lambda: "expected a client that takes our certificate, found its alert: unknown CA"
               in bsa.said(), "the alert")


def test_nothing_is_resumed(bsm, start_bsa):
    bsa = start_bsa("listen")
    for version in ("TLSv1_2", "TLSv1_3"):
        context = bsm.context(maximum=getattr(ssl.TLSVersion, version))
        with client.Connection(bsa.port, context) as c:
            assert c.ask(bsm.delivery()[0]).status == 200
            session = c.sock.session
        with client.Connection(bsa.port, context, session=session) as c:
            assert c.ask(bsm.delivery()[0]).status == 200
            assert not c.sock.session_reused


# ---- bodies --------------------------------------------------------------------------------------

def head_of(body, length=None, extra=()):
    return client.head("POST", "/cp3", [("Host", "localhost"), ("Content-Type", "application/xml"),
                                        ("Content-Length", str(length or len(body))), *extra])


def test_a_body_in_many_pieces(bsm, start_bsa):
    bsa = start_bsa("listen")
    m, _ = bsm.delivery()
    octets = head_of(m.encode()) + m.encode()
    with bsm.connect(bsa.port) as c:
        for i in range(0, len(octets), 7):
            c.send(octets[i:i + 7])
        assert c.read_response().status == 200


def test_a_body_that_does_not_end_is_given_up(bsm, start_bsa, keys):
    bsa = start_bsa("listen", "--timeout", 3, "--out", keys)
    m, _ = bsm.delivery()
    body = m.encode()
    half = bsm.connect(bsa.port)
    half.send(head_of(body) + body[:len(body) // 2])
    gone = bsm.connect(bsa.port)
    gone.send(head_of(body) + body[:-1])
    gone.close()
    # others are served meanwhile
    assert bsm.push(bsa.port, m).status == 0
    assert half.is_closed_by_peer(30)
    half.close()
    assert bsa.stop() == 0
    assert len(bsa.deliveries()) == 1 and len(written(keys)) == 1


def test_a_body_that_is_too_big(bsm, start_bsa):
    bsa = start_bsa("listen")
    m, _ = bsm.delivery()
    with bsm.connect(bsa.port) as c:
        c.send(head_of(b"", 65537))
        assert c.read_response().status == 413
    with bsm.connect(bsa.port) as c:
        c.send(client.head("POST", "/cp3", [("Host", "x"), ("Content-Type", "application/xml"),
                                            ("Transfer-Encoding", "chunked")]))
        with pytest.raises((OSError, AssertionError)):
            for _ in range(100):
                c.send(b"1000\r\n" + b" " * 4096 + b"\r\n")
            assert c.read_response().status != 413
    # the largest that is read
    body = m.encode()
    body += b" " * (65536 - len(body))
    with bsm.connect(bsa.port) as c:
        assert c.post(body).status == 200
    assert bsa.stop() == 0
    assert [d["answer"] for d in bsa.deliveries()] == [200]


def test_connections_have_a_limit(bsm, start_bsa):
    bsa = start_bsa("listen", "--timeout", 300)
    port = bsa.port
    raw = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
    # one more is closed at once; and is served when there is room again
    with socket.create_connection(("127.0.0.1", port), timeout=30) as over:
        assert over.recv(1) == b""
    for s in raw:
        s.close()

    def served():
        try:
            return bsm.push(port, bsm.delivery()[0]).status == 0
        except (OSError, client.HttpError):
            return False
    wait_until(served, "room for a connection")


# ---- many at once --------------------------------------------------------------------------------

CLIENTS, EACH = (4, 5) if is_sanitized() else (16, 10)


@pytest.mark.smoke
def test_concurrent_deliveries(bsm, start_bsa, keys, journal):
    bsa = start_bsa("listen", "--out", keys, "--journal", journal)
    port = bsa.port
    sent = [[bsm.delivery(content=f"urn:{i}:{n}") for n in range(EACH)] for i in range(CLIENTS)]

    def work(i):
        with bsm.connect(port) as c:
            for n, (m, _) in enumerate(sent[i]):
                r = c.ask(m, ("xml", "json")[(i + n) % 2])
                assert r.status == 200 and bsm.judge(r.message()) == (204, None)

    together(CLIENTS, work)
    assert all(bsm.confirmed(m) == {0} for some in sent for m, _ in some)
    assert sorted(written(keys).values()) == sorted(t.hex() + "\n" for some in sent
                                                    for _, t in some)
    assert sorted(records(journal)) == sorted(m.mid for some in sent for m, _ in some)


@pytest.mark.parametrize("same", [True, False])
def test_concurrent_deliveries_of_one_message_id(bsm, start_bsa, keys, same):
    bsa = start_bsa("listen", "--out", keys)
    port = bsa.port
    first, tek = bsm.delivery(key_info=False)
    sent = [first if same else bsm.delivery(mid=first.mid, key_info=False)[0] for _ in range(8)]

    def work(i):
        with bsm.connect(port) as c:
            return c.ask(sent[i]).message().status

    status = together(len(sent), work)
    assert status.count(0) == (8 if same else 1)
    assert [d["repeated"] for d in bsa.deliveries(8) if d["status"] == 0].count(False) == 1
    assert len(written(keys)) == 1
    if same:
        assert list(written(keys).values()) == [tek.hex() + "\n"]


# ---- the end -------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(bsm, start_bsa, number):
    bsa = start_bsa("listen")
    port = bsa.port
    idle, silent = bsm.connect(port), socket.create_connection(("127.0.0.1", port))
    assert idle.ask(bsm.delivery()[0]).status == 200
    assert bsa.stop(number) == 0
    assert idle.is_closed_by_peer() and silent.recv(1) == b""
    assert bsa.said() == ""
    idle.close()
    silent.close()


def test_a_signal_lets_a_delayed_answer_out(bsm, start_bsa):
    bsa = start_bsa("listen", "--delay", 600000)
    port = bsa.port
    m, _ = bsm.delivery()
    with bsm.connect(port) as c:
        c.send_message(m)
        bsa.wait_printed("delivery")
        # others are served meanwhile
        with bsm.connect(port) as other:
            assert other.post(b"", path="/other").status == 404
        assert not c.wait_octet(0)
        assert bsa.stop() == 0
        r = c.read_response()
        assert (r.status, r.message().status) == (200, 0)


def test_count_ends_it_behind_the_last_answer(bsm, start_bsa):
    bsa = start_bsa("listen", "--count", 3)
    port = bsa.port
    with bsm.connect(port) as c:
        for n in range(3):
            r = c.ask(bsm.delivery()[0])
            assert r.status == 200
            assert (r.header("connection") == "close") is (n == 2)
        assert c.is_closed_by_peer()
    assert bsa.wait() == 0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port)).close()


REFUSED = {
    "port": (["--port", "1x"], 2, "--port: expected 0..65535, found 1x"),
    "form": (["--form", "half"], 2, "--form: expected full or efficient, found half"),
    "status": (["--status", "2"], 2, "--status: expected 0..1, found 2"),
    "drop": (["--drop", "some"], 2, "--drop: expected 0..1000000, found some"),
    "count": (["--count", "0"], 2, "--count: expected 1..1000000, found 0"),
    "counts": (["--count", "2", "--once"], 2, "--once and --count say the same thing"),
    "late": (["--late", "http://x/cp3"], 2, "--late: expected https://..., found http://x/cp3"),
    "media": (["--media", "yaml"], 2, "--media: expected xml or json, found yaml"),
    "address": (["--address", "nowhere"], 1,
                "--address: expected an IPv4 or IPv6 address in numbers, found nowhere"),
    "certificate": (["--cert", "/nowhere.crt"], 1,
                    "--cert /nowhere.crt: No such file or directory"),
    "bsm-cert": (["--bsm-cert", "/nowhere.crt"], 1,
                 "--bsm-cert /nowhere.crt: No such file or directory"),
    "journal": (["--journal", "/nowhere/j"], 1, "--journal /nowhere/j: No such file or directory"),
    "out": (["--out", "/nowhere/keys"], 1, "--out /nowhere/keys: No such file or directory"),
}


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_what_it_does_not_start_with(bsm, what):
    options, status, said = REFUSED[what]
    argv = {"--address": "127.0.0.1", "--port": "0", "--ca": bsm.pem("ca.crt"),
            "--cert": bsm.pem("bsa-1.crt"), "--key": bsm.pem("bsa-1.key"), "--kek": bsm.kek_path,
            "--id": "bsa-1", "--bsm": "bsm.example.net"}
    switches = [o for o in options if o == "--once"]
    rest = [o for o in options if o != "--once"]
    argv.update(zip(rest[::2], rest[1::2]))
    done = run([program("tek-bsa"), "listen", *(x for pair in argv.items() for x in pair),
                *switches], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"tek-bsa: {said}\n")


def test_a_port_that_is_taken(bsm, start_bsa):
    port = start_bsa("listen").port
    second = Bsa(bsm, "listen", "--address", "127.0.0.1", "--port", port)
    assert second.wait() == 1
    assert second.said() == f"tek-bsa: --address 127.0.0.1 --port {port}: Address already in use"
    second.close()


def test_lines_for_people(bsm):
    """Without --json: a line a delivery, and no peer can add one."""
    log = os.path.join(bsm.folder, "lines")
    argv = [program("tek-bsa"), "listen", "--address", "127.0.0.1", "--port", "0", "--ca",
            bsm.pem("ca.crt"), "--cert", bsm.pem("bsa-1.crt"), "--key", bsm.pem("bsa-1.key"),
            "--kek", bsm.kek_path, "--id", "bsa-1", "--bsm", "bsm.example.net", "--once"]
    with open(log, "wb") as f, subprocess.Popen(argv, stdout=f) as process:
        port = wait_until(lambda: re.search(r"^listening address=127\.0\.0\.1 port=(\d+)\n",
                                            read(log)), "the first line")[1]
        m, _ = bsm.delivery(mid="m 1 status=1", key_info=False)
        assert bsm.push(int(port), m).status == 0
        assert process.wait(30) == 0
    assert re.fullmatch(r"delivery message_id=m\\x201\\x20status=1 content_id=urn:x:news status=0 "
                        r"form=full repeated=no wrap=aes-kw bits=128 check_value=[0-9a-f]{6} "
                        r"time=2026-11-22T13:15:42Z answer=200", read(log).splitlines()[1])
