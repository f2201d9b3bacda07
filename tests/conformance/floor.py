"""The scripts alone, on a clock of their own: workers that draw permits in slices and write when
their time has come, frozen with permits in hand, killed, given other shares of the connections;
and a Redis whose clock steps and whose run_id changes.

Time is in whole microseconds. Nothing waits: an event is worked off when the one before it is. A
worker draws as the real one does (exchange.py): what its connections ask for while one call is
under way is asked for in one call after it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import redis

from contract.test_outbox_model import NUMBERS, START_US, FixedRun
from paceline import scripts
from paceline.answers import Permit
from paceline.message import Message
from paceline.outbox import OutboxStore

STALE_US = 100_000
_NONCE = "n" * 16
_PRIORITIES = ("high", "normal", "bulk")


@dataclass(frozen=True, kw_only=True)
class Account:
    """``latency_us`` and ``round_trip_us``: of the provider, and of Redis."""

    rate: float
    burst: int
    connections: int
    reserve: int = 0
    latency_us: int = 500
    round_trip_us: int = 100
    lease_us: int = 300_000


@dataclass(eq=False)
class Hand:
    """One connection of a worker and the thread that has it."""

    worker: Worker
    message: str


@dataclass(eq=False)
class Worker:
    """``limit``: its share. ``asking``: who gathers for the next call. ``behind``: how likely a
    freeze catches a thread between its last look at the clock and the write."""

    name: str
    limit: int = 0
    hands: list[Hand] = field(default_factory=list)
    asking: list[Hand] = field(default_factory=list)
    at_redis: bool = False
    thaws_us: int = 0
    behind: float = 0.0
    beat_us: int = 0
    dead: bool = False


class Floor:
    """All workers of one account. ``starts_us``: when requests started, by the real clock;
    ``breaks_us``: when something happened to the clock or the bucket; ``extra``: how many permits
    all that may have added."""

    def __init__(self, client: redis.Redis, account: Account, rng: Random, workers: int) -> None:
        client.flushdb()
        scripts.load_library(client)
        self.account, self.rng = account, rng
        self.real_us = self.stepped_us = self.quiet_us = 0
        self.store = OutboxStore(client, "d", now_us=self.redis_us)
        self.pin: Any = FixedRun(client)
        self.starts_us: list[int] = []
        self.breaks_us: list[int] = []
        self.extra = 0.0
        self.largest_slice = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order, self._names = itertools.count(), itertools.count()
        numbers = NUMBERS | {
            "rate": account.rate, "burst": account.burst, "connections": account.connections,
            "reserve": account.reserve, "lease_us": account.lease_us, "max_age_us": 10**15,
        }  # fmt: skip
        self.store.publish_config("digest", {}, numbers)
        self._make_messages()
        self.workers = [self.join() for _ in range(workers)]

    def redis_us(self) -> int:
        """The clock of Redis: the real one, and all its steps."""
        return START_US + self.real_us + self.stepped_us

    def _make_messages(self) -> None:
        # One each priority, begun again and again: a repeated begin draws a permit, nothing else.
        self.store.slots("beat", "taker")
        for priority in _PRIORITIES:
            message = Message(id=priority, destination="d", payload=b"[]", priority=priority)  # type: ignore[arg-type]
            self.store.enqueue(message)
        self.store.take("taker", _NONCE, len(_PRIORITIES), "any")
        self.store.slots("leave", "taker")

    # -- events -----------------------------------------------------------------------------

    def at(self, us: int, what: Callable[[], None]) -> None:
        """Plans an event; one in the past happens now."""
        heapq.heappush(self._events, (max(us, self.real_us), next(self._order), what))

    def run(self, until_us: int) -> None:
        """Works events off up to a moment."""
        while self._events and self._events[0][0] <= until_us:
            self.real_us, _, what = heapq.heappop(self._events)
            what()
        self.real_us = until_us

    # -- workers ----------------------------------------------------------------------------

    def join(self) -> Worker:
        """Another worker."""
        worker = Worker(f"w{next(self._names)}", beat_us=self.real_us)
        self._beat(worker)
        return worker

    def _beat(self, worker: Worker) -> None:
        if worker.dead:
            return
        period_us = self.account.lease_us // 5
        if self.real_us < worker.thaws_us:
            # Its threads wake in any order: this one may be late.
            late_us = self.rng.randrange(period_us)
            self.at(worker.thaws_us + late_us, lambda: self._beat(worker))
            return
        if self.real_us - worker.beat_us > 4.5 * period_us:
            worker.limit = min(worker.limit, len(worker.hands))
        share = self.store.slots("beat", worker.name, max(worker.limit, len(worker.hands)))
        worker.beat_us, worker.limit = self.real_us, share.allowance
        while len(worker.hands) < worker.limit:
            # Which priority a connection serves: as random as a queue of all of them.
            hand = Hand(worker, self.rng.choice(_PRIORITIES))
            worker.hands.append(hand)
            self._wants(hand)
        self.at(self.real_us + period_us, lambda: self._beat(worker))

    def _wants(self, hand: Hand) -> None:
        """The connection is free: to ask, or to be closed where the share shrank."""
        worker = hand.worker
        idle_until_us = max(worker.thaws_us, self.quiet_us)
        if worker.dead:
            return
        if self.real_us < idle_until_us:
            self.at(idle_until_us, lambda: self._wants(hand))
        elif len(worker.hands) > worker.limit:
            worker.hands.remove(hand)
        else:
            worker.asking.append(hand)
            if not worker.at_redis:
                # At this moment, but after all that happens at it: they ask together.
                worker.at_redis = True
                self.at(self.real_us, lambda: self._ask(worker))

    def _ask(self, worker: Worker) -> None:
        if worker.dead:
            return
        if self.real_us < worker.thaws_us:
            self.at(worker.thaws_us, lambda: self._ask(worker))
            return
        hands, worker.asking = worker.asking, []
        self.largest_slice = max(self.largest_slice, len(hands))
        asks = [(hand.message, _NONCE, 0) for hand in hands]
        _, permits = self.store.turn(self.pin, [], asks)
        assert isinstance(permits, list), permits
        answered_us = self.real_us + self.account.round_trip_us
        self.at(answered_us, lambda: self._answered(worker, hands, permits))

    def _answered(self, worker: Worker, hands: list[Hand], permits: list[Permit]) -> None:
        if worker.dead:
            return
        if self.real_us < worker.thaws_us:
            # The answer lies in the socket, and is as old as its reading.
            self.at(worker.thaws_us, lambda: self._answered(worker, hands, permits))
            return
        worker.at_redis = False
        for hand, permit in zip(hands, permits, strict=True):
            assert permit.wait_s is not None
            wait_us = round(permit.wait_s * 1e6)
            if permit.verdict == "go":
                self._plan_write(hand, self.real_us + wait_us)
            else:
                assert permit.verdict == "wait", permit
                self.at(self.real_us + wait_us, lambda hand=hand: self._wants(hand))  # type: ignore[misc]
        if worker.asking:
            worker.at_redis = True
            self.at(self.real_us, lambda: self._ask(worker))

    def _plan_write(self, hand: Hand, due_us: int) -> None:
        self.at(due_us, lambda: self._write(hand, due_us, checked=False))

    def _write(self, hand: Hand, due_us: int, *, checked: bool) -> None:
        worker = hand.worker
        if worker.dead:
            return
        if self.real_us < worker.thaws_us:
            behind = self.rng.random() < worker.behind
            self.at(worker.thaws_us, lambda: self._write(hand, due_us, checked=behind))
        elif self.real_us - due_us > STALE_US and not checked:
            self._wants(hand)
        else:
            self.starts_us.append(self.real_us)
            self.at(self.real_us + self.account.latency_us, lambda: self._wants(hand))

    # -- mischief ---------------------------------------------------------------------------

    def freeze(self, worker: Worker, for_us: int, behind: float = 0.5) -> None:
        """It does nothing at all for a time."""
        worker.behind = behind
        worker.thaws_us = max(worker.thaws_us, self.real_us + for_us)

    def kill(self, place: int, *, known: bool) -> None:
        """Another one takes its place. ``known``: the reaper sees at once that it is dead."""
        worker = self.workers[place]
        worker.dead = True
        self.workers[place] = self.join()
        bury_us = self.real_us if known else self.real_us + 3 * self.account.lease_us
        self.at(bury_us, lambda: self._bury(worker))

    def _bury(self, worker: Worker) -> None:
        self.store.slots("bury", worker.name)

    def be_quiet(self, for_us: int) -> None:
        """Nothing to send for a time."""
        self.quiet_us = self.real_us + for_us

    def step_clock(self, by_us: int) -> None:
        """Of Redis. A step back adds nothing. One forward fills the bucket: from what is promised
        ahead, at most a permit a connection, to K; together the burst at most."""
        self.stepped_us += by_us
        self.breaks_us.append(self.real_us)
        self.extra += max(0.0, min(by_us * self.account.rate / 1e6, self.account.burst))

    def restart(self) -> None:
        """Redis with its data."""
        self.pin.run_id = f"run-{next(self._names)}"

    def lose_bucket(self) -> None:
        """What was promised ahead is forgotten."""
        self.store.client.hdel("{d}:gate", "level", "at", "run")
        self.breaks_us.append(self.real_us)
        self.extra += self.account.connections
