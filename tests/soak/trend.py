"""Whether something grows: least squares through samples. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

#: What memory may grow by: so much at once (an allocator's arenas), and so much an hour.
ONCE_MB, PER_HOUR_MB = 3.0, 3.0
#: Descriptors and threads come and go with connections.
COUNT_DRIFT = 4.0


class Trend(NamedTuple):
    """Of one figure over ``hours``: ``slope`` per hour, and ``growth`` = slope x hours."""

    hours: float
    first: float
    last: float
    slope: float
    growth: float


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line through (x, y) by least squares; 0 where x does not vary."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    mean_x, mean_y = fmean(xs), fmean(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if spread == 0:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def trend(points: Sequence[tuple[float, float]]) -> Trend:
    """Of (seconds, value), by time. ``first`` and ``last`` are medians of a tenth at each end."""
    part = max(1, len(points) // 10)
    hours = (points[-1][0] - points[0][0]) / 3600
    per_hour = slope([(seconds / 3600, value) for seconds, value in points])
    first, last = (median(v for _, v in some) for some in (points[:part], points[-part:]))
    return Trend(hours, first, last, per_hour, per_hour * hours)


def memory_grows(found: Trend) -> bool:
    """Whether it is more than the bound; in MB."""
    return found.growth > ONCE_MB + PER_HOUR_MB * found.hours


def count_grows(found: Trend) -> bool:
    """The same of descriptors or threads."""
    return found.growth > COUNT_DRIFT
