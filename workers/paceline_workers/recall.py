"""What this worker lately knew Redis to have, told again to a Redis that may have lost it.

A Redis that comes back after a crash, or another one after a fail-over, may lack the last moment:
outcomes that were accepted, with the begin and the take before them. Such a message would be sent
again. So the outcomes of the last seconds are kept, and settled again where the server is not the
same process any more, before this worker begins anything there. Where nothing was lost that moves
nothing (``repeat``); where something was, it is mended, and counted (settle.lua).

Kept is what must not be forgotten: what was sent, and what may have been.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
from redis.exceptions import ResponseError

from paceline.answers import TOLD_AGAIN, Settlement
from paceline.outbox import OutboxStore

#: More than any policy of fsync and any healthy replica may lose.
KEPT_S = 10.0
KEPT_MOST = 5000
_IN_ONE_CALL = 64
#: Calls that one Redis, which takes others, may refuse before it is left in peace: that must not
#: keep others waiting.
_TRIES = 25

log = logging.getLogger("paceline.recall")


class Recall:
    """Of one worker process. Thread-safe."""

    def __init__(self, store: OutboxStore, elapsed_s: Callable[[], float]) -> None:
        self._store = store
        self._elapsed_s = elapsed_s
        self._lock = threading.Lock()
        self._kept: deque[tuple[float, Settlement]] = deque()
        self._looking = threading.Lock()
        self._run_id: str | None = None
        self._refused = 0

    def note(self, settlements: Sequence[Settlement], words: Sequence[str]) -> None:
        """Redis has accepted these outcomes."""
        now_s = self._elapsed_s()
        with self._lock:
            for settlement, word in zip(settlements, words, strict=True):
                if word not in ("late", "gone") and _matters(settlement):
                    self._kept.append((now_s, settlement))
            while self._kept and (now_s - self._kept[0][0] > KEPT_S or len(self._kept) > KEPT_MOST):
                self._kept.popleft()

    def __len__(self) -> int:
        return len(self._kept)

    def look(self, run_id: str) -> None:
        """Tells it all again where this is not the Redis that accepted it. Raises RedisError: then
        nothing may be begun yet."""
        if run_id == self._run_id:
            return
        with self._looking:
            if run_id == self._run_id:
                return
            if self._run_id is not None:
                try:
                    self._tell_again()
                except ResponseError:
                    # Raises where it takes nothing at all: a replica, a full disk, one that came
                    # back empty and knows no configuration yet. Nothing begins there either.
                    self._store.settle([])
                    self._refused += 1
                    if self._refused < _TRIES:
                        raise
                    log.exception("what Redis may have forgotten cannot be told again; going on")
            self._refused = 0
            self._run_id = run_id

    def _tell_again(self) -> None:
        with self._lock:
            kept = [_again(settlement) for _, settlement in self._kept]
        mended = lost = 0
        for at in range(0, len(kept), _IN_ONE_CALL):
            piece = kept[at : at + _IN_ONE_CALL]
            for settlement, word in zip(piece, self._store.settle(piece), strict=True):
                mended += word in ("ok", "won", "duplicate")
                lost += word == "recalled" or (word == "gone" and settlement.action == "sent")
        if mended or lost:
            log.warning(
                "Redis has come back without its last moment: of %d outcomes told again it had "
                "forgotten %d, and of %d more the messages too",
                len(kept),
                mended,
                lost,
                extra={"event": "redis_loss"},
            )


def _matters(settlement: Settlement) -> bool:
    return settlement.action == "sent" or settlement.label.startswith("ambiguous")


def _again(settlement: Settlement) -> Settlement:
    if settlement.action != "sent":
        return settlement
    return msgspec.structs.replace(settlement, why=TOLD_AGAIN)
