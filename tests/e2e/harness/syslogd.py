"""A syslog daemon's socket: keeps what comes, or does not read at all."""

import os
import select
import socket


class Syslogd:
    """Bound at a path until close(); messages() are those that came."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.setblocking(False)
        self.got = []

    def messages(self):
        while select.select([self.socket], [], [], 0)[0]:
            self.got.append(self.socket.recv(65536))
        return self.got

    def fill(self):
        """Until it takes no more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.setblocking(False)
            s.connect(self.path)
            try:
                while True:
                    s.send(b"x")
            except BlockingIOError:
                pass

    def close(self):
        if self.socket.fileno() >= 0:
            self.socket.close()
            os.unlink(self.path)
