"""The clock of tekd_testclock (tests/testclock/), and of the BSAs that are to live by it."""

import mmap
import os
import struct
import time

TURN, REAL, UTC, MONO, RATE = range(5)
FORMAT = "=5q"


def real_us():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


class Clock:
    """Begins at the system's time with the system's speed; give env to the server."""

    def __init__(self, folder):
        path = os.path.join(folder, "clock.page")
        with open(path, "wb") as f:
            f.truncate(mmap.PAGESIZE)
        with open(path, "r+b") as f:
            self.page = mmap.mmap(f.fileno(), mmap.PAGESIZE)
        self.env = {"TEKD_TEST_CLOCK": path}
        self._write(time.time_ns() // 1000, 1_000_000_000_000, 1000)

    def _get(self, field):
        return struct.unpack_from("=q", self.page, 8 * field)[0]

    def _set(self, field, value):
        struct.pack_into("=q", self.page, 8 * field, value)

    def _write(self, utc, mono, rate):
        self._set(TURN, self._get(TURN) + 1)
        for field, value in ((REAL, real_us()), (UTC, utc), (MONO, mono), (RATE, rate)):
            self._set(field, value)
        self._set(TURN, self._get(TURN) + 1)

    def _passed(self):
        return (real_us() - self._get(REAL)) * self._get(RATE) // 1000

    def utc_us(self):
        return self._get(UTC) + self._passed()

    def jump(self, us):
        """Both clocks are later by that much, at once."""
        passed = self._passed()
        self._write(self._get(UTC) + passed + us, self._get(MONO) + passed + us, self._get(RATE))

    def jump_to(self, utc_us):
        self.jump(utc_us - self.utc_us())

    def step(self, us):
        """UTC alone is set, as an operator or NTP may do; back if us is negative."""
        passed = self._passed()
        self._write(self._get(UTC) + passed + us, self._get(MONO) + passed, self._get(RATE))

    def run(self, rate):
        """So many times as fast as the system's from now on."""
        passed = self._passed()
        self._write(self._get(UTC) + passed, self._get(MONO) + passed, int(rate * 1000))
