"""A small BSM: pushes Key Deliveries, lets them be collected, and judges the confirmations.

Shares no code with tekd or tek-bsa; what it sends and takes is written and read by cp3py.
"""

import json
import os
import ssl
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.keywrap import aes_key_wrap, aes_key_wrap_with_padding

from cp3py import client, messages

from . import pki

BSM, BSA = "bsm.example.net", "bsa-1"
WRAPS = {"aes-kw": aes_key_wrap, "aes-kwp": aes_key_wrap_with_padding}


# Deliveries that are wrong in one place: how they become so, and what tek-bsa says of it.
OTHER_KEK = bytes.fromhex("64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7")
WRONG = {
    "source": (lambda m: m.but(source="bsm2"), "Source", "bsm.example.net", "bsm2"),
    "destination": (lambda m: m.but(destination="bsa-2"), "Destination", "bsa-1", "bsa-2"),
    "not swapped": (lambda m: m.but(source=m.destination, destination=m.source), "Source",
                    "bsm.example.net", "bsa-1"),
    "version": (lambda m: m.but(version=2), "Version", "1", "2"),
    "altered": (lambda m: m.but(data=bytes([m.data[0] ^ 1]) + m.data[1:]), "Data",
                "Data that unwraps (aes-kw) with our KEK",
                "Data wrapped under another key, or altered"),
    "another KEK": (lambda m: m.but(data=OTHER_KEK), "Data",
                    "Data that unwraps (aes-kw) with our KEK",
                    "Data wrapped under another key, or altered"),
    "length": (lambda m: m.but(data=m.data + b"\0"), "Data", "Data of a length that aes-kw has",
               "25 octets"),
    "wrap": (lambda m: m.but(key_info={**m.key_info, "wrap": "aes-kwp"}), "KeyInfo.wrap", "aes-kw",
             "aes-kwp"),
    "bits": (lambda m: m.but(key_info={**m.key_info, "bits": 256}), "TEK",
             "a key of 256 bits, as KeyInfo says", "128"),
}


class Bsm:
    """One BSM and its PKI; `deliveries` are open until confirmed, `collectable` wait for a GET."""

    def __init__(self, folder):
        self.folder = folder
        self.ca = pki.Ca(os.path.join(folder, "pki"))
        for name in ("bsm", "bsa-1", "bsa-2"):
            self.ca.issue(name)
        self.ca.issue("server-only", usages=(pki.ExtendedKeyUsageOID.SERVER_AUTH,))
        self.ca.issue("expired", begin=-10 * pki.DAY, end=-pki.DAY)
        self.other_ca = pki.Ca(os.path.join(folder, "other-pki"))
        for name in ("bsm", "bsa-1"):
            self.other_ca.issue(name)
        self.kek = os.urandom(32)
        self.kek_path = os.path.join(folder, "bsa-1.kek")
        with open(os.open(self.kek_path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
            f.write(self.kek.hex() + "\n")
        self.lock = threading.Lock()
        self.deliveries = {}  # MessageID -> (delivery, set of the Status of its confirmations)
        self.collectable = []  # octets and media, in the order in which they are given
        self.confirmations = []  # (message, HTTP status it was answered)
        self.gets = []  # (time, query) of each GET
        self.answers = []  # what a POST or GET is answered instead: (HTTP status, headers, body)
        self.hold = None  # an Event: confirmations wait for it
        self.posts = 0  # that have come in
        self.server = None

    def pem(self, name, folder="pki"):
        return os.path.join(self.folder, folder, name)

    # ---- deliveries ----

    def delivery(self, content="urn:x:news", tek=None, mid=None, wrap="aes-kw", key_info=True,
                 **more):
        """A Key Delivery, and the TEK in it; open from now on."""
        tek = tek or os.urandom(16)
        m = messages.Message(
            tag=3, version=1, mid=mid or f"m-{uuid.uuid4()}", content=content, destination=BSA,
            source=BSM, data=WRAPS[wrap](self.kek, tek), time="2026-11-22T13:15:42Z",
            key_info={"keyID": str(uuid.uuid4()), "kekID": "bsa-1/1", "wrap": wrap,
                      "bits": 8 * len(tek)} if key_info else None).but(**more)
        with self.lock:
            self.deliveries[m.mid] = (m, set())
        return m, tek

    def judge(self, c):
        """(HTTP status, reason) of a Confirmation."""
        with self.lock:
            if c.tag != 4 or c.mid not in self.deliveries:
                return 409, "unknown-message"
            delivery, seen = self.deliveries[c.mid]
            if c.form == "full" and c.content != delivery.content:
                return 409, "wrong-content"
            if c.form == "full" and c.source != delivery.destination:
                return 409, "wrong-source"
            if c.form == "full" and c.destination != delivery.source:
                return 409, "wrong-destination"
            if c.status == 1 and 0 in seen:
                return 409, "already-confirmed"
            seen.add(c.status)
            return 204, None

    def confirmed(self, m):
        """Status of each kind that confirmed it."""
        return self.deliveries[m.mid][1]

    # ---- pushing ----

    def context(self, cert="bsm", folder="pki", ca="pki", **versions):
        files = [self.pem(f"{cert}.{e}", folder) for e in ("crt", "key")] if cert else []
        return client.context(self.pem("ca.crt", ca), *files, **versions)

    def connect(self, port, **more):
        return client.Connection(port, self.context(**more))

    def ask(self, port, m, media="xml"):
        """One push on a connection of its own: the answer."""
        with self.connect(port) as c:
            return c.ask(m, media)

    def push(self, port, m, media="xml"):
        """Its Confirmation, which has to be one of this delivery."""
        r = self.ask(port, m, media)
        assert (r.status, r.media) == (200, media), r
        confirmation = r.message()
        assert confirmation.mid == m.mid and self.judge(confirmation) == (204, None), r
        return confirmation

    # ---- as a server ----

    def start(self, cert="bsm", folder="pki"):
        """https://localhost:PORT/cp3, with the client certificates of its CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem(f"{cert}.crt", folder), self.pem(f"{cert}.key", folder))
        context.load_verify_locations(self.pem("ca.crt"))
        context.verify_mode = ssl.CERT_REQUIRED
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.bsm = self
        self.server.context = context
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    @property
    def url(self):
        return f"https://localhost:{self.server.server_address[1]}/cp3"

    def stop(self):
        if self.hold is not None:
            self.hold.set()
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def collect_next(self, wait):
        """The next delivery that waits: (octets, media), or None after that time."""
        deadline = time.monotonic() + wait
        while True:
            with self.lock:
                if self.collectable:
                    return self.collectable.pop(0)
            if time.monotonic() >= deadline or self.server is None:
                return None
            time.sleep(0.01)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    bsm = context = None

    def handle_error(self, request, client_address):
        """A client that goes, or that we do not take, is no error of the test's."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def setup(self):
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self):
        super().finish()
        self.request.close()

    def log_message(self, *_):
        """Not on stderr."""

    def answer(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_scripted(self):
        with self.server.bsm.lock:
            scripted = self.server.bsm.answers.pop(0) if self.server.bsm.answers else None
        if scripted:
            self.answer(*scripted)
        return scripted is not None

    def do_GET(self):  # pylint: disable=invalid-name
        bsm, url = self.server.bsm, urlsplit(self.path)
        query = parse_qs(url.query)
        bsm.gets.append((time.monotonic(), query))
        if self.answer_scripted():
            return
        if url.path != "/cp3/deliveries":
            self.answer(404)
            return
        found = bsm.collect_next(float(query.get("wait", ["0"])[0]))
        if found is None:
            self.answer(204)
        else:
            self.answer(200, [("Content-Type", messages.MEDIA.get(found[1], found[1]))], found[0])

    def do_POST(self):  # pylint: disable=invalid-name
        bsm = self.server.bsm
        body = self.rfile.read(int(self.headers["Content-Length"]))
        bsm.posts += 1
        if bsm.hold is not None:
            bsm.hold.wait(60)
        media = {v: k for k, v in messages.MEDIA.items()}[self.headers["Content-Type"]]
        confirmation = messages.decode(media, body)
        if self.answer_scripted():
            return
        status, reason = bsm.judge(confirmation)
        bsm.confirmations.append((confirmation, status))
        problem = json.dumps({"title": "no such delivery", "status": status}).encode()
        self.answer(status, [("CP3-Reason", reason)] if reason else [],
                    problem if reason else b"")


