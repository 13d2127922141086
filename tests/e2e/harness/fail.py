"""Makes calls of tekd on its files fail, as a disk does (shim/fail.c)."""

from .shim import Page

DATABASE_SYNC, DATABASE_WRITE, ANCHOR = range(3)
COUNT, FIRST, LAST, ERROR, FAILED = range(5)
FOREVER = 2 ** 63


class Fail(Page):
    def __init__(self, library, folder):
        super().__init__(library, folder, "TEKD_TEST_FAIL", 5)

    def count(self, kind):
        return self.get(kind, COUNT)

    def failed(self, kind):
        return self.get(kind, FAILED)

    def arm(self, kind, n, error, last=None):
        """The n-th call of the kind from now fails, or all of them from the n-th to `last`."""
        begin = self.count(kind)
        self.set(kind, FIRST, 0)
        self.set(kind, LAST, begin + (last or n))
        self.set(kind, ERROR, error)
        self.set(kind, FIRST, begin + n)

    def heal(self, kind):
        self.set(kind, FIRST, 0)
