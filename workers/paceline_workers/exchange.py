"""What sender threads have to say to Redis at one moment, said in one round trip.

Each thread comes with the outcome of its last request, and the message it wants to begin next;
Redis settles first, then begins (both in one write, in this order). So

- a connection never has more than one request whose outcome only this process knows: a kill leaves
  no more ambiguous messages than there were connections;
- a request costs a share of one round trip, and under ``appendfsync always`` of one fsync.

While one thread is at Redis the others gather behind it; the first of them speaks next, for all. A
thread that is alone goes straight through.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError, ResponseError

from paceline.answers import Leased, Permit, Settlement
from paceline.outbox import OutboxStore
from paceline.scripts import Pinned
from paceline_workers.recall import Recall

log = logging.getLogger("paceline.exchange")


class Turn:
    """One thread's place; used again and again by that thread alone.

    ``words`` is what became of each settlement, or the error by which Redis refused the call that
    held it; ``permit`` the answer to the ask, or such an error; ``at_s`` when they came.
    ``failed`` is set where no answer came: then all of it is to be said again.
    """

    __slots__ = (
        "asks", "at_s", "baton", "failed", "leads", "permit", "settlements", "size", "words",
    )  # fmt: skip

    def __init__(self) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.settlements: Sequence[Settlement] = ()
        self.asks: Leased | None = None
        self.size = 0
        self.leads = False
        self.words: list[str] | ResponseError = []
        self.permit: Permit | ResponseError | None = None
        self.at_s = 0.0
        self.failed: Exception | None = None


class Exchange:
    """The one connection over which this process settles and begins. Thread-safe.

    ``elapsed_s`` stamps the answers: by the thread that read them, for one that waited behind it
    may wake much later, and its permit is as old as the answer. ``recall`` tells a Redis that was
    restarted what it may have lost, before anything is begun there.
    """

    def __init__(
        self,
        store: OutboxStore,
        pinned: Pinned,
        elapsed_s: Callable[[], float],
        recall: Recall | None = None,
    ) -> None:
        self._store = store
        self._pinned = pinned
        self._elapsed_s = elapsed_s
        self._recall = recall
        self._lock = threading.Lock()
        self._busy = False
        self._gathered: list[Turn] = []

    def say(
        self, turn: Turn, settlements: Sequence[Settlement], asks: Leased | None, size: int = 0
    ) -> None:
        """Settles and begins, a request of ``size`` bytes; the answers are in ``turn``. Raises
        RedisError where none came."""
        turn.settlements, turn.asks, turn.size = settlements, asks, size
        turn.words, turn.permit, turn.failed, turn.leads = [], None, None, False
        with self._lock:
            self._gathered.append(turn)
            turn.leads = leads = not self._busy
            self._busy = True
        # As it was then: who makes it our turn meanwhile hands the baton over too, and it must be
        # taken, or the next call would not wait for its answer.
        if not leads:
            # Until another has spoken for us, or it is our turn to speak for all.
            turn.baton.acquire()
        if turn.leads:
            self._lead(turn)
        if turn.failed is not None:
            raise turn.failed

    def _lead(self, mine: Turn) -> None:
        with self._lock:
            together, self._gathered = self._gathered, []
        try:
            self._speak(together)
        except RedisError as error:
            self._pinned.close()
            for turn in together:
                turn.failed = error
        except Exception as error:
            # A defect of ours: an outcome that cannot be put into words. Not known whose, so all go
            # to the settler, which tries them one by one; what was asked is asked again.
            self._pinned.close()
            log.exception("exchange: unexpected error; going on")
            for turn in together:
                turn.words, turn.permit = ResponseError(f"internal: {type(error).__name__}"), None
        finally:
            with self._lock:
                if self._gathered:
                    self._gathered[0].leads = True
                    self._gathered[0].baton.release()
                else:
                    self._busy = False
            for turn in together:
                if turn is not mine:
                    turn.baton.release()

    def _speak(self, together: Sequence[Turn]) -> None:
        settlements = [one for turn in together for one in turn.settlements]
        askers = [turn for turn in together if turn.asks is not None]
        if self._recall is not None:
            self._recall.look(self._pinned.ready())
        words, permits = self._store.turn(
            self._pinned,
            settlements,
            [
                (turn.asks.id, turn.asks.nonce, turn.size)
                for turn in askers
                if turn.asks is not None
            ],
        )
        at_s = self._elapsed_s()
        first = 0
        for turn in together:
            turn.at_s = at_s
            if isinstance(words, ResponseError):
                turn.words = words
            else:
                turn.words = words[first : first + len(turn.settlements)]
                first += len(turn.settlements)
        for place, turn in enumerate(askers):
            turn.permit = permits if isinstance(permits, ResponseError) else permits[place]

    def close(self) -> None:
        """Closes the connection; whoever comes yet opens another."""
        self._pinned.close()
