"""Carries invitations out: takes messages of the outbox and hands them to the sender."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import redis.exceptions

from paceline.answers import Taken
from paceline.clock import Clock
from paceline.names import Lane
from paceline.outbox import OutboxStore, new_nonce
from paceline_workers.outage import Outage
from paceline_workers.sender import Sender

#: How often high messages are looked for while a batch is being handed to the sender.
HIGH_EVERY_S = 0.04
_TAKE_AGAIN_S = 0.2
#: How long a job may take to bring an invitation to a worker that waits for one.
CARRIED_S = 0.25

log = logging.getLogger("paceline.worker")


class BatchTaker:
    """Takes for ``sender``, in the name of ``worker``. One thread at a time."""

    def __init__(
        self,
        store: OutboxStore,
        worker: str,
        sender: Sender,
        *,
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._worker = worker
        self._sender = sender
        self._clock = clock
        self._stopping = stopping
        self._outage = Outage(log, "take")
        self._high_again_s = 0.0

    def take_batch(self, count: int, lane: Lane, invitation: str) -> int:
        """Carries an invitation out: takes up to ``count`` messages and hands them to the sender.

        That may last, for the sender takes them as it sends them. Invitations to high messages wait
        in RQ meanwhile; so high ones are looked for here, uninvited, while it lasts.

        Never raises for Redis: an invitation that fails loses nothing (what was taken without our
        knowing comes back when its lease runs out)."""
        meanwhile = (lambda: None) if lane == "high" else self._take_high
        if self._sender.merger is None:
            return self._carry_out(count, lane, invitation, meanwhile)
        return self._fill_requests(count, lane, invitation, meanwhile)

    def take_unanswered(self) -> bool:
        """Answers an invitation that no job brought, if one stands: RQ lost it, or Redis was too
        full for it to be put into a queue. True where there was one. Raises RedisError.

        No more is taken than was released; should its job come after all, it is found answered."""
        found = self._store.unanswered(CARRIED_S)
        if found is None:
            return False
        self.take_batch(found.count, found.lane, found.id)
        return True

    def _fill_requests(
        self, count: int, lane: Lane, invitation: str, meanwhile: Callable[[], object]
    ) -> int:
        """As many at a time as go into one request: a job costs more than a take, and what is taken
        late can be cancelled, paused and passed until then."""
        most = self._sender.merger.most if self._sender.merger is not None else count
        accepted = 0
        while count > 0 and (not accepted or self._sender.is_open()):
            got = self._carry_out(min(count, most), lane, invitation, meanwhile)
            if not got:
                break
            accepted, count, invitation = accepted + got, count - most, ""
        return accepted

    def _take_high(self) -> None:
        now = self._clock.monotonic_s()
        if now < self._high_again_s:
            return
        self._high_again_s = now + HIGH_EVERY_S
        room = self._sender.room_for_high()
        if room:
            self._carry_out(room, "high", "", lambda: None)

    def _carry_out(
        self, count: int, lane: Lane, invitation: str, meanwhile: Callable[[], object]
    ) -> int:
        taken = self._take(count, lane, invitation)
        if taken is None or taken.status != "batch" or not taken.sizes:
            return 0
        try:
            if self._sender.merger is not None:
                return self._sender.merger.accept(taken, meanwhile)
            return self._sender.accept(
                taken.nonce, taken.sizes, self._store.fetch(taken), meanwhile
            )
        except redis.exceptions.RedisError as error:
            log.warning("fetch: Redis went away: %s; what was not fetched is given back", error)
            return 0

    def _take(self, count: int, lane: Lane, invitation: str) -> Taken | None:
        nonce = new_nonce()
        while True:
            try:
                taken = self._store.take(self._worker, nonce, count, lane, invitation)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                # The answer may have been lost, not the call: the same nonce gets the same batch,
                # and if nobody asked again it would wait for its lease to run out.
                self._outage.note(error)
            except redis.exceptions.RedisError as error:
                log.warning("take: Redis refuses: %s", error)
                return None
            else:
                self._outage.over()
                return taken
            if self._stopping.wait(_TAKE_AGAIN_S):
                return None
