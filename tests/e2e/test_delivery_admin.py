"""What operators and auditors see of deliveries: status, ledger, export; and polls at a reload and a
stop."""

import copy
import csv
import hashlib
import io
import json
import os
import re
import socket
import threading
import time

import pytest
from cryptography import x509

from cp3py.messages import confirmation
from harness.answers import problem
from harness.procs import run, wait_until
from harness.programs import program
from test_pull import request

QUICK_S = 5  # what comes at once comes within that


def add(stage, *contents):
    for content in contents:
        stage.add(content)
    return stage


def lines_of(folder, name):
    with open(os.path.join(folder, name), "rb") as f:
        return f.read().splitlines(keepends=True)


def records_of(folder):
    """{MessageID: the line of its delivery.prepared}"""
    found = {}
    for line in lines_of(folder, "audit.jsonl"):
        record = json.loads(line)
        if record["ev"] == "delivery.prepared":
            found[record["mid"]] = line
    return found


def audit_ledger(folder, *options):
    """{MessageID: row} as tek-audit lists them."""
    rows = json.loads(run([program("tek-audit"), "ledger", folder, "--json", *options]).stdout)
    return {r["message_id"]: r for r in rows}


@pytest.fixture
def mixed(new_stage):
    """A confirmed, a pending and an abandoned delivery, and a Key Request answered."""
    stage = new_stage(["p-0", "p-1"], push={"retry_initial_s": 600, "retry_max_s": 600}).start()
    add(stage, "urn:a", "urn:b")["p-1"].silent()
    stage.confirmed, = stage.deliver("urn:a", "p-0")
    stage.pending, stage.abandoned = [stage.deliver("urn:b", "p-1")[0] for _ in range(2)]
    stage.wait(stage.confirmed)
    wait_until(lambda: stage.show(stage.pending)["last_error"], "an attempt that fails")
    stage.tekd.tekctl("delivery", "abandon", stage.abandoned, "--reason", "the test")
    with stage.tekd.connect("p-0") as c:
        assert c.ask(request("pulled", "urn:a", "p-0"), stage["p-0"].media).status == 200
    return stage


# ---- tekctl ----------------------------------------------------------------------------------------

def test_status_counts_them(mixed):
    d = mixed.tekd.ctl("status")["deliveries"]
    assert d["states"] == {"prepared": 1, "in-flight": 0, "rejected": 0, "unknown": 0,
                           "confirmed": 1, "unconfirmed": 0, "abandoned": 1}
    assert d["open"] == 1 and d["under_way"] == 0
    assert d["oldest_open"] == mixed.show(mixed.pending)["created"]
    assert d["attempts"] >= 2 and d["confirmed"] == 1 and d["failed"] >= 1
    text = mixed.tekd.tekctl("status").stdout
    assert re.search(r"^deliveries +1 open, the oldest since \S+; 1 confirmed, 0 unconfirmed, "
                     "1 abandoned$", text, re.M), text


def test_the_list_for_people(mixed):
    text = mixed.tekd.tekctl("delivery", "list").stdout.splitlines()
    assert text[0].split()[:4] == ["MESSAGE-ID", "BSA", "STATE", "AGE"] and len(text) == 4
    row = next(line for line in text if line.startswith(mixed.pending))
    assert re.fullmatch(rf"{mixed.pending} p-1 +prepared +\d+s +1 \d\d:\d\d:\d\d +"
                        r"\S*refused.* urn:b", row), row
    text = mixed.tekd.tekctl("delivery", "list", "--pending").stdout.splitlines()
    assert [line.split()[0] for line in text[1:]] == [mixed.pending]


def test_what_is_shown_of_one(mixed):
    d = mixed.show(mixed.pending)
    assert d["kek_id"] == "p-1/1" and d["content_id"] == "urn:b" and d["bsa"] == "p-1"
    assert d["created"] < d["next"] and d["created"] < d["deadline"] and d["history_whole"]
    assert [h["event"] for h in d["history"]] == ["delivery.prepared", "delivery.attempt"]
    assert d["history"][0]["keyid"] == d["key_id"] and d["history"][0]["time"] >= d["created"]
    assert f":{mixed['p-1'].port}" in d["history"][1]["addr"]
    d = mixed.show(mixed.abandoned)
    assert (d["history"][-1]["event"], d["history"][-1]["reason"]) == \
        ("delivery.abandoned", "the test")
    assert d["next"] is None


@pytest.mark.parametrize("words", [
    ["deliver"], ["deliver", "urn:a", "urn:b"], ["deliver", "urn:a", "--bsa"],
    ["delivery", "show"], ["delivery", "retry"], ["delivery", "abandon", "x"],
    ["delivery", "abandon", "--reason", "x"], ["delivery", "list", "x"],
    ["delivery", "list", "--pending=1"], ["delivery"]])
def test_usage(new_tekd, words):
    done = new_tekd().tekctl(*words, check=False)  # no server is asked
    assert done.returncode == 2 and "usage: " in done.stderr and done.stdout == "", done


def test_who_may_only_look_changes_nothing(mixed):
    if os.geteuid() != 0:
        pytest.skip("other users need root")
    mixed.tekd.restart(admin={**mixed.tekd.settings["admin"], "readonly_group": "games"})
    looks = ["setpriv", "--reuid", "65534", "--regid", "60", "--clear-groups"]
    for words in (["deliver", "urn:a"], ["delivery", "retry", mixed.pending],
                  ["delivery", "abandon", mixed.pending, "--reason", "x"]):
        done = mixed.tekd.tekctl(*words, prefix=looks, check=False)
        assert done.returncode == 1 and "may look" in done.stderr, done
    assert mixed.pending in mixed.tekd.tekctl("delivery", "list", prefix=looks).stdout
    assert mixed.pending in mixed.tekd.tekctl("delivery", "show", mixed.pending,
                                              prefix=looks).stdout


# ---- the ledger ------------------------------------------------------------------------------------

def test_the_ledger_has_them_with_their_confirmation(mixed):
    log = mixed.verify()
    found = {e["message_id"]: e for e in mixed.tekd.ctl("audit", "ledger")}
    assert {m: e["state"] for m, e in found.items()} == {
        mixed.confirmed: "confirmed", mixed.pending: "in-flight",
        mixed.abandoned: "abandoned", "pulled": "answered"}
    assert all(e["attested"] for e in found.values())
    e = found[mixed.confirmed]
    assert (e["direction"], e["attempts"], e["confirmed"]) == \
        ("push", 1, log.deliveries[mixed.confirmed].confirmed["seq"])
    assert found[mixed.pending]["confirmed"] is None
    assert found["pulled"]["direction"] == "pull"
    # What is not confirmed stands at the end.
    order = [e["message_id"] for e in mixed.tekd.ctl("audit", "ledger")]
    assert order == [mixed.confirmed, "pulled", mixed.pending, mixed.abandoned]
    assert [e["message_id"] for e in mixed.tekd.ctl("audit", "ledger", "--bsa", "p-1")] == \
        [mixed.pending, mixed.abandoned]
    assert [e["message_id"] for e in mixed.tekd.ctl("audit", "ledger", "--content", "urn:a")] == \
        [mixed.confirmed, "pulled"]
    text = mixed.tekd.tekctl("audit", "ledger").stdout
    assert re.search(rf" {mixed.confirmed} +confirmed +\S+ +urn:a$", text, re.M), text


def shown(text):
    """Of a ledger as CSV, by Message ID."""
    return {r["message_id"]: r for r in csv.DictReader(io.StringIO(text, newline=""))}


def test_both_ledgers_list_what_is_asked_for(mixed):
    folder = mixed.tekd.export()
    time = {e["message_id"]: e["time"] for e in mixed.tekd.ctl("audit", "ledger")}
    everything = set(time)

    def both(*options):
        """The Message IDs, as CSV and as JSON, of the server and of the export."""
        server = set(shown(mixed.tekd.tekctl("audit", "ledger", "--csv", *options).stdout))
        assert {e["message_id"] for e in mixed.tekd.ctl("audit", "ledger", *options)} == server
        assert set(audit_ledger(folder, *options)) == server
        done = run([program("tek-audit"), "ledger", folder, "--csv", *options])
        assert set(shown(done.stdout)) == server
        return server

    assert both() == everything
    assert both("--pending") == {mixed.pending}
    assert both("--bsa", "p-1", "--pending") == {mixed.pending}
    assert both("--bsa", "p-1") == {mixed.pending, mixed.abandoned}
    assert both("--content", "urn:a") == {mixed.confirmed, "pulled"}
    assert both("--content", "urn:a", "--pending") == both("--bsa", "none") == set()
    for moment in set(time.values()):
        before = {m for m, t in time.items() if t < moment}
        assert both("--until", moment) == before
        assert both("--from", moment[:-1]) == everything - before
        assert both("--from", moment, "--until", moment) == set()
    assert both("--from", "2000-01-01", "--until", "9999-12-31T23:59Z") == everything
    for command in ([program("tek-audit"), "ledger", folder],
                    mixed.tekd.tekctl_argv("audit", "ledger")):
        done = run([*command, "--from", "yesterday"], check=False)
        assert done.returncode == 2 and "yesterday" in done.stderr, done


def test_the_ledger_as_csv(mixed):
    rows = shown(mixed.tekd.tekctl("audit", "ledger", "--csv").stdout)
    theirs = audit_ledger(mixed.tekd.export())
    assert set(rows) == set(theirs)
    e = rows[mixed.confirmed]
    assert (e["bsa"], e["direction"], e["state"], e["content_id"], e["attempts"], e["attested"]) \
        == ("p-0", "push", "confirmed", "urn:a", "1", "true")
    assert (e["time"], e["done"], e["confirmed"]) == tuple(
        str(theirs[mixed.confirmed][k]) for k in ("time", "done", "confirmed"))
    assert e["time"] < e["done"] < "2999"
    assert (rows["pulled"]["attempts"], rows["pulled"]["done"]) == ("", "")
    assert theirs["pulled"]["time"] < theirs["pulled"]["done"]
    assert (rows[mixed.pending]["done"], theirs[mixed.pending]["done"]) == ("", None)


def test_the_auditor_sees_the_same(mixed):
    folder, key = mixed.tekd.export(), mixed.tekd.path("checkpoint.pem")
    said = json.loads(run([program("tek-audit"), "verify", folder, "--key", key, "--first",
                           "--json"]).stdout)
    assert (said["prepared"], said["confirmed"], said["pending"]) == (3, 1, 1)
    rows = audit_ledger(folder)
    assert {m: r["state"] for m, r in rows.items()} == {
        e["message_id"]: e["state"].replace("answered", "sent")
        for e in mixed.tekd.ctl("audit", "ledger")}
    assert rows[mixed.confirmed]["confirmed"] == next(
        r["seq"] for r in map(json.loads, lines_of(folder, "audit.jsonl"))
        if r["ev"] == "delivery.confirmed")
    text = run([program("tek-audit"), "ledger", folder, "--csv"]).stdout
    assert {r["message_id"] for r in csv.DictReader(io.StringIO(text))} == set(rows)


def test_an_export_has_what_is_pending(mixed):
    folder = mixed.tekd.export()
    assert lines_of(folder, "pending.jsonl") == [records_of(folder)[mixed.pending]]
    sums = dict(line.decode().split()[::-1] for line in lines_of(folder, "SHA256SUMS"))
    octets = b"".join(lines_of(folder, "pending.jsonl"))
    assert sums["pending.jsonl"] == hashlib.sha256(octets).hexdigest()
    # Until it is confirmed.
    mixed["p-1"].listens()
    mixed.tekd.tekctl("delivery", "retry", mixed.pending)
    mixed.wait(mixed.pending)
    assert lines_of(mixed.tekd.export(), "pending.jsonl") == []


def test_a_confirmation_that_no_checkpoint_covered_does_not_count(new_stage):
    """tekd is killed when the confirmation is durable and its checkpoint is not yet."""
    stage = new_stage(["p-0"], audit={"checkpoint_max_delay_ms": 60000}).start(url=False)
    bsa = add(stage, "urn:a")["p-0"]
    mid, = stage.deliver("urn:a", "p-0")
    m = bsa.collect(QUICK_S)
    assert m.mid == mid and bsa.confirm(m) == 204
    assert stage.show(mid)["state"] == "confirmed"
    stage.tekd.kill()
    stage.tekd.start()
    seq = next(h["seq"] for h in stage.show(mid)["history"] if h["event"] == "delivery.confirmed")
    shown = {h["event"]: h.get("attested", True) for h in stage.show(mid)["history"]}
    assert shown["delivery.confirmed"] is False and shown["delivery.prepared"] is True
    folder = stage.tekd.export()
    assert lines_of(folder, "pending.jsonl") == [records_of(folder)[mid]]
    row = audit_ledger(folder)[mid]
    assert (row["state"], row["attested"], row["confirmed"]) == ("unknown", False, seq)
    entry, = stage.tekd.ctl("audit", "ledger")
    assert (entry["attested"], entry["confirmed"]) == (False, None)
    assert re.search(rf"{mid} +unknown\? ", stage.tekd.tekctl("audit", "ledger").stdout)
    # It comes again, and is confirmed for good.
    again = bsa.collect(QUICK_S)
    assert again.mid == mid and bsa.confirm(again) == 204
    stage.verify()
    folder = stage.tekd.export()
    row = audit_ledger(folder)[mid]
    assert (row["state"], row["attested"]) == ("confirmed", True)
    assert lines_of(folder, "pending.jsonl") == []


# ---- polls -----------------------------------------------------------------------------------------

class Poll:
    """A question that is open."""

    def __init__(self, stage, name, wait):
        self.connection = stage.tekd.connect(name)
        self.connection.send_request("GET", f"/cp3/deliveries?wait={wait}")

    def answer(self):
        return self.connection.read_response()

    def close(self):
        self.connection.close()


@pytest.fixture
def behind_nat(new_stage):
    return add(new_stage(["p-0", "p-1"]).start(url=False), "urn:a")


def test_a_stop_answers_polls_at_once(behind_nat):
    polls = [Poll(behind_nat, name, 60) for name in ("p-0", "p-1")]
    assert not polls[1].connection.wait_octet(1)
    begun = time.monotonic()
    stopper = threading.Thread(target=behind_nat.tekd.stop)
    stopper.start()
    for poll in polls:
        answer = poll.answer()
        assert answer.status == 204 and answer.header("connection") == "close"
        assert answer.header("cache-control") == "no-store"
        poll.close()
    assert time.monotonic() - begun < QUICK_S
    stopper.join()
    assert "connections-cut" not in behind_nat.tekd.log()


def revoke(stage, name):
    """In the CRL of this stage alone."""
    ca = copy.copy(stage.tekd.template.ca)
    ca.revoked = list(ca.revoked)
    with open(stage.tekd.path("pki", f"{name}.crt"), "rb") as f:
        ca.revoke(x509.load_pem_x509_certificate(f.read()))
    ca.write_crl(stage.tekd.path("pki", "ca.crl"))


def test_who_is_revoked_while_he_waits_gets_no_key(behind_nat):
    poll, other = Poll(behind_nat, "p-0", 60), Poll(behind_nat, "p-1", 60)
    assert not poll.connection.wait_octet(1)
    revoke(behind_nat, "p-0")
    behind_nat.tekd.hup()
    behind_nat.deliver("urn:a", "p-0", "p-1")
    problem(poll.answer(), 403)
    assert poll.connection.is_closed_by_peer()
    assert other.answer().status == 200
    for p in (poll, other):
        p.close()


def test_strangers_collect_nothing_and_are_recorded(behind_nat):
    mid, = behind_nat.deliver("urn:a", "p-0")
    with behind_nat.tekd.connect("stranger") as c:
        problem(c.request("GET", "/cp3/deliveries?wait=60"), 403)
        assert c.is_closed_by_peer()
    refused = [r for r in behind_nat.tekd.audit().of("request.refused")]
    assert [(r["reason"], "peer" in r) for r in refused] == [("not-enrolled", False)]
    assert behind_nat.show(mid)["attempts"] == 0


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE"])
def test_other_methods(behind_nat, method):
    with behind_nat.tekd.connect("p-0") as c:
        c.send_request(method, "/cp3/deliveries?wait=1")
        while b"\r\n\r\n" not in c.buffer:
            c.buffer += c.sock.recv(4096)
        assert c.buffer.startswith(b"HTTP/1.1 405 ") and b"\r\nallow: get\r\n" in c.buffer.lower()
    with behind_nat.tekd.connect("p-0") as c:
        assert c.request("GET", "/cp3").header("allow") == "POST"


def test_a_client_that_goes_away_frees_its_connection(behind_nat):
    before = behind_nat.tekd.ctl("status")["http"]["connections"]
    polls = [Poll(behind_nat, "p-0", 60) for _ in range(8)]
    wait_until(lambda: behind_nat.tekd.look("status")["http"]["connections"] == before + 8, "polls")
    for i, poll in enumerate(polls):
        if i % 2:
            poll.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                            b"\1\0\0\0\0\0\0\0")  # ends by a reset
        poll.close()
    wait_until(lambda: behind_nat.tekd.look("status")["http"]["connections"] == before,
               "connections to end", QUICK_S)
    # And nothing was spent on who had gone.
    mid, = behind_nat.deliver("urn:a", "p-0")
    m = behind_nat["p-0"].collect(QUICK_S)
    assert m.mid == mid and behind_nat["p-0"].post(confirmation(m)).status == 204
    assert behind_nat.show(mid)["attempts"] == 1
