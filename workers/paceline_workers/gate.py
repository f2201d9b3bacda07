"""The worker's side of ``begin``: waits for a permit, or calls the request off.

Nothing is sent without Redis: while it is away the gate waits. What it waits for:

    go      sleep to the permit's moment, then the request may be written
    wait    no permit within 250 ms: ask again then
    closed  paused or held: a moment's wait is waited out here, a longer one gives the message back
    gone    cancelled, expired, or leased to another by now: nothing to send
"""

from __future__ import annotations

import logging
import threading

import redis.exceptions

from paceline.clock import Clock
from paceline.outbox import Leased, OutboxStore, Permit
from paceline.scripts import Pinned
from paceline_workers.outage import Outage

#: A closed destination that opens within this is waited for with the connection in hand.
PATIENCE_S = 0.5
#: Between two calls while Redis is away.
_REDIS_AWAY_S = 0.2
_ASK_AGAIN_S = 0.25

log = logging.getLogger("paceline.gate")
#: Of all gates of this process.
outage = Outage(log, "begin")


class CalledOff(Exception):
    """Nothing was written: ``gone`` (nothing to give back), or ``closed`` / ``stopping``.

    ``reopens_s`` is how long the destination stays closed, None for ever. Not one of the errors
    that requests or urllib3 know: they must not handle it.
    """

    def __init__(self, verdict: str, what: str = "", reopens_s: float | None = 0.0) -> None:
        super().__init__(f"{verdict}: {what}")
        self.verdict = verdict
        self.what = what
        self.reopens_s = reopens_s


class WireGate:
    """The gate of one sender thread, over a Redis connection of its own."""

    def __init__(
        self, store: OutboxStore, pinned: Pinned, clock: Clock, stopping: threading.Event
    ) -> None:
        self._store = store
        self._pinned = pinned
        self._clock = clock
        self._stopping = stopping

    def await_permit(self, leased: Leased) -> tuple[Permit, float]:
        """Blocks until this message may be written. Returns the permit and its moment (on
        ``clock.elapsed_s``). Raises CalledOff."""
        while not self._stopping.is_set():
            permit = self._ask(leased)
            if permit is None:
                self._stopping.wait(_REDIS_AWAY_S)
            elif permit.verdict == "go":
                due_s = self._clock.elapsed_s() + (permit.wait_s or 0.0)
                if permit.wait_s and self._stopping.wait(permit.wait_s):
                    break
                return permit, due_s
            elif permit.verdict == "gone":
                raise CalledOff("gone", permit.what)
            elif permit.verdict == "closed":
                if permit.wait_s is None or permit.wait_s > PATIENCE_S:
                    raise CalledOff("closed", permit.what, permit.wait_s)
                self._stopping.wait(permit.wait_s)
            else:
                self._stopping.wait(min(permit.wait_s or 0.0, _ASK_AGAIN_S))
        raise CalledOff("stopping")

    def _ask(self, leased: Leased) -> Permit | None:
        try:
            permit = self._store.begin(self._pinned, leased.id, leased.nonce)
        except redis.exceptions.RedisError as error:
            outage.note(error)
            self._pinned.close()
            return None
        outage.over()
        return permit

    def close(self) -> None:
        """Closes the gate's connection."""
        self._pinned.close()
