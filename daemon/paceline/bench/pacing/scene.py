"""One turn: a contestant with a backlog, frozen in the middle or not, as the sink sees it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from paceline.bench.child import BenchFailed
from paceline.bench.pacing.contestant import Contestant
from paceline.bench.pacing.figures import Pace, pace_of
from paceline.bench.pacing.plan import FROZEN, PacingPlan
from paceline.bench.sink import BenchSink
from paceline.rehearsal.processes import Part

_FIRST_S, _LOOK_S, _CHECK_S = 30.0, 0.02, 0.25
_OK = 200


def play(contestant: Contestant, scene: str, plan: PacingPlan, sink: BenchSink) -> Pace:
    """The pace of one turn. Raises BenchFailed, PartFailed, OSError."""
    sink.forget()
    contestant.go()
    begin_ns = _first_ns(contestant, sink) + round(plan.lead_s * 1e9)
    if scene == FROZEN:
        _sleep_until(begin_ns, (plan.seconds - plan.freeze_s) / 2, contestant)
        _freeze(contestant.workers, plan.freeze_s)
    _sleep_until(begin_ns, plan.seconds, contestant)
    arrivals = sink.client.arrivals()
    refused = [a for a in arrivals if a.status not in (None, _OK)]
    if refused:
        raise BenchFailed(f"the sink refused {len(refused)} requests, as {refused[0].fault}")
    return pace_of([a.mono_ns for a in arrivals], plan.rate, plan.burst, begin_ns, plan.seconds)


def _first_ns(contestant: Contestant, sink: BenchSink) -> int:
    # The last question to the sink until the end: answering one, it notes arrivals late.
    end_s = time.monotonic() + _FIRST_S
    while not (arrivals := sink.client.arrivals()):
        contestant.check()
        if time.monotonic() > end_s:
            raise BenchFailed(f"nothing was sent within {_FIRST_S:.0f} s")
        time.sleep(_LOOK_S)
    return arrivals[0].mono_ns


def _sleep_until(begin_ns: int, after_s: float, contestant: Contestant) -> None:
    """Sleeps until so long after ``begin_ns``, and watches that all processes live."""
    while (left_s := begin_ns / 1e9 + after_s - time.monotonic()) > 0:
        contestant.check()
        time.sleep(min(_CHECK_S, left_s))


def _freeze(workers: Sequence[Part], for_s: float) -> None:
    """Stops them for so long; they go on whatever happens, or nobody could end them in order."""
    try:
        for part in workers:
            os.kill(part.pid, signal.SIGSTOP)
        time.sleep(for_s)
    finally:
        for part in workers:
            os.kill(part.pid, signal.SIGCONT)
