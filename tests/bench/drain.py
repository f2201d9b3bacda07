"""Cost and speed beside a naive loop: ``PYTHONPATH=tests python -m bench.drain [--pairs 7]``.

One sink (its own process, no latency, no faults). In turn, seven times: a one-thread
``requests.Session.post(json=…)`` loop, and Paceline draining a backlog with two workers under
``appendfsync always``. CPU is that of all our processes: producer, daemon, workers; Redis is
printed beside it. Raw numbers first, then medians and spread of the paired ratios.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import requests

from paceline import Outbox
from support.stack import DESTINATION, Stack
from support.wait import until

TEXT = "y" * 900


class Cost(NamedTuple):
    """One run: messages per second, CPU milliseconds a message (ours; Redis's)."""

    per_s: float
    cpu_ms: float
    redis_ms: float


def naive(url: str, count: int) -> Cost:
    """The loop everybody writes first."""
    session = requests.Session()
    wall, cpu = time.perf_counter(), time.process_time()
    for n in range(count):
        session.post(url, json={"n": n, "text": TEXT}).raise_for_status()
    return Cost(
        count / (time.perf_counter() - wall), (time.process_time() - cpu) / count * 1e3, 0.0
    )


def paceline(stack: Stack, count: int, prefix: str) -> Cost:
    """Enqueue and drain ``count`` messages; from the first enqueue's return to the last settle."""
    pids = [p.pid for p in (*stack.daemon_processes, *stack.worker_processes)]
    before, redis_before = sum(map(cpu_s, pids)), cpu_s(stack.server.pid)
    stack.outbox.send(DESTINATION, {"warm": prefix})
    own = time.process_time()
    messages = [
        Outbox.message(DESTINATION, {"n": n, "text": TEXT}, id=f"{prefix}-{n}")
        for n in range(count)
    ]
    stack.store.hold("pause", why="filling")
    stack.outbox.send_many(messages)
    own = time.process_time() - own
    wall = time.perf_counter()
    stack.store.hold("resume")
    until(lambda: stack.store.census().unfinished == 0, 120, "drained", 0.02)
    elapsed = time.perf_counter() - wall
    ours = sum(map(cpu_s, pids)) - before + own
    return Cost(
        count / elapsed, ours / count * 1e3, (cpu_s(stack.server.pid) - redis_before) / count * 1e3
    )


def cpu_s(pid: int) -> float:
    """User and system CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Runs the pairs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--count", type=int, default=4000)
    options = parser.parse_args()
    rows: list[tuple[Cost, Cost]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), rate=50_000, burst=20_000, latency="0ms") as stack,
    ):
        url = f"http://{stack.sink_address}/messages"
        paceline(stack, 500, "warm-up")
        for pair in range(options.pairs):
            rows.append((naive(url, options.count), paceline(stack, options.count, f"p{pair}")))
            a, b = rows[-1]
            print(
                f"pair {pair + 1}: naive {a.per_s:7.0f}/s {a.cpu_ms:.3f} ms   "
                f"paceline {b.per_s:7.0f}/s {b.cpu_ms:.3f} ms (Redis {b.redis_ms:.3f} ms)",
                flush=True,
            )
        assert stack.store.census().sound
    _ratio("CPU per message, ours/naive", [b.cpu_ms / a.cpu_ms for a, b in rows])
    _ratio("with Redis's, ours/naive", [(b.cpu_ms + b.redis_ms) / a.cpu_ms for a, b in rows])
    _ratio("drain rate, ours/naive", [b.per_s / a.per_s for a, b in rows])


def _ratio(name: str, values: list[float]) -> None:
    print(f"{name}: median {median(values):.2f} (min {min(values):.2f}, max {max(values):.2f})")


if __name__ == "__main__":
    main()
