"""Delays between tries: exact without jitter, bounded with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.backoff import (
    POLICIES,
    RetryPolicy,
    delay_s,
    throttle_delay_s,
    unavailable_delay_s,
)

RAND = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(("tries", "seconds"), [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (99, 60)])
def test_delays_double_from_the_first_to_the_cap(tries: int, seconds: float) -> None:
    assert delay_s(RetryPolicy(first_s=1, factor=2, cap_s=60, jitter=0), tries, 0.9) == seconds


@given(st.integers(0, 10_000), RAND, st.floats(0, 1))
def test_jitter_only_lengthens_and_never_by_more_than_its_part(
    tries: int, rand: float, jitter: float
) -> None:
    policy = RetryPolicy(first_s=5, factor=3, cap_s=300, jitter=jitter)
    base = min(300, 5 * 3 ** min(tries, 20))
    assert base <= delay_s(policy, tries, rand) <= base * (1 + jitter) * (1 + 1e-12)


def test_two_messages_that_failed_together_come_back_apart() -> None:
    policy = RetryPolicy()
    assert delay_s(policy, 3, 0.1) != delay_s(policy, 3, 0.9)
    assert delay_s(policy, 50, 0.1) != delay_s(policy, 50, 0.9), "also at the cap"


def test_a_message_tried_for_days_overflows_nothing() -> None:
    assert delay_s(RetryPolicy(factor=100, cap_s=60, jitter=0), 10**6, 0.5) == 60


def test_throttling_backs_off_1_2_4_and_stops_at_its_own_cap() -> None:
    policy = RetryPolicy(throttle_first_s=1, throttle_cap_s=10, jitter=0, factor=7)
    assert [throttle_delay_s(policy, n, 0.5) for n in range(6)] == [1, 2, 4, 8, 10, 10]


@given(RAND)
def test_a_503_waits_between_the_two_ends(rand: float) -> None:
    assert 30 <= unavailable_delay_s(RetryPolicy(wait_503_s=(30, 60)), rand) <= 60


def test_a_503_wait_spreads_over_the_whole_range() -> None:
    policy = RetryPolicy(wait_503_s=(30, 60))
    assert [unavailable_delay_s(policy, r) for r in (0.0, 0.5)] == [30, 45]


def test_a_policy_is_frozen_and_the_general_one_is_known() -> None:
    assert RetryPolicy() == POLICIES["http"]
    assert (RetryPolicy().factor, RetryPolicy().jitter) == (2, 0.2)
    assert (RetryPolicy().max_retries, RetryPolicy().wait_503_s) == (5, (30, 60))
    with pytest.raises(AttributeError):
        RetryPolicy().cap_s = 1  # type: ignore[misc]


def test_a_webhook_is_tried_for_three_days() -> None:
    policy = POLICIES["webhook"]
    for rand, hours in ((0.0, 65.4), (1.0, 78.5)):
        waits = [delay_s(policy, n, rand) for n in range(policy.max_retries)]
        assert sum(waits) / 3600 == pytest.approx(hours, abs=0.05)
    assert [delay_s(policy, n, 0.0) for n in (0, 1, 2, 5, 6, 11)] == [
        5, 25, 125, 15625, 36000, 36000,
    ]  # fmt: skip
    assert policy.on_ambiguous == "retry"


def test_maxmd_follows_its_document() -> None:
    policy = POLICIES["maxmd"]
    assert [delay_s(policy, n, 0.0) for n in range(3)] == [1, 2, 4]
    assert policy.max_retries == 3
    assert (policy.cap_s, policy.throttle_cap_s) == (60, 60)
    assert policy.wait_503_s == (30, 60)
    assert [throttle_delay_s(policy, n, 0.0) for n in range(3)] == [1, 2, 4]
    assert policy.on_ambiguous == "retry"
