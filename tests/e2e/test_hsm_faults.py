"""HSM workers that crash, hang or are refused: requests get 503 in time, and tekd goes on."""

import os
import re
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from cp3py.messages import request
from harness import procs
from harness.answers import checked, given, problem, refused
from harness.load import Load, together
from harness.procs import run, wait_until
from harness.programs import program, softhsm, tool

# limits.request_deadline_ms, and what a loaded machine may add to it.
DEADLINE_S = 4
SLACK_S = 2
RECOVERY_S = 45  # a few starts of workers, with back-off


def workers(tekd, role):
    found = [w["pid"] for w in tekd.look("hsm status")["workers"] if w["role"] == role]
    assert found and all(found), found
    return found


def ready_workers(tekd):
    return {w["pid"] for w in tekd.look("hsm status")["workers"] if w["ready"]}


def ask_until_given(tekd, prefix, seconds=RECOVERY_S):
    """New requests until one is answered; how many were not.  Every refusal is a 503 in time."""
    end = time.monotonic() + seconds
    n = 0
    with tekd.connect() as c:
        while True:
            m = request(f"{prefix}-{n}", f"urn:{prefix}", "bsa-1")
            begun = time.monotonic()
            r = c.ask(m)
            assert time.monotonic() - begun < DEADLINE_S + SLACK_S
            if r.status == 200:
                given(r, m, tekd.template.bsas["bsa-1"])
                return n
            assert_busy(r, m)
            n += 1
            assert time.monotonic() < end, f"no recovery within {seconds} s\n{tekd.log()[-3000:]}"


def assert_busy(r, m=None, media="xml"):
    checked(r)
    assert (r.status, r.header("cp3-reason")) == (503, "busy"), r
    assert 1 <= int(r.header("retry-after")) <= 60
    if m is not None:
        answer = r.message()
        assert (answer.tag, answer.status, answer.mid) == (2, 1, m.mid) and r.media == media


def new_contents(prefix):
    def next_request(i, n):
        return request(f"{prefix}-{i}-{n}", f"urn:{prefix}:{i}:{n}", f"bsa-{i % 2 + 1}"), "xml"
    return next_request


def load_on(tekd, prefix, n=16):
    return Load(tekd, n, new_contents(prefix), lambda i: f"bsa-{i % 2 + 1}").start()


def assert_only_keys_and_503(tekd, load):
    assert not load.errors, load.errors
    for _, m, media, r in load.answered:
        if r.status == 200:
            given(r, m, tekd.template.bsas[m.source], media)
        else:
            assert_busy(r, m, media)
    return Counter(r.status for _, _, _, r in load.answered)


# ---- crashes ---------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_killed_workers_cost_at_most_503s(tekd, mid):
    pid = tekd.pid
    load = load_on(tekd, mid)
    for turn in range(4):
        wait_until(lambda: len(load.answered) > 50 * (turn + 1), "answers")
        wait_until(lambda: len(ready_workers(tekd)) == 3, "all workers", RECOVERY_S)
        for role in ("key", "audit")[:1 + turn % 2]:
            for worker in workers(tekd, role):
                procs.kill(worker)
    before = len(load.answered)
    wait_until(lambda: sum(r.status == 200 for *_, r in load.answered[before:]) > 50,
               "answers after the last crash", RECOVERY_S)
    load.stop()
    assert assert_only_keys_and_503(tekd, load)[200] > 100
    assert tekd.pid == pid
    status = tekd.look("hsm status")
    assert sum(w["restarts"] for w in status["workers"]) >= 6
    log = tekd.audit()
    answered = {(m.source, m.mid) for _, m, _, r in load.answered if r.status == 200}
    assert answered <= set(log.ledger)


def test_one_killed_worker_is_not_noticed(tekd, mid):
    """The call that lost its worker is tried once more on another."""
    load = load_on(tekd, mid, 4)
    for turn in range(5):
        wait_until(lambda: len(load.answered) > 40 * (turn + 1), "answers")
        wait_until(lambda: len(ready_workers(tekd)) == 3, "all workers", RECOVERY_S)
        procs.kill(workers(tekd, "key")[turn % 2])
    load.stop()
    assert set(assert_only_keys_and_503(tekd, load)) == {200}


def test_killed_parent_is_started_again_and_its_workers_end(tekd, mid):
    for turn in range(2):
        parent, children = tekd.hsm_processes()
        tekd.note_family()
        procs.kill(parent)
        wait_until(lambda: not any(procs.is_alive(p) for p in [parent] + children),
                   "the end of all its workers")
        ask_until_given(tekd, f"{mid}-{turn}")
        assert tekd.hsm_processes()[0] != parent
    tekd.wait_for("/readyz")


# ---- hangs -----------------------------------------------------------------------------------------

def test_hung_key_workers_503_in_time_repeats_go_on(tekd, mid):
    known = request(mid, "urn:known", "bsa-1")
    with tekd.connect() as c:
        first = given(c.ask(known), known, tekd.template.bsas["bsa-1"])
    hung = workers(tekd, "key")
    tekd.note_family()
    for worker in hung:
        procs.kill(worker, signal.SIGSTOP)
    connections = [tekd.connect(f"bsa-{i % 2 + 1}") for i in range(12)]

    def work(i):
        m, media = new_contents(mid)(i, 0)
        begun = time.monotonic()
        r = connections[i].ask(m, media)
        return m, r, time.monotonic() - begun

    with tekd.connect() as c:
        begun = time.monotonic()
        # The handing out of what is stored needs no worker: it goes on while the others wait.
        repeat = given(c.ask(known), known, tekd.template.bsas["bsa-1"])
        assert repeat.data == first.data and time.monotonic() - begun < 1
    for m, r, seconds in together(12, work):
        assert seconds < DEADLINE_S + SLACK_S, seconds
        if r.status != 200:  # those that came when new workers were there already
            assert_busy(r, m)
    for c in connections:
        c.close()
    ask_until_given(tekd, mid + "-after")
    assert not set(hung) & set(workers(tekd, "key"))
    wait_until(lambda: not any(procs.is_alive(p) for p in hung), "the end of the hung workers")


def assert_all_503_in_time(tekd, prefix):
    """Of both BSAs, on connections that are open, and none of them a key."""
    connections = [tekd.connect(f"bsa-{i % 2 + 1}") for i in range(4)]

    def work(i):
        m, media = new_contents(prefix)(i, 0)
        begun = time.monotonic()
        r = connections[i].ask(m, media)
        assert_busy(r, m)
        return time.monotonic() - begun

    seconds = together(4, work)
    for c in connections:
        c.close()
    assert max(seconds) < DEADLINE_S + 1, seconds


def stop_all_workers(tekd, role):
    """Those of the role; which they were."""
    wait_until(lambda: len(ready_workers(tekd)) == 3, "all workers", RECOVERY_S)
    stopped = workers(tekd, role)
    tekd.note_family()
    for worker in stopped:
        procs.kill(worker, signal.SIGSTOP)
    return stopped


@pytest.mark.parametrize("role", ["key", "audit"])
def test_without_any_worker_each_request_gets_503_until_they_go_on(new_tekd, mid, role):
    """None takes their place: a call may last longer than a request."""
    tekd = new_tekd(hsm={"timeout_ms": 60000}).start()
    pid, stopped = tekd.pid, stop_all_workers(tekd, role)
    for turn in range(2):
        assert_all_503_in_time(tekd, f"{mid}-{turn}")
    assert workers(tekd, role) == stopped
    for worker in stopped:
        procs.kill(worker, signal.SIGCONT)
    ask_until_given(tekd, mid + "-after")
    assert (tekd.pid, workers(tekd, role)) == (pid, stopped)
    tekd.audit()


@pytest.mark.parametrize("role", ["key", "audit"])
def test_without_any_worker_each_request_gets_503_until_they_are_killed(new_tekd, mid, role):
    """Then others take their place."""
    tekd = new_tekd(hsm={"timeout_ms": 60000}).start()
    pid, stopped = tekd.pid, stop_all_workers(tekd, role)
    assert_all_503_in_time(tekd, mid)
    for worker in stopped:
        procs.kill(worker)
    ask_until_given(tekd, mid + "-after")
    assert tekd.pid == pid
    wait_until(lambda: len(ready_workers(tekd)) == 3, "all workers", RECOVERY_S)
    assert not set(stopped) & set(workers(tekd, role))
    tekd.audit()


def test_busy_before_the_message_is_read_is_a_problem(new_tekd, mid):
    """Of two at once the one beyond the BSA's limit is told so without a look at its message."""
    tekd = new_tekd(limits={"per_bsa_concurrency": 1}).start()
    tekd.note_family()
    for worker in workers(tekd, "key"):
        procs.kill(worker, signal.SIGSTOP)
    connections = [tekd.connect() for _ in range(2)]
    wanted = [request(f"{mid}-{i}", f"urn:{mid}:{i}", "bsa-1") for i in range(2)]
    answers = together(2, lambda i: (wanted[i], connections[i].ask(wanted[i])))
    for c in connections:
        c.close()
    known = [(m, r) for m, r in answers if r.media is not None]
    (beyond,) = [r for _, r in answers if r.media is None]
    problem(beyond, 503, "busy")
    for m, r in known:
        if r.status != 200:
            assert_busy(r, m)


def test_hung_signer_503_in_time_and_what_is_signed_is_given(tekd, mid):
    known = request(mid, "urn:known", "bsa-1")
    with tekd.connect() as c:
        first = given(c.ask(known), known, tekd.template.bsas["bsa-1"])
    hung = workers(tekd, "audit")
    tekd.note_family()
    procs.kill(hung[0], signal.SIGSTOP)
    m = request(mid + "-2", "urn:known", "bsa-2")
    with tekd.connect("bsa-2") as waiting, tekd.connect() as c:
        begun = time.monotonic()
        waiting.send_message(m)
        assert given(c.ask(known), known, tekd.template.bsas["bsa-1"]).data == first.data
        assert time.monotonic() - begun < 1
        r = waiting.read_response()
        assert time.monotonic() - begun < DEADLINE_S + SLACK_S
        if r.status != 200:  # a new signer may have been there in time
            assert_busy(r, m)
    ask_until_given(tekd, mid + "-after")
    assert hung != workers(tekd, "audit")
    with tekd.connect("bsa-2") as c:
        given(c.ask(m), m, tekd.template.bsas["bsa-2"])
    log = tekd.audit()
    assert len(log.of("request.answered")) == len(log.ledger)


def test_hung_parent_does_not_stop_its_workers_and_is_replaced(tekd, mid):
    parent, _ = tekd.hsm_processes()
    tekd.note_family()
    procs.kill(parent, signal.SIGSTOP)
    load = load_on(tekd, mid, 4)
    wait_until(lambda: len(load.answered) > 200, "answers while it hangs")
    assert set(Counter(r.status for *_, r in load.answered)) == {200}
    wait_until(lambda: not procs.is_alive(parent), "the end of the hung parent", RECOVERY_S)
    before = len(load.answered)
    wait_until(lambda: sum(r.status == 200 for *_, r in load.answered[before:]) > 50,
               "answers of its successor", RECOVERY_S)
    load.stop()
    assert_only_keys_and_503(tekd, load)
    tekd.wait_for("/readyz")


def test_everything_of_the_hsm_hangs_and_comes_back(new_tekd, mid):
    """Also tells the operator: readyz, status, records."""
    tekd = new_tekd(hsm={"timeout_ms": 2000}).start()
    parent, children = tekd.hsm_processes()
    tekd.note_family()
    for pid in [parent] + children:
        procs.kill(pid, signal.SIGSTOP)
    with tekd.connect() as c:
        m = request(mid, "urn:x", "bsa-1")
        begun = time.monotonic()
        assert_busy(c.ask(m), m)
        assert time.monotonic() - begun < DEADLINE_S + SLACK_S
    status, why = tekd.wait_for("/readyz", 503)
    assert "HSM" in why or "checkpoint" in why or "signer" in why, why
    assert tekd.probe("/healthz")[0] == 200
    tekd.wait_for("/readyz", seconds=RECOVERY_S)
    ask_until_given(tekd, mid + "-after")
    wait_until(lambda: tekd.audit().of("hsm.back"), "hsm.back")
    log = tekd.audit()
    assert len(log.of("hsm.lost")) == len(log.of("hsm.back")) >= 1


# ---- the key of TLS --------------------------------------------------------------------------------

def handshakes(tekd, mid, n):
    """Connections that a key comes over."""
    for i in range(n):
        m = request(f"{mid}-{i}", f"urn:{mid}", "bsa-1")
        with tekd.connect() as c:
            given(c.ask(m), m, tekd.template.bsas["bsa-1"])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_lost_tls_worker_costs_no_handshake(new_tekd, mid, how):
    """The signature is made by the next worker; who is connected notices nothing meanwhile."""
    tekd = new_tekd(tls={"certificate": "pki/tekd-tls.crt", "key": "pkcs11:object=tekd-tls"},
                    hsm={"tls_timeout_ms": 4000}).start()
    tekd.note_family()
    handshakes(tekd, mid + "-before", 2)
    lost = workers(tekd, "tls")
    with tekd.connect() as open_one, ThreadPoolExecutor(1) as pool:
        before = tekd.look("status")["http"]["accepted"]
        procs.kill(lost[0], how)
        new_one = pool.submit(handshakes, tekd, mid, 1)
        wait_until(lambda: tekd.look("status")["http"]["accepted"] > before, "the handshake")
        n = 0
        while n < 20 or not new_one.done():
            m = request(f"{mid}-open-{n}", f"urn:{mid}:open", "bsa-1")
            begun = time.monotonic()
            given(open_one.ask(m), m, tekd.template.bsas["bsa-1"])
            assert time.monotonic() - begun < SLACK_S
            n += 1
        new_one.result()
    handshakes(tekd, mid + "-after", 3)
    assert lost != workers(tekd, "tls")
    wait_until(lambda: not procs.is_alive(lost[0]), "the end of the lost worker")
    assert tekd.look("status")["http"]["handshakes_failed"] == 0


# ---- workers that are replaced ---------------------------------------------------------------------

def test_recycled_workers_are_not_noticed_and_need_no_pin(new_tekd, mid):
    tekd = new_tekd(hsm={"recycle_after": 100}).start()
    os.unlink(tekd.path("hsm.pin"))
    before = set(workers(tekd, "key"))
    load = load_on(tekd, mid, 8)
    wait_until(lambda: not before & set(workers(tekd, "key")), "other workers", RECOVERY_S)
    after = set(workers(tekd, "key"))
    wait_until(lambda: not after & set(workers(tekd, "key")), "others again", RECOVERY_S)
    load.stop()
    assert set(assert_only_keys_and_503(tekd, load)) == {200}


# ---- PINs ------------------------------------------------------------------------------------------

def spy_library():
    for path in ("/usr/lib/x86_64-linux-gnu/pkcs11-spy.so", "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so",
                 "/usr/lib/pkcs11-spy.so"):
        if os.path.exists(path):
            return path
    raise AssertionError("pkcs11-spy.so is not installed (package opensc-pkcs11)")


class Spy:
    """pkcs11-spy between tekd-hsm and SoftHSM; counts calls of all processes."""

    def __init__(self, tekd):
        self.path = tekd.path("spy.log")
        tekd.configure(hsm={"module": spy_library(), "env": {
            "SOFTHSM2_CONF": "softhsm2.conf", "PKCS11SPY": softhsm(),
            "PKCS11SPY_OUTPUT": self.path}})

    def count(self, call):
        if not os.path.exists(self.path):
            return 0
        with open(self.path, encoding="utf-8", errors="replace") as f:
            return len(re.findall(rf"^\d+: {call}$", f.read(), re.M))


def write_pin(tekd, pin):
    path = tekd.path("hsm.pin")
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        f.write(pin)
    os.rename(path + ".new", path)


def assert_pin_refused(tekd, mid):
    tekd.wait_for("/healthz")
    status, why = tekd.wait_for("/readyz", 503)
    wait_until(lambda: tekd.look("hsm status")["state"] == "pin-refused", "pin-refused")
    assert "PIN" in tekd.probe("/readyz")[1]
    with tekd.connect() as c:
        m = request(mid, "urn:x", "bsa-1")
        begun = time.monotonic()
        assert_busy(c.ask(m), m)
        assert time.monotonic() - begun < DEADLINE_S + SLACK_S


def test_spy_counts_the_logins_of_a_good_start(new_tekd):
    """That the count of the next test can be another: each of the three workers logs in once."""
    tekd = new_tekd()
    spy = Spy(tekd)
    tekd.start()
    wait_until(lambda: len(ready_workers(tekd)) == 3, "all workers")
    assert spy.count("C_Login") == 3


def test_refused_pin_is_tried_once_over_three_restarts(new_tekd, mid):
    tekd = new_tekd()
    good = tekd.template.pin
    spy = Spy(tekd)
    write_pin(tekd, "not" + good)
    for turn in range(3):
        tekd.start(wait=None)
        assert_pin_refused(tekd, f"{mid}-{turn}")
        assert spy.count("C_Login") == 1
        if turn == 1:
            tekd.kill()
        else:
            tekd.stop()
    assert spy.count("C_Login") == 1
    # --check says so as well, and does not try either.
    check = run([program("tekd"), "--config", tekd.path("tekd.yaml"), "--check"], check=False)
    assert check.returncode == 3 and "PIN" in check.stdout + check.stderr, check
    assert spy.count("C_Login") == 1
    # The file is mended while tekd runs: that is enough.
    tekd.start(wait=None)
    assert_pin_refused(tekd, mid)
    write_pin(tekd, good)
    tekd.wait_for("/readyz", seconds=RECOVERY_S)
    assert spy.count("C_Login") == 4
    ask_until_given(tekd, mid)
    tekd.stop()
    for folder, _, files in os.walk(tekd.folder):
        for name in set(files) - {"spy.log", "hsm.pin"}:
            with open(os.path.join(folder, name), "rb") as f:
                assert good.encode() not in f.read(), name


def test_hsm_retry_tries_the_same_source_again(new_tekd, mid):
    """The token has another PIN for a while: the file was right all the time."""
    tekd = new_tekd()
    spy = Spy(tekd)
    with open(tekd.path("so.pin"), encoding="ascii") as f:
        so_pin = f.read().strip()

    def set_user_pin(pin):
        run([tool("pkcs11-tool"), "--module", softhsm(), "--token-label", "tekd", "--init-pin",
             "--login-type", "so", "--login", "--so-pin", so_pin, "--new-pin", pin],
            env={**os.environ, "SOFTHSM2_CONF": tekd.path("softhsm2.conf")})

    set_user_pin("another-pin")
    tekd.start(wait=None)
    assert_pin_refused(tekd, mid)
    set_user_pin(tekd.template.pin)
    refusals = spy.count("C_Login")
    assert refusals == 1
    # Nothing happens by itself, for the source is the same.
    assert_pin_refused(tekd, mid)
    assert spy.count("C_Login") == 1
    tekd.tekctl("hsm", "retry")
    tekd.wait_for("/readyz", seconds=RECOVERY_S)
    ask_until_given(tekd, mid)
    assert [r["actor"] for r in tekd.audit().of("admin.action") if r["action"] == "hsm retry"] == \
        ["root"]


def test_retry_with_a_wrong_pin_costs_one_login_each(new_tekd, mid):
    tekd = new_tekd()
    spy = Spy(tekd)
    write_pin(tekd, "wrong-pin")
    tekd.start(wait=None)
    assert_pin_refused(tekd, mid)
    for n in (2, 3):
        tekd.tekctl("hsm", "retry")
        wait_until(lambda: spy.count("C_Login") == n, "one more login")
        assert_pin_refused(tekd, mid)
        assert spy.count("C_Login") == n


@pytest.mark.parametrize("how", ["missing", "mode", "empty"])
def test_pin_file_that_is_no_good_is_no_end(new_tekd, mid, how):
    tekd = new_tekd()
    path = tekd.path("hsm.pin")
    if how == "missing":
        os.unlink(path)
    elif how == "mode":
        os.chmod(path, 0o644)
    else:
        with open(path, "w", encoding="ascii"):
            pass
    tekd.start(wait="alive")
    assert tekd.probe("/readyz")[0] == 503
    with tekd.connect() as c:
        m = request(mid, "urn:x", "bsa-1")
        assert_busy(c.ask(m), m)
    write_pin(tekd, tekd.template.pin)
    tekd.wait_for("/readyz", seconds=RECOVERY_S)
    ask_until_given(tekd, mid)


def test_pin_from_a_descriptor(new_tekd, mid):
    """Read once and inherited; after the death of tekd-hsm the operator has to give it again."""
    tekd = new_tekd(hsm={"pin_file": None, "pin_fd": 7}).start_with_pin_fd()
    ask_until_given(tekd, mid)
    parent, _ = tekd.hsm_processes()
    procs.kill(parent)
    wait_until(lambda: "PIN" in tekd.look("hsm status")["reason"], "a PIN is asked for",
               RECOVERY_S)
    assert tekd.probe("/readyz")[0] == 503


def test_a_descriptor_that_is_not_open_is_told_at_once(new_tekd):
    tekd = new_tekd(hsm={"pin_file": None, "pin_fd": 7})
    for more in ([], ["--check"]):
        done = run([program("tekd"), "--config", tekd.path("tekd.yaml"), *more], check=False,
                   close_fds=True)
        assert done.returncode == 1 and "hsm.pin_fd: descriptor 7 is not open" in done.stderr, done


# ---- tokens and keys that are not the right ones ---------------------------------------------------

def test_token_that_is_away_at_the_start_comes_back(new_tekd, mid):
    tekd = new_tekd()
    os.rename(tekd.path("tokens"), tekd.path("tokens-away"))
    os.mkdir(tekd.path("tokens"))
    tekd.start(wait="alive")
    assert tekd.probe("/readyz")[0] == 503
    with tekd.connect() as c:
        m = request(mid, "urn:x", "bsa-1")
        assert_busy(c.ask(m), m)
        # Who gets nothing anyway is told so all the same.
        m = request(mid, "urn:x", "bsa-2")
        refused(c.ask(m), m, "wrong-source")
    with tekd.connect("stranger") as c:
        problem(c.ask(m), 403)
    os.rmdir(tekd.path("tokens"))
    os.rename(tekd.path("tokens-away"), tekd.path("tokens"))
    tekd.wait_for("/readyz", seconds=RECOVERY_S)
    ask_until_given(tekd, mid)


def delete_key(tekd, label, kind="secrkey"):
    run([tool("pkcs11-tool"), "--module", softhsm(), "--token-label", "tekd", "--login", "--pin",
         tekd.template.pin, "--delete-object", "--type", kind, "--label", label],
        env={**os.environ, "SOFTHSM2_CONF": tekd.path("softhsm2.conf")})


def provision(tekd, *words):
    run([program("tek-provision"), *words, "--module", softhsm(), "--profile", "softhsm",
         "--token", "pkcs11:token=tekd", "--pin-file", tekd.path("hsm.pin"),
         "--env", f"SOFTHSM2_CONF={tekd.path('softhsm2.conf')}"])


def test_deliver_prints_what_is_prepared_though_a_kek_is_gone(tekd, mid):
    ask_until_given(tekd, mid)
    content = f"urn:all:{mid}"
    tekd.tekctl("content", "add", content)
    delete_key(tekd, "bsa-2-kek")
    done = tekd.tekctl("deliver", content, check=False)
    assert done.returncode == 1, done
    prepared = {d["message_id"]: d["bsa"] for d in tekd.look("delivery list")
                if d["content_id"] == content}
    assert prepared and "bsa-2" not in prepared.values()
    assert set(done.stdout.split()) == set(prepared), done
    assert f"{len(prepared)} are prepared" in done.stderr and '"bsa-2"' in done.stderr
    assert tekd.tekctl("deliver", content, "--bsa", "bsa-2", check=False).stdout == ""


@pytest.mark.parametrize("what", ["storage-gone", "storage-other", "bsa-other", "checkpoint-other"])
def test_wrong_key_under_a_bound_label_ends_tekd(new_tekd, mid, what):
    tekd = new_tekd().start()
    ask_until_given(tekd, mid)
    tekd.stop()
    if what.startswith("storage"):
        delete_key(tekd, "tekd-storage")
        if what == "storage-other":
            provision(tekd, "kek", "storage", "--label", "tekd-storage")
    elif what == "bsa-other":
        delete_key(tekd, "bsa-1-kek")
        provision(tekd, "kek", "bsa", "--label", "bsa-1-kek")
    else:
        delete_key(tekd, "tekd-checkpoint", "privkey")
        delete_key(tekd, "tekd-checkpoint", "pubkey")
        provision(tekd, "key", "checkpoint", "--label", "tekd-checkpoint")
    check = run([program("tekd"), "--config", tekd.path("tekd.yaml"), "--check"], check=False)
    assert check.returncode in (1, 74) and "BAD" in check.stdout, check
    tekd.start(wait=None)
    assert tekd.wait_end() in (1, 74)
