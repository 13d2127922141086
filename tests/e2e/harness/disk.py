"""A disk with a volatile cache, as a program: one file that writes down what is done to it.

    python3 disk.py IMAGE FILE LOG

Mounts a FUSE file system of a single file over FILE, in a mount namespace of its own, and says
"ready PID" when it can be used; that process has the namespace and does nothing else.  What is
written to the file goes to IMAGE and, with its time, to LOG; so do syncs (ENTRY; a sync has no
octets).  Nothing is cached on the way (FOPEN_DIRECT_IO): under a loop device every write and every
flush of the file system on it comes here, one after the other.  They are served in the order in
which the kernel queued them, so what stands before a sync in LOG had been said to be written.

It speaks the kernel's protocol (linux/fuse.h) itself, as far as one file needs it.

All of it ends with whichever of the two processes ends first: without its last process the
namespace goes, with it what is mounted in it, and so the loop devices and this file.  They are two
because a process that dies takes its namespace apart before it closes its descriptors: were it the
one that serves the file, the file system on the disk would wait for it for ever.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
import time

ENTRY = struct.Struct("=QQI")  # monotonic ns, offset, octets that follow

MINE = (7, 31)  # of the protocol
MAX_WRITE = 128 << 10
ASYNC_READ, BIG_WRITES, ASYNC_DIO = 1 << 0, 1 << 5, 1 << 15
FOPEN_DIRECT_IO = 1
FOREVER_S = 1 << 30

IN = struct.Struct("=IIQQIIII")  # len opcode unique nodeid uid gid pid -
OUT = struct.Struct("=IiQ")  # len error unique
IN_IO = struct.Struct("=QQIIQII")  # fh offset size - - - -
OUT_INIT = struct.Struct("=4I2H2I2H8I")
OUT_ATTR = struct.Struct("=Q2I6Q10I")
OUT_OPEN = struct.Struct("=Q2I")
OUT_WRITE = struct.Struct("=2I")

FORGET, GETATTR, OPEN, READ, WRITE, RELEASE, FSYNC, FLUSH, INIT, INTERRUPT = \
    2, 3, 14, 15, 16, 18, 20, 25, 26, 36
UNANSWERED = (FORGET, INTERRUPT)

CLONE_NEWNS = 0x20000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 0x4000, 0x40000


def check(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)


class File:
    def __init__(self, device, image, log):
        self.device = device
        self.image = os.open(image, os.O_RDWR)
        self.octets = os.fstat(self.image).st_size
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.buffer = bytearray(IN.size + IN_IO.size + MAX_WRITE)
        self.serves = {GETATTR: self.attributes, OPEN: self.open, READ: self.read,
                       WRITE: self.write, FSYNC: self.sync, INIT: self.init,
                       RELEASE: self.nothing, FLUSH: self.nothing}

    def note(self, offset, octets):
        entry = ENTRY.pack(time.monotonic_ns(), offset, len(octets))
        assert os.writev(self.log, [entry, octets]) == len(entry) + len(octets)

    def nothing(self):
        return b""

    def init(self):
        return OUT_INIT.pack(*MINE, MAX_WRITE, ASYNC_READ | BIG_WRITES | ASYNC_DIO, 64, 48,
                             MAX_WRITE, 1, 0, 0, *[0] * 8)

    def attributes(self):
        return OUT_ATTR.pack(FOREVER_S, 0, 0, 1, self.octets, self.octets // 512, 0, 0, 0, 0, 0, 0,
                             0o100600, 1, 0, 0, 0, 4096, 0)

    def open(self):
        return OUT_OPEN.pack(0, FOPEN_DIRECT_IO, 0)

    def _range(self):
        return IN_IO.unpack_from(self.buffer, IN.size)[1:3]

    def read(self):
        offset, octets = self._range()
        return os.pread(self.image, octets, offset)

    def write(self):
        offset, octets = self._range()
        begin = IN.size + IN_IO.size
        data = memoryview(self.buffer)[begin:begin + octets]
        self.note(offset, data)
        assert os.pwrite(self.image, data, offset) == octets
        return OUT_WRITE.pack(octets, 0)

    def sync(self):
        self.note(0, b"")
        return b""

    def serve(self):
        """One request."""
        os.readv(self.device, [self.buffer])
        _, opcode, unique, *_ = IN.unpack_from(self.buffer)
        if opcode in UNANSWERED:
            return
        serves = self.serves.get(opcode)
        body = serves() if serves else b""
        os.writev(self.device, [OUT.pack(OUT.size + len(body), 0 if serves else -errno.ENOSYS,
                                         unique), body])

    def serve_all(self):
        """Until it is unmounted."""
        while True:
            try:
                self.serve()
            except OSError as e:
                if e.errno == errno.ENODEV:
                    return
                if e.errno not in (errno.EINTR, errno.ENOENT):  # of a request that was taken back
                    raise


def enter_namespace(device, path):
    """A mount namespace of our own, with the file in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    check(libc.unshare(CLONE_NEWNS), "unshare")
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount private")
    options = f"fd={device},rootmode=100000,user_id=0,group_id=0"
    check(libc.mount(b"disk", path.encode(), b"fuse", MS_NOSUID | MS_NODEV, options.encode()),
          "mount fuse")
    os.close(device)


def keep_namespace(device, path, other):
    """Has it as long as the other process is there."""
    enter_namespace(device, path)
    other.send(b"mounted")
    other.recv(1)


def main(image, path, log):
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    file = File(device, image, log)
    mine, keepers = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        mine.close()
        keep_namespace(device, path, keepers)
        return
    keepers.close()
    if mine.recv(16) == b"mounted":
        print(f"ready {pid}", flush=True)
        file.serve_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
