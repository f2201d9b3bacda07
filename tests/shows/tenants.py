"""Fifty tenants, one with a hundred times the messages of each other, all queued at once.

What is fair: alone at its fair share, rate / tenants, a tenant's j-th message would leave
j / (rate / tenants) after it was queued. Default weights.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from shows.figures import Figure, at_least, at_most, quantiles
from shows.stage import messages, queue
from support.stack import Stack
from support.wait import until

SECONDS = 10.0
RATE, BURST = 200.0, 20
TENANTS, TIMES_AS_MANY = 50, 100
MOST_WAIT, LEAST_JAIN = 1.2, 0.99
_BIG = "big"


def run(folder: Path, seconds: float, seed: int) -> list[Figure]:
    """``seconds``: what each small tenant's messages last at the fair share."""
    each = max(1, round(seconds * RATE / TENANTS))
    small = [f"small{number}" for number in range(TENANTS - 1)]
    with Stack(folder, rate=RATE, burst=BURST, latency="10-30ms", seed=seed) as stack:
        # Queued at once: nothing leaves until all are in.
        stack.store.hold("pause", why="queueing")
        # The big one's come first: before the others, in a queue that were not fair.
        queue(stack, messages(each * TIMES_AS_MANY, _BIG, tenant=_BIG))
        queue(stack, chain.from_iterable(messages(each, name, tenant=name) for name in small))
        began_ns = time.monotonic_ns()
        stack.store.hold("resume")
        until(lambda: _ended(stack, small) >= len(small) * each, 4 * seconds + 30, "they end", 0.5)
        arrivals = stack.arrivals()
        census = stack.store.census()
    at_s = _by_tenant(arrivals, began_ns)
    return [
        *judge({name: at_s[name] for name in small}, each, min(map(min, at_s.values()))),
        *_throughput(at_s, small, each),
        Figure("first byte after the queue was opened, s", min(map(min, at_s.values()))),
        Figure("messages of each of the others", each),
        at_most("law's difference, messages", abs(census.difference), 0),
    ]


def judge(at_s: Mapping[str, Sequence[float]], each: int, wakes_s: float) -> list[Figure]:
    """Waits of the equal tenants, against those that each would have alone at its fair share;
    ``wakes_s`` after the queue was opened the first request of all started, which it would need
    alone too."""
    share = RATE / TENANTS
    waits_of = [(n, wait_s) for waits in at_s.values() for n, wait_s in enumerate(waits, start=1)]
    ratios = [wait_s / (wakes_s + place / share) for place, wait_s in waits_of]
    bare = [wait_s / (place / share) for place, wait_s in waits_of]
    last = [waits[-1] / (wakes_s + each / share) for waits in at_s.values()]
    return [
        at_most("wait over that at the fair share, any message, most", max(ratios), MOST_WAIT),
        *quantiles("wait over that at the fair share, any message", ratios)[:1],
        Figure("the same, as if nothing had to wake, most", max(bare)),
        *quantiles("wait over that at the fair share, a tenant's last", last),
    ]


def _throughput(
    at_s: Mapping[str, Sequence[float]], small: Sequence[str], each: int
) -> list[Figure]:
    """Over the span in which all are active: until the first of them has no more."""
    until_s = min(at_s[name][-1] for name in small)
    counts = {name: sum(t <= until_s for t in at_s[name]) for name in (*small, _BIG)}
    return [
        at_least("Jain's index of the equal ones", jain([counts[n] for n in small]), LEAST_JAIN),
        Figure("Jain's index of all", jain(list(counts.values()))),
        Figure("all active for, s", until_s),
        Figure("sent meanwhile by the big one, of one share", counts[_BIG] / each),
        Figure("requests/s meanwhile", sum(counts.values()) / until_s),
    ]


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 where all are equal, 1/n where one has all."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0


def _ended(stack: Stack, small: Sequence[str]) -> int:
    """How many requests of the small ones the sink has seen."""
    seen = Counter(_tenant(arrival) for arrival in stack.arrivals())
    return sum(seen[name] for name in small)


def _by_tenant(arrivals: Sequence[Mapping[str, Any]], began_ns: int) -> dict[str, list[float]]:
    """Seconds from the start to each message's first byte, by tenant, in order."""
    found: dict[str, list[float]] = defaultdict(list)
    known: set[str] = set()
    for arrival in arrivals:
        if arrival["id"] not in known:
            known.add(arrival["id"])
            found[_tenant(arrival)].append((arrival["mono_ns"] - began_ns) / 1e9)
    return found


def _tenant(arrival: Mapping[str, Any]) -> str:
    return str(arrival["id"]).rpartition("-")[0]
