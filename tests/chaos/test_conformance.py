"""Every window at the wire, by two recorders, while everything happens at once, in short.
`PYTHONPATH=tests python -m conformance` tries every account at every rate, for longer.

Workers run each in a network namespace of its own where the machine permits it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.case import hostile
from conformance.evidence import Evidence
from conformance.field import play
from conformance.verdict import Verdict, judge

SEED = 20261205


def _told(evidence: Evidence, verdict: Verdict) -> str:
    return "\n".join([str(verdict), *evidence.deeds, *evidence.unexplained[:10]])


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("rate", "burst", "connections"), [(100.0, 12, 10), (1000.0, 150, 10)])
def test_no_window_has_more_than_burst_and_rate_whatever_happens(
    tmp_path: Path, rate: float, burst: int, connections: int
) -> None:
    case = replace(hostile(rate, burst, connections, 7.0, SEED), warm_s=0.5)
    evidence = play(case, tmp_path)
    verdict = judge(evidence)
    told = _told(evidence, verdict)
    assert verdict.trace <= 0, told
    assert verdict.arrivals <= 0, told
    assert not evidence.unexplained, f"arrivals that no worker recorded\n{told}"
    assert verdict.sound, f"{evidence.law}\n{told}"
    assert all((verdict.kills, verdict.freezes, verdict.restarts, verdict.pauses)), told
    assert verdict.started > 2 * burst, f"too little was sent to prove anything\n{told}"


@pytest.mark.timeout(120)
def test_without_the_gate_the_same_run_goes_over(tmp_path: Path) -> None:
    calm = replace(hostile(100.0, 12, 10, 1.0, SEED), kills=0, restarts=0, warm_s=0.5)
    case = replace(calm, gated=False)
    evidence = play(case, tmp_path)
    verdict = judge(evidence)
    assert verdict.trace > 0, f"the check proves nothing\n{_told(evidence, verdict)}"
    assert verdict.arrivals > 0, _told(evidence, verdict)
