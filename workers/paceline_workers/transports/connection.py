"""One HTTP connection, with every address of the name used and its life on record.

urllib3 walks the addresses of a name always in the same order, so all connections go to the first
one; here each new connection resolves again and begins with another address (SparkPost: "addresses
come and go").
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from paceline.guard import Guard
from paceline.proxy import Proxy, ProxyRefused, open_tunnel
from paceline_workers.outcome import GUARDED, PROXY_AUTH, Failure
from paceline_workers.transports.routes import UrlRoute
from paceline_workers.transports.tcp_state import ESTABLISHED, tcp_state

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


class Wire:
    """A connected socket that speaks HTTP/1.1 to one host. One thread at a time.

    ``fields`` are header fields of the connection's own: a proxy's, where it is given the request.
    """

    def __init__(
        self,
        sock: socket.socket,
        host: str,
        write_timeout_s: float,
        fields: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.sock = sock
        self.host = host
        self.fields = fields
        self._write_timeout_s = write_timeout_s
        self._plain = not isinstance(sock, ssl.SSLSocket)
        self._read_bytes = 0
        self._acked: int | None = None

    def write(self, pieces: Sequence[bytes]) -> None:
        """All of it. Raises OSError; a time-out is a TimeoutError or a BlockingIOError."""
        if len(pieces) == 1:
            self.sock.sendall(pieces[0])
            return
        # The system's time-out is for each call, and a large body takes several.
        usual = self.sock.gettimeout()
        self.sock.settimeout(self._write_timeout_s)
        try:
            for piece in pieces:
                self.sock.sendall(piece)
        finally:
            self.sock.settimeout(usual)

    def read(self, most: int) -> bytes:
        """Up to ``most`` bytes, b"" at the end. Raises OSError as ``write`` does."""
        data = self.sock.recv(most)
        self._read_bytes += len(data)
        return data

    def acked(self) -> int | None:
        """Bytes of ours that the peer's system had acknowledged at the last look, which is to be
        just before a write; None where the platform does not tell."""
        if self._acked is not None:  # only plain sockets are looked at this way
            return self._acked
        state = tcp_state(self.sock)
        return None if state is None else state.acked

    def is_silent(self) -> bool:
        """Whether there is nothing to read: neither data nor the end nor an error."""
        if self._plain:
            state = tcp_state(self.sock)
            if state is not None:
                self._acked = state.acked
                return state.state == ESTABLISHED and state.received == self._read_bytes
        return not is_readable(self.sock)

    def close(self) -> None:
        """Closes the socket."""
        self.sock.close()


@dataclass(slots=True)
class Link:
    """One open connection; ``target`` is the path that requests on it ask for. Times are the
    pool's monotonic seconds.

    ``route`` is the URL it leads to, None where the destination has no other; ``probe``: the
    request it is checked out for is a probe of that URL. ``origin`` is where it leads to, in a pool
    of endpoints.
    """

    wire: Wire
    target: str
    opened_s: float
    retire_s: float
    used_s: float
    requests: int = 0
    broken: bool = field(default=False)
    route: UrlRoute | None = None
    probe: bool = False
    origin: str = ""

    def is_left(self) -> bool:
        """Whether its URL has been left, so that no request but a probe may go there."""
        return self.route is not None and not self.route.usable and not self.probe

    def is_quiet(self) -> bool:
        """Open, and nothing to read: a readable idle connection has been closed by its peer (or
        holds an answer nobody asked for): in neither case may a request be written to it."""
        if self.broken:
            return False
        if not self.wire.is_silent():
            sock = self.wire.sock
            # Remembered, for what is read here is not there to be seen again.
            self.broken = not (isinstance(sock, ssl.SSLSocket) and _is_housekeeping(sock))
        return not self.broken

    def close(self) -> None:
        """Closes the socket."""
        self.wire.close()


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


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """What a Connector speaks TLS by. Raises OSError where the file cannot be used."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Connector:
    """Opens connections to one base URL, spread over all addresses of its name, or of its proxy's.

    Certificates are verified, against ``ca_file`` alone where it is given; TLS 1.2 is the least. To
    read those files takes milliseconds: many connectors may share a ``context`` of ``tls_context``,
    which is used instead. ``guard`` is asked about each address that is about to be connected to.
    Raises OSError where that file cannot be used, ValueError for a guard beside a proxy, whose
    connections it would not see.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        ca_file: str | None = None,
        context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        guard: Guard | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        if guard is not None and proxy is not None:
            raise ValueError("a guard cannot see where a proxy connects to")
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        default = 443 if parts.scheme == "https" else 80
        self.port = parts.port or default
        name = f"[{self.host}]" if ":" in self.host else self.host
        self._host_header = name if self.port == default else f"{name}:{self.port}"
        self.target = target_of(url)
        self._proxy = proxy
        self._guard = guard
        self._fields: Mapping[str, str] = {}
        if proxy is not None and parts.scheme == "http":
            self.target = f"http://{self._host_header}{self.target}"
            if proxy.authorization:
                self._fields = {"Proxy-Authorization": proxy.authorization}
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._resolver = resolver
        self._turn = 0
        self._context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._context = context or tls_context(ca_file)

    def open(self) -> Wire:
        """A connected socket; its time-out is the read time-out.

        Raises TransportError (phase connect): nothing was sent, provably.
        """
        sock = self._connect_any()
        if self._context is not None:
            if self._proxy is not None:
                self._tunnel(sock, self._proxy)
            try:
                sock = self._context.wrap_socket(sock, server_hostname=self.host)
            except (OSError, ssl.SSLError) as error:
                sock.close()
                raise TransportError(Failure("connect", "tls", True, str(error)[:300])) from error
        if self._context is None:
            _let_the_system_time(sock, self._read_timeout_s)
        else:
            sock.settimeout(self._read_timeout_s)
        return Wire(sock, self._host_header, self._read_timeout_s, self._fields)

    def _tunnel(self, sock: socket.socket, proxy: Proxy) -> None:
        """Whatever a proxy says before the tunnel is open: the provider has heard nothing."""
        within_s = self._connect_timeout_s
        try:
            open_tunnel(sock, proxy, self.host, self.port, within_s=within_s)
            # The handshake's, as without a proxy.
            sock.settimeout(within_s)
        except (ProxyRefused, OSError, UnicodeError) as error:
            sock.close()
            failure = Failure("connect", _proxy_cause(error), True, str(error)[:300])
            raise TransportError(failure) from error

    def _connect_any(self) -> socket.socket:
        host, port = self.host, self.port
        if self._proxy is not None:
            host, port = self._proxy.host, self._proxy.port
        try:
            addresses = self._resolver(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that IDNA cannot encode
            raise TransportError(Failure("connect", "dns", True, str(error)[:300])) from error
        if not addresses:
            raise TransportError(Failure("connect", "dns", True, f"{host}: no address"))
        self._turn += 1
        start = self._turn % len(addresses)
        last: OSError = OSError("no address")
        refused: list[str] = []
        for family, address in addresses[start:] + addresses[:start]:
            if self._guard is not None:
                # This very address, and no name, is what is connected to below.
                why = self._guard.refusal(address)
                if why is not None:
                    refused.append(f"{address} ({why})")
                    continue
            try:
                # May fail too: no file descriptor left, or a host without IPv6.
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                last = error
                continue
            try:
                sock.settimeout(self._connect_timeout_s)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect((address, port))
            except OSError as error:
                sock.close()
                last = error
                continue
            return sock
        if len(refused) == len(addresses):
            raise TransportError(Failure("connect", GUARDED, True, _not_public(refused)))
        raise TransportError(Failure("connect", _connect_cause(last), True, str(last))) from last


def _let_the_system_time(sock: socket.socket, timeout_s: float) -> None:
    """The read time-out by the system: Python's own asks before every call whether there is
    something to read, one system call more, and lets go of the interpreter for it. A TLS socket
    would take the system's for "try again", for ever."""
    seconds = int(timeout_s)
    value = struct.pack("ll", seconds, int((timeout_s - seconds) * 1e6))
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def _not_public(refused: Sequence[str]) -> str:
    more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
    return f"not a public address: {', '.join(refused[:3])}{more}"


def _proxy_cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "proxy-timeout"
    refused_us = isinstance(error, ProxyRefused) and error.status == 407
    return PROXY_AUTH if refused_us else "proxy"


def _connect_cause(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "connect-timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "unreachable"


def target_of(url: str) -> str:
    """The path and query that a request to this URL asks for. Raises ValueError for no URL."""
    parts = urlsplit(url)
    # What is already quoted stays; http.client refuses blanks and anything beyond ASCII.
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return f"{path}?{query}" if query else path
