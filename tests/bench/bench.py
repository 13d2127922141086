#!/usr/bin/python3
"""The benchmark of tekd: what it does, beside what the same machine can do at most.

Prints a report; README.md beside this file says how to read it.  Exit status: 0 when everything
was measured and every answer was right, however slow; 1 otherwise; 2 for a wrong command line.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import audit  # noqa: E402  (the path above is where they are)
import pki  # noqa: E402
import push  # noqa: E402
from instance import Instance, Token, copy_state, make_state  # noqa: E402
from procs import Machine, cpu_of, drop_caches  # noqa: E402
from report import Report, median, ratios  # noqa: E402
from tools import BenchError, Programs, Static, call, call_json  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Seconds of one measurement, and requests of the lone client, by form.
FORMS = {"short": (1, 200), "default": (4, 1000), "full": (8, 2000), "yardsticks": (3, 1000),
         "push": (4, 1000), "audit": (4, 1000)}
# Contents that (c) asks for, and messages that (d) repeats.
KNOWN = 10_000
CONTENT_SEED, REPEAT_SEED = 11, 13
# TEKs in the store of the full form.
STORED = 1_000_000
# Seconds of requests at a time that make the log for --audit, until it has a million records.
FILL_S = 20
WHAT = {
    "a": "(a) raw loop: generate, 2 wraps, destroy",
    "b": "(b) requests for new contents",
    "c": "(c) new MessageIDs, known contents",
    "d": "(d) the same MessageIDs again",
    "e": "(e) static answer of the same size",
}


class Round:
    """Everything measured so far, one list entry a round."""

    def __init__(self):
        self.rate = {k: [] for k in WHAT}
        self.runs = {k: [] for k in WHAT}
        self.steal = []
        self.disk, self.lone_new, self.lone_known = [], [], []
        self.rss, self.workers_rss = [], []


def check(what, result):
    """A benchmark of wrong answers measures nothing."""
    errors = result["errors"]
    if errors["total"] or not result["ok"]:
        told = {k: v for k, v in errors.items() if v}
        raise BenchError(f"{what}: of {result['requests']} requests {result['ok']} were answered "
                         f"right; errors {json.dumps(told)}")
    return result


class Bench:
    def __init__(self, args, programs, directory):
        self.args, self.programs, self.directory = args, programs, directory
        self.seconds, self.lone_count = FORMS[args.form]
        self.report = Report()
        self.rounds = Round()
        self.scope = contextlib.ExitStack()

    # --- measurements -----------------------------------------------------------------------

    def raw(self, token, bsa_kek):
        return call_json([self.programs.own("bench_rawloop"), "--module", token.module, "--token",
                          token.label, "--pin-file", token.pin_file, "--storage-kek",
                          token.storage_kek, "--bsa-kek", bsa_kek, "--processes",
                          self.args.workers, "--seconds", self.seconds], env=token.env,
                         timeout=self.seconds + 120)

    def disk(self, directory):
        return call_json([self.programs.own("bench_diskprobe"), "--dir", directory, "--count", 300,
                          "--seconds", 3])["sync"]["p50_us"]

    def load(self, instance, what, *args, **kwargs):
        return check(what, instance.load("--media", self.args.media, "--connections",
                                         self.args.connections, "--seconds", self.seconds, *args,
                                         **kwargs))

    MODES = {
        "b": ("--mode", "new"),
        "c": ("--mode", "known", "--content-seed", CONTENT_SEED, "--contents", KNOWN),
        "d": ("--mode", "known", "--content-seed", CONTENT_SEED, "--contents", KNOWN, "--seed",
              REPEAT_SEED, "--repeat", KNOWN),
    }

    def observed(self, instance, key, *args):
        """A load with what it cost the server: CPU by process, syncs, steal."""
        cpu, syncs, machine = instance.cpu(), instance.syncs(), Machine()
        run = self.load(instance, WHAT[key], *self.MODES[key], *args)
        run["server_cpu"] = instance.cpu().since(cpu)
        run["syncs"] = instance.syncs().since(syncs)
        run["machine"] = Machine().since(machine)
        return run

    def static_load(self, instance, static):
        """The yardstick (e), with what it cost its server."""
        cpu = cpu_of(static.pid)
        run = self.load(instance, WHAT["e"], "--mode", "get", address=static.address)
        run["static_cpu_us"] = 1e6 * (cpu_of(static.pid) - cpu) / run["answered"]
        return run

    def lone(self, instance, *args):
        return check("the lone client", instance.load(
            "--media", self.args.media, "--connections", 1, "--count", self.lone_count,
            "--seconds", 20, *args))["latency"]["p50_us"]

    # --- the main part ----------------------------------------------------------------------

    def make_state(self):
        """Folders with the same token and keys, nothing started."""
        small = os.path.join(self.directory, "small")
        self.report.line("setting up: token, keys, certificates, one BSA")
        make_state(self.programs, small)
        copy_state(small, os.path.join(self.directory, "push"))
        return small

    def make(self):
        small = self.make_state()
        instance = Instance(self.programs, small, self.args.workers, self.args.release)
        if self.args.form == "full":
            for name in ("rising", "random"):
                copy_state(small, os.path.join(self.directory, name))
        self.scope.callback(instance.stop)
        instance.start()
        return instance

    def warm_up(self, instance):
        """Contents for (c), messages for (d); also what only the first requests pay."""
        self.load(instance, "making known contents", "--mode", "new", "--content-seed",
                  CONTENT_SEED, "--count", KNOWN, "--seconds", 120)
        self.load(instance, "making messages to repeat", *self.MODES["d"], "--count", KNOWN,
                  "--seconds", 120)

    def one_round(self, number, instance, static, bsa_kek):
        """Each yardstick right beside what is measured with it; every other round backwards."""
        steps = [
            ("a", lambda: self.raw(instance.token, bsa_kek)),
            ("b", lambda: self.observed(instance, "b")),
            ("e", lambda: self.static_load(instance, static)),
            ("c", lambda: self.observed(instance, "c")),
            ("d", lambda: self.observed(instance, "d")),
        ]
        rounds, machine = self.rounds, Machine()
        for key, measure in steps if number % 2 == 0 else reversed(steps):
            run = measure()
            rounds.runs[key].append(run)
            rounds.rate[key].append(run["rate"])
        rounds.disk.append(self.disk(instance.directory))
        rounds.lone_new.append(self.lone(instance, "--mode", "new"))
        rounds.lone_known.append(self.lone(instance, *self.MODES["c"]))
        server, workers = instance.rss_mb()
        rounds.rss.append(server)
        rounds.workers_rss.append(max(workers, default=0.0))
        rounds.steal.append(100 * Machine().since(machine)["steal"])
        self.report.line(f"round {number + 1}: " + "  ".join(
            f"{k} {rounds.rate[k][-1]:,.0f}" for k in WHAT) + f"  steal {rounds.steal[-1]:.1f} %")

    def rates(self):
        r, report = self.rounds, self.report
        report.heading(f"Rates per second, {self.args.connections} connections, "
                       f"release: {self.args.release}, {self.args.workers} key workers")
        report.columns()
        for key, what in WHAT.items():
            report.series(f"rate_{key}", what, r.rate[key])
        report.series("ratio_ba", "b / a", ratios(r.rate["b"], r.rate["a"]), digits=3)
        report.series("ratio_ce", "c / e", ratios(r.rate["c"], r.rate["e"]), digits=3)
        report.series("steal", "steal time of the machine", r.steal, "%", 2)

    def latencies(self):
        r, report = self.rounds, self.report
        report.heading("Latency")
        report.columns()
        for key in "bcde":
            for q in ("p50_us", "p99_us"):
                report.series(f"{q}_{key}", f"({key}) {q[:3]}",
                              [x["latency"][q] for x in r.runs[key]], "us")
        report.series("lone_new", "a lone client, new contents, p50", r.lone_new, "us")
        report.series("lone_known", "a lone client, known contents, p50", r.lone_known, "us")
        report.series("disk_sync", "fdatasync of a small append, p50", r.disk, "us")

    def costs(self):
        report = self.report
        self.costs_of_yardsticks()
        for key in "bcd":
            self.costs_of(key, self.rounds.runs[key])
        asked = sum(x["answered"] for key in "bcd" for x in self.rounds.runs[key])
        report.heading(f"Memory, at the end of each round ({asked:,} requests in all)")
        report.columns()
        report.series("rss", "tekd", self.rounds.rss, "MB", 1)
        report.series("rss_workers", "its largest worker", self.rounds.workers_rss, "MB", 1)

    def costs_of_yardsticks(self):
        report, runs = self.report, self.rounds.runs
        report.heading("Cost of the yardsticks")
        report.columns()
        report.series("cpu_a", "CPU of an operation of (a)",
                      [x["cpu_us_per_operation"] for x in runs["a"]], "us", 1)
        report.series("cpu_e_static", "CPU of the server of (e), a request",
                      [x["static_cpu_us"] for x in runs["e"]], "us", 1)
        report.series("cpu_e_load", "CPU of the load generator",
                      [x["cpu_us_per_request"] for x in runs["e"]], "us", 1)

    def costs_of(self, key, runs):
        """CPU per request: the server by thread, its helpers by process, the load generator."""
        report = self.report
        report.heading(f"Cost of a request of {WHAT[key]}")
        report.columns()
        per = [(x, 1e6 / x["answered"]) for x in runs]
        report.series(f"cpu_{key}_tekd", "CPU of tekd",
                      [x["server_cpu"]["server"] * s for x, s in per], "us", 1)
        threads = {t for x in runs for t in x["server_cpu"]["threads"]}
        for t in sorted(threads):
            used = [x["server_cpu"]["threads"].get(t, 0.0) * s for x, s in per]
            if median(used) >= 0.5:
                report.series(f"cpu_{key}_tekd_{t}", f"  threads {t}", used, "us", 1)
        report.series(f"cpu_{key}_workers", "CPU of its HSM processes",
                      [x["server_cpu"]["others"] * s for x, s in per], "us", 1)
        for p in sorted({p for x in runs for p in x["server_cpu"]["each"]}):
            used = [x["server_cpu"]["each"].get(p, 0.0) * s for x, s in per]
            if median(used) >= 0.5:
                report.series(f"cpu_{key}_{p}", f"  {p}", used, "us", 1)
        report.series(f"cpu_{key}_load", "CPU of the load generator",
                      [x["cpu_us_per_request"] for x in runs], "us", 1)
        counted = [x for x in runs if x["syncs"] is not None]
        report.series(f"syncs_{key}", "syncs of tekd",
                      [x["syncs"]["calls"] / x["answered"] for x in counted], "", 4)
        report.series(f"sync_us_{key}", "mean time of one",
                      [x["syncs"]["mean_us"] for x in counted if x["syncs"]["calls"]], "us")
        report.series(f"idle_{key}", "idle time of the machine",
                      [100 * x["machine"]["idle"] for x in runs], "%", 1)

    def aims(self):
        r, report = self.rounds, self.report
        ba, ce = median(ratios(r.rate["b"], r.rate["a"])), median(ratios(r.rate["c"], r.rate["e"]))
        lone, bound = median(r.lone_new), 1000 + 2 * median(r.disk)
        known = median(r.lone_known)
        report.heading("Aims (medians)")
        report.aim("b / a", ba, ba >= 0.45, ">= 0.45", 3)
        report.aim("c / e", ce, ce >= 0.30, ">= 0.30", 3)
        wanted = f"<= 1000 us + two syncs = {bound:,.0f} us"
        report.aim("a lone client, new contents, p50 us", lone, lone <= bound, wanted, 0)
        report.aim("a lone client, known contents, p50 us", known, known <= bound, wanted, 0)
        report.aim("RSS of tekd, MB", max(r.rss), max(r.rss) <= 60, "<= 60", 1)

    def main_part(self):
        instance = self.make()
        body = os.path.join(self.directory, "body")
        octets = instance.sample_answer(self.args.media)
        with open(body, "wb") as f:
            f.write(octets)
        bsa_kek = instance.token.bsa_kek()
        with Static(self.programs, instance.path("pki"), body) as static:
            self.warm_up(instance)
            self.report.line(f"answers have {len(octets)} octets; {self.args.rounds} rounds, "
                             f"{self.seconds} s a measurement")
            for number in range(self.args.rounds):
                self.one_round(number, instance, static, bsa_kek)
        self.rates()
        self.latencies()
        self.costs()
        self.aims()
        return instance

    # --- the push case ----------------------------------------------------------------------

    def push_part(self):
        instance = Instance(self.programs, os.path.join(self.directory, "push"),
                            self.args.workers, self.args.release)
        part = push.Push(self.programs, instance, self.report, self.args.form, self.args.rounds,
                         self.seconds)
        part.make_keys()
        self.scope.callback(instance.stop)
        instance.start()
        part.run()

    # --- the audit log ----------------------------------------------------------------------

    def audit_part(self, instance, name):
        """Its export from a server that runs; once, what needs none."""
        part = audit.Audit(self.programs, self.directory, self.report, self.args.form,
                           self.args.rounds)
        if name == "small":
            part.verification()
            part.cost()
        part.exporting(instance, name)

    def audit_alone(self):
        instance = self.make()
        self.warm_up(instance)
        while (records := audit.status(instance)["store"]["records"]) < audit.MILLION:
            self.load(instance, f"making a log, {records:,} records so far", *self.MODES["c"],
                      "--seconds", FILL_S)
        self.audit_part(instance, "small")

    # --- the full form: a million requests, a million TEKs ----------------------------------

    def fill(self, instance, order):
        """STORED new contents through the server itself; RSS is looked at meanwhile."""
        rss, done = [], threading.Event()

        def sample():
            while not done.wait(2):
                with contextlib.suppress(OSError):
                    rss.append(instance.rss_mb()[0])

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            run = self.load(instance, f"storing {STORED:,} TEKs", "--mode", "new", "--ids", order,
                            "--content-ids", order, "--content-seed", CONTENT_SEED, "--count",
                            STORED, "--seconds", 1800)
        finally:
            done.set()
            sampler.join()
        rss.append(instance.rss_mb()[0])
        self.report.heading(f"Storing {run['ok']:,} TEKs with {order} ids through the server")
        self.report.value(f"fill_{order}_rate", "rate", run["rate"], "per s", 0)
        self.report.value(f"fill_{order}_db", "database", instance.database_mb(), "MB")
        self.flatness(order, rss)

    def flatness(self, order, rss):
        """Flat: the second half of a million requests added less than a twentieth."""
        tenths = [rss[min(len(rss) - 1, len(rss) * i // 10)] for i in range(11)]
        self.report.values[f"fill_{order}_rss"] = tenths
        self.report.line("RSS of tekd at each tenth, MB    " + " ".join(f"{x:.1f}" for x in tenths))
        growth = tenths[10] / tenths[5] - 1
        self.report.aim("RSS of tekd after it, MB", tenths[10], tenths[10] <= 60, "<= 60", 1)
        self.report.aim("growth of RSS in the second half, %", 100 * growth, growth < 0.05,
                        "flat: < 5", 1)

    def starts(self, instance, order):
        """Time until ready: after SIGTERM and after SIGKILL, from an empty cache and a warm one."""
        self.report.heading(f"Start with {STORED:,} TEKs, {order} ids, until ready")
        for how, end in (("clean stop", instance.stop), ("SIGKILL", instance.kill)):
            for cache in ("cold", "warm"):
                end()
                cold = cache == "cold" and drop_caches()
                if cache == "cold" and not cold:
                    self.report.line("cold: not measured, the page cache is root's to drop")
                    instance.start()
                    continue
                seconds = instance.start()
                what = f"after {how}, {cache}, s"
                self.report.values[f"start_{order}_{how}_{cache}"] = seconds
                self.report.aim(what, seconds, seconds < 10, "< 10")

    BIG = {
        "b": ("--mode", "new"),
        "c": ("--mode", "known", "--content-seed", CONTENT_SEED),
    }

    def big_load(self, instance, key, order, contents, first):
        args = self.BIG[key] + ("--ids", order, "--content-ids", order)
        if key == "c":
            args += ("--contents", contents, "--pick", order, "--first", first)
        return self.load(instance, f"({key}) with {order} ids", *args)["rate"]

    def big_rounds(self, small, big):
        """(b) and (c) at a million TEKs beside the same on a small store, round by round."""
        # Known contents of the small store exist with rising ids; those with random ids are made.
        self.load(small, "making known contents", "--mode", "new", "--content-seed", CONTENT_SEED,
                  "--content-ids", "random", "--ids", "random", "--count", KNOWN, "--seconds", 120)
        # In order of their ids, each round asks for other contents: none is fresh in a cache.
        rate, part = {}, STORED // self.args.rounds
        for number in range(self.args.rounds):
            for key in "bc":
                for order in ("rising", "random"):
                    pair = [("small", small, KNOWN), ("big", big[order], STORED)]
                    for name, instance, contents in pair if number % 2 == 0 else reversed(pair):
                        rate.setdefault((key, order, name), []).append(
                            self.big_load(instance, key, order, contents, number * part))
            self.report.line(f"round {number + 1} done")
        return rate

    def big_report(self, rate):
        report = self.report
        report.columns()
        for (key, order, name), values in sorted(rate.items()):
            report.series(f"big_{key}_{order}_{name}", f"({key}) {order} ids, {name} store", values)
        for order, least in (("rising", 0.90), ("random", 0.70)):
            for key in "bc":
                kept = ratios(rate[key, order, "big"], rate[key, "rising", "small"])
                same = ratios(rate[key, order, "big"], rate[key, order, "small"])
                report.series(f"kept_same_{key}_{order}", f"({key}) {order}, of small, {order}",
                              same, digits=3)
                report.aim(f"({key}) {order}, of small with rising ids", median(kept),
                           median(kept) >= least, f">= {least:.2f}", 3)

    def full_part(self, small):
        big = {}
        for order in ("rising", "random"):
            big[order] = Instance(self.programs, os.path.join(self.directory, order),
                                  self.args.workers, self.args.release)
            self.scope.callback(big[order].stop)
            big[order].start()
            self.fill(big[order], order)
            if order == "rising":
                self.audit_part(big[order], order)
            self.starts(big[order], order)
        self.report.heading(f"Rates with {STORED:,} TEKs stored beside a small store")
        self.big_report(self.big_rounds(small, big))
        self.report.line("small: " + f"{small.database_mb():,.0f} MB at the end")

    # --- yardsticks alone -------------------------------------------------------------------

    def yardsticks(self):
        """(a), (e) and the disk on keys of their own: nothing of the product takes part."""
        token = throwaway_token(self.programs, self.directory)
        stand_in = Standing(self.programs, self.directory)
        r = self.rounds
        with Static(self.programs, self.directory, stand_in.body) as static:
            for number in range(self.args.rounds):
                machine = Machine()
                for key, run in (("a", self.raw(token, "bench-bsa")),
                                 ("e", self.static_load(stand_in, static))):
                    r.rate[key].append(run["rate"])
                    r.runs[key].append(run)
                r.disk.append(self.disk(self.directory))
                r.lone_known.append(check("lone", stand_in.load(
                    "--connections", 1, "--count", self.lone_count, "--mode", "get",
                    address=static.address))["latency"]["p50_us"])
                r.steal.append(100 * Machine().since(machine)["steal"])
                self.report.line(f"round {number + 1} done")
        report = self.report
        report.heading("Yardsticks alone")
        report.columns()
        report.series("rate_a", WHAT["a"], r.rate["a"], "per s")
        report.series("rate_e", "(e) static answer of 512 octets", r.rate["e"], "per s")
        report.series("lone_static", "a lone client of (e), p50", r.lone_known, "us")
        report.series("disk_sync", "fdatasync of a small append, p50", r.disk, "us")
        report.series("steal", "steal time of the machine", r.steal, "%", 2)
        self.costs_of_yardsticks()


class Standing:
    """Stands where an Instance would, for the yardsticks: a PKI and a body."""

    load, load_command = Instance.load, Instance.load_command

    def __init__(self, programs, directory):
        self.programs, self.directory, self.address = programs, directory, ""
        self.token = argparse.Namespace(bsm_id="bsm.example.net")
        self.body = self.path("body")
        authority = pki.Authority.make(self.path("ca"))
        os.mkdir(self.path("pki"))
        for name in ("tekd", "pki/bsa-1"):
            authority.issue(self.path(name), name)
        shutil.copy(self.path("ca.crt"), self.path("pki/ca.crt"))
        with open(self.body, "wb") as f:
            f.write(b"x" * 512)

    def path(self, name):
        return os.path.join(self.directory, name)


def throwaway_token(programs, directory):
    """A SoftHSM token with two KEKs, for the raw loop alone."""
    def path(name):
        return os.path.join(directory, name)

    os.mkdir(path("tokens"))
    with open(path("softhsm2.conf"), "w", encoding="utf-8") as f:
        f.write(f"directories.tokendir = {path('tokens')}\nlog.level = ERROR\n")
    with open(os.open(path("hsm.pin"), os.O_WRONLY | os.O_CREAT, 0o600), "w",
              encoding="ascii") as f:
        f.write("1234")
    with open(path("tekd.yaml"), "w", encoding="utf-8") as f:
        f.write('hsm: {token: "pkcs11:token=bench", storage_kek: bench-storage}\n')
    token = Token(directory)
    call(["softhsm2-util", "--init-token", "--free", "--label", "bench", "--so-pin", "12345678",
          "--pin", "1234"], env=token.env)
    call([programs.own("bench_rawloop"), "--module", token.module, "--token", token.label,
          "--pin-file", token.pin_file, "--storage-kek", token.storage_kek, "--bsa-kek",
          "bench-bsa", "--make-keys"], env=token.env)
    return token


def describe():
    """Where and when."""
    model = "unknown processor"
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if "model name" in line), model)
    revision = ""
    with contextlib.suppress(OSError):  # a copy of the sources does not need git
        revision = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"],
                                  capture_output=True, text=True, check=False).stdout.strip()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"time": now, "revision": revision or "unknown", "processors": os.cpu_count(),
            "processor": model, "kernel": platform.release()}


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    form = p.add_mutually_exclusive_group()
    form.add_argument("--short", dest="form", action="store_const", const="short",
                      help="a second a measurement, about a minute")
    form.add_argument("--full", dest="form", action="store_const", const="full",
                      help="a million requests, a million TEKs, starts; half an hour")
    form.add_argument("--yardsticks", dest="form", action="store_const", const="yardsticks",
                      help="only what needs nothing of the product")
    form.add_argument("--push", dest="form", action="store_const", const="push",
                      help="only the push case")
    form.add_argument("--audit", dest="form", action="store_const", const="audit",
                      help="only the audit log")
    p.set_defaults(form="default")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--connections", type=int, default=64)
    p.add_argument("--workers", type=int, default=2, help="key workers, and raw loops")
    p.add_argument("--media", choices=("xml", "json"), default="xml")
    p.add_argument("--release", choices=("signed", "durable"), default="signed")
    p.add_argument("--build", default=os.environ.get("TEKD_BUILD", os.path.join(TOP, "build/dev")))
    p.add_argument("--dir", help="where the state lives, on the disk to be measured; "
                                 "default: the build directory")
    p.add_argument("--keep", action="store_true", help="leave the state there")
    p.add_argument("--json", metavar="FILE", help="all numbers, as one document")
    return p.parse_args()


def run(args, directory):
    bench = Bench(args, Programs(args.build), directory)
    where = describe()
    print("tekd benchmark  " + "  ".join(f"{k}: {v}" for k, v in where.items()))
    began = Machine()
    with bench.scope:
        if args.form == "yardsticks":
            bench.yardsticks()
        elif args.form == "push":
            bench.make_state()
            bench.push_part()
        elif args.form == "audit":
            bench.audit_alone()
        else:
            small = bench.main_part()
            bench.audit_part(small, "small")
            bench.push_part()
            if args.form == "full":
                bench.full_part(small)
    steal = 100 * Machine().since(began)["steal"]
    print(f"\nsteal time over the whole run: {steal:.2f} %")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"where": where, "settings": vars(args), "values": bench.report.values,
                       "aims": bench.report.aims, "runs": bench.rounds.runs,
                       "steal": steal}, f, indent=1)
            f.write("\n")


def main():
    args = parse()
    # So that whatever was started is stopped and removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    where = args.dir or args.build
    if not os.path.isdir(where):
        print(f"bench.py: {where} is no directory: build first, or set TEKD_BUILD", file=sys.stderr)
        return 1
    directory = tempfile.mkdtemp(prefix="bench-", dir=os.path.abspath(where))
    try:
        run(args, directory)
    except BenchError as e:
        print(f"bench.py: {e}", file=sys.stderr)
        return 1
    finally:
        if args.keep:
            print(f"state kept in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
