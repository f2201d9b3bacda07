"""Figures of a run: the rate achieved, the pace's excess, latencies. Pure.

The rate achieved, net of the waits that were ordered
-----------------------------------------------------
Requests that the sink saw begin (retries included) during **busy time**, over its length. Busy time
is made of the spans between two looks at the outbox (about 0.1 s) in which

* at the first look at least as many messages were *ready* as the rate can use up in the span: so
  the waits of single messages (scheduled retries: 1, 2, 4 s after an ambiguous attempt, 30 to 60 s
  after a 503), the last few messages, and the end of the run, are left out;
* at both looks the destination was open: the holds that the provider ordered (429, three 503 within
  20 results) are left out;
* the sink had seen its first request: the start-up before it is reported on its own.

Not left out: everything of Paceline's own making, whatever the reason (batches that come late,
slow Redis, reconnects, connections that hang until their time-out).

What was caught up after an interruption does not count: the bucket fills during a hold, and what is
sent from it then would hide a loss elsewhere. So of each stretch of busy time no more is counted
than the rate times its length.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from paceline.sink.windows import excess, worst_window

WINDOWS_S = (0.1, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the outbox. ``at_us`` is Redis time, which is this machine's."""

    at_us: int
    ready: int
    leased: int
    unfinished: int
    is_open: bool
    difference: int


@dataclass(frozen=True, slots=True)
class Achieved:
    """In ``busy_s`` the sink saw ``requests``, of which ``counted`` are not catching up."""

    busy_s: float
    requests: int
    counted: float

    @property
    def rate(self) -> float | None:
        """Requests counted per second; None where there was no busy time."""
        return self.counted / self.busy_s if self.busy_s else None


def busy_spans(samples: Sequence[Sample], rate: float, first_us: int) -> list[tuple[int, int]]:
    """Busy time, as the module defines it, as [from, to) in unix microseconds."""
    spans: list[tuple[int, int]] = []
    for one, two in pairwise(samples):
        start, end = max(one.at_us, first_us), two.at_us
        enough = one.ready >= rate * (end - start) / 1e6
        if not (start < end and enough and one.is_open and two.is_open):
            continue
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def achieved(arrivals_us: Sequence[int], spans: Sequence[tuple[int, int]], rate: float) -> Achieved:
    """What was done in the spans; ``arrivals_us`` are sorted."""
    busy_s, requests, counted = 0.0, 0, 0.0
    for start, end in spans:
        seen = bisect_left(arrivals_us, end) - bisect_left(arrivals_us, start)
        length_s = (end - start) / 1e6
        busy_s += length_s
        requests += seen
        counted += min(seen, rate * length_s)
    return Achieved(busy_s, requests, counted)


def excesses(arrivals_ns: Sequence[int], rate: float, burst: float) -> dict[str, float]:
    """The most by which any window of 0.1, 1, 5 s and of any length was over burst + rate *
    length; negative: so much was left. ``arrivals_ns`` are sorted."""
    found = {f"{w:g} s": excess(arrivals_ns, w, rate, burst).margin for w in WINDOWS_S}
    found["any"] = worst_window(arrivals_ns, rate, burst).margin
    return found


def quantile(values: Sequence[float], q: float) -> float | None:
    """The nearest-rank quantile; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def histogram_quantile_s(histogram: Mapping[str, float], name: str, q: float) -> float | None:
    """The upper bound, in seconds, of the slot of the outbox's histogram ``name`` that holds the
    quantile; None without observations, infinity beyond the last slot."""
    slots = sorted(
        (math.inf if key == "inf" else float(key), count)
        for key, count in (
            (field.removeprefix(f"{name}:"), n)
            for field, n in histogram.items()
            if field.startswith(f"{name}:") and not field.endswith(":sum")
        )
    )
    total = sum(count for _, count in slots)
    seen = 0.0
    for top_us, count in slots:
        seen += count
        if total and seen >= q * total:
            return top_us / 1e6
    return None
