"""Waiting in tests: on a condition with a deadline, never for a span of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(predicate: Callable[[], T], timeout_s: float, what: str, poll_s: float = 0.01) -> T:
    """Call `predicate` until it returns something true; return that.

    Raises AssertionError naming `what` and the last value after `timeout_s`. An exception of the
    predicate's is the test's failure: catch in the predicate what is expected.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last: {value!r})")
        time.sleep(poll_s)
