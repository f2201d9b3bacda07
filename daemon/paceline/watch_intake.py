"""Tells intake how full the Redis is that all destinations share (``lua/press.lua``)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
import redis.exceptions

from paceline.outbox import OutboxStore, held_by_all
from paceline.pressure import Drain, Limits, judge, memory_of

#: What was told of memory holds for so long without being told again: a daemon that is gone must
#: not keep intake shut for ever. Redis's own limit stands behind it.
HOLDS_S = 15.0

log = logging.getLogger("paceline.daemon")


class IntakeWatch:
    """For all destinations of one daemon; several daemons may do so, with the same limits."""

    def __init__(
        self,
        client: redis.Redis,
        stores: Sequence[OutboxStore],
        limits: Limits,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._stores = stores
        self._limits = limits
        self._monotonic_s = monotonic_s
        self._drain = Drain()
        self._shut = False

    def run_once(self) -> bool:
        """One turn; whether intake of any destination is shut. Raises RedisError."""
        info: Any = self._client.info("memory")
        memory, share = memory_of(info), self._limits.memory_share
        verdict = judge(memory, share)
        retry_s = self._drain.retry_s(self._monotonic_s(), memory, share)
        shut, trouble = False, None
        for store, limits in zip(self._stores, self._in_all(), strict=True):
            try:
                shut |= store.press(verdict.word, HOLDS_S, retry_s, verdict.why, limits)
            except redis.exceptions.ResponseError as error:
                # A key of this one that somebody overwrote must not keep it from the others.
                trouble = error
        self._tell(shut, verdict.why)
        if trouble is not None:
            raise trouble
        return self._shut

    def _in_all(self) -> Sequence[tuple[int, int, int, int] | None]:
        """For each destination the limits, and what the others hold."""
        it = self._limits
        if not it.max_messages and not it.max_bytes:
            return [None] * len(self._stores)
        held = held_by_all(self._client)
        count = sum(count for count, _ in held.values())
        size = sum(size for _, size in held.values())
        # A Redis that came back empty knows no destination for a moment.
        owns = [held.get(store.destination, (0, 0)) for store in self._stores]
        return [(it.max_messages, it.max_bytes, count - n, size - own) for n, own in owns]

    def _tell(self, shut: bool, why: str) -> None:
        if shut == self._shut:
            return
        self._shut = shut
        if shut:
            log.warning("intake is refused: %s", why, extra={"event": "intake_shut"})
        else:
            log.warning("intake is open again", extra={"event": "intake_open"})
