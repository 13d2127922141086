"""Stops tekd just before its n-th sync, or the signer just before its n-th reply (shim/hold.c)."""

import mmap
import os
import struct

from .procs import run, wait_until
from .programs import is_sanitized

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shim", "hold.c")
SYNC, REPLY = 0, 1
COUNT, HOLD_AT, HELD, RELEASE = range(4)


def build(folder):
    """The shim as a library in that folder."""
    library = os.path.join(folder, "hold.so")
    run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE,
         "-ldl"])
    return library


class Hold:
    """The page that test and shim share; give env to the server."""

    def __init__(self, library, folder):
        path = os.path.join(folder, "hold.page")
        with open(path, "wb") as f:
            f.truncate(mmap.PAGESIZE)
        with open(path, "r+b") as f:
            self.page = mmap.mmap(f.fileno(), mmap.PAGESIZE)
        before = os.environ.get("LD_PRELOAD", "")
        self.env = {"LD_PRELOAD": f"{before} {library}".strip(), "TEKD_TEST_HOLD": path}
        if "address" in is_sanitized():  # it wants to be the first library itself
            self.env["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + \
                ":verify_asan_link_order=0"

    def _get(self, slot, field):
        return struct.unpack_from("=Q", self.page, 32 * slot + 8 * field)[0]

    def _set(self, slot, field, value):
        struct.pack_into("=Q", self.page, 32 * slot + 8 * field, value)

    def count(self, slot):
        return self._get(slot, COUNT)

    def arm(self, slot, n):
        """Holds the n-th call from now."""
        self._set(slot, RELEASE, 0)
        self._set(slot, HELD, 0)
        self._set(slot, HOLD_AT, self.count(slot) + n)

    def is_held(self, slot):
        return self._get(slot, HELD) == 1

    def wait_held(self, slot, seconds=30):
        wait_until(lambda: self.is_held(slot), "the call that is to be held", seconds)

    def release(self, slot):
        self._set(slot, HOLD_AT, 0)
        self._set(slot, RELEASE, 1)

    def close(self):
        for slot in (SYNC, REPLY):
            self.release(slot)
        self.page.close()
