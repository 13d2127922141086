"""A time-stamping authority: openssl ts behind a web server, with moods."""

import datetime
import http.server
import os
import ssl
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from . import pki
from .procs import run
from .programs import tool

CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = {digests}
ess_cert_id_alg = sha256
"""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):  # pylint: disable=invalid-name
        tsa = self.server.tsa
        question = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/timestamp-query"
        tsa.asked += 1
        getattr(tsa, f"when_{tsa.mood}")(self, question)

    def send(self, octets, status=200, kind="application/timestamp-reply", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(octets)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, *_):
        """No lines on standard error."""


class Tsa:
    """Serves until close(). mood: how it answers; one of the when_… below."""

    def __init__(self, folder, ca=None):
        """ca: a pki.Ca whose "tsa-web" certificate is shown; None: plain HTTP."""
        self.folder = str(folder)
        self.mood = "good"
        self.asked = 0
        self.first = None
        self.released = threading.Event()
        self.ca = pki.Ca(self.folder, "tsa-ca")
        self.ca_file = self.ca.path("tsa-ca.crt")
        self._issue("tsa", datetime.timedelta(days=30))
        for name, digests in (("good", "sha256"), ("refuse", "sha512")):
            with open(self.path(f"{name}.cnf"), "w", encoding="ascii") as f:
                f.write(CONFIG.format(folder=self.folder, digests=digests))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.tsa = self
        self.server.daemon_threads = True
        scheme = "http"
        if ca is not None:
            ca.issue("tsa-web")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(ca.path("tsa-web.crt"), ca.path("tsa-web.key"))
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}/tsr"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def path(self, name):
        return os.path.join(self.folder, name)

    def _issue(self, name, lasts):
        key = pki.new_key()
        now = pki.now()
        cert = (x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .issuer_name(self.ca.name).public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - pki.DAY * 60).not_valid_after(now + lasts)
                .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), True)
                .sign(self.ca.key, hashes.SHA256()))
        pki.write_cert(self.path(f"{name}.crt"), cert)
        pki.write_key(self.path(f"{name}.key"), key)

    def stamp(self, question, config="good", signer="tsa"):
        with open(self.path("question"), "wb") as f:
            f.write(question)
        run([tool("openssl"), "ts", "-reply", "-config", self.path(f"{config}.cnf"),
             "-queryfile", self.path("question"), "-signer", self.path(f"{signer}.crt"), "-inkey",
             self.path(f"{signer}.key"), "-out", self.path("answer")])
        with open(self.path("answer"), "rb") as f:
            return f.read()

    # ---- moods ----

    def when_good(self, handler, question):
        answer = self.stamp(question)
        self.first = self.first or answer
        handler.send(answer)

    def when_replaying(self, handler, _):
        handler.send(self.first)

    def when_refusing(self, handler, question):
        handler.send(self.stamp(question, config="refuse"))

    def when_expired(self, handler, question):
        if not os.path.exists(self.path("expired.crt")):
            self._issue("expired", -pki.DAY)
        handler.send(self.stamp(question, signer="expired"))

    def when_cut(self, handler, question):
        handler.send(self.stamp(question)[:-7])

    def when_broken(self, handler, _):
        handler.send(b"<html>", status=500, kind="text/html")

    def when_elsewhere(self, handler, _):
        handler.send(b"", status=302, Location="http://127.0.0.1:1/")

    def when_another_type(self, handler, question):
        handler.send(self.stamp(question), kind="text/html\x07")

    def when_endless(self, handler, _):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/timestamp-reply")
        handler.end_headers()
        try:
            for _ in range(1 << 20):
                handler.wfile.write(b"x" * 1024)
        except OSError:
            pass

    def when_hanging(self, *_):
        self.released.wait(60)

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
