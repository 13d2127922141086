"""What BSAs received and said, a line of JSON each; on the disk before the next octet goes out."""

import asyncio
import json
import os
import time


def utc_us():
    return time.time_ns() // 1000


class Journal:
    """One file of all BSAs, so that one sync serves many; the file is the witness."""

    def __init__(self, path, clock=utc_us):
        self.path = path
        self._clock = clock
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._written = self._synced = 0  # lines; the first is of the loop alone
        self._syncing = None

    def write(self, bsa, what, mid, **more):
        """Not on the disk yet."""
        line = {"t": self._clock(), "bsa": bsa, "what": what, "mid": mid, **more}
        os.write(self._fd, json.dumps(line).encode() + b"\n")
        self._written += 1

    def sync(self):
        os.fsync(self._fd)

    async def on_disk(self):
        """All that was written so far; whoever waits meanwhile shares the sync."""
        wanted = self._written
        while self._synced < wanted:
            if self._syncing is None:
                self._syncing = asyncio.ensure_future(self._sync())
            await asyncio.shield(self._syncing)

    async def _sync(self):
        covers = self._written
        try:
            await asyncio.get_running_loop().run_in_executor(None, self.sync)
            self._synced = covers
        finally:
            self._syncing = None

    def lines(self, **wanted):
        """lines(what="received", mid=...): those of these values."""
        with open(self.path, encoding="utf-8") as f:
            found = [json.loads(line) for line in f if line.endswith("\n")]
        return [e for e in found if all(e.get(k) == v for k, v in wanted.items())]

    def close(self):
        os.close(self._fd)
