"""What a waiting message takes of Redis's memory."""

from __future__ import annotations

from paceline.bench.body import PAYLOAD_BYTES
from paceline.bench.figures import Memory
from paceline.bench.lines import Line
from paceline.bench.stage import BenchStage

_PURGE = 500


def measure_memory(stage: BenchStage, line: Line, count: int) -> Memory:
    """Fills a paused outbox, looks, and drops them again. Raises BenchFailed, RedisError."""
    line.pause()
    before = stage.memory()
    stage.fill(line, "memory", count)
    used = stage.memory() - before
    while line.store.purge(_PURGE):
        pass
    return Memory(stage.fsync, count, PAYLOAD_BYTES, used)
