"""Clocks, as values that are passed in.

Wall time is what is stored (Redis TIME, microseconds); spans are measured on a monotonic clock.
The gate at the wire needs a third: one that runs on through a suspend of the machine, for a permit
that was drawn before the suspend is stale after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

#: Linux's CLOCK_BOOTTIME runs through suspends; macOS's CLOCK_MONOTONIC does so by itself.
_THROUGH_SUSPENDS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _through_suspends_s() -> float:
    return time.clock_gettime(_THROUGH_SUSPENDS)


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks of one process: ``wall_s`` (unix seconds), ``monotonic_s``, and ``elapsed_s``,
    which also counts the time that the machine was suspended."""

    wall_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic
    elapsed_s: Callable[[], float] = _through_suspends_s
