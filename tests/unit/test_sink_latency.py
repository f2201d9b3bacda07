"""Latency distributions and the sink's own limit."""

from __future__ import annotations

from statistics import mean, median

import pytest

from paceline.sink.latency import LatencySpecError, parse_latency
from paceline.sink.limit import LimitSpecError, parse_limit

QUANTILES = [(n + 0.5) / 2000 for n in range(2000)]


def sample(text: str) -> list[float]:
    latency = parse_latency(text)
    return [latency.at(u) for u in QUANTILES]


def test_distributions() -> None:
    assert set(sample("50ms")) == {0.05}
    assert set(sample("")) == {0.0}
    uniform = sample("20-60ms")
    assert min(uniform) == pytest.approx(0.02, abs=1e-4)
    assert max(uniform) == pytest.approx(0.06, abs=1e-4)
    assert sample("500us-2ms")[-1] == pytest.approx(0.002, rel=0.01)
    assert min(sample("1-2s")) >= 1.0, "the unit counts for both bounds"
    assert mean(sample("exp:40ms")) == pytest.approx(0.04, rel=0.01)
    skewed = sample("lognormal:40ms:0.5")
    assert median(skewed) == pytest.approx(0.04, rel=0.01)
    assert mean(skewed) == pytest.approx(0.04 * 1.1331, rel=0.01)  # exp(sigma**2 / 2)


@pytest.mark.parametrize("text", ["50", "60-20ms", "exp:", "lognormal:40ms", "lognormal:1s:x", "x"])
def test_a_latency_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(LatencySpecError, match=f'latency "{text}"'):
        parse_latency(text)


def test_the_limit_admits_burst_plus_rate_times_time() -> None:
    limit = parse_limit("100,150")
    admitted = 0
    for step in range(0, 1_000_000_001, 1_000_000):  # 3 requests each ms for one second
        admitted += sum(limit.wait_s(step) == 0 for _ in range(3))
    assert 249 <= admitted <= 250  # the last token may lack a rounding error


def test_the_limit_says_how_long_to_wait_and_survives_a_step_back() -> None:
    limit = parse_limit("10,1")
    assert limit.wait_s(5_000_000_000) == 0
    assert limit.wait_s(5_000_000_000) == pytest.approx(0.1)
    assert limit.wait_s(4_000_000_000) == pytest.approx(0.1)
    assert limit.wait_s(5_050_000_000) == pytest.approx(0.05)
    assert limit.wait_s(5_100_000_001) == 0


@pytest.mark.parametrize("text", ["100", "x,1", "0,1", "1,0", "nan,1", "1,inf"])
def test_a_limit_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(LimitSpecError, match="limit"):
        parse_limit(text)
