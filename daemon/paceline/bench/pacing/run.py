"""One bench of the pace from start to end: turn after turn, each on a server of its own."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from paceline.bench import machine as machines
from paceline.bench.child import BenchFailed
from paceline.bench.contest import order
from paceline.bench.pacing.bullmq import bullmq
from paceline.bench.pacing.contestant import Contestant, Setting
from paceline.bench.pacing.dispatch import dispatch
from paceline.bench.pacing.figures import Turn
from paceline.bench.pacing.node import PACKAGES, Unavailable, install
from paceline.bench.pacing.paceline import paceline
from paceline.bench.pacing.plan import BULLMQ, PACELINE, PacingPlan
from paceline.bench.pacing.report import PacingReport
from paceline.bench.pacing.scene import play
from paceline.bench.progress import Teller
from paceline.bench.sink import BenchSink
from paceline.rehearsal.processes import machine_ticks, stolen_since


def bench_pacing(plan: PacingPlan, folder: Path, cache: Path, tell: Teller) -> PacingReport:
    """Runs it in ``folder``, which exists and is empty; BullMQ's packages are kept in ``cache``.

    Raises BenchFailed, PartFailed, EmbeddedServerError, RedisError, OSError. Whatever it raises
    (KeyboardInterrupt too), every process has been stopped in order.
    """
    began_s, ticks = time.monotonic(), machine_ticks()
    skipped: dict[str, str] = {}
    if BULLMQ in plan.contestants:
        tell.stage(f"installing {PACKAGES[0]} with npm, where it is not there yet", 1)
        try:
            install(cache)
        except Unavailable as error:
            skipped[BULLMQ] = str(error)
    names = [name for name in plan.contestants if name not in skipped]
    if not names:
        raise BenchFailed("nobody can take part; " + _words(skipped))
    machine: machines.Machine | None = None
    turns: list[Turn] = []
    with BenchSink(folder) as sink:
        for pair in range(1, plan.pairs + 1):
            for scene in plan.scenes:
                tell.stage(f"{scene}, turn {pair} of {plan.pairs}: {', '.join(names)}", len(names))
                for name in order(names, pair - 1):
                    setting = Setting(folder / f"{scene}-{pair}-{name}", sink.url, plan)
                    turn_ticks = machine_ticks()
                    with _contestant(name, setting, cache) as contestant:
                        if machine is None:
                            machine = machines.look(contestant.server)
                            tell.machine(machine)
                        pace = play(contestant, scene, plan, sink)
                    turns.append(Turn(name, scene, pair, pace, stolen_since(turn_ticks)))
                    tell.step()
    assert machine is not None
    machine = replace(machine, stolen=stolen_since(ticks))
    return PacingReport(plan, machine, turns, skipped, time.monotonic() - began_s)


def _contestant(name: str, setting: Setting, cache: Path) -> AbstractContextManager[Contestant]:
    if name == BULLMQ:
        return bullmq(setting, cache)
    return paceline(setting) if name == PACELINE else dispatch(setting)


def _words(skipped: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in skipped.items())
