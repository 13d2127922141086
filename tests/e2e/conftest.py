"""Fixtures.  `tekd` is a running server of the test's own; `shared` one for many tests that only ask."""

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import uuid

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
from harness import hold, once, shim, state  # noqa: E402
from harness.bsm import Bsm  # noqa: E402
from harness.stage import Stage  # noqa: E402
from harness.tekbsa import Bsa  # noqa: E402
from harness.programs import TOP  # noqa: E402
from harness.tekd import Tekd  # noqa: E402


@pytest.fixture
def tell(record_property):
    """tell(text): a figure of this test, printed at the end of the run and kept in its report."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for text in (v for k, v in report.user_properties if k == "figure" and report.when == "call"):
            terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")


# The files that take longest are begun first: given out by file (--dist loadfile), no process is
# left alone with one of them at the end.
LONGEST = ("test_push", "test_release", "test_admin", "test_epochs", "test_hsm_faults",
           "test_disk_faults", "test_audit_reader", "test_periods", "test_tamper", "test_publish",
           "test_collect", "test_power", "test_pull", "test_push_kill", "test_push_faults",
           "test_secrets", "test_kill", "test_kek", "test_quickstart", "test_docs")


def pytest_collection_modifyitems(items):
    place = {name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        once.begin()


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        once.end()


@pytest.fixture(scope="session")
def workdir():
    """Of this test process; everything is in it, and it goes at the end."""
    folder = tempfile.mkdtemp(prefix="tekd-e2e-")
    os.chmod(folder, 0o755)  # other users come to the admin socket in it
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template():
    """Token, keys and certificates; nobody is enrolled."""
    return once.once("template", state.Template)


def enrol(folder, template, bsas):
    """`folder` is that of a server that enrolled them and stopped."""
    server = Tekd(state.copy(template.folder, folder), template)
    try:
        server.start()
        for bsa in bsas:
            server.enrol(bsa)
        server.stop()
    finally:
        server.close()
    os.unlink(server.log_path)
    return folder


@pytest.fixture(scope="session")
def enrolled(template):
    """The folder of a server that enrolled the four BSAs and stopped."""
    return once.once("enrolled", lambda folder: enrol(folder, template, template.bsas.values()))


@pytest.fixture
def folder(workdir):
    """An empty folder that goes with the test."""
    path = tempfile.mkdtemp(prefix="test-", dir=workdir)
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def new_tekd(folder, template, enrolled):
    """new_tekd(**settings): servers in folders of their own, not started; reaped at the end."""
    made = []

    def make(fresh=False, **settings):
        path = os.path.join(folder, f"state-{len(made)}")
        state.copy(template.folder if fresh else enrolled, path)
        made.append(Tekd(path, template, **settings))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def tekd(new_tekd):
    """A running server with the four BSAs, of the test's own."""
    return new_tekd().start()


@pytest.fixture(scope="module")
def shared(workdir, template, enrolled):
    """A running server for all tests of a file that leave nothing behind but new contents."""
    path = tempfile.mkdtemp(prefix="shared-", dir=workdir)
    server = Tekd(state.copy(enrolled, os.path.join(path, "state")), template)
    try:
        yield server.start()
        server.stop()
    finally:
        server.close()
        shutil.rmtree(path)


@pytest.fixture(scope="session")
def push_template(template):
    """The template with ten more BSAs, for the push case; .enrolled is the folder of a server that
    enrolled them, without URLs, and stopped."""
    push = once.once("push", lambda folder: state.PushTemplate(template, folder))
    push.enrolled = once.once("push-enrolled",
                              lambda folder: enrol(folder, push, push.peers.values()))
    return push


@pytest.fixture
def new_stage(folder, push_template):
    """new_stage(names, **settings): a server with these BSAs or all ten, not started."""
    made = []

    def make(names=None, **settings):
        path = os.path.join(folder, f"stage-{len(made)}")
        made.append(Stage(path, push_template, names, **settings))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


@pytest.fixture(scope="module")
def shared_stage(workdir, push_template):
    """One running server with ten BSAs for all tests of a file that let no delivery stay open."""
    path = tempfile.mkdtemp(prefix="shared-", dir=workdir)
    stage = Stage(os.path.join(path, "state"), push_template)
    try:
        yield stage.start()
        stage.verify()
        stage.tekd.stop()
    finally:
        stage.close()
        shutil.rmtree(path)


@pytest.fixture
def mid():
    """A MessageID that nobody used."""
    return f"m-{uuid.uuid4()}"


@pytest.fixture
def content():
    """A ContentID that nobody used."""
    return f"urn:x:{uuid.uuid4()}"


@pytest.fixture
def bsm(folder):
    """A BSM in a folder of its own; it serves after bsm.start()."""
    made = Bsm(folder)
    yield made
    made.stop()


@pytest.fixture
def start_bsa(bsm):
    """start_bsa("listen", option...): a tek-bsa; all are gone at the end."""
    made = []

    def start(command, *options, **more):
        if command == "listen":
            options = ("--address", "127.0.0.1", "--port", "0", *options)
        made.append(Bsa(bsm, command, *options, **more))
        return made[-1]

    yield start
    for bsa in made:
        bsa.close()


@pytest.fixture
def held(folder):
    """Holds syncs of a tek-bsa that gets held.env."""
    page = hold.Hold(shim.build(folder, "hold"), folder)
    yield page
    page.close()


@pytest.fixture
def keys(folder):
    """A folder of keys, not there yet."""
    return os.path.join(folder, "keys")


@pytest.fixture
def journal(folder):
    """A journal, not there yet."""
    return os.path.join(folder, "journal")


@pytest.fixture(scope="session")
def quickstart_turn():
    """with quickstart_turn(): no other test process starts one: they look for free ports alike."""
    @contextlib.contextmanager
    def turn():
        with open(os.path.join(TOP, "provisioning", "quickstart"), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    return turn
