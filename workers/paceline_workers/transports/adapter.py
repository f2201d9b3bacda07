"""requests' adapter on our pool: connect, then the gate, then the write.

The gate must be asked when the connection is up and the very next thing is the first byte: name
look-up, TCP and TLS can take seconds, and a permit drawn before them would be spent late. requests'
own adapter hides the moment inside urllib3, which also retries, swallows errors of the write and
closes connections on any error it does not know; so this adapter takes the same urllib3
connections and performs the three steps itself.

One adapter is shared by all sender threads, each with its own Session.
"""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.response import BaseHTTPResponse

from paceline_workers.outcome import Failure
from paceline_workers.transports.connection import Link, TransportError, is_readable
from paceline_workers.transports.pool import ConnectionPool
from paceline_workers.transports.watchdog import Watchdog

#: At most this much of a reply is read; a provider's answer is small, and a hostile one is not.
REPLY_BYTES = 256 * 1024
#: A permit older than this at the write is asked for again: the worker may have been frozen.
STALE_PERMIT_S = 0.1

Gate = Callable[[], float]

_NO_REPLY = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError)


class GatedRequest(requests.PreparedRequest):
    """A prepared request with the gate that must be passed before its first byte.

    ``gate()`` blocks until a permit's time has come and returns that moment, on the clock
    ``elapsed_s``; or raises to call the request off (nothing was written then).
    ``wire_s`` and ``latency_s`` are filled in: when the first byte was written (monotonic
    seconds; None: never) and the seconds from it to the last byte read.
    """

    def __init__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, gate: Gate
    ) -> None:
        super().__init__()
        self.method = method
        self.url = url
        self.headers = CaseInsensitiveDict(headers)
        self.body = body
        self.gate = gate
        self.wire_s: float | None = None
        self.latency_s: float | None = None
        self.truncated = False


class GatedAdapter(BaseAdapter):
    """Sends GatedRequests over a ConnectionPool.

    ``monotonic_s`` measures latency and the total deadline, ``elapsed_s`` (which runs through
    suspends) the age of a permit. Raises TransportError for a request without a reply, NoRoom where
    no connection may be opened any more, and what the gate raises.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        watchdog: Watchdog,
        *,
        total_timeout_s: float,
        monotonic_s: Callable[[], float],
        elapsed_s: Callable[[], float],
    ) -> None:
        super().__init__()
        self._pool = pool
        self._watchdog = watchdog
        self._total_timeout_s = total_timeout_s
        self._monotonic_s = monotonic_s
        self._elapsed_s = elapsed_s

    def close(self) -> None:
        """Sessions close their adapters; the pool outlives them."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """One request, one reply."""
        if not isinstance(request, GatedRequest):
            raise TypeError("only GatedRequest passes here: anything else would evade the gate")
        link = self._ready_link(request)
        try:
            return self._exchange(request, link)
        except BaseException:
            # A reply may still be under way on this connection: it is not for reuse.
            link.broken = True
            raise
        finally:
            self._pool.checkin(link)

    def _ready_link(self, request: GatedRequest) -> Link:
        """An open connection and a permit whose time has come, both fresh."""
        link = self._pool.checkout()
        while True:
            try:
                due_s = request.gate()
            except BaseException:
                self._pool.checkin(link)
                raise
            # The peer may have closed it during the wait, however short.
            if not link.is_quiet():
                link.broken = True
                self._pool.checkin(link)
                link = self._pool.checkout()
            if self._elapsed_s() - due_s <= STALE_PERMIT_S:
                return link

    def _exchange(self, request: GatedRequest, link: Link) -> requests.Response:
        sock = link.http.sock
        assert sock is not None
        before = _acked_bytes(sock)
        request.wire_s = self._monotonic_s()
        guarded = self._watchdog.guard(sock, request.wire_s + self._total_timeout_s)
        link.requests += 1
        try:
            raw = _converse(request, link)
            body, ends_itself = _read_body(raw)
        except TransportError as error:
            if guarded.fired:
                raise TransportError(Failure("read", "deadline", False)) from error
            if error.failure.cause == "eof" and _is_unreceived(sock, before):
                raise TransportError(replace(error.failure, unreceived=True)) from error
            raise
        finally:
            self._watchdog.release(guarded)
            request.latency_s = self._monotonic_s() - request.wire_s
        if guarded.fired:
            link.broken = True
            if not ends_itself:
                # An answer without a length looks complete when its socket is shut down.
                raise TransportError(Failure("read", "deadline", False))
        request.truncated = len(body) > REPLY_BYTES
        if request.truncated or not _keeps_alive(raw):
            link.broken = True
            raw.close()
        return _response(request, raw, body[:REPLY_BYTES])


def _converse(request: GatedRequest, link: Link) -> BaseHTTPResponse:
    """Writes the request, reads the reply's head."""
    unwritten: OSError | None = None
    try:
        link.http.request(
            request.method or "POST",
            link.target,
            body=request.body,
            headers=request.headers,
            preload_content=False,
            decode_content=True,
        )
    except OSError as error:
        # The peer may have answered before it closed, or before it stopped reading (413, 401). The
        # answer, if there is one, is worth more than the error.
        link.broken = True
        if isinstance(error, TimeoutError) and not is_readable(link.http.sock):
            raise TransportError(Failure("write", "timeout", False, str(error)[:300])) from error
        unwritten = error
    try:
        return link.http.getresponse()
    except _NO_REPLY as error:
        if unwritten is not None:
            failure = Failure("write", _cause(unwritten), False, str(unwritten)[:300])
            raise TransportError(failure) from unwritten
        raise TransportError(Failure("read", _cause(error), False, str(error)[:300])) from error


def _read_body(raw: BaseHTTPResponse) -> tuple[bytes, bool]:
    """The body, and whether it says by itself where it ends."""
    ends_itself = raw.chunked or raw.length_remaining is not None
    try:
        return raw.read(REPLY_BYTES + 1), ends_itself
    except _NO_REPLY as error:
        raise TransportError(Failure("read", _cause(error), False, str(error)[:300])) from error


# struct tcp_info of Linux: the state, and tcpi_bytes_acked.
_TCP_INFO_BYTES, _ACKED = 128, struct.Struct("=B119xQ")
_CLOSE_WAIT = 8


def _tcp_info(sock: socket.socket) -> tuple[int, int] | None:
    """(state, bytes acknowledged by the peer); None where the platform does not tell."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        state, acked = _ACKED.unpack(info)
    except (OSError, AttributeError, struct.error):
        return None
    return int(state), int(acked)


def _acked_bytes(sock: socket.socket) -> int | None:
    info = _tcp_info(sock)
    return None if info is None else info[1]


def _is_unreceived(sock: socket.socket, before: int | None) -> bool:
    """Whether the peer closed before a byte of the request had reached its system: it closed in
    order (CLOSE_WAIT: a FIN and no reset, for after a reset the counter proves nothing) and has
    acknowledged nothing since the write."""
    info = _tcp_info(sock)
    return before is not None and info == (_CLOSE_WAIT, before)


def _keeps_alive(raw: BaseHTTPResponse) -> bool:
    if raw.status < 200:  # 101: what follows is another protocol
        return False
    connection = raw.headers.get("connection", "").lower()
    if "close" in connection or (raw.version == 10 and "keep-alive" not in connection):
        return False
    # A body that only ends with the connection; or one that must not be there, and may yet come.
    length = raw.headers.get("content-length")
    if raw.status in (204, 304):
        return raw.status == 304 or (length in (None, "0") and not raw.chunked)
    return length is not None or raw.chunked


class _Final(requests.Response):
    """Not followed, and not looked at for being followed: Session.send prepares the request after
    a redirect even where redirects are off, and fails over what it finds there."""

    is_redirect = False


def _response(request: GatedRequest, raw: BaseHTTPResponse, body: bytes) -> requests.Response:
    response = _Final()
    response.status_code = raw.status
    response.headers = CaseInsensitiveDict(raw.headers)
    response.reason = raw.reason or ""
    response.url = request.url or ""
    response.request = request
    response._content = body
    response._content_consumed = True  # type: ignore[attr-defined]
    return response


def _cause(error: BaseException) -> str:
    """A stable word for why no reply came."""
    if isinstance(error, (TimeoutError, urllib3.exceptions.ReadTimeoutError)):
        return "timeout"
    if isinstance(error, (http.client.RemoteDisconnected, http.client.IncompleteRead)):
        return "eof"
    if isinstance(error, ConnectionError):
        return "reset"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        inner = error.args[1] if len(error.args) > 1 else None
        return _cause(inner) if isinstance(inner, Exception) else "eof"
    if isinstance(error, (http.client.HTTPException, urllib3.exceptions.HTTPError)):
        return "unreadable"
    return "reset"
