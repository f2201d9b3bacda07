"""The referee of the pace against brute force."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.sink.spec import SpecError
from paceline.sink.windows import (
    UnsortedTimesError,
    excess,
    max_count,
    smoothness,
    worst_window,
)

# Few distinct values, so that ties and pairs exactly one window apart are common.
TIMES = st.lists(st.integers(0, 40).map(lambda n: n * 100_000_000), max_size=40).map(sorted)
WINDOWS = st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.5])
RATES = st.sampled_from([0.5, 1.0, 7.0, 10.0])
BURSTS = st.sampled_from([0, 1, 5])


def counted(times: list[int], start: int, length: int) -> int:
    return sum(start <= t <= start + length for t in times)


@settings(max_examples=150, deadline=None)
@given(TIMES, WINDOWS)
def test_max_count_is_the_largest_of_all_closed_windows(times: list[int], window_s: float) -> None:
    length = round(window_s * 1e9)
    # Starts at each arrival, and a hair to either side of each edge.
    starts = {t + d - edge for t in times for d in (-1, 0, 1) for edge in (0, length)}
    expected = max((counted(times, start, length) for start in starts), default=0)
    assert max_count(times, window_s) == expected


@settings(max_examples=150, deadline=None)
@given(TIMES, WINDOWS, RATES, BURSTS)
def test_excess_agrees_with_its_own_window(
    times: list[int], window_s: float, rate: float, burst: int
) -> None:
    worst = excess(times, window_s, rate, burst)
    assert worst.margin == pytest.approx(max_count(times, window_s) - burst - rate * window_s)
    assert worst.excess == max(0.0, worst.margin)
    if worst.start_ns is not None:
        assert counted(times, worst.start_ns, round(window_s * 1e9)) == worst.arrivals


@settings(max_examples=150, deadline=None)
@given(TIMES.filter(bool), RATES, BURSTS)
def test_worst_window_is_the_worst_of_every_length(
    times: list[int], rate: float, burst: int
) -> None:
    expected = max(
        counted(times, a, b - a) - burst - rate * (b - a) / 1e9
        for a in times
        for b in times
        if b >= a
    )
    worst = worst_window(times, rate, burst)
    assert worst.margin == pytest.approx(expected)
    assert worst.excess == max(0.0, worst.margin)


def test_two_arrivals_exactly_one_window_apart_share_it() -> None:
    # 4.1 s is 4,099,999,999.9999995 ns in floating point: truncated, the pair would be missed.
    for start in range(0, 10_000_000_000, 700_000_001):
        assert max_count([start, start + 4_100_000_000], 4.1) == 2
        assert max_count([start, start + 4_100_000_001], 4.1) == 1


def test_an_empty_record_breaks_no_promise() -> None:
    assert max_count([], 1.0) == 0
    assert excess([], 1.0, 10, 5) == (-15.0, 0.0, 0, 1.0, None)
    assert worst_window([], 10, 5).excess == 0


@pytest.mark.parametrize("judge", [lambda t: max_count(t, 1.0), lambda t: worst_window(t, 1, 1)])
def test_unsorted_times_are_refused(judge: object) -> None:
    assert callable(judge)
    with pytest.raises(UnsortedTimesError, match="item 2"):
        judge([0, 10, 5])


@pytest.mark.parametrize("window_s", [-1.0, math.inf, math.nan])
def test_impossible_windows_are_refused(window_s: float) -> None:
    with pytest.raises(SpecError):
        max_count([1], window_s)


def test_smoothness_tells_a_metronome_from_clumps() -> None:
    steady = smoothness(list(range(0, 1_000_000_000, 10_000_000)))
    assert steady.rate == pytest.approx(100)
    assert steady.gap_cv == pytest.approx(0, abs=1e-9)
    clumps = smoothness(sorted([n * 100_000_000 for n in range(10)] * 10))
    assert clumps.gap_cv > 2
    assert clumps.gap_max_s == pytest.approx(0.1)
    assert smoothness([5]).arrivals == 1
    with pytest.raises(UnsortedTimesError):
        smoothness([2, 1])
