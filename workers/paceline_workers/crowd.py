"""Whether an endpoint may have another request out, where one destination has thousands, each dead
or alive by itself. Pure, with a clock of the caller's.

An endpoint is, as this worker finds it,

    unknown   until its first request has ended here
    well      its last request ended in time: within max(1 s, 4 x the usual), 10 s at most
    suspect   a request of it has been out for longer, or the last to end had been

Suspect ones have one request out each, and a quarter of the connections together; unknown ones half
of them; both together three quarters, for unknown ones may become suspect all at once, and keep
what they have until they time out. So a quarter at least is always left to those that are well,
which are bounded by Redis alone: each has its cap there.

Opening a connection counts as a request does: a host that is down may answer nothing at all. The
wait for a permit in between does not count, for it is not the endpoint's. The usual time is what
the soonest tenth of the last answers stay within: where all are slow, the network is, or we are.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from paceline_workers.watch import News

LEAST_OVERDUE_S = 1.0
OVERDUE_TIMES = 4.0
#: Who takes longer hangs, whatever is usual: all of the last answers may have been time-outs.
MOST_OVERDUE_S = 10.0
#: An endpoint of which no message came for so long is forgotten.
FORGET_S = 600.0
#: Of so many at most something is known, each about 300 bytes.
MOST_KNOWN = 20_000
#: So many of those that hang are named, of thousands perhaps.
NAMED = 10
#: The usual time is found from so many answers, again after each few.
_ANSWERS = 100
_LEARN_EVERY = 10

UNKNOWN, WELL, SUSPECT = range(3)


class _Endpoint:
    """``out``: requests out; ``hung``: of these, overdue; ``seen_s``: its last message."""

    __slots__ = ("hung", "name", "out", "seen_s", "state")

    def __init__(self, name: str, now_s: float) -> None:
        self.name = name
        self.state = UNKNOWN
        self.out = 0
        self.hung = 0
        self.seen_s = now_s


class Crowd:
    """The endpoints of one worker, by the name before the slash of what a message is marked with:
    "acme" and "acme/order-7" are one. Not thread-safe: the queue asks it under its lock.

    ``connections()`` is how many this worker may use, 0 while that is not known. Every call costs
    the same however many endpoints there are.
    """

    #: Always: no message of such a destination is without an endpoint.
    shared = True

    def __init__(self, now_s: Callable[[], float], connections: Callable[[], int]) -> None:
        self._now_s = now_s
        self._connections = connections
        #: The one seen longest ago first.
        self._known: OrderedDict[str, _Endpoint] = OrderedDict()
        #: Requests that are connecting or on the wire, since when; in time so far (the oldest
        #: first), and overdue.
        self._running: OrderedDict[int, tuple[float, _Endpoint]] = OrderedDict()
        self._hung: dict[int, tuple[float, _Endpoint]] = {}
        self._slow_to_open: set[int] = set()
        self._out = [0, 0, 0]  # requests out, by state
        self._suspects: dict[str, None] = {}
        self._answers: deque[float] = deque(maxlen=_ANSWERS)
        self._unlearned = 0
        self._overdue_s = LEAST_OVERDUE_S
        self._told = False
        self._changes = 0
        self._limit = 0

    def seen(self, tenant: str) -> None:
        """A message of it came."""
        now = self._now_s()
        self._forget(now)  # itself too, where its last message was long ago
        it = self._endpoint(_name(tenant), now)
        it.seen_s = now
        self._known.move_to_end(it.name)

    def _endpoint(self, name: str, now: float) -> _Endpoint:
        it = self._known.get(name)
        if it is None:
            it = self._known[name] = _Endpoint(name, now)
        return it

    def _forget(self, now: float) -> None:
        while self._known:
            it = next(iter(self._known.values()))
            if now - it.seen_s <= FORGET_S and len(self._known) < MOST_KNOWN:
                return
            if it.out:  # there are no more of these than connections
                it.seen_s = now
                self._known.move_to_end(it.name)
                continue
            del self._known[it.name]
            if it.state == SUSPECT:
                del self._suspects[it.name]
                self._changes += 1

    def may(self, tenant: str) -> bool:
        """Whether it may have one more out."""
        limit = self._connections()
        if limit <= 0:
            return True
        self._look()
        it = self._known.get(_name(tenant))
        state = UNKNOWN if it is None else it.state
        if state == WELL:
            return True
        if state == SUSPECT and it is not None and it.out:
            return False
        most = max(1, limit // 2) if state == UNKNOWN else _quarter(limit)
        return self._out[state] < most and not self._is_crowded(limit)

    def changes(self) -> int:
        """Stays while no room was made for any that is unknown or suspect."""
        self._look()
        limit = self._connections()
        if limit != self._limit:
            self._limit = limit
            self._changes += 1
        return self._changes

    def _is_crowded(self, limit: int) -> bool:
        """Whether no more than what is kept for those that are well is left."""
        return self._out[UNKNOWN] + self._out[SUSPECT] >= max(1, limit - _quarter(limit))

    def is_slow(self, tenant: str) -> bool:
        """Whether it is suspect."""
        self._look()
        return _name(tenant) in self._suspects

    def is_late(self, tenant: str) -> bool:
        """Whether what it has waiting may go back to the outbox: it is suspect, or unknown while
        those that hang have taken the room of unknown ones too."""
        if self.is_slow(tenant):
            return True
        it, limit = self._known.get(_name(tenant)), self._connections()
        if limit <= 0 or (it is not None and it.state == WELL):
            return False
        return self._out[SUSPECT] > _quarter(limit) and self._is_crowded(limit)

    def slow(self) -> list[str]:
        """Some of the suspect ones; ``NAMED`` at most."""
        self._look()
        return list(islice(self._suspects, NAMED))

    def facts(self) -> dict[str, Any]:
        """``slow_endpoints``: {"count": how many are suspect, "some": names of a few}."""
        self._forget(self._now_s())
        some = self.slow()
        return {"slow_endpoints": {"count": len(self._suspects), "some": some}} if some else {}

    def news(self) -> list[News]:
        """One line when the first becomes suspect, one when none is any more: of thousands one or
        other always may be."""
        self._forget(self._now_s())
        some = self.slow()
        if bool(some) == self._told:
            return []
        self._told = bool(some)
        if not some:
            return [News("endpoints_back", "endpoints", "no endpoint's requests hang now", False)]
        more = len(self._suspects) - len(some)
        named = ", ".join(some) + (f" and {more} more" if more else "")
        text = (
            f"requests hang at {named}: a quarter of the connections is left to endpoints that do"
        )
        return [News("endpoints_slow", "endpoints", text, True)]

    def _look(self) -> None:
        """Finds what has become overdue."""
        if not self._running:
            return
        late_s = self._now_s() - self._overdue_s
        while self._running:
            key, (since_s, it) = next(iter(self._running.items()))
            if since_s >= late_s:
                return
            self._hung[key] = self._running.pop(key)
            it.hung += 1
            self._become(it, SUSPECT)
            self._changes += 1  # there is room for an unknown one perhaps

    def _become(self, it: _Endpoint, state: int) -> None:
        if it.state == state:
            return
        self._out[it.state] -= it.out
        self._out[state] += it.out
        it.state = state
        if state == SUSPECT:
            self._suspects[it.name] = None
        else:
            self._suspects.pop(it.name, None)

    # -- the way of a request ------------------------------------------------------------------

    def took(self, tenant: str) -> None:
        """One of its messages is out of the queue, on its way to a connection."""
        it = self._endpoint(_name(tenant), self._now_s())
        it.out += 1
        self._out[it.state] += 1

    def connects(self, tenant: str, key: int) -> None:
        """A connection is opened for it now."""
        self._start(tenant, key)

    def connected(self, _tenant: str, key: int) -> None:
        """It is open, and waits for a permit: until it begins nothing can hang."""
        self._look()
        if key in self._hung:
            self._slow_to_open.add(key)
        self._take_off(key)

    def began(self, tenant: str, key: int) -> None:
        """Its request ``key`` is written now."""
        self._start(tenant, key)

    def _start(self, tenant: str, key: int) -> None:
        it = self._known.get(_name(tenant))
        if it is not None:
            self._take_off(key)  # to the end, where it was begun before
            self._running[key] = (self._now_s(), it)

    def _take_off(self, key: int) -> float | None:
        """Since when it ran; None where it did not."""
        found = self._running.pop(key, None)
        if found is None:
            found = self._hung.pop(key, None)
            if found is None:
                return None
            found[1].hung -= 1
        return found[0]

    def done(self, tenant: str, key: int) -> None:
        """It is off its connection: answered, failed, or never begun."""
        it = self._known.get(_name(tenant))
        since_s = self._take_off(key)
        opened_late = key in self._slow_to_open
        self._slow_to_open.discard(key)
        if it is None:
            return
        if it.state != WELL:
            self._changes += 1
        if it.out:
            it.out -= 1
            self._out[it.state] -= 1
        if since_s is None:
            return
        took_s = self._now_s() - since_s
        is_well = took_s <= self._overdue_s and not opened_late and not it.hung
        self._become(it, WELL if is_well else SUSPECT)
        self._learn(took_s)

    def _learn(self, took_s: float) -> None:
        self._answers.append(took_s)
        self._unlearned += 1
        if self._unlearned >= _LEARN_EVERY:
            self._unlearned = 0
            usual_s = sorted(self._answers)[len(self._answers) // 10]
            overdue_s = max(LEAST_OVERDUE_S, OVERDUE_TIMES * usual_s)
            self._overdue_s = min(MOST_OVERDUE_S, overdue_s)


def _name(tenant: str) -> str:
    return tenant.partition("/")[0]


def _quarter(limit: int) -> int:
    return max(1, limit // 4)
