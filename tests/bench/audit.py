"""The audit log measured: its verification, its export beside requests, and what it costs them."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from statistics import median

from procs import peak_rss_mb
from report import ratios
from tools import BenchError, call, call_json, end_with_parent

# The aim is for a million records.
MILLION = 1_000_000
SECONDS, MEGABYTES = 5.0, 100.0
# tekd reads an export page by page: what its memory may grow by is the page, and what else it did.
GROWTH_MB = 8.0
LOOK_S = 0.005
LOAD = ("--mode", "known", "--content-seed", 11, "--contents", 10_000, "--connections", 4)


class Form:
    """Records of the log that is verified, rounds at most, items of the store, seconds of load."""

    def __init__(self, records, rounds, items, seconds):
        self.records, self.rounds, self.items, self.seconds = records, rounds, items, seconds


FORMS = {"short": Form(MILLION // 10, 2, 5_000, 2),
         "default": Form(MILLION, 3, 20_000, 8)}


def measured(args, timeout=600):
    """Runs a program; its seconds, CPU seconds, and peak RSS (not that of who forked it)."""
    began, peak = time.monotonic(), 0.0
    process = subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               preexec_fn=end_with_parent)
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        with contextlib.suppress(OSError):
            peak = max(peak, peak_rss_mb(process.pid))
        if time.monotonic() - began > timeout:
            process.kill()
        time.sleep(LOOK_S)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    said = process.stderr.read().decode(errors="replace")
    process.stderr.close()
    if process.returncode != 0:
        raise BenchError(f"{args[0]}: exit status {process.returncode}\n{said[-2000:]}")
    return {"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "rss": peak}


class Sampler:
    """The largest RSS of tekd while it is entered."""

    def __init__(self, instance):
        self.instance, self.largest, self.done = instance, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.done.wait(0.05):
            with contextlib.suppress(OSError):
                self.largest = max(self.largest, self.instance.rss_mb()[0])

    def __enter__(self):
        self.largest = self.instance.rss_mb()[0]
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


class Exports:
    """Exports one after the other in a thread, each removed, as long as it is entered."""

    def __init__(self, part):
        self.part, self.runs, self.error = part, [], None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.done.is_set():
                self.runs.append(self.part.export("beside"))
        except BenchError as e:
            self.error = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        if self.error:
            raise self.error


class Audit:
    def __init__(self, programs, directory, report, form, rounds):
        self.programs, self.directory, self.report = programs, directory, report
        self.form = FORMS["short" if form == "short" else "default"]
        self.rounds = min(rounds, self.form.rounds)
        self.instance = None

    def path(self, name):
        return os.path.join(self.directory, name)

    # --- verification -----------------------------------------------------------------------

    def made(self, name, records, batch):
        """A log of so many records; what bench_log says of it."""
        return call_json([self.programs.own("bench_log"), "--dir", self.path(name), "--records",
                          records, "--batch", batch])

    def verify_rounds(self, name, rounds):
        """(runs of tek-audit, runs of sha256sum), side by side."""
        folder = self.path(name)
        key = os.path.join(folder, "keys", os.listdir(os.path.join(folder, "keys"))[0])
        verify, sums = [], []
        for _ in range(rounds):
            sums.append(measured(["sha256sum", os.path.join(folder, "audit.jsonl")]))
            verify.append(measured([self.programs.product("tek-audit"), "verify", folder, "--key",
                                    key, "--first"]))
        shutil.rmtree(folder)
        return verify, sums

    def verify_one(self, name, what, records, batch):
        """What was made, and the runs of tek-audit."""
        log = self.made(name, records, batch)
        verify, sums = self.verify_rounds(name, self.rounds)
        report = self.report
        report.heading(f"Verification of {log['records']:,} records, {what}: {log['messages']:,} "
                       f"messages, {log['checkpoints']:,} checkpoints, "
                       f"{log['octets'] / 1e6:,.0f} MB")
        report.columns()
        report.series(f"{name}_s", "tek-audit verify --first", [r["seconds"] for r in verify], "s",
                      2)
        report.series(f"{name}_sum_s", "sha256sum of the records", [r["seconds"] for r in sums],
                      "s", 2)
        report.series(f"{name}_ratio", "verify / sha256sum",
                      ratios([r["seconds"] for r in verify], [r["seconds"] for r in sums]), "", 1)
        report.series(f"{name}_rss", "memory of tek-audit, at most", [r["rss"] for r in verify],
                      "MB", 1)
        return log, verify

    def verification(self):
        records = self.form.records
        log, verify = self.verify_one("log", "a loaded server", records, 32)
        lone, slow = self.verify_one("lone", "a lone client", records // 10, 1)
        seconds, rss = median(r["seconds"] for r in verify), max(r["rss"] for r in verify)
        share = log["records"] / MILLION
        extra = (lone["checkpoints"] / lone["records"] - log["checkpoints"] / log["records"])
        per = (median(r["cpu"] for r in slow) / lone["records"] -
               median(r["cpu"] for r in verify) / log["records"]) / extra
        self.report.value("checkpoint_us", "CPU of one checkpoint more", per * 1e6, "us")
        wanted = f"< {SECONDS * share:.1f}"
        self.report.aim(f"verify {log['records']:,} records, s", seconds,
                        seconds < SECONDS * share, wanted)
        self.report.aim("memory of tek-audit, MB", rss, rss <= MEGABYTES, f"<= {MEGABYTES:.0f}", 1)

    # --- export -----------------------------------------------------------------------------

    def export(self, name):
        folder = self.path(name)
        run = measured([self.programs.product("tekctl"), "--socket",
                        self.instance.path("tekd.sock"), "audit", "export", folder])
        lines = os.path.join(folder, "audit.jsonl")
        run["sum"] = measured(["sha256sum", lines])["seconds"]
        run["octets"] = os.path.getsize(lines)
        shutil.rmtree(folder)
        return run

    def load(self):
        run = self.instance.load(*LOAD, "--seconds", self.form.seconds)
        if run["errors"]["total"] or not run["ok"]:
            raise BenchError(f"requests beside an export: {run['errors']}")
        return run

    def export_rounds(self):
        """Requests alone and beside exports in turn; RSS of tekd in each."""
        alone, beside, exports, rss = [], [], [], {"alone": [], "beside": []}
        for _ in range(self.rounds):
            with Sampler(self.instance) as memory:
                alone.append(self.load())
            rss["alone"].append(memory.largest)
            with Sampler(self.instance) as memory, Exports(self) as running:
                beside.append(self.load())
            rss["beside"].append(memory.largest)
            exports += running.runs
        return alone, beside, exports, rss

    def exporting(self, instance, name):
        """What an export of this server takes, and what the server's requests notice of it."""
        self.instance = instance
        first = self.export("first")
        alone, beside, exports, rss = self.export_rounds()
        records = status(instance)["store"]["records"]
        report, key = self.report, f"export_{name}"
        report.heading(f"Export of {records:,} records, {first['octets'] / 1e6:,.0f} MB, and "
                       "requests for known contents beside it, 4 connections")
        report.columns()
        report.series(f"{key}_s", "tekctl audit export, nothing else", [first["seconds"]], "s", 2)
        report.series(f"{key}_ratio", "  of sha256sum of its records",
                      [first["seconds"] / first["sum"]], "", 1)
        report.series(f"{key}_beside_s", "tekctl audit export, beside requests",
                      [r["seconds"] for r in exports], "s", 2)
        report.series(f"{key}_tekctl_rss", "memory of tekctl, at most", [r["rss"] for r in exports],
                      "MB", 1)
        for what, runs in (("alone", rss["alone"]), ("beside", rss["beside"])):
            report.series(f"{key}_rss_{what}", f"memory of tekd, {what}", runs, "MB", 1)
        self.latencies(key, alone, beside)
        growth = max(b - a for a, b in zip(rss["alone"], rss["beside"]))
        report.aim("tekd grows in an export by at most, MB", growth, growth <= GROWTH_MB,
                   f"constant: <= {GROWTH_MB:.0f}", 1)

    def latencies(self, key, alone, beside):
        for q in ("p50_us", "p99_us", "max_us"):
            for what, runs in (("alone", alone), ("beside", beside)):
                self.report.series(f"{key}_{q}_{what}", f"requests {what}, {q[:3]}",
                                   [r["latency"][q] for r in runs], "us")
        for q in ("p50_us", "p99_us"):
            self.report.series(f"{key}_{q}_ratio", f"beside / alone, {q[:3]}",
                               ratios([r["latency"][q] for r in beside],
                                      [r["latency"][q] for r in alone]), "", 2)

    # --- what it costs a request ------------------------------------------------------------

    def stored(self, program, kind, outstanding, items):
        """What store_bench says, as numbers."""
        folder = self.path("store")
        os.mkdir(folder)
        text = call([self.programs.product(program), folder, items, outstanding, kind])
        shutil.rmtree(folder)
        told = {k: float(v) for k, v in (word.split("=") for word in text.split())}
        if told["errors"]:
            raise BenchError(f"{program}: {text}")
        return told

    def cost(self):
        """The store with the log's records and without: one source, linked twice."""
        report = self.report
        report.heading("Cost of the log per request: the store alone, with it and without "
                       "(no records, no leaves, no checkpoints, no signatures)")
        report.columns()
        for kind, outstanding in (("new", 64), ("known", 64), ("known", 1)):
            items = self.form.items if outstanding > 1 else self.form.items // 10
            runs = [(self.stored("store_bench", kind, outstanding, items),
                     self.stored("store_bench_nolog", kind, outstanding, items))
                    for _ in range(self.rounds)]
            self.cost_of(f"{kind}_{outstanding}", f"{kind} contents, {outstanding} at a time", runs)

    def cost_of(self, key, what, runs):
        report = self.report
        for field, name in (("cpu_us", "CPU"), ("latency_us", "latency")):
            pairs = [(a[field], b[field]) for a, b in runs]
            with_log, without = [a for a, _ in pairs], [b for _, b in pairs]
            report.series(f"log_{key}_{field}", f"{what}, {name}", with_log, "us", 1)
            report.series(f"nolog_{key}_{field}", "  without the log", without, "us", 1)
            report.series(f"log_{key}_{field}_more", "  the log", [a - b for a, b in pairs], "us",
                          1)
            report.series(f"log_{key}_{field}_ratio", "  with / without", ratios(with_log, without),
                          "", 2)


def status(instance):
    return call_json([instance.programs.product("tekctl"), "--socket", instance.path("tekd.sock"),
                      "--json", "status"])
