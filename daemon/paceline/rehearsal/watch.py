"""Looking at the outbox while it works, each look one census: ten times a second while messages are
ready (the rate is measured by it), twice a second while none is."""

from __future__ import annotations

import time
from collections.abc import Callable

from paceline.census import Census
from paceline.outbox import OutboxStore
from paceline.rehearsal.measures import Sample

EVERY_S = 0.1
IDLE_EVERY_S = 0.5


class Watch:
    """Collects samples; ``on_look`` is told of each census."""

    def __init__(self, store: OutboxStore, on_look: Callable[[Census], None]) -> None:
        self.samples: list[Sample] = []
        self._store = store
        self._on_look = on_look
        self._next_s = 0.0

    def look(self) -> Sample:
        """One look, now. Raises RedisError."""
        now_s = time.monotonic()
        census = self._store.census()
        busy = census.law["ready"] + census.law["leased"] > 0
        self._next_s = now_s + (EVERY_S if busy else IDLE_EVERY_S)
        sample = Sample(
            census.now_us,
            census.law["ready"],
            census.law["leased"],
            census.unfinished,
            census.closed() is None,
            census.difference,
        )
        self.samples.append(sample)
        self._on_look(census)
        return sample

    def look_if_due(self) -> None:
        """One look, unless it is too early for one."""
        if time.monotonic() >= self._next_s:
            self.look()

    def rest(self) -> None:
        """Until the next look is due."""
        time.sleep(max(0.0, self._next_s - time.monotonic()))
