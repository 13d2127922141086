"""A tekd under test: its configuration, its processes, its operators' tools."""

import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import time

from cp3py import auditlog, client, messages
from cp3py.unwrap import unwrap

from . import adminsock, procs, state
from .programs import is_sanitized, program, softhsm, tool

START_S = 120 if is_sanitized() else 30
STOP_S = 30 if is_sanitized() else 10  # whatever hangs: docs/operations.md

# How a sanitizer begins what it has to say.
REPORT = re.compile("(ERROR|WARNING): (Address|Thread|Leak|UndefinedBehavior)Sanitizer|runtime error:")

_worker = int((os.environ.get("PYTEST_XDIST_WORKER") or "gw0")[2:]) % 8
_next_port = None


def free_port():
    """A port that nobody has: a range for each test process, below those the kernel gives out."""
    global _next_port
    if _next_port is None:
        _next_port = random.randrange(1000)
    while True:
        _next_port = (_next_port + 1) % 1000
        port = 21000 + _worker * 1000 + _next_port
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def to_yaml(value):
    """JSON is YAML, all of it on one line."""
    return json.dumps(value)


class Tekd:
    """One server in its folder.  start() and stop() may alternate; close() leaves nothing."""

    def __init__(self, folder, template, name="tekd", **settings):
        self.folder = str(folder)
        self.template = template
        self.name = name  # of the program
        self.port = free_port()
        self.admin_port = free_port()
        self.process = None
        self.env = {}  # of tekd, besides our own
        self.family = set()  # every process it was seen to have
        self.contexts = {}
        self.exports = 0
        self.log_path = self.path("tekd.log")
        self.settings = self._defaults()
        self.configure(**settings)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    # ---- configuration ----

    def _defaults(self):
        return {
            "bsm_id": state.BSM,
            "listen": [{"address": "127.0.0.1", "port": self.port}],
            "tls": {"certificate": "pki/tekd.crt", "key": "pki/tekd.key",
                    "client_ca": "pki/ca.crt", "crl": "pki/ca.crl"},
            "hsm": {"program": program("tekd-hsm"), "module": softhsm(),
                    "env": {"SOFTHSM2_CONF": "softhsm2.conf"}, "token": "pkcs11:token=tekd",
                    "pin_file": "hsm.pin", "profile": "softhsm", "workers": 2,
                    "timeout_ms": 20000 if is_sanitized() else 2000},
            "store": {"sqlite": "tekd.db"},
            "audit": {"release": "signed", "anchor_file": "anchor/checkpoint",
                      "anchor_interval_s": 1, "instance": "tekd-a"},
            "policy": {"auto_content": True},
            "limits": {"free_stop_mb": 1, "free_warn_mb": 1},
            "admin": {"socket": "tekd.sock", "http": f"127.0.0.1:{self.admin_port}"},
        }

    def configure(self, **sections):
        """configure(policy={"auto_content": False}) changes these keys; None takes one away."""
        for section, keys in sections.items():
            if isinstance(keys, dict):
                self.settings.setdefault(section, {}).update(keys)
                for key in [k for k, v in self.settings[section].items() if v is None]:
                    del self.settings[section][key]
            else:
                self.settings[section] = keys
        os.makedirs(self.path("anchor"), exist_ok=True)
        with open(self.path("tekd.yaml"), "w", encoding="utf-8") as f:
            for section, keys in self.settings.items():
                f.write(f"{section}: {to_yaml(keys)}\n")

    # ---- its life ----

    @property
    def pid(self):
        return self.process.pid

    def start(self, wait="ready", wrapper=(), pass_fds=()):
        """wait: "ready" /readyz says so; "alive" /healthz does; None: not at all."""
        assert self.process is None
        # Dies with us whatever happens to us.
        argv = [*wrapper, tool("setpriv"), "--pdeathsig", "KILL", program(self.name), "--config",
                self.path("tekd.yaml")]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **self.env}, cwd="/",
                                            pass_fds=pass_fds)
        if wait:
            self.wait_for("/readyz" if wait == "ready" else "/healthz")
        return self

    def start_with_pin_fd(self):
        """Where pin_fd is 7: there is no file of the PIN."""
        os.unlink(self.path("hsm.pin"))
        read_end, write_end = os.pipe()
        os.write(write_end, self.template.pin.encode())
        os.close(write_end)
        # The shell moves the pipe to descriptor 7 of the server.
        self.start(wrapper=["bash", "-c", f'exec "$@" 7<&{read_end} {read_end}<&-', "bash"],
                   pass_fds=[read_end])
        os.close(read_end)
        return self

    def probe(self, path, host="127.0.0.1"):
        """(status, body) of the admin listener, or None when there is none."""
        c = http.client.HTTPConnection(host, self.admin_port, timeout=10)
        try:
            c.request("GET", path)
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            c.close()

    def wait_for(self, path="/readyz", status=200, seconds=START_S):
        def there():
            assert self.process.poll() is None, \
                f"tekd ended with {self.process.returncode}\n{self.log()[-4000:]}"
            answer = self.probe(path)
            return answer if answer and answer[0] == status else None
        try:
            answer = procs.wait_until(there, f"{path} {status}", seconds)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.probe(path)}\n{self.log()[-4000:]}") from None
        self.note_family()
        return answer

    def note_family(self):
        self.family.update(procs.descendants(self.pid))

    def hsm_processes(self):
        """(parent, [workers]) of tekd-hsm."""
        parents = [p for p in procs.children(self.pid) if procs.name_of(p) == "tekd-hsm"]
        assert len(parents) == 1, f"tekd-hsm: {parents}"
        return parents[0], procs.children(parents[0])

    def _reap(self, seconds):
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.note_family()
            procs.kill(self.pid)
            self.process.wait()
            self.process = None
            raise AssertionError(f"tekd did not end within {seconds} s\n{self.log()[-4000:]}") \
                from None
        self.process = None
        return status

    def _nothing_left(self):
        """Workers end by themselves when tekd does, however it does."""
        def left():
            return [p for p in self.family if procs.is_alive(p)]
        try:
            procs.wait_until(lambda: not left(), "the end of tekd's processes", 15)
        finally:
            for pid in left():
                procs.kill(pid, signal.SIGCONT)
                procs.kill(pid)
        self.family.clear()

    def stop(self, expect=0, seconds=STOP_S):
        self.note_family()
        procs.kill(self.pid, signal.SIGTERM)
        status = self._reap(seconds)
        assert status == expect, f"tekd ended with {status}\n{self.log()[-4000:]}"
        self._nothing_left()

    def kill(self):
        self.note_family()
        self.kill_now()

    def kill_now(self):
        """Without a look for its processes, which takes long: note_family() has seen them.  The
        moment before it, monotonic s."""
        moment = time.monotonic()
        procs.kill(self.pid)
        self._reap(10)
        self._nothing_left()
        return moment

    def wait_end(self, seconds=START_S):
        """The exit status of a tekd that ends by itself."""
        status = self._reap(seconds)
        self._nothing_left()
        return status

    def restart(self, **settings):
        self.stop()
        if settings:
            self.configure(**settings)
        return self.start()

    def hup(self):
        generation = self.log().count("event=reloaded") + self.log().count("reload-refused")
        procs.kill(self.pid, signal.SIGHUP)
        procs.wait_until(lambda: self.log().count("event=reloaded") +
                         self.log().count("reload-refused") > generation, "SIGHUP taken")

    def close(self):
        """At the end of a test, also of one that failed."""
        if is_sanitized() and self.process is not None and procs.stat_of(self.pid)[0] not in "TZ":
            procs.kill(self.pid, signal.SIGTERM)  # what it has to say comes at its end
            self._reap(STOP_S)
        if self.process is not None:
            self.note_family()
            for pid in self.family | {self.pid}:
                procs.kill(pid, signal.SIGCONT)
            procs.kill(self.pid)
            self._reap(10)
        self._nothing_left()
        assert not REPORT.search(self.log()), self.log()[-20000:]

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    # ---- operators ----

    def tekctl_argv(self, *words):
        return [program("tekctl"), "--socket", self.path("tekd.sock"), *words]

    def tekctl(self, *words, check=True, timeout=60, prefix=(), **more):
        """As typed; the finished process."""
        return procs.run([*prefix, *self.tekctl_argv(*words)], timeout=timeout, check=check, **more)

    def ctl(self, *words, **more):
        """The document of --json."""
        return json.loads(self.tekctl("--json", *words, **more).stdout)

    def look(self, command, **arguments):
        """The same document without a tekctl: for who looks often."""
        return adminsock.look(self.path("tekd.sock"), command, **arguments)

    def enrol(self, bsa, *more):
        self.tekctl("bsa", "add", bsa.name, "--cert", self.path("pki", f"{bsa.name}.crt"), "--kek",
                    bsa.kek_label, *bsa.enrol, *more)

    def enrol_all(self):
        for bsa in self.template.bsas.values():
            self.enrol(bsa)

    def export(self):
        """A new folder; exports are never overwritten."""
        self.exports += 1
        folder = self.path(f"export-{self.exports}")
        self.tekctl("audit", "export", folder)
        return folder

    def audit(self, release="signed"):
        """The audit log so far, exported and verified by the tests' own verifier."""
        return auditlog.Log(self.export(), self.path("checkpoint.pem"), release=release)

    # ---- BSAs ----

    def tls(self, cert="bsa-1", folder="pki", **versions):
        """A client context; cert None: no certificate."""
        key = (cert, folder, tuple(sorted(versions.items())))
        if key not in self.contexts:
            files = [self.path(folder, f"{cert}.{e}") for e in ("crt", "key")] if cert else []
            self.contexts[key] = client.context(self.path("pki", "ca.crt"), *files, **versions)
        return self.contexts[key]

    def connect(self, cert="bsa-1", **more):
        return client.Connection(self.port, self.tls(cert), **more)

    def clear(self, name, data):
        """The TEK in Data of that BSA."""
        bsa = self.template.bsas[name]
        return unwrap(bsa.wrap, bsa.kek, data)

    def ask(self, mid, content, bsa="bsa-1", cert=None, media="xml", **more):
        """One request on a connection of its own."""
        with self.connect(cert or bsa) as c:
            return c.ask(messages.request(mid, content, bsa, **more), media)
