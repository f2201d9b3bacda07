"""The sender's queue: bounded, by priority, and emptied at once when the destination closes."""

from __future__ import annotations

import heapq
import threading
from itertools import count

from paceline.answers import Leased

_RANK = {"high": 0, "normal": 1, "bulk": 2}


class PendingQueue:
    """Messages taken but not begun. Thread-safe.

    Bounded, so that a message is taken late and its priority, pause and cancel act to the last
    moment; high messages pass the bound, for nothing may stand before them.

    Whoever gets a message says ``done`` when it is off the connection. So one connection can be
    kept for high messages: where all of them wait for slow answers to others, a high one would wait
    as long (``keep_for_high``).
    """

    def __init__(self, capacity: int) -> None:
        self._most_others: int | None = None
        self._others_out = 0
        self.resize(capacity)
        self._order = count()
        self._heap: list[tuple[int, int, Leased]] = []
        lock = threading.Lock()
        self._room = threading.Condition(lock)
        self._some = threading.Condition(lock)
        self._closed = False

    def resize(self, capacity: int) -> None:
        """Another bound, as the rate changes. What is in it stays."""
        self._capacity = capacity
        # Whoever waits for room is woken when there is room for several: to wake a thread for each
        # message taken costs more than the message.
        self._low = capacity // 2

    def keep_for_high(self, most_others: int | None) -> None:
        """At most so many messages that are not high are out at once; None: any number."""
        with self._some:
            self._most_others = most_others
            self._some.notify_all()

    def done(self, leased: Leased) -> None:
        """A message got from here is off its connection."""
        if leased.head.priority == "high":
            return
        with self._some:
            self._others_out -= 1
            if self._most_others is not None:
                self._some.notify()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def capacity(self) -> int:
        """How many wait at most, high ones apart."""
        return self._capacity

    def holds_high(self) -> bool:
        """Whether a high message waits."""
        with self._room:
            return bool(self._heap) and self._heap[0][0] == 0

    def put(self, leased: Leased, timeout_s: float) -> bool:
        """False when there was no room in time, or the queue is closed."""
        rank = _RANK[leased.head.priority]
        with self._room:
            if rank and not self._room.wait_for(
                lambda: self._closed or len(self._heap) < self._capacity, timeout_s
            ):
                return False
            if self._closed:
                return False
            heapq.heappush(self._heap, (rank, next(self._order), leased))
            self._some.notify()
            return True

    def get(self, timeout_s: float) -> Leased | None:
        """The most urgent message; None when there was none in time."""
        with self._some:
            if not self._some.wait_for(lambda: self._may_pop() or self._closed, timeout_s):
                return None
            return self._pop()

    def get_now(self) -> Leased | None:
        """The most urgent message; None when there is none."""
        with self._some:
            return self._pop()

    def _may_pop(self) -> bool:
        if not self._heap:
            return False
        kept = self._most_others is not None and self._others_out >= self._most_others
        return not kept or self._heap[0][0] == 0

    def _pop(self) -> Leased | None:
        if not self._may_pop():
            return None
        rank, _, leased = heapq.heappop(self._heap)
        if rank:
            self._others_out += 1
        if len(self._heap) <= self._low:
            self._room.notify()
        return leased

    def drain(self) -> list[Leased]:
        """All that is pending, taken out."""
        with self._room:
            taken = [leased for _, _, leased in self._heap]
            self._heap.clear()
            self._room.notify_all()
            return taken

    def close(self) -> None:
        """Nothing more goes in; what waits in ``put`` or ``get`` returns."""
        with self._room:
            self._closed = True
            self._room.notify_all()
            self._some.notify_all()
