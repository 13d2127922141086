"""A server under test: a state directory made by the project's own tools, and tekd on it."""

import http.client
import os
import re
import shutil
import ssl
import time
import urllib.request

from procs import Cpu, Syncs, family, family_rss_mb
from tools import BenchError, call, call_json, free_port, start, stop, wait_until

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BSA = "bsa-1"

# What differs from the defaults has its reason behind it.
CONFIG = """\
bsm_id: {bsm_id}
listen: [{{address: 127.0.0.1, port: {port}}}]
tls: {{certificate: pki/tekd.crt, key: pki/tekd.key, client_ca: pki/ca.crt}}
hsm:
  program: {tekd_hsm}
  module: {module}
  env: {{SOFTHSM2_CONF: softhsm2.conf}}
  token: "{token}"
  pin_file: hsm.pin
  profile: softhsm
  workers: {workers}
  storage_kek: {storage_kek}
  checkpoint_key: {checkpoint_key}
store: {{sqlite: tekd.db}}
audit: {{release: {release}}}
policy: {{auto_content: true}}
push: {{attempt_timeout_s: 60}}  # the benchmark holds its BSAs while deliveries gather
limits:
  per_bsa_auto_contents: 100000000  # the benchmark makes millions
  per_bsa_concurrency: 256  # one BSA on all connections, and the answers just sent
admin: {{socket: tekd.sock, http: "127.0.0.1:{admin_port}"}}
log: {{level: warn}}
"""


def make_state(programs, directory):
    """A state directory as the quickstart leaves it: token, keys, PKI, one enrolled BSA."""
    call([os.path.join(TOP, "provisioning", "quickstart"), "--once", "--dir", directory],
         timeout=1800, env=dict(os.environ, TEKD_BUILD=programs.build))


def copy_state(source, target):
    """A second server of the same keys; its database starts where the first one's stands."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock", "*.log", "syncs"))
    path = os.path.join(target, "softhsm2.conf")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    text = re.sub(r"(?m)^(\s*directories\.tokendir\s*=).*$",
                  lambda m: f"{m[1]} {os.path.join(target, 'tokens')}", text)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


class Token:
    """What the raw loop has to know of the token."""

    def __init__(self, directory):
        with open(os.path.join(directory, "tekd.yaml"), encoding="utf-8") as f:
            self.yaml = f.read()
        self.module = self.setting("module", "/usr/lib/softhsm/libsofthsm2.so")
        self.uri = self.setting("token", "pkcs11:token=tekd")
        self.label = re.search(r"token=([^;?]+)", self.uri)[1]
        self.storage_kek = self.setting("storage_kek", "tekd-storage")
        self.checkpoint_key = self.setting("checkpoint_key", "tekd-checkpoint")
        self.bsm_id = self.setting("bsm_id", "bsm.example.net")
        self.pin_file = os.path.join(directory, "hsm.pin")
        self.env = dict(os.environ, SOFTHSM2_CONF=os.path.join(directory, "softhsm2.conf"))

    def setting(self, key, default):
        """A scalar of the quickstart's YAML, in block or flow style."""
        found = re.search(rf"(?m)(?:^\s*|[{{,]\s*){key}:\s*(\"[^\"]*\"|[^,}}#\n]+)", self.yaml)
        return found[1].strip().strip('"') if found else default

    def bsa_kek(self):
        """The label of the BSA's KEK: the secret key that is not the store's."""
        with open(self.pin_file, encoding="ascii") as f:
            env = dict(self.env, BENCH_PIN=f.read().strip())
        text = call(["pkcs11-tool", "--module", self.module, "--token-label", self.label,
                     "--login", "--pin", "env:BENCH_PIN", "-O", "--type", "secrkey"], env=env)
        labels = re.findall(r"label:\s+(\S+)", text)
        others = [label for label in labels if label != self.storage_kek]
        if self.storage_kek not in labels or not others:
            raise BenchError(f"keys of the token: {labels}; expected {self.storage_kek} and one "
                             "of a BSA")
        return min(others, key=lambda label: (BSA not in label, label))


class Instance:
    """tekd on one state directory; may be started and stopped many times."""

    def __init__(self, programs, directory, workers, release):
        self.programs, self.directory = programs, directory
        self.token = Token(directory)
        self.port, self.admin_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.counters = os.path.join(directory, "syncs")
        self.log = os.path.join(directory, "bench-tekd.log")
        self.config = os.path.join(directory, "bench.yaml")
        self.process = None
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(CONFIG.format(
                bsm_id=self.token.bsm_id, port=self.port, admin_port=self.admin_port,
                tekd_hsm=programs.product("tekd-hsm"), module=self.token.module,
                token=self.token.uri, workers=workers, release=release,
                storage_kek=self.token.storage_kek, checkpoint_key=self.token.checkpoint_key))

    def path(self, name):
        return os.path.join(self.directory, name)

    def ready(self):
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                raise BenchError(f"tekd ended with {self.process.returncode}:\n{f.read()[-3000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=1):
                return True
        except OSError:
            return False

    def start(self, timeout=120):
        """Seconds until it is ready."""
        env = dict(os.environ, BENCH_SYNCOUNT_PROGRAM="tekd", BENCH_SYNCOUNT_FILE=self.counters,
                   LD_PRELOAD=self.programs.own("bench_syncount.so"))
        began = time.monotonic()
        self.process = start([self.programs.product("tekd"), "--config", self.config], self.log,
                             env=env, cwd=self.directory)
        wait_until("tekd ready", self.ready, timeout)
        return time.monotonic() - began

    def stop(self):
        if self.process is not None and not stop(self.process):
            raise BenchError("tekd did not end after SIGTERM")
        self.process = None

    def kill(self):
        """SIGKILL; its workers have to follow, for the next start must not meet them."""
        workers = family(self.process.pid)[1:]
        self.process.kill()
        self.process.wait()
        self.process = None
        wait_until("the workers of a killed tekd end",
                   lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), 10)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def cpu(self):
        return Cpu(self.process.pid)

    def syncs(self):
        return Syncs(self.counters)

    def rss_mb(self):
        return family_rss_mb(self.process.pid)

    def database_mb(self):
        paths = [self.path(name) for name in ("tekd.db", "tekd.db-wal")]
        return sum(os.path.getsize(p) for p in paths if os.path.exists(p)) / 2**20

    def load_command(self, *args, address=None):
        return [
            self.programs.own("bench_load"), "--connect", address or self.address, "--ca",
            self.path("pki/ca.crt"), "--identity",
            f"{BSA},{self.path(f'pki/{BSA}.crt')},{self.path(f'pki/{BSA}.key')}", "--destination",
            self.token.bsm_id, *args]

    def load(self, *args, address=None, timeout=3900):
        """What bench_load measured on this server, or on another address with its PKI."""
        return call_json(self.load_command(*args, address=address), timeout=timeout)

    def sample_answer(self, media):
        """The body of one real answer, for its size."""
        context = ssl.create_default_context(cafile=self.path("pki/ca.crt"))
        context.load_cert_chain(self.path(f"pki/{BSA}.crt"), self.path(f"pki/{BSA}.key"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context,
                                                 timeout=30)
        body = SAMPLE[media].format(bsm=self.token.bsm_id, bsa=BSA)
        try:
            connection.request("POST", "/cp3", body, {"Content-Type": f"application/{media}"})
            response = connection.getresponse()
            octets = response.read()
        except (OSError, http.client.HTTPException) as e:
            raise BenchError(f"a Key Request was not answered: {e!r}") from e
        finally:
            connection.close()
        if response.status != 200:
            raise BenchError(f"a Key Request was answered {response.status}: {octets[:500]}")
        return octets


# Ids as long as those of the load generator.
_ID = "00000000-0000-0000-0000-000000000000"
SAMPLE = {
    "xml": '<KeyRequest xmlns="urn:x-bcast:spcp:cp3:1.0"><Tag>1</Tag><MessageID>' + _ID +
           "</MessageID><ContentID>urn:x-bench:" + _ID + "</ContentID><Destination>{bsm}"
           "</Destination><Source>{bsa}</Source></KeyRequest>",
    "json": '{{"Tag":1,"MessageID":"' + _ID + '","ContentID":"urn:x-bench:' + _ID +
            '","Destination":"{bsm}","Source":"{bsa}"}}',
}
