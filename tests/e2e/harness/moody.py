"""A web server that answers POSTs by its mood: what a time-stamping authority and a witness share."""

import http.server
import ssl
import threading


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):  # pylint: disable=invalid-name
        owner = self.server.owner
        body = self.rfile.read(int(self.headers["Content-Length"]))
        owner.asked += 1
        owner.look(self)
        getattr(owner, f"when_{owner.mood}")(self, body)

    def send(self, octets, status=200, kind=None, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind or self.server.owner.KIND)
        self.send_header("Content-Length", str(len(octets)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, *_):
        """No lines on standard error."""


class Moody:
    """Serves from serve() until close(). mood: how it answers; one of the when_... of the class."""

    KIND = "text/plain"  # Content-Type of an answer that has no other

    def __init__(self):
        self.mood = "good"
        self.asked = 0
        self.released = threading.Event()
        self.server = self.thread = self.url = None

    def serve(self, path, ca=None, name=None, client_ca=None):
        """ca: a pki.Ca whose certificate `name` is shown; None: plain HTTP. client_ca: the file of
        who signs the certificates that are asked for."""
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.owner = self
        self.server.daemon_threads = True
        if ca is not None:
            ca.issue(name)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(ca.path(f"{name}.crt"), ca.path(f"{name}.key"))
            if client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(client_ca)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "http" if ca is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}{path}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def look(self, handler):
        """What is looked at in each request."""

    def when_broken(self, handler, _):
        handler.send(b"<html>", 500, "text/html")

    def when_elsewhere(self, handler, _):
        handler.send(b"", 302, Location="http://127.0.0.1:1/")

    def when_endless(self, handler, _):
        handler.send_response(200)
        handler.send_header("Content-Type", self.KIND)
        handler.end_headers()
        try:
            for _ in range(1 << 20):
                handler.wfile.write(b"x" * 1024)
        except OSError:
            pass

    def when_hanging(self, *_):
        self.released.wait(60)

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
