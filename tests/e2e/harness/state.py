"""The folder a server lives in: token, KEKs whose clear value is known, certificates, enrolments.

Made once by the project's own tools, and copied for each test.
"""

import os
import shutil
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from . import pki
from .procs import run
from .programs import program, softhsm

BSM = "bsm.example.net"
SOFTHSM_CONF = "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n"


@dataclass(frozen=True)
class Bsa:
    """A BSA as the tests play it."""
    name: str
    kek_label: str
    wrap: str
    kek: Any  # octets, or an RSA private key
    enrol: tuple  # options of "bsa add"


def _write(path, text, mode=0o600):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as f:
        f.write(text)


class Template:
    """template.folder: pki/ tokens/ hsm.pin so.pin softhsm2.conf checkpoint.pem tekd-tls.pem."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(os.path.join(folder, "tokens"), exist_ok=True)
        self.conf = os.path.join(folder, "softhsm2.conf")
        write_softhsm_conf(folder)
        self._make_token()
        self._make_pki()
        self.bsas = {b.name: b for b in self._make_bsas()}
        # Label -> (wrap, octets): KEKs that nobody has yet.
        self.spare = {f"spare-{wrap}-{n}": (wrap, self._import_kek(f"spare-{wrap}-{n}", wrap))
                      for wrap, n in (("aes-kw", 1), ("aes-kw", 2), ("aes-kwp", 1))}
        with open(os.path.join(folder, "hsm.pin"), encoding="ascii") as f:
            self.pin = f.read().strip()

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def provision(self, *words, token=True):
        options = ["--module", softhsm(), "--profile", "softhsm", "--env",
                   f"SOFTHSM2_CONF={self.conf}", "--pin-file", self.path("hsm.pin")]
        if token:
            options += ["--token", "pkcs11:token=tekd"]
        run([program("tek-provision"), *words, *options])

    def _make_token(self):
        self.provision("token", "--label", "tekd", "--so-pin-file", self.path("so.pin"),
                       "--generate-pins", token=False)
        self.provision("kek", "storage", "--label", "tekd-storage")
        self.provision("key", "checkpoint", "--label", "tekd-checkpoint", "--out",
                       self.path("checkpoint.pem"))
        self.provision("key", "tls", "--label", "tekd-tls", "--out", self.path("tekd-tls.pem"))

    def _make_pki(self):
        self.ca = ca = pki.Ca(self.path("pki"))
        for name in ("tekd", "bsa-1", "bsa-1-next", "bsa-2", "bsa-3", "bsa-4", "stranger"):
            ca.issue(name)
        ca.issue("expired", begin=-10 * pki.DAY, end=-pki.DAY)
        ca.issue("not-yet", begin=pki.DAY, end=10 * pki.DAY)
        ca.issue("server-only", usages=(pki.ExtendedKeyUsageOID.SERVER_AUTH,))
        ca.revoke(ca.issue("revoked"))
        ca.write_crl()
        with open(self.path("tekd-tls.pem"), "rb") as f:
            ca.issue("tekd-tls", public_key=serialization.load_pem_public_key(f.read()))
        other = pki.Ca(self.path("other-pki"))
        other.issue("bsa-1")

    def _import_kek(self, label, wrap):
        kek = os.urandom(32)
        path = self.path(f"{label}.hex")
        _write(path, kek.hex() + "\n")
        self.provision("kek", "import", "--use", "bsa", "--label", label, "--wrap", wrap,
                       "--from", path)
        os.unlink(path)
        return kek

    def _make_bsas(self):
        yield Bsa("bsa-1", "bsa-1-kek", "aes-kw", self._import_kek("bsa-1-kek", "aes-kw"),
                  ("--entitle", "*"))
        self.provision("kek", "bsa", "--label", "bsa-2-kek", "--export-demo",
                       self.path("bsa-2.kek"))
        with open(self.path("bsa-2.kek"), encoding="ascii") as f:
            kek = bytes.fromhex(f.read().strip())
        os.unlink(self.path("bsa-2.kek"))
        yield Bsa("bsa-2", "bsa-2-kek", "aes-kw", kek, ("--entitle", "*"))
        yield Bsa("bsa-3", "bsa-3-kek", "aes-kwp", self._import_kek("bsa-3-kek", "aes-kwp"),
                  ("--wrap", "aes-kwp", "--form", "efficient", "--entitle", "urn:three:*"))
        yield self._rsa_bsa()

    def _rsa_kek(self, label):
        key = rsa.generate_private_key(65537, 2048)
        path = self.path(f"{label}.pem")
        with open(path, "wb") as f:
            f.write(key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        self.provision("kek", "public", "--label", label, "--wrap", "rsa-oaep-sha1",
                       "--from", path)
        return key

    def _rsa_bsa(self):
        return Bsa("bsa-4", "bsa-4-kek", "rsa-oaep-sha1", self._rsa_kek("bsa-4-kek"),
                   ("--wrap", "rsa-oaep-sha1", "--no-key-info", "--entitle", "*"))


class PushTemplate(Template):
    """The same token and certificates with BSAs for the push case besides: peers p-0 ... p-9.

    They are of all kinds that a delivery is written for; nobody is enrolled.
    """

    KINDS = (  # wrap, options of "bsa add"
        ("aes-kw", ()),
        ("aes-kwp", ("--media", "json")),
        ("aes-kw", ("--no-key-info",)),
        ("rsa-oaep-sha1", ("--media", "json", "--form", "efficient")),
        ("aes-kw", ("--media", "json")),
    )
    PEERS = 10

    def __init__(self, base, folder):  # pylint: disable=super-init-not-called
        self.bsas, self.pin = base.bsas, base.pin
        self.folder = copy(base.folder, folder)
        self.ca = base.ca.copied_to(self.path("pki"))
        for i in range(self.PEERS):
            self.ca.issue(f"p-{i}")
        self.ca.issue("elsewhere", hosts=("elsewhere.example", "p-0"))
        self.conf = os.path.join(folder, "softhsm2.conf")
        pki.Ca(self.path("other-pki")).issue("p-other")
        self.peers = {b.name: b for b in map(self._make_peer, range(self.PEERS))}
        self.enrolled = None  # the folder of a server that has them all

    def _make_peer(self, i):
        wrap, options = self.KINDS[i % len(self.KINDS)]
        name, label = f"p-{i}", f"p-{i}-kek"
        rsa_key = wrap.startswith("rsa")
        kek = self._rsa_kek(label) if rsa_key else self._import_kek(label, wrap)
        # Every other one brings the CA of its own, which happens to be the same.
        own_ca = ("--ca", self.path("pki", "ca.crt")) if i % 2 else ()
        return Bsa(name, label, wrap, kek, ("--wrap", wrap, *options, *own_ca, "--entitle", "*"))


def write_softhsm_conf(folder):
    _write(os.path.join(folder, "softhsm2.conf"),
           SOFTHSM_CONF.format(os.path.join(folder, "tokens")), 0o644)


def copy(source, target):
    """A state folder of its own; SoftHSM wants the absolute path of its tokens."""
    shutil.copytree(source, target)
    write_softhsm_conf(target)
    return target
