"""From raw numbers to figures: medians, spreads, ratios of pairs, and bars. Pure.

A ratio is made of two runs of the same pair, minutes at most apart, and the median is that of the
ratios: what the machine did to all of them cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from paceline.bench.plan import CONTESTANTS, EVENTS, NAIVE, RQ, STANDARD, WORKERS, Fsync
from paceline.rehearsal.measures import quantile


@dataclass(frozen=True, slots=True)
class Run:
    """One contestant's turn. ``accepted`` is the sink's count. ``wall_s`` is the drain's (the naive
    loop's), ``intake_s`` the producer's, None where there is none. ``cpu_s`` is by kind of process,
    without Redis's. ``stolen`` is the part (0 to 1) of the machine's CPU time that its host gave to
    others meanwhile."""

    contestant: str
    fsync: Fsync
    pair: int
    messages: int
    accepted: int
    wall_s: float
    intake_s: float | None
    cpu_s: Mapping[str, float]
    redis_cpu_s: float
    stolen: float = 0.0

    @property
    def per_s(self) -> float:
        """Messages drained per second."""
        return self.messages / self.wall_s

    @property
    def intake_per_s(self) -> float | None:
        """Messages taken in per second."""
        return self.messages / self.intake_s if self.intake_s else None

    @property
    def cpu_ms(self) -> float:
        """CPU of all processes but Redis, for one message."""
        return sum(self.cpu_s.values()) / self.messages * 1e3

    @property
    def redis_ms(self) -> float:
        """Redis's CPU for one message."""
        return self.redis_cpu_s / self.messages * 1e3

    @property
    def all_ms(self) -> float:
        """CPU of everything but the sink, for one message."""
        return self.cpu_ms + self.redis_ms


@dataclass(frozen=True, slots=True)
class Depth:
    """One measurement with ``standing`` messages waiting behind: ``taken_in`` were handed over,
    ``sent`` went out in the window, and what each of both cost."""

    fsync: Fsync
    pair: int
    standing: int
    taken_in: int
    intake_cpu_s: float
    sent: int
    drain_s: float
    drain_cpu_s: float
    redis_cpu_s: float

    @property
    def ms(self) -> float:
        """CPU for one message, Redis's with it, from intake to settled."""
        drained = (self.drain_cpu_s + self.redis_cpu_s) / self.sent
        return (self.intake_cpu_s / self.taken_in + drained) * 1e3


@dataclass(frozen=True, slots=True)
class Memory:
    """What ``messages`` waiting messages of ``payload`` bytes take of Redis's memory."""

    fsync: Fsync
    messages: int
    payload: int
    bytes: int

    @property
    def overhead(self) -> float:
        """Bytes a message beyond its payload."""
        return self.bytes / self.messages - self.payload


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from ``send`` returning to the first byte at the sink, send by send; how many
    of them had to open a connection."""

    fsync: Fsync
    ms: Sequence[float]
    opened: int


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure's median must be."""

    sign: str
    limit: float

    def met(self, value: float) -> bool:
        """Whether it is."""
        return value <= self.limit if self.sign == "≤" else value >= self.limit

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}"


CPU_BAR = Bar("≤", 0.9)
DRAIN_BARS: Mapping[Fsync, Bar] = {"always": Bar("≥", 1.5), "everysec": Bar("≥", 2.0)}
BACKLOG_BAR = Bar("≤", 1.1)
INGEST_BAR = Bar("≥", 10)
MEMORY_BAR = Bar("≤", 350)
LATENCY_BAR = Bar("≤", 25)
EVENTS_BAR = Bar("≤", 1.1)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: the median of ``values`` and their spread. ``fsync`` is the policy it was
    measured under."""

    fsync: Fsync
    name: str
    unit: str
    values: Sequence[float]
    bar: Bar | None = None

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without one."""
        return None if self.bar is None else self.bar.met(self.median)


@dataclass(frozen=True, slots=True)
class Measured:
    """All raw numbers of a bench."""

    runs: Sequence[Run] = field(default_factory=tuple)
    memory: Sequence[Memory] = field(default_factory=tuple)
    latency: Sequence[Latency] = field(default_factory=tuple)
    backlog: Sequence[Depth] = field(default_factory=tuple)
    #: Of ``STANDARD`` and ``EVENTS``.
    events: Sequence[Run] = field(default_factory=tuple)


def figures(measured: Measured, policies: Sequence[Fsync]) -> list[Figure]:
    """All figures, policy by policy; those that were not measured are left out."""
    found: list[Figure] = []
    for fsync in policies:
        runs = [run for run in measured.runs if run.fsync == fsync]
        found += _by_contestant(fsync, runs)
        found += _ratios(fsync, runs)
        found += _memory(fsync, measured.memory)
        found += _latency(fsync, measured.latency)
        found += _events(fsync, measured.events)
        found += _backlog(fsync, measured.backlog)
    return found


def _by_contestant(fsync: Fsync, runs: Sequence[Run]) -> list[Figure]:
    found = []
    for name in CONTESTANTS:
        mine = [run for run in runs if run.contestant == name]
        if not mine:
            continue
        intake = [run.intake_per_s for run in mine if run.intake_per_s is not None]
        found.append(Figure(fsync, f"{name}: drain rate", "/s", [run.per_s for run in mine]))
        if intake:
            found.append(Figure(fsync, f"{name}: intake rate", "/s", intake))
        found.append(Figure(fsync, f"{name}: CPU a message", "ms", [run.cpu_ms for run in mine]))
        if name != NAIVE:
            redis = [run.redis_ms for run in mine]
            found.append(Figure(fsync, f"{name}: Redis's CPU a message", "ms", redis))
    return found


def _ratios(fsync: Fsync, runs: Sequence[Run]) -> list[Figure]:
    found = []
    for ours in (RQ, *WORKERS):
        for theirs in (NAIVE, RQ):
            if ours == theirs:
                continue
            for what, value in (
                ("drain rate", lambda run: run.per_s),
                ("CPU a message", lambda run: run.cpu_ms),
                ("CPU a message with Redis's", lambda run: run.all_ms),
            ):
                ratios = paired(runs, ours, theirs, value)
                if ratios:
                    bar = _bar(what, ours, theirs, fsync)
                    found.append(Figure(fsync, f"{what}, {ours} / {theirs}", "×", ratios, bar))
    ours = STANDARD if any(run.contestant == STANDARD for run in runs) else "paceline-1"
    ratios = paired(runs, ours, RQ, lambda run: run.intake_per_s or math.nan)
    if ratios:
        # What is promised is promised of durable intake.
        bar = INGEST_BAR if fsync == "always" else None
        found.append(Figure(fsync, f"intake rate, {ours} / rq", "×", ratios, bar))
    return found


def _bar(what: str, ours: str, theirs: str, fsync: Fsync) -> Bar | None:
    if theirs != NAIVE or ours not in WORKERS:
        return None
    if what == "CPU a message":
        return CPU_BAR
    return DRAIN_BARS[fsync] if what == "drain rate" and ours == STANDARD else None


def paired(
    runs: Sequence[Run], ours: str, theirs: str, value: Callable[[Run], float]
) -> list[float]:
    """The ratios of a value, pair by pair, where both have run."""
    of_theirs = {run.pair: value(run) for run in runs if run.contestant == theirs}
    return [
        value(run) / of_theirs[run.pair]
        for run in runs
        if run.contestant == ours and of_theirs.get(run.pair)
    ]


def _memory(fsync: Fsync, found: Sequence[Memory]) -> list[Figure]:
    return [
        Figure(
            fsync,
            f"memory beyond the payload, {one.messages:,} waiting",
            "bytes",
            [one.overhead],
            MEMORY_BAR,
        )
        for one in found
        if one.fsync == fsync
    ]


def _latency(fsync: Fsync, found: Sequence[Latency]) -> list[Figure]:
    made: list[Figure] = []
    for one in found:
        p50, p99 = quantile(one.ms, 0.50), quantile(one.ms, 0.99)
        if one.fsync != fsync or p50 is None or p99 is None:
            continue
        made.append(Figure(fsync, f"idle latency, p50 of {len(one.ms)}", "ms", [p50]))
        made.append(Figure(fsync, f"idle latency, p99 of {len(one.ms)}", "ms", [p99], LATENCY_BAR))
    return made


def _events(fsync: Fsync, found: Sequence[Run]) -> list[Figure]:
    mine = [run for run in found if run.fsync == fsync]
    made: list[Figure] = []
    kinds: list[tuple[str, str, Callable[[Run], float], Bar | None]] = [
        ("CPU a message with Redis's", "ms", lambda run: run.all_ms, EVENTS_BAR),
        ("CPU a message", "ms", lambda run: run.cpu_ms, None),
        (
            "workers' CPU a message",
            "ms",
            lambda run: run.cpu_s["workers"] / run.messages * 1e3,
            None,
        ),
        ("Redis's CPU a message", "ms", lambda run: run.redis_ms, None),
        ("drain rate", "/s", lambda run: run.per_s, None),
    ]
    for what, unit, value, bar in kinds:
        ratios = paired(mine, EVENTS, STANDARD, value)
        if ratios:
            for name, whose in (("without events", STANDARD), ("with all events", EVENTS)):
                values = [value(run) for run in mine if run.contestant == whose]
                made.append(Figure(fsync, f"{what}, {name}", unit, values))
            made.append(Figure(fsync, f"{what}, with events / without", "×", ratios, bar))
    return made


def _backlog(fsync: Fsync, found: Sequence[Depth]) -> list[Figure]:
    mine = [one for one in found if one.fsync == fsync]
    depths = sorted({one.standing for one in mine})
    made = [
        Figure(
            fsync,
            f"CPU a message with Redis's, {depth:,} standing behind",
            "ms",
            [one.ms for one in mine if one.standing == depth],
        )
        for depth in depths
    ]
    if len(depths) == 2:
        least, most = depths
        shallow = {one.pair: one.ms for one in mine if one.standing == least}
        ratios = [one.ms / shallow[one.pair] for one in mine if one.standing == most]
        name = f"the same, {most:,} / {least:,}"
        made.append(Figure(fsync, name, "×", ratios, BACKLOG_BAR))
    return made
