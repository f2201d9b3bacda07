"""A bucket applied at dispatch: what is released at the pace is sent as soon as a thread is free.

A dispatcher draws a token a job and moves it from the backlog to the workers' queue; the workers'
threads pop and post, each on its own session. The queue is a Redis list: a queue library between
them would only slow it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import redis

from paceline.bench.body import payload
from paceline.bench.child import BenchFailed
from paceline.bench.pacing.contestant import Contestant, Setting, stopped_at_end
from paceline.bench.pacing.plan import EACH, WORKERS
from paceline.bench.peers.dispatch_keys import BACKLOG, READY
from paceline.bench.stage import BenchStage, server_name
from paceline.rehearsal.processes import Part
from paceline.supervisor import PARENT_VARIABLE

_READY_S, _LOOK_S = 30.0, 0.05
_PIECE = 500


@contextmanager
def dispatch(setting: Setting) -> Iterator[Contestant]:
    """Its bucket starts full with ``go``. Raises as ``BenchStage``."""
    plan, stage = setting.plan, BenchStage(setting.folder, "always", setting.sink_url, {})

    def part(name: str, module: str, *arguments: object) -> Part:
        words = [sys.executable, "-m", f"paceline.bench.peers.{module}", stage.url]
        environ = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        log = setting.folder / f"{name}.log"
        return Part(name, [*words, *map(str, arguments)], environ, log)

    with stage, stopped_at_end() as workers, stopped_at_end() as dispatchers:
        contestant = Contestant(
            server_name(stage.client),
            lambda: dispatchers.append(
                part("dispatcher", "dispatch_bucket", plan.rate, plan.burst)
            ),
            workers,
            dispatchers,
        )
        _fill(stage.client, plan.messages)
        for number in range(1, WORKERS + 1):
            workers.append(part(f"worker-{number}", "dispatch_worker", setting.sink_url, EACH))
        _await_ready(stage.client, contestant)
        yield contestant


def _fill(client: redis.Redis, count: int) -> None:
    for first in range(0, count, _PIECE):
        numbers = range(first, min(first + _PIECE, count))
        client.rpush(BACKLOG, *(msgspec.json.encode(payload(n)) for n in numbers))


def _await_ready(client: redis.Redis, contestant: Contestant) -> None:
    # A queue that fills while threads still start would be the bench's doing, not the bucket's.
    end_s = time.monotonic() + _READY_S
    while int(client.get(READY) or 0) < WORKERS * EACH:
        contestant.check()
        if time.monotonic() > end_s:
            raise BenchFailed(f"the workers' threads were not ready within {_READY_S:.0f} s")
        time.sleep(_LOOK_S)
