"""The sink's own rate limit, as a provider enforces it: a token bucket. Time is an argument."""

from __future__ import annotations

import math

from paceline.sink.spec import SpecError


class LimitSpecError(SpecError):
    """A limit text that cannot be read."""


class Limit:
    """Token bucket: ``rate`` requests per second, at most ``burst`` at once; starts full."""

    def __init__(self, rate: float, burst: float) -> None:
        if not (rate > 0 and burst >= 1 and math.isfinite(rate) and math.isfinite(burst)):
            raise LimitSpecError(
                f"limit {rate},{burst}: the rate must be above 0 and the burst at least 1"
            )
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at_ns: int | None = None

    def wait_s(self, now_ns: int) -> float:
        """0 and one token taken, or the seconds until one is there (and none taken)."""
        if self._at_ns is not None and now_ns > self._at_ns:
            grown = (now_ns - self._at_ns) * self.rate / 1e9
            self._tokens = min(self.burst, self._tokens + grown)
        self._at_ns = now_ns if self._at_ns is None else max(now_ns, self._at_ns)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate

    def __str__(self) -> str:
        return f"{self.rate:g},{self.burst:g}"


def parse_limit(text: str) -> Limit:
    """Read ``RATE,BURST``, e.g. ``100,150`` (requests per second, requests).

    Raises LimitSpecError.
    """
    rate, comma, burst = text.partition(",")
    try:
        if not comma:
            raise ValueError("the comma is missing")
        return Limit(float(rate), float(burst))
    except LimitSpecError:
        raise
    except ValueError as exc:
        raise LimitSpecError(
            f'limit "{text}": {exc}; write RATE,BURST, e.g. 100,150 (requests/s, requests)'
        ) from exc
