"""From the times at which requests started to figures of the pace. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from paceline.bench.pacing.plan import WINDOWS_S
from paceline.sink.windows import excess

_BINS_PER_S = 10


@dataclass(frozen=True, slots=True)
class Window:
    """The fullest window of ``window_s``, wherever it begins: the requests in it, and how many of
    them are over burst + rate * window_s (0 is none)."""

    window_s: float
    most: int
    excess: float


@dataclass(frozen=True, slots=True)
class Pace:
    """``counts`` are the requests of each 100 ms of the span; ``windows`` are judged from the first
    request on, the lead with them."""

    rate: float
    counts: Sequence[int]
    windows: Sequence[Window]

    @property
    def requests(self) -> int:
        """Started in the span."""
        return sum(self.counts)

    @property
    def utilisation(self) -> float:
        """Requests over what the rate alone allows in the span. A full bucket can lift it above
        1; frozen workers keep it below."""
        return self.requests / (self.rate * len(self.counts) / _BINS_PER_S)

    @property
    def smoothness(self) -> float:
        """The fullest 100 ms over the mean 100 ms: 1 is a metronome. 0 where nothing was sent."""
        return max(self.counts) * len(self.counts) / self.requests if self.requests else 0.0


def pace_of(times: Sequence[int], rate: float, burst: float, begin_ns: int, seconds: int) -> Pace:
    """The pace of requests that started at ``times`` (sorted, ns), in the span of so many seconds
    from ``begin_ns``. What came after the span is left out: the contestant is being stopped then.

    Raises UnsortedTimesError.
    """
    bins = seconds * _BINS_PER_S
    end_ns = begin_ns + seconds * 1_000_000_000
    seen = [t for t in times if t < end_ns]
    counts = [0] * bins
    for t in seen:
        if t >= begin_ns:
            counts[(t - begin_ns) * bins // (end_ns - begin_ns)] += 1
    windows = []
    for window_s in WINDOWS_S:
        worst = excess(seen, window_s, rate, burst)
        windows.append(Window(window_s, worst.arrivals, worst.excess))
    return Pace(rate, counts, windows)


@dataclass(frozen=True, slots=True)
class Turn:
    """One contestant's turn in one scene. ``stolen`` is the part (0 to 1) of the machine's CPU time
    that its host gave to others meanwhile."""

    contestant: str
    scene: str
    pair: int
    pace: Pace
    stolen: float = 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a contestant in a scene, of one value a turn."""

    scene: str
    contestant: str
    name: str
    values: Sequence[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)


#: The figures' names, in their order.
NAMES = (*(f"excess in {window_s:g} s" for window_s in WINDOWS_S), "utilisation", "smoothness")


def figures(turns: Sequence[Turn]) -> list[Figure]:
    """Scene by scene, contestant by contestant, as they first took their turns."""
    kinds = dict.fromkeys((turn.scene, turn.contestant) for turn in turns)
    found: list[Figure] = []
    for scene, contestant in kinds:
        mine = [t.pace for t in turns if (t.scene, t.contestant) == (scene, contestant)]
        rows = [
            (*(w.excess for w in pace.windows), pace.utilisation, pace.smoothness) for pace in mine
        ]
        for name, values in zip(NAMES, zip(*rows, strict=True), strict=True):
            found.append(Figure(scene, contestant, name, values))
    return found
