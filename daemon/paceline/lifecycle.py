"""Threads that repeat one small step for as long as the daemon lives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import redis.exceptions

from paceline.errors import ConfigMismatch

T = TypeVar("T")

_AWAY_S = 0.5
_REMIND_S = 30.0

log = logging.getLogger("paceline.daemon")


class Loop(Generic[T]):
    """Calls ``step`` and then ``rest(result)``, again and again, until stopped.

    Redis errors are outages: logged once, then every half minute, and tried again. Any other error
    is a defect: logged with its trace, and tried again more slowly, for the other destinations and
    loops of the daemon are well.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], T],
        rest: Callable[[T], None],
        stopping: threading.Event,
    ) -> None:
        self._step = step
        self._rest = rest
        self._stopping = stopping
        self.name = name
        #: When the last turn ended (monotonic), and what was wrong with it: "" nothing.
        self.turned_s = _now()
        self.trouble = "has made no turn yet"
        self._away_since: float | None = None
        self._told = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """True when the thread has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._rest(self._repeat())
            except redis.exceptions.RedisError as error:
                self._turned("Redis does not answer")
                self._tell(error)
                self._stopping.wait(_AWAY_S)
            except ConfigMismatch:
                # Another process was reloaded, this one not yet. Its turn has been made, and the
                # log told (standing.py); here it keeps the daemon from being called ready.
                self._turned("another configuration is in force")
                self._stopping.wait(_AWAY_S)
            except Exception as error:
                self._turned(f"unexpected error: {type(error).__name__}")
                log.exception(
                    "%s: unexpected error; going on", self.name, extra={"event": "defect"}
                )
                self._stopping.wait(_AWAY_S * 4)

    def _turned(self, trouble: str) -> None:
        self.turned_s, self.trouble = _now(), trouble

    def _repeat(self) -> T:
        result = self._step()
        self._turned("")
        if self._away_since is not None:
            log.info(
                "%s: Redis is back after %.1f s",
                self.name,
                _now() - self._away_since,
                extra={"event": "redis_back", "cause": self.name},
            )
            self._away_since = None
        return result

    def _tell(self, error: Exception) -> None:
        now = _now()
        if self._away_since is None:
            self._away_since, self._told = now, now - _REMIND_S
        if now - self._told >= _REMIND_S:
            self._told = now
            log.warning(
                "%s: Redis does not answer: %s; trying again",
                self.name,
                error,
                extra={"event": "redis_away", "cause": type(error).__name__},
            )


def _now() -> float:
    return time.monotonic()
