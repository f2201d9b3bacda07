"""Judging a pace from arrival times alone. Pure; the referee of the promise about every window.

All functions take **sorted** times in nanoseconds. Windows are closed: two arrivals exactly
``window_s`` apart share one. The largest count is always reached by a window that starts at an
arrival, so two pointers find the maximum over the uncountably many windows there are, in O(n).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from paceline.sink.spec import SpecError


class Worst(NamedTuple):
    """The worst window found.

    ``margin`` is arrivals - (burst + rate * window_s): above 0 the promise was broken, below 0 that
    much was left. ``excess`` is the same, floored at 0. ``start_ns`` is where the window begins
    (None without arrivals).
    """

    margin: float
    excess: float
    arrivals: int
    window_s: float
    start_ns: int | None


class Smoothness(NamedTuple):
    """How even a pace was. ``gap_cv`` is the gaps' standard deviation over their mean:
    0 is a metronome, 1 a Poisson process, above that it comes in clumps."""

    arrivals: int
    span_s: float
    rate: float
    gap_cv: float
    gap_p50_s: float
    gap_max_s: float


class UnsortedTimesError(SpecError):
    """The times given are not in ascending order, so no window can be judged."""


def max_count(times: Sequence[int], window_s: float) -> int:
    """The most arrivals in any closed window of ``window_s`` seconds.

    Raises UnsortedTimesError.
    """
    return _densest(times, window_s)[0]


def excess(times: Sequence[int], window_s: float, rate: float, burst: float) -> Worst:
    """The worst of all closed windows of ``window_s`` seconds against burst + rate * window_s.

    Raises UnsortedTimesError.
    """
    count, start_ns = _densest(times, window_s)
    margin = count - (burst + rate * window_s)
    return Worst(margin, max(0.0, margin), count, window_s, start_ns)


def worst_window(times: Sequence[int], rate: float, burst: float) -> Worst:
    """The worst window of **any** length against burst + rate * length, in O(n).

    A window worth looking at runs from arrival i to arrival j, so its margin is
    (j - r*t_j) - (i - r*t_i) + 1 - burst: keep the smallest second bracket seen so far. All in
    whole numbers: rounding neither hides a breach nor makes one.
    Raises UnsortedTimesError.
    """
    if not times:
        return Worst(-burst, 0.0, 0, 0.0, None)
    # One arrival weighs `unit`, a nanosecond `per_ns`: both brackets times the rate's denominator.
    per_ns, denominator = rate.as_integer_ratio()
    unit = denominator * 1_000_000_000
    origin = previous = times[0]
    lowest = lowest_at = best_from = best_to = 0
    best = -1
    for j, t in enumerate(times):
        if t < previous:
            raise UnsortedTimesError(f"times are not sorted: item {j} is before item {j - 1}")
        previous = t
        level = j * unit - per_ns * (t - origin)
        if level < lowest:
            lowest, lowest_at = level, j
        if level - lowest > best:
            best, best_from, best_to = level - lowest, lowest_at, j
    margin = float(Fraction(best, unit) + 1 - Fraction(burst))
    length_s = (times[best_to] - times[best_from]) / 1e9
    return Worst(margin, max(0.0, margin), best_to - best_from + 1, length_s, times[best_from])


def smoothness(times: Sequence[int]) -> Smoothness:
    """The evenness of the gaps; all zeros with fewer than two arrivals.

    Raises UnsortedTimesError.
    """
    if len(times) < 2:
        return Smoothness(len(times), 0.0, 0.0, 0.0, 0.0, 0.0)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    if min(gaps) < 0:
        raise UnsortedTimesError("times are not sorted")
    span_s = (times[-1] - times[0]) / 1e9
    mean = span_s / len(gaps)
    spread = math.sqrt(sum((g / 1e9 - mean) ** 2 for g in gaps) / len(gaps))
    gaps.sort()
    return Smoothness(
        arrivals=len(times),
        span_s=span_s,
        rate=len(gaps) / span_s if span_s else math.inf,
        gap_cv=spread / mean if mean else 0.0,
        gap_p50_s=gaps[len(gaps) // 2] / 1e9,
        gap_max_s=gaps[-1] / 1e9,
    )


def _densest(times: Sequence[int], window_s: float) -> tuple[int, int | None]:
    if not (window_s >= 0 and math.isfinite(window_s)):
        raise SpecError(f"a window must be 0 s or longer, not {window_s}")
    # Whole nanoseconds, rounded to nearest: 0.1 s must be 100,000,000 and not one less, or a
    # pair exactly on the edge is missed.
    length = round(window_s * 1e9)
    best, best_start, first, previous = 0, None, 0, None
    for last, t in enumerate(times):
        if previous is not None and t < previous:
            raise UnsortedTimesError(f"times are not sorted: item {last} is before item {last - 1}")
        previous = t
        while t - times[first] > length:
            first += 1
        if last - first + 1 > best:
            best, best_start = last - first + 1, times[first]
    return best, best_start
