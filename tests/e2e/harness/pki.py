"""Certificates for the tests, made by python-cryptography: everything a PKI can do wrong included."""

import datetime
import ipaddress
import os
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
HOUR = datetime.timedelta(hours=1)


def now():
    return datetime.datetime.utcnow()


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def write_key(path, key):
    octets = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                               serialization.NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(octets)


def write_cert(path, *certs):
    with open(path, "wb") as f:
        for cert in certs:
            f.write(cert.public_bytes(serialization.Encoding.PEM))


def fingerprint(path):
    """SHA-256 of the DER: what a BSA is enrolled with."""
    with open(path, "rb") as f:
        cert = x509.load_pem_x509_certificate(f.read())
    return sha256(cert.public_bytes(serialization.Encoding.DER)).hexdigest()


class Ca:
    """A CA whose certificates, keys and CRL stand in a folder as NAME.crt, NAME.key, ca.crl."""

    def __init__(self, folder, name="ca"):
        self.folder = folder
        self.file = name
        self.revoked = []
        os.makedirs(folder, exist_ok=True)
        self.key = new_key()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tests {name}")])
        usage = x509.KeyUsage(digital_signature=False, content_commitment=False,
                              key_encipherment=False, data_encipherment=False,
                              key_agreement=False, key_cert_sign=True, crl_sign=True,
                              encipher_only=False, decipher_only=False)
        self.cert = (self._builder(self.name, self.key.public_key(), -DAY, 3650 * DAY)
                     .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
                     .add_extension(usage, True)
                     .sign(self.key, hashes.SHA256()))
        write_cert(self.path(f"{name}.crt"), self.cert)
        write_key(self.path(f"{name}.key"), self.key)

    def __getstate__(self):
        return {"folder": self.folder, "file": self.file, "revoked": self.revoked}

    def __setstate__(self, kept):
        self.__dict__.update(kept)
        with open(self.path(f"{self.file}.key"), "rb") as f:
            self.key = serialization.load_pem_private_key(f.read(), None)
        with open(self.path(f"{self.file}.crt"), "rb") as f:
            self.cert = x509.load_pem_x509_certificate(f.read())
        self.name = self.cert.subject

    def copied_to(self, folder):
        """The same CA, whose files somebody copied there."""
        other = Ca.__new__(Ca)
        other.__setstate__({**self.__getstate__(), "folder": folder})
        return other

    def path(self, name):
        return os.path.join(self.folder, name)

    def _builder(self, subject, public_key, begin, end):
        ski = x509.SubjectKeyIdentifier.from_public_key
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
                .public_key(public_key).serial_number(x509.random_serial_number())
                .not_valid_before(now() + begin).not_valid_after(now() + end)
                .add_extension(ski(public_key), False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    self.key.public_key()), False))

    def issue(self, name, begin=-HOUR, end=365 * DAY, public_key=None, hosts=None,
              usages=(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)):
        """NAME.crt for a new key in NAME.key, or for a public key whose private half is elsewhere."""
        if public_key is None:
            key = new_key()
            public_key = key.public_key()
            write_key(self.path(f"{name}.key"), key)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName(
            [x509.DNSName(h) for h in hosts] if hosts else
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        cert = (self._builder(subject, public_key, begin, end)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
                .add_extension(x509.ExtendedKeyUsage(list(usages)), False)
                .add_extension(names, False)
                .sign(self.key, hashes.SHA256()))
        write_cert(self.path(f"{name}.crt"), cert)
        return cert

    def revoke(self, cert):
        self.revoked.append(cert.serial_number)

    def write_crl(self, path=None, begin=-HOUR, end=30 * DAY):
        builder = (x509.CertificateRevocationListBuilder().issuer_name(self.name)
                   .last_update(now() + begin).next_update(now() + end))
        for serial in self.revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial)
                .revocation_date(now() - HOUR).build())
        octets = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        with open(path or self.path("ca.crl"), "wb") as f:
            f.write(octets)
