"""provisioning/quickstart with the programs of this build: once, again, beside another, stopped.

    check_quickstart.py BUILD
"""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(TOP, "provisioning", "quickstart")
LIMIT_S = 120

KEPT = ["tekd.yaml", "hsm.pin", "softhsm2.conf", "tokens", "bsa/bsa-1.kek", "tekd.db", "tekd.log",
        *(f"pki/{name}.{kind}" for name in ("ca", "tekd", "bsa-1") for kind in ("crt", "key"))]


def processes_of(folder):
    """Those whose command line or environment names the folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                line = f.read()
            with open(f"/proc/{pid}/environ", "rb") as f:
                line += f.read()
        except OSError:
            continue
        if folder.encode() in line and int(pid) != os.getpid():
            found.append(int(pid))
    return found


class Quickstart(unittest.TestCase):
    build = sys.argv[1]

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tekd-quick-")
        self.addCleanup(folder.cleanup)
        self.dir = os.path.join(folder.name, "state")

    def path(self, name):
        return os.path.join(self.dir, name)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as f:
            return f.read()

    def command(self, *words):
        return [SCRIPT, "--build", self.build, "--dir", self.dir, *words]

    def once(self, expect=0):
        done = subprocess.run(self.command("--once"), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=LIMIT_S)
        self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
        self.assertEqual(processes_of(self.dir), [])
        return done.stdout + done.stderr

    def serve(self):
        """Started to the point where it serves on; returns it with its output so far."""
        process = subprocess.Popen(self.command(), stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "serving until" in line:
                return process, "".join(lines)
        self.fail("".join(lines))

    def check_shown(self, output):
        """The TEK that the BSA unwrapped, its audit record, and that the log verifies."""
        tek = re.search("TEK, unwrapped by the BSA: ([0-9a-f]{32})\n", output).group(1)
        self.assertEqual(self.read("bsa/bsa-1.tek").strip(), tek)
        self.assertRegex(output, "verified [0-9]+ records")
        record = json.loads(re.search('{.*"ev":"request.answered".*}', output).group())
        repeat = json.loads(re.search('{.*"ev":"request.repeated".*}', output).group())
        self.assertEqual(record["peer"], "bsa-1")
        self.assertEqual(record["out"], repeat["out"])
        return tek

    def test_once_and_again(self):
        first = self.check_shown(self.once())
        for name in KEPT:
            self.assertTrue(os.path.exists(self.path(name)), name)
        for name in ("hsm.pin", "so.pin", "bsa/bsa-1.kek", "pki/ca.key", "pki/tekd.key"):
            self.assertEqual(stat.S_IMODE(os.stat(self.path(name)).st_mode), 0o600)
        before = {name: self.read(name) for name in KEPT
                  if name not in ("tokens", "tekd.db", "tekd.log")}
        output = self.once()
        # The content has its TEK; this is another Message ID for it.
        self.assertEqual(self.check_shown(output), first)
        self.assertIn("exists and the PIN opens it", output)
        self.assertIn("is enrolled already", output)
        self.assertIn("--since", output)
        self.assertEqual(before, {name: self.read(name) for name in before})

    def test_taken_ports_are_replaced(self):
        self.once()
        ports = [int(p) for p in re.findall("port: ([0-9]+)|127.0.0.1:([0-9]+)",
                                            self.read("tekd.yaml"))[0] if p]
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", ports[0]))
            s.listen()
            output = self.once()
        self.check_shown(output)
        self.assertNotIn(f"port: {ports[0]}}}", self.read("tekd.yaml"))

    def test_serves_until_it_is_told_to_stop(self):
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process, _ = self.serve()
            https = re.search("port: ([0-9]+)", self.read("tekd.yaml")).group(1)
            socket.create_connection(("127.0.0.1", int(https)), 10).close()
            busy = subprocess.run(self.command("--once"), capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL, timeout=LIMIT_S)
            self.assertEqual(busy.returncode, 1)
            self.assertIn("serves", busy.stderr)
            process.send_signal(number)
            self.assertEqual(process.wait(LIMIT_S), status)
            deadline = time.monotonic() + 10
            while processes_of(self.dir) and time.monotonic() < deadline:
                time.sleep(0.01)
            self.assertEqual(processes_of(self.dir), [])
            self.assertIn("event=stopping", self.read("tekd.log"))

    def test_what_fails_is_said(self):
        self.once()
        with open(self.path("bsa/bsa-1.kek"), "w", encoding="ascii") as f:
            f.write("00" * 32 + "\n")
        output = self.once(expect=1)
        self.assertIn("is not the value of key", output)
        self.assertIn("quickstart: tek-provision failed", output)

    def test_usage(self):
        for words, status in ((["--help"], 0), (["--dir"], 2), (["--nonsense"], 2), (["x"], 2)):
            done = subprocess.run([SCRIPT, *words], capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL, timeout=LIMIT_S)
            self.assertEqual(done.returncode, status)
            self.assertIn("usage:", done.stdout + done.stderr)


if __name__ == "__main__":
    # A shell started in the background ignores SIGINT, and what it starts does too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unittest.main(argv=sys.argv[:1])
