"""Outcomes on their way to Redis: many in one call, kept until Redis has accepted them.

An outcome in memory is the one thing a worker cannot get back: while Redis is away it waits here,
and the call is repeated until it is accepted (settle moves nothing twice).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import redis.exceptions

from paceline.outbox import OutboxStore, Settlement

MOST_IN_ONE_CALL = 64
#: Settlements are gathered for this long: one call, one fsync, for all of them.
GATHER_S = 0.008
_RETRY_S = 0.2

log = logging.getLogger("paceline.settler")


class Settler:
    """A thread that settles. ``settled(settlements)`` is called after each accepted call."""

    def __init__(self, store: OutboxStore, settled: Callable[[Sequence[Settlement]], None]) -> None:
        self._store = store
        self._settled = settled
        self._waiting: list[Settlement] = []
        self._changed = threading.Condition()
        self._closing = False
        self._abandon = threading.Event()
        self._pause = threading.Event()  # never set: a sleep that `close` need not wait for
        self._thread = threading.Thread(target=self._run, name="settler", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, settlement: Settlement) -> None:
        """Never blocks."""
        with self._changed:
            self._waiting.append(settlement)
            if len(self._waiting) in (1, MOST_IN_ONE_CALL):
                self._changed.notify()

    def __len__(self) -> int:
        return len(self._waiting)

    def close(self, grace_s: float) -> int:
        """Settles what waits, for at most ``grace_s``. Returns how many could not be: their leases
        run out, and what was begun becomes ambiguous."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(grace_s)
        self._abandon.set()
        return len(self._waiting)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                if not self._closing and len(self._waiting) < MOST_IN_ONE_CALL:
                    self._changed.wait_for(
                        lambda: self._closing or len(self._waiting) >= MOST_IN_ONE_CALL, GATHER_S
                    )
                piece = self._waiting[:MOST_IN_ONE_CALL]
            if not self._settle(piece):
                return
            with self._changed:
                del self._waiting[: len(piece)]
            self._settled(piece)

    def _settle(self, piece: Sequence[Settlement]) -> bool:
        while not self._abandon.is_set():
            try:
                words = self._store.settle(piece)
            except redis.exceptions.RedisError as error:
                log.warning("settle: %d outcomes wait for Redis: %s", len(self._waiting), error)
                self._abandon.wait(_RETRY_S)
                continue
            for settlement, word in zip(piece, words, strict=True):
                if word not in ("ok", "repeat"):
                    log.warning(
                        "settle: %s of message %s came %s", settlement.action, settlement.id, word
                    )
            return True
        return False
