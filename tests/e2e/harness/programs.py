"""The programs under test: those of the build that TEKD_BUILD names."""

import os
import shutil

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BUILD = os.environ.get("TEKD_BUILD") or os.path.join(TOP, "build", "dev")
NAMES = ("tekd", "tekd-hsm", "tekctl", "tek-audit", "tek-provision", "tek-bsa")
TESTS_OWN = ("tekd_testclock",)  # of the tests' build; never installed
SKIPPED = ("CMakeFiles", "Testing", "test-results")


def find(name):
    """The program of this name in the build, wherever its CMakeLists.txt puts it."""
    for folder, folders, files in os.walk(BUILD):
        folders[:] = [f for f in folders if f not in SKIPPED]
        path = os.path.join(folder, name)
        if name in files and os.access(path, os.X_OK):
            return path
    raise AssertionError(f"no program {name} in {BUILD}: build it, or set TEKD_BUILD")


_found = {}


def program(name):
    assert name in NAMES + TESTS_OWN
    if name not in _found:
        _found[name] = find(name)
    return _found[name]


def softhsm():
    """SoftHSM's PKCS#11 library."""
    for folder in ("/usr/lib/softhsm", "/usr/lib/x86_64-linux-gnu/softhsm",
                   "/usr/lib/aarch64-linux-gnu/softhsm"):
        path = os.path.join(folder, "libsofthsm2.so")
        if os.path.exists(path):
            return path
    raise AssertionError("SoftHSM is not installed (package softhsm2)")


def tool(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert path, f"{name} is not installed"
    return path


def is_sanitized():
    """Whether the programs are slowed down by a sanitizer."""
    cache = os.path.join(BUILD, "CMakeCache.txt")
    if not os.path.exists(cache):
        return ""
    with open(cache, encoding="utf-8") as f:
        for line in f:
            if line.startswith("TEKD_SANITIZE:"):
                return line.split("=", 1)[1].strip()
    return ""
