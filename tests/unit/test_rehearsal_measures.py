"""Figures of a rehearsal: busy time and the rate in it, excess, quantiles."""

from __future__ import annotations

import math

from paceline.rehearsal.measures import (
    Sample,
    achieved,
    busy_spans,
    excesses,
    histogram_quantile_s,
    quantile,
)

S = 1_000_000


def sample(at_s: float, ready: int = 1000, *, is_open: bool = True) -> Sample:
    return Sample(round(at_s * S), ready, 0, ready, is_open, 0)


def test_busy_time_is_joined_and_begins_with_the_first_request() -> None:
    samples = [sample(n / 10) for n in range(11)]
    assert busy_spans(samples, 100, 0) == [(0, S)]
    assert busy_spans(samples, 100, round(0.25 * S)) == [(250_000, S)]
    assert busy_spans(samples, 100, 2 * S) == []


def test_a_hold_is_left_out_at_both_ends() -> None:
    samples = [sample(0), sample(1), sample(2, is_open=False), sample(3), sample(4)]
    assert busy_spans(samples, 100, 0) == [(0, S), (3 * S, 4 * S)]


def test_too_few_ready_messages_are_no_busy_time() -> None:
    samples = [sample(0, 100), sample(1, 99), sample(2, 0), sample(3, 0)]
    assert busy_spans(samples, 100, 0) == [(0, S)]


def test_the_rate_counts_requests_in_the_spans_alone() -> None:
    arrivals = [0, 1, S - 1, S, 3 * S, 3 * S + 5]
    found = achieved(arrivals, [(0, S), (3 * S, 4 * S)], rate=3)
    assert (found.busy_s, found.requests, found.counted, found.rate) == (2.0, 5, 5.0, 2.5)


def test_catching_up_after_a_hold_does_not_hide_a_loss() -> None:
    slow, fast = range(0, S, S // 80), range(2 * S, 3 * S, S // 200)
    found = achieved([*slow, *fast], [(0, S), (2 * S, 3 * S)], rate=100)
    assert (found.requests, found.counted, found.rate) == (280, 180.0, 90.0)


def test_without_busy_time_there_is_no_rate() -> None:
    assert achieved([1, 2, 3], [], rate=100).rate is None


def test_excess_by_window() -> None:
    burst_at_once = [0] * 11
    assert excesses(burst_at_once, 10, 10)["any"] == 1
    assert excesses(burst_at_once, 10, 10)["0.1 s"] == 0
    assert excesses(burst_at_once, 10, 10)["5 s"] == -49


def test_quantiles() -> None:
    values = list(range(1, 101))
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile([7.0], 0.99) == 7.0
    assert quantile([], 0.5) is None


def test_histogram_quantiles_are_upper_bounds() -> None:
    histogram = {"api:50000": 98.0, "api:100000": 1.0, "api:inf": 1.0, "api:sum": 9e9, "sent:1": 5}
    assert histogram_quantile_s(histogram, "api", 0.5) == 0.05
    assert histogram_quantile_s(histogram, "api", 0.99) == 0.1
    assert histogram_quantile_s(histogram, "api", 1.0) == math.inf
    assert histogram_quantile_s({}, "api", 0.5) is None
