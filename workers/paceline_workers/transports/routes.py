"""Which of a destination's URLs gets the next request: the load follows health and latency. Pure.

**Health.** A URL is *left* when its bad answers exceed the good ones by `LEAVE_AT`, counted from
the last time they were even. So one that is dead is left after ten requests, one where three of
four fail after about twenty, where half of them fail after about a hundred; where one in four
fails it stays: by chance alone that many in excess come once in 177,000 answers. ("Five in a row",
or "ten of the last twenty", comes by chance once in 700, or in 400.) A failure that took seconds
counts for more, up to five: each holds a connection meanwhile, so two time-outs are enough. A URL
that was left is probed by one request after 10 s, then 20, 40, 60, until a probe succeeds; it is
half trusted then. Where all have been left all are used, for an outage of everything is the
destination's breaker's matter.

**Latency.** The cost of a URL is (requests in flight + 1) · its smoothed latency, and the cheapest
gets the next request. Costs are blurred, so that URLs about as fast as each other share the load
even where requests come one by one. One that was long passed over gets a request now and then, for
it may have become fast.

Not thread-safe: the pool asks under its lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

#: So many more bad answers than good ones, and the URL is left.
LEAVE_AT = 10
#: For how many bad answers one counts at most, that took as many seconds less one.
HEAVIEST = 5
#: Seconds until the first probe; the wait doubles with each that fails, to the cap.
PROBE_FIRST_S = 10.0
PROBE_CAP_S = 60.0
#: Of the smoothed latency, what is older than this (seconds) weighs a third.
SMOOTHING_S = 3.0
#: Costs are blurred by up to this part of them: so much may two URLs differ and share the load.
BLUR = 0.5
#: A URL passed over for so long (seconds), and for so many requests, gets the next one.
LOOK_AFTER_S = 10.0
LOOK_ONE_IN = 20
#: A connection is closed for one to another URL only where that costs so much less, and only so
#: often (seconds): connections that stay open are worth more than the last bit of balance.
MOVE_GAIN = 1.5
MOVE_EVERY_S = 0.5


@dataclass(slots=True, eq=False)
class UrlRoute:
    """One URL, number ``number`` of the destination's.

    usable      requests may go there: it is healthy, or no URL is
    in_flight   connections to it that are checked out or being opened
    requests    that ended one way or the other; a connection that could not be opened counts as one
    latency_s   smoothed, of good answers only: an error comes quickly, and is no merit
    excess      bad answers beyond the good ones, slow ones counted manifold; 0 to LEAVE_AT
    """

    number: int
    healthy: bool = True
    usable: bool = True
    in_flight: int = 0
    requests: int = 0
    failures: int = 0
    latency_s: float | None = None
    excess: int = 0
    probing: bool = False
    wait_s: float = 0.0
    probe_at_s: float = 0.0
    measured_s: float = 0.0
    chosen_s: float = 0.0
    chosen_turn: int = field(default=0)

    def facts(self) -> dict[str, Any]:
        """For people: ``healthy``, ``latency_s`` (None: not known), ``requests``, ``failures``."""
        latency_s = None if self.latency_s is None else round(self.latency_s, 6)
        return {
            "healthy": self.healthy,
            "latency_s": latency_s,
            "requests": self.requests,
            "failures": self.failures,
        }


class Why(Enum):
    """CHEAPEST; PROBE of one that was left; LOOK at one that was long passed over."""

    CHEAPEST = "cheapest"
    PROBE = "probe"
    LOOK = "look"


class Pick(NamedTuple):
    """The URL for one request, and why this one."""

    route: UrlRoute
    why: Why = Why.CHEAPEST


class Routes:
    """All URLs of a destination. ``clock`` in monotonic seconds, ``rand`` uniform in [0, 1)."""

    def __init__(
        self, count: int, *, clock: Callable[[], float], rand: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._rand = rand
        now = clock()
        self.all = [UrlRoute(number, chosen_s=now) for number in range(count)]
        self._turn = 0
        self._moved_s = -math.inf

    # -- the choice -------------------------------------------------------------------------

    def choose(self) -> Pick:
        """Where the next request should go. Nothing is noted: call ``took`` when it goes."""
        now = self._clock()
        for route in self.all:
            if not route.usable and not route.probing and now >= route.probe_at_s:
                return Pick(route, Why.PROBE)
        usable = [route for route in self.all if route.usable]
        for route in usable:
            unseen = self._turn - route.chosen_turn
            if unseen >= LOOK_ONE_IN and now - route.chosen_s >= LOOK_AFTER_S:
                return Pick(route, Why.LOOK)
        return Pick(self._cheapest(usable, blur=BLUR))

    def instead_of(self, failed: UrlRoute) -> Pick | None:
        """Where a request goes that could not even be connected to ``failed``: to a healthy one,
        or nowhere."""
        others = [route for route in self.all if route.healthy and route is not failed]
        return Pick(self._cheapest(others)) if others else None

    def content_with(self, pick: Pick, at_hand: Iterable[UrlRoute]) -> UrlRoute | None:
        """No more connections may be opened, and idle ones are ``at_hand`` (not of the URL picked):
        the one of these to be used instead; None where one of ``dearest`` should be closed to make
        room."""
        if pick.why is not Why.CHEAPEST:
            return None
        best = self._cheapest(at_hand)
        if self._cost(best) <= MOVE_GAIN * self._cost(pick.route):
            return best
        now = self._clock()
        # One that begins to fail is not spared: the sooner it is known, the better.
        if now - self._moved_s < MOVE_EVERY_S and not pick.route.excess:
            return best
        self._moved_s = now
        return None

    def dearest(self, at_hand: Iterable[UrlRoute]) -> UrlRoute:
        """The one that can best do with a connection less."""
        return max(at_hand, key=self._cost)

    def took(self, pick: Pick) -> None:
        """A request goes there; ``judge`` must follow."""
        route = pick.route
        route.in_flight += 1
        route.chosen_s = self._clock()
        self._turn += 1
        route.chosen_turn = self._turn
        if pick.why is Why.PROBE:
            route.probing = True

    def _cheapest(self, routes: Iterable[UrlRoute], blur: float = 0.0) -> UrlRoute:
        return min(routes, key=lambda route: self._cost(route) * (1.0 + blur * self._rand()))

    def _cost(self, route: UrlRoute) -> float:
        latency_s = route.latency_s
        if latency_s is None:
            # Twice as fast as the fastest until it is known: so it is tried soon, and does not get
            # everything meanwhile.
            known = (it.latency_s for it in self.all if it.latency_s is not None)
            latency_s = 0.5 * min(known, default=1.0)
        return (route.in_flight + 1) * latency_s

    # -- health and latency -----------------------------------------------------------------

    def judge(
        self, route: UrlRoute, good: bool | None, spent_s: float | None, *, probe: bool
    ) -> bool:
        """How a request that ``took`` ended, and after how long on the wire or in connecting.
        ``good`` None: nothing was learned (it was called off). Returns whether the URL's health
        changed."""
        route.in_flight -= 1
        if probe:
            route.probing = False
        if good is None:
            return False
        route.requests += 1
        if not good:
            route.failures += 1
            return self._fails(route, spent_s or 0.0, probe=probe)
        changed = not route.healthy and (probe or route.usable)
        if changed:
            self._welcome(route)
        else:
            route.excess = max(0, route.excess - 1)
        if spent_s is not None:
            self._measure(route, spent_s)
        return changed

    def _fails(self, route: UrlRoute, spent_s: float, *, probe: bool) -> bool:
        now = self._clock()
        if probe:
            route.wait_s = min(PROBE_CAP_S, 2.0 * route.wait_s)
            route.probe_at_s = now + route.wait_s
            return False
        route.excess = min(LEAVE_AT, route.excess + min(HEAVIEST, 1 + int(spent_s)))
        if route.excess < LEAVE_AT or not route.healthy:
            return False
        route.healthy = False
        route.wait_s = PROBE_FIRST_S
        route.probe_at_s = now + PROBE_FIRST_S
        self._reckon_usable()
        return True

    def _welcome(self, route: UrlRoute) -> None:
        route.healthy = True
        # One good answer is half the proof: if it fails again, it is left the sooner.
        route.excess = LEAVE_AT // 2
        self._reckon_usable()

    def _measure(self, route: UrlRoute, latency_s: float) -> None:
        now = self._clock()
        if route.latency_s is None:
            route.latency_s = latency_s
        else:
            # By time and not by count: the same at ten requests a second and at a thousand.
            weight = 1.0 - math.exp((route.measured_s - now) / SMOOTHING_S)
            route.latency_s += weight * (latency_s - route.latency_s)
        route.measured_s = now

    def _reckon_usable(self) -> None:
        none_healthy = not any(route.healthy for route in self.all)
        for route in self.all:
            route.usable = route.healthy or none_healthy
