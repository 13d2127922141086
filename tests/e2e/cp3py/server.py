"""An HTTPS server on asyncio that lets its handler misbehave in every way a peer can.

One port, one certificate, HTTP/1.1 with keep-alive; a client certificate is required.  What the
client sends is read strictly: tekd's requests have one form.
"""

import asyncio
import socket
import ssl
import struct

HEAD_MAX, BODY_MAX = 16384, 65536
REASON = {200: "OK", 202: "Accepted", 204: "No Content", 302: "Found", 307: "Temporary Redirect",
          400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 409: "Conflict",
          500: "Internal Server Error", 503: "Service Unavailable"}


class RequestError(Exception):
    """The request is not one that tekd may send."""


class Request:
    def __init__(self, method, path, headers, body, cert):
        self.method = method
        self.path = path
        self.headers = headers  # [(lower-case name, value)]
        self.body = body
        self.cert = cert  # DER of the client's certificate

    def header(self, name):
        values = [v for n, v in self.headers if n == name]
        if len(values) > 1:
            raise RequestError(f"header {name} is there twice: {values}")
        return values[0] if values else None


class Exchange:
    """One request and what becomes of it: answer(), abort(), hang() or send()."""

    def __init__(self, request, reader, writer):
        self.request = request
        self.reader = reader
        self.writer = writer

    async def send(self, octets):
        self.writer.write(octets)
        await self.writer.drain()
        await asyncio.sleep(0)  # a connection that is being shut takes octets without end

    async def answer(self, status, body=b"", content_type=None, headers=()):
        lines = [f"HTTP/1.1 {status} {REASON[status]}"] + [f"{n}: {v}" for n, v in headers]
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        if status != 204:
            lines.append(f"Content-Length: {len(body)}")
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def abort(self):
        """The connection ends with a reset."""
        s = self.writer.get_extra_info("socket")
        if s is not None:  # the client has not gone before
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def hang(self):
        """Says nothing until the client has gone."""
        while await self.reader.read(4096):
            pass


async def _read_request(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as e:
        if e.partial:
            raise RequestError(f"it ends after {e.partial[:200]!r}") from None
        return None
    if len(head) > HEAD_MAX:
        raise RequestError("a head of more than 16 KiB")
    lines = head[:-4].decode("latin-1").split("\r\n")
    method, path, version = lines[0].split(" ")
    headers = [(n.strip().lower(), v.strip()) for n, v in
               (line.split(":", 1) for line in lines[1:])]
    tls = writer.get_extra_info("ssl_object")
    request = Request(method, path, headers, b"", tls.getpeercert(True))
    if version != "HTTP/1.1" or not request.header("host"):
        raise RequestError(f"{lines[0]} {headers}")
    if request.header("transfer-encoding") or request.header("expect"):
        raise RequestError(f"{headers}")
    length = int(request.header("content-length") or "0")
    if length > BODY_MAX:
        raise RequestError(f"a body of {length} octets")
    request.body = await reader.readexactly(length)
    return request


class Server:
    """handler(exchange) is a coroutine; report(text) gets what the client did wrong.

    All but context must be used on the loop.
    """

    def __init__(self, handler, report, ca, cert, key):
        self.handler = handler
        self.report = report
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_verify_locations(ca)
        self.context.load_cert_chain(cert, key)
        self.connections = 0  # that finished their handshake, ever
        self.open = set()
        self._server = None

    async def listen(self, port, tls=True):
        """tls False: connections are taken, and nothing is ever said on them."""
        self._server = await asyncio.start_server(
            self._serve if tls else self._mute, "127.0.0.1", port, limit=HEAD_MAX * 2,
            backlog=256, ssl=self.context if tls else None)

    async def close(self):
        """Nobody listens any more; connections end as well."""
        if self._server:
            self._server.close()
            for writer in list(self.open):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _mute(self, reader, writer):
        self.open.add(writer)
        try:
            while await reader.read(4096):
                pass
        except OSError:
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        self.open.add(writer)
        try:
            while not writer.is_closing():
                request = await _read_request(reader, writer)
                if request is None:
                    break
                await self.handler(Exchange(request, reader, writer))
        except (RequestError, ValueError) as e:
            self.report(f"{type(e).__name__}: {e}")
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            pass  # it went; that it sent nothing strange is all that is asked
        except asyncio.CancelledError:
            pass
        finally:
            self.open.discard(writer)
            writer.close()
