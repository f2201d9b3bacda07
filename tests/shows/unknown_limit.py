"""A limit that is lower than what is configured, and unknown: found, kept to, and found lifted.

nginx allows 60/s with a burst of 150; Paceline is configured for 100/s. Later nginx allows 1,000/s.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from shows.figures import Figure, at_least, at_most
from shows.stage import NginxStack, let_pass, messages, queue
from support.nginx import Request
from support.wait import until

SECONDS = 60.0
RATE, BURST, LIMIT, LIFTED = 100.0, 150, 60.0, 1000.0
SETTLE_S, MOST_REFUSED, LEAST_USE = 20.0, 0.02, 0.95
LEAST_BACK, BACK_WITHIN_S, _BACK_SPAN_MS = 0.95, 60.0, 5000


def run(folder: Path, seconds: float, seed: int) -> list[Figure]:
    """``seconds``: measured after the first twenty, under the lower limit."""
    with start(folder, seed) as stack:
        found = judge(*under_limit(stack, SETTLE_S, seconds))
        stack.nginx.limit(LIFTED, BURST)
        lifted_ms = round(time.time() * 1000)
        back_s = _wait_back(stack, lifted_ms)
        census = stack.store.census()
    return [
        *found,
        at_most(
            "95% of the configured rate over 5 s after it was lifted, s", back_s, BACK_WITHIN_S
        ),
        at_most("dead letters", census.law["dead"], 0),
        at_most("law's difference, messages", abs(census.difference), 0),
    ]


def start(folder: Path, seed: int) -> NginxStack:
    """The stack, not entered yet."""
    return NginxStack(folder, rate=RATE, burst=BURST, limit=(LIMIT, BURST), seed=seed)


def under_limit(
    stack: NginxStack, settle_s: float, seconds: float
) -> tuple[list[Request], float, float]:
    """What nginx saw, and from when to when it counts (unix milliseconds)."""
    queue(stack, messages(round(RATE * (settle_s + seconds + BACK_WITHIN_S + 10)), "m"))
    first = until(stack.nginx.requests, 30, "the first request")[0]
    from_ms = first.began_ms + settle_s * 1000
    to_ms = from_ms + seconds * 1000
    let_pass(to_ms / 1000 - time.time())
    return stack.nginx.requests(), from_ms, to_ms


def judge(seen: Sequence[Request], from_ms: float, to_ms: float) -> list[Figure]:
    """Refusals and use of the true limit, by nginx's own log."""
    within = Counter(r.status for r in seen if from_ms <= r.began_ms < to_ms)
    before = Counter(r.status for r in seen if r.began_ms < from_ms)
    span_s = (to_ms - from_ms) / 1000
    refused = within[429] / max(1, within.total())
    return [
        at_most("requests refused (429), part of all", refused, MOST_REFUSED),
        at_least("use of the true limit", within[200] / (LIMIT * span_s), LEAST_USE),
        Figure("measured span, s", span_s),
        Figure("requests accepted in it", within[200]),
        Figure("requests refused in it", within[429]),
        Figure("accepted before it", before[200]),
        Figure("refused before it", before[429]),
    ]


def _wait_back(stack: NginxStack, lifted_ms: int) -> float:
    """Seconds until the full rate was held over five seconds; infinity where it was not in time."""

    def back_s() -> float:
        return _back_s(stack.nginx.requests(), lifted_ms)

    try:
        return until(back_s, BACK_WITHIN_S + 5, "the full rate again", 0.5)
    except AssertionError:
        return float("inf")


def _back_s(seen: Sequence[Request], lifted_ms: int) -> float:
    """The end of the first five seconds that held enough requests; 0 where there are none yet."""
    began = [r.began_ms for r in seen if r.began_ms >= lifted_ms and r.status == 200]
    need = round(LEAST_BACK * RATE * _BACK_SPAN_MS / 1000)
    for first, last in zip(began, began[need - 1 :], strict=False):
        if last - first <= _BACK_SPAN_MS:
            return (first + _BACK_SPAN_MS - lifted_ms) / 1000
    return 0.0
