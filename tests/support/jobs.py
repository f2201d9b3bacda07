"""Job functions for the worker's tests. What they saw is left in Redis or in this module."""

from __future__ import annotations

import threading
from collections.abc import Callable

# Set by a test that runs the worker in a thread; called with the job's keyword arguments.
hook: Callable[[dict[str, object]], None] | None = None
started = threading.Event()
release = threading.Event()

ALLOWED = frozenset({f"support.jobs.{name}" for name in ("note", "block", "fail", "tally")})


def note(**arguments: object) -> None:
    """Tell the test's hook."""
    assert hook is not None
    hook(arguments)


def block(**arguments: object) -> None:
    """Stay busy until the test sets `release`."""
    started.set()
    if not release.wait(30):
        raise TimeoutError("the test did not release the job")


def fail(**arguments: object) -> None:
    """A job of ours never raises; this one does."""
    raise RuntimeError("the job failed, as it should")


def tally(*, url: str, key: str) -> None:
    """Count itself in Redis: for workers in processes of their own."""
    from support.servers import connect

    with connect(url) as client:
        client.incr(key)
