"""Does a message cost more while half a million wait behind it?

Two servers, each with its own daemon and workers: behind one stand a thousand messages, behind the
other as many as asked for. In turn each sends the same number. The **window** that is measured
begins when the workers' queues are full and ends before they run short: workers hold a quarter of a
second of the rate each, and taking that first, or giving it back at a pause, is no part of what a
message costs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from paceline.bench.contest import order
from paceline.bench.figures import Depth
from paceline.bench.plan import STANDARD, WORKERS, Fsync, Plan
from paceline.bench.progress import Teller
from paceline.bench.sink import BenchSink
from paceline.bench.stage import BenchStage
from paceline.settings import default_batch

SHALLOW = 1000
#: A rate above what a machine does, but not far: workers take a quarter of a second of it ahead.
_RATE_MOST, _RATE_LEAST = 10_000.0, 200.0
_QUEUE_S = 0.25


def measure_backlog(
    plan: Plan, folder: Path, fsync: Fsync, sink: BenchSink, tell: Teller
) -> Sequence[Depth]:
    """All pairs. Raises as ``BenchStage``."""
    rate = min(_RATE_MOST, max(_RATE_LEAST, 5.0 * plan.messages))
    ahead = round(WORKERS[STANDARD] * (_QUEUE_S * rate + default_batch(rate)))
    most = 2 * (plan.backlog + plan.messages + 2 * ahead)
    found: list[Depth] = []
    with ExitStack() as stages:
        by_depth: Mapping[int, BenchStage] = {
            depth: stages.enter_context(
                BenchStage(
                    folder / f"{fsync}-{depth}",
                    fsync,
                    sink.url,
                    {STANDARD: WORKERS[STANDARD]},
                    rate=rate,
                    most=most,
                )
            )
            for depth in (min(SHALLOW, plan.backlog // 2), plan.backlog)
        }
        tell.stage(f"{fsync}: filling a backlog of {plan.backlog:,}", len(by_depth))
        for depth, stage in by_depth.items():
            _top_up(stage, "first", depth)
            tell.step()
        tell.stage(f"{fsync}: {plan.pairs} pairs in front of it", plan.pairs * len(by_depth))
        for pair in range(1, plan.pairs + 1):
            for depth in order(tuple(by_depth), pair):
                stage = by_depth[depth]
                found.append(_measure(stage, sink, plan, pair, depth, ahead))
                tell.step()
    return found


def _top_up(stage: BenchStage, prefix: str, up_to: int) -> tuple[int, float]:
    """Fills a paused outbox; returns how many were missing, and the CPU seconds it took."""
    line = stage.lines[STANDARD]
    line.pause()
    missing = up_to - line.store.census().unfinished
    if missing <= 0:
        return 0, 0.0
    before = stage.mark(line)
    told = stage.fill(line, prefix, missing)
    used = stage.mark(line) - before
    return missing, told.cpu_s + used.redis_s


def _measure(
    stage: BenchStage, sink: BenchSink, plan: Plan, pair: int, depth: int, ahead: int
) -> Depth:
    line = stage.lines[STANDARD]
    enough = depth + plan.messages + 2 * ahead
    taken_in, intake_s = _top_up(stage, f"pair-{pair}", enough)
    stage.settle()
    sink.forget()
    start = line.sent()
    line.resume()
    begun = line.await_sent(start + ahead)
    before, began = stage.mark(line), time.monotonic()
    ended = line.await_sent(begun + plan.messages)
    used, drain_s = stage.mark(line) - before, time.monotonic() - began
    line.pause()
    sink.accepted(f"{line.name} before {depth:,}", line.sent() - start)
    return Depth(
        stage.fsync,
        pair,
        depth,
        taken_in,
        intake_s,
        ended - begun,
        drain_s,
        used.daemon_s + used.workers_s,
        used.redis_s,
    )
