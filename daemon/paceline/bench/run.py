"""One bench from start to end: the sections in turn, policy by policy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from paceline.bench import machine as machines
from paceline.bench.backlog import measure_backlog
from paceline.bench.contest import order, run_once
from paceline.bench.events import measure_events
from paceline.bench.figures import Depth, Latency, Measured, Memory, Run
from paceline.bench.latency import measure_latency
from paceline.bench.memory import measure_memory
from paceline.bench.plan import STANDARD, WARM_UP, WORKERS, Plan
from paceline.bench.progress import Teller
from paceline.bench.report import Report
from paceline.bench.sink import BenchSink
from paceline.bench.stage import BenchStage, server_name
from paceline.rehearsal.processes import machine_ticks, stolen_since


def bench(plan: Plan, folder: Path, tell: Teller) -> Report:
    """Runs it in ``folder``, which exists and is empty. ``tell`` hears how far it is.

    Raises BenchFailed, PartFailed, EmbeddedServerError, RedisUnavailable, RedisError, OSError.
    Whatever it raises (KeyboardInterrupt too), every process has been stopped in order.
    """
    began_s, ticks = time.monotonic(), machine_ticks()
    runs: list[Run] = []
    memory: list[Memory] = []
    latency: list[Latency] = []
    events: list[Run] = []
    backlog: list[Depth] = []
    machine: machines.Machine | None = None
    # Events and backlog have servers of their own, and run under the first policy only.
    policies = plan.fsync if plan.contestants or _lines(plan) else plan.fsync[:1]
    with BenchSink(folder) as sink:
        for fsync in policies:
            lines = _lines(plan)
            with BenchStage(folder / fsync, fsync, sink.url, lines, most=_most(plan)) as stage:
                if machine is None:
                    machine = machines.look(server_name(stage.client))
                    tell.machine(machine)
                runs += _contest(plan, stage, sink, tell)
                if plan.wants("memory"):
                    tell.stage(f"{fsync}: memory of {plan.fill:,} messages", 1)
                    memory.append(measure_memory(stage, stage.lines[STANDARD], plan.fill))
                    tell.step()
                if plan.wants("latency"):
                    tell.stage(f"{fsync}: latency of {plan.sends} sends", plan.sends)
                    line = stage.lines[STANDARD]
                    found = measure_latency(stage, sink, line, plan.sends, plan.seed, tell.step)
                    latency.append(found)
            if plan.wants("events") and fsync == plan.fsync[0]:
                events += measure_events(plan, folder, fsync, sink, tell)
            if plan.wants("backlog") and fsync == plan.fsync[0]:
                backlog += measure_backlog(plan, folder, fsync, sink, tell)
    assert machine is not None
    return Report(
        plan,
        replace(machine, stolen=stolen_since(ticks)),
        Measured(runs, memory, latency, backlog, events),
        time.monotonic() - began_s,
    )


def _lines(plan: Plan) -> dict[str, int]:
    lines = {name: workers for name, workers in WORKERS.items() if plan.wants(name)}
    if plan.wants("memory") or plan.wants("latency"):
        lines[STANDARD] = WORKERS[STANDARD]
    return lines


def _most(plan: Plan) -> int:
    return 2 * max(500_000, plan.messages, plan.fill)


def _contest(plan: Plan, stage: BenchStage, sink: BenchSink, tell: Teller) -> Sequence[Run]:
    names = plan.contestants
    if not names:
        return ()
    tell.stage(f"{stage.fsync}: warming up", len(names))
    for name in names:
        run_once(stage, sink, name, 0, min(WARM_UP, plan.messages_of(name)))
        tell.step()
    tell.stage(f"{stage.fsync}: {plan.pairs} pairs of {plan.messages:,}", plan.pairs * len(names))
    runs: list[Run] = []
    for pair in range(1, plan.pairs + 1):
        for name in order(names, pair):
            runs.append(run_once(stage, sink, name, pair, plan.messages_of(name)))
            tell.step()
    return runs
