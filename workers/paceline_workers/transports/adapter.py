"""requests' adapter on our pool: connect, then the gate, then the write.

The gate must be asked when the connection is up and the very next thing is the first byte: name
look-up, TCP and TLS can take seconds, and a permit drawn before them would be spent late. requests'
own adapter hides the moment inside urllib3, which also retries, swallows errors of the write and
closes connections on any error it does not know; so this adapter performs the three steps itself,
on connections of its own (http1.py writes and reads).

One adapter is shared by all sender threads, each with its own Session.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from paceline_workers.outcome import Failure
from paceline_workers.transports.base import Pool
from paceline_workers.transports.connection import Link, TransportError, is_readable
from paceline_workers.transports.http1 import (
    CutShort,
    RawReply,
    Unreadable,
    read_reply,
    request_bytes,
)
from paceline_workers.transports.tcp_state import CLOSE_WAIT, tcp_state
from paceline_workers.transports.watchdog import Watchdog

#: At most this much of a reply is read; a provider's answer is small, and a hostile one is not.
REPLY_BYTES = 256 * 1024
#: A permit older than this at the write is asked for again: the worker may have been frozen.
STALE_PERMIT_S = 0.1
#: They speak of what stands behind a URL, not of the request.
_BAD_STATUSES = frozenset({502, 503, 504})

Gate = Callable[[], float]

_NO_REPLY = (OSError, CutShort, Unreadable)


class GatedRequest(requests.PreparedRequest):
    """A prepared request with the gate that must be passed before its first byte.

    ``gate()`` blocks until a permit's time has come and returns that moment, on the clock
    ``elapsed_s``; or raises to call the request off (nothing was written then).
    ``target`` is the path, with its query, that is asked for where the URL is the request's own and
    not the pool's. ``suffix`` goes behind the path, ``sibling`` in the place of its last segment.
    ``tells``: whether its answer, or that there is none, speaks of the health of its URL.
    ``before_connect()`` is called where a new connection must be opened first, which may take
    seconds. ``wire_s`` and ``latency_s`` are filled in: when the first byte was written (monotonic
    seconds; None: never) and the seconds from it to the last byte read. ``elsewhere`` is set where
    it failed and the destination has another URL in health: the trouble is one URL's then.
    """

    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        gate: Gate,
        before_connect: Callable[[], None] = lambda: None,
        *,
        target: str = "",
        suffix: str = "",
        sibling: str = "",
        tells: bool = True,
    ) -> None:
        super().__init__()
        self.target = target
        self.suffix = suffix
        self.sibling = sibling
        self.tells = tells
        self.method = method
        self.url = url
        # As they are: nothing looks one up here, and a copy for each request costs.
        self.headers = headers  # type: ignore[assignment]
        self.body = body
        self.gate = gate
        self.before_connect = before_connect
        self.wire_s: float | None = None
        self.latency_s: float | None = None
        self.truncated = False
        self.elsewhere = False


class GatedAdapter(BaseAdapter):
    """Sends GatedRequests over the connections of a pool.

    ``monotonic_s`` measures latency and the total deadline, ``elapsed_s`` (which runs through
    suspends) the age of a permit. Raises TransportError for a request without a reply, NoRoom where
    no connection may be opened any more, and what the gate raises. ``trace`` is called with each
    request when its first byte is next.
    """

    def __init__(
        self,
        pool: Pool,
        watchdog: Watchdog,
        *,
        total_timeout_s: float,
        monotonic_s: Callable[[], float],
        elapsed_s: Callable[[], float],
        trace: Callable[[GatedRequest, Link], None] | None = None,
    ) -> None:
        super().__init__()
        self._pool = pool
        self._watchdog = watchdog
        self._total_timeout_s = total_timeout_s
        self._monotonic_s = monotonic_s
        self._elapsed_s = elapsed_s
        self._trace = trace

    def close(self) -> None:
        """Sessions close their adapters; the pool outlives them."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """One request, one reply."""
        if not isinstance(request, GatedRequest):
            raise TypeError("only GatedRequest passes here: anything else would evade the gate")
        link = self._ready_link(request)
        good: bool | None = None
        try:
            response = self._exchange(request, link)
            good = response.status_code not in _BAD_STATUSES
            return response
        except BaseException as error:
            # A reply may still be under way on this connection: it is not for reuse.
            link.broken = True
            if isinstance(error, TransportError):
                good = False
            raise
        finally:
            if good is False:
                request.elsewhere = self._pool.has_other(link)
            self._pool.checkin(link, good if request.tells else None, request.latency_s)

    def _ready_link(self, request: GatedRequest) -> Link:
        """An open connection and a permit whose time has come, both fresh."""
        link = self._pool.checkout(request.before_connect, request.url or "")
        renewed = False
        while True:
            try:
                due_s = request.gate()
            except BaseException:
                self._pool.checkin(link)
                raise
            # During the wait, however short, the peer may have closed it, or the others have found
            # that its URL fails; and it may have become too old. That once only: where permits
            # come more rarely than connections live, and one takes long to open, it would draw
            # permits for ever.
            over = not renewed and self._pool.outlived(link)
            renewed = renewed or over
            if over or not link.is_quiet() or link.is_left():
                self._pool.checkin(link)
                link = self._pool.checkout(request.before_connect, request.url or "")
            if self._elapsed_s() - due_s <= STALE_PERMIT_S:
                return link

    def _exchange(self, request: GatedRequest, link: Link) -> requests.Response:
        sock = link.wire.sock
        fields = link.wire.fields
        pieces = request_bytes(
            request.method or "POST",
            _target(link.target, request),
            link.wire.host,
            {**request.headers, **fields} if fields else request.headers,
            request.body,  # type: ignore[arg-type]
        )
        before = link.wire.acked()
        request.wire_s = self._monotonic_s()
        guarded = self._watchdog.guard(sock, request.wire_s + self._total_timeout_s)
        link.requests += 1
        try:
            if self._trace is not None:
                self._trace(request, link)
            raw = _converse(pieces, link)
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
            if not raw.ends_itself:
                # An answer without a length looks complete when its socket is shut down.
                raise TransportError(Failure("read", "deadline", False))
        request.truncated = len(raw.body) > REPLY_BYTES
        if request.truncated or not raw.keeps_alive:
            link.broken = True
        return _Final(request, raw)


def with_suffix(target: str, suffix: str) -> str:
    """A request target with its path made longer; its query stays."""
    path, mark, query = target.partition("?")
    return f"{path.rstrip('/')}{suffix}{mark}{query}"


def with_sibling(target: str, sibling: str) -> str:
    """A request target with another last segment of its path; its query stays."""
    path, mark, query = target.partition("?")
    origin = _origin(path)
    folder = path[len(origin) :].rstrip("/").rpartition("/")[0]
    return f"{origin}{folder}/{sibling}{mark}{query}"


def _origin(target: str) -> str:
    """To a proxy a target is a whole URL, in which the first two slashes are not the path's."""
    whole = re.match(r"https?://[^/]*", target)
    return whole[0] if whole else ""


def _target(target: str, request: GatedRequest) -> str:
    if request.target:
        target = _origin(target) + request.target
    if request.suffix:
        return with_suffix(target, request.suffix)
    return with_sibling(target, request.sibling) if request.sibling else target


def _converse(pieces: list[bytes], link: Link) -> RawReply:
    """Writes the request, reads the reply."""
    unwritten: OSError | None = None
    sock = link.wire.sock
    try:
        link.wire.write(pieces)
    except OSError as error:
        # The peer may have answered before it closed, or before it stopped reading (413, 401). The
        # answer, if there is one, is worth more than the error.
        link.broken = True
        if _is_timeout(error) and not is_readable(sock):
            raise TransportError(Failure("write", "timeout", False, str(error)[:300])) from error
        unwritten = error
    try:
        return read_reply(link.wire.read, REPLY_BYTES)
    except _NO_REPLY as error:
        if unwritten is not None:
            failure = Failure("write", _cause(unwritten), False, str(unwritten)[:300])
            raise TransportError(failure) from unwritten
        raise TransportError(Failure("read", _cause(error), False, str(error)[:300])) from error


def _is_unreceived(sock: socket.socket, before: int | None) -> bool:
    """Whether the peer closed before a byte of the request had reached its system: it closed in
    order (CLOSE_WAIT: a FIN and no reset, for after a reset the counter proves nothing) and has
    acknowledged nothing since the write."""
    after = tcp_state(sock)
    if before is None or after is None:
        return False
    return (after.state, after.acked) == (CLOSE_WAIT, before)


class _Final(requests.Response):
    """Not followed, and not looked at for being followed: Session.send prepares the request after
    a redirect even where redirects are off, and fails over what it finds there."""

    is_redirect = False

    def __init__(self, request: GatedRequest, raw: RawReply) -> None:
        # Not the base class's: it makes a cookie jar for every response, and none is ever used.
        self._content = raw.body[:REPLY_BYTES]
        self._content_consumed = True
        self._next = None
        self.status_code = raw.status
        self.headers = CaseInsensitiveDict(_joined(raw.headers))
        self.raw = None
        self.url = request.url or ""
        self.encoding = None
        self.history = []
        self.reason = raw.reason
        self.elapsed = timedelta(0)
        self.request = request


def _joined(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Fields of one name as one, with commas (RFC 9110, 5.2)."""
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _is_timeout(error: BaseException) -> bool:
    """BlockingIOError: what the system's own time-out (SO_SNDTIMEO) looks like."""
    return isinstance(error, TimeoutError | BlockingIOError)


def _cause(error: BaseException) -> str:
    """A stable word for why no reply came."""
    if _is_timeout(error):
        return "timeout"
    if isinstance(error, CutShort):
        return "eof"
    if isinstance(error, Unreadable):
        return "unreadable"
    return "reset"
