"""What the token wraps, unwrapped by python-cryptography: another implementation altogether.

    check_unwrap.py TEK-PROVISION TOKEN-ROUNDTRIP SOFTHSM
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import unittest

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import (InvalidUnwrap, aes_key_unwrap,
                                                    aes_key_unwrap_with_padding, aes_key_wrap,
                                                    aes_key_wrap_with_padding)

CONSTANT = hashlib.sha256(b"tekd KEK fingerprint 1").digest()
OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)


class Unwrap(unittest.TestCase):
    provision, roundtrip, module = sys.argv[1:4]

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="tekd-unwrap-")
        os.mkdir(cls.path("tokens"))
        cls.write("softhsm2.conf", f"directories.tokendir = {cls.path('tokens')}\n")
        os.environ["SOFTHSM2_CONF"] = cls.path("softhsm2.conf")
        cls.run_provision("token", "--label", "t", "--so-pin-file", cls.path("so.pin"),
                          "--generate-pins", token=False)
        cls.keks = {}
        for label, use, wrap in (("storage", "storage", "aes-kw"), ("bsa", "bsa", "aes-kw"),
                                 ("padded", "bsa", "aes-kwp")):
            cls.keks[label] = os.urandom(32)
            cls.write(f"{label}.hex", cls.keks[label].hex() + "\n")
            cls.run_provision("kek", "import", "--label", label, "--use", use, "--wrap", wrap,
                              "--from", cls.path(f"{label}.hex"))
        cls.run_provision("kek", "bsa", "--label", "handed", "--export-demo",
                          cls.path("handed.kek"))
        with open(cls.path("handed.kek"), encoding="ascii") as f:
            cls.keks["handed"] = bytes.fromhex(f.read().strip())
        cls.rsa = rsa.generate_private_key(65537, 2048)
        cls.write("rsa.pem", cls.rsa.public_key().public_bytes(
            serialization.Encoding.PEM,
            serialization.PublicFormat.SubjectPublicKeyInfo).decode())
        cls.run_provision("kek", "public", "--label", "rsa", "--from", cls.path("rsa.pem"))
        printed = subprocess.run(
            [cls.roundtrip, cls.module, "pkcs11:token=t", cls.path("hsm.pin"),
             "storage", "storage", "aes-kw", "bsa", "bsa", "aes-kw", "padded", "bsa", "aes-kwp",
             "handed", "bsa", "aes-kw", "rsa", "bsa", "rsa-oaep-sha1"],
            check=True, stdout=subprocess.PIPE, timeout=60).stdout
        cls.made = json.loads(printed)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    @classmethod
    def write(cls, name, text):
        with open(os.open(cls.path(name), os.O_WRONLY | os.O_CREAT, 0o600), "w",
                  encoding="ascii") as f:
            f.write(text)

    @classmethod
    def run_provision(cls, *words, token=True):
        more = ("--token", "pkcs11:token=t") if token else ()
        return subprocess.run([cls.provision, *words, *more, "--module", cls.module, "--profile",
                               "softhsm", "--pin-file", cls.path("hsm.pin")],
                              check=True, capture_output=True, timeout=60)

    def unwrap(self, label, blob):
        if label == "rsa":
            return self.rsa.decrypt(blob, OAEP)
        if label == "padded":
            return aes_key_unwrap_with_padding(self.keks[label], blob)
        return aes_key_unwrap(self.keks[label], blob)

    def test_every_kek_gives_the_same_tek(self):
        for tek in self.made["teks"]:
            clear = {self.unwrap(label, bytes.fromhex(tek[label]))
                     for label in ("storage", "bsa", "padded", "handed", "rsa")}
            self.assertEqual(len(clear), 1)
            self.assertEqual(len(clear.pop()), tek["bits"] // 8)

    def test_what_is_unwrapped_wraps_to_the_same_octets(self):
        for tek in self.made["teks"]:
            clear = aes_key_unwrap(self.keks["storage"], bytes.fromhex(tek["storage"]))
            self.assertEqual(aes_key_wrap(self.keks["storage"], clear).hex(), tek["storage"])
            self.assertEqual(aes_key_wrap(self.keks["bsa"], clear).hex(), tek["bsa"])
            self.assertEqual(aes_key_wrap_with_padding(self.keks["padded"], clear).hex(),
                             tek["padded"])
            self.assertEqual(tek["again"], tek["storage"])

    def test_no_tek_comes_twice(self):
        clear = [self.unwrap("bsa", bytes.fromhex(tek["bsa"])) for tek in self.made["teks"]]
        self.assertEqual(len(set(clear)), len(clear))

    def test_another_kek_does_not_open_it(self):
        blob = bytes.fromhex(self.made["teks"][0]["bsa"])
        with self.assertRaises(InvalidUnwrap):
            aes_key_unwrap(self.keks["handed"], blob)

    def test_fingerprints_are_what_the_documents_say(self):
        prints = self.made["fingerprints"]
        for label in ("storage", "bsa", "handed"):
            self.assertEqual(hashlib.sha256(aes_key_wrap(self.keks[label], CONSTANT)).hexdigest(),
                             prints[label])
        padded = aes_key_wrap_with_padding(self.keks["padded"], CONSTANT)
        self.assertEqual(hashlib.sha256(padded).hexdigest(), prints["padded"])
        spki = self.rsa.public_key().public_bytes(serialization.Encoding.DER,
                                                  serialization.PublicFormat.SubjectPublicKeyInfo)
        self.assertEqual(hashlib.sha256(spki).hexdigest(), prints["rsa"])
        listed = json.loads(self.run_provision("list", "--json").stdout)
        self.assertEqual({k["label"]: k["fingerprint"] for k in listed}, prints)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
