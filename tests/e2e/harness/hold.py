"""Stops tekd just before its n-th sync, or the signer just before its n-th reply (shim/hold.c)."""

from .procs import wait_until
from .shim import Page

SYNC, REPLY = 0, 1
COUNT, HOLD_AT, HELD, RELEASE = range(4)


class Hold(Page):
    def __init__(self, library, folder):
        super().__init__(library, folder, "TEKD_TEST_HOLD", 4)

    def count(self, slot):
        return self.get(slot, COUNT)

    def arm(self, slot, n):
        """Holds the n-th call from now."""
        self.set(slot, RELEASE, 0)
        self.set(slot, HELD, 0)
        self.set(slot, HOLD_AT, self.count(slot) + n)

    def is_held(self, slot):
        return self.get(slot, HELD) == 1

    def wait_held(self, slot, seconds=30):
        wait_until(lambda: self.is_held(slot), "the call that is to be held", seconds)

    def release(self, slot):
        self.set(slot, HOLD_AT, 0)
        self.set(slot, RELEASE, 1)

    def close(self):
        for slot in (SYNC, REPLY):
            self.release(slot)
        super().close()
