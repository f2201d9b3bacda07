"""One bench of merging from start to end: turn by turn the intake, the floor and the drain."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from paceline.bench import machine as machines
from paceline.bench.child import BenchFailed, run_child
from paceline.bench.lines import config_text
from paceline.bench.merge.figures import Drain, Loop, Turn
from paceline.bench.merge.plan import NAME, MergePlan
from paceline.bench.merge.report import MergeReport
from paceline.bench.peak import peak_bytes
from paceline.bench.plan import RATE
from paceline.bench.progress import Teller
from paceline.bench.sink import BenchSink
from paceline.bench.stage import BenchStage, server_name
from paceline.outbox import OutboxStore
from paceline.rehearsal.processes import machine_ticks, stolen_since
from paceline.scripts import load_library
from paceline.settings_file import loads
from paceline.shared_config import publish


def bench_merge(plan: MergePlan, folder: Path, tell: Teller) -> MergeReport:
    """Runs it in ``folder``, which exists and is empty. ``tell`` hears how far it is.

    Raises BenchFailed, PartFailed, EmbeddedServerError, RedisError, OSError. Whatever it raises
    (KeyboardInterrupt too), every process has been stopped in order.
    """
    began_s, ticks = time.monotonic(), machine_ticks()
    machine: machines.Machine | None = None
    turns: list[Turn] = []
    speech = plan.speech
    with BenchSink(folder, speech.profile, speech.path) as sink:
        for pair in range(1, plan.pairs + 1):
            turn_ticks = machine_ticks()
            tell.stage(f"turn {pair} of {plan.pairs}: intake and floor", 2)
            with _stage(plan, folder / f"bare-{pair}", sink, 0) as stage:
                if machine is None:
                    machine = machines.look(server_name(stage.client))
                    tell.machine(machine)
                intake, floor = _bare(plan, stage, sink, tell)
            tell.stage(f"turn {pair} of {plan.pairs}: drain", 1)
            with _stage(plan, folder / f"drain-{pair}", sink, plan.workers) as stage:
                drain = _drain(plan, stage, sink)
                tell.step()
            turns.append(Turn(pair, plan.messages, intake, floor, drain, stolen_since(turn_ticks)))
    assert machine is not None
    machine = replace(machine, stolen=stolen_since(ticks))
    return MergeReport(plan, machine, turns, time.monotonic() - began_s)


def _stage(plan: MergePlan, folder: Path, sink: BenchSink, workers: int) -> BenchStage:
    """A server of its own; with ``workers`` 0 nobody else lives on it."""
    lines = {NAME: workers} if workers else {}
    dialect = plan.speech.dialect
    return BenchStage(folder, "always", sink.url, lines, most=plan.room, dialect=dialect)


def _bare(plan: MergePlan, stage: BenchStage, sink: BenchSink, tell: Teller) -> tuple[Loop, Loop]:
    dialect = plan.speech.dialect
    text = config_text(NAME, stage.url, sink.url, RATE, plan.room, dialect=dialect)
    store = OutboxStore(stage.client, NAME)
    load_library(stage.client)
    publish(store, loads(text).destinations[NAME])
    intake = _loop(stage, "merge.producer", NAME, plan.messages)
    tell.step()
    way = "merged" if plan.speech.most > 1 else "plain"
    floor = _loop(stage, "merge.floor", NAME, plan.messages, plan.speech.batch, way)
    tell.step()
    _sound(store, plan.messages)
    return intake, floor


def _loop(stage: BenchStage, module: str, *arguments: object) -> Loop:
    before_s = stage.redis_s()
    told = run_child(module, stage.url, *arguments)
    return Loop(told.wall_s, told.cpu_s, stage.redis_s() - before_s)


def _drain(plan: MergePlan, stage: BenchStage, sink: BenchSink) -> Drain:
    line = stage.lines[NAME]
    line.pause()
    run_child("merge.producer", stage.url, NAME, plan.messages)
    stage.settle()
    sink.forget()
    before, began_s = stage.mark(line), time.monotonic()
    line.resume()
    line.await_sent(plan.messages)
    wall_s = time.monotonic() - began_s
    used = stage.mark(line) - before
    peaks = [peak for part in line.workers if (peak := peak_bytes(part.pid)) is not None]
    _sound(line.store, plan.messages)
    recipients, requests = _counted(plan, sink)
    return Drain(wall_s, recipients, requests, used.workers_s, used.daemon_s, used.redis_s, peaks)


def _counted(plan: MergePlan, sink: BenchSink) -> tuple[int, int]:
    """(recipients, requests) that the sink accepted. Raises BenchFailed unless they are all there,
    none twice."""
    report = sink.client.report()
    found, twice = int(report[plan.speech.counted]), len(report["duplicates"])
    if found != plan.messages or report["accepted"] != report["arrivals"] or twice:
        raise BenchFailed(
            f"{plan.messages:,} messages were sent by Paceline's account, but the sink accepted "
            f"{found:,} in {report['accepted']:,} of {report['arrivals']:,} requests, {twice:,} of "
            "them twice"
        )
    return found, int(report["accepted"])


def _sound(store: OutboxStore, count: int) -> None:
    """Raises BenchFailed unless the books balance and all messages were sent."""
    census = store.census()
    if not census.sound or census.law["sent"] != count or census.unfinished:
        raise BenchFailed(f"the audit is not sound after {count:,} messages: {census.law}")
