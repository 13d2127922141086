"""tek-provision as an operator meets it: exit statuses, refusals, running it twice.

    check_provision.py TEK-PROVISION TOKEN-ROUNDTRIP SOFTHSM SHIM
"""

import fcntl
import json
import os
import stat
import subprocess
import sys
import tempfile
import unittest

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID


class Case(unittest.TestCase):
    provision, _, module, shim = sys.argv[1:5]

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tekd-provision-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        os.mkdir(self.path("tokens"))
        with open(self.path("softhsm2.conf"), "w", encoding="ascii") as f:
            f.write(f"directories.tokendir = {self.path('tokens')}\n")
        self.env = dict(os.environ)
        self.env.pop("SOFTHSM2_CONF", None)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def run_it(self, *words, expect=0):
        done = subprocess.run([self.provision, *words], env=self.env, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=60)
        self.assertEqual(done.returncode, expect, f"{words}\n{done.stdout}{done.stderr}")
        if expect:
            self.assertEqual(done.stdout, "")
            self.assertIn("tek-provision" if expect != 2 else "", done.stderr)
        return done

    def module_options(self):
        return ["--module", self.module, "--profile", "softhsm", "--env",
                f"SOFTHSM2_CONF={self.path('softhsm2.conf')}", "--pin-file", self.path("hsm.pin")]

    def token(self, *words, label="t", expect=0):
        return self.run_it("token", *self.module_options(), "--so-pin-file", self.path("so.pin"),
                           "--label", label, *words, expect=expect)

    def on(self, *words, expect=0, uri="pkcs11:token=t"):
        return self.run_it(*words, *self.module_options(), "--token", uri, expect=expect)

    def shimmed(self, mode):
        """From now on the module is the shim, in this mode (shim.c); "" is as without."""
        self.env.update(SHIM_MODULE=Case.module, SHIM_MODE=mode)
        self.module = self.shim

    def keys(self):
        return {k["label"]: k for k in json.loads(self.on("list", "--json").stdout)}

    def write(self, name, text, mode=0o600):
        with open(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w",
                  encoding="ascii") as f:
            f.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def read(self, name):
        with open(self.path(name), encoding="ascii") as f:
            return f.read()


class Usage(Case):
    def test_help_everywhere(self):
        commands = [line.split()[:2] for line in self.run_it("--help").stdout.splitlines()
                    if line.startswith("  ")]
        self.assertGreaterEqual(len(commands), 12)
        for words in commands:
            words = words if words[0] in ("kek", "key", "pki") else words[:1]
            text = self.run_it(*words, "--help").stdout
            self.assertIn("--json", text)
            self.assertIn("(required)", text)
        for word in ("kek", "key", "pki"):
            told = [line.split()[:2] for line in self.run_it(word, "--help").stdout.splitlines()]
            self.assertEqual(told, [words for words in commands if words[0] == word])

    def test_what_is_no_usage(self):
        for words in ([], ["nonsense"], ["kek"], ["kek", "nonsense"], ["list"], ["x", "--help"],
                      ["list", "--no-such-option"], ["pki", "ca", "--dir"],
                      ["pki", "ca", "--dir", "a", "--dir", "b"], ["pki", "ca", "--dir", "a", "b"],
                      ["pki", "crl", "--dir", "a", "--label", "x"]):
            self.run_it(*words, expect=2)

    def test_pin_has_no_option(self):
        self.on("list", "--pin", "1234", expect=2)
        self.on("list", uri="pkcs11:token=t?pin-value=1234", expect=2)


class Token(Case):
    def test_pins_are_random_and_private(self):
        self.token("--generate-pins")
        for name in ("so.pin", "hsm.pin"):
            self.assertEqual(stat.S_IMODE(os.stat(self.path(name)).st_mode), 0o600)
            self.assertRegex(self.read(name), "^[A-Z2-9]{16}$")
        self.assertNotEqual(self.read("so.pin"), self.read("hsm.pin"))

    def test_again_it_agrees_and_changes_nothing(self):
        first = json.loads(self.token("--generate-pins", "--json").stdout)
        pin = self.read("hsm.pin")
        again = json.loads(self.token("--generate-pins", "--json").stdout)
        self.assertTrue(first["created"])
        self.assertFalse(again["created"])
        self.assertEqual(first["serial"], again["serial"])
        self.assertEqual(pin, self.read("hsm.pin"))

    def test_given_pins_are_taken(self):
        self.write("so.pin", "so-pin-of-mine\n")
        self.write("hsm.pin", "user-pin-of-mine\n")
        self.token()
        self.assertEqual(self.keys(), {})

    def test_without_pin_files_nothing_is_made(self):
        error = self.token(expect=1).stderr
        self.assertIn("so.pin", error)
        self.on("list", expect=3)

    def test_pin_files_that_others_may_read_are_refused(self):
        self.write("so.pin", "so-pin-of-mine", 0o644)
        self.write("hsm.pin", "user-pin-of-mine")
        self.token(expect=1)
        self.on("list", expect=3)

    def test_a_token_of_the_label_is_left_as_it_is(self):
        self.token("--generate-pins")
        os.rename(self.path("hsm.pin"), self.path("good.pin"))
        # Not guessed at: no PIN is made for a token that is there.
        self.assertIn("left as it is", self.token("--generate-pins", expect=1).stderr)
        self.assertFalse(os.path.exists(self.path("hsm.pin")))
        self.write("hsm.pin", "WRONGWRONGWRONG1")
        self.assertIn("CKR_PIN_INCORRECT", self.token(expect=1).stderr)
        os.rename(self.path("good.pin"), self.path("hsm.pin"))
        self.token()

    def test_not_reachable_is_three(self):
        self.write("hsm.pin", "user-pin-of-mine")
        self.assertIn("no token agrees", self.on("list", expect=3).stderr)

    def test_bad_settings_are_two(self):
        self.token("--generate-pins")
        self.on("list", uri="pkcs11:slot-id=0", expect=2)
        self.on("list", "--env", "NOTHING", expect=2)
        options = self.module_options()
        for i, value in ((1, "/no/such/module.so"), (1, sys.executable), (3, "no-such-vendor")):
            self.run_it("list", "--token", "pkcs11:token=t",
                        *(options[:i] + [value] + options[i + 1:]), expect=2)

    def test_wrong_pin_is_one(self):
        self.token("--generate-pins")
        self.write("hsm.pin", "WRONGWRONGWRONG1")
        self.assertIn("C_Login: CKR_PIN_INCORRECT", self.on("list", expect=1).stderr)


class Module(Case):
    """What a module may do to the process that it is in."""

    storage = ("kek", "storage", "--label", "s")

    def test_a_link_that_breaks_is_an_answer(self):
        self.token("--generate-pins")
        self.shimmed("link-is-gone-at-generating")
        self.assertIn("C_GenerateKey: CKR_DEVICE_ERROR", self.on(*self.storage, expect=3).stderr)

    def test_a_token_that_cannot_be_opened_is_there(self):
        """No PIN is made up for it: the next run would try that, and cost the token a try."""
        self.token("--generate-pins")
        for mode, reason in (("no-session-is-left", "agrees with pkcs11:token="),
                             ("tokens-fail", "did not say who they are")):
            os.rename(self.path("hsm.pin"), self.path("good.pin"))
            os.rename(self.path("so.pin"), self.path("good-so.pin"))
            self.shimmed(mode)
            done = self.token("--generate-pins", expect=1 if mode[0] == "n" else 3)
            self.assertIn(reason, done.stderr)
            self.assertFalse(os.path.exists(self.path("hsm.pin")))
            self.assertFalse(os.path.exists(self.path("so.pin")))
            os.rename(self.path("good.pin"), self.path("hsm.pin"))
            os.rename(self.path("good-so.pin"), self.path("so.pin"))
            self.shimmed("")
            self.token()
            self.assertEqual(len(os.listdir(self.path("tokens"))), 1)

    def test_what_it_holds_of_keys_is_not_dumped(self):
        self.token("--generate-pins")
        self.shimmed("refuses-who-can-be-dumped")
        self.on(*self.storage)


class Keys(Case):
    def setUp(self):
        super().setUp()
        self.token("--generate-pins")

    def test_each_kind_is_made_once(self):
        commands = (("kek", "storage", "--label", "s"), ("kek", "bsa", "--label", "b"),
                    ("key", "checkpoint", "--label", "c"), ("key", "tls", "--label", "t"),
                    ("key", "checkpoint", "--label", "e", "--type", "ed25519"))
        for words in commands:
            self.assertTrue(json.loads(self.on(*words, "--json").stdout)["created"])
        before = self.keys()
        for words in commands:
            self.assertFalse(json.loads(self.on(*words, "--json").stdout)["created"])
            self.assertIn("exists and agrees", self.on(*words).stdout)
        self.assertEqual(before, self.keys())
        self.assertEqual({k: v["kind"] for k, v in before.items()},
                         {"s": "storage-kek", "b": "bsa-kek", "c": "signing-key",
                          "t": "signing-key", "e": "signing-key"})
        self.assertEqual((before["c"]["type"], before["e"]["type"]), ("EC", "Edwards"))
        self.assertTrue(all(k["findings"] == [] and not k["imported"] for k in before.values()))

    def test_another_kind_or_id_under_the_label_is_refused(self):
        self.on("kek", "storage", "--label", "s", "--id", "0102")
        self.on("kek", "storage", "--label", "s", "--id", "0102")
        self.assertIn("another id", self.on("kek", "storage", "--label", "s", "--id", "03",
                                            expect=1).stderr)
        self.assertIn("exists for aes-kw", self.on("kek", "storage", "--label", "s", "--wrap",
                                                   "aes-kwp", expect=1).stderr)
        self.on("kek", "bsa", "--label", "s", expect=1)
        self.on("key", "tls", "--label", "s", expect=1)
        self.on("kek", "storage", "--label", "x", "--id", "0", expect=2)
        self.on("kek", "storage", "--label", "x", "--id", "zz", expect=2)
        self.on("kek", "storage", "--label", "x", "--wrap", "rot13", expect=2)
        self.assertEqual(list(self.keys()), ["s"])

    def test_a_weak_key_of_the_label_is_refused(self):
        pin = self.read("hsm.pin")
        subprocess.run(["pkcs11-tool", "--module", self.module, "--login", "--pin", pin,
                        "--token-label", "t", "--keygen", "--key-type", "AES:32", "--label", "s",
                        "--id", "01"], check=True, capture_output=True,
                       env=dict(self.env, SOFTHSM2_CONF=self.path("softhsm2.conf")), timeout=60)
        error = self.on("kek", "bsa", "--label", "s", expect=1).stderr
        self.assertIn("CKA_MODIFIABLE is true, must be false", error)
        self.assertNotEqual(self.keys()["s"]["findings"], [])
        self.assertIn("1 of them weaker", self.on("list").stdout)

    def test_demo_kek_file(self):
        demo = ("kek", "bsa", "--label", "b", "--export-demo", self.path("b.kek"))
        self.assertIn("demonstrations only", self.on(*demo).stderr)
        self.assertEqual(stat.S_IMODE(os.stat(self.path("b.kek")).st_mode), 0o600)
        self.assertRegex(self.read("b.kek"), "^[0-9a-f]{64}\n$")
        self.assertTrue(self.keys()["b"]["imported"])
        self.assertIn("exists and agrees", self.on(*demo).stdout)
        self.write("b.kek", "00" * 32 + "\n")
        self.assertEqual(self.on(*demo, expect=1).stderr, "tek-provision: "
                         f'{self.path("b.kek")} is not the value of key "b"\n')
        self.write("b.kek", "00" * 16 + "\n")
        self.assertIn("is not the value of key", self.on(*demo, expect=1).stderr)
        os.unlink(self.path("b.kek"))
        self.assertIn("take another label", self.on(*demo, expect=1).stderr)
        self.assertFalse(os.path.exists(self.path("b.kek")))

    def test_demo_never_overwrites(self):
        self.write("b.kek", "precious\n")
        self.on("kek", "bsa", "--label", "b", "--export-demo", self.path("b.kek"), expect=1)
        self.assertEqual(self.read("b.kek"), "precious\n")
        self.assertEqual(self.keys(), {})

    def receiver(self, name, key):
        public = key.public_key() if hasattr(key, "public_key") else key
        return self.write(name, public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode())

    def test_handed_out_to_a_receiver(self):
        key = rsa.generate_private_key(65537, 3072)
        receiver = self.receiver("receiver.pem", key)
        self.on("kek", "bsa", "--label", "b", "--receiver", receiver, expect=2)
        command = ("kek", "bsa", "--label", "b", "--receiver", receiver, "--out")
        self.on(*command, self.path("b.wrapped"))
        oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        self.assertEqual(len(key.decrypt(bytes.fromhex(self.read("b.wrapped").strip()), oaep)), 32)
        again = self.on(*command, self.path("b.wrapped"))
        self.assertIn("exists and agrees", again.stdout)
        self.assertIn("nothing was wrapped", again.stderr)
        self.assertIn("its wrapped value left the token only then: take another label",
                      self.on(*command, self.path("other"), expect=1).stderr)
        self.assertFalse(os.path.exists(self.path("other")))

    def test_another_receiver_is_not_taken_for_the_first(self):
        """What was wrapped tells its modulus' length, and that it is no smaller than itself."""
        out = self.path("b.wrapped")
        command = ("kek", "bsa", "--label", "b", "--out", out, "--receiver")
        self.on(*command, self.receiver("a.pem", rsa.generate_private_key(65537, 2048)))
        wrapped = self.read("b.wrapped")
        longer = self.receiver("longer.pem", rsa.generate_private_key(65537, 3072))
        self.assertIn(f"{out} is wrapped to another key than that of {longer}",
                      self.on(*command, longer, expect=1).stderr)
        smaller = rsa.RSAPublicNumbers(65537, int(wrapped, 16) - 1 | 1).public_key()
        self.assertIn("is wrapped to another key",
                      self.on(*command, self.receiver("smaller.pem", smaller), expect=1).stderr)
        alike = self.receiver("alike.pem", rsa.RSAPublicNumbers(65537, 2**2048 - 1).public_key())
        self.assertIn(f"whether to the key of {alike} only its owner can see",
                      self.on(*command, alike).stderr)
        self.on(*command, self.path("none.pem"), expect=1)
        self.assertEqual(self.read("b.wrapped"), wrapped)
        for nonsense in ("", "zz" * 256, "00" * 600):
            self.write("b.wrapped", nonsense)
            self.assertIn("holds no wrapped KEK", self.on(*command, alike, expect=1).stderr)

    def test_no_key_is_made_for_a_file_that_cannot_be(self):
        """The value leaves the token once: it must not be lost for want of a folder."""
        public = rsa.generate_private_key(65537, 2048).public_key()
        receiver = self.write("receiver.pem", public.public_bytes(
            serialization.Encoding.PEM,
            serialization.PublicFormat.SubjectPublicKeyInfo).decode())
        nowhere = self.path("none", "b")
        ways = (("--receiver", receiver, "--out"), ("--export-demo",))
        for words in ways:
            command = ("kek", "bsa", "--label", "b", *words, nowhere)
            self.assertIn(f"{nowhere}: No such file or directory",
                          self.on(*command, expect=1).stderr)
        self.assertEqual(self.keys(), {})
        for i, words in enumerate(ways):
            self.on("kek", "bsa", "--label", f"b{i}", *words, self.path(f"b{i}"))
            self.assertTrue(os.path.exists(self.path(f"b{i}")))
            self.assertFalse(os.path.exists(self.path(f"b{i}.new")))
        self.assertEqual(set(self.keys()), {"b0", "b1"})

    def test_a_file_that_another_run_writes_is_left_to_it(self):
        """Two at once: one of them must not name the other's empty file as its own."""
        out = self.path("b.kek")
        command = ("kek", "bsa", "--label", "b", "--export-demo", out)
        with open(self.write("b.kek.new", "half"), "r+", encoding="ascii") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            self.assertEqual(self.on(*command, expect=1).stderr,
                             f"tek-provision: {out}: another run is writing it\n")
            self.assertEqual(self.keys(), {})
            self.assertEqual(self.read("b.kek.new"), "half")
        self.on(*command)  # that run was cut short
        self.assertRegex(self.read("b.kek"), "^[0-9a-f]{64}\n$")
        self.assertFalse(os.path.exists(self.path("b.kek.new")))

    def test_import(self):
        command = ("kek", "import", "--label", "i", "--use", "bsa", "--from", self.path("i.hex"))
        self.on(*command, expect=1)
        for bad in ("", "zz" * 32, "00" * 31 + "0"):
            self.write("i.hex", bad)
            self.on(*command, expect=1)
        self.write("i.hex", "00" * 16)
        self.on(*command, expect=2)
        self.write("i.hex", "5a" * 32 + "\n", 0o640)
        self.on(*command, expect=1)
        self.assertEqual(self.keys(), {})
        self.write("i.hex", "5a" * 32 + "\n")
        self.on("kek", "import", "--label", "i", "--use", "other", "--from", self.path("i.hex"),
                expect=2)
        self.on(*command)
        self.assertTrue(self.keys()["i"]["imported"])

    def differs(self, label, *command):
        """The command brings in another value than the token has under the label."""
        before = self.keys()
        error = self.on(*command, expect=1).stderr
        self.assertIn(f'key "{label}" exists with another value (fingerprint '
                      f'{before[label]["fingerprint"]})', error)
        self.assertEqual(before, self.keys())

    def test_import_of_another_value_is_refused(self):
        for use, wrap in (("bsa", "aes-kw"), ("bsa", "aes-kwp"), ("storage", "aes-kw")):
            label = f"{use}-{wrap}"
            command = ("kek", "import", "--label", label, "--use", use, "--wrap", wrap, "--from",
                       self.write("i.hex", "5a" * 32 + "\n"))
            self.on(*command)
            self.assertIn("exists and agrees", self.on(*command).stdout)
            self.write("i.hex", "5a" * 31 + "5b\n")
            self.differs(label, *command)
            self.write("i.hex", "5a" * 16 + "\n")
            self.on(*command, expect=2)

    def test_another_public_key_is_refused(self):
        pems = []
        for name in ("one.pem", "two.pem"):
            public = rsa.generate_private_key(65537, 2048).public_key()
            pems.append(self.write(name, public.public_bytes(
                serialization.Encoding.PEM,
                serialization.PublicFormat.SubjectPublicKeyInfo).decode()))
        self.on("kek", "public", "--label", "r", "--from", pems[0])
        self.assertIn("exists and agrees",
                      self.on("kek", "public", "--label", "r", "--from", pems[0]).stdout)
        self.differs("r", "kek", "public", "--label", "r", "--from", pems[1])

    def test_public_key_files_and_curves(self):
        self.on("key", "checkpoint", "--label", "c", "--out", self.path("c.pem"))
        key = serialization.load_pem_public_key(self.read("c.pem").encode())
        self.assertIsInstance(key.curve, ec.SECP256R1)
        self.on("key", "checkpoint", "--label", "e", "--type", "ed25519", "--out",
                self.path("e.pem"))
        key = serialization.load_pem_public_key(self.read("e.pem").encode())
        self.assertIsInstance(key, ed25519.Ed25519PublicKey)
        for label, kind in (("c", "ed25519"), ("e", "p256")):
            self.assertIn("exists with another type", self.on(
                "key", "checkpoint", "--label", label, "--type", kind, expect=1).stderr)
        self.on("key", "checkpoint", "--label", "x", "--type", "ed448", expect=2)
        self.on("key", "tls", "--label", "x", "--type", "ed25519", expect=2)
        self.assertEqual(set(self.keys()), {"c", "e"})
        self.on("kek", "public", "--label", "r", "--from", self.path("c.pem"), expect=2)
        self.on("kek", "public", "--label", "r", "--from", self.path("none.pem"), expect=1)


class Pki(Case):
    def cert(self, name):
        return x509.load_pem_x509_certificate(self.read(os.path.join("pki", name)).encode())

    def pki(self, *words, expect=0):
        return self.run_it("pki", *words, "--dir", self.path("pki"), expect=expect)

    def test_certificates(self):
        self.pki("ca")
        self.pki("cert", "--name", "bsa-1", "--host", "bsa.example.net", "--host", "192.0.2.7")
        ca, cert = self.cert("ca.crt"), self.cert("bsa-1.crt")
        ca.public_key().verify(cert.signature, cert.tbs_certificate_bytes,
                               ec.ECDSA(cert.signature_hash_algorithm))
        self.assertTrue(ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        self.assertFalse(cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["localhost", "bsa.example.net"])
        self.assertEqual([str(a) for a in names.get_values_for_type(x509.IPAddress)],
                         ["127.0.0.1", "192.0.2.7"])
        usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual(set(usage), {ExtendedKeyUsageOID.CLIENT_AUTH,
                                      ExtendedKeyUsageOID.SERVER_AUTH})
        key = serialization.load_pem_private_key(self.read("pki/bsa-1.key").encode(), None)
        self.assertEqual(key.public_key().public_numbers(), cert.public_key().public_numbers())
        for name in ("ca.key", "bsa-1.key"):
            self.assertEqual(stat.S_IMODE(os.stat(self.path("pki", name)).st_mode), 0o600)

    def test_again_it_agrees(self):
        for _ in range(2):
            self.pki("ca")
            self.pki("cert", "--name", "a")
        digest = self.cert("a.crt").fingerprint(hashes.SHA256()).hex()
        printed = json.loads(self.pki("cert", "--name", "a", "--json").stdout)
        self.assertEqual(printed, {"name": "a", "sha256": digest, "created": False})

    def test_what_does_not_agree_is_left(self):
        self.pki("ca")
        self.pki("cert", "--name", "a")
        self.pki("cert", "--name", "b")
        os.rename(self.path("pki", "b.key"), self.path("pki", "a.key"))
        before = self.read("pki/a.crt")
        self.assertIn("another key", self.pki("cert", "--name", "a", expect=1).stderr)
        self.assertEqual(before, self.read("pki/a.crt"))

    def test_names_that_leave_the_folder_are_refused(self):
        self.pki("ca")
        for name in ("../x", "a/b", ".hidden", "", "x" * 65, "sp ace"):
            self.pki("cert", "--name", name, expect=2)
        self.pki("cert", "--name", "a", "--host", "not a host", expect=2)

    def test_without_ca_there_is_nothing(self):
        self.assertIn("pki ca", self.pki("cert", "--name", "a", expect=1).stderr)
        self.assertFalse(os.path.exists(self.path("pki")))

    def crl(self):
        return x509.load_pem_x509_crl(self.read("pki/ca.crl").encode())

    def test_revocation(self):
        self.pki("ca")
        self.assertEqual(len(self.crl()), 0)
        for name in ("a", "b"):
            self.pki("cert", "--name", name)
            self.pki("revoke", "--name", name)
        self.pki("revoke", "--name", "a")
        self.pki("crl")
        crl = self.crl()
        self.assertTrue(crl.is_signature_valid(self.cert("ca.crt").public_key()))
        self.assertEqual({r.serial_number for r in crl},
                         {self.cert(f"{n}.crt").serial_number for n in "ab"})
        self.assertEqual(len(crl), 2)
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        self.assertEqual(number, 5)
        self.pki("revoke", "--name", "nobody", expect=1)
        os.unlink(self.path("pki", "ca.crl"))
        self.assertIn("ca.crl is missing", self.pki("crl", expect=1).stderr)

    def test_certificate_for_a_key_of_the_token(self):
        self.token("--generate-pins")
        self.on("key", "tls", "--label", "tekd-tls", "--out", self.path("tls.pem"))
        self.pki("ca")
        self.pki("cert", "--name", "tekd", "--token-key", "tekd-tls", expect=2)
        self.pki("cert", "--name", "tekd", "--token-key", "tekd-tls", "--token", "pkcs11:token=t",
                 *self.module_options())
        public = self.cert("tekd.crt").public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.assertEqual(public.decode(), self.read("tls.pem"))
        self.assertFalse(os.path.exists(self.path("pki", "tekd.key")))

    def request(self, *names, expect=0):
        return self.on("key", "tls", "--label", "tekd-tls", "--csr", self.path("tls.csr"), *names,
                       expect=expect)

    def test_certificate_request_for_a_key_of_the_token(self):
        """It says whom it is for and is signed by the key, which may be there already."""
        self.token("--generate-pins")
        self.request("--name", "tekd.example.net", "--host", "tekd.example.net",
                     "--host", "192.0.2.7")
        with open(self.path("tls.csr"), "rb") as f:
            csr = x509.load_pem_x509_csr(f.read())
        self.assertTrue(csr.is_signature_valid)
        self.assertEqual([a.value for a in csr.subject], ["tekd.example.net"])
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["tekd.example.net"])
        self.assertEqual([str(a) for a in names.get_values_for_type(x509.IPAddress)], ["192.0.2.7"])
        self.on("key", "tls", "--label", "tekd-tls", "--out", self.path("tls.pem"))
        public = csr.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.assertEqual(public.decode(), self.read("tls.pem"))
        # Again, with other names: it is the same key.
        self.request("--name", "other.example.net")
        with open(self.path("tls.csr"), "rb") as f:
            again = x509.load_pem_x509_csr(f.read())
        self.assertTrue(again.is_signature_valid)
        self.assertEqual(again.public_key().public_numbers(), csr.public_key().public_numbers())
        self.assertEqual(len(again.extensions), 0)

    def test_certificate_requests_that_are_refused(self):
        self.token("--generate-pins")
        self.assertIn("--name", self.request(expect=2).stderr)
        self.assertIn("neither", self.request("--name", "a", "--host", "a b", expect=2).stderr)
        self.assertFalse(os.path.exists(self.path("tls.csr")))
        self.assertNotIn("tekd-tls", self.on("list").stdout)  # nothing was made for them
        self.on("key", "tls", "--label", "x", "--name", "a", expect=2)
        self.on("key", "checkpoint", "--label", "x", "--csr", self.path("x.csr"), expect=2)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
