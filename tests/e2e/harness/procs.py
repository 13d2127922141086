"""Processes, by their numbers, and waiting for what they do."""

import os
import signal
import subprocess
import time

PAUSE_S = 0.01


def wait_until(condition, what, seconds=30, pause_s=PAUSE_S):
    """Polls until condition() gives something true, and returns it; fails after that time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(pause_s)


def run(argv, timeout=60, check=True, **more):
    """A program to its end; what it printed is in what it fails with."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))}: status {done.returncode}\n"
                             f"{done.stdout}{done.stderr}")
    return done


def stat_of(pid):
    """(state, parent) or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as f:
            return f.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_alive(pid):
    state = stat_of(pid)
    return state is not None and state[0] not in "ZX"


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            state = stat_of(int(entry))
            if state and state[1] == pid and state[0] not in "ZX":
                found.append(int(entry))
    return found


def descendants(pid):
    found = []
    for child in children(pid):
        found += [child] + descendants(child)
    return found


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
