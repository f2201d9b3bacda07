"""The connections of one worker process: never more open than its share of the account's.

A sender thread **enters** (one of at most `limit` busy places), checks a connection out, uses it,
checks it in and **leaves**. No connection is opened while there are as many as the limit, idle ones
included. The limit is this worker's share, renewed by its heartbeat; when it shrinks, idle
connections go at once and busy ones when they are checked in, and a thread that had entered before
may find no room.

Connections retire by age first (jittered, so that ten opened together are not replaced together),
then by count of requests, then by idle time, which must stay below the peer's keep-alive. The
stack's top is used first; `trim`, called by the heartbeat, retires what goes stale at its bottom.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from paceline_workers.transports.connection import Connector, Link


class NoRoom(Exception):
    """No connection is free and none may be opened: the share shrank after this thread entered."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """When a connection is replaced: seconds of age, requests, seconds idle."""

    max_age_s: float = 900.0
    max_requests: int = 10_000
    idle_s: float = 20.0


class ConnectionPool:
    """All connections of this process to one destination. Thread-safe.

    ``connectors`` are asked in turn, one for each URL of the destination. ``rand`` gives 0..1.
    """

    def __init__(
        self,
        connectors: list[Connector],
        retirement: Retirement,
        *,
        clock: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:
        self._connectors = connectors
        self._retirement = retirement
        self._clock = clock
        self._rand = rand
        self._changed = threading.Condition()
        self._limit = 0
        self._busy = 0
        self._idle: list[Link] = []
        self._out = 0  # links checked out, or being opened
        self._turn = 0
        self.counts: Counter[str] = Counter()

    @property
    def limit(self) -> int:
        """How many connections this process may have open."""
        return self._limit

    def set_limit(self, limit: int) -> None:
        """A new share; idle connections over it are closed at once."""
        with self._changed:
            self._limit = limit
            self._fit(limit)
            self._changed.notify_all()

    @property
    def open_connections(self) -> int:
        """Connections open now, or being opened."""
        with self._changed:
            return self._out + len(self._idle)

    def enter(self, timeout_s: float) -> bool:
        """Takes a busy place; False when none was free in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._busy < self._limit, timeout_s):
                return False
            self._busy += 1
            return True

    def may_stay(self) -> bool:
        """Whether one that has entered may go on; not so when the share has shrunk."""
        return self._busy <= self._limit

    def leave(self) -> None:
        """Gives the busy place back."""
        with self._changed:
            self._busy -= 1
            self._changed.notify()

    def checkout(self, before_connect: Callable[[], None] = lambda: None) -> Link:
        """A connection on which nothing is under way: an idle one, or a new one; then
        ``before_connect`` is called first.

        The caller has entered. Raises NoRoom; TransportError (phase connect) where none can be
        opened.
        """
        with self._changed:
            now = self._clock()
            while self._idle:
                link = self._idle.pop()
                why = self._why_retire(link, now)
                if why is None and link.is_quiet():
                    self._out += 1
                    self.counts["reused"] += 1
                    return link
                self._close(link, why or "closed-by-peer")
            if self._out >= self._limit:
                raise NoRoom
            self._out += 1
            self._turn += 1
            connector = self._connectors[self._turn % len(self._connectors)]
        try:
            before_connect()
            wire = connector.open()
        except BaseException:
            with self._changed:
                self._out -= 1
                self.counts["failed"] += 1
            raise
        now = self._clock()
        life_s = self._retirement.max_age_s * (0.9 + 0.1 * self._rand())
        with self._changed:
            self.counts["opened"] += 1
        return Link(wire, connector.target, opened_s=now, retire_s=now + life_s, used_s=now)

    def checkin(self, link: Link) -> None:
        """Returns a connection; a broken or retired one is closed."""
        with self._changed:
            self._out -= 1
            link.used_s = self._clock()
            why = "broken" if link.broken else self._why_retire(link, link.used_s)
            if why is None and self._out + len(self._idle) >= self._limit:
                why = "over-limit"
            if why is not None:
                self._close(link, why)
            else:
                self._idle.append(link)

    def trim(self) -> None:
        """Retires idle connections that went over age or idle time."""
        with self._changed:
            now = self._clock()
            kept = []
            for link in self._idle:
                why = self._why_retire(link, now)
                if why is None:
                    kept.append(link)
                else:
                    self._close(link, why)
            self._idle = kept

    def close(self) -> None:
        """Closes all idle connections; those checked out are closed when they come back."""
        self.set_limit(0)

    def _fit(self, room: int) -> None:
        while self._idle and self._out + len(self._idle) > room:
            self._close(self._idle.pop(0), "over-limit")

    def _why_retire(self, link: Link, now: float) -> str | None:
        if now >= link.retire_s:
            return "age"
        if link.requests >= self._retirement.max_requests:
            return "count"
        if now - link.used_s >= self._retirement.idle_s:
            return "idle"
        return None

    def _close(self, link: Link, why: str) -> None:
        self.counts["closed:" + why] += 1
        link.close()
