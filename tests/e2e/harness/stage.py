"""The push case played: a server, its BSAs, and what becomes of deliveries."""

import re

from cp3py.auditlog import Log
from reader import verifier

from . import state
from .bsa import Fleet
from .journal import utc_us
from .procs import run, wait_until
from .programs import program
from .tekd import Tekd

UUIDV7 = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
STATES = set("prepared in-flight confirmed rejected unconfirmed abandoned unknown".split())
# So that what fails is tried again soon, and who hangs is given up soon.
QUICK = {"retry_initial_s": 1, "retry_max_s": 1, "attempt_timeout_s": 5}

PAUSE_S = 0.05  # between two looks: each is a tekctl


class Stage:
    """A running tekd in a folder of its own with the BSAs of these names enrolled."""

    def __init__(self, folder, template, names=None, name="tekd", clock=utc_us, env=(), **settings):
        settings["push"] = {**QUICK, **settings.get("push", {})}
        self.all = names is None
        source = template.enrolled if self.all else template.folder
        self.tekd = Tekd(state.copy(source, folder), template, name=name, **settings)
        self.tekd.env.update(env)
        self.fleet = Fleet(self.tekd, names, clock)
        self.contents = set()

    def start(self, url=True):
        """url False: none is enrolled with one; they collect."""
        self.tekd.start()
        for bsa in self.fleet:
            options = ("--url", bsa.url) if url else ()
            if not self.all:
                self.tekd.enrol(bsa.peer, *options)
            elif url:
                self.tekd.tekctl("bsa", "set", bsa.name, *options)
        return self

    def __getitem__(self, name):
        return self.fleet[name]

    def close(self):
        try:
            self.tekd.close()
        finally:
            self.fleet.close()

    # ---- deliveries ----

    def add(self, content, *options):
        """The content, unless it was added before."""
        if content not in self.contents:
            self.tekd.tekctl("content", "add", content, *options)
            self.contents.add(content)

    def deliver(self, content, *names):
        """The MessageIDs, in the order of the names."""
        self.add(content)
        words = [w for name in names for w in ("--bsa", name)]
        mids = self.tekd.tekctl("deliver", content, *words).stdout.split("\n")
        assert mids.pop() == "" and all(UUIDV7.fullmatch(m) for m in mids), mids
        assert len(set(mids)) == len(mids) == (len(names) or len(self.fleet.bsas)), mids
        return mids

    def show(self, mid):
        d = self.tekd.ctl("delivery", "show", mid)
        assert d["message_id"] == mid and d["state"] in STATES, d
        return d

    def wait(self, mid, wanted="confirmed", seconds=30):
        """Until the delivery is in that state; its document."""
        seen = {}

        def there():
            seen.update(self.show(mid))
            return seen["state"] == wanted
        try:
            wait_until(there, f"{mid} {wanted}", seconds, PAUSE_S)
        except AssertionError as e:
            raise AssertionError(f"{e}: {seen}\n{self.tekd.log()[-3000:]}") from None
        return seen

    def wait_all(self, seconds=60):
        """Until no delivery is open."""
        try:
            wait_until(lambda: self.tekd.ctl("delivery", "list", "--pending") == [],
                       "every delivery to be through", seconds, PAUSE_S)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.tekd.log()[-3000:]}") from None

    # ---- the log ----

    def verify(self):
        """The log as the tests' own verifier reads it, after the product's has had its say and that
        of a reader of the documentation."""
        folder, key = self.tekd.export(), self.tekd.path("checkpoint.pem")
        run([program("tek-audit"), "verify", folder, "--key", key, "--first"])
        with open(key, "rb") as f:
            verifier.verify(folder, f.read())
        return Log(folder, key)

    def events(self, mid):
        """What the log says of it, in order."""
        return self.tekd.audit().deliveries[mid].events()
