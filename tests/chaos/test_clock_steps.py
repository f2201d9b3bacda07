"""The time of day steps, an hour forward and an hour back, for Redis, daemon, workers and sink
(libfaketime), under load: the rate holds in every window, nothing is lost, nothing is sent twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from paceline.audit import DeepAudit
from paceline.sink.windows import worst_window
from support.stack import Producer, Stack
from support.wait import until

HOUR_S = 3600
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))

pytestmark = [pytest.mark.long, pytest.mark.needs("faketime"), pytest.mark.timeout(150)]


@pytest.fixture
def offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that holds the offset: every process started meanwhile heeds it."""
    at = tmp_path / "offset"
    at.write_text("+0\n")
    for name, value in {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(at),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return at


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
def test_the_clock_of_redis_steps(tmp_path: Path, offset: Path, step_s: int) -> None:
    with Stack(tmp_path, rate=80, burst=100, connections=6, more="lease_s = 4.0") as stack:
        producer = Producer(stack, per_s=60)
        producer.start()
        stack.wait_arrivals(150)
        for seconds in (step_s, 0):
            goal = time.time() + seconds
            offset.write_text(f"{seconds:+d}\n")
            until(partial(_is_about, stack, goal), 5, "it stepped")
            stack.wait_arrivals(stack.arrival_count() + 250)
        producer.halt()
        stack.wait_done(60)
        assert stack.check_accounts() == {}
        assert DeepAudit(stack.store).run().sound
        times = [a["mono_ns"] for a in stack.arrivals()]
        assert worst_window(times, stack.rate, stack.burst).margin <= 0


def _is_about(stack: Stack, goal: float) -> bool:
    return abs(float(stack.client.time()[0]) - goal) < 60
