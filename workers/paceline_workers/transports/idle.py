"""The connections of a pool that nobody uses just now: which to use next, which to close and why.

The one used last is used first. They retire by age first (jittered by the pool, so that ten opened
together are not replaced together), then by count of requests, then by idle time, which must stay
below the peer's keep-alive: the stack's bottom goes stale, so ``retire`` is called now and then.

Not thread-safe: the pool asks under its lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from paceline_workers.transports.connection import Link
from paceline_workers.transports.routes import UrlRoute


@dataclass(frozen=True, slots=True)
class Retirement:
    """When a connection is replaced: seconds of age, requests, seconds idle."""

    max_age_s: float = 900.0
    max_requests: int = 10_000
    idle_s: float = 20.0


class IdleLinks:
    """A stack of open connections. What is closed is counted in ``counts``, by reason."""

    def __init__(
        self, retirement: Retirement, counts: Counter[str], *, clock: Callable[[], float]
    ) -> None:
        self._retirement = retirement
        self._counts = counts
        self._clock = clock
        self.links: list[Link] = []

    def __len__(self) -> int:
        return len(self.links)

    def routes(self) -> set[UrlRoute]:
        """The URLs they lead to, where the destination has several."""
        return {link.route for link in self.links if link.route is not None}

    def push(self, link: Link) -> None:
        """One that has just been used."""
        self.links.append(link)

    def pop(self, route: UrlRoute | None) -> Link | None:
        """The one to this URL that was used last and is sound still. Closes those that are not."""
        now = self._clock()
        for at in range(len(self.links) - 1, -1, -1):
            link = self.links[at]
            if link.route is not route:
                continue
            del self.links[at]
            why = self.why_retire(link, now)
            if why is None and link.is_quiet():
                return link
            self.close(link, why or "closed-by-peer")
        return None

    def close_oldest(self, why: str, route: UrlRoute | None = None) -> None:
        """Closes the one that was used longest ago, of those to ``route`` where that is given."""
        for at, link in enumerate(self.links):
            if route is None or link.route is route:
                self.close(self.links.pop(at), why)
                return

    def retire(self) -> None:
        """Closes those whose time is over, and those to a URL that was left."""
        now = self._clock()
        kept = []
        for link in self.links:
            why = self.why_retire(link, now)
            if why is None:
                kept.append(link)
            else:
                self.close(link, why)
        self.links = kept

    def why_retire(self, link: Link, now: float) -> str | None:
        """Why a connection, idle or not, is not to be used again; None: it is."""
        if now >= link.retire_s:
            return "age"
        if link.requests >= self._retirement.max_requests:
            return "count"
        if now - link.used_s >= self._retirement.idle_s:
            return "idle"
        if link.route is not None and link.is_left():
            return "url-left"
        return None

    def close(self, link: Link, why: str) -> None:
        """Closes a connection, idle or not."""
        self._counts["closed:" + why] += 1
        link.close()
