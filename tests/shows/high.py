"""High-priority messages pass a long queue of bulk, and bulk goes on.

100,000 bulk messages wait and go out at the full rate; high ones are sent at 5/s. Measured is from
the call of ``Outbox.send()`` to the first byte at the provider. ``run_slow``: the provider takes
500 ms a request, so that connections bind and not the rate.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paceline.rehearsal.measures import quantile
from shows.figures import Figure, at_least, at_most, quantiles
from shows.stage import let_pass, messages, queue, slowest_fsync_ms, watch_fsync
from support.stack import DESTINATION, Stack
from support.wait import until

SECONDS = 60.0
RATE, BURST, CONNECTIONS = 100.0, 150, 10
MOST_MS, LEAST_BULK = 250.0, 0.1
_BULK = 100_000
_HIGH_PER_S = 5.0
_WARM_REQUESTS = 100


def run(folder: Path, seconds: float, seed: int) -> list[Figure]:
    """A provider that takes 50 ms."""
    return _run(folder, seconds, seed, latency="50ms", most_per_s=RATE)


def run_slow(folder: Path, seconds: float, seed: int) -> list[Figure]:
    """One that takes 500 ms: ten connections carry 20/s."""
    return _run(folder, seconds, seed, latency="500ms", most_per_s=CONNECTIONS / 0.5)


def _run(
    folder: Path, seconds: float, seed: int, *, latency: str, most_per_s: float
) -> list[Figure]:
    """``most_per_s``: what the provider lets through, of which bulk must get its part."""
    bulk = min(_BULK, round(_BULK * seconds / SECONDS))
    with Stack(
        folder, rate=RATE, burst=BURST, connections=CONNECTIONS, latency=latency, seed=seed
    ) as stack:
        queue(stack, messages(bulk, "bulk", priority="bulk"))
        stack.wait_arrivals(_WARM_REQUESTS)
        watch_fsync(stack)
        began_ns = time.monotonic_ns()
        called_ns, took_ms = _send_high(stack, seconds, random.Random(seed))
        ended_ns = time.monotonic_ns()
        until(lambda: _missing(stack, called_ns) == 0, 30, "all high ones arrived", 0.5)
        arrivals = stack.arrivals()
        census = stack.store.census()
        fsync_ms = slowest_fsync_ms(stack)
    reached_ms = _reached_ms(arrivals, called_ns)
    span_s = (ended_ns - began_ns) / 1e9
    within = [a for a in arrivals if began_ns <= a["mono_ns"] < ended_ns]
    bulk_per_s = sum(a["id"].startswith("bulk") for a in within) / span_s
    return [
        at_most("send() called to first byte, ms, p99", quantile(reached_ms, 0.99) or 0, MOST_MS),
        Figure("of high ones", len(reached_ms)),
        *quantiles("send() called to first byte, ms", reached_ms),
        *quantiles("of that, send() itself, ms", took_ms),
        at_least("bulk, of what the provider lets through", bulk_per_s / most_per_s, LEAST_BULK),
        Figure("slowest fsync of Redis meanwhile, ms", fsync_ms),
        Figure("requests/s of all", len(within) / span_s),
        Figure("bulk still waiting", census.law["ready"]),
        at_most("law's difference, messages", abs(census.difference), 0),
    ]


def _send_high(
    stack: Stack, seconds: float, draw: random.Random
) -> tuple[dict[str, int], list[float]]:
    """Sends at random gaps, so that no loop of ours is met in step. Returns when each send() was
    called (CLOCK_MONOTONIC, ns) and how long each took, ms."""
    called_ns: dict[str, int] = {}
    took_ms: list[float] = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        message_id = f"high-{len(called_ns)}"
        called_ns[message_id] = time.monotonic_ns()
        stack.outbox.send(DESTINATION, {"text": "now"}, id=message_id, priority="high")
        took_ms.append((time.monotonic_ns() - called_ns[message_id]) / 1e6)
        let_pass(draw.uniform(0.5, 1.5) / _HIGH_PER_S)
    return called_ns, took_ms


def _reached_ms(arrivals: Sequence[Mapping[str, Any]], called_ns: Mapping[str, int]) -> list[float]:
    first: dict[str, int] = {}
    for arrival in arrivals:
        first.setdefault(arrival["id"], arrival["mono_ns"])
    return [(first[i] - called) / 1e6 for i, called in called_ns.items()]


def _missing(stack: Stack, called_ns: Mapping[str, int]) -> int:
    return len(called_ns.keys() - {a["id"] for a in stack.arrivals()})
