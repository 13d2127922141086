"""The clock of the product has no door: nothing in the built programs sets, shifts or replaces it."""

import os
import re
import subprocess
from datetime import datetime, timedelta

import pytest

from harness.procs import run
from harness.programs import BUILD, NAMES, TOP, is_sanitized, program, tool

SETTERS = {"clock_settime", "settimeofday", "stime", "adjtime", "adjtimex", "clock_adjtime",
           "ntp_adjtime"}


def symbols(path, *options):
    """(name, type) of a program or library."""
    lines = run([tool("nm"), *options, path]).stdout.splitlines()
    found = [line.split()[-2:] for line in lines if len(line.split()) >= 2]
    return {(name.split("@")[0], kind) for kind, name in found if len(kind) == 1}


def names(path, *options):
    return {name for name, kind in symbols(path, *options)}


def built(name):
    for folder, _, files in os.walk(BUILD):
        if name in files:
            return os.path.join(folder, name)
    return None


@pytest.mark.parametrize("name", NAMES)
def test_programs_link_the_one_clock_that_nobody_sets(name):
    path = program(name)
    own = symbols(path, "--defined-only")
    clock = {(n, kind) for n, kind in own if re.match(r"(clock|fake_clock|test_clock)_", n)}
    assert clock <= {("clock_utc_us", "T"), ("clock_mono_us", "T")}
    assert not SETTERS & names(path, "-D", "--undefined-only")


def test_a_clock_with_a_door_would_be_found():
    """What the tests link is what must not be in a program."""
    path = built("test_watch")
    if path is None:
        pytest.skip("this build has no unit tests")
    assert "fake_clock_advance" in names(path, "--defined-only")


def opens_a_door(path):
    """Whether a program is the tests' own tekd, whatever its name is."""
    with open(path, "rb") as f:
        octets = f.read()
    return b"TEKD_TEST_CLOCK" in octets or \
        any(re.match(r"(testclock|fake_clock)_", n) for n in names(path, "--defined-only"))


def test_the_tekd_with_a_clock_of_the_tests_would_be_found():
    if built("tekd_testclock") is None:
        pytest.skip("this build has no tests")
    assert opens_a_door(program("tekd_testclock"))
    # It has a clock instead of the product's, and is tekd otherwise.
    assert not opens_a_door(program("tekd"))
    tests_own = {n for n, kind in symbols(program("tekd_testclock"), "--defined-only")
                 if kind == "T"}
    products = {n for n, kind in symbols(program("tekd"), "--defined-only") if kind == "T"}
    assert tests_own == products


def test_what_is_installed_has_no_tekd_with_another_clock(folder):
    """Whatever "cmake --install" of this build, tests and all, puts anywhere."""
    run([tool("cmake"), "--install", BUILD], env={**os.environ, "DESTDIR": folder})
    installed = [os.path.join(d, f) for d, _, files in os.walk(folder) for f in files]
    programs = [p for p in installed if os.access(p, os.X_OK) and not os.path.islink(p)]
    assert {os.path.basename(p) for p in programs} >= set(NAMES)
    assert not any("testclock" in p for p in installed)
    assert not [p for p in programs if opens_a_door(p)]


def test_without_its_page_that_tekd_does_not_start():
    if built("tekd_testclock") is None:
        pytest.skip("this build has no tests")
    env = {k: v for k, v in os.environ.items() if k != "TEKD_TEST_CLOCK"}
    done = run([program("tekd_testclock"), "--version"], check=False, env=env)
    assert done.returncode == 2 and "TEKD_TEST_CLOCK" in done.stderr


def test_the_clock_asks_the_kernel_and_nothing_else():
    if is_sanitized():
        pytest.skip("a sanitizer adds symbols of its own")
    path = built("libtekd_clock.a")
    wanted = names(path, "--undefined-only")
    assert wanted - {"__assert_fail", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"} == \
        {"clock_gettime"}
    kinds = {kind for _, kind in symbols(path, "--defined-only")}
    assert not kinds & set("BbDdCGgSsVv"), "it keeps something that could be changed"


def test_tekd_reads_no_variable():
    """No variable of the environment can be a door."""
    if is_sanitized():
        pytest.skip("a sanitizer adds symbols of its own")
    wanted = names(program("tekd"), "-D", "--undefined-only")
    assert "clock_gettime" in wanted
    assert not {"getenv", "secure_getenv", "__secure_getenv"} & wanted


@pytest.mark.parametrize("option", ["clock", "time", "now", "fake-time", "date", "utc", "skew"])
def test_tekd_has_no_option(option):
    for argument in (f"--{option}", f"--{option}=0"):
        done = run([program("tekd"), "--config", "/nowhere", argument, "--check"], check=False)
        assert done.returncode == 2 and "usage:" in done.stderr


def test_the_configuration_has_no_setting():
    sample = run([program("tekd"), "--sample-config"]).stdout
    keys = set(re.findall(r"^ *#?(?:- )?([a-z_]+):", sample, re.M))
    assert {"bsm_id", "heartbeat_s"} <= keys
    assert not {k for k in keys if re.search(r"clock|time$|^now|date|utc|skew|offset", k)}


def test_only_the_clock_asks_what_time_it_is():
    """In the sources: time is read in one file, and waited for by the kernel's clock elsewhere."""
    pattern = r"\b(time|gettimeofday|ftime|clock|timespec_get)\s*\("
    done = subprocess.run([tool("grep"), "-rnE", "--include=*.c", pattern, "lib", "pkcs11", "server",
                           "bsa", "provisioning"], cwd=TOP, capture_output=True, text=True,
                          check=False)
    calls = [line for line in done.stdout.splitlines()
             if not re.search(r":\s*(/?\*|//)", line) and '"' not in line]
    assert calls == []
    done = run([tool("grep"), "-rlE", "--include=*.c", r"CLOCK_REALTIME", "lib", "pkcs11", "server",
                "bsa", "provisioning"], cwd=TOP)
    assert done.stdout.split() == ["lib/base/clock.c"]


def test_records_carry_the_systems_time_whatever_the_environment(new_tekd, mid, content):
    tekd = new_tekd()
    for name in ("TEKD_CLOCK", "TEKD_TIME", "TEKD_NOW", "TEKD_UTC", "TEKD_FAKE_CLOCK", "FAKETIME",
                 "SOURCE_DATE_EPOCH", "CLOCK", "TZ"):
        tekd.env[name] = "2001-01-01T00:00:00Z"
    before = datetime.utcnow() - timedelta(seconds=1)
    tekd.start()
    assert tekd.ask(mid, content).status == 200
    record = tekd.audit().ledger["bsa-1", mid]
    assert before < datetime.strptime(record["t"], "%Y-%m-%dT%H:%M:%S.%fZ") <= datetime.utcnow()
