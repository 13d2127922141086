"""Power cuts: a disk whose writes are recorded, and what it may hold after each moment.

A disk with a volatile cache owes what a flush covered.  Of what was written later any part may be
on it, in any order, torn at any sector; a copy of the backing file, or of what the page cache
shows, is neither.  So the writes and flushes that reach the disk are recorded (disk.py), and a cut
is made of the recording afterwards: everything up to the last flush, and a choice of the rest.
"""

import contextlib
import os
import random
import select
import subprocess
import sys
from bisect import bisect_right

from . import disk, procs
from .programs import tool

OCTETS = 256 << 20  # of the disk; what is not written takes no room
JOURNAL_MB = 8
START_S = 30
SECTOR, PAGE = 512, 4096


def why_not():
    """What this machine lacks for such a disk; None: nothing."""
    if os.geteuid() != 0:
        return "only root makes loop devices and mounts"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as e:
        return f"/dev/fuse: {e.strerror}"
    if procs.run([tool("unshare"), "--mount", "true"], check=False).returncode != 0:
        return "no mount namespaces"
    if not os.path.exists(procs.run([tool("losetup"), "--find"], check=False).stdout.strip()):
        return "no loop device"
    return None


class Disk:
    """ext4 on a loop device on a recorded file; only what is started through `enter` sees it.

    Without close() it goes with this process, whatever happens to it.
    """

    def __init__(self, folder):
        self.folder = folder
        self.image, self.base, self.log = (os.path.join(folder, n) for n in ("image", "base", "log"))
        self.mounted = os.path.join(folder, "mounted")
        self.device = os.path.join(folder, "device")
        os.makedirs(self.mounted)
        for path in (self.image, self.device):
            with open(path, "wb") as f:
                f.truncate(OCTETS)
        procs.run([tool("mkfs.ext4"), "-q", "-F", "-J", f"size={JOURNAL_MB}", "-E",
                   "lazy_itable_init=0,lazy_journal_init=0", self.image])
        copy_sparse(self.image, self.base)
        self._serve()
        with contextlib.ExitStack() as failed:
            failed.callback(self.close)
            self._mount()
            failed.pop_all()

    def _serve(self):
        argv = [tool("setpriv"), "--pdeathsig", "KILL", sys.executable, disk.__file__, self.image,
                self.device, self.log]
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        there = select.select([self.process.stdout], [], [], START_S)[0]
        words = self.process.stdout.readline().split() if there else []
        if not words or words[0] != b"ready":
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            raise AssertionError(f"the disk does not serve: {words}")
        self.keeper = int(words[1])
        self.enter = (tool("nsenter"), "--target", str(self.keeper), "--mount", "--")

    def _mount(self):
        loop = self.run("losetup", "--find", "--show", "--direct-io=on", self.device).stdout.strip()
        try:
            self.run("mount", "-t", "ext4", loop, self.mounted)
        finally:
            self.run("losetup", "--detach", loop)  # when it is unmounted

    def path(self, *names):
        """For those who entered."""
        return os.path.join(self.mounted, *names)

    def run(self, name, *words):
        return procs.run([*self.enter, tool(name), *words])

    def put(self, *sources):
        """Copies files onto it, for good."""
        self.run("cp", *sources, self.mounted)
        self.run("sync", "-f", self.mounted)

    def files_of(self, image, target):
        """Mounts that image of a disk, by which ext4 replays its journal, and copies the files of
        its top folder into the new folder `target`."""
        place = os.path.join(self.folder, "cut")
        os.makedirs(place, exist_ok=True)
        os.makedirs(target)
        self.run("mount", "-t", "ext4", "-o", "loop,nobarrier", image, place)
        try:
            self.run("find", place, "-maxdepth", "1", "-type", "f", "-exec", "cp", "-t", target,
                     "{}", "+")
        finally:
            self.run("umount", place)

    def close(self):
        """Nobody may be in it any more."""
        if self.process is None:
            return
        procs.kill(self.keeper)
        try:
            self.process.wait(START_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None


def copy_sparse(source, target):
    procs.run(["cp", "--sparse=always", source, target])


class Recording:
    """What was done to a disk, as lists of the same length: times, offsets, octets."""

    def __init__(self, path):
        self.times, self.offsets, self.octets = [], [], []
        self.syncs = []  # their numbers
        with open(path, "rb") as f:
            while head := f.read(disk.ENTRY.size):
                t, offset, n = disk.ENTRY.unpack(head)
                if n == 0:
                    self.syncs.append(len(self.times))
                self.times.append(t)
                self.offsets.append(offset)
                self.octets.append(f.read(n))
        self._sync_times = [self.times[i] for i in self.syncs]

    def covered(self, t):
        """How many entries the last sync before t covers."""
        n = bisect_right(self._sync_times, t)
        return self.syncs[n - 1] if n else 0

    def seen(self, t):
        """How many had come by t."""
        return bisect_right(self.times, t)

    def fullest(self, begin, end):
        """The moment between these two at which the most writes are covered by no sync: just before
        one, or `begin` if there is none."""
        numbers = range(bisect_right(self._sync_times, begin), bisect_right(self._sync_times, end))
        loose = [(self.syncs[n] - self.syncs[n - 1], self._sync_times[n] - 1) for n in numbers if n]
        return max(loose, default=(0, begin))[1]

    def write(self, f, numbers):
        for i in numbers:
            f.seek(self.offsets[i])
            f.write(self.octets[i])


class Keep:
    """What stays of the writes that no flush covers: a part, in pieces of some size.

    One cut after the other takes the next of the ways: nothing, everything, whole writes, torn ones.
    """

    WAYS = ((None, 0), (SECTOR, 0.5), (None, 0.5), (None, 1), (PAGE, 0.5), (SECTOR, 0.1),
            (SECTOR, 0.9))

    def __init__(self, rng, turn):
        self.random = rng
        self.piece, self.part = self.WAYS[turn % len(self.WAYS)]

    def of(self, offset, octets):
        """(offset, octets) of what stays of one write."""
        step = self.piece or len(octets)
        for at in range(0, len(octets), step):
            if self.random.random() < self.part:
                yield offset + at, octets[at:at + step]

    def __str__(self):
        size = f"pieces of {self.piece}" if self.piece else "writes"
        return f"{self.part:.0%} of the {size}"


class Cuts:
    """Images of a recorded disk, for moments that only go forward."""

    def __init__(self, base, log, seed):
        self.record = Recording(log)
        self.random = random.Random(seed)
        self._sure = base + ".sure"
        self._done = 0  # how many entries are in it
        self.loose = []  # of each cut, how many writes no sync covered
        self._turn = self.random.randrange(len(Keep.WAYS))
        copy_sparse(base, self._sure)

    def cut(self, t, target):
        """Writes what may be left at that moment; says what was kept."""
        covered, seen = self.record.covered(t), self.record.seen(t)
        assert covered >= self._done, "cuts are made in the order of their moments"
        with open(self._sure, "r+b") as f:
            self.record.write(f, range(self._done, covered))
        self._done = covered
        copy_sparse(self._sure, target)
        keep = Keep(self.random, self._turn)
        self._turn += 1
        loose = [i for i in range(covered, seen) if self.record.octets[i]]
        with open(target, "r+b") as f:
            for i in loose:
                for offset, octets in keep.of(self.record.offsets[i], self.record.octets[i]):
                    f.seek(offset)
                    f.write(octets)
        self.loose.append(len(loose))
        return f"{keep} of {len(loose)} loose writes"
