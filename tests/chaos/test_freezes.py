"""All workers frozen for five seconds: the rate holds at the wire, in every window."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from paceline.sink.windows import excess
from support.stack import DESTINATION, Stack

FREEZE_S = 5.0
WINDOWS_S = (0.1, 0.5, 1.0, 2.0, 5.0)
UNGATED = ("support.ungated_worker", "worker", DESTINATION)


def _run_with_freeze(stack: Stack) -> dict[float, float]:
    """Excess over burst + rate·w in each window, as the sink saw it."""
    stack.send(2200)
    stack.wait_arrivals(150)
    stack.signal_workers(signal.SIGSTOP)
    time.sleep(FREEZE_S)  # the freeze itself: a span is what is tested
    stack.signal_workers(signal.SIGCONT)
    stack.wait_arrivals(900)
    times = [a["mono_ns"] for a in stack.arrivals()]
    return {w: excess(times, w, stack.rate, stack.burst).excess for w in WINDOWS_S}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("burst", "connections"), [(150, 10), pytest.param(12, 10, marks=pytest.mark.long)]
)
def test_no_window_exceeds_the_bucket_after_a_freeze(
    tmp_path: Path, burst: int, connections: int
) -> None:
    with Stack(tmp_path, burst=burst, connections=connections, more="lease_s = 3.0") as stack:
        over = _run_with_freeze(stack)
        assert over == dict.fromkeys(WINDOWS_S, 0.0)


@pytest.mark.timeout(120)
def test_the_same_run_without_the_gate_does_exceed_it(tmp_path: Path) -> None:
    with Stack(
        tmp_path, burst=12, connections=10, more="lease_s = 3.0", worker_module=UNGATED
    ) as stack:
        over = _run_with_freeze(stack)
        assert max(over.values()) > 0, "the control run proves nothing"
