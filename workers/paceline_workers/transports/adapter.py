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
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import requests
import urllib3.connection
import urllib3.exceptions
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.response import BaseHTTPResponse

from paceline_workers.outcome import Failure
from paceline_workers.transports.connection import Link, TransportError
from paceline_workers.transports.pool import ConnectionPool
from paceline_workers.transports.watchdog import Watchdog

#: At most this much of a reply is read; a provider's answer is small, and a hostile one is not.
REPLY_BYTES = 256 * 1024
#: A permit older than this at the write is asked for again: the worker may have been frozen.
STALE_PERMIT_S = 0.1

Gate = Callable[[], float]


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
    suspends) the age of a permit. Raises TransportError for a request without a reply, and what
    the gate raises.
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
        conn = link.http
        assert conn.sock is not None
        request.wire_s = self._monotonic_s()
        guarded = self._watchdog.guard(conn.sock, request.wire_s + self._total_timeout_s)
        link.requests += 1
        try:
            response = self._converse(request, conn, link)
        except TransportError as error:
            if guarded.fired:
                raise TransportError(Failure("read", "deadline", False)) from error
            raise
        finally:
            self._watchdog.release(guarded)
            request.latency_s = self._monotonic_s() - request.wire_s
        if guarded.fired:
            # An answer without a length looks complete when the socket is shut down under it.
            raise TransportError(Failure("read", "deadline", False))
        return response

    def _converse(
        self, request: GatedRequest, conn: urllib3.connection.HTTPConnection, link: Link
    ) -> requests.Response:
        try:
            conn.request(
                request.method or "POST",
                link.target,
                body=request.body,
                headers=request.headers,
                preload_content=False,
                decode_content=True,
            )
        except (BrokenPipeError, ConnectionResetError):
            # The peer closed while we wrote; it may have answered before (413, 401). The answer,
            # if there is one, is worth more than the error.
            link.broken = True
        except (OSError, ssl.SSLError, http.client.HTTPException) as error:
            raise TransportError(
                Failure("write", _cause(error), False, str(error)[:300])
            ) from error
        try:
            raw = conn.getresponse()
            body = raw.read(REPLY_BYTES + 1)
        except (
            OSError,
            ssl.SSLError,
            http.client.HTTPException,
            urllib3.exceptions.HTTPError,
        ) as error:
            raise TransportError(Failure("read", _cause(error), False, str(error)[:300])) from error
        request.truncated = len(body) > REPLY_BYTES
        if request.truncated or not _keeps_alive(raw):
            link.broken = True
        return _response(request, raw, body[:REPLY_BYTES])


def _keeps_alive(raw: BaseHTTPResponse) -> bool:
    connection = raw.headers.get("connection", "").lower()
    return "close" not in connection and (raw.version != 10 or "keep-alive" in connection)


def _response(request: GatedRequest, raw: BaseHTTPResponse, body: bytes) -> requests.Response:
    response = requests.Response()
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
