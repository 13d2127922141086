"""The push case measured: deliveries confirmed per second, a fan-out, and requests beside it.

The BSAs are all in one process (bench_bsas) and confirm at once, so that what they cost is on the
same processors.  Rates and times are taken from the audit log's own records, exported at the end.
"""

import datetime
import json
import os
import signal
import subprocess
import time

import pki
from tools import BenchError, call, end_with_parent, stop, wait_until

KEK = "push-kek"
# Deliveries of one measurement, to so many BSAs, by their number.
DELIVERIES = {1: 300, 10: 500}
LOAD = ("--mode", "known", "--content-seed", 11, "--contents", 1000, "--connections", 4)
FANOUT_US = 2_000_000
PER_SECOND = 1000


def micros(record):
    t = datetime.datetime.strptime(record["t"], "%Y-%m-%dT%H:%M:%S.%fZ")
    return int(t.replace(tzinfo=datetime.timezone.utc).timestamp() * 1_000_000)


class Bsas:
    """The running bench_bsas."""

    def __init__(self, programs, ca, prefix, count):
        self.process = subprocess.Popen(
            [programs.own("bench_bsas"), "--ca", ca, "--prefix", prefix, "--count", str(count),
             "--seconds", "86400"], stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
        line = self.process.stdout.readline()
        if not line:
            raise BenchError("bench_bsas did not start")
        self.ports = json.loads(line)["ports"]

    def hold(self, on):
        self.process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    def stop(self):
        """What came to them."""
        self.hold(False)
        stop(self.process)
        told = json.loads(self.process.stdout.readline() or "{}")
        self.process.stdout.close()
        return told


class Log:
    """What an exported log says of deliveries, by the key they deliver."""

    def __init__(self, folder):
        self.made, self.confirmed, self.attempted = {}, {}, {}
        key_of = {}
        with open(os.path.join(folder, "audit.jsonl"), encoding="utf-8") as f:
            for line in f:
                r = json.loads(line)
                if r["ev"] == "tek.generated":
                    self.made[r["keyid"]] = micros(r)
                elif r["ev"] == "delivery.prepared":
                    key_of[r["mid"]] = r["keyid"]
                elif r["ev"] == "delivery.attempt":
                    self.attempted.setdefault(key_of[r["mid"]], []).append(micros(r))
                elif r["ev"] == "delivery.confirmed":
                    self.confirmed.setdefault(key_of[r["mid"]], []).append(micros(r))


class Push:
    """One server with `count` BSAs."""

    def __init__(self, programs, instance, report, count, rounds, seconds):
        self.programs, self.instance, self.report = programs, instance, report
        self.count, self.rounds, self.seconds = count, rounds, seconds
        self.bsas = None
        self.turn = 0

    def tekctl(self, *words):
        return call([self.programs.product("tekctl"), "--socket", self.instance.path("tekd.sock"),
                     *words])

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

    def enrol(self):
        self.bsas = Bsas(self.programs, self.instance.path("pki/ca.crt"),
                         self.instance.path("bsas/"), self.count)
        began = time.monotonic()
        for i, port in enumerate(self.bsas.ports):
            self.tekctl("bsa", "add", f"push-{i}", "--cert", self.instance.path(f"bsas/{i}.crt"),
                        "--kek", f"{KEK}-{i}", "--url", f"https://127.0.0.1:{port}/cp3",
                        "--entitle", "urn:x-push:*")
        self.report.line(f"{self.count:,} BSAs enrolled in {time.monotonic() - began:.0f} s")

    def settle(self, timeout=120):
        def through():
            told = json.loads(self.tekctl("--json", "status"))["deliveries"]
            return told["open"] == told["fanouts"] == 0
        wait_until("every delivery to be confirmed", through, timeout, 0.2)

    # --- measurements ---------------------------------------------------------------------------

    def backlog(self, n):
        """Deliveries that wait for n BSAs, until those go on; (content, the moment)."""
        names = [w for i in range(n) for w in ("--bsa", f"push-{i}")]
        self.turn += 1
        content = f"urn:x-push:backlog-{n}-{self.turn}"
        self.tekctl("content", "add", content)
        self.bsas.hold(True)
        try:
            for _ in range(DELIVERIES[n] // n):
                self.tekctl("deliver", content, *names)
            went_on = time.time_ns() // 1000
        finally:
            self.bsas.hold(False)
        self.settle()
        key = json.loads(self.tekctl("--json", "key", "list", content))[0]["key_id"]
        return key, went_on

    def rotate(self, content):
        return self.tekctl("key", "rotate", content).split()[-1]

    def requests(self):
        """Key Requests of another BSA; what the load generator says of their latency."""
        return self.instance.load(*LOAD, "--seconds", self.seconds)

    def requests_beside(self, content):
        """The same while one fan-out follows the other; and the keys of those fan-outs."""
        keys = []
        load = subprocess.Popen(
            [str(a) for a in self.instance.load_command(*LOAD, "--seconds", self.seconds)],
            stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
        with load:
            while load.poll() is None:
                keys.append(self.rotate(content))
                self.settle()
            return json.loads(load.stdout.read()), keys

    # --- the part -------------------------------------------------------------------------------

    def run(self):
        self.report.heading(f"Push: {self.count:,} BSAs in one process, each with a certificate, a "
                            "port and a KEK of its own")
        self.enrol()
        content = "urn:x-push:fanout"
        backlogs = {n: [self.backlog(n) for _ in range(self.rounds)]
                    for n in DELIVERIES if n <= self.count}
        self.tekctl("content", "add", content)
        self.tekctl("deliver", content)  # all of them hold it from now on
        self.settle()
        warm = []
        for _ in range(self.rounds):
            warm.append(self.rotate(content))
            self.settle()
        self.instance.load("--mode", "new", "--content-seed", 11, "--count", 1000, "--seconds", 60)
        alone, beside, busy = [], [], []
        for _ in range(self.rounds):
            alone.append(self.requests())
            measured, keys = self.requests_beside(content)
            beside.append(measured)
            busy += keys
        folder = self.instance.path("export")
        self.tekctl("audit", "export", folder)
        told = self.bsas.stop()
        if told.get("broken") != 0:
            raise BenchError(f"the BSAs got something else than deliveries: {told}")
        log = Log(folder)
        self.rates(log, backlogs, warm)
        self.fanouts(log, warm, busy)
        self.latencies(alone, beside)

    def wall(self, log, key):
        """Of a fan-out: from the TEK's record to the last confirmation, microseconds."""
        if len(log.confirmed.get(key, ())) != self.count:
            raise BenchError(f"of {self.count} deliveries {len(log.confirmed.get(key, ()))} were "
                             "confirmed")
        return max(log.confirmed[key]) - log.made[key]

    def rates(self, log, backlogs, warm):
        report = self.report
        report.columns()
        for n, runs in backlogs.items():
            values = [len(log.confirmed[key]) * 1e6 / (max(log.confirmed[key]) - went_on)
                      for key, went_on in runs]
            report.series(f"push_rate_{n}", f"confirmed per s, {n:,} BSAs, a backlog", values)
        report.series(f"push_rate_{self.count}",
                      f"confirmed per s, {self.count:,} BSAs, a fan-out",
                      [self.count * 1e6 / self.wall(log, key) for key in warm])

    def fanouts(self, log, warm, busy):
        report = self.report
        walls = [self.wall(log, key) / 1000 for key in warm]
        report.series("fanout_ms", f"fan-out to {self.count:,}", walls, "ms")
        report.series("fanout_busy_ms", "fan-out beside requests",
                      [self.wall(log, key) / 1000 for key in busy], "ms")
        middle = sorted(walls)[len(walls) // 2]
        report.aim(f"fan-out to {self.count:,}, ms", middle, middle * 1000 <= FANOUT_US,
                   f"<= {FANOUT_US // 1000:,}", 0)
        rate = self.count * 1000 / middle
        report.aim(f"confirmed per s, {self.count:,} BSAs", rate, rate >= PER_SECOND,
                   f">= {PER_SECOND:,}", 0)

    def latencies(self, alone, beside):
        report = self.report
        for name, runs, what in (("alone", alone, "without a fan-out"),
                                 ("beside", beside, "during fan-outs")):
            for run in runs:
                if run["errors"]["total"]:
                    raise BenchError(f"requests {what}: {run['errors']}")
            for q in ("p50_us", "p99_us", "max_us"):
                report.series(f"push_{name}_{q}", f"requests {what}, {q[:3]}",
                              [run["latency"][q] for run in runs], "us")
            report.series(f"push_{name}_rate", f"requests {what}", [r["rate"] for r in runs],
                          "per s")
