"""Whether a tenant may have another request out, so that none keeps the connections from the
others. Pure, with a clock of the caller's.

Two rules, for what hangs is not known to hang until it has hung for a while:

* **Beside others** no tenant has all connections: what the others have used lately is kept for
  them, twice over, a quarter at least. So one whose requests begin to hang does not take the last.
* **Slow**: one with a request in flight for longer than ``max(1 s, 4 x the usual)`` has a quarter
  of the connections at most, until one of its requests is answered in time. The usual response
  time is that of the tenant that is answered soonest: a provider that is slow for all is not.

A destination that has seen no named tenant is not ``shared``, and nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor
from typing import Any

from paceline_workers.watch import News

LEAST_LATE_S = 0.1
LEAST_OVERDUE_S = 1.0
OVERDUE_TIMES = 4.0
#: A tenant of which nothing came for so long, and nothing is out, is forgotten.
FORGET_S = 60.0
#: What was used "lately": within this and up to once more of it.
WINDOW_S = 1.0
#: Until this long after the first tenant was seen, nobody's needs are known: half for each.
LEARN_S = 5.0
#: With fewer connections, a tenant that is alone may have all of them.
ALONE_KEEPS_FROM = 3
_SMOOTHING = 1 / 8
_LEARN_EVERY_S = 0.1


class _Tenant:
    """One tenant: requests out (got from the queue), and of them on the wire since when, the oldest
    first; connection-seconds used in this window and the last."""

    __slots__ = ("busy_s", "last_busy_s", "out", "seen_s", "slow", "usual_s", "wire")

    def __init__(self, now_s: float) -> None:
        self.out = 0
        self.wire: dict[int, float] = {}
        self.slow = False
        self.usual_s: float | None = None
        self.busy_s = 0.0
        self.last_busy_s = 0.0
        self.seen_s = now_s


class Tenancy:
    """The tenants of one worker. Not thread-safe: the queue asks it under its lock.

    ``connections()`` is how many this worker may have open, 0 while that is not known.
    """

    def __init__(self, now_s: Callable[[], float], connections: Callable[[], int]) -> None:
        self._now_s = now_s
        self._connections = connections
        self._tenants: dict[str, _Tenant] = {}
        self._busy_s = 0.0  # of all, in this window and the last
        self._rolled_s = self._since_s = now_s()
        self._late_s = LEAST_LATE_S
        self._overdue_s = LEAST_OVERDUE_S
        self._learned_s = -_LEARN_EVERY_S
        self._told: set[str] = set()
        self._asked = 0
        #: Whether a named tenant is in sight.
        self.shared = False

    def seen(self, tenant: str) -> None:
        """A message of it came."""
        now = self._now_s()
        if not self.shared:
            self.shared = True
            self._rolled_s = self._since_s = now
        if now - self._rolled_s >= WINDOW_S:
            self._roll(now)
        it = self._tenants.get(tenant)
        if it is None:
            self._tenants[tenant] = _Tenant(now)
        else:
            it.seen_s = now

    def may(self, tenant: str) -> bool:
        """Whether it may have one more out."""
        limit, it = self._connections(), self._tenants.get(tenant)
        if it is None or limit <= 0:
            return True
        return it.out < self._most(it, tenant, limit)

    def changes(self) -> int:
        """Another number at each call: what a tenant may have follows the clock. There are few."""
        self._asked += 1
        return self._asked

    def _most(self, it: _Tenant, tenant: str, limit: int) -> int:
        others = len(self._tenants) - 1
        if not (tenant or others):
            return limit
        quarter = max(1, limit // 4)
        if self._is_slow(it):
            return quarter
        if not others:
            return limit - 1 if limit >= ALONE_KEEPS_FROM else limit
        now = self._now_s()
        if now - self._since_s < LEARN_S:
            return ceil(limit / 2)
        span_s = min(now - self._since_s, WINDOW_S + now - self._rolled_s)
        used = (self._busy_s - it.busy_s - it.last_busy_s) / span_s
        kept = max(quarter, ceil(2 * used))
        return limit - min(kept, limit - max(1, limit // (others + 1)))

    def is_slow(self, tenant: str) -> bool:
        """Whether it has a request that hangs, or had, and none since that was answered in time."""
        it = self._tenants.get(tenant)
        return it is not None and self._is_slow(it) and (tenant != "" or len(self._tenants) > 1)

    def is_late(self, tenant: str) -> bool:
        """Whether it is slow, or seems to become so: what it has waiting may stand in the others'
        way."""
        it = self._tenants.get(tenant)
        if it is None:
            return False
        return it.slow or self._oldest_s(it) > self._late_s

    def slow(self) -> list[str]:
        """All that are slow."""
        return [tenant for tenant in self._tenants if self.is_slow(tenant)]

    def facts(self) -> dict[str, Any]:
        """``slow_tenants``: the names of those that are slow."""
        return {"slow_tenants": slow} if (slow := self.slow()) else {}

    def news(self) -> list[News]:
        """A line for each that has become slow, or is not any more."""
        slow = set(self.slow())
        lines = [
            News(
                "tenant_slow",
                tenant,
                f"tenant {tenant or '(none)'}: its requests hang; a quarter of the connections is "
                "left to it",
                bad=True,
            )
            for tenant in slow - self._told
        ]
        lines += [
            News(
                "tenant_back",
                tenant,
                f"tenant {tenant or '(none)'}: its requests are answered in time again",
                bad=False,
            )
            for tenant in self._told - slow
        ]
        self._told = slow
        return lines

    def _is_slow(self, it: _Tenant) -> bool:
        if self._oldest_s(it) > self._overdue_s:
            it.slow = True
        return it.slow

    def _oldest_s(self, it: _Tenant) -> float:
        """For how long it has been waiting for an answer."""
        return self._now_s() - next(iter(it.wire.values())) if it.wire else 0.0

    # -- the way of a request ------------------------------------------------------------------

    def took(self, tenant: str) -> None:
        """One of its messages is out of the queue, on its way to a connection."""
        it = self._tenants.get(tenant)
        if it is not None:
            it.out += 1

    def connects(self, _tenant: str, _key: int) -> None:
        """A connection is opened for it: to the provider of all tenants, so if that takes long it
        is not this one's doing."""

    def connected(self, _tenant: str, _key: int) -> None:
        """It is open."""

    def began(self, tenant: str, key: int) -> None:
        """Its request ``key`` is written now."""
        it = self._tenants.get(tenant)
        if it is not None:
            it.wire.pop(key, None)  # to the end, where it was begun before
            it.wire[key] = self._now_s()

    def done(self, tenant: str, key: int) -> None:
        """It is off its connection: answered, failed, or never begun."""
        it = self._tenants.get(tenant)
        if it is None:
            return
        # Those taken before the destination was shared were not counted.
        it.out = max(0, it.out - 1)
        began_s = it.wire.pop(key, None)
        if began_s is None:
            return
        took_s = self._now_s() - began_s
        it.slow = took_s > self._overdue_s
        usual_s = took_s if it.usual_s is None else it.usual_s
        it.usual_s = usual_s + (took_s - usual_s) * _SMOOTHING
        # What hangs is no use of a connection.
        used_s = min(took_s, self._overdue_s)
        it.busy_s += used_s
        self._busy_s += used_s
        self._learn_usual(began_s + took_s)

    def _learn_usual(self, now_s: float) -> None:
        """Not from each response: there may be thousands of tenants."""
        if now_s - self._learned_s >= _LEARN_EVERY_S:
            self._learned_s = now_s
            known = [it.usual_s for it in self._tenants.values() if it.usual_s is not None]
            self._late_s = max(LEAST_LATE_S, OVERDUE_TIMES * min(known))
            self._overdue_s = max(LEAST_OVERDUE_S, self._late_s)

    def _roll(self, now_s: float) -> None:
        self._rolled_s = now_s
        self._busy_s = 0.0
        for tenant, it in list(self._tenants.items()):
            it.last_busy_s, it.busy_s = it.busy_s, 0.0
            self._busy_s += it.last_busy_s
            if not it.out and now_s - it.seen_s > FORGET_S:
                del self._tenants[tenant]
                self._busy_s -= it.last_busy_s
        if not any(self._tenants):
            self.shared = False
            self._tenants.clear()


class Returns:
    """How many messages may go back to the outbox: ``rate`` a second, and a quarter of a second's
    worth at once."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._left = 0.0
        self._at_s = now_s()

    def up_to(self, wanted: int, rate: float) -> int:
        """So many of those wanted may go back now: they are counted."""
        now = self._now_s()
        self._left = min(max(1.0, rate / 4), self._left + (now - self._at_s) * rate)
        self._at_s = now
        count = min(wanted, floor(self._left))
        self._left -= count
        return count
