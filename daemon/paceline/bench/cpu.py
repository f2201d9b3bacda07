"""CPU time, of processes and of Redis, to the microsecond where the system tells it."""

from __future__ import annotations

import time
from collections.abc import Iterable

import redis

from paceline.bench.child import BenchFailed
from paceline.rehearsal.processes import cpu_s

# clock_getcpuclockid(3) for other processes, which Python does not offer: the bits of the process
# id, negated, above CPUCLOCK_SCHED (linux/posix-timers.h). All threads, ended ones too.
_CPUCLOCK_SCHED = 2


def used_s(pids: Iterable[int]) -> float:
    """User and system CPU seconds of these processes so far. Raises BenchFailed where one is gone
    or the system does not tell."""
    total = 0.0
    for pid in pids:
        seconds = _clock_s(pid)
        if seconds is None:
            seconds = cpu_s(pid)
        if seconds is None:
            raise BenchFailed(f"the CPU time of process {pid} cannot be read: has it ended?")
        total += seconds
    return total


def _clock_s(pid: int) -> float | None:
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return None  # no Linux, or no such process: the coarser way tells which


def redis_s(client: redis.Redis) -> float:
    """CPU seconds that Redis, with all its threads, has used. Raises RedisError."""
    info = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
