"""BullMQ as a contestant: its own limiter, ``{max: rate, duration: 1000}``; it knows no burst."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from paceline.bench.child import BenchFailed
from paceline.bench.pacing.contestant import Contestant, Setting, stopped_at_end
from paceline.bench.pacing.plan import EACH, WORKERS
from paceline.bench.stage import BenchStage, server_name
from paceline.rehearsal.processes import Part

_FILL_S = 120.0


@contextmanager
def bullmq(setting: Setting, packages: Path) -> Iterator[Contestant]:
    """``packages`` is where ``node.install`` put them. Raises as ``BenchStage``."""
    plan, stage = setting.plan, BenchStage(setting.folder, "always", setting.sink_url, {})

    def command(program: str, *arguments: object) -> list[str]:
        place = str(files("paceline.bench.peers") / program)
        return ["node", place, str(packages), stage.url, *map(str, arguments)]

    def go() -> None:
        words = command("bullmq_worker.mjs", setting.sink_url, plan.rate, EACH)
        for number in range(1, WORKERS + 1):
            name = f"worker-{number}"
            workers.append(Part(name, words, os.environ, setting.folder / f"{name}.log"))

    with stage, stopped_at_end() as workers:
        _fill(command("bullmq_fill.mjs", plan.messages))
        yield Contestant(server_name(stage.client), go, workers)


def _fill(command: list[str]) -> None:
    ended = subprocess.run(  # noqa: S603 - our own command line
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_FILL_S, check=False
    )
    if ended.returncode:
        words = ended.stderr.decode("utf-8", "replace").strip()
        raise BenchFailed(f"BullMQ's backlog: node ended with code {ended.returncode}\n{words}")
