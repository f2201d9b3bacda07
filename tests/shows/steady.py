"""At the configured rate a real limiter refuses nothing, and gets all that it would take.

nginx allows 100/s with a burst of 150; Paceline is configured for just that. Two workers, one of
which is killed and replaced every 20 s.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from paceline.sink.windows import worst_window
from shows.figures import Figure, at_least, at_most
from shows.stage import NginxStack, kill_and_restart_worker, let_pass, messages, queue
from support.nginx import Request
from support.wait import until

SECONDS = 120.0
RATE, BURST = 100.0, 150
LEAST_USE = 0.98
_KILL_EVERY_S = 20.0
_WARM_S = 4.0


def run(folder: Path, seconds: float, seed: int) -> list[Figure]:
    """In a run of less than a minute a worker is killed at each third of it."""
    kill_every_s = min(_KILL_EVERY_S, seconds / 3)
    with NginxStack(folder, rate=RATE, burst=BURST, limit=(RATE, BURST), seed=seed) as stack:
        queue(stack, messages(round(RATE * (seconds + 3 * _WARM_S)) + BURST, "m"))
        until(lambda: len(stack.nginx.requests()) >= RATE * _WARM_S, 30, "warm")
        began_s, kills = time.time(), 0
        while (left_s := began_s + seconds - time.time()) > kill_every_s / 2:
            let_pass(min(kill_every_s, left_s))
            if began_s + seconds - time.time() > kill_every_s / 2:
                kill_and_restart_worker(stack)
                kills += 1
        let_pass(left_s)
        ended_s = time.time()
        census = stack.store.census()
        seen = stack.nginx.requests()
    return [
        *judge(seen, began_s, ended_s),
        Figure("workers killed", kills),
        at_most("law's difference, messages", abs(census.difference), 0),
    ]


def judge(seen: Sequence[Request], began_s: float, ended_s: float) -> list[Figure]:
    """By nginx's own log: refusals over the whole run, use of the rate between the two times."""
    statuses = Counter(request.status for request in seen)
    within = sum(began_s * 1e3 <= request.began_ms < ended_s * 1e3 for request in seen)
    worst = worst_window([request.began_ms * 1_000_000 for request in seen], RATE, BURST)
    return [
        at_most("requests refused (429)", statuses.pop(429, 0), 0),
        at_least("use of the rate", within / (RATE * (ended_s - began_s)), LEAST_USE),
        Figure("requests accepted (200)", statuses.pop(200, 0)),
        at_most("requests answered otherwise", sum(statuses.values()), 0),
        Figure("requests in the measured span", within),
        Figure("measured span, s", ended_s - began_s),
        # nginx logs milliseconds: a pair may be a millisecond closer or further apart than it was.
        Figure("worst window over burst + rate * w, requests", worst.margin),
    ]
