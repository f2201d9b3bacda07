"""A provider and connections to it on a fake clock; the scripts are real, time is injected.

Each of ``connections`` asks for a permit, is answered after ``latency_s``, settles and asks again,
as workers do, in the order of time. What the provider answers is a function of the moment.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import redis

from contract.test_outbox_model import NUMBERS, START_US, FixedRun
from paceline import scripts
from paceline.answers import Settlement
from paceline.message import Message
from paceline.outbox import OutboxStore, new_nonce

SECOND = 1_000_000
_STEP_US, _CLOSED_US = 250_000, 2 * SECOND

#: (seconds since the beginning) -> action, health, and what else a Settlement holds.
Answer = Callable[[float], dict[str, Any]]

SENT: dict[str, Any] = {"action": "sent", "health": "g", "label": "sent:200"}
REFUSED: dict[str, Any] = {"action": "throttled", "why": "HTTP 429", "label": "throttled:429"}
DOWN: dict[str, Any] = {
    "action": "retry", "health": "o", "charge": True, "delay_s": 1.0, "why": "HTTP 502",
    "label": "ambiguous:502",
}  # fmt: skip


class Limit:
    """A provider's own bucket, as nginx's limit_req with nodelay: ``rate`` may change."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._used, self._at_s = 0.0, 0.0

    def takes(self, at_s: float) -> bool:
        used = max(0.0, self._used - (at_s - self._at_s) * self.rate)
        self._at_s = at_s
        self._used = used if used + 1 > self.burst + 1 else used + 1
        return self._used > used

    def __call__(self, at_s: float) -> dict[str, Any]:
        return SENT if self.takes(at_s) else REFUSED


@dataclass
class Log:
    """What came to the provider: (seconds, action)."""

    requests: list[tuple[float, str]] = field(default_factory=list)
    tries: dict[str, list[float]] = field(default_factory=dict)

    def count(self, action: str, from_s: float, to_s: float) -> int:
        return sum(a == action and from_s <= s < to_s for s, a in self.requests)


class Line:
    """One destination, one worker of it, always enough to send."""

    def __init__(
        self, client: redis.Redis, answer: Answer, *, rate: float = 100, connections: int = 10,
        latency_s: Callable[[float], float] = lambda _: 0.03,
        tenants: Sequence[str | None] = (None,),
        answer_for: Callable[[str, float], dict[str, Any]] | None = None, **numbers: Any,
    ) -> None:  # fmt: skip
        client.flushdb()
        scripts.load_library(client)
        self.now = START_US
        self.store = OutboxStore(client, "d", now_us=lambda: self.now)
        self.pin = FixedRun(client)
        self.store.publish_config("digest", {}, NUMBERS | {
            "rate": rate, "burst": 150, "connections": connections, "reserve": 5,
            "max_count": 10**7, "max_bytes": 10**9, "max_age_us": 10**12, "lease_us": 10**13,
            "pace": "adaptive", "probe_us": 30 * SECOND, "probe_wait_us": 40 * SECOND, **numbers,
        })  # fmt: skip
        self._tenants, self._answer_for = tenants, answer_for
        self._answer, self._latency_s, self._connections = answer, latency_s, connections
        self.log = Log()
        self._leased: deque[tuple[str, str]] = deque()
        self._ids = count()
        self._order = count()
        self._events: list[tuple[int, int, Settlement | None]] = []
        self.store.slots("beat", "ann", connections)
        for _ in range(connections):
            self._push(START_US, None)

    def run(self, until_s: float) -> None:
        """Lets time pass, from where it is to so many seconds since the beginning."""
        end = START_US + round(until_s * SECOND)
        while self._events[0][0] <= end:
            at, _, settlement = heapq.heappop(self._events)
            self.now = max(self.now, at)
            self._turn(settlement)
        self.now = end

    @property
    def rate(self) -> float:
        """Requests/s allowed now."""
        return self.store.slots("beat", "ann", self._connections).rate

    def _turn(self, settlement: Settlement | None) -> None:
        settled = [settlement] if settlement else []
        message = self._next()
        asks = [(*message, 100)] if message else []
        _, permits = self.store.turn(self.pin, settled, asks)  # type: ignore[arg-type]
        assert isinstance(permits, list), permits
        if message is None:
            self._push(self.now + _STEP_US, None)
            return
        permit = permits[0]
        wait_us = _STEP_US if permit.wait_s is None else round(permit.wait_s * 1e6)
        if permit.verdict != "go":
            if permit.verdict == "closed":
                # Given back, as workers do.
                self._leased.appendleft(message)
                self.store.settle(
                    [Settlement(id=i, nonce=n, action="back") for i, n in self._leased]
                )
                self._leased.clear()
            elif permit.verdict == "wait":
                self._leased.appendleft(message)
            most = _CLOSED_US if permit.verdict == "closed" else _STEP_US
            self._push(self.now + min(max(1, wait_us), most), None)
            return
        begun = self.now + wait_us
        at_s = (begun - START_US) / SECOND
        about = self._answer(at_s)
        if self._answer_for is not None:
            tenant = self._tenants[int(message[0][1:]) % len(self._tenants)]
            about = self._answer_for(tenant or "", at_s)
        self.log.requests.append((at_s, about["action"]))
        self.log.tries.setdefault(message[0], []).append(at_s)
        latency_s = self._latency_s(at_s)
        done = Settlement(
            id=message[0], nonce=message[1], begun_us=permit.begun_us, latency_s=latency_s, **about
        )
        self._push(begun + round(latency_s * SECOND), done)

    def _next(self) -> tuple[str, str] | None:
        if not self._leased:
            self.store.promote()
            if self.store.census().law["ready"] < 500:
                self.store.enqueue_many([self._message(next(self._ids)) for _ in range(1000)])
            self.store.slots("beat", "ann", self._connections)
            nonce = new_nonce()
            self._leased.extend((i, nonce) for i in self.store.take("ann", nonce, 50, "any").sizes)
        return self._leased.popleft() if self._leased else None

    def _message(self, number: int) -> Message:
        tenant = self._tenants[number % len(self._tenants)]
        return Message(id=f"m{number}", destination="d", payload=b"[]", tenant=tenant)

    def _push(self, at: int, settlement: Settlement | None) -> None:
        heapq.heappush(self._events, (at, next(self._order), settlement))
