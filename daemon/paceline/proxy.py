"""The way to a provider through an HTTP proxy: what is asked of it, what it answers.

For an https URL the proxy is asked for a tunnel (CONNECT: RFC 9110, 9.3.6), and TLS runs through it
to the provider itself: the proxy sees its name, and neither credentials nor messages. For plain
http the proxy is given the request, with the whole URL in its first line (RFC 9112, 3.2.2), and
forwards it. The name of the provider is the proxy's to resolve.
"""

from __future__ import annotations

import re
import socket
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from paceline.errors import ConfigError, ConfigProblem
from paceline.secrets_ import Secret
from paceline.settings import Destination

__all__ = ["Proxy", "ProxyRefused", "open_tunnel", "proxy_of"]

_HEAD_BYTES = 64 * 1024
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is, and the value of Proxy-Authorization ("" for none). `repr` does not show it."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """``host:port``, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ProxyRefused(Exception):
    """The proxy answered, and opened no tunnel: nothing has reached the provider.

    ``status`` is its answer, 0 where that is not HTTP, or ended early. Not an OSError: the proxy
    was reached.
    """

    def __init__(self, what: str, status: int = 0) -> None:
        super().__init__(what)
        self.status = status


def proxy_of(destination: Destination, environ: Mapping[str, str]) -> Proxy | None:
    """The destination's proxy, its secrets revealed; None where it has none.

    Raises ConfigError, naming every key whose secret is missing or cannot be used.
    """
    if destination.proxy is None:
        return None
    problems: list[ConfigProblem] = []

    def revealed(secret: Secret | None) -> str:
        try:
            return "" if secret is None else secret.reveal(environ)
        except ConfigError as error:
            problems.extend(error.problems)
            return ""

    username = revealed(destination.proxy_username)
    password = revealed(destination.proxy_password)
    if destination.proxy_username is not None and ":" in username:
        # RFC 7617 §2: the first colon ends the name.
        problem = "holds a colon, which Basic cannot send"
        problems.append(ConfigProblem(destination.proxy_username.key, problem))
    if problems:
        raise ConfigError(problems, source=f"destination {destination.name}")
    authorization = ""
    if destination.proxy_username is not None:
        pair = f"{username}:{password}".encode()
        authorization = "Basic " + b64encode(pair).decode("ascii")
    parts = urlsplit(destination.proxy)
    return Proxy(parts.hostname or "", parts.port or 80, authorization)


def open_tunnel(
    sock: socket.socket, proxy: Proxy, host: str, port: int, *, within_s: float
) -> None:
    """Makes ``sock``, which is connected to the proxy, a way to ``host:port``.

    Raises ProxyRefused; OSError (TimeoutError after ``within_s``); UnicodeError for a host that is
    no name. The socket's time-out is changed.
    """
    name = f"[{host}]" if ":" in host else host.encode("idna").decode("ascii")
    lines = [f"CONNECT {name}:{port} HTTP/1.1", f"Host: {name}:{port}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    end_s = time.monotonic() + within_s
    sock.settimeout(within_s)
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    head, rest = _read_head(sock, end_s)
    found = _STATUS_LINE.match(head)
    if found is None:
        raise ProxyRefused(f"proxy {proxy.shown} does not answer in HTTP")
    status = int(found[1])
    if not 200 <= status < 300:
        reason = (found[2] or b"").decode("latin-1").strip()
        raise ProxyRefused(f"proxy {proxy.shown} answered {status} {reason}".rstrip(), status)
    if rest:
        # A provider says nothing before our handshake: these bytes are not its.
        raise ProxyRefused(f"proxy {proxy.shown} sent more than its answer")


def _read_head(sock: socket.socket, end_s: float) -> tuple[bytes, bytes]:
    """Up to the blank line, and what came after it."""
    head = b""
    while True:
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the proxy did not answer in time")
        sock.settimeout(left_s)
        data = sock.recv(4096)
        if not data:
            raise ProxyRefused("the proxy closed the connection without an answer")
        head += data
        if end := _BLANK_LINE.search(head):
            return head[: end.end()], head[end.end() :]
        if len(head) > _HEAD_BYTES:
            raise ProxyRefused(f"the proxy's answer has no end within {_HEAD_BYTES} bytes")
