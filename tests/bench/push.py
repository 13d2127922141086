"""The push case measured: deliveries confirmed per second, fan-outs, and requests beside them.

The BSAs are all in one process (bench_bsas), so that what they cost is on the same processors.
Rates and times are taken from the audit log's own records, exported at the end.
"""

import concurrent.futures
import datetime
import json
import os
import socket
import subprocess
import time
from collections import defaultdict
from statistics import median

import pki
from procs import Machine, cpu_of
from tools import BenchError, call, end_with_parent, stop, wait_until

KEK = "push-kek"
FANOUT_US = 2_000_000
PER_SECOND = 1000
# Who asks on the admin socket at the same time; tekd serves eight.
ADMINS = 6
MARGIN_S = 120


class Form:
    """How much is measured: deliveries of one backlog by the number of BSAs, rounds at most."""

    def __init__(self, count, backlogs, rounds):
        self.count, self.backlogs, self.rounds = count, backlogs, rounds


FORMS = {"short": Form(100, {1: 100, 10: 200, 100: 400}, 1),
         "default": Form(1000, {1: 400, 10: 1000, 1000: 4000}, 3)}
LOAD = ("--mode", "known", "--content-seed", 11, "--contents", 1000, "--connections", 4)


def micros(record):
    t = datetime.datetime.strptime(record["t"], "%Y-%m-%dT%H:%M:%S.%fZ")
    return int(t.replace(tzinfo=datetime.timezone.utc).timestamp() * 1_000_000)


def now_us():
    return time.time_ns() // 1000


def ask(path, command, **args):
    """One command on the admin socket, its result: ten times as fast as a tekctl."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(path)
        with s.makefile("rwb") as f:
            f.write(json.dumps({"command": command, **args}).encode() + b"\n")
            f.flush()
            answer = json.loads(f.readline() or b"{}")
    if not answer.get("ok"):
        raise BenchError(f"{command} {args}: {answer.get('error', 'no answer')}")
    return answer.get("result")


class Bsas:
    """The running bench_bsas."""

    def __init__(self, programs, ca, prefix, count):
        self.process = subprocess.Popen(
            [programs.own("bench_bsas"), "--ca", ca, "--prefix", prefix, "--count", str(count),
             "--seconds", "86400"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=end_with_parent)
        line = self.process.stdout.readline()
        if not line:
            raise BenchError("bench_bsas did not start")
        self.ports = json.loads(line)["ports"]

    def hold(self, on):
        """Whether they answer nothing from now on, or all that they took."""
        self.process.stdin.write("h" if on else "g")
        self.process.stdin.flush()
        if json.loads(self.process.stdout.readline() or "{}").get("holds") is not on:
            raise BenchError("bench_bsas does not listen")

    def cpu(self):
        return cpu_of(self.process.pid)

    def stop(self):
        """What came to them."""
        stop(self.process)
        told = json.loads(self.process.stdout.readline() or "{}")
        self.process.stdin.close()
        self.process.stdout.close()
        return told


class Key:
    """What the log says of the deliveries of one TEK; microseconds."""

    def __init__(self):
        self.made = 0
        self.prepared, self.attempts, self.confirmed = {}, defaultdict(list), {}

    def prepared_after(self):
        """From the TEK to its last delivery's record."""
        return max(self.prepared.values()) - self.made

    def confirmed_after(self):
        return max(self.confirmed.values()) - self.made

    def rate(self, since):
        """Confirmed per second of what was first sent after a moment."""
        later = [mid for mid, at in self.attempts.items() if at[0] >= since]
        return len(later) * 1e6 / (max(self.confirmed[mid] for mid in later) - since)

    def check(self, wanted):
        if not len(self.prepared) == len(self.confirmed) == wanted:
            raise BenchError(f"of {wanted} deliveries {len(self.prepared)} were prepared and "
                             f"{len(self.confirmed)} confirmed")


def read_log(folder):
    """Of an exported log, by key ID; and how many attempts were more than one."""
    keys, key_of = defaultdict(Key), {}
    with open(os.path.join(folder, "audit.jsonl"), encoding="utf-8") as f:
        for line in f:
            r = json.loads(line)
            if r["ev"] == "tek.generated":
                keys[r["keyid"]].made = micros(r)
            elif r["ev"] == "delivery.prepared":
                key_of[r["mid"]] = keys[r["keyid"]]
                key_of[r["mid"]].prepared[r["mid"]] = micros(r)
            elif r["ev"] == "delivery.attempt":
                key_of[r["mid"]].attempts[r["mid"]].append(micros(r))
            elif r["ev"] == "delivery.confirmed":
                key_of[r["mid"]].confirmed[r["mid"]] = micros(r)
    return keys


class Cost:
    """What so many deliveries cost everybody, while it was measured."""

    def __init__(self, push):
        self.push = push
        self.cpu, self.bsas = push.instance.cpu(), push.bsas.cpu()
        self.syncs, self.machine = push.instance.syncs(), Machine()

    def each(self, n):
        """Microseconds of CPU, and syncs, of one of n deliveries."""
        used = self.push.instance.cpu().since(self.cpu)
        syncs = self.push.instance.syncs().since(self.syncs)
        per = 1e6 / n
        cost = {"tekd": used["server"] * per, "hsm": used["others"] * per,
                "bsas": (self.push.bsas.cpu() - self.bsas) * per,
                "threads": {name: t * per for name, t in used["threads"].items()}}
        if syncs is not None:
            cost["syncs"] = syncs["calls"] / n
        cost["idle"] = 100 * Machine().since(self.machine)["idle"]
        return cost


class Measured:
    """All that was measured, one list entry a round."""

    def __init__(self):
        self.backlogs = defaultdict(list)  # BSAs -> [(key, the moment they answered)]
        self.costs = defaultdict(list)
        self.fanouts, self.busy = [], []
        self.alone, self.beside = [], []
        self.steal, self.rss, self.workers_rss = [], [], []


class Push:
    """One server with many BSAs."""

    def __init__(self, programs, instance, report, form, rounds, seconds):
        self.programs, self.instance, self.report = programs, instance, report
        self.form = FORMS["short" if form == "short" else "default"]
        self.count, self.seconds = self.form.count, seconds
        self.rounds = min(rounds, self.form.rounds)
        self.bsas = None
        self.measured = Measured()
        self.turn = 0

    def ask(self, command, **args):
        return ask(self.instance.path("tekd.sock"), command, **args)

    # --- setting up -----------------------------------------------------------------------------

    def make_keys(self):
        """KEKs, before the server starts, and certificates."""
        token = self.instance.token
        call([self.programs.own("bench_rawloop"), "--module", token.module, "--token", token.label,
              "--pin-file", token.pin_file, "--storage-kek", token.storage_kek, "--bsa-kek", KEK,
              "--make-keys", "--more-keks", self.count], env=token.env)
        authority = pki.Authority.load(self.instance.path("pki/ca"))
        os.mkdir(self.instance.path("bsas"))
        for i in range(self.count):
            authority.issue(self.instance.path(f"bsas/{i}"), f"push-{i}")

    def enrol_one(self, i):
        with open(self.instance.path(f"bsas/{i}.crt"), encoding="ascii") as f:
            pem = f.read()
        self.ask("bsa add", id=f"push-{i}", certs=[pem], kek=f"{KEK}-{i}",
                 url=f"https://127.0.0.1:{self.bsas.ports[i]}/cp3", entitle=["urn:x-push:*"])

    def enrol(self):
        self.bsas = Bsas(self.programs, self.instance.path("pki/ca.crt"),
                         self.instance.path("bsas/"), self.count)
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(ADMINS) as pool:
            list(pool.map(self.enrol_one, range(self.count)))
        self.report.line(f"{self.count:,} BSAs enrolled in {time.monotonic() - began:.0f} s")

    def deliver(self, content, n):
        """To the first n.  By name: another one may have everything, and nobody plays it."""
        self.ask("deliver", content=content, bsas=[f"push-{i}" for i in range(n)])

    def settle(self):
        def through():
            told = self.ask("status")["deliveries"]
            return told["open"] == told["fanouts"] == 0
        wait_until("every delivery to be confirmed", through, MARGIN_S, 0.02)

    # --- measurements ---------------------------------------------------------------------------

    def backlog(self, n):
        """Deliveries to n BSAs that wait until those answer: from then on."""
        self.turn += 1
        content = f"urn:x-push:backlog-{self.turn}"
        orders = self.form.backlogs[n] // n
        self.ask("content add", content=content)
        self.bsas.hold(True)
        with concurrent.futures.ThreadPoolExecutor(ADMINS) as pool:
            list(pool.map(lambda _: self.deliver(content, n), range(orders)))
        cost = Cost(self)
        went_on = now_us()
        self.bsas.hold(False)
        self.settle()
        self.measured.costs[n].append(cost.each(orders * n))
        key = self.ask("key list", content=content)["list"][0]["key_id"]
        self.measured.backlogs[n].append((key, went_on))

    def warm_up(self):
        """Connections beyond the first to each BSA are made here, once, and not in a round."""
        first = self.measured.costs["first"]
        for n in self.form.backlogs:
            self.backlog(n)
        self.measured = Measured()
        self.measured.costs["first"] = first

    def fanout(self, content):
        """Rotates the key and waits until all have the new one; its ID."""
        key = self.ask("key rotate", content=content)["key_id"]
        self.settle()
        return key

    def fanout_alone(self, content):
        cost = Cost(self)
        self.measured.fanouts.append(self.fanout(content))
        self.measured.costs["fanout"].append(cost.each(self.count))

    def requests(self):
        """Key Requests of another BSA; what the load generator says of their latency."""
        self.measured.alone.append(self.instance.load(*LOAD, "--seconds", self.seconds))

    def requests_beside(self, content):
        """The same while one fan-out follows the other."""
        load = subprocess.Popen(
            [str(a) for a in self.instance.load_command(*LOAD, "--seconds", self.seconds)],
            stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
        with load:
            while load.poll() is None:
                self.measured.busy.append(self.fanout(content))
            self.measured.beside.append(json.loads(load.stdout.read()))

    def one_round(self, content):
        m, machine = self.measured, Machine()
        for n in self.form.backlogs:
            self.backlog(n)
        self.fanout_alone(content)
        self.requests()
        self.requests_beside(content)
        rss, workers = self.instance.rss_mb()
        m.rss.append(rss)
        m.workers_rss.append(max(workers, default=0.0))
        m.steal.append(100 * Machine().since(machine)["steal"])

    # --- the part -------------------------------------------------------------------------------

    def run(self):
        self.report.heading(f"Push: {self.count:,} BSAs in one process, each with a certificate, "
                            "a port and a KEK of its own")
        self.enrol()
        content = "urn:x-push:fanout"
        self.ask("content add", content=content)
        cold = Cost(self)
        self.deliver(content, self.count)  # all of them hold it, and have a connection
        self.settle()
        self.measured.costs["first"].append(cold.each(self.count))
        self.instance.load("--mode", "new", "--content-seed", 11, "--count", 1000, "--seconds", 60)
        self.warm_up()
        for _ in range(self.rounds):
            self.one_round(content)
        folder = self.instance.path("export")
        call([self.programs.product("tekctl"), "--socket", self.instance.path("tekd.sock"),
              "audit", "export", folder])
        told = self.bsas.stop()
        if told.get("broken") != 0:
            raise BenchError(f"the BSAs got something else than deliveries: {told}")
        self.report.line(f"{told['connections']:,} connections for {told['deliveries']:,} "
                         "deliveries")
        self.tell(read_log(folder))

    def tell(self, log):
        m = self.measured
        for n, runs in m.backlogs.items():
            for key, _ in runs:
                log[key].check(self.form.backlogs[n] // n * n)
        for key in m.fanouts + m.busy:
            log[key].check(self.count)
        self.rates(log)
        self.latencies()
        for what, name in (*((n, f"a delivery, {n:,} BSAs, a backlog") for n in m.backlogs),
                           ("fanout", f"a delivery, {self.count:,} BSAs, a fan-out"),
                           ("first", "the first delivery to each: with a handshake")):
            self.costs_of(what, name)
        self.report.heading("Memory, at the end of each round")
        self.report.columns()
        self.report.series("push_rss", "tekd", m.rss, "MB", 1)
        self.report.series("push_rss_workers", "its largest worker", m.workers_rss, "MB", 1)
        self.report.series("push_steal", "steal time of the machine", m.steal, "%", 2)
        self.aims(log)

    def rates(self, log):
        report, m = self.report, self.measured
        report.columns()
        for n, runs in m.backlogs.items():
            report.series(f"push_rate_{n}", f"confirmed per s, {n:,} BSAs, a backlog",
                          [log[key].rate(since) for key, since in runs])
        report.series("push_rate_fanout", f"confirmed per s, {self.count:,} BSAs, a fan-out",
                      [self.count * 1e6 / log[key].confirmed_after() for key in m.fanouts])
        for name, what, keys in (("fanout", f"fan-out to {self.count:,}", m.fanouts),
                                 ("fanout_busy", "beside requests", m.busy)):
            report.series(f"{name}_prepared_ms", f"{what}, all prepared",
                          [log[key].prepared_after() / 1000 for key in keys], "ms")
            report.series(f"{name}_ms", f"{what}, all confirmed",
                          [log[key].confirmed_after() / 1000 for key in keys], "ms")
        again = sum(len(a) - 1 for key in log.values() for a in key.attempts.values())
        report.line(f"{len(m.busy):,} fan-outs beside requests; "
                    f"{again:,} deliveries were sent more than once")

    def latencies(self):
        report = self.report
        for name, runs, what in (("alone", self.measured.alone, "without a fan-out"),
                                 ("beside", self.measured.beside, "during fan-outs")):
            for run in runs:
                if run["errors"]["total"]:
                    raise BenchError(f"requests {what}: {run['errors']}")
            for q in ("p50_us", "p99_us", "max_us"):
                report.series(f"push_{name}_{q}", f"requests {what}, {q[:3]}",
                              [run["latency"][q] for run in runs], "us")
            report.series(f"push_{name}_rate", f"requests {what}", [r["rate"] for r in runs],
                          "per s")

    def costs_of(self, what, name):
        report, runs = self.report, self.measured.costs[what]
        report.heading(f"Cost of {name}")
        report.columns()
        report.series(f"push_cpu_{what}_tekd", "CPU of tekd", [r["tekd"] for r in runs], "us")
        for t in sorted({t for r in runs for t in r["threads"]}):
            used = [r["threads"].get(t, 0.0) for r in runs]
            if max(used) >= 10:
                report.series(f"push_cpu_{what}_tekd_{t}", f"  threads {t}", used, "us")
        report.series(f"push_cpu_{what}_hsm", "CPU of its HSM processes",
                      [r["hsm"] for r in runs], "us")
        report.series(f"push_cpu_{what}_bsas", "CPU of the BSAs", [r["bsas"] for r in runs], "us")
        report.series(f"push_syncs_{what}", "syncs of tekd",
                      [r["syncs"] for r in runs if "syncs" in r], "", 3)
        report.series(f"push_idle_{what}", "idle time of the machine", [r["idle"] for r in runs],
                      "%", 1)

    def aims(self, log):
        middle = median(log[key].confirmed_after() for key in self.measured.fanouts) / 1000
        rate = median(log[key].rate(since)
                      for key, since in self.measured.backlogs[self.count])
        self.report.heading("Aims of the push case (medians)")
        self.report.aim(f"fan-out to {self.count:,}, ms", middle, middle * 1000 <= FANOUT_US,
                        f"<= {FANOUT_US // 1000:,}", 0)
        self.report.aim(f"confirmed per s, {self.count:,} BSAs", rate, rate >= PER_SECOND,
                        f">= {PER_SECOND:,}", 0)
