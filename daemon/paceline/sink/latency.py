"""How long the sink takes to answer: a distribution, read from a short text. Pure.

===================  ======================================================
``50ms``             always 50 ms
``20-60ms``          uniform; the first unit may be left out
``exp:40ms``         exponential with mean 40 ms
``lognormal:40ms:0.5``  log-normal with median 40 ms and sigma 0.5
===================  ======================================================
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from paceline.sink.spec import SpecError, duration_s

ALLOWED = "50ms, 20-60ms, exp:40ms or lognormal:40ms:0.5"
_NORMAL = NormalDist()
_RANGE = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m)?-(\d+(?:\.\d+)?(us|ms|s|m))\Z")


class LatencySpecError(SpecError):
    """A latency text that cannot be read. Says which, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution of answering times. ``low_s`` is the fixed value, lower bound, mean or median.

    ``high_s`` is the upper bound (uniform only); ``sigma`` belongs to the log-normal.
    """

    shape: Literal["fixed", "uniform", "exp", "lognormal"]
    low_s: float
    high_s: float = 0.0
    sigma: float = 0.0
    text: str = "0ms"

    def at(self, u: float) -> float:
        """Seconds at the quantile ``u`` in (0, 1); never negative."""
        if self.shape == "fixed":
            return self.low_s
        if self.shape == "uniform":
            return self.low_s + (self.high_s - self.low_s) * u
        if self.shape == "exp":
            return -self.low_s * math.log1p(-u)
        return self.low_s * math.exp(self.sigma * _NORMAL.inv_cdf(u))

    @property
    def random(self) -> bool:
        """Whether ``at`` depends on ``u`` (if not, the draw can be spared)."""
        return self.shape != "fixed"


INSTANT = Latency("fixed", 0.0)


def parse_latency(text: str) -> Latency:
    """Read a latency text; the empty text, ``0`` and ``none`` mean no latency.

    Raises LatencySpecError.
    """
    text = text.strip()
    if text in ("", "0", "none"):
        return INSTANT
    try:
        if text.startswith("exp:"):
            return Latency("exp", duration_s(text[4:]), text=text)
        if text.startswith("lognormal:"):
            return _lognormal(text)
        found = _RANGE.match(text)
        if found is None:
            return Latency("fixed", duration_s(text), text=text)
        low = duration_s(found[1] + (found[2] or found[4]))
        high = duration_s(found[3])
    except SpecError as exc:
        raise LatencySpecError(f'latency "{text}": {exc}; allowed: {ALLOWED}') from exc
    if low > high:
        raise LatencySpecError(f'latency "{text}": the lower bound is above the upper one')
    return Latency("uniform", low, high, text=text)


def _lognormal(text: str) -> Latency:
    parts = text.split(":")
    if len(parts) != 3:
        raise SpecError("lognormal takes a median and a sigma")
    try:
        sigma = float(parts[2])
    except ValueError as exc:
        raise SpecError(f'"{parts[2]}" is not a number (sigma)') from exc
    if not 0 <= sigma <= 5:
        raise SpecError(f"sigma {parts[2]} is not between 0 and 5")
    return Latency("lognormal", duration_s(parts[1]), sigma=sigma, text=text)
