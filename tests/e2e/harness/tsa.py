"""A time-stamping authority: openssl ts behind a web server, with moods."""

import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from . import pki
from .moody import Moody
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


class Tsa(Moody):
    """Serves until close()."""

    KIND = "application/timestamp-reply"

    def __init__(self, folder, ca=None):
        """ca: a pki.Ca whose "tsa-web" certificate is shown; None: plain HTTP."""
        super().__init__()
        self.folder = str(folder)
        self.first = None
        self.ca = pki.Ca(self.folder, "tsa-ca")
        self.ca_file = self.ca.path("tsa-ca.crt")
        self._issue("tsa", datetime.timedelta(days=30))
        for name, digests in (("good", "sha256"), ("refuse", "sha512")):
            with open(self.path(f"{name}.cnf"), "w", encoding="ascii") as f:
                f.write(CONFIG.format(folder=self.folder, digests=digests))
        self.serve("/tsr", ca, "tsa-web")

    def look(self, handler):
        assert handler.headers["Content-Type"] == "application/timestamp-query"

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

    def when_another_type(self, handler, question):
        handler.send(self.stamp(question), kind="text/html\x07")
