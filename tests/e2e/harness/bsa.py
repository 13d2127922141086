"""BSAs that take Key Deliveries, by HTTPS server or by collecting: many in one process.

Each has a certificate, a KEK, a port and a journal of its own and does with deliveries what its
script says (behaviour.py).  All of them run on one thread with an asyncio loop; the test steers
them from its own.  Whatever tekd does that it must not do towards a BSA is a fault, and the end of
the fleet fails when there was one.
"""

import asyncio
import concurrent.futures
import ssl
import threading
import time
from collections import Counter
from hashlib import sha256

from cp3py import messages
from cp3py.client import HttpError
from cp3py.messages import MEDIA, MessageError, confirmation
from cp3py.server import Server
from cp3py.unwrap import unwrap

from . import pki, state
from .behaviour import TABLE
from .journal import Journal, utc_us
from .procs import wait_until
from .tekd import free_port

POSTERS = 16  # threads that POST confirmations
PATIENCE_S = 0.05  # before a POST that met no server is tried again


class Fault(Exception):
    """tekd did towards a BSA what it must not."""


class Bsa:
    """One BSA.  Attributes may be set by the test at any time."""

    def __init__(self, fleet, peer):
        self.fleet = fleet
        self.peer = peer
        self.name = peer.name
        self.media = "json" if "json" in peer.enrol else "xml"
        self.form = "full"  # of its confirmations
        self.cert = peer.name  # what its server shows
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}/{self.name}/cp3"
        self.journal = fleet.journal
        self.pause_s = 0.0  # before each answer
        self._script = ["confirm"]
        self._first = {}  # MessageID -> octets
        self.server = Server(self._handle, self._fault, self._pki("ca.crt"),
                             self._pki(f"{self.name}.crt"), self._pki(f"{self.name}.key"))

    def _pki(self, name, folder="pki"):
        return self.fleet.tekd.path(folder, name)

    def _fault(self, text):
        self.fleet.faults.append(f"{self.name}: {text}")

    # ---- what the test does ----

    def plays(self, *names):
        """One step a delivery that comes; the last one stays."""
        assert set(names) <= set(TABLE), names
        self._script = list(names)

    def wears(self, name, folder="pki"):
        """Another certificate for the connections to come; those that are open end."""
        async def change():
            self.server.context.load_cert_chain(self._pki(f"{name}.crt", folder),
                                                self._pki(f"{name}.key", folder))
            await self._listen()
        self.fleet.run(change())

    def silent(self):
        """Nobody listens on its port."""
        self.fleet.run(self.server.close())

    def mute(self):
        """Connections are taken and no handshake is answered."""
        self.fleet.run(self._listen(tls=False))

    def listens(self):
        self.fleet.run(self._listen())

    async def _listen(self, tls=True):
        await self.server.close()
        await self.server.listen(self.port, tls)

    def received(self, mid=None):
        return [e for e in self.journal.lines(bsa=self.name, what="received")
                if mid in (None, e["mid"])]

    def posted(self, mid):
        """(HTTP status, reason) of its confirmations of that delivery, in order."""
        return [(e["http"], e["reason"]) for e in
                self.journal.lines(bsa=self.name, what="posted", mid=mid)]

    # ---- taking deliveries ----

    def take(self, octets, media, how):
        """A delivery as it came, looked at from all sides and in the journal; the message."""
        try:
            m = messages.decode(media, octets)
            if (m.tag, m.destination, m.source) != (3, self.name, state.BSM):
                raise Fault(f"{m}")
            if not m.time or m.version != 1:
                raise Fault(f"Version {m.version}, Time {m.time}")
            self._check_key(m)
        except (MessageError, ValueError, KeyError) as e:
            raise Fault(f"{type(e).__name__}: {e} in {octets!r}") from e
        info = m.key_info or {}
        if m.mid not in self._first:
            self.fleet.counts[info.get("period")] += 1
        if self._first.setdefault(m.mid, octets) != octets:
            raise Fault(f"other octets under {m.mid}: {self._first[m.mid]!r}, then {octets!r}")
        self.journal.write(self.name, "received", m.mid, how=how, content=m.content, data=m.data.hex(),
                           octets=sha256(octets).hexdigest(), key=info.get("keyID"),
                           period=info.get("period"), begins=info.get("notBefore"),
                           ends=info.get("notAfter"))
        return m

    def _check_key(self, m):
        clear = unwrap(self.peer.wrap, self.peer.kek, m.data)
        if "--no-key-info" in self.peer.enrol:
            if m.key_info is not None:
                raise Fault("KeyInfo, which it does not want")
            return
        info = m.key_info
        if not info["kekID"].startswith(self.name + "/") or info["wrap"] != self.peer.wrap or \
                info["bits"] != 8 * len(clear):
            raise Fault(f"KeyInfo {info}")
        self.fleet.check_clear(info["keyID"], m.content, clear)

    def _check_request(self, r):
        if (r.method, r.path) != ("POST", f"/{self.name}/cp3"):
            raise Fault(f"{r.method} {r.path}")
        if r.header("content-type") != MEDIA[self.media]:
            raise Fault(f"Content-Type {r.header('content-type')}")
        if sha256(r.cert).hexdigest() != self.fleet.tekd_cert:
            raise Fault("a client certificate that is not tekd's")

    async def _handle(self, x):
        try:
            self._check_request(x.request)
            m = self.take(x.request.body, self.media, "push")
        except Fault as e:
            self._fault(str(e))
            await x.answer(400)
            return
        name = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if self.pause_s:
            await asyncio.sleep(self.pause_s)
        await self.fleet.gate.wait()
        await TABLE[name](self, x, m)

    # ---- answering ----

    async def noted(self, m, http, status=None):
        """What it is about to answer; http None: nothing that is HTTP."""
        self.journal.write(self.name, "answered", m.mid, http=http, status=status)
        await self.journal.on_disk()

    async def say(self, x, message, media=None):
        """A confirmation in the answer."""
        media = media or self.media
        await self.noted(message, 200, message.status)
        await x.answer(200, message.encode(media), MEDIA[media])

    async def tell(self, x, m, http, body=b"", content_type=None):
        """Any other answer."""
        await self.noted(m, http)
        await x.answer(http, body, content_type)

    def post_later(self, confirmations):
        """After the answer under way, in their order, each until it is answered."""
        def post():
            for message in confirmations:
                self.post(message, patient=True)
        self.fleet.submit(post)

    def post(self, message, media=None, patient=False):
        """POSTs a confirmation on a connection of its own; the answer."""
        while True:
            try:
                with self.fleet.tekd.connect(self.name) as c:
                    r = c.ask(message, media or self.media)
                if r.status != 503 or not patient:
                    break
            except (OSError, ssl.SSLError, HttpError):
                if not patient or self.fleet.ending:
                    raise
            time.sleep(PATIENCE_S)
        self.journal.write(self.name, "posted", message.mid, http=r.status, status=message.status,
                           reason=r.header("cp3-reason"))
        return r

    # ---- collecting ----

    def collect(self, wait=0, connection=None):
        """One GET: the delivery, or None."""
        if connection is None:
            with self.fleet.tekd.connect(self.name, timeout=wait + 30) as c:
                return self.collect(wait, c)
        r = connection.request("GET", f"/cp3/deliveries?wait={wait}")
        assert r.header("cache-control") == "no-store", r
        if r.status == 204:
            return None
        assert r.status == 200 and r.media == self.media, r
        m = self.take(r.body, r.media, "collect")
        self.journal.sync()
        return m

    def confirm(self, delivery, status=0):
        """POSTs the confirmation of a delivery; the HTTP status."""
        return self.post(confirmation(delivery, status, self.form)).status


class Transports(dict):
    """The connections of a loop by descriptor, and all that there ever were.

    asyncio's own table knows only those that somebody else holds, and nobody holds one that neither
    reads nor writes, or whose descriptor was given to another: it would be collected some day, in
    the middle of a test that has nothing to do with it, without having been closed.
    """

    def __init__(self):
        super().__init__()
        self._all = []

    def __setitem__(self, fd, transport):
        self._all.append(transport)
        super().__setitem__(fd, transport)

    def close(self):
        """Once the loop has ended: what it could not close any more."""
        for transport in self._all:
            if transport._sock is not None:  # pylint: disable=protected-access
                transport._sock.close()  # pylint: disable=protected-access
                transport._sock = None  # pylint: disable=protected-access


class Fleet:
    """The BSAs of one server: a mapping by name."""

    def __init__(self, tekd, names=None, clock=utc_us):
        self.tekd = tekd
        self.clock = clock
        self.faults = []
        self.counts = Counter()  # deliveries by their crypto-period
        self.ending = False
        self.tekd_cert = pki.fingerprint(tekd.path("pki", "tekd.crt"))
        self.journal = Journal(tekd.path("bsas.journal"), clock)
        self._clear = {}  # key ID -> (ContentID, TEK)
        self._key_of = {}  # TEK -> key ID
        self._loop = asyncio.new_event_loop()
        self._transports = Transports()
        self._loop._transports = self._transports  # pylint: disable=protected-access
        self._loop.set_exception_handler(self._on_exception)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.gate = asyncio.Event()
        self.release()
        self._posters = concurrent.futures.ThreadPoolExecutor(POSTERS)
        self._posts = []
        peers = tekd.template.peers
        self.bsas = {n: Bsa(self, peers[n]) for n in (names or peers)}
        for bsa in self:
            bsa.listens()

    def __getitem__(self, name):
        return self.bsas[name]

    def __iter__(self):
        return iter(self.bsas.values())

    def _on_exception(self, _, context):
        """Handshakes that fail are no matter of the loop's."""
        e = context.get("exception")
        if not isinstance(e, (OSError, ssl.SSLError, asyncio.IncompleteReadError)):
            self.faults.append(f"{context['message']}: {e!r}")

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def hold(self):
        """Deliveries are taken, and none is answered until release()."""
        self._loop.call_soon_threadsafe(self.gate.clear)

    def release(self):
        self._loop.call_soon_threadsafe(self.gate.set)

    def submit(self, work):
        self._posts.append(self._posters.submit(work))

    def posted(self, seconds=60):
        """Waits until every confirmation that was to be POSTed was answered."""
        wait_until(lambda: all(p.done() for p in self._posts), "confirmations to be answered",
                   seconds)
        for p in self._posts:
            p.result()

    def check_clear(self, key_id, content, clear):
        """A key ID is one TEK of one content, whoever gets it; another one is another TEK."""
        before = self._clear.setdefault(key_id, (content, clear))
        if before != (content, clear):
            raise Fault(f"key {key_id} of {content}: another TEK, or of {before[0]}")
        if self._key_of.setdefault(clear, key_id) != key_id:
            raise Fault(f"{key_id} and {self._key_of[clear]} are the same TEK")

    def close(self):
        self.ending = True

        async def end():
            for bsa in self:
                await bsa.server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            # A connection in its handshake is in no list but this one.
            for transport in list(self._transports.values()):
                transport.abort()
            await asyncio.sleep(0)  # each is closed in a call of its own
        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._transports.close()
        self._posters.shutdown(cancel_futures=True)
        self.journal.close()
        assert not self.faults, "\n".join(self.faults)
