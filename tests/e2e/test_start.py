"""What ends a start, and what does not: faults that waiting mends and faults that it does not."""

import os
import re
import shutil

import pytest

from harness import pki, procs
from harness.procs import run, wait_until
from harness.programs import BUILD, program, softhsm, tool


def check(tekd):
    return run([program("tekd"), "--config", tekd.path("tekd.yaml"), "--check"], check=False)


def pkcs11_tool(tekd, *words):
    run([tool("pkcs11-tool"), "--module", softhsm(), "--token-label", "tekd", "--login", "--pin",
         tekd.template.pin, *words],
        env={**os.environ, "SOFTHSM2_CONF": tekd.path("softhsm2.conf")})


def forget_key(tekd, label, kinds=("privkey", "pubkey")):
    """All of a key of the token."""
    for kind in kinds:
        pkcs11_tool(tekd, "--delete-object", "--type", kind, "--label", label)


def tls_line(done):
    return re.search("^tls .*", done.stdout, re.M)[0]


def test_check_says_how_long_certificate_and_crl_are_good_for(new_tekd):
    done = check(new_tekd())
    assert done.returncode == 0, done
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
    assert re.fullmatch(f"tls +ok +certificate until {time}, CRL until {time}", tls_line(done))
    # The token, the store and the keys have a line each as well.
    assert [line.split()[:2] for line in done.stdout.splitlines() if "note:" not in line] == [
        ["tls", "ok"], ["token", "ok"], ["store", "ok"], ["keys", "ok"]]


def test_check_reads_the_certificate_of_a_key_in_the_hsm(new_tekd):
    done = check(new_tekd(tls={"certificate": "pki/tekd-tls.crt",
                               "key": "pkcs11:object=tekd-tls"}))
    assert done.returncode == 0 and tls_line(done).split()[1] == "ok", done


def test_certificate_of_another_key_than_the_hsms_is_said(new_tekd):
    """It is a file, and what it says of the key is all that TLS needs to start."""
    tekd = new_tekd(tls={"certificate": "pki/tekd.crt", "key": "pkcs11:object=tekd-tls"})
    done = check(tekd)
    why = "tls.key in the HSM is not the key of tls.certificate"
    assert done.returncode == 1, done
    assert re.search(f"^tls +BAD +{re.escape(why)}$", done.stdout, re.M), done
    assert re.search("^keys +ok", done.stdout, re.M), done
    tekd.start(wait="alive")
    tekd.wait_for("/readyz", 503)
    wait_until(lambda: tekd.probe("/readyz") == (503, f"not ready: {why}\n"), "it says why")
    assert "tls event=key-in-hsm-of-another-certificate" in tekd.log()
    tekd.stop()


@pytest.mark.parametrize("spoil, why", [
    (lambda t: t.template.ca.write_crl(t.path("pki", "ca.crl"), -2 * pki.DAY, -pki.DAY),
     "CRL until"),
    (lambda t: t.template.ca.write_crl(t.path("pki", "ca.crl"), pki.DAY, 2 * pki.DAY),
     "CRL not before"),
    (lambda t: os.chmod(t.path("pki", "tekd.key"), 0o640), "file-not-private"),
    (lambda t: shutil.copy(t.path("pki", "bsa-1.key"), t.path("pki", "tekd.key")),
     "key-does-not-fit-certificate"),
    (lambda t: os.truncate(t.path("pki", "ca.crt"), 0), "client-ca-not-read"),
    (lambda t: os.unlink(t.path("pki", "ca.crl")), "crl-not-read"),
], ids=["expired-crl", "early-crl", "open-key", "other-key", "no-ca", "no-crl"])
def test_check_finds_tls_files_that_will_not_do(new_tekd, spoil, why):
    """The rest is looked at nevertheless."""
    tekd = new_tekd()
    spoil(tekd)
    done = check(tekd)
    assert done.returncode == 1, done
    assert tls_line(done).split()[1] == "BAD" and why in done.stdout + done.stderr, done
    assert re.search("^keys +ok", done.stdout, re.M), done


@pytest.mark.parametrize("settings, why", [
    ({"profile": "nosuch"}, "nosuch"),
    ({"module": "/nowhere/libhsm.so"}, "/nowhere/libhsm.so"),
    ({"checkpoint_key": "nosuch-key"}, "nosuch-key"),
    ({"storage_kek": "nosuch-kek"}, "nosuch-kek"),
    # It promises that only trusted KEKs wrap, which SoftHSM cannot do.
    ({"profile": "nshield"}, "CKA_WRAP_WITH_TRUSTED"),
])
def test_hsm_settings_that_cannot_be_right_end_the_start(new_tekd, settings, why):
    tekd = new_tekd(fresh=True, hsm=settings)
    done = check(tekd)
    assert done.returncode == 1 and "BAD" in done.stdout, done
    tekd.start(wait=None)
    assert tekd.wait_end() == 1
    assert why in tekd.log()


def test_missing_checkpoint_key_ends_the_start(new_tekd, mid, content):
    tekd = new_tekd().start()
    assert tekd.ask(mid, content).status == 200
    tekd.stop()
    forget_key(tekd, "tekd-checkpoint")
    assert check(tekd).returncode == 1
    tekd.start(wait=None)
    assert tekd.wait_end() == 1
    assert "tekd-checkpoint" in tekd.log()


# ---- tokens and keys that protect nothing ----------------------------------------------------------

def says(text, words):
    """All of them in one line."""
    return any(all(w in line for w in words) for line in text.splitlines())


def assert_refused(tekd, *words):
    """By --check and by the start, which say why."""
    done = check(tekd)
    assert done.returncode == 1 and re.search(r"^(token|keys) +BAD", done.stdout, re.M), done
    assert says(done.stdout + done.stderr, words), done.stdout + done.stderr
    tekd.start(wait=None)
    assert tekd.wait_end() == 1
    assert says(tekd.log(), words), tekd.log()[-3000:]
    assert "event=serving" not in tekd.log()


@pytest.mark.parametrize("fresh", [False, True], ids=["old-store", "new-store"])
@pytest.mark.parametrize("mode, words", [
    ("ignores-modifiable", ["a KEK could be made to decrypt"]),
    ("ignores-unwrap-template", ["a stored TEK could be unwrapped as a readable key"]),
    ("takes-all-writes", ["tekd-storage", "could be written to"]),
])
def test_token_that_lets_keys_be_read_ends_the_start(new_tekd, mode, words, fresh):
    """It is that of a real token but for this: the attacks that the start tries succeed."""
    shim = os.path.join(BUILD, "tests", "token", "libtekd_token_shim.so")
    assert os.path.exists(shim), f"{shim} is not built"

    def behind_shim(mode):
        return {"module": shim, "env": {"SOFTHSM2_CONF": "softhsm2.conf", "SHIM_MODULE": softhsm(),
                                        "SHIM_MODE": mode}}

    tekd = new_tekd(fresh=fresh, hsm=behind_shim(mode))
    assert_refused(tekd, "attack: ", *words)
    # And the shim alone ends nothing.
    tekd.configure(hsm=behind_shim("none"))
    tekd.start()
    tekd.stop()


@pytest.mark.parametrize("fresh", [False, True], ids=["old-store", "new-store"])
def test_weak_storage_kek_ends_the_start(new_tekd, fresh):
    tekd = new_tekd(fresh=fresh)
    forget_key(tekd, "tekd-storage", ["secrkey"])
    pkcs11_tool(tekd, "--keygen", "--key-type", "AES:32", "--label", "tekd-storage", "--id", "77")
    assert_refused(tekd, "tekd-storage", "CKA_SENSITIVE is false, must be true")


def test_check_beside_a_tekd_that_serves_says_so(tekd, mid, content):
    done = check(tekd)
    assert done.returncode != 0, done
    assert re.search("^store +BAD +another tekd has the database open", done.stdout, re.M), done
    assert tekd.ask(mid, content).status == 200


def test_token_that_is_away_ends_nothing(new_tekd):
    """It may come back; --check says that nobody answers."""
    tekd = new_tekd()
    os.rename(tekd.path("tokens"), tekd.path("away"))
    os.mkdir(tekd.path("tokens"))
    done = check(tekd)
    assert done.returncode == 3 and "BAD" in done.stdout, done
    tekd.start(wait="alive")
    assert tekd.probe("/readyz")[0] == 503
    os.rmdir(tekd.path("tokens"))
    os.rename(tekd.path("away"), tekd.path("tokens"))
    tekd.wait_for("/readyz", 200, 60)
    tekd.stop()


def test_sigterm_ends_a_start_that_waits_for_a_hung_hsm(new_tekd):
    """The module hangs in its first call: SoftHSM's configuration is a pipe that nobody writes."""
    tekd = new_tekd()
    os.unlink(tekd.path("softhsm2.conf"))
    os.mkfifo(tekd.path("softhsm2.conf"))
    tekd.start(wait=None)
    wait_until(lambda: len(procs.descendants(tekd.pid)) >= 2, "a worker is being started")
    assert tekd.probe("/healthz") is None
    tekd.stop(seconds=10)


def test_without_standard_descriptors_no_file_takes_their_place(new_tekd, mid, content):
    tekd = new_tekd()
    tekd.start(wrapper=["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"])
    for fd in range(3):
        assert os.readlink(f"/proc/{tekd.pid}/fd/{fd}") == "/dev/null"
    assert tekd.ask(mid, content).status == 200
    tekd.stop()


# ---- after a lost disk -----------------------------------------------------------------------------

def test_a_new_log_begins_with_another_name_and_anchor(tekd):
    """As the manual says for a lost disk: the old anchor refuses a new database."""
    bsm = "bsm-2.example.net"
    tekd.stop()
    for n, (check, settings) in enumerate([("anchor-signature", {}),
                                           ("anchor-origin", {"bsm_id": bsm})]):
        tekd.configure(store={"sqlite": f"refused-{n}.db"}, **settings)
        tekd.start(wait=None)
        assert tekd.wait_end() == 74, tekd.log()[-2000:]
        assert f"event=tamper check={check} " in tekd.log(), tekd.log()[-2000:]
    tekd.configure(store={"sqlite": "new.db"}, audit={"anchor_file": "anchor/new"})
    tekd.start()
    tekd.enrol_all()  # with the KEKs that the old database knew
    tekd.tekctl("content", "add", "urn:example:anew")
    assert tekd.tekctl("deliver", "urn:example:anew", "--bsa", "bsa-1").stdout
    run([program("tek-audit"), "verify", tekd.export(), "--key", tekd.path("checkpoint.pem"),
         "--first", "--origin", f"{bsm}/tekd/audit/1"])
