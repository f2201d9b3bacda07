"""Outcomes on their way to Redis beside the gate: many in one call, kept until Redis accepts them.

Sender threads settle with their next ask (gate.py). Here is what has no such ask: messages given
back, what Redis refused to settle with the rest, and what is left when a thread ends.

An outcome in memory is the one thing a worker cannot get back: while Redis is away it waits here,
and the call is repeated until it is accepted (settle moves nothing twice).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import redis.exceptions

from paceline.answers import Settlement
from paceline.outbox import OutboxStore
from paceline_workers.narrator import tell
from paceline_workers.outage import Outage
from paceline_workers.recall import Recall

MOST_IN_ONE_CALL = 64
#: Settlements are gathered for this long: one call, one fsync, for all of them. Short, for a
#: thread may wait for one.
GATHER_S = 0.001
_RETRY_S = 0.2
_LOOK_S = 0.25
_BACK_GRACE_S = 2.0

log = logging.getLogger("paceline.settler")


class Settler:
    """A thread that settles. ``settled(settlements)`` is called after each accepted call;
    ``recall`` hears of all that Redis has accepted."""

    def __init__(
        self,
        store: OutboxStore,
        settled: Callable[[Sequence[Settlement]], None],
        recall: Recall | None = None,
    ) -> None:
        self._store = store
        self._recall = recall
        self._settled = settled
        self._waiting: list[Settlement] = []
        self._awaited: dict[int, threading.Event] = {}  # by the settlement's identity
        self._changed = threading.Condition()
        self._closing = False
        self._abandon = threading.Event()
        self._outage = Outage(log, "settle")
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

    def settle(self, settlement: Settlement, stopping: threading.Event) -> None:
        """``put``, and wait until Redis has accepted it, or the worker stops.

        So a connection never has more than one request whose outcome only this process knows: a
        kill leaves no more ambiguous messages than it had connections.
        """
        done = threading.Event()
        with self._changed:
            self._awaited[id(settlement)] = done
        self.put(settlement)
        while not done.wait(_LOOK_S) and not stopping.is_set():
            continue

    def _off_its_hands(self, piece: Sequence[Settlement]) -> None:
        with self._changed:
            events = [self._awaited.pop(id(settlement), None) for settlement in piece]
        self._settled(piece)
        for event in events:
            if event is not None:
                event.set()

    def __len__(self) -> int:
        return len(self._waiting)

    def close(self, grace_s: float) -> int:
        """Settles what waits, for at most ``grace_s``; what merely goes back to its place is not
        worth more than a moment of it, for a lease that runs out does the same. Returns how many
        could not be: their leases run out, and what was begun becomes ambiguous."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(min(grace_s, _BACK_GRACE_S))
        if any(settlement.action != "back" for settlement in self._waiting[:]):
            self._thread.join(max(0.0, grace_s - _BACK_GRACE_S))
        self._abandon.set()
        return len(self._waiting)

    def _run(self) -> None:
        most = MOST_IN_ONE_CALL
        while not self._abandon.is_set():
            piece = self._next_piece(most)
            if not piece:
                return
            try:
                words = self._store.settle(piece)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                self._outage.note(error)
                self._abandon.wait(_RETRY_S)
            except Exception as error:  # noqa: BLE001 - told there
                most = self._stand_aside(piece, error)
            else:
                self._outage.over()
                most = min(most * 2, MOST_IN_ONE_CALL)
                self._accept(piece, words)

    def _next_piece(self, most: int) -> list[Settlement]:
        """What is settled next; empty when all is done and the worker stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._closing and len(self._waiting) < MOST_IN_ONE_CALL:
                self._changed.wait_for(
                    lambda: self._closing or len(self._waiting) >= MOST_IN_ONE_CALL, GATHER_S
                )
            return self._waiting[:most]

    def accepted(self, settlements: Sequence[Settlement], words: Sequence[str]) -> None:
        """What Redis made of outcomes, whoever brought them there: told, and off our hands."""
        if self._recall is not None:
            self._recall.note(settlements, words)
        for settlement, word in zip(settlements, words, strict=True):
            if word not in ("ok", "repeat"):
                log.warning(
                    "settle: %s of message %s came %s",
                    settlement.action,
                    settlement.id,
                    word,
                    extra={"event": "lease_lost", "message_id": settlement.id, "cause": word},
                )
            if settlement.action != "sent" and word == "ok":
                tell(self._store.destination, settlement)
        self._settled(settlements)

    def _accept(self, piece: Sequence[Settlement], words: Sequence[str]) -> None:
        with self._changed:
            del self._waiting[: len(piece)]
            events = [self._awaited.pop(id(settlement), None) for settlement in piece]
        self.accepted(piece, words)
        for event in events:
            if event is not None:
                event.set()

    def _stand_aside(self, piece: Sequence[Settlement], error: Exception) -> int:
        """Redis refuses the call, or it cannot even be made: by one outcome in it, or all of them
        (a full disk, a replica). One must not hold up the others for ever: fewer are tried, and a
        single one goes to the end of the row. Returns how many to try next."""
        if len(piece) > 1:
            self._outage.note(error)
            self._abandon.wait(_RETRY_S)
            return max(1, len(piece) // 2)
        refused = isinstance(error, redis.exceptions.RedisError)
        if refused:
            self._outage.note(error)
        else:
            log.error(
                "settle: the outcome of message %s cannot be told to Redis, its lease runs out",
                piece[0].id,
                exc_info=error,
            )
        with self._changed:
            self._waiting.pop(0)
            if refused:
                self._waiting.append(piece[0])
        if refused:
            self._abandon.wait(_RETRY_S)
        else:
            self._off_its_hands(piece)
        return 1
