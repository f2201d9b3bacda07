"""The scheduler: promotes what is due, expires what is over, releases invitations.

Any number of them may run: what may be released is decided inside the scripts, so two together
release no more than one.

What waits for a worker is not handed out early. An invitation says how many, not which; the window
is never further ahead than two batches a live worker or one second of the rate, and without a live
worker nothing is released at all.

RQ only carries invitations; they are counted in the outbox. One that RQ refuses to carry (a full
Redis lets nothing be added to a queue) stands there all the same, and a worker that no job reaches
looks for it (``unanswered.lua``).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from redis.exceptions import ResponseError

from paceline.names import INVITATION_LEASE_S, Lane
from paceline.outbox import OutboxStore

_MOST = 500
#: How soon to look again: when enough is out already (a worker will take), when nothing waits
#: (a message wakes us earlier), when the destination is closed or has no worker.
_COVERED_S, _WINDOW_S, _IDLE_S, _CLOSED_S = 0.02, 0.05, 1.0, 0.25
_REMIND_S = 30.0

log = logging.getLogger("paceline.scheduler")


class Inviter(Protocol):
    """What carries an invitation to a worker (``dispatch.Dispatcher``)."""

    def invite(self, invitation_id: str, count: int, lane: Lane, ttl_s: float) -> None:
        """Enqueues one RQ job."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did, and when the next is wanted."""

    promoted: int
    expired: int
    released: int
    why: str
    next_s: float


class Scheduler:
    """One destination's scheduler. ``batch`` is the largest batch, in messages."""

    def __init__(
        self,
        store: OutboxStore,
        inviter: Inviter,
        batch: int,
        *,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._inviter = inviter
        self._batch = batch
        self._new_id = new_id
        self._monotonic_s = monotonic_s
        self._refused_s: float | None = None

    def run_once(self) -> Turn:
        """One turn. Raises RedisError."""
        promoted, due_s = self._store.promote(_MOST)
        expired = self._store.expire(_MOST)
        high, high_why, high_retry_s = self._release("high")
        rest, why, retry_s = self._release("any")
        if high_why == why:
            retry_s = min(retry_s, high_retry_s)
        elif why == "idle" or (why == "tenant-cap" and high_why != "idle"):
            why, retry_s = high_why, high_retry_s
        soon_s = min(max(retry_s, 0.001), _CLOSED_S)
        waits = {"rate": soon_s, "tenant-cap": soon_s, "covered": _COVERED_S}
        waits |= {"window": _WINDOW_S, "idle": _IDLE_S}
        next_s = waits.get(why, _CLOSED_S)
        if due_s is not None:
            next_s = min(next_s, max(due_s, 0.001))
        if promoted == _MOST or expired == _MOST:
            next_s = 0.0
        return Turn(promoted, expired, high + rest, why, next_s)

    def _release(self, lane: Lane) -> tuple[int, str, float]:
        total = 0
        while True:
            invitation = self._new_id()
            released = self._store.release(lane, self._batch, INVITATION_LEASE_S, invitation)
            if not released.count:
                return total, released.why, released.retry_s
            # A crash here loses the job but not the place: the invitation's lease frees it.
            self._invite(invitation, released.count, lane)
            total += released.count

    def _invite(self, invitation: str, count: int, lane: Lane) -> None:
        try:
            self._inviter.invite(invitation, count, lane, INVITATION_LEASE_S)
        except ResponseError as error:
            now_s = self._monotonic_s()
            if self._refused_s is None or now_s - self._refused_s >= _REMIND_S:
                self._refused_s = now_s
                log.warning(
                    "RQ cannot carry invitations: %s; workers look for them themselves",
                    error,
                    extra=self._about("invitations_refused", type(error).__name__),
                )
            return
        if self._refused_s is not None:
            self._refused_s = None
            log.info("RQ carries invitations again", extra=self._about("invitations_carried"))

    def _about(self, event: str, cause: str | None = None) -> dict[str, str | None]:
        return {"event": event, "cause": cause, "destination": self._store.destination}

    def wait(self, turn: Turn) -> None:
        """Until the next turn is wanted, or an idle destination got a message."""
        if turn.next_s > 0:
            self._store.wait_for_work(turn.next_s)
