"""What is done, drawn from a seed. Pure.

kill      SIGKILL; counts only where a request was on the wire at that moment
freeze    SIGSTOP and, after ``for_s``, SIGCONT: shorter than a lease, or longer
term      SIGTERM, and a new process in its place
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, NamedTuple

LEASE_S = 4.0
SHORT_S = (0.1, 2.0)
LONG_S = (LEASE_S + 0.5, LEASE_S + 2.5)

How = Literal["kill", "freeze", "term"]
Whom = Literal["worker", "daemon", "exporter", "redis", "up"]
Way = Literal["apart", "up"]

#: How often what is done to whom, by the way of running: parts of all kills, and of all else.
KILLS: dict[Way, dict[Whom, int]] = {
    "apart": {"worker": 12, "redis": 4, "daemon": 3, "exporter": 1},
    "up": {"worker": 6, "redis": 4, "up": 6, "daemon": 4},
}
OTHERS: dict[Way, dict[tuple[How, Whom], int]] = {
    "apart": {
        ("freeze", "worker"): 5, ("freeze", "redis"): 3, ("freeze", "daemon"): 2,
        ("term", "worker"): 3, ("term", "daemon"): 1, ("term", "exporter"): 1,
    },
    "up": {
        ("freeze", "worker"): 3, ("freeze", "redis"): 2, ("freeze", "up"): 1,
        ("term", "worker"): 1, ("term", "redis"): 1, ("term", "up"): 2,
    },
}  # fmt: skip
#: So many of all deeds are none that kills.
OTHER_SHARE = 0.25


class Deed(NamedTuple):
    """``how`` to ``whom``, the one of that kind number ``which`` (modulo how many there are);
    frozen ``for_s``; ``rest_s`` of peace before it."""

    how: How
    whom: Whom
    which: int
    for_s: float
    rest_s: float

    def __str__(self) -> str:
        span = f" for {self.for_s:.1f} s" if self.how == "freeze" else ""
        return f"{self.how} {self.whom} {self.which}{span}"


def deeds(seed: int, way: Way) -> Iterator[Deed]:
    """Without end; the same for the same seed."""
    rng = random.Random(f"rampage {seed} {way}")
    kills, others = KILLS[way], OTHERS[way]
    while True:
        how: How = "kill"
        if rng.random() < OTHER_SHARE:
            how, whom = rng.choices(list(others), list(others.values()))[0]
        else:
            whom = rng.choices(list(kills), list(kills.values()))[0]
        for_s = rng.uniform(*(LONG_S if rng.random() < 0.4 else SHORT_S))
        yield Deed(how, whom, rng.randrange(64), for_s, rng.uniform(0.1, 0.8))
