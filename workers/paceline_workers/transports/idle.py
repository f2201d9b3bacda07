"""The connections of a pool that nobody uses just now: which to use next, which to close and why.

The one used last is used first. They retire by age first (jittered by the pool, so that ten opened
together are not replaced together), then by count of requests, then by idle time, which must stay
below the peer's keep-alive: the stack's bottom goes stale, so ``retire`` is called now and then.

Not thread-safe: the pool asks under its lock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
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

    def life_s(self, chance: float) -> float:
        """How long a new one may live; ``chance`` is 0..1."""
        return self.max_age_s * (0.9 + 0.1 * chance)


class Ending:
    """When connections end. What is closed is counted in ``counts``, by reason."""

    def __init__(
        self, retirement: Retirement, counts: Counter[str], *, clock: Callable[[], float]
    ) -> None:
        self._retirement = retirement
        self._counts = counts
        self._clock = clock

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

    def outlived(self, link: Link) -> bool:
        """Whether a connection that is checked out, and not in use yet, is over its age or its idle
        time: it waited at the gate with its request. Checked in, it is closed then."""
        now = self._clock()
        if self.why_retire(link, now) is None:
            return False
        link.retire_s = min(link.retire_s, now)
        return True

    def is_sound(self, link: Link, now: float) -> bool:
        """Whether an idle one can be used; it is closed where not."""
        why = self.why_retire(link, now)
        if why is None and link.is_quiet():
            return True
        self.close(link, why or "closed-by-peer")
        return False

    def close(self, link: Link, why: str) -> None:
        """Closes a connection, idle or not."""
        self._counts["closed:" + why] += 1
        link.close()


class IdleLinks(Ending):
    """A stack of open connections."""

    def __init__(
        self, retirement: Retirement, counts: Counter[str], *, clock: Callable[[], float]
    ) -> None:
        super().__init__(retirement, counts, clock=clock)
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
            if self.is_sound(link, now):
                return link
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


class IdleByOrigin(Ending):
    """A stack for each origin (``Link.origin``): ``most`` connections in all, ``most_each`` to one
    origin. What is over that is closed, the one used longest ago first. However many origins there
    are, a push or a pop costs the same."""

    def __init__(
        self,
        retirement: Retirement,
        counts: Counter[str],
        *,
        clock: Callable[[], float],
        most: int,
        most_each: int,
    ) -> None:
        super().__init__(retirement, counts, clock=clock)
        self._most = most
        self._most_each = most_each
        #: By identity, the one used longest ago first; and so within each origin.
        self._all: OrderedDict[int, Link] = OrderedDict()
        self._to: dict[str, list[Link]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def push(self, link: Link) -> None:
        """One that has just been used."""
        if len(self._to.get(link.origin, ())) >= self._most_each:
            self.close(self._take(link.origin, 0), "over-limit")
        elif self._all and len(self._all) >= self._most:
            self.close_oldest("over-limit")
        if not self._most:
            self.close(link, "over-limit")
            return
        self._all[id(link)] = link
        self._to.setdefault(link.origin, []).append(link)

    def pop(self, origin: str) -> Link | None:
        """The one to this origin that was used last and is sound still. Closes those that are
        not."""
        now = self._clock()
        while origin in self._to:
            link = self._take(origin, -1)
            if self.is_sound(link, now):
                return link
        return None

    def close_oldest(self, why: str) -> None:
        """Closes the one that was used longest ago."""
        oldest = next(iter(self._all.values()))
        self.close(self._take(oldest.origin, 0), why)

    def retire(self) -> None:
        """Closes those whose time is over."""
        now = self._clock()
        for link in list(self._all.values()):
            why = self.why_retire(link, now)
            if why is not None:
                waiting = self._to[link.origin]
                # By identity: two may have equal fields.
                at = next(n for n, other in enumerate(waiting) if other is link)
                self.close(self._take(link.origin, at), why)

    def _take(self, origin: str, at: int) -> Link:
        waiting = self._to[origin]
        link = waiting.pop(at)
        if not waiting:
            del self._to[origin]
        del self._all[id(link)]
        return link
