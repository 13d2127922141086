"""What the kernel says about processes and the machine: /proc, read as it stands."""

import contextlib
import os
import struct

TICKS = os.sysconf("SC_CLK_TCK")


def _read(path):
    with open(path, encoding="ascii", errors="replace") as f:
        return f.read()


def _stat(path):
    """(name, fields from the state on) of a /proc/.../stat; the name may hold blanks."""
    text = _read(path)
    name = text[text.index("(") + 1:text.rindex(")")]
    return name, text[text.rindex(")") + 2:].split()


def _pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class Cpu:
    """CPU seconds of a server and its descendants at one moment.

    own: of each process alone; total: with reaped children, so that the CPU time of a worker that
    was replaced is not lost; threads: of the server's threads, by name.
    """

    def __init__(self, root):
        self.own, self.total, self.name, self.threads = {}, 0.0, {}, {}
        for pid in family(root):
            with contextlib.suppress(OSError):
                name, f = _stat(f"/proc/{pid}/stat")
                self.name[pid] = name
                self.own[pid] = (int(f[11]) + int(f[12])) / TICKS
                self.total += self.own[pid] + (int(f[13]) + int(f[14])) / TICKS
        for tid in os.listdir(f"/proc/{root}/task"):
            with contextlib.suppress(OSError):
                name, f = _stat(f"/proc/{root}/task/{tid}/stat")
                used = (int(f[11]) + int(f[12])) / TICKS
                self.threads[name] = self.threads.get(name, 0.0) + used
        self.root = root

    def since(self, before):
        """{"server", "others", "each": {...}, "threads": {...}}: seconds used since before."""
        server = self.own[self.root] - before.own[self.root]
        each = {}
        for pid, used in self.own.items():
            if pid != self.root:
                each[f"{self.name[pid]}[{pid}]"] = used - before.own.get(pid, 0.0)
        threads = {n: t - before.threads.get(n, 0.0) for n, t in self.threads.items()}
        return {"server": server, "others": self.total - before.total - server, "each": each,
                "threads": {n: t for n, t in threads.items() if t > 0}}


def cpu_of(pid):
    """CPU seconds of one process so far."""
    f = _stat(f"/proc/{pid}/stat")[1]
    return (int(f[11]) + int(f[12])) / TICKS


def family(root):
    """The process and all its descendants, itself first."""
    children = {}
    for pid in _pids():
        with contextlib.suppress(OSError):
            children.setdefault(int(_stat(f"/proc/{pid}/stat")[1][1]), []).append(pid)
    found, todo = [], [root]
    while todo:
        pid = todo.pop(0)
        found.append(pid)
        todo += sorted(children.get(pid, []))
    return found


def _megabytes(pid, field):
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def rss_mb(pid):
    return _megabytes(pid, "VmRSS")


def peak_rss_mb(pid):
    """Of the program it runs now; what wait4() tells includes that of who forked it."""
    return _megabytes(pid, "VmHWM")


def family_rss_mb(root):
    """(of the process, [of each descendant])."""
    others = []
    for pid in family(root)[1:]:
        with contextlib.suppress(OSError):
            others.append(rss_mb(pid))
    return rss_mb(root), others


class Machine:
    """CPU time of the whole machine at one moment."""

    def __init__(self):
        f = [int(x) for x in _read("/proc/stat").split("\n", 1)[0].split()[1:9]]
        self.idle, self.steal, self.all = f[3] + f[4], f[7], sum(f)

    def since(self, before):
        """Shares of the machine's time: {"steal", "idle"}."""
        spent = max(1, self.all - before.all)
        return {"steal": (self.steal - before.steal) / spent,
                "idle": (self.idle - before.idle) / spent}


class Syncs:
    """The counters that syncount.so keeps in a file; zeros when there is none."""

    def __init__(self, path):
        self.calls = self.ns = self.failed = 0
        self.known = os.path.exists(path) and os.path.getsize(path) == 24
        if self.known:
            with open(path, "rb") as f:
                self.calls, self.ns, self.failed = struct.unpack("=QQQ", f.read(24))

    def since(self, before):
        """{"calls", "mean_us"}, or None if nobody counts."""
        calls = self.calls - before.calls
        if not self.known:
            return None
        return {"calls": calls, "mean_us": (self.ns - before.ns) / 1e3 / calls if calls else 0.0}


def drop_caches():
    """Empties the page cache; False without the right to."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("3")
    except OSError:
        return False
    return True
