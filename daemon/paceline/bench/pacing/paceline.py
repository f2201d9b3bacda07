"""Paceline as a contestant: daemon and workers as in service, the outbox paused until ``go``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from paceline.bench.pacing.contestant import Contestant, Setting
from paceline.bench.pacing.plan import PACELINE, WORKERS
from paceline.bench.stage import BenchStage, server_name


@contextmanager
def paceline(setting: Setting) -> Iterator[Contestant]:
    """Raises as ``BenchStage``."""
    plan = setting.plan
    with BenchStage(
        setting.folder,
        "always",
        setting.sink_url,
        {PACELINE: WORKERS},
        rate=plan.rate,
        burst=plan.burst,
        most=2 * plan.messages,
    ) as stage:
        line = stage.lines[PACELINE]
        line.pause()
        stage.fill(line, PACELINE, plan.messages)
        yield Contestant(server_name(stage.client), line.resume, line.workers, line.daemons)
