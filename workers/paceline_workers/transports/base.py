"""What every pool of connections is: as those see it that use it, and the places of its threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from paceline_workers.transports.connection import Link


class NoRoom(Exception):
    """No connection is free and none may be opened: the share shrank after this thread entered."""


class Pool(Protocol):
    """The connections of this process to one destination. Thread-safe.

    pool.py has those to a few URLs that do the same, endpoint_pool.py those to thousands of
    endpoints, each with messages of its own.
    """

    counts: Counter[str]

    @property
    def limit(self) -> int:
        """How many this process may have at once."""

    @property
    def open_connections(self) -> int:
        """How many of the limit are taken."""

    def set_limit(self, limit: int, /) -> None:
        """A new share."""

    def enter(self, timeout_s: float, /) -> bool:
        """Takes a busy place; False when none was free in time."""

    def may_stay(self) -> bool:
        """Whether one that has entered may go on."""

    def leave(self) -> None:
        """Gives the busy place back."""

    def checkout(self, before_connect: Callable[[], None], url: str, /) -> Link:
        """A connection on which nothing is under way; raises NoRoom, TransportError."""

    def checkin(
        self, link: Link, good: bool | None = None, spent_s: float | None = None, /
    ) -> None:
        """Returns it."""

    def outlived(self, link: Link, /) -> bool:
        """Whether one that is checked out is too old to be used."""

    def has_other(self, link: Link, /) -> bool:
        """Whether its request could as well go to another URL."""

    def route_facts(self) -> list[dict[str, Any]]:
        """Health and latency of each URL, where there is a choice."""

    def trim(self) -> None:
        """Retires idle ones whose time is over."""

    def close(self) -> None:
        """Closes all."""


class Places:
    """Busy places, as many as the limit: a sender thread holds one while it works."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._limit = 0
        self._busy = 0

    @property
    def limit(self) -> int:
        """How many connections this process may have at once."""
        return self._limit

    def set_limit(self, limit: int) -> None:
        """A new share. One that shrinks throws nobody out: see ``may_stay``."""
        with self._changed:
            self._limit = limit
            self._changed.notify_all()

    def enter(self, timeout_s: float) -> bool:
        """Takes a busy place; False when none was free in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._busy < self._limit, timeout_s):
                return False
            self._busy += 1
            return True

    def may_stay(self) -> bool:
        """Whether one that has entered may go on; not so when the share has shrunk."""
        return self._busy <= self._limit

    def leave(self) -> None:
        """Gives the busy place back."""
        with self._changed:
            self._busy -= 1
            self._changed.notify()
