"""One HTTP connection: urllib3's, with every address of the name used and its life on record.

urllib3 walks the addresses of a name always in the same order, so all connections go to the first
one; here each new connection resolves again and begins with another address (SparkPost: "addresses
come and go").
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import urllib3.connection

from paceline_workers.outcome import Failure

Resolver = Callable[[str, int], list[tuple[int, str]]]


class TransportError(Exception):
    """A request that got no reply. ``failure`` says in which phase and why (outcome.py judges it).

    Not an OSError and not one of requests' errors: nothing between here and the sender may take it
    for something that it can handle.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.phase}: {failure.cause}")
        self.failure = failure


def resolve(host: str, port: int) -> list[tuple[int, str]]:
    """All addresses of a name, (family, address), in the resolver's order. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(family), str(where[0])) for family, _, _, _, where in found))


class _Head:
    """A reply's head, line by line; one that ends in the middle is no head. http.client takes the
    end of the stream for the end of the head, and a cut one for a whole reply."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readline(self, limit: int) -> bytes:
        line: bytes = self._stream.readline(limit)
        if not line.endswith(b"\n") and len(line) < limit:
            raise http.client.IncompleteRead(line)
        return line

    def close(self) -> None:
        self._stream.close()


class FinalResponse(http.client.HTTPResponse):
    """The final response: interim ones (103 Early Hints, 102) are passed over.

    http.client passes over 100 alone and takes any other for the reply; the real one would then be
    read as the answer to the next request on the connection.
    """

    def begin(self) -> None:
        """Reads the head. Raises HTTPException, OSError."""
        stream = self.fp
        self.fp = _Head(stream)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if isinstance(self.fp, _Head):  # None when it was closed
                self.fp = stream

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 102 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


#: A body up to this size is copied, to leave with its head in one write: one system call, and one
#: segment where it fits. A larger one is not worth the copy.
_ONE_WRITE_BYTES = 64 * 1024


class _WritesAtOnce(urllib3.connection.HTTPConnection):
    """Writes nothing before the whole request is known to be well-formed, and then all of it."""

    response_class = FinalResponse

    def request(  # type: ignore[override]
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], **options: Any
    ) -> None:
        """Sends one request. Raises OSError."""
        self._parts: list[bytes] | None = []
        try:
            super().request(method, url, body, headers, **options)
        finally:
            parts, self._parts = self._parts, None
        if sum(map(len, parts)) <= _ONE_WRITE_BYTES:
            parts = [b"".join(parts)]
        for part in parts:
            super().send(part)

    def send(self, data: Any) -> None:
        """Called by urllib3 for the head and for the body."""
        assert self._parts is not None
        self._parts.append(data)


class _WritesAtOnceTls(_WritesAtOnce, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


@dataclass(slots=True)
class Link:
    """One open connection; ``target`` is the path that requests on it ask for. Times are the
    pool's monotonic seconds."""

    http: urllib3.connection.HTTPConnection
    target: str
    opened_s: float
    retire_s: float
    used_s: float
    requests: int = 0
    broken: bool = field(default=False)

    def is_quiet(self) -> bool:
        """Open, and nothing to read: a readable idle connection has been closed by its peer (or
        holds an answer nobody asked for): in neither case may a request be written to it."""
        sock = self.http.sock
        if sock is None or self.broken:
            return False
        if is_readable(sock):
            # Remembered, for what is read here is not there to be seen again.
            self.broken = not (isinstance(sock, ssl.SSLSocket) and _is_housekeeping(sock))
        return not self.broken

    def close(self) -> None:
        """Closes the socket."""
        self.http.close()


def is_readable(sock: socket.socket) -> bool:
    """Whether there is something to read: data, the end, or an error."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    try:
        poller = select.poll()
        poller.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
        return bool(poller.poll(0))
    except (OSError, ValueError):
        return True


def _is_housekeeping(sock: ssl.SSLSocket) -> bool:
    """Whether what there is to read is TLS's own: TLS 1.3 servers send session tickets unasked, a
    round trip after the handshake. Reading lets OpenSSL take them in."""
    timeout_s = sock.gettimeout()
    try:
        sock.settimeout(0.0)
        sock.recv(1)
    except ssl.SSLWantReadError:
        return True
    except (OSError, ValueError):
        return False
    finally:
        sock.settimeout(timeout_s)
    return False  # the end of the stream, or data that nobody asked for


class Connector:
    """Opens connections to one base URL, spread over all addresses of its name.

    ``context`` is the TLS context for https. Certificates are verified, TLS 1.2 is the least.
    Raises TransportError(phase connect): nothing was sent, provably.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        ca_file: str | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.target = _target(parts)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._resolver = resolver
        self._turn = 0
        self._context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._context = ssl.create_default_context(cafile=ca_file)
            self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def open(self) -> urllib3.connection.HTTPConnection:
        """A connected connection; its socket's time-out is the read time-out."""
        sock = self._connect_any()
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_hostname=self.host)
        except (OSError, ssl.SSLError) as error:
            sock.close()
            raise TransportError(Failure("connect", "tls", True, str(error)[:300])) from error
        sock.settimeout(self._read_timeout_s)
        if self._context is None:
            connection: _WritesAtOnce = _WritesAtOnce(self.host, self.port)
        else:
            connection = _WritesAtOnceTls(self.host, self.port)
        connection.timeout = self._read_timeout_s
        connection.sock = sock
        return connection

    def _connect_any(self) -> socket.socket:
        try:
            addresses = self._resolver(self.host, self.port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that IDNA cannot encode
            raise TransportError(Failure("connect", "dns", True, str(error)[:300])) from error
        if not addresses:
            raise TransportError(Failure("connect", "dns", True, f"{self.host}: no address"))
        self._turn += 1
        start = self._turn % len(addresses)
        last: OSError = OSError("no address")
        for family, address in addresses[start:] + addresses[:start]:
            try:
                # May fail too: no file descriptor left, or a host without IPv6.
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                last = error
                continue
            try:
                sock.settimeout(self._connect_timeout_s)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect((address, self.port))
            except OSError as error:
                sock.close()
                last = error
                continue
            return sock
        raise TransportError(Failure("connect", _connect_cause(last), True, str(last))) from last


def _connect_cause(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "connect-timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "unreachable"


def _target(parts: SplitResult) -> str:
    # What is already quoted stays; http.client refuses blanks and anything beyond ASCII.
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return f"{path}?{query}" if query else path
