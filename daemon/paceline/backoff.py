"""How long to wait before the next try: pure decisions, the random number is an argument.

Delays are seconds. "3 tries" in a provider's document are 3 retries **after** the first attempt
(`max_retries = 3`: at most four requests). Jitter only ever lengthens a delay: providers publish
theirs as minima ("no sooner than 5 s"), and a spread upwards keeps ten thousand messages that
failed in the same second from coming back in the same second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = [
    "DEFAULT_POLICY",
    "POLICIES",
    "RetryPolicy",
    "delay_s",
    "throttle_delay_s",
    "unavailable_delay_s",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a message is tried again.

    first_s, factor, cap_s   delay before retry n (counted from 0) is min(cap_s, first_s·factorⁿ)
    max_retries              charged retries after the first attempt; then the dead letter
    jitter                   0..1: a delay is stretched by up to this part of itself
    wait_503_s               (least, most) wait after a 503 without Retry-After; costs no attempt
    throttle_first_s, _cap_s the destination's wait after a 429 without Retry-After: doubles from
                             the first to the cap while throttling goes on
    on_ambiguous             "retry" with the same bytes, or "park" for a person's decision
    """

    first_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 60.0
    max_retries: int = 5
    jitter: float = 0.2
    wait_503_s: tuple[float, float] = (30.0, 60.0)
    throttle_first_s: float = 1.0
    throttle_cap_s: float = 60.0
    on_ambiguous: Literal["retry", "park"] = "retry"


DEFAULT_POLICY = RetryPolicy()

# SparkPost's: first retry no sooner than 5 s, then exponential; 429 again after 1–5 s.
# Webhooks: an endpoint may be down for a week-end. 5 s, 25 s, 2 min, 10 min, 52 min, 4.3 h, then
# every 10 h: the last try is 65 to 79 h after the first, by the jitter.
# MaxMD's document: exponential from 1 s, 3 tries; 503 again after 30–60 s; 429 1, 2, 4 s …
POLICIES: Mapping[str, RetryPolicy] = MappingProxyType(
    {
        "maxmd": RetryPolicy(
            first_s=1.0,
            factor=2.0,
            cap_s=60.0,
            max_retries=3,
            wait_503_s=(30.0, 60.0),
            throttle_first_s=1.0,
            throttle_cap_s=60.0,
        ),
        "sparkpost": RetryPolicy(first_s=5.0, cap_s=300.0, throttle_cap_s=5.0),
        "mailgun": DEFAULT_POLICY,
        "webhook": RetryPolicy(first_s=5.0, factor=5.0, cap_s=36_000.0, max_retries=12),
        "http": DEFAULT_POLICY,
    }
)


def delay_s(policy: RetryPolicy, tries: int, rand: float) -> float:
    """Seconds to wait before a message is tried again.

    `tries`: charged attempts before the one that just failed (0 after the very first).
    `rand`: uniform in [0, 1). The result lies in [d, d·(1 + jitter)], where
    d = min(cap_s, first_s·factor^tries): never below d, and above cap_s by the jitter only.
    """
    return _stretched(
        _exponential(policy.first_s, policy.factor, policy.cap_s, tries), policy, rand
    )


def throttle_delay_s(policy: RetryPolicy, throttles: int, rand: float) -> float:
    """Seconds the **destination** waits after the reply that throttled it said no time itself.

    `throttles`: throttled replies in a row before this one: 1, 2, 4 s … for 0, 1, 2 …
    """
    base = _exponential(policy.throttle_first_s, 2.0, policy.throttle_cap_s, throttles)
    return _stretched(base, policy, rand)


def unavailable_delay_s(policy: RetryPolicy, rand: float) -> float:
    """Seconds a message waits after a lone 503: uniform between the two ends of wait_503_s."""
    least, most = policy.wait_503_s
    return min(most, least + (most - least) * rand)


def _exponential(first_s: float, factor: float, cap_s: float, exponent: int) -> float:
    # A message may be tried for three days without being charged: factor ** 5000 overflows.
    try:
        return min(cap_s, first_s * factor ** max(0, exponent))
    except OverflowError:
        return cap_s


def _stretched(base_s: float, policy: RetryPolicy, rand: float) -> float:
    return base_s * (1.0 + policy.jitter * rand)
