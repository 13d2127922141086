"""Checkpoints that are published off the host: where they go, and what becomes of failures."""

import json
import os
import re
import time

import pytest

from cp3py.auditlog import Log, load_key
from harness.pki import Ca
from harness.procs import run, wait_until
from harness.programs import TOP, is_sanitized, program
from harness.state import BSM
from harness.syslogd import Syslogd
from harness.tsa import Tsa
from harness.witness import Witness
from reader import verifier

KEYS_S = 10 if is_sanitized() else 2  # a key comes within, whoever hangs


def block(document, name):
    """The commands of a document that begin with this comment."""
    with open(os.path.join(TOP, "docs", document), encoding="utf-8") as f:
        return re.search(rf"^```bash\n# {name}\n(.*?)^```$", f.read(), re.M | re.S)[1]


def shell(text, cwd, **env):
    return run(["bash", "-euo", "pipefail", "-c", text], cwd=cwd, env={**os.environ, **env})


def published(tekd, by):
    return next(p for p in tekd.look("status")["published"] if p["by"] == by)


def wait_published(tekd, by, size=1):
    """Until a note over so many records is there."""
    return wait_until(lambda: (p := published(tekd, by))["size"] >= size and p,
                      f"{by} over {size} records")


def wait_failing(tekd, by, reason):
    found = wait_until(lambda: (p := published(tekd, by))["failing"] and p, f"{by} to fail")
    assert re.search(reason, found["reason"]), found
    return found


def assert_keys_go_on(tekd):
    """Quickly, and tekd is as ready as ever."""
    begun = time.monotonic()
    n = assert_keys_go_on.n = getattr(assert_keys_go_on, "n", 0) + 1
    assert tekd.ask(f"published-{n}", f"urn:published:{n}").status == 200
    assert time.monotonic() - begun < KEYS_S
    assert tekd.probe("/readyz")[0] == 200


def covered(tekd):
    """The size that a checkpoint has now."""
    return tekd.ctl("audit", "checkpoint")["size"]


def assert_told(tekd, server, by, mood, reason, good="good"):
    """A server that answers by that mood is told of, stops no key, and is well again after it."""
    tekd.start()
    wait_published(tekd, by)
    server.mood = mood
    assert_keys_go_on(tekd)
    wait_failing(tekd, by, reason)
    assert f"warn publish event=failed by={by} to={server.url}" in tekd.log()
    assert_keys_go_on(tekd)
    size = covered(tekd)
    server.mood = good
    wait_published(tekd, by, size)
    assert f"info publish event=works-again by={by}" in tekd.log()


def assert_waits_alone(tekd, server, by, syslogd):
    """A server that hangs delays neither keys, nor another place, nor the stop."""
    daemon = syslogd()
    tekd.configure(audit={"syslog": {"socket": syslogd.path}})
    server.mood = "hanging"
    tekd.start()
    wait_until(lambda: server.asked, "a question")
    assert_keys_go_on(tekd)
    wait_published(tekd, "syslog", covered(tekd))
    assert daemon.messages()
    begun = time.monotonic()
    tekd.stop()
    assert time.monotonic() - begun < 10
    assert f"by={by}" not in tekd.log()  # it was ended by the stop and has not failed


# ---- syslog ----

@pytest.fixture
def syslogd(folder):
    daemons = []

    def start(path=os.path.join(folder, "log")):
        daemons.append(Syslogd(path))
        return daemons[-1]

    start.path = os.path.join(folder, "log")
    yield start
    for daemon in daemons:
        daemon.close()


def test_notes_in_syslog_are_those_of_the_log(new_tekd, syslogd, folder):
    daemon = syslogd()
    tekd = new_tekd(audit={"syslog": {"socket": syslogd.path, "facility": "local3"}}).start()
    size = covered(tekd)
    state = wait_published(tekd, "syslog", size)
    assert (state["to"], state["failing"], state["epoch"]) == (syslogd.path, False, 1)
    last = wait_until(daemon.messages, "a message")[-1]
    assert re.match(rb"<157>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d tekd\[%d\]: checkpoint [ -~]+\Z"
                    % tekd.pid, last), last
    log = os.path.join(folder, "syslog")
    with open(log, "wb") as f:  # as a daemon writes it to a file
        for message in daemon.messages():
            f.write(b"Jan  1 00:00:00 host " + message.split(b" ", 3)[3] + b"\n")
    shell(block("audit.md", "note-from-syslog"), folder, LOG=log, TMP=folder)
    kept = os.path.join(folder, "note")
    # What an auditor does with it: it is a note that the log of later leads through.
    assert_keys_go_on(tekd)
    export = tekd.export()
    run([program("tek-audit"), "verify", export, "--key", tekd.path("checkpoint.pem"), "--since",
         kept])
    tekd.stop()


def test_syslog_that_fails_is_told_and_stops_no_key(new_tekd, syslogd):
    tekd = new_tekd(audit={"syslog": {"socket": syslogd.path}}).start()
    wait_failing(tekd, "syslog", "No such file or directory")
    assert 'warn publish event=failed by=syslog to=' + syslogd.path in tekd.log()
    assert "FAILING since" in tekd.tekctl("status").stdout
    assert_keys_go_on(tekd)
    daemon = syslogd()
    wait_until(daemon.messages, "a message")
    wait_until(lambda: not published(tekd, "syslog")["failing"], "an end of the failures")
    assert "info publish event=works-again by=syslog" in tekd.log()
    assert "FAILING" not in tekd.tekctl("status").stdout
    tekd.stop()


def test_syslog_that_hangs_delays_nobody_and_no_stop(new_tekd, syslogd):
    daemon = syslogd()
    daemon.fill()
    tekd = new_tekd(audit={"syslog": {"socket": syslogd.path}}).start()
    wait_failing(tekd, "syslog", "the daemon has not read for 2000 ms")
    assert_keys_go_on(tekd)
    assert tekd.ctl("status")["store"]["anchor"]["failing"] is False
    tekd.stop()


# ---- time stamps ----

# In a time stamp, what is before the hash: SHA-256, no parameters, an OCTET STRING.
IMPRINT = bytes.fromhex("608648016503040201" "0500" "0420")

@pytest.fixture
def new_tsa(folder):
    made = []

    def make(ca=None):
        made.append(Tsa(os.path.join(folder, f"tsa-{len(made)}"), ca))
        return made[-1]

    yield make
    for tsa in made:
        tsa.close()


def stamped(new_tekd, tsa, **more):
    return new_tekd(audit={"timestamp": {"url": tsa.url, "tsa_ca": tsa.ca_file, **more}})


def anchors(export):
    return sorted(os.listdir(os.path.join(export, "anchors")))


def verify(tekd, export, *options):
    return run([program("tek-audit"), "verify", export, "--key", tekd.path("checkpoint.pem"),
                "--first", *options], check=False)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_time_stamps_are_verified_kept_and_exported(new_tekd, new_tsa, folder, scheme):
    web_ca = Ca(os.path.join(folder, "web"), "web-ca")
    tsa = new_tsa(web_ca if scheme == "https" else None)
    tekd = stamped(new_tekd, tsa, **({"tls_ca": web_ca.path("web-ca.crt")}
                                     if scheme == "https" else {}))
    tekd.start()
    size = covered(tekd)
    state = wait_published(tekd, "timestamp", size)
    assert (state["to"], state["failing"], state["reason"]) == (tsa.url, False, "")
    tsa.mood = "broken"  # the last one stays
    state = published(tekd, "timestamp")
    export = tekd.export()
    names = anchors(export)
    # Of a day one is kept; the day may have ended while the test ran.
    assert [n.rpartition(".")[2] for n in names] in (["note", "tsr"], ["note", "tsr"] * 2), names
    assert re.fullmatch(rf"1-{state['size']}-\d{{8}}\.tsr", names[-1]), names
    # Four that check it, none of which knows the others.
    shell(block("audit.md", "check-timestamp"), export, TSA=tsa.ca_file,
          NAME=f"anchors/{names[-1][:-4]}")
    r = verify(tekd, export, "--tsa", tsa.ca_file)
    assert r.returncode == 0 and re.search(
        rf"^time stamps: \d, the newest of \S+Z over size {state['size']}; their signatures are good$",
        r.stdout, re.M), r
    assert "without --tsa their signatures were not looked at" in verify(tekd, export).stdout
    assert verify(tekd, export, "--tsa", tekd.path("pki", "ca.crt")).returncode == 1
    with open(tekd.path("checkpoint.pem"), "rb") as f:
        verifier.verify(export, f.read())
    assert names[-1] in Log(export, tekd.path("checkpoint.pem")).stamps
    for no_ca in ("nowhere", tekd.path("checkpoint.pem")):
        assert verify(tekd, export, "--tsa", no_ca).returncode == 3
    tekd.stop()


MOODS = {
    "replaying": "it answers another question|it stamps other octets",
    "refusing": "refused with status 2: Message digest algorithm is not supported",
    "expired": "certificate refused: .*expired",
    "cut": "not a time stamp",
    "broken": "^HTTP 500$",
    "elsewhere": "^HTTP 302: redirects are not followed$",
    "another_type": 'not a time stamp: Content-Type "text/html.?"',
    "endless": "^answer longer than 65536 octets$",
}


@pytest.mark.parametrize("mood", MOODS)
def test_an_answer_that_is_no_time_stamp_is_told_and_stops_no_key(new_tekd, new_tsa, mood):
    tsa = new_tsa()
    tekd = stamped(new_tekd, tsa)
    assert_told(tekd, tsa, "timestamp", mood, MOODS[mood])
    assert verify(tekd, tekd.export(), "--tsa", tsa.ca_file).returncode == 0
    tekd.stop()


def test_a_tsa_that_hangs_delays_nobody_and_no_stop(new_tekd, new_tsa, syslogd):
    tsa = new_tsa()
    assert_waits_alone(stamped(new_tekd, tsa), tsa, "timestamp", syslogd)


def test_a_tsa_that_nobody_serves_is_told(new_tekd, new_tsa):
    tsa = new_tsa()
    tekd = stamped(new_tekd, tsa)
    tsa.close()
    tekd.start()
    wait_failing(tekd, "timestamp", "^refused$")
    assert_keys_go_on(tekd)
    assert anchors(tekd.export()) == []
    tekd.stop()


def test_a_folder_that_cannot_be_written_is_told(new_tekd, new_tsa):
    tsa = new_tsa()
    tekd = stamped(new_tekd, tsa)
    with open(tekd.path("no-folder"), "w", encoding="ascii"):
        pass
    tekd.configure(audit={"published_dir": "no-folder"})
    tekd.start()
    wait_failing(tekd, "timestamp", "^what was got could not be kept: open .*no-folder: Not a dir")
    assert_keys_go_on(tekd)
    tekd.stop()


@pytest.mark.parametrize("what, words", [
    ("note", "anchor|timestamp"), ("tsr", "timestamp")])
def test_what_was_kept_and_changed_is_found_out(new_tekd, new_tsa, what, words):
    tsa = new_tsa()
    tekd = stamped(new_tekd, tsa).start()
    wait_published(tekd, "timestamp", covered(tekd))
    folder = tekd.path("anchor", "checkpoint.published")
    name = next(n for n in sorted(os.listdir(folder)) if n.endswith(what))
    with open(os.path.join(folder, name), "r+b") as f:
        octets = bytearray(f.read())
        at = octets.index(b"tekd") if what == "note" else octets.index(IMPRINT) + len(IMPRINT)
        octets[at] ^= 1
        f.seek(0)
        f.write(octets)
    tsa.mood = "broken"  # or a good one takes its place
    export = tekd.export()
    r = verify(tekd, export, "--tsa", tsa.ca_file)
    with open(tekd.path("checkpoint.pem"), "rb") as f, pytest.raises(verifier.Refused):
        verifier.verify(export, f.read())
    assert r.returncode == 1 and re.search(f"FAILED anchors/.*: ({words}): ", r.stderr), r
    tekd.stop()


# ---- witnesses ----

def origin(epoch=1):
    return f"{BSM}/tekd/audit/{epoch}"


@pytest.fixture
def new_witness():
    made = []

    def make(*args):
        made.append(Witness(*args))
        return made[-1]

    yield make
    for witness in made:
        witness.close()


def witnessed(new_tekd, witness, epochs=(1,), **more):
    """A server whose log the witness knows."""
    tekd = new_tekd(audit={"witness": {"url": witness.url, "key": witness.vkey, **more}})
    key = load_key(tekd.path("checkpoint.pem"))
    for epoch in epochs:
        witness.trust(origin(epoch), key)
    return tekd


def cosigned(export):
    return [n for n in anchors(export) if n.endswith(".cosigned")]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_checkpoints_are_cosigned_verified_kept_and_exported(new_tekd, new_witness, folder, scheme):
    web_ca = Ca(os.path.join(folder, "web"), "web-ca")
    more = {}
    if scheme == "https":
        client = Ca(os.path.join(folder, "client"), "client-ca")
        client.issue("tekd-client")
        witness = new_witness(web_ca, client.path("client-ca.crt"))
        more = {"tls_ca": web_ca.path("web-ca.crt"),
                "certificate": client.path("tekd-client.crt"),
                "private_key": client.path("tekd-client.key")}
    else:
        witness = new_witness()
    tekd = witnessed(new_tekd, witness, **more).start()
    wait_published(tekd, "witness")
    assert_keys_go_on(tekd)
    state = wait_published(tekd, "witness", covered(tekd))
    assert (state["to"], state["failing"], state["reason"]) == (witness.url, False, "")
    assert witness.paths == {"/log/add-checkpoint"}
    # It has verified a proof, and not only taken a first note.
    assert any(old > 0 and proof for old, _, proof in witness.proofs), witness.proofs
    witness.mood = "broken"  # the last one stays
    state = published(tekd, "witness")
    export = tekd.export()
    names = cosigned(export)
    assert anchors(export) == names and len(names) in (1, 2)
    assert re.fullmatch(rf"1-{state['size']}-\d{{8}}\.cosigned", names[-1]), names
    with open(os.path.join(folder, "witness.vkey"), "w", encoding="ascii") as f:
        f.write(witness.vkey + "\n")
    # Four that check it, none of which knows the others.
    for key in (witness.vkey, f.name):
        r = verify(tekd, export, "--witness", key)
        assert r.returncode == 0 and re.search(
            rf"^cosignatures: \d, the newest of \S+Z over size {state['size']}; "
            "their signatures are good$", r.stdout, re.M), r
    found = json.loads(verify(tekd, export, "--witness", witness.vkey, "--json").stdout)
    assert found["cosignatures_signed"] is True
    assert found["cosignatures"][-1]["size"] == state["size"]
    said = verify(tekd, export).stdout
    assert "without --witness their signatures were not looked at" in said
    with open(tekd.path("checkpoint.pem"), "rb") as f:
        pem = f.read()
    assert verifier.verify(export, pem, witness=witness.vkey).cosigned == len(names)
    assert verifier.verify(export, pem).cosigned == 0
    log = Log(export, tekd.path("checkpoint.pem"))
    note, when, line = log.cosigned[names[-1]]
    assert note.size == state["size"] and abs(when - time.time()) < 600
    assert line + b"\n" == witness.cosigner.line(note.text, when)
    out = shell(block("audit.md", "check-cosignature"), export, TMP=folder, WITNESS=witness.vkey,
                NAME=f"anchors/{names[-1]}").stdout
    assert "Signature Verified Successfully" in out and time.strftime("%Y-") in out, out
    # Of another witness, and what is no key.
    other = witness.stranger.vkey
    r = verify(tekd, export, "--witness", other)
    assert r.returncode == 1 and "expected a cosignature of --witness" in r.stderr
    with pytest.raises(verifier.Refused):
        verifier.verify(export, pem, witness=other)
    assert verify(tekd, export, "--witness", other, "--witness", witness.vkey).returncode == 0
    for no_key in ("nowhere", tekd.path("checkpoint.pem"), witness.vkey[:-4]):
        assert verify(tekd, export, "--witness", no_key).returncode == 3
    with pytest.raises(AssertionError):
        shell(block("audit.md", "check-cosignature"), export, TMP=folder, WITNESS=other,
              NAME=f"anchors/{names[-1]}")
    tekd.stop()


REFUSALS = {
    "wrong_key": "^no cosignature of witness.example/w1 in its answer$",
    "empty": "^no cosignature of witness.example/w1 in its answer$",
    "another_text": "^its cosignature is not one over this checkpoint$",
    "replaying": "^its cosignature is not one over this checkpoint$",
    "unknown": r"^it does not know this log \(HTTP 404\)$",
    "key_unknown": r"^it does not know the key of our checkpoints \(HTTP 403\)$",
    "unproven": r"^it says that our checkpoint does not extend the one it has \(HTTP 422\)$",
    "conflict_without_size": "^HTTP 409 without the size that it has$",
    "conflict_of_no_number": "^HTTP 409 without the size that it has$",
    "ahead": "^it has 123456789 records of this log, more than there are here: an older copy",
    "elsewhere_cosigned": "^it has this log with 1 records, of which there is no checkpoint here",
    "undecided": r"^it names another size each time \(HTTP 409\)$",
    "broken": "^HTTP 500$",
    "elsewhere": "^HTTP 302: redirects are not followed$",
    "endless": "^answer longer than 65536 octets$",
}


@pytest.mark.parametrize("mood", REFUSALS)
def test_a_witness_that_does_not_cosign_is_told_and_stops_no_key(new_tekd, new_witness, mood):
    witness = new_witness()
    tekd = witnessed(new_tekd, witness)
    assert_told(tekd, witness, "witness", mood, REFUSALS[mood], good="crowded")
    assert verify(tekd, tekd.export(), "--witness", witness.vkey).returncode == 0
    tekd.stop()


def test_a_witness_that_hangs_delays_nobody_and_no_stop(new_tekd, new_witness, syslogd):
    witness = new_witness()
    assert_waits_alone(witnessed(new_tekd, witness), witness, "witness", syslogd)


def test_a_witness_says_after_a_restart_what_it_has(new_tekd, new_witness):
    witness = new_witness()
    tekd = witnessed(new_tekd, witness).start()
    for n in range(40):
        assert tekd.ask(f"before-{n}", f"urn:before:{n}").status == 200
    wait_published(tekd, "witness", covered(tekd))
    tekd.stop()
    asked, (had, _) = witness.asked, witness.seen[origin()]
    tekd.start()
    for n in range(300):  # more than a page of records
        assert tekd.ask(f"after-{n}", f"urn:after:{n}").status == 200
    wait_published(tekd, "witness", covered(tekd))
    assert witness.asked > asked + 1
    assert any(old == had and proof for old, _, proof in witness.proofs), (had, witness.proofs)
    assert "event=failed by=witness" not in tekd.log()
    # A witness that has lost what it had begins anew.
    witness.proofs.clear()
    witness.seen.clear()
    assert_keys_go_on(tekd)
    wait_published(tekd, "witness", covered(tekd))
    assert witness.proofs[0][0] == 0
    assert verify(tekd, tekd.export(), "--witness", witness.vkey).returncode == 0
    tekd.stop()


def test_a_long_way_from_what_a_witness_has_is_proven(new_tekd, new_witness):
    """Through many pages of records, and the store goes on meanwhile."""
    witness = new_witness()
    tekd = witnessed(new_tekd, witness).start()
    wait_published(tekd, "witness")
    witness.mood = "broken"
    before = covered(tekd)
    for n in range(700):
        assert tekd.ask(f"far-{n}", f"urn:far:{n}").status == 200
    size = covered(tekd)
    assert size > before + 600
    witness.mood = "good"
    wait_published(tekd, "witness", size)
    assert max(new - old for old, new, _ in witness.proofs if old) > 600
    tekd.stop()


def test_a_log_that_was_set_back_is_told_by_its_witness(new_tekd, new_witness):
    witness = new_witness()
    tekd = witnessed(new_tekd, witness).start()
    wait_published(tekd, "witness", covered(tekd))
    witness.seen[origin()] = (witness.seen[origin()][0], b"x" * 32)  # it has seen another one
    assert_keys_go_on(tekd)
    wait_failing(tekd, "witness", "^it says that our checkpoint does not extend the one it has")
    tekd.stop()


def test_a_database_that_was_put_back_is_told_by_the_witness(new_tekd, new_witness, folder):
    """With its anchor file, so that tekd itself cannot know."""
    witness = new_witness()
    tekd = witnessed(new_tekd, witness).start()
    wait_published(tekd, "witness", covered(tekd))
    tekd.stop()
    copies = [name for name in os.listdir(tekd.path()) if name.startswith("tekd.db")] + ["anchor"]
    run(["cp", "-a", *map(tekd.path, copies), folder])
    tekd.start()
    for n in range(30):
        assert tekd.ask(f"lost-{n}", f"urn:lost:{n}").status == 200
    wait_published(tekd, "witness", covered(tekd))
    tekd.stop()
    run(["rm", "-r", *map(tekd.path, copies)])
    run(["cp", "-a", *(os.path.join(folder, name) for name in copies), tekd.path()])
    tekd.start()
    wait_failing(tekd, "witness", "^it has [0-9]+ records of this log, more than there are here")
    for n in range(60):
        assert tekd.ask(f"other-{n}", f"urn:other:{n}").status == 200
    wait_until(lambda: re.search("no checkpoint here|does not extend",
                                 published(tekd, "witness")["reason"]), "another reason")
    assert_keys_go_on(tekd)
    tekd.stop()


def test_each_epoch_is_cosigned_from_its_beginning(new_tekd, new_witness):
    witness = new_witness()
    tekd = witnessed(new_tekd, witness, epochs=(1, 2)).start()
    wait_published(tekd, "witness", covered(tekd))
    tekd.ctl("audit", "close-epoch")
    wait_until(lambda: published(tekd, "witness")["epoch"] == 2, "the next epoch")
    assert_keys_go_on(tekd)
    wait_published(tekd, "witness", covered(tekd))
    assert sorted(witness.seen) == [origin(1), origin(2)]
    witness.mood = "broken"
    export = tekd.export()
    assert all(n.startswith("2-") for n in cosigned(export)) and cosigned(export)
    assert verify(tekd, export, "--witness", witness.vkey).returncode == 0
    tekd.stop()


def test_an_epoch_that_a_witness_does_not_know_is_told(new_tekd, new_witness):
    witness = new_witness()
    tekd = witnessed(new_tekd, witness).start()
    wait_published(tekd, "witness", covered(tekd))
    tekd.ctl("audit", "close-epoch")
    wait_failing(tekd, "witness", r"^it does not know this log \(HTTP 404\)$")
    assert_keys_go_on(tekd)
    witness.trust(origin(2), load_key(tekd.path("checkpoint.pem")))
    wait_until(lambda: published(tekd, "witness")["epoch"] == 2, "the next epoch")
    tekd.stop()


def test_the_key_of_a_witness_may_stand_in_a_file(new_tekd, new_witness):
    witness = new_witness()
    tekd = witnessed(new_tekd, witness, key="witness.vkey").start()
    wait_failing(tekd, "witness", "^no verifier key of a witness in /.*/witness.vkey$")
    with open(tekd.path("witness.vkey"), "w", encoding="ascii") as f:
        f.write(witness.vkey + "\n")
    wait_published(tekd, "witness", covered(tekd))
    tekd.stop()


@pytest.mark.parametrize("what", ["note", "cosignature"])
def test_what_a_witness_answered_and_was_changed_is_found_out(new_tekd, new_witness, what):
    witness = new_witness()
    tekd = witnessed(new_tekd, witness).start()
    wait_published(tekd, "witness", covered(tekd))
    witness.mood = "broken"  # or a good one takes its place
    folder = tekd.path("anchor", "checkpoint.published")
    name = sorted(os.listdir(folder))[-1]
    with open(os.path.join(folder, name), "r+b") as f:
        octets = bytearray(f.read())
        at = octets.index(b"\n") + 1 if what == "note" else octets.index(b"/w1 ") + 40
        octets[at] = ord("2" if octets[at] == ord("1") else "1")
        f.seek(0)
        f.write(octets)
    export = tekd.export()
    r = verify(tekd, export, "--witness", witness.vkey)
    with open(tekd.path("checkpoint.pem"), "rb") as f, pytest.raises(verifier.Refused):
        verifier.verify(export, f.read(), witness=witness.vkey)
    assert r.returncode == 1 and re.search("FAILED anchors/.*: (cosigned|anchor|signature): ",
                                           r.stderr), r
    tekd.stop()
