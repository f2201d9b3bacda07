"""The sender's queue: bounded, by priority, and emptied at once when the destination closes."""

from __future__ import annotations

import heapq
import threading
from itertools import count
from typing import Any

from paceline.answers import Leased
from paceline_workers.watch import News, Watch

_RANK = {"high": 0, "normal": 1, "bulk": 2}
_Item = tuple[int, int, Leased]


class PendingQueue:
    """Messages taken but not begun. Thread-safe.

    Bounded, so that a message is taken late and its priority, pause and cancel act to the last
    moment; high messages pass the bound, for nothing may stand before them.

    Whoever gets a message says ``done`` when it is off the connection, and ``began`` when it is
    written. So one connection can be kept for high messages: where all of them wait for slow
    answers to others, a high one would wait as long (``keep_for_high``). And a tenant whose
    requests hang can be held to a few connections: its messages are set aside, and others pass
    them (``watch_tenants``).
    """

    def __init__(self, capacity: int) -> None:
        self._most_others: int | None = None
        self._others_out = 0
        self.resize(capacity)
        self._order = count()
        self._heap: list[_Item] = []
        self._watch: Watch | None = None
        self._shared: Watch | None = None  # the same, once there is something to ask it
        self._aside: dict[str, list[_Item]] = {}  # a heap for each tenant
        self._aside_count = 0
        self._none_free = -1  # none of them might go at this number of changes
        lock = threading.Lock()
        self._room = threading.Condition(lock)
        self._some = threading.Condition(lock)
        self._closed = False

    def watch_tenants(self, watch: Watch) -> None:
        """From now on asks it whose messages may go. Before the first message."""
        self._watch = watch
        self._shared = watch if watch.shared else None

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

    def connects(self, leased: Leased) -> None:
        """For a message got from here a connection is opened now."""
        shared = self._shared
        if shared is not None:
            with self._some:
                shared.connects(leased.head.tenant, id(leased))

    def connected(self, leased: Leased) -> None:
        """It is open, and the message waits for its permit."""
        shared = self._shared
        if shared is not None:
            with self._some:
                shared.connected(leased.head.tenant, id(leased))

    def began(self, leased: Leased) -> None:
        """A message got from here is written now."""
        shared = self._shared
        if shared is not None:
            with self._some:
                shared.began(leased.head.tenant, id(leased))

    def done(self, leased: Leased) -> None:
        """A message got from here is off its connection."""
        is_high, shared = leased.head.priority == "high", self._shared
        if is_high and shared is None:
            return
        with self._some:
            if not is_high:
                self._others_out -= 1
            if shared is not None:
                shared.done(leased.head.tenant, id(leased))
            # Only then: to wake all threads for each message that is done would cost more than it.
            if shared is not None and self._first_free(shared) is not None:
                self._some.notify_all()
            elif self._most_others is not None:
                self._some.notify()

    def __len__(self) -> int:
        return len(self._heap) + self._aside_count

    @property
    def capacity(self) -> int:
        """How many wait at most, high ones apart."""
        return self._capacity

    @property
    def shared(self) -> bool:
        """Whether tenants share it."""
        return self._shared is not None

    def holds_high(self) -> bool:
        """Whether a high message waits for a connection; not so one that was set aside."""
        with self._room:
            return bool(self._heap) and self._heap[0][0] == 0

    def put(self, leased: Leased, timeout_s: float) -> bool:
        """False when there was no room in time, or the queue is closed."""
        rank = _RANK[leased.head.priority]
        with self._room:
            if rank and not self._room.wait_for(
                lambda: self._closed or len(self._heap) + self._aside_count < self._capacity,
                timeout_s,
            ):
                return False
            return self._push(rank, leased)

    def put_beyond(self, leased: Leased) -> bool:
        """Whether there is room or not. False when the queue is closed."""
        with self._room:
            return self._push(_RANK[leased.head.priority], leased)

    def _push(self, rank: int, leased: Leased) -> bool:
        if self._closed:
            return False
        if leased.head.tenant or self._shared is not None:
            self._note(leased.head.tenant)
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

    def lend(self) -> bool:
        """A connection for something that is no message: only while none waits, and one is left
        for high messages where one is kept. ``unlend`` gives it back."""
        with self._some:
            kept = self._most_others is not None and self._others_out >= self._most_others
            if self._heap or self._closed or kept:
                return False
            self._others_out += 1
            return True

    def unlend(self) -> None:
        """What was lent is back."""
        with self._some:
            self._others_out -= 1
            if self._most_others is not None:
                self._some.notify()

    def _may_pop(self) -> bool:
        if self._shared is not None:
            self._sort_out(self._shared)
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
        if self._shared is not None:
            self._shared.took(leased.head.tenant)
        if len(self._heap) + self._aside_count <= self._low:
            self._room.notify()
        return leased

    # -- tenants --------------------------------------------------------------------------------

    def _note(self, tenant: str) -> None:
        watch = self._watch
        if watch is not None:
            watch.seen(tenant)
            self._shared = watch if watch.shared or self._aside else None

    def _sort_out(self, watch: Watch) -> None:
        """Leaves at the head a message that may go: others are set aside, by tenant, and the most
        urgent of those that may go by now comes back."""
        heap = self._heap
        while heap and not watch.may(heap[0][2].head.tenant):
            item = heapq.heappop(heap)
            heapq.heappush(self._aside.setdefault(item[2].head.tenant, []), item)
            self._aside_count += 1
        first = self._first_free(watch)
        if first is not None and (not heap or first < heap[0]):
            heapq.heappush(heap, self._from_aside(first[2].head.tenant))

    def _first_free(self, watch: Watch) -> _Item | None:
        """The most urgent that was set aside and may go by now."""
        if not self._aside:
            return None
        changes = watch.changes()
        if changes == self._none_free:
            return None
        free = (waiting[0] for tenant, waiting in self._aside.items() if watch.may(tenant))
        first = min(free, default=None)
        if first is None:
            self._none_free = changes
        return first

    def _from_aside(self, tenant: str, place: int = 0) -> _Item:
        waiting = self._aside[tenant]
        # The last of a heap can go without disturbing it.
        item = waiting.pop() if place else heapq.heappop(waiting)
        self._aside_count -= 1
        if not waiting:
            del self._aside[tenant]
        return item

    def has_enough_of(self, leased: Leased) -> bool:
        """Whether half of the queue is set aside, and this message would be too, for long."""
        with self._some:
            return (
                self._shared is not None
                and self._aside_count >= self._most_aside
                and (leased.head.tenant in self._aside or not self._shared.may(leased.head.tenant))
                and self._shared.is_late(leased.head.tenant)
            )

    def surplus(self) -> int:
        """How many messages are set aside for long, over half of the queue."""
        with self._some:
            over = self._aside_count - self._most_aside
            return max(0, min(over, sum(len(self._aside[tenant]) for tenant in self._stuck())))

    def take_out(self, most: int) -> list[Leased]:
        """Up to so many of those that are set aside for long, taken out."""
        out: list[Leased] = []
        with self._some:
            for tenant in self._stuck():
                while tenant in self._aside and len(out) < most:
                    out.append(self._from_aside(tenant, -1)[2])
            self._room.notify_all()
        return out

    @property
    def _most_aside(self) -> int:
        return max(1, self._capacity // 2)

    def _stuck(self) -> list[str]:
        shared = self._shared
        return [] if shared is None else [it for it in self._aside if shared.is_late(it)]

    def facts(self) -> dict[str, Any]:
        """What status shows of those whose requests hang."""
        with self._some:
            return {} if self._shared is None else self._shared.facts()

    def news(self) -> list[News]:
        """What has changed with them since the last call, for the log."""
        with self._some:
            return [] if self._watch is None else self._watch.news()

    # -- the end --------------------------------------------------------------------------------

    def drain(self) -> list[Leased]:
        """All that is pending, taken out."""
        with self._room:
            taken = [leased for _, _, leased in self._heap]
            taken += [leased for waiting in self._aside.values() for _, _, leased in waiting]
            self._heap.clear()
            self._aside.clear()
            self._aside_count = 0
            self._room.notify_all()
            return taken

    def close(self) -> None:
        """Nothing more goes in; what waits in ``put`` or ``get`` returns."""
        with self._room:
            self._closed = True
            self._room.notify_all()
            self._some.notify_all()
