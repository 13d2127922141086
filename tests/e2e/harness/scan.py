"""Looks for secrets in files, in the memory of processes and in core dumps."""

import base64
import ctypes
import os

from .procs import run

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shim", "scan.c")
CHUNK = 1 << 24


def build(folder):
    """The scanner as a library in that folder."""
    library = os.path.join(folder, "scan.so")
    run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE])
    return library


class Scanner:
    """Secrets by name; each is looked for raw, in hex and in base64, wherever it begins."""

    def __init__(self, library, secrets):
        patterns = [(octets, f"{name} as {form}") for name, secret in secrets.items()
                    for form, octets in patterns_of(secret)]
        self.labels = [label for _, label in patterns]
        self.longest = max(len(octets) for octets, _ in patterns)
        self._lib = ctypes.CDLL(library)
        self._lib.scanner_new.restype = ctypes.c_void_p
        self._octets = (ctypes.c_char_p * len(patterns))(*(octets for octets, _ in patterns))
        lengths = (ctypes.c_size_t * len(patterns))(*(len(octets) for octets, _ in patterns))
        self._scanner = ctypes.c_void_p(
            self._lib.scanner_new(self._octets, lengths, ctypes.c_size_t(len(patterns))))
        assert self._scanner

    def __del__(self):
        self._lib.scanner_free(self._scanner)

    def scan(self, octets):
        found = (ctypes.c_uint8 * len(self.labels))()
        self._lib.scanner_run(self._scanner, ctypes.c_char_p(octets), ctypes.c_size_t(len(octets)),
                              found)
        return {label for label, hit in zip(self.labels, found) if hit}

    def scan_stream(self, read):
        """read(n) gives the next octets, b"" at the end."""
        found, tail = set(), b""
        while True:
            chunk = read(CHUNK)
            if not chunk:
                return found
            chunk = tail + chunk
            found |= self.scan(chunk)
            tail = chunk[-self.longest:]

    def scan_file(self, path):
        with open(path, "rb") as f:
            return self.scan_stream(f.read)

    def scan_folder(self, folder, leave_out=()):
        """{path: what is in it} of regular files."""
        found = {}
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                if name not in leave_out and os.path.isfile(path):
                    hits = self.scan_file(path)
                    if hits:
                        found[path] = hits
        return found

    def scan_process(self, pid):
        """(what is in its memory, how many octets were looked at)."""
        found, seen = set(), 0
        with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as f:
            lines = f.read().splitlines()
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in lines:
                span, rights = line.split()[:2]
                begin, end = (int(x, 16) for x in span.split("-"))
                if rights[0] != "r" or "[vvar]" in line or "[vsyscall]" in line:
                    continue
                octets = read_region(memory, begin, end)
                seen += len(octets)
                found |= self.scan(octets)
        return found, seen


def read_region(memory, begin, end):
    parts = []
    while begin < end:
        try:
            memory.seek(begin)
            part = memory.read(min(CHUNK, end - begin))
        except OSError:
            break  # mapped, but nothing is behind it (of a file that is shorter, for instance)
        if not part:
            break
        parts.append(part)
        begin += len(part)
    return b"".join(parts)


def patterns_of(secret):
    yield "raw", secret
    yield "hex", secret.hex().encode()
    yield "upper-case hex", secret.hex().upper().encode()
    # In base64 it depends on what stands before it; its first and last character on what is beside.
    for before in range(3):
        text = base64.b64encode(b"\0" * before + secret + b"\0" * (-(before + len(secret)) % 3))
        begin = (before * 8 + 5) // 6
        end = (before + len(secret)) * 8 // 6
        yield f"base64 ({before} before)", text[begin:end]
        url = text[begin:end].translate(bytes.maketrans(b"+/", b"-_"))
        if url != text[begin:end]:
            yield f"base64url ({before} before)", url
