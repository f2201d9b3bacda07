"""An outage told once, and then now and then: ten threads that try five times a second would fill a
disk with one sentence."""

from __future__ import annotations

import logging
import threading
import time

_REMIND_S = 30.0


class Outage:
    """What one part of the worker sees of Redis. Thread-safe."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._lock = threading.Lock()
        self._since_s: float | None = None
        self._told_s = 0.0

    def note(self, error: Exception) -> None:
        """One more failure."""
        now = time.monotonic()
        with self._lock:
            if self._since_s is None:
                self._since_s = now
            elif now - self._told_s < _REMIND_S:
                return
            self._told_s = now
        self._log.warning(
            "%s: Redis does not answer: %s; trying on",
            self._what,
            error,
            extra={"event": "redis_away", "cause": type(error).__name__},
        )

    def over(self) -> None:
        """A success."""
        if self._since_s is None:
            return
        with self._lock:
            since_s, self._since_s = self._since_s, None
        if since_s is not None:
            self._log.info(
                "%s: Redis is back after %.1f s",
                self._what,
                time.monotonic() - since_s,
                extra={"event": "redis_back"},
            )
