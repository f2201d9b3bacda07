"""The RQ entry point: an invitation to take messages.

Its dotted name is what the daemon writes into jobs (``paceline.names.JOB_FUNCTION``). It runs in
the worker process and finds that process's runtime here.
"""

from __future__ import annotations

from typing import Protocol

from paceline.names import Lane


class Taker(Protocol):
    """What carries an invitation out: the runtime."""

    def take_batch(self, count: int, lane: Lane, invitation: str) -> int:
        """Takes up to ``count`` messages; returns how many were handed to the sender."""


_takers: dict[str, Taker] = {}


def install(destination: str, taker: Taker) -> None:
    """Makes this process carry out invitations of ``destination``."""
    _takers[destination] = taker


def uninstall(destination: str) -> None:
    """The opposite of ``install``."""
    _takers.pop(destination, None)


def take_batch(destination: str, count: int, lane: Lane, invitation: str) -> int:
    """Takes up to ``count`` messages of ``destination`` and hands them to the sender.

    Returns when the last one is in the sender's queue. Raises LookupError in a process that is no
    worker of that destination.
    """
    taker = _takers.get(destination)
    if taker is None:
        raise LookupError(f"this process is no worker of destination {destination!r}")
    return taker.take_batch(count, lane, invitation)
