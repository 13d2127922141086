"""A development PKI for the benchmark: a CA, and EC P-256 certificates for both ends of TLS."""

import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def _write(path, data, mode):
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as f:
        f.write(data)


def _save(prefix, cert, key):
    _write(prefix + ".crt", cert.public_bytes(serialization.Encoding.PEM), 0o644)
    _write(prefix + ".key", key.private_bytes(serialization.Encoding.PEM,
                                              serialization.PrivateFormat.PKCS8,
                                              serialization.NoEncryption()), 0o600)


def _builder(subject, issuer, public_key):
    now = datetime.datetime.utcnow()
    return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
            .public_key(public_key).serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY).not_valid_after(now + 30 * DAY))


def _name(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Authority:
    """A CA whose certificate and key are files PREFIX.crt and PREFIX.key."""

    def __init__(self, cert, key):
        self.cert, self.key = cert, key

    @classmethod
    def make(cls, prefix):
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("benchmark CA")
        cert = (_builder(name, name, key.public_key())
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .sign(key, hashes.SHA256()))
        _save(prefix, cert, key)
        return cls(cert, key)

    @classmethod
    def load(cls, prefix):
        with open(prefix + ".crt", "rb") as f:
            cert = x509.load_pem_x509_certificate(f.read())
        with open(prefix + ".key", "rb") as f:
            key = serialization.load_pem_private_key(f.read(), None)
        return cls(cert, key)

    def issue(self, prefix, common_name):
        """A certificate for clientAuth and serverAuth on localhost: PREFIX.crt, PREFIX.key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        cert = (_builder(_name(common_name), self.cert.subject, key.public_key())
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(x509.SubjectAlternativeName(names), critical=False)
                .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
                .sign(self.key, hashes.SHA256()))
        _save(prefix, cert, key)
