"""Tests of the benchmark's own programs, against each other; no part of the product is needed.

    selftest.py DIRECTORY-OF-THE-PROGRAMS
"""

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
from http.client import HTTPSConnection

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import audit  # noqa: E402  (the path above is where they are)
import instance  # noqa: E402
import pki  # noqa: E402
import procs  # noqa: E402
import push  # noqa: E402
import report  # noqa: E402
import tools  # noqa: E402

PROGRAMS = ""
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
# Both Status elements of a refusal and of an answer; strict checks want more than this.
KEY = "<Status>0</Status>"
REFUSAL = "<Status>1</Status>"


def program(name):
    return os.path.join(PROGRAMS, name)


def run(name, *args, env=None):
    return subprocess.run([program(name), *map(str, args)], capture_output=True, text=True,
                          timeout=60, env=env, check=False)


class Bench(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scope = contextlib.ExitStack()
        cls.addClassCleanup(cls.scope.close)
        cls.dir = cls.scope.enter_context(tempfile.TemporaryDirectory())
        ca = pki.Authority.make(cls.path("ca"))
        ca.issue(cls.path("server"), "server")
        ca.issue(cls.path("bsa"), "bsa")
        pki.Authority.make(cls.path("other-ca")).issue(cls.path("stranger"), "stranger")

    @classmethod
    def path(cls, name):
        return os.path.join(cls.dir, name)

    def identity(self, name="bsa"):
        return f"{name},{self.path(name)}.crt,{self.path(name)}.key"

    def load(self, port, *args, identities=("bsa",)):
        ids = [a for name in identities for a in ("--identity", self.identity(name))]
        return run("bench_load", "--connect", f"127.0.0.1:{port}", "--ca", self.path("ca.crt"),
                   *ids, *args)

    def measured(self, *args, **kwargs):
        done = self.load(*args, **kwargs)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def static(self, body=None, *args):
        if body is not None:
            with open(self.path("body"), "w", encoding="utf-8") as f:
                f.write(body)
            args += ("--body", self.path("body"))
        server = subprocess.Popen(
            [program("bench_static"), "--ca", self.path("ca.crt"), "--cert",
             self.path("server.crt"), "--key", self.path("server.key"), "--seconds", "60", *args],
            stdout=subprocess.PIPE, text=True)
        try:
            yield json.loads(server.stdout.readline())["port"], server
        finally:
            server.terminate()
            server.wait(10)
            server.stdout.close()


class Static(Bench):
    def test_answers_with_one_framing_and_the_size_asked_for(self):
        context = ssl.create_default_context(cafile=self.path("ca.crt"))
        context.load_cert_chain(self.path("bsa.crt"), self.path("bsa.key"))
        with self.static(None, "--size", "777") as (port, _):
            with socket.create_connection(("127.0.0.1", port), 10) as raw, \
                    context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
                tls.sendall(b"GET /any HTTP/1.1\r\nHost: x\r\n\r\n")
                octets = b""
                while len(octets.partition(b"\r\n\r\n")[2]) < 777:
                    octets += tls.recv(65536)
                self.assertIsNone(tls.selected_alpn_protocol())
        head = octets.partition(b"\r\n\r\n")[0].lower()
        self.assertIn(b"content-length: 777", head)
        self.assertNotIn(b"transfer-encoding", head)

    def test_refuses_who_has_no_certificate(self):
        context = ssl.create_default_context(cafile=self.path("ca.crt"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with self.static() as (port, _):
            with socket.create_connection(("127.0.0.1", port), 10) as raw:
                with self.assertRaises(OSError):
                    context.wrap_socket(raw, server_hostname="127.0.0.1")

    def test_resumes_no_session(self):
        context = ssl.create_default_context(cafile=self.path("ca.crt"))
        context.load_cert_chain(self.path("bsa.crt"), self.path("bsa.key"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        session = None
        with self.static() as (port, _):
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", port), 10) as raw, \
                        context.wrap_socket(raw, server_hostname="127.0.0.1",
                                            session=session) as tls:
                    self.assertFalse(tls.session_reused)
                    session = tls.session

    def test_ends_when_told(self):
        with self.static() as (_, server):
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(10), 0)


class Load(Bench):
    def test_sends_exactly_the_count(self):
        with self.static(KEY) as (port, _):
            r = self.measured(port, "--count", 1000, "--strict", 0)
        self.assertEqual((r["requests"], r["ok"], r["errors"]["total"]), (1000, 1000, 0))
        self.assertEqual(r["latency"]["n"], 1000)

    def test_ends_with_the_time(self):
        with self.static(KEY) as (port, _):
            r = self.measured(port, "--count", 1 << 30, "--seconds", 1, "--strict", 0)
        self.assertGreater(r["ok"], 0)
        self.assertLess(r["seconds"], 3)

    def test_latencies_are_in_order(self):
        with self.static(KEY) as (port, _):
            lat = self.measured(port, "--count", 2000, "--mode", "get")["latency"]
        steps = [lat[k] for k in ("min_us", "p50_us", "p90_us", "p99_us", "max_us")]
        self.assertEqual(steps, sorted(steps))
        self.assertGreater(steps[0], 0)

    def test_counts_a_refusal(self):
        with self.static(REFUSAL) as (port, _):
            r = self.measured(port, "--count", 100, "--strict", 0)
        self.assertEqual((r["ok"], r["errors"]["refused"], r["rate"]), (0, 100, 0))

    def test_strict_finds_an_answer_to_another_message(self):
        body = ("<KeyRequestResponse><Tag>2</Tag><MessageID>m-1</MessageID>" + KEY +
                "<Data>" + "0A" * 24 + "</Data></KeyRequestResponse>")
        with self.static(body) as (port, _):
            r = self.measured(port, "--count", 100, "--strict", 10)
        self.assertEqual((r["strictly_checked"], r["errors"]["not_as_asked"]), (10, 10))

    def test_a_stranger_gets_no_answer(self):
        with self.static(KEY) as (port, _):
            # TLS 1.3 clients learn of it after their handshake: nothing counts as ok.
            done = self.load(port, "--count", 10, "--connections", 1, identities=["stranger"])
        r = json.loads(done.stdout)
        self.assertEqual(r["ok"], 0)
        self.assertGreater(r["errors"]["tls"] + r["errors"]["closed"], 0)

    def test_checks_the_server_against_the_ca(self):
        with self.static(KEY) as (port, _):
            done = run("bench_load", "--connect", f"127.0.0.1:{port}", "--ca",
                       self.path("other-ca.crt"), "--identity", self.identity(), "--count", 1)
        self.assertEqual(done.returncode, 1)
        self.assertIn("certificate verify failed", done.stderr)

    def test_says_when_nobody_listens(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            done = self.load(s.getsockname()[1], "--count", 1)
        self.assertEqual(done.returncode, 1)
        self.assertIn("ECONNREFUSED", done.stderr)

    def test_survives_a_server_that_dies(self):
        with self.static(KEY) as (port, server):
            timer = threading.Timer(0.5, server.kill)
            timer.start()
            r = self.measured(port, "--count", 1 << 30, "--seconds", 3, "--strict", 0)
            timer.join()
        self.assertGreater(r["ok"], 0)
        self.assertGreater(r["errors"]["closed"] + r["errors"]["connect"], 0)

    def test_wrong_command_lines_end_with_2(self):
        for args in (["--count", "0"], ["--count", "1x"], ["--count"], ["--nonsense", "1"],
                     ["--mode", "other"]):
            self.assertEqual(self.load(1, *args).returncode, 2, args)
        self.assertEqual(run("bench_load").returncode, 2)


class Recorder:
    """A slow HTTPS server in Python that keeps the requests and answers as told."""

    def __init__(self, bench, answer):
        self.requests, self.answer, self.lock = [], answer, threading.Lock()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(bench.path("server.crt"), bench.path("server.key"))
        context.load_verify_locations(bench.path("ca.crt"))
        context.verify_mode = ssl.CERT_REQUIRED
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.context = context
        self.threads = [threading.Thread(target=self.accept)]

    def __enter__(self):
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)
        self.listener.close()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.threads.append(threading.Thread(target=self.serve, args=(sock,)))
                self.threads[-1].start()

    def serve(self, sock):
        with contextlib.suppress(OSError), self.context.wrap_socket(sock, server_side=True) as tls:
            octets = b""
            while True:
                head, gap, rest = octets.partition(b"\r\n\r\n")
                length = int(re.search(rb"Content-Length: (\d+)", head + b"Content-Length: 0")[1])
                if not gap or len(rest) < length:
                    more = tls.recv(65536)
                    if not more:
                        return
                    octets += more
                    continue
                octets = rest[length:]
                with self.lock:
                    self.requests.append((head, rest[:length].decode()))
                tls.sendall(self.answer(rest[:length].decode()))


def http(body, media="application/xml", head=""):
    return (f"HTTP/1.1 200 OK\r\nContent-Type: {media}\r\n{head}"
            f"Content-Length: {len(body)}\r\n\r\n{body}").encode()


def field(name, text):
    return re.search(f"<{name}>(.*?)</{name}>", text)[1]


def answer_to(request, data="0A" * 24):
    return (f"<KeyRequestResponse><Tag>2</Tag><MessageID>{field('MessageID', request)}</MessageID>"
            f"{KEY}<Data>{data}</Data></KeyRequestResponse>")


def answer_json(request, data="0A" * 24):
    return json.dumps({"Tag": 2, "MessageID": json.loads(request)["MessageID"], "Status": 0,
                       "Data": data}, separators=(",", ":"))


class Requests(Bench):
    """What the load generator sends, and how strictly it reads."""

    def exchange(self, answer, *args, **kwargs):
        with Recorder(self, answer) as server:
            r = self.measured(server.port, "--strict", 1, "--connections", 1, *args, **kwargs)
        return r, server.requests

    def test_new_messages_and_contents_rise(self):
        r, sent = self.exchange(lambda q: http(answer_to(q)), "--count", 300)
        self.assertEqual(r["ok"], 300)
        for name in ("MessageID", "ContentID"):
            ids = [field(name, body) for _, body in sent]
            self.assertEqual(ids, sorted(set(ids)))
            self.assertEqual(len(ids), 300)

    def test_random_ids_do_not_rise_and_do_not_repeat(self):
        _, sent = self.exchange(lambda q: http(answer_to(q)), "--count", 300, "--ids", "random",
                                "--content-ids", "random")
        for name in ("MessageID", "ContentID"):
            ids = [field(name, body) for _, body in sent]
            self.assertEqual(len(set(ids)), 300)
            rises = sum(a < b for a, b in zip(ids, ids[1:]))
            self.assertTrue(100 < rises < 200, rises)

    def test_known_contents_get_new_messages(self):
        _, sent = self.exchange(lambda q: http(answer_to(q)), "--count", 100, "--mode", "known",
                                "--contents", 10)
        self.assertEqual(len({field("MessageID", b) for _, b in sent}), 100)
        self.assertEqual(len({field("ContentID", b) for _, b in sent}), 10)

    def test_repeat_sends_the_same_messages_again(self):
        args = ("--mode", "known", "--contents", 7, "--seed", 5)
        _, first = self.exchange(lambda q: http(answer_to(q)), *args, "--count", 20)
        _, again = self.exchange(lambda q: http(answer_to(q)), *args, "--count", 40, "--repeat",
                                 20)
        self.assertEqual([b for _, b in first], [b for _, b in again[:20]])
        self.assertEqual([b for _, b in again[:20]], [b for _, b in again[20:]])

    def test_known_asks_for_the_contents_that_new_made(self):
        seeds = ("--content-seed", 9, "--count", 20)
        _, new = self.exchange(lambda q: http(answer_to(q)), *seeds)
        _, known = self.exchange(lambda q: http(answer_to(q)), *seeds, "--mode", "known",
                                 "--contents", 20)
        self.assertEqual([field("ContentID", b) for _, b in new],
                         [field("ContentID", b) for _, b in known])

    def test_json(self):
        r, sent = self.exchange(lambda q: http(answer_json(q), "application/json"), "--media",
                                "json", "--count", 20)
        self.assertEqual(r["ok"], 20)
        head, body = sent[0]
        self.assertIn(b"Content-Type: application/json", head)
        self.assertEqual(json.loads(body)["Source"], "bsa")

    def test_identities_take_turns(self):
        pki.Authority.load(self.path("ca")).issue(self.path("bsa-2"), "bsa-2")
        with Recorder(self, lambda q: http(answer_to(q))) as server:
            self.measured(server.port, "--connections", 4, "--count", 200,
                          identities=("bsa", "bsa-2"))
        sources = [field("Source", b) for _, b in server.requests]
        self.assertEqual(set(sources), {"bsa", "bsa-2"})
        self.assertEqual(len({field("ContentID", b) for _, b in server.requests}), 200)

    def test_finds_a_key_that_changed(self):
        datas = iter(["0A" * 24] * 10 + ["0B" * 24] * 10)
        r, _ = self.exchange(lambda q: http(answer_to(q, next(datas))), "--mode", "known",
                             "--contents", 10, "--count", 20)
        self.assertEqual((r["ok"], r["errors"]["data_changed"]), (10, 10))

    def test_refuses_what_is_not_as_asked(self):
        wrong = {
            "short Data": lambda q: http(answer_to(q, "0A" * 23)),
            "odd Data": lambda q: http(answer_to(q, "0A" * 24 + "0")),
            "lower-case Data": lambda q: http(answer_to(q, "0a" * 24)),
            "another media type": lambda q: http(answer_to(q), "text/plain"),
            "two MessageIDs": lambda q: http(answer_to(q) + "<MessageID>x</MessageID>"),
            "Tag 3": lambda q: http(answer_to(q).replace("<Tag>2", "<Tag>3")),
        }
        for what, answer in wrong.items():
            with self.subTest(what):
                r, _ = self.exchange(answer, "--count", 3)
                self.assertEqual((r["ok"], r["errors"]["not_as_asked"]), (0, 3))

    def test_names_status_codes_and_reasons(self):
        refused = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nCP3-Reason: busy\r\n\r\n"
        r, _ = self.exchange(lambda _: refused, "--count", 3)
        self.assertEqual(r["errors"]["by_http_status"], {"503": 3})
        self.assertEqual(r["errors"]["by_reason"], {"busy": 3})

    def test_refuses_other_framing(self):
        wrong = {
            "both": lambda q: http(answer_to(q), head="Transfer-Encoding: chunked\r\n"),
            "two lengths": lambda q: http(answer_to(q), head="Content-Length: 5\r\n"),
            "no length": lambda _: b"HTTP/1.1 200 OK\r\n\r\n",
            "octets behind": lambda q: http(answer_to(q)) + b"x",
            "no HTTP": lambda _: b"220 ready\r\n\r\n",
        }
        for what, answer in wrong.items():
            with self.subTest(what):
                r, _ = self.exchange(answer, "--count", 1)
                self.assertEqual((r["ok"], r["errors"]["framing"]), (0, 1))

    def test_gives_up_an_answer_that_does_not_come(self):
        r, _ = self.exchange(lambda _: b"", "--count", 1, "--timeout-ms", 200, "--seconds", 5)
        self.assertEqual((r["ok"], r["errors"]["timeout"]), (0, 1))


class Probes(Bench):
    def test_diskprobe_measures_and_leaves_nothing(self):
        with tempfile.TemporaryDirectory() as where:
            for args in ([], ["--overwrite"]):
                done = run("bench_diskprobe", "--dir", where, "--count", 20, *args)
                r = json.loads(done.stdout)
                self.assertEqual(r["sync"]["n"], 20)
                self.assertGreater(r["sync"]["p50_us"], 0)
            self.assertEqual(os.listdir(where), [])
        self.assertEqual(run("bench_diskprobe", "--dir", where).returncode, 1)

    def test_syncount_counts_the_named_program_alone(self):
        for name, expected in (("bench_diskprobe", 20), ("tekd", None)):
            counters = self.path("syncs-" + name)
            env = dict(os.environ, LD_PRELOAD=program("bench_syncount.so"),
                       BENCH_SYNCOUNT_FILE=counters, BENCH_SYNCOUNT_PROGRAM=name)
            done = run("bench_diskprobe", "--dir", self.dir, "--count", 20, env=env)
            self.assertEqual(done.returncode, 0, done.stderr)
            if expected is None:
                self.assertFalse(os.path.exists(counters))
                continue
            with open(counters, "rb") as f:
                calls, ns, failed = struct.unpack("=QQQ", f.read())
            self.assertEqual((calls, failed), (expected, 0))
            self.assertGreater(ns, 0)


DELIVERY = ("<KeyDelivery><Tag>3</Tag><MessageID>m-1</MessageID><ContentID>urn:1</ContentID>"
            "<Destination>p-1</Destination><Source>bsm</Source><Data>0A</Data></KeyDelivery>")


class Bsas(Bench):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        ca = pki.Authority.load(cls.path("ca"))
        for i in range(3):
            ca.issue(cls.path(f"many-{i}"), f"many-{i}")

    def bsas(self):
        return push.Bsas(tools.Programs(os.path.dirname(os.path.dirname(PROGRAMS))),
                         self.path("ca.crt"), self.path("many-"), 3)

    def post(self, port, body, timeout=10):
        context = ssl.create_default_context(cafile=self.path("ca.crt"))
        context.load_cert_chain(self.path("bsa.crt"), self.path("bsa.key"))
        c = HTTPSConnection("127.0.0.1", port, context=context, timeout=timeout)
        try:
            c.request("POST", "/cp3", body, {"Content-Type": "application/xml"})
            answer = c.getresponse()
            return answer.status, answer.read().decode(), c.sock.getpeercert(True)
        finally:
            c.close()

    def test_each_shows_its_certificate_and_confirms(self):
        bsas = self.bsas()
        try:
            answers = [self.post(port, DELIVERY) for port in bsas.ports]
            self.assertEqual(len({der for _, _, der in answers}), 3)
            for status, body, _ in answers:
                self.assertEqual(status, 200)
                for part in ("<Tag>4</Tag>", "<MessageID>m-1</MessageID>", "<Status>0</Status>",
                             "<Source>p-1</Source>", "<Destination>bsm</Destination>",
                             "<ContentID>urn:1</ContentID>"):
                    self.assertIn(part, body)
            broken = DELIVERY.replace("<Data>0A</Data>", "")
            self.assertEqual(self.post(bsas.ports[0], broken)[0], 400)
        finally:
            told = bsas.stop()
        self.assertEqual((told["connections"], told["deliveries"], told["broken"]), (4, 3, 1))

    def test_answers_are_held_and_let_go(self):
        bsas = self.bsas()
        answers = []
        try:
            bsas.hold(True)
            asks = [threading.Thread(target=lambda p=p: answers.append(self.post(p, DELIVERY)))
                    for p in bsas.ports]
            for ask in asks:
                ask.start()
            asks[0].join(0.5)  # in which an answer would have come
            self.assertEqual(answers, [])
            bsas.hold(False)
            for ask in asks:
                ask.join(10)
            self.assertEqual([a[0] for a in answers], [200] * 3)
            bsas.hold(True)
            with self.assertRaises(TimeoutError):  # one that goes while it is held
                self.post(bsas.ports[0], DELIVERY, timeout=0.3)
            bsas.hold(False)
            self.assertEqual(self.post(bsas.ports[0], DELIVERY)[0], 200)
        finally:
            told = bsas.stop()
        self.assertEqual(told["broken"], 0)

    def test_the_log_is_read_by_key(self):
        records = [
            {"ev": "tek.generated", "keyid": "k", "t": "2026-01-01T00:00:00.000001Z"},
            {"ev": "delivery.prepared", "mid": "m", "keyid": "k", "t": "2026-01-01T00:00:01.000000Z"},
            {"ev": "delivery.attempt", "mid": "m", "t": "2026-01-01T00:00:02.000000Z"},
            {"ev": "delivery.confirmed", "mid": "m", "t": "2026-01-01T00:00:02.500001Z"},
        ]
        with tempfile.TemporaryDirectory() as where:
            with open(os.path.join(where, "audit.jsonl"), "w", encoding="utf-8") as f:
                f.writelines(json.dumps(r) + "\n" for r in records)
            key = push.read_log(where)["k"]
        self.assertEqual(key.prepared_after(), 999_999)
        self.assertEqual(key.confirmed_after(), 2_500_000)
        self.assertEqual(len(key.attempts["m"]), 1)
        self.assertAlmostEqual(key.rate(min(key.attempts["m"])), 1 / 0.500001)
        key.check(1)
        with self.assertRaises(tools.BenchError):
            key.check(2)


class RawLoop(Bench):
    def setUp(self):
        os.makedirs(self.path("tokens"), exist_ok=True)
        with open(self.path("softhsm2.conf"), "w", encoding="utf-8") as f:
            f.write(f"directories.tokendir = {self.path('tokens')}\nlog.level = ERROR\n")
        self.env = dict(os.environ, SOFTHSM2_CONF=self.path("softhsm2.conf"))
        subprocess.run(["softhsm2-util", "--init-token", "--free", "--label", self.id()[-30:],
                        "--so-pin", "12345678", "--pin", "1234"], env=self.env, check=True,
                       stdout=subprocess.DEVNULL)
        self.write_pin("1234")

    def write_pin(self, pin):
        with open(self.path("pin"), "w", encoding="ascii", opener=lambda path, flags:
                  os.open(path, flags, 0o600)) as f:
            f.write(pin)

    def raw(self, *args):
        return run("bench_rawloop", "--module", SOFTHSM, "--token", self.id()[-30:], "--pin-file",
                   self.path("pin"), "--storage-kek", "s", "--bsa-kek", "b", *args, env=self.env)

    def test_counts_each_operation_of_each_process(self):
        self.assertEqual(self.raw("--make-keys", "--more-keks", 2).returncode, 0)
        done = self.raw("--processes", 2, "--count", 50)
        self.assertEqual(done.returncode, 0, done.stderr)
        r = json.loads(done.stdout)
        self.assertEqual((r["operations"], r["each"]), (100, [50, 50]))
        self.assertGreater(r["rate"], 0)
        for label, status in (("b-1", 0), ("b-2", 1)):
            done = self.raw("--processes", 1, "--count", 5, "--bsa-kek", label)
            self.assertEqual(done.returncode, status, done.stderr)

    def test_needs_its_keys(self):
        done = self.raw("--count", 1)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no keys with label s", done.stderr)

    def test_names_a_refused_pin(self):
        self.write_pin("4321")
        done = self.raw("--count", 1, "--processes", 1)
        self.assertEqual(done.returncode, 1)
        self.assertIn("C_Login: ", done.stderr)


class Log(unittest.TestCase):
    """bench_log; that its log is verified is tested where the verifiers are."""

    def made(self, folder, *args):
        done = run("bench_log", "--dir", folder, *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_is_as_long_as_it_says_and_its_sums_are_right(self):
        with tempfile.TemporaryDirectory() as where:
            folder = os.path.join(where, "log")
            told = self.made(folder, "--records", 5000)
            with open(os.path.join(folder, "audit.jsonl"), "rb") as f:
                lines = f.read().splitlines(keepends=True)
            self.assertGreaterEqual(len(lines), 5000)
            self.assertEqual((told["records"], told["octets"]), (len(lines), sum(map(len, lines))))
            with open(os.path.join(folder, "checkpoints.txt"), encoding="utf-8") as f:
                self.assertEqual(f.read().count("\n\n"), 2 * told["checkpoints"])
            subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
            done = run("bench_log", "--dir", folder)
            self.assertEqual((done.returncode, "EEXIST" in done.stderr), (1, True))

    def test_has_the_events_of_both_loads(self):
        with tempfile.TemporaryDirectory() as where:
            self.made(os.path.join(where, "log"), "--records", 20000)
            with open(os.path.join(where, "log", "audit.jsonl"), encoding="utf-8") as f:
                events = [json.loads(line)["ev"] for line in f]
        self.assertEqual({"tek.generated", "request.answered", "answer.sent", "request.repeated",
                          "request.refused", "delivery.prepared", "delivery.attempt",
                          "delivery.confirmed", "log.heartbeat"} - set(events), set())
        push = sum(ev.startswith("delivery.") for ev in events)
        self.assertTrue(0.4 < push / len(events) < 0.6, push)

    def test_a_lone_client_has_a_checkpoint_for_each_answer(self):
        with tempfile.TemporaryDirectory() as where:
            told = self.made(os.path.join(where, "log"), "--records", 3000, "--batch", 1)
        self.assertGreater(told["checkpoints"], told["messages"])


class Driver(unittest.TestCase):
    """The parts of bench.py that need no server."""

    BURN = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.3: pass\n"

    def test_cpu_of_a_worker_that_ended_is_not_lost(self):
        before = procs.Cpu(os.getpid())
        subprocess.run([sys.executable, "-c", self.BURN], check=True)
        used = procs.Cpu(os.getpid()).since(before)
        self.assertGreaterEqual(used["others"], 0.25)
        self.assertEqual(used["each"], {})

    def test_cpu_is_told_apart_by_process(self):
        before = procs.Cpu(os.getpid())
        with subprocess.Popen([sys.executable, "-c", self.BURN + "print(flush=True); input()"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            used = procs.Cpu(os.getpid()).since(before)
            self.assertIn(child.pid, procs.family(os.getpid()))
            self.assertGreater(procs.family_rss_mb(os.getpid())[1][0], 1)
            child.communicate(b"\n")
        self.assertGreaterEqual(next(iter(used["each"].values())), 0.25)
        self.assertLess(used["server"], used["others"])
        self.assertNotIn(child.pid, procs.family(os.getpid()))

    def test_what_a_program_took_is_its_own(self):
        ballast = bytearray(os.urandom(1 << 20) * 200)  # of this process, which forks it
        took = audit.measured([sys.executable, "-c", self.BURN])
        self.assertGreater(len(ballast) / 2**20, took["rss"])
        self.assertGreater(took["rss"], 4)
        self.assertGreaterEqual(took["cpu"], 0.3)
        self.assertGreaterEqual(took["seconds"], took["cpu"] * 0.9)
        with self.assertRaises(tools.BenchError) as caught:
            audit.measured([sys.executable, "-c", "import sys; sys.exit('why')"])
        self.assertIn("why", str(caught.exception))
        with self.assertRaises(tools.BenchError):
            audit.measured([sys.executable, "-c", "while True: pass"], timeout=0.5)

    def test_ratios_are_of_the_same_round(self):
        self.assertEqual(report.ratios([1, 6], [2, 3]), [0.5, 2])
        self.assertEqual(report.median([3, 1, 2]), 2)

    def test_settings_are_read_in_block_and_flow_style(self):
        with tempfile.TemporaryDirectory() as where:
            for text in ("hsm:\n  module: /m.so\n  token: \"pkcs11:token=t\"  # why\n",
                         "hsm: {module: /m.so, token: \"pkcs11:token=t\", workers: 2}\n"):
                with open(os.path.join(where, "tekd.yaml"), "w", encoding="utf-8") as f:
                    f.write(text)
                token = instance.Token(where)
                self.assertEqual((token.module, token.label), ("/m.so", "t"))
                self.assertEqual(token.storage_kek, "tekd-storage")

    def test_a_copied_state_has_a_token_of_its_own(self):
        with tempfile.TemporaryDirectory() as where:
            source, target = os.path.join(where, "one"), os.path.join(where, "two")
            os.makedirs(os.path.join(source, "tokens"))
            with open(os.path.join(source, "softhsm2.conf"), "w", encoding="utf-8") as f:
                f.write(f"directories.tokendir = {source}/tokens\nlog.level = ERROR\n")
            instance.copy_state(source, target)
            with open(os.path.join(target, "softhsm2.conf"), encoding="utf-8") as f:
                self.assertEqual(f.read(), f"directories.tokendir = {target}/tokens\n"
                                           "log.level = ERROR\n")

    def test_a_program_that_fails_is_an_error(self):
        with self.assertRaises(tools.BenchError) as caught:
            tools.call([sys.executable, "-c", "import sys; sys.exit('why')"])
        self.assertIn("why", str(caught.exception))
        with self.assertRaises(tools.BenchError) as caught:
            tools.call([sys.executable, "-c", "while True: pass"], timeout=0.5)
        self.assertIn("longer than", str(caught.exception))
        with self.assertRaises(tools.BenchError):
            tools.Programs("/nonexistent").product("tekd")


if __name__ == "__main__":
    PROGRAMS = os.path.abspath(sys.argv.pop(1))
    unittest.main()
