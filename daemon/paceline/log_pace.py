"""At most one line a second for each cause, and no count lost.

The first line of a cause goes out at once. What follows within the second is counted, and the last
of it goes out when the second is over, with ``repeated``: the number of events it stands for (a
line without it stands for one). So what is written adds up to what happened.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

EVERY_S = 1.0
#: Causes told apart at a time; beyond, lines are told apart by their wording's place in the code
#: alone. A bound, for some are made of ids.
_MOST_CAUSES = 1000


@dataclass(slots=True)
class _Held:
    until_s: float
    count: int = 0
    last: logging.LogRecord | None = None


class PacedHandler(logging.Handler):
    """Hands records to ``target``, at most one a second of each cause. A thread hands on, when its
    second is over, what was held back; ``flush`` and ``close`` do so at once."""

    def __init__(
        self,
        target: logging.Handler,
        *,
        every_s: float = EVERY_S,
        monotonic_s: Callable[[], float] = time.monotonic,
        thread: bool = True,
    ) -> None:
        super().__init__()
        self._target = target
        self._every_s = every_s
        self._now_s = monotonic_s
        self._threaded = thread
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._held: dict[Hashable, _Held] = {}
        self._closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Writes it, or holds it back."""
        with self._changed:
            if self._closed:
                self._target.handle(record)
                return
            now_s = self._now_s()
            # Here too, and not only in the thread: that one may be late.
            self._release(lambda held: held.until_s <= now_s, now_s)
            key = cause_of(record, told_apart=len(self._held) < _MOST_CAUSES)
            held = self._held.get(key)
            if held is None:
                self._held[key] = _Held(now_s + self._every_s)
                self._target.handle(record)
            else:
                held.count += 1
                held.last = record
            if self._threaded and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify()

    def release_due(self) -> float | None:
        """Writes what was held back for its whole second. Returns seconds until the next is due,
        None where nothing is held."""
        with self._changed:
            now_s = self._now_s()
            self._release(lambda held: held.until_s <= now_s, now_s)
            return min((h.until_s - now_s for h in self._held.values()), default=None)

    def _release(self, is_due: Callable[[_Held], bool], now_s: float) -> None:
        for key, held in [item for item in self._held.items() if is_due(item[1])]:
            if held.last is None:
                del self._held[key]
                continue
            record = copy.copy(held.last)
            record.repeated = held.count
            self._held[key] = _Held(now_s + self._every_s)
            self._target.handle(record)

    def flush(self) -> None:
        """Writes all that is held back."""
        with self._changed:
            self._release(lambda held: held.last is not None, self._now_s())
            self._target.flush()

    def close(self) -> None:
        """Writes all that is held back; what comes later is written as it comes."""
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify()
        super().close()

    def _run(self) -> None:
        while True:
            next_s = self.release_due()
            with self._changed:
                if self._closed:
                    return
                if next_s is None:
                    self._changed.wait_for(lambda: self._held or self._closed)
                else:
                    self._changed.wait(max(0.001, next_s))


def cause_of(record: logging.LogRecord, *, told_apart: bool = True) -> Hashable:
    """What makes two lines the same: the event and its cause, where they are given; else the
    wording, which for warnings means the wording before names and numbers are put in."""
    at = (record.name, record.levelno)
    event, cause = getattr(record, "event", None), getattr(record, "cause", None)
    if event is not None or cause is not None:
        whose = tuple(str(getattr(record, name, "")) for name in ("destination", "worker"))
        return (*at, str(event), str(cause), *whose)
    if record.levelno >= logging.WARNING or not told_apart:
        return (*at, record.msg if isinstance(record.msg, str) else type(record.msg).__name__)
    return (*at, str(record.msg), str(record.args))
