"""tek-bsa under test: listen and collect as processes, with what they print."""

import json
import os
import signal
import subprocess
import threading

from . import procs
from .bsm import BSA, BSM
from .programs import is_sanitized, program, tool

START_S = 60 if is_sanitized() else 20
STOP_S = 30 if is_sanitized() else 15


# The syncs of one delivery, in their order.
KEY, FOLDER, JOURNAL = 1, 2, 3
# Killed before the n-th: whether key and record are there, and whether it is a repetition then.
KILLED = {KEY: (False, False, False), FOLDER: (True, False, False), JOURNAL: (True, True, True)}


def read(path):
    with open(path, encoding="ascii") as f:
        return f.read()


def written(keys):
    """{file: what is in it} of a folder of keys."""
    return {name: read(os.path.join(keys, name)) for name in os.listdir(keys)}


def records(journal):
    """The MessageIDs of a journal."""
    return [json.loads(line)["message_id"] for line in read(journal).splitlines()]


class Bsa:
    """One process of tek-bsa.  Its documents (--json) come in `printed`; close() leaves nothing."""

    def __init__(self, bsm, command, *options, cert="bsa-1", pki="pki", env=None):
        self.bsm = bsm
        names = {"listen": ("--id", "--bsm"), "collect": ("--source", "--destination")}[command]
        argv = [tool("setpriv"), "--pdeathsig", "KILL", program("tek-bsa"), command,
                "--ca", bsm.pem("ca.crt"), "--cert", bsm.pem(f"{cert}.crt", pki),
                "--key", bsm.pem(f"{cert}.key", pki), "--kek", bsm.kek_path,
                names[0], BSA, names[1], BSM, "--json", *map(str, options)]
        self.printed = []
        self.errors = []  # lines of stderr
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env={**os.environ, **(env or {})})
        self._readers = [
            self._read(self.process.stdout, self.printed, json.loads),
            self._read(self.process.stderr, self.errors, lambda line: line.decode().rstrip())]

    @staticmethod
    def _read(stream, lines, convert):
        def run():
            for line in stream:
                lines.append(convert(line))
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def said(self):
        return "\n".join(self.errors)

    def deliveries(self, n=0):
        """Those that were printed, as soon as there are n."""
        if n:
            self.wait_printed("delivery", n)
        return [d for d in self.printed if d["event"] == "delivery"]

    def wait_printed(self, event, n=1):
        """The n-th document of this event, as soon as it is there."""
        def there():
            found = [d for d in self.printed if d["event"] == event]
            assert self.process.poll() is None or len(found) >= n, \
                f"ended with {self.process.returncode}\n{self.said()}"
            return found[n - 1] if len(found) >= n else None
        return procs.wait_until(there, f"{event} {n}\n{self.said()}", START_S)

    @property
    def port(self):
        return self.wait_printed("listening")["port"]

    def wait(self):
        """Its exit status, when it ends by itself; all that it printed is there then."""
        status = self.process.wait(STOP_S)
        for reader in self._readers:
            reader.join(STOP_S)
        return status

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.wait()

    def kill(self):
        self.process.kill()
        return self.wait()

    def close(self):
        """What a sanitizer has to say fails the test."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        assert not any("Sanitizer" in line or "runtime error" in line for line in self.errors), \
            self.said()
