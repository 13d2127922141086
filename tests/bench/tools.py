"""The benchmark's programs and the processes it starts."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A measurement that could not be made; not one that was slow."""


def end_with_parent():
    """For preexec_fn: the child gets SIGTERM when this process dies."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def call(args, timeout=600, **kwargs):
    """Runs a program to its end and returns what it prints; BenchError unless it exits 0."""
    try:
        done = subprocess.run([str(a) for a in args], capture_output=True, text=True,
                              timeout=timeout, check=False, stdin=subprocess.DEVNULL,
                              preexec_fn=end_with_parent, **kwargs)
    except subprocess.TimeoutExpired as e:
        raise BenchError(f"{args[0]} took longer than {timeout} s") from e
    except OSError as e:
        raise BenchError(f"{args[0]}: {e}") from e
    if done.returncode != 0:
        raise BenchError(f"{' '.join(str(a) for a in args)}: exit status {done.returncode}\n"
                         f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def call_json(args, **kwargs):
    return json.loads(call(args, **kwargs))


def start(args, log, **kwargs):
    with open(log, "ab") as f:
        return subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=f,
                                stderr=f, preexec_fn=end_with_parent, **kwargs)


def stop(process, patience=15):
    """SIGTERM, and SIGKILL for who does not follow; whether SIGTERM was enough."""
    if process.poll() is not None:
        return True
    process.terminate()
    try:
        process.wait(patience)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(what, condition, timeout, step=0.005):
    """Seconds until condition() was true."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout:
            raise BenchError(f"{what}: not within {timeout} s")
        time.sleep(step)
    return time.monotonic() - began


class Programs:
    """Where the programs are: of the product and of the benchmark, in one build directory."""

    def __init__(self, build):
        self.build = os.path.abspath(build)
        self.bench = os.path.join(self.build, "tests", "bench")
        # Also a build of the benchmark alone.
        if not os.path.isdir(self.bench):
            self.bench = os.path.join(self.build, "bench")

    def own(self, name):
        path = os.path.join(self.bench, name)
        if not os.path.exists(path):
            raise BenchError(f"{path} is not there: build it, or set TEKD_BUILD")
        return path

    def product(self, name):
        """A program of the product; the folder it is built in is not this one's business."""
        for folder, subfolders, files in os.walk(self.build):
            subfolders[:] = [s for s in subfolders if s != "CMakeFiles"]
            if name in files and os.access(os.path.join(folder, name), os.X_OK):
                return os.path.join(folder, name)
        raise BenchError(f"no {name} under {self.build}: build it, or set TEKD_BUILD")


class Static:
    """A running yardstick server, answering with the octets of a file."""

    def __init__(self, programs, pki, body_file, name="tekd"):
        self.process = subprocess.Popen(
            [programs.own("bench_static"), "--ca", f"{pki}/ca.crt", "--cert", f"{pki}/{name}.crt",
             "--key", f"{pki}/{name}.key", "--body", body_file, "--seconds", "86400"],
            stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
        line = self.process.stdout.readline()
        if not line:
            raise BenchError("bench_static did not start")
        self.address = f"127.0.0.1:{json.loads(line)['port']}"
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)
        self.process.stdout.close()
