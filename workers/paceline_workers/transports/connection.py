"""One HTTP connection: urllib3's, with every address of the name used and its life on record.

urllib3 walks the addresses of a name always in the same order, so all connections go to the first
one; here each new connection resolves again and begins with another address (SparkPost: "addresses
come and go").
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

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
        if sock is None:
            return False
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return False
        try:
            poller = select.poll()
            poller.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
            return not poller.poll(0)
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Closes the socket."""
        self.http.close()


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
            http = urllib3.connection.HTTPConnection(self.host, self.port)
        else:
            http = urllib3.connection.HTTPSConnection(self.host, self.port)
        http.timeout = self._read_timeout_s
        http.sock = sock
        return http

    def _connect_any(self) -> socket.socket:
        try:
            addresses = self._resolver(self.host, self.port)
        except OSError as error:
            raise TransportError(Failure("connect", "dns", True, str(error)[:300])) from error
        if not addresses:
            raise TransportError(Failure("connect", "dns", True, f"{self.host}: no address"))
        self._turn += 1
        start = self._turn % len(addresses)
        last: OSError = OSError("no address")
        for family, address in addresses[start:] + addresses[:start]:
            sock = socket.socket(family, socket.SOCK_STREAM)
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
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path
