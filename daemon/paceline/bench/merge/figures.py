"""From raw numbers to figures of intake, floor and drain. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.bench.figures import Bar, Figure

INTAKE_BAR = Bar("≥", 1_000_000)
DRAIN_BAR = Bar("≥", 2_000_000)
MEMORY_BAR = Bar("≤", 400)
_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loop:
    """One process's loop over all messages: its wall and CPU seconds, and Redis's meanwhile."""

    wall_s: float
    cpu_s: float
    redis_cpu_s: float


@dataclass(frozen=True, slots=True)
class Drain:
    """From ``resume`` until the last message was settled. ``recipients`` were accepted in
    ``requests``, by the sink's count; ``peaks`` are the workers' highest resident memory, bytes,
    empty where the system does not tell."""

    wall_s: float
    recipients: int
    requests: int
    workers_cpu_s: float
    daemon_cpu_s: float
    redis_cpu_s: float
    peaks: Sequence[int]


@dataclass(frozen=True, slots=True)
class Turn:
    """The three measurements of ``messages`` messages each. ``stolen`` is the part (0 to 1) of the
    machine's CPU time that its host gave to others meanwhile."""

    pair: int
    messages: int
    intake: Loop
    floor: Loop
    drain: Drain
    stolen: float = 0.0

    @property
    def intake_per_min(self) -> float:
        """Messages taken in durably in a minute."""
        return self.messages * 60 / self.intake.wall_s

    @property
    def floor_per_min(self) -> float:
        """Messages that the bare commands let through in a minute."""
        return self.messages * 60 / self.floor.wall_s

    @property
    def drain_per_min(self) -> float:
        """Recipients that the sink accepted in a minute."""
        return self.drain.recipients * 60 / self.drain.wall_s

    @property
    def ratio(self) -> float:
        """The whole system over its floor."""
        return self.drain_per_min / self.floor_per_min

    @property
    def peak_mb(self) -> float | None:
        """The largest worker's memory, MB."""
        return max(self.drain.peaks) / _MB if self.drain.peaks else None

    def us(self, cpu_s: float) -> float:
        """Microseconds of CPU a message."""
        return cpu_s / self.messages * 1e6


def figures(turns: Sequence[Turn], *, merging: bool) -> list[Figure]:
    """All figures; what is promised of merged requests is judged where they are merged."""
    peaks = [turn.peak_mb for turn in turns if turn.peak_mb is not None]
    rows = [
        ("intake", "/min", [t.intake_per_min for t in turns], INTAKE_BAR),
        ("floor", "/min", [t.floor_per_min for t in turns], None),
        ("drain", "/min", [t.drain_per_min for t in turns], DRAIN_BAR if merging else None),
        ("drain / floor", "×", [t.ratio for t in turns], None),
        ("worker's peak memory", "MB", peaks, MEMORY_BAR),
        ("intake: producer's CPU", "us", [t.us(t.intake.cpu_s) for t in turns], None),
        ("intake: Redis's CPU", "us", [t.us(t.intake.redis_cpu_s) for t in turns], None),
        ("floor: Redis's CPU", "us", [t.us(t.floor.redis_cpu_s) for t in turns], None),
        ("drain: workers' CPU", "us", [t.us(t.drain.workers_cpu_s) for t in turns], None),
        ("drain: daemon's CPU", "us", [t.us(t.drain.daemon_cpu_s) for t in turns], None),
        ("drain: Redis's CPU", "us", [t.us(t.drain.redis_cpu_s) for t in turns], None),
    ]
    return [Figure("always", name, unit, values, bar) for name, unit, values, bar in rows if values]
