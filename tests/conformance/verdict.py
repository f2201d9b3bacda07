"""Judges what was recorded: every window of every length, by both recorders, and the use."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from conformance.evidence import Evidence
from paceline.sink.windows import worst_window


@dataclass(frozen=True)
class Verdict:
    """One case.

    trace, arrivals  requests over burst + rate * w in the worst window of any length: above 0 is a
                     breach, below 0 so many were left
    use              requests started, of rate * seconds
    delay_*_ms       from a request's start to its arrival
    """

    name: str
    seed: int
    trace: float
    trace_window_s: float
    trace_count: int
    arrivals: float
    arrivals_window_s: float
    started: int
    arrived: int
    use: float
    least_use: float | None
    delay_p99_ms: float
    delay_max_ms: float
    kills: int
    freezes: int
    restarts: int
    pauses: int
    backlog: int
    unexplained: int
    sound: bool
    apart: bool
    cores: Mapping[str, float]

    @property
    def kept(self) -> bool:
        """No window over, the record complete, the law sound, and the rate used where that is
        judged."""
        used = self.least_use is None or self.use >= self.least_use
        return self.trace <= 0 and self.sound and not self.unexplained and used

    def as_dict(self) -> dict[str, Any]:
        """Plain, for JSON."""
        return {**asdict(self), "kept": self.kept}

    def __str__(self) -> str:
        least = "" if self.least_use is None else f" (at least {self.least_use:.0%})"
        apart = "" if self.apart else "; WITHOUT namespaces"
        used = "".join(f", {who} {part:.2f}" for who, part in self.cores.items())
        used = f"\n     processors:{used[1:]}" if used else ""
        return (
            f"{'ok  ' if self.kept else 'FAIL'} {self.name}, seed {self.seed}\n"
            f"     excess by trace {max(0.0, self.trace):g}, by arrivals "
            f"{max(0.0, self.arrivals):g}; worst window {self.trace:+.2f} "
            f"({self.trace_count} in {self.trace_window_s:.3f} s), by arrivals "
            f"{self.arrivals:+.2f} ({self.arrivals_window_s:.3f} s)\n"
            f"     use {self.use:.2%}{least}; {self.started} started, {self.arrived} arrived, "
            f"{self.unexplained} unexplained; start to arrival p99 {self.delay_p99_ms:.2f} ms, "
            f"max {self.delay_max_ms:.1f} ms\n"
            f"     {self.kills} kills, {self.freezes} freezes, {self.restarts} restarts of Redis, "
            f"{self.pauses} pauses{apart}{used}"
        )


def judge(evidence: Evidence) -> Verdict:
    """Everything there is to say of a run."""
    case = evidence.case
    trace = worst_window(evidence.starts_ns, case.rate, case.burst)
    arrivals = worst_window(evidence.arrivals_ns, case.rate, case.burst)
    span_ns = round(case.seconds * 1e9)
    first = bisect_left(evidence.starts_ns, evidence.from_ns)
    last = bisect_left(evidence.starts_ns, evidence.from_ns + span_ns)
    delays = evidence.delays_ns or [0]
    return Verdict(
        name=case.name,
        seed=case.seed,
        trace=trace.margin,
        trace_window_s=trace.window_s,
        trace_count=trace.arrivals,
        arrivals=arrivals.margin,
        arrivals_window_s=arrivals.window_s,
        started=len(evidence.starts_ns),
        arrived=len(evidence.arrivals_ns),
        use=(last - first) / (case.rate * case.seconds),
        least_use=case.least_use,
        delay_p99_ms=delays[len(delays) * 99 // 100] / 1e6,
        delay_max_ms=delays[-1] / 1e6,
        kills=evidence.counts["kill"],
        freezes=evidence.counts["freeze"],
        restarts=evidence.counts["restart"],
        pauses=evidence.counts["pause"],
        backlog=evidence.backlog,
        unexplained=len(evidence.unexplained),
        sound=evidence.sound,
        apart=evidence.apart,
        cores=evidence.cores,
    )
