"""The worker's side of ``begin``: waits for a permit, or calls the request off.

Nothing is sent without Redis: while it is away the gate waits. What it waits for:

    go      sleep to the permit's moment, then the request may be written
    wait    no permit within 250 ms: ask again then
    closed  paused or held: a moment's wait is waited out here, a longer one gives the message back
    gone    cancelled, expired, or leased to another by now: nothing to send

The outcome of the thread's last request goes to Redis with the next ask, or at once (``flush``)
where none is near.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import redis.exceptions

from paceline.answers import Leased, Permit, Settlement
from paceline.clock import Clock
from paceline_workers.exchange import Exchange, Turn
from paceline_workers.outage import Outage
from paceline_workers.settler import Settler

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
    """The gate of one sender thread.

    ``settler`` gets what Redis refuses to settle with the rest, and what is left at the end.
    """

    def __init__(
        self, exchange: Exchange, settler: Settler, clock: Clock, stopping: threading.Event
    ) -> None:
        self._exchange = exchange
        self._settler = settler
        self._clock = clock
        self._stopping = stopping
        self._turn = Turn()
        self._carried: list[Settlement] = []

    @property
    def carried(self) -> int:
        """Outcomes that Redis does not know yet."""
        return len(self._carried)

    def carry(self, settlement: Settlement) -> None:
        """An outcome, to be told with the next ask. The caller flushes where none follows."""
        self._carried.append(settlement)

    def await_permit(self, leased: Leased, size: int = 0) -> tuple[Permit, float]:
        """Blocks until this message may be written, as a request of ``size`` bytes. Returns the
        permit and its moment (on ``clock.elapsed_s``). Raises CalledOff."""
        while not self._stopping.is_set():
            permit = self._say(leased, size)
            if permit is None:
                self._stopping.wait(_REDIS_AWAY_S)
            elif permit.verdict == "go":
                due_s = self._turn.at_s + (permit.wait_s or 0.0)
                left_s = due_s - self._clock.elapsed_s() if permit.wait_s else 0.0
                if left_s > 0.0 and self._stopping.wait(left_s):
                    break
                return permit, due_s
            elif permit.verdict == "gone":
                raise CalledOff("gone", permit.what)
            elif permit.verdict == "closed":
                # A breaker opens for a probe only, and to be one this message must be taken anew.
                long = permit.wait_s is None or permit.wait_s > PATIENCE_S
                if long or permit.what == "breaker":
                    raise CalledOff("closed", permit.what, permit.wait_s)
                self._stopping.wait(permit.wait_s)
            else:
                self._stopping.wait(min(permit.wait_s or 0.0, _ASK_AGAIN_S))
        raise CalledOff("stopping")

    def flush(self) -> None:
        """Returns when Redis knows all that was carried; when the worker stops, the settler has
        it."""
        while self._carried and not self._stopping.is_set():
            self._say(None)
            if self._carried:
                self._stopping.wait(_REDIS_AWAY_S)
        self.hand_over()

    def hand_over(self) -> None:
        """What is carried is the settler's now, which outlives this thread."""
        carried, self._carried = self._carried, []
        for settlement in carried:
            self._settler.put(settlement)

    def _say(self, asks: Leased | None, size: int = 0) -> Permit | None:
        """None where Redis did not answer, or refused."""
        carried = self._carried
        try:
            self._exchange.say(self._turn, carried, asks, size)
        except redis.exceptions.RedisError as error:
            outage.note(error)
            return None
        words, permit = self._turn.words, self._turn.permit
        if carried:
            self._carried = []
            self._settled(carried, words)
        if isinstance(permit, redis.exceptions.ResponseError):
            outage.note(permit)
            return None
        outage.over()
        return permit

    def _settled(
        self,
        settlements: Sequence[Settlement],
        words: Sequence[str] | redis.exceptions.ResponseError,
    ) -> None:
        if isinstance(words, redis.exceptions.ResponseError):
            # By one of all that were said together: the settler finds out which, one by one.
            for settlement in settlements:
                self._settler.settle(settlement, self._stopping)
        else:
            self._settler.accepted(settlements, words)
