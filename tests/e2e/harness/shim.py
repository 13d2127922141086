"""Libraries of shim/ that are preloaded into programs, and the page that each shares with the test."""

import mmap
import os
import struct

from .procs import run
from .programs import is_sanitized

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shim")


def build(folder, name):
    """shim/NAME.c as a library in that folder."""
    library = os.path.join(folder, f"{name}.so")
    run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library,
         os.path.join(FOLDER, f"{name}.c"), "-ldl"])
    return library


class Page:
    """An array of structs of so many 64-bit fields; give env to the server."""

    def __init__(self, library, folder, variable, fields):
        path = os.path.join(folder, f"{variable.lower()}.page")
        with open(path, "wb") as f:
            f.truncate(mmap.PAGESIZE)
        with open(path, "r+b") as f:
            self.page = mmap.mmap(f.fileno(), mmap.PAGESIZE)
        self.fields = fields
        before = os.environ.get("LD_PRELOAD", "")
        self.env = {"LD_PRELOAD": f"{before} {library}".strip(), variable: path}
        if "address" in is_sanitized():  # it wants to be the first library itself
            self.env["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + \
                ":verify_asan_link_order=0"

    def get(self, slot, field):
        return struct.unpack_from("=Q", self.page, 8 * (self.fields * slot + field))[0]

    def set(self, slot, field, value):
        struct.pack_into("=Q", self.page, 8 * (self.fields * slot + field), value)

    def close(self):
        self.page.close()
