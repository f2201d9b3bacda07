"""The connections of one worker process: never more open than its share of the account's.

A sender thread **enters** (one of at most `limit` busy places), checks a connection out, uses it,
checks it in and **leaves**. No connection is opened while there are as many as the limit, idle ones
included. The limit is this worker's share, renewed by its heartbeat; when it shrinks, idle
connections go at once and busy ones when they are checked in, and a thread that had entered before
may find no room.

Where a destination has several URLs, routes.py says to which of them a request should go. An idle
connection there is used, else one is opened; at the limit an idle one to another URL is closed for
it, or used instead. Connections to a URL that was left are closed as soon as they are idle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from paceline_workers.outcome import GUARDED
from paceline_workers.transports.base import NoRoom, Places
from paceline_workers.transports.connection import Connector, Link, TransportError
from paceline_workers.transports.idle import IdleLinks, Retirement
from paceline_workers.transports.routes import Pick, Routes, UrlRoute, Why

__all__ = ["ConnectionPool", "NoRoom", "Retirement"]


class ConnectionPool(Places):
    """All connections of this process to one destination. Thread-safe.

    ``connectors``: one for each URL of the destination. ``rand`` gives 0..1.
    ``on_health(number, healthy)`` is told, by the thread that found out, when a URL is left or used
    again; never where there is only one.
    """

    def __init__(
        self,
        connectors: list[Connector],
        retirement: Retirement,
        *,
        clock: Callable[[], float],
        rand: Callable[[], float],
        on_health: Callable[[int, bool], None] = lambda _number, _healthy: None,
    ) -> None:
        super().__init__()
        self._connectors = connectors
        several = len(connectors) > 1
        self._routes = Routes(len(connectors), clock=clock, rand=rand) if several else None
        self._on_health = on_health
        self._retirement = retirement
        self._clock = clock
        self._rand = rand
        #: URLs that the guard refused when they were last tried.
        self._guarded: set[int] = set()
        self._out = 0  # links checked out, or being opened
        self.counts: Counter[str] = Counter()
        self._idle = IdleLinks(retirement, self.counts, clock=clock)

    def set_limit(self, limit: int) -> None:
        """A new share; idle connections over it are closed at once."""
        with self._changed:
            self._limit = limit
            while self._idle and self._out + len(self._idle) > limit:
                self._idle.close_oldest("over-limit")
            self._changed.notify_all()

    @property
    def open_connections(self) -> int:
        """Connections open now, or being opened."""
        with self._changed:
            return self._out + len(self._idle)

    def checkout(self, before_connect: Callable[[], None] = lambda: None, _url: str = "") -> Link:
        """A connection on which nothing is under way: an idle one, or a new one; then
        ``before_connect`` is called first. The request's URL is not looked at: the pool has its
        own.

        The caller has entered. Raises NoRoom; TransportError (phase connect) where none can be
        opened: with several URLs, to neither of two. Its cause is the guard only where the guard
        refuses every URL: the message is given up then.
        """
        found = self._find()
        if isinstance(found, Link):
            return found
        try:
            return self._open(found, before_connect)
        except TransportError:
            # Nothing was written, so it is safe to go elsewhere. Once: a connect can take long.
            other = None if found is None else self._find_other(found.route)
            if other is None:
                raise
        return other if isinstance(other, Link) else self._open(other, before_connect)

    def _find(self) -> Link | Pick | None:
        """An idle connection, or where to open one (None: to the only URL); counted as out."""
        with self._changed:
            if self._routes is not None:
                return self._find_for(self._routes, self._routes.choose())
            link = self._pop_idle(None)
            if link is None:
                self._take_room()
            return link

    def _find_other(self, failed: UrlRoute) -> Link | Pick | None:
        """As ``_find``, to another URL that is healthy; None where none is."""
        with self._changed:
            if self._routes is None:
                return None
            pick = self._routes.instead_of(failed)
            return None if pick is None else self._find_for(self._routes, pick)

    def _find_for(self, routes: Routes, pick: Pick) -> Link | Pick:
        link = self._pop_idle(pick.route)
        if link is None and self._idle and self._out + len(self._idle) >= self._limit:
            at_hand = self._idle.routes()
            instead = routes.content_with(pick, at_hand)
            if instead is None:
                self._idle.close_oldest("moved", routes.dearest(at_hand))
            else:
                link = self._pop_idle(instead)
                pick = pick if link is None else Pick(instead)
        if link is None:
            self._take_room()
        routes.took(pick)
        return link or pick

    def _take_room(self) -> None:
        if self._out + len(self._idle) >= self._limit:
            raise NoRoom
        self._out += 1

    def _pop_idle(self, route: UrlRoute | None) -> Link | None:
        link = self._idle.pop(route)
        if link is not None:
            self._out += 1
            self.counts["reused"] += 1
        return link

    def _open(self, pick: Pick | None, before_connect: Callable[[], None]) -> Link:
        route = None if pick is None else pick.route
        probe = pick is not None and pick.why is Why.PROBE
        number = 0 if route is None else route.number
        connector = self._connectors[number]
        before_s = self._clock()
        try:
            before_connect()
            before_s = self._clock()
            wire = connector.open()
        except BaseException as error:
            good = False if isinstance(error, TransportError) else None
            spent_s = self._clock() - before_s
            with self._changed:
                self._out -= 1
                self.counts["failed"] += 1
                changed = self._judge(route, good, spent_s, probe=probe)
                self._guarded.discard(number)
                guarded = isinstance(error, TransportError) and error.failure.cause == GUARDED
                if guarded:
                    self._guarded.add(number)
                elsewhere = len(self._guarded) < len(self._connectors)
            if changed is not None:
                self._on_health(changed.number, changed.healthy)
            if isinstance(error, TransportError) and guarded and elsewhere:
                # The others are in trouble, or not tried: not for good, as far as is known.
                raise TransportError(replace(error.failure, cause="unreachable")) from error
            raise
        now = self._clock()
        with self._changed:
            self.counts["opened"] += 1
            self._guarded.discard(number)
        return Link(
            wire,
            connector.target,
            opened_s=now,
            retire_s=now + self._retirement.life_s(self._rand()),
            used_s=now,
            route=route,
            probe=probe,
        )

    def checkin(self, link: Link, good: bool | None = None, spent_s: float | None = None) -> None:
        """Returns a connection; a broken or retired one is closed.

        ``good``: whether its request was answered by a URL in health, None where none was made or
        nothing is known; ``spent_s``: from its first byte to the reply's last, or to the failure.
        """
        with self._changed:
            self._out -= 1
            link.used_s = self._clock()
            changed = None
            if link.route is not None:
                changed = self._judge(link.route, good, spent_s, probe=link.probe)
                link.probe = False
            why = "broken" if link.broken else self._idle.why_retire(link, link.used_s)
            if why is None and self._out + len(self._idle) >= self._limit:
                why = "over-limit"
            if why is not None:
                self._idle.close(link, why)
            else:
                self._idle.push(link)
        if changed is not None:
            self._on_health(changed.number, changed.healthy)

    def outlived(self, link: Link) -> bool:
        """Whether a connection that is checked out, and not in use yet, is over its age or its idle
        time: it waited at the gate with its request. Checked in, it is closed then."""
        return self._idle.outlived(link)

    def _judge(
        self, route: UrlRoute | None, good: bool | None, spent_s: float | None, *, probe: bool
    ) -> UrlRoute | None:
        """Under the lock. Returns the URL if its health changed; idle connections to those that
        are left are closed then."""
        if route is None or self._routes is None:
            return None
        if not self._routes.judge(route, good, spent_s, probe=probe):
            return None
        self._idle.retire()
        return route

    def has_other(self, link: Link) -> bool:
        """Whether there is a healthy URL beside the one that a connection leads to."""
        with self._changed:
            if self._routes is None or link.route is None:
                return False
            return self._routes.instead_of(link.route) is not None

    def route_facts(self) -> list[dict[str, Any]]:
        """Health and latency of each URL, in the order of ``connectors``; [] where there is one."""
        with self._changed:
            return [] if self._routes is None else [it.facts() for it in self._routes.all]

    def trim(self) -> None:
        """Retires idle connections that went over age or idle time."""
        with self._changed:
            self._idle.retire()

    def close(self) -> None:
        """Closes all idle connections; those checked out are closed when they come back."""
        self.set_limit(0)
