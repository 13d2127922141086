"""Many clients at once, a thread and a connection each."""

import ssl
import threading
import time

from cp3py.client import HttpError


def together(n, work, timeout=120):
    """Runs work(i) for i < n in n threads that begin at the same time; the results in order.

    An exception of one is raised here.
    """
    barrier = threading.Barrier(n)
    results, errors = [None] * n, []

    def run(i):
        try:
            barrier.wait(timeout)
            results[i] = work(i)
        except BaseException as e:  # pylint: disable=broad-except
            errors.append(e)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(timeout)
    assert not any(t.is_alive() for t in threads), "a client hangs"
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)),
                   errors[0])
    return results


class Load:
    """Clients that ask one request after the other until stopped, or until the server goes.

    next_request(i, n) gives client i its n-th request and media.  answered: what came back whole,
    as (client, request, media, response); asked counts what was sent.
    """

    def __init__(self, tekd, n, next_request, bsa=lambda i: "bsa-1"):
        self.answered = []
        self.asked = [0] * n
        self.errors = []  # (client, exception): the connection ended
        self.under_way = [None] * n  # what client i waits for
        self.sent_at = [None] * n  # monotonic s: its sending had ended by then
        self._stop = threading.Event()
        self._next = next_request
        self._connections = [tekd.connect(bsa(i)) for i in range(n)]
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True)
                         for i in range(n)]

    def start(self):
        for t in self._threads:
            t.start()
        return self

    def _run(self, i):
        c = self._connections[i]
        while not self._stop.is_set():
            m, media = self._next(i, self.asked[i])
            try:
                self.sent_at[i] = None
                self.under_way[i] = m
                self.asked[i] += 1
                c.send_message(m, media)
                self.sent_at[i] = time.monotonic()
                r = c.read_response()
            except (OSError, ssl.SSLError, HttpError) as e:
                self.errors.append((i, e))
                return
            self.under_way[i] = None
            self.answered.append((i, m, media, r))
            if r.header("connection") == "close":
                return

    def in_flight(self, moment=None):
        """Requests whose sending had ended by that moment, or by now, with no answer until now."""
        return sum(1 for m, at in zip(self.under_way, self.sent_at)
                   if m is not None and at is not None and (moment is None or at < moment))

    def stop(self, timeout=60):
        """No new requests; waits for the answers under way."""
        self._stop.set()
        return self.join(timeout)

    def join(self, timeout=60):
        for t in self._threads:
            t.join(timeout)
        assert not any(t.is_alive() for t in self._threads), "a client hangs"
        for c in self._connections:
            c.close()
        return self
