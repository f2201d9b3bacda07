"""One call at a time, shared by all who ask meanwhile; each waits for a bounded time only.

A call that hangs costs one thread, however many scrapes come, and none of them waits longer than
the deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

T = TypeVar("T")


class Overdue(Exception):
    """The call did not return in time; it may still be under way."""


class Flight(Generic[T]):
    """``ask()`` returns what ``call()`` returns, or raises what it raises, or Overdue."""

    def __init__(self, call: Callable[[], T], deadline_s: float) -> None:
        self._call = call
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._under_way: Future[T] | None = None

    def ask(self) -> T:
        """Joins the call under way, or starts one."""
        with self._lock:
            flight = self._under_way
            if flight is None:
                flight = self._under_way = Future()
                threading.Thread(target=self._fly, args=(flight,), name="read", daemon=True).start()
        if not wait([flight], self._deadline_s).done:
            raise Overdue(f"no answer within {self._deadline_s:g} s")
        return flight.result()

    def _fly(self, flight: Future[T]) -> None:
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - raised again in those who asked
            self._land()
            flight.set_exception(error)
        else:
            self._land()
            flight.set_result(result)

    def _land(self) -> None:
        with self._lock:
            self._under_way = None
