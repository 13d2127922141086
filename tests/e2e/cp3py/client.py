"""HTTPS with client certificates, on plain sockets: what is sent and when is exact, and every octet
that comes back can be looked at."""

import select
import socket
import ssl
import time
import traceback

from . import messages


class HttpError(Exception):
    """The answer is not HTTP/1.1 as RFC 9112 has it, or the connection ended early."""


class Closed(HttpError):
    """The peer closed before the first octet of an answer."""


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers  # [(lower-case name, value)]
        self.body = body

    def header(self, name):
        values = [v for n, v in self.headers if n == name.lower()]
        assert len(values) < 2, f"header {name} is there twice: {values}"
        return values[0] if values else None

    @property
    def media(self):
        return {v: k for k, v in messages.MEDIA.items()}.get(self.header("content-type"))

    def message(self):
        return messages.decode(self.media, self.body)

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


def context(ca=None, cert=None, key=None, minimum=None, maximum=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if minimum is not None and minimum < ssl.TLSVersion.TLSv1_2:
        c.set_ciphers("ALL:@SECLEVEL=0")  # or the client itself would refuse
    if minimum is not None:
        c.minimum_version = minimum
    if maximum is not None:
        c.maximum_version = maximum
    if ca:
        c.load_verify_locations(ca)
    if cert:
        c.load_cert_chain(cert, key)
    return c


def head(method, path, headers):
    lines = [f"{method} {path} HTTP/1.1"] + [f"{n}: {v}" for n, v in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def start_tls(tls, raw, host, session):
    """wrap_socket(), which leaves its new socket open in its frame when the peer resets the
    connection before the handshake."""
    try:
        return tls.wrap_socket(raw, server_hostname=host, session=session)
    except BaseException as e:
        for frame, _ in traceback.walk_tb(e.__traceback__):
            if isinstance(frame.f_locals.get("self"), ssl.SSLSocket):
                frame.f_locals["self"].close()
        raw.close()
        raise


class Connection:
    """One connection; keep-alive.  Raises ssl.SSLError or OSError as the sockets do."""

    def __init__(self, port, tls, host="localhost", timeout=30, session=None):
        raw = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = start_tls(tls, raw, host, session)
        self.buffer = b""

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- sending ----

    def send(self, octets):
        self.sock.sendall(octets)

    def send_request(self, method, path, body=b"", headers=()):
        all_headers = [("Host", "localhost")] + list(headers)
        if body or method == "POST":
            all_headers.append(("Content-Length", str(len(body))))
        self.send(head(method, path, all_headers) + body)

    def send_message(self, message, media="xml"):
        self.send_request("POST", "/cp3", message.encode(media),
                          [("Content-Type", messages.MEDIA[media])])

    # ---- receiving ----

    def wait_octet(self, seconds):
        """Whether anything came (octets, or the end) within that time; leaves it to be read."""
        if self.buffer or self.sock.pending():
            return True
        return bool(select.select([self.sock], [], [], seconds)[0])

    def _more(self, empty_is_closed=False):
        chunk = self.sock.recv(65536)
        if not chunk:
            if empty_is_closed and not self.buffer:
                raise Closed("closed before the answer")
            raise HttpError(f"closed inside an answer: {self.buffer[:200]!r}")
        self.buffer += chunk

    def read_response(self):
        while b"\r\n\r\n" not in self.buffer:
            self._more(empty_is_closed=True)
        top, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = top.decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ")[:2]
        if version != "HTTP/1.1":
            raise HttpError(lines[0])
        headers = []
        for line in lines[1:]:
            name, value = line.split(":", 1)
            headers.append((name.strip().lower(), value.strip()))
        response = Response(int(status), headers, b"")
        response.body = self._read_body(response)
        return response

    def _read_body(self, response):
        length = response.header("content-length")
        if response.header("transfer-encoding") is not None:
            raise HttpError(f"chunked: {response.headers}")
        if response.status == 204:
            if length not in (None, "0"):
                raise HttpError("204 with a length")
            return b""
        if length is None:
            raise HttpError(f"no Content-Length: {response.headers}")
        while len(self.buffer) < int(length):
            self._more()
        body, self.buffer = self.buffer[:int(length)], self.buffer[int(length):]
        return body

    def is_closed_by_peer(self, seconds=5):
        """Waits for the end of the connection: True when it comes without another octet."""
        deadline = time.monotonic() + seconds
        self.sock.settimeout(seconds)
        try:
            while time.monotonic() < deadline:
                if self.sock.recv(1) != b"":
                    return False
                return True
        except (ssl.SSLError, ConnectionError):
            return True
        except socket.timeout:
            return False
        return False

    # ---- both ----

    def request(self, method, path, body=b"", headers=()):
        self.send_request(method, path, body, headers)
        return self.read_response()

    def post(self, body, media="xml", path="/cp3", content_type=None):
        """media: xml or json; or the whole of another content_type."""
        return self.request("POST", path, body,
                            [("Content-Type", content_type or messages.MEDIA[media])])

    def ask(self, message, media="xml"):
        self.send_message(message, media)
        return self.read_response()
