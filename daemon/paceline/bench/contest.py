"""Side by side: each contestant sends the same number of messages to the same sink, in turn."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from paceline.bench.child import run_child
from paceline.bench.figures import Run
from paceline.bench.lines import Line
from paceline.bench.plan import NAIVE, RQ
from paceline.bench.sink import BenchSink
from paceline.bench.stage import BenchStage
from paceline.rehearsal.processes import machine_ticks, stolen_since

T = TypeVar("T")


def order(names: Sequence[T], pair: int) -> Sequence[T]:
    """Whose turn it is: each pair begins with another one, so that none has the better place."""
    first = pair % len(names)
    return (*names[first:], *names[:first])


def run_once(stage: BenchStage, sink: BenchSink, name: str, pair: int, count: int) -> Run:
    """One contestant's turn. Raises BenchFailed, also when the sink saw anything else."""
    sink.forget()
    ticks = machine_ticks()
    if name == NAIVE:
        turn = _naive(sink, count)
    elif name == RQ:
        turn = _rq(stage, sink, count)
    else:
        turn = _paceline(stage, stage.lines[name], pair, count)
    stolen = stolen_since(ticks)
    accepted = sink.accepted(name, count)
    return Run(
        name,
        stage.fsync,
        pair,
        count,
        accepted,
        turn.wall_s,
        turn.intake_s,
        turn.cpu_s,
        turn.redis_s,
        stolen,
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    wall_s: float
    intake_s: float | None
    cpu_s: Mapping[str, float]
    redis_s: float


def _naive(sink: BenchSink, count: int) -> _Turn:
    told = run_child("peers.naive", sink.url, count)
    return _Turn(told.wall_s, None, {"loop": told.cpu_s}, 0.0)


def _rq(stage: BenchStage, sink: BenchSink, count: int) -> _Turn:
    before_s = stage.redis_s()
    put = run_child("peers.rq_enqueue", stage.rq_url, sink.url, count)
    drained = run_child("peers.rq_drain", stage.rq_url, count)
    redis_s = stage.redis_s() - before_s
    stage.forget_rq()
    cpu_s = {"producer": put.cpu_s, "workers": drained.cpu_s}
    return _Turn(drained.wall_s, put.wall_s, cpu_s, redis_s)


def _paceline(stage: BenchStage, line: Line, pair: int, count: int) -> _Turn:
    line.pause()
    before, sent = stage.mark(line), line.sent()
    put = stage.fill(line, f"pair-{pair}", count)
    began_s = time.monotonic()
    line.resume()
    line.await_sent(sent + count)
    wall_s = time.monotonic() - began_s
    used = stage.mark(line) - before
    cpu_s = {"producer": put.cpu_s, "daemon": used.daemon_s, "workers": used.workers_s}
    return _Turn(wall_s, put.wall_s, cpu_s, used.redis_s)
