"""The connections of one worker process to thousands of endpoints, each with messages of its own.

The limit is of requests in flight: a connection counts while it is checked out, or being opened.
With the idle ones counted, as in pool.py, a worker with 20 places would close one connection for
another at nearly every request. Idle ones are kept beside: `MAX_IDLE` in all, and a few to each
origin (scheme, host, port), which endpoints on one host share.

Nothing is known here of the health of an endpoint: Redis has its breaker, crowd.py sees to the
threads.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from paceline_workers.transports.base import NoRoom, Places
from paceline_workers.transports.connection import Connector, Link
from paceline_workers.transports.idle import IdleByOrigin, Retirement

#: Idle connections of a process: some file descriptors, and room for the endpoints in use.
MAX_IDLE = 256
MAX_IDLE_EACH = 4
#: So many origins' connectors are kept; one that is made again costs no more than a look at its
#: URL, where they share the TLS context.
MAX_CONNECTORS = 1_000


class EndpointPool(Places):
    """All connections of this process to one destination's endpoints. Thread-safe.

    ``connector_of(url)`` makes what opens connections to an origin, given its URL without a path.
    ``rand`` gives 0..1.
    """

    def __init__(
        self,
        connector_of: Callable[[str], Connector],
        retirement: Retirement,
        *,
        clock: Callable[[], float],
        rand: Callable[[], float],
        max_idle: int = MAX_IDLE,
    ) -> None:
        super().__init__()
        self._connector_of = connector_of
        self._connectors: OrderedDict[str, Connector] = OrderedDict()
        self._retirement = retirement
        self._clock = clock
        self._rand = rand
        self._closed = False
        self._out = 0  # links checked out, or being opened
        self.counts: Counter[str] = Counter()
        self._idle = IdleByOrigin(
            retirement, self.counts, clock=clock, most=max_idle, most_each=MAX_IDLE_EACH
        )

    @property
    def open_connections(self) -> int:
        """Connections in use now, or being opened: what a slot is for. Not the idle ones."""
        return self._out

    @property
    def idle_connections(self) -> int:
        """Connections that wait for their origin's next request."""
        return len(self._idle)

    def checkout(self, before_connect: Callable[[], None], url: str) -> Link:
        """A connection to the origin of ``url`` on which nothing is under way: an idle one, or a
        new one; then ``before_connect`` is called first.

        The caller has entered. Raises NoRoom; TransportError (phase connect) where none can be
        opened; ValueError for what is no URL.
        """
        origin = origin_of(url)
        with self._changed:
            if self._out >= self._limit:
                raise NoRoom
            self._out += 1
            link = self._idle.pop(origin)
            if link is not None:
                self.counts["reused"] += 1
                return link
        return self._open(origin, before_connect)

    def _open(self, origin: str, before_connect: Callable[[], None]) -> Link:
        try:
            before_connect()
            connector = self._connector(origin)
            wire = connector.open()
        except BaseException:
            with self._changed:
                self._out -= 1
                self.counts["failed"] += 1
            raise
        now = self._clock()
        with self._changed:
            self.counts["opened"] += 1
        return Link(
            wire,
            connector.target,
            opened_s=now,
            retire_s=now + self._retirement.life_s(self._rand()),
            used_s=now,
            origin=origin,
        )

    def _connector(self, origin: str) -> Connector:
        with self._changed:
            found = self._connectors.get(origin)
            if found is not None:
                self._connectors.move_to_end(origin)
                return found
        # Not under the lock: it may take files. Of two made at once the second stays.
        made = self._connector_of(origin)
        with self._changed:
            self._connectors[origin] = made
            if len(self._connectors) > MAX_CONNECTORS:
                self._connectors.popitem(last=False)
        return made

    def checkin(self, link: Link, _good: bool | None = None, _spent_s: float | None = None) -> None:
        """Returns a connection; a broken or retired one is closed."""
        with self._changed:
            self._out -= 1
            link.used_s = self._clock()
            why = "broken" if link.broken else self._idle.why_retire(link, link.used_s)
            if why is None and self._closed:
                why = "over-limit"
            if why is not None:
                self._idle.close(link, why)
            else:
                self._idle.push(link)

    def outlived(self, link: Link) -> bool:
        """Whether a connection that is checked out, and not in use yet, is over its age or its idle
        time. Checked in, it is closed then."""
        return self._idle.outlived(link)

    def has_other(self, _link: Link) -> bool:
        """No: a message is for its endpoint alone."""
        return False

    def route_facts(self) -> list[dict[str, Any]]:
        """None: there is no choice, and there may be thousands."""
        return []

    def trim(self) -> None:
        """Retires idle connections that went over age or idle time."""
        with self._changed:
            self._idle.retire()

    def close(self) -> None:
        """Closes all idle connections; those checked out are closed when they come back."""
        self.set_limit(0)
        with self._changed:
            self._closed = True
            while self._idle:
                self._idle.close_oldest("over-limit")


@lru_cache(maxsize=4096)
def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, as a URL: "https://example.com:443/". Raises ValueError."""
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("neither http:// nor https:// with a host")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
