"""Power cuts under load: what anybody was given or told is on the disk.

The database is on a recorded disk with a volatile cache (harness/powercut.py).  While BSAs pull
keys, take deliveries and confirm them, moments are taken at random.  Afterwards an image of what
the disk may have held at each is mounted and its database read; from some of them tekd starts
again.  The token and the anchor file are elsewhere; the anchor is the one that stood there at the
moment, which is the most that its own volume can have kept.

The same with PRAGMA synchronous = NORMAL has to lose answers, or the rig would show nothing.
"""

import os
import random
import shutil
import sys
import threading
import time
from dataclasses import dataclass

import pytest

from cp3py import auditlog
from cp3py.messages import request
from cp3py.note import Note
from harness import powercut, shim
from harness.answers import checked, given
from harness.load import Load
from harness.powercut import SECTOR, Cuts, Disk
from harness.procs import run, wait_until
from harness.programs import program
from harness.survived import Survived

MISSING = powercut.why_not()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"no disk to record: {MISSING}")

CLIENTS = 20
PAUSE_S = 0.4  # at most, between two moments
REPEATS = 200  # asked for after a start, at most


@pytest.fixture
def disk(folder):
    """Before the server in the list of what a test wants: then it goes after the server."""
    made = Disk(os.path.join(folder, "disk"))
    yield made
    made.close()


# ---- the rig itself --------------------------------------------------------------------------------

# Writes past the page cache, so that all of it comes to the disk; what of it is synced is up to the
# arguments.  Blocks of one octet over and over, in a file that is all there.
WRITER = """
import mmap, os, sys, time
path, every = sys.argv[1], int(sys.argv[2])
fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
block = mmap.mmap(-1, 4096)
for n in range(200):
    block[:] = bytes([n]) * 4096
    assert os.pwrite(fd, block, 0) == 4096
    if n == 0 or n % every == 0:
        os.fsync(fd)
    print(n, time.monotonic_ns(), flush=True)
"""


def what_was_left(disk, folder, every, tell):
    """(number of the last write, set of the numbers that the cut's sectors are of) of 14 cuts just
    before a sync."""
    done = run([*disk.enter, sys.executable, "-c", WRITER, disk.path("file"), str(every)])
    seed = random.randrange(2 ** 32)
    tell(f"seed {seed}")
    cuts = Cuts(disk.base, disk.log, seed)
    image, target = os.path.join(folder, "image"), os.path.join(folder, "left")
    for line in done.stdout.splitlines()[3::4][:14]:
        n, t = map(int, line.split())
        cuts.cut(t, image)
        disk.files_of(image, target)
        octets = auditlog.read(target, "file")
        shutil.rmtree(target)
        assert len(octets) == 4096
        sectors = [set(octets[i:i + SECTOR]) for i in range(0, len(octets), SECTOR)]
        assert all(len(s) == 1 for s in sectors), "torn inside a sector"
        yield n, set.union(*sectors)


def test_what_was_synced_is_in_every_later_cut(disk, folder, tell):
    for n, left in what_was_left(disk, folder, 1, tell):
        assert left == {n}


def test_what_was_not_synced_is_lost_in_some_cuts_and_torn_in_others(disk, folder, tell):
    found = list(what_was_left(disk, folder, 4, tell))
    for n, left in found:
        assert left <= {n - 3, n - 2, n - 1, n}, "older than the last sync, or from nowhere"
    assert any(left == {n} for n, left in found), "none was kept"
    assert any(n not in left for n, left in found), "none was lost"
    assert any(len(left) > 1 for n, left in found), "none was torn"


# ---- the load --------------------------------------------------------------------------------------

@dataclass
class Moment:
    ns: int
    anchor: bytes  # the file as it was


class Moments:
    """A thread that takes moments; one of four just when there is a new anchor."""

    def __init__(self, path, count, rng):
        self.taken = []
        self._path, self._random = path, rng
        self._thread = threading.Thread(target=self._run, args=(count,), daemon=True)
        self._thread.start()

    def _anchor(self):
        return auditlog.read(self._path)

    def _run(self, count):
        for n in range(count):
            time.sleep(self._random.uniform(0, PAUSE_S))  # the random moment itself
            anchor = self._anchor()
            if n % 4 == 3:
                before = anchor
                anchor = wait_until(lambda: (a := self._anchor()) != before and a, "an anchor",
                                    pause_s=0.001)
            self.taken.append(Moment(time.monotonic_ns(), anchor))

    def wait(self):
        self._thread.join(300)
        assert not self._thread.is_alive(), "no moments come"
        return self.taken


class Pushes:
    """A thread that orders deliveries, one content after the other."""

    def __init__(self, stage):
        self.told = []  # (monotonic ns, MessageIDs that were printed)
        self._stage = stage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        n = 0
        while not self._stop.is_set():
            mids = self._stage.deliver(f"urn:push:{n}")
            self.told.append((time.monotonic_ns(), mids))
            n += 1

    def stop(self):
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "an order hangs"


def next_request(i, n):
    """New contents; every fourth time the last request again."""
    serial = n - 1 if n % 4 == 3 else n
    return request(f"c-{i}-{serial}", f"urn:c:{i}:{serial}", f"p-{i % 10}"), ("xml", "json")[i % 3 == 0]


class Witness:
    """What clients, BSAs and operators had received by when."""

    def __init__(self, stage, load, pushes):
        self.answers = []
        for _, m, media, r in load.answered:
            given(checked(r), m, stage.tekd.template.peers[m.source], media)
            self.answers.append((r.at, m, media, r.body))
        self.answers.sort(key=lambda a: a[0])
        self.received = [(e["t"], e["mid"], e["octets"])
                         for e in stage.fleet.journal.lines(what="received")]
        self.confirmed = [(e["t"], e["mid"])
                          for e in stage.fleet.journal.lines(what="posted", http=204)]
        self.told = [(t, mid) for t, mids in pushes.told for mid in mids]
        assert self.answers and self.received and self.confirmed and self.told

    def by(self, ns):
        """Answers by then, each once: (request, media, body)."""
        return list({(m.source, m.mid): (m, media, body)
                     for t, m, media, body in self.answers if t <= ns}.values())

    def lost(self, found, ns):
        """Of what was out by that moment, what the database does not bear out."""
        return [f"answer {m.mid}" for m, _, body in self.by(ns) if not found.has_answer(m, body)] + \
            [f"key {mid} at a BSA" for t, mid, out in self.received
             if t <= ns and not found.has_left(mid, out)] + \
            [f"confirmation {mid}" for t, mid in self.confirmed
             if t <= ns and not found.has_confirmation(mid)] + \
            [f"order {mid}" for t, mid in self.told if t <= ns and not found.has_delivery(mid)]


class Run:
    """A server on a recorded disk, a load, and the moments in it."""

    def __init__(self, new_stage, disk, folder, seed, **settings):
        self.disk, self.folder, self.seed = disk, folder, seed
        self.random = random.Random(seed)
        self.stage = new_stage(store={"sqlite": disk.path("tekd.db")}, clock=time.monotonic_ns,
                               **settings)
        self.tekd = self.stage.tekd
        self.key_path = self.tekd.path("checkpoint.pem")
        disk.put(self.tekd.path("tekd.db"))
        os.unlink(self.tekd.path("tekd.db"))
        self.stage.start(wrapper=disk.enter)
        for i, bsa in enumerate(self.stage.fleet):
            bsa.plays(("confirm", "later")[i % 2])

    def record(self, count):
        """Puts the load on and takes so many moments; the server is gone when this returns."""
        load = Load(self.tekd, CLIENTS, next_request, lambda i: f"p-{i % 10}").start()
        pushes = Pushes(self.stage)
        wait_until(lambda: len(load.answered) > CLIENTS and len(pushes.told) > 1, "answers")
        self.moments = Moments(self.tekd.path("anchor", "checkpoint"), count, self.random).wait()
        pushes.stop()
        load.stop()
        assert not load.errors, load.errors
        self.stage.fleet.posted()
        self.tekd.kill()
        self.witness = Witness(self.stage, load, pushes)

    def cuts(self):
        """(moment, folder of the files that are left, their database, what was kept), for each.

        Every other one is put off to where the disk's cache is fullest before the next moment.
        """
        known = {}
        cuts = Cuts(self.disk.base, self.disk.log, self.seed)
        image, left = os.path.join(self.folder, "image"), os.path.join(self.folder, "left")
        ends = [m.ns for m in self.moments[1:]] + [cuts.record.times[-1]]
        for n, (moment, end) in enumerate(zip(self.moments, ends)):
            if n % 2:
                moment.ns = cuts.record.fullest(moment.ns, end)
            kept = cuts.cut(moment.ns, image)
            self.disk.files_of(image, left)
            yield moment, left, Survived(left, self.key_path, known), kept
            shutil.rmtree(left)
        self.loose = cuts.loose

    def start_from(self, moment, left):
        """tekd on what is left: it starts, and everything goes on."""
        place = os.path.join(self.folder, "again")
        shutil.copytree(left, place)
        with open(self.tekd.path("anchor", "checkpoint"), "wb") as f:
            f.write(moment.anchor)
        self.tekd.configure(store={"sqlite": os.path.join(place, "tekd.db")})
        self.tekd.start()
        answers = self.witness.by(moment.ns)
        self._repeat(self.random.sample(answers, min(REPEATS, len(answers))))
        self.stage.wait_all()
        self._verify(moment, answers)
        self.tekd.kill()
        shutil.rmtree(place)

    def _repeat(self, answers):
        connections = {}
        try:
            for m, media, body in answers:
                if m.source not in connections:
                    connections[m.source] = self.tekd.connect(m.source)
                r = connections[m.source].ask(m, media)
                assert r.status == 200 and r.body == body, (m, r)
        finally:
            for c in connections.values():
                c.close()

    def _verify(self, moment, answers):
        """The log since the anchor; who was answered before is in it, and was signed for."""
        since = os.path.join(self.folder, "since")
        with open(since, "wb") as f:
            f.write(moment.anchor)
        folder = self.tekd.export()
        run([program("tek-audit"), "verify", folder, "--key", self.key_path, "--since", since])
        log = auditlog.Log(folder, self.key_path, Note(moment.anchor))
        for m, _, _ in answers:
            assert log.ledger[m.source, m.mid]["seq"] not in log.unattested, m
        shutil.rmtree(folder)


def cut_the_power(run_, count, starts, tell):
    """Nothing is lost at any of the moments; from so many of them tekd starts again."""
    run_.record(count)
    begin = set(run_.random.sample(range(count), starts))
    tails = 0
    for n, (moment, left, found, kept) in enumerate(run_.cuts()):
        lost = run_.witness.lost(found, moment.ns)
        assert lost == [], f"cut {n}, seed {run_.seed}, kept {kept}: {lost[:10]}"
        assert found.has_anchor(Note(moment.anchor)), f"cut {n}: the anchor is beyond the database"
        tails += len(found.records) > found.signed
        if n in begin:
            run_.start_from(moment, left)
    assert sum(n > 0 for n in run_.loose) >= count // 4, run_.loose
    tell(f"seed {run_.seed}: {count} cuts under {len(run_.witness.answers)} answers, "
         f"{len(run_.witness.received)} deliveries, {len(run_.witness.confirmed)} confirmations; "
         f"up to {max(run_.loose)} writes in the disk's cache, {tails} with an unsigned tail, "
         f"{starts} started again; nothing lost")


def test_nothing_is_lost_in_10_power_cuts(disk, new_stage, folder, tell):
    cut_the_power(Run(new_stage, disk, folder, random.randrange(2 ** 32)), 10, 2, tell)


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(4))
def test_nothing_is_lost_in_200_power_cuts(disk, new_stage, folder, tell, turn):
    cut_the_power(Run(new_stage, disk, folder, random.randrange(2 ** 32)), 50, 8, tell)


def test_with_synchronous_normal_answers_are_lost(disk, new_stage, folder, tell):
    """The control: SQLite then syncs the WAL only when it copies it into the database."""
    library = shim.build(folder, "normal")
    run_ = Run(new_stage, disk, folder, random.randrange(2 ** 32), env={"LD_PRELOAD": library})
    run_.record(8)
    lost, beyond = [], 0
    for moment, _, found, _ in run_.cuts():  # whole, but older
        lost.append(len(run_.witness.lost(found, moment.ns)))
        beyond += not found.has_anchor(Note(moment.anchor))
    losing = sum(n > 0 for n in lost)
    tell(f"seed {run_.seed}: {losing} of {len(lost)} cuts lost something, {sum(lost)} in all; "
         f"the anchor is beyond the database in {beyond}")
    assert losing > 0


# ---- the first start -------------------------------------------------------------------------------

def cut_the_first_start(new_tekd, disk, folder, count, tell):
    """Nothing was given yet; what is there, if anything is, has to be gone on with."""
    tekd = new_tekd(fresh=True, store={"sqlite": disk.path("tekd.db")},
                    audit={"anchor_file": None})
    begin = time.monotonic_ns()
    tekd.start(wrapper=disk.enter)
    tekd.kill()
    seed = random.randrange(2 ** 32)
    cuts = Cuts(disk.base, disk.log, seed)
    rng = random.Random(seed)
    times = [t for t in cuts.record.times if t > begin]  # of writes and syncs: there it matters
    sizes = []
    for ns in sorted(rng.choices(times, k=count)):
        image, left = os.path.join(folder, "image"), os.path.join(folder, "left")
        cuts.cut(ns, image)
        disk.files_of(image, left)
        sizes.append(sum(os.stat(os.path.join(left, n)).st_size for n in os.listdir(left)))
        tekd.configure(store={"sqlite": os.path.join(left, "tekd.db")})
        tekd.start()
        tekd.enrol(tekd.template.bsas["bsa-1"])
        given(tekd.ask("m", "urn:c", "bsa-1"), request("m", "urn:c", "bsa-1"),
              tekd.template.bsas["bsa-1"])
        tekd.audit()
        tekd.kill()
        shutil.rmtree(left)
    tell(f"seed {seed}: {count} cuts, octets left: {sizes}")


def test_a_cut_in_the_first_start_leaves_what_the_next_one_ends(disk, new_tekd, folder, tell):
    cut_the_first_start(new_tekd, disk, folder, 3, tell)


@pytest.mark.soak
def test_50_cuts_in_the_first_start_leave_what_the_next_one_ends(disk, new_tekd, folder, tell):
    cut_the_first_start(new_tekd, disk, folder, 50, tell)
