"""Idle latency: from ``send`` returning to the first byte at the sink, on a warm connection."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from paceline.bench.body import payload
from paceline.bench.child import BenchFailed
from paceline.bench.figures import Latency
from paceline.bench.lines import Line
from paceline.bench.sink import BenchSink
from paceline.bench.stage import BenchStage
from paceline.client import Outbox

#: Sends before those that count: connections are open then.
_WARM = 10
_GAP_S = (0.05, 0.5)


def measure_latency(
    stage: BenchStage,
    sink: BenchSink,
    line: Line,
    count: int,
    seed: int,
    sent_one: Callable[[], None],
) -> Latency:
    """Sends one message at a time, at random gaps. Raises BenchFailed, RedisUnavailable."""
    line.resume()
    sink.forget()
    draw = random.Random(seed)  # noqa: S311 - gaps, no secrets
    returned_ns: dict[str, int] = {}
    before = line.sent()
    with Outbox.from_url(stage.url) as outbox:
        for number in range(_WARM + count):
            time.sleep(draw.uniform(*_GAP_S) if number >= _WARM else _GAP_S[0])
            receipt = outbox.send(line.name, payload(number), id=f"latency-{number}")
            returned_ns[receipt.id] = time.monotonic_ns()
            sent_one()
    line.await_sent(before + len(returned_ns))
    sink.accepted(line.name, len(returned_ns))
    measured: list[float] = []
    known: set[int] = set()
    opened = 0
    for arrival in sink.client.arrivals():
        number = int((arrival.id or "").rpartition("-")[2] or -1)
        if arrival.id not in returned_ns:
            raise BenchFailed(f"the sink saw a message that nobody sent: {arrival.id}")
        if number >= _WARM:
            # CLOCK_MONOTONIC is one clock for all processes of a machine.
            measured.append((arrival.mono_ns - returned_ns[arrival.id]) / 1e6)
            opened += arrival.conn not in known
        known.add(arrival.conn)
    return Latency(stage.fsync, measured, opened)
