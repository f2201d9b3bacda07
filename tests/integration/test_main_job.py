"""The main job, started in the ways that operators start it, beside an external Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.sink.windows import worst_window
from support.stack import Stack

FAULTS = "500:2%,reset_after:1%,429:0.5%:retry_after=1"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "up",
    [
        pytest.param(False, id="daemon-and-two-workers"),
        # `make run` does it too.
        pytest.param(True, id="up", marks=pytest.mark.long),
    ],
)
def test_all_is_sent_once_or_explained_at_the_pace(tmp_path: Path, up: bool) -> None:
    with Stack(tmp_path, rate=100.0, burst=20, up=up, daemons=2, faults=FAULTS) as stack:
        stack.send(600)
        stack.wait_done(60)
        twice = stack.check_accounts()
        times = [arrival["mono_ns"] for arrival in stack.arrivals()]
        assert worst_window(times, stack.rate, stack.burst).excess == 0
        reset = {a["id"] for a in stack.arrivals() if a["fault"] == "reset_after"}
        assert set(twice) == reset, "only what the provider may have had twice came twice"
        assert reset, "no fault was played: the run proves nothing"
        for process in (*stack.daemon_processes, *stack.worker_processes):
            process.terminate()
        for process in (*stack.worker_processes, *stack.daemon_processes):
            assert process.wait(30) == 0
