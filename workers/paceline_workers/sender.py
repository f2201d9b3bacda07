"""The sender: a fixed number of threads that outlive every RQ job.

A job hands its batch over, message by message, as room comes (``accept``), and returns; so a slow
reply never blocks the next batch. Each thread enters the connection pool before it takes a
message: a message is out of the queue only when a connection is free for it.

When the destination closes (pause, hold, throttle) for more than a moment, all that was taken and
not begun goes back to its old place at once, untouched, and nothing is taken until it reopens.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from paceline.clock import Clock
from paceline.outbox import Leased, Settlement
from paceline_workers.delivery import Delivery
from paceline_workers.gate import CalledOff
from paceline_workers.pending import PendingQueue
from paceline_workers.settler import Settler
from paceline_workers.transports.pool import ConnectionPool, NoRoom

_POLL_S = 0.25
_ROOM_POLL_S = 0.1
#: After a close of unknown length the destination is looked at again so often.
_LOOK_AGAIN_S = 1.0
#: A request this long past its total deadline is lost with its thread: its lease runs out.
STUCK_AFTER_S = 5.0

log = logging.getLogger("paceline.sender")


@dataclass(slots=True)
class _Batch:
    ids: set[str] = field(default_factory=set)
    begun_s: dict[str, float] = field(default_factory=dict)


class Sender:
    """Threads between the outbox and the wire.

    ``make_delivery`` is called once in each thread. ``total_timeout_s`` bounds one request, for
    the judgement of which batches are stuck.
    """

    def __init__(
        self,
        threads: int,
        queue: PendingQueue,
        pool: ConnectionPool,
        make_delivery: Callable[[], Delivery],
        settler_of: Callable[[Callable[[Sequence[Settlement]], None]], Settler],
        *,
        clock: Clock,
        total_timeout_s: float,
        stopping: threading.Event,
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._make_delivery = make_delivery
        self._clock = clock
        self._total_timeout_s = total_timeout_s
        self._stopping = stopping
        self._closed_until_s = 0.0
        self._batches: dict[str, _Batch] = {}
        self._lock = threading.Lock()
        self.settler = settler_of(self._on_settled)
        self._threads = [
            threading.Thread(target=self._run, name=f"sender-{n}", daemon=True)
            for n in range(threads)
        ]

    def start(self) -> None:
        """Starts the settler and the threads."""
        self.settler.start()
        for thread in self._threads:
            thread.start()

    # -- what jobs ask ----------------------------------------------------------------------

    def is_open(self) -> bool:
        """Whether a batch taken now could be sent now."""
        return (
            self._pool.limit > 0
            and self._clock.monotonic_s() >= self._closed_until_s
            and not self._stopping.is_set()
        )

    def accept(
        self,
        nonce: str,
        ids: Iterable[str],
        messages: Iterable[Leased],
        meanwhile: Callable[[], object] = lambda: None,
    ) -> int:
        """Takes a batch over; returns, when the last message is in the queue, how many are.

        ``ids`` are all ids leased under ``nonce``; those that ``messages`` does not yield have left
        the batch meanwhile. Gives the rest back when the destination closes, when the worker stops,
        and when ``messages`` raises; raises that then. ``meanwhile`` is called often while there is
        no room: the batch of a slow destination may take long.
        """
        missing = dict.fromkeys(ids)
        with self._lock:
            self._batches[nonce] = _Batch(set(missing))
        accepted = 0
        try:
            for leased in messages:
                del missing[leased.id]
                if self._hand_over(leased, meanwhile):
                    accepted += 1
                else:
                    self._give_back(leased.id, nonce)
        except BaseException:
            for message_id in missing:
                self._give_back(message_id, nonce)
            raise
        for message_id in missing:
            self._drop_from_batch(nonce, message_id)
        return accepted

    def _hand_over(self, leased: Leased, meanwhile: Callable[[], object]) -> bool:
        while self.is_open():
            meanwhile()
            if self._queue.put(leased, _ROOM_POLL_S):
                return True
        return False

    def room_for_high(self) -> int:
        """How many high messages may be taken beside a batch: none while some wait here."""
        return 0 if self._queue.holds_high() else self._queue.capacity

    def forget(self, nonce: str) -> None:
        """A batch whose payloads could not be fetched: its lease is not renewed any more."""
        with self._lock:
            self._batches.pop(nonce, None)

    # -- what the heartbeat asks ------------------------------------------------------------

    def nonces_to_renew(self) -> list[str]:
        """Batches with unsettled messages, but for those in which a request is stuck."""
        limit = self._clock.monotonic_s() - self._total_timeout_s - STUCK_AFTER_S
        with self._lock:
            return [
                nonce
                for nonce, batch in self._batches.items()
                if all(since > limit for since in batch.begun_s.values())
            ]

    def lost(self, nonces: Iterable[str]) -> None:
        """Batches that are leased to us no more: begin and settle will say so for each message."""
        for nonce in nonces:
            self.forget(nonce)

    def counts(self) -> dict[str, int]:
        """What is held: messages queued, in flight, outcomes unsettled."""
        with self._lock:
            flying = sum(len(batch.begun_s) for batch in self._batches.values())
        return {"queued": len(self._queue), "in_flight": flying, "unsettled": len(self.settler)}

    # -- the threads ------------------------------------------------------------------------

    def _run(self) -> None:
        delivery = self._make_delivery()
        try:
            while not self._stopping.is_set():
                if not self._pool.enter(_POLL_S):
                    continue
                try:
                    # A thread keeps its place while it may: handing it on after each message
                    # would wake another thread for every one of them.
                    while not self._stopping.is_set() and self._pool.may_stay():
                        leased = self._queue.get(_POLL_S)
                        if leased is not None:
                            self._send(delivery, leased)
                finally:
                    self._pool.leave()
        finally:
            delivery.close()

    def _send(self, delivery: Delivery, leased: Leased) -> None:
        def on_wire() -> None:
            self._note(leased, self._clock.monotonic_s())

        try:
            settlement = delivery.deliver(leased, on_wire)
        except CalledOff as off:
            self._give_back(leased.id, leased.nonce)
            if off.verdict == "closed":
                self._close_for(off.reopens_s, off.what)
        except NoRoom:
            self._give_back(leased.id, leased.nonce)
        except Exception as error:
            log.exception("message %s: delivery failed unexpectedly", leased.id)
            self._settle_defect(delivery, leased, error)
        else:
            if settlement is None:
                self._drop_from_batch(leased.nonce, leased.id)
            else:
                if settlement.action in ("throttled", "held"):
                    # The gate closes when this is settled; what would begin until then need not.
                    self._close_for(settlement.delay_s or None, settlement.why)
                self._note(leased, None)
                self.settler.settle(settlement, self._stopping)
        finally:
            self._note(leased, None)

    def _settle_defect(self, delivery: Delivery, leased: Leased, error: Exception) -> None:
        """A defect of ours must neither lose the message nor take it round for ever: one that
        never reached the wire is a dead letter; for one that may have, its lease runs out, and
        the reaper records it as ambiguous and charges it."""
        with self._lock:
            batch = self._batches.get(leased.nonce)
            wrote = batch is not None and leased.id in batch.begun_s
        if wrote:
            self._drop_from_batch(leased.nonce, leased.id)
        else:
            self.settler.put(
                delivery.dead_letter(leased, "internal", f"internal: {type(error).__name__}")
            )

    def _note(self, leased: Leased, since_s: float | None) -> None:
        with self._lock:
            batch = self._batches.get(leased.nonce)
            if batch is None:
                return
            if since_s is None:
                batch.begun_s.pop(leased.id, None)
            else:
                batch.begun_s[leased.id] = since_s

    def _close_for(self, reopens_s: float | None, what: str) -> None:
        wait_s = _LOOK_AGAIN_S if reopens_s is None else min(reopens_s, _LOOK_AGAIN_S)
        self._closed_until_s = self._clock.monotonic_s() + wait_s
        waiting = self._queue.drain()
        for leased in waiting:
            self._give_back(leased.id, leased.nonce)
        if waiting:
            log.info("destination closed (%s): gave %d messages back", what, len(waiting))

    def _give_back(self, message_id: str, nonce: str) -> None:
        self.settler.put(Settlement(id=message_id, nonce=nonce, action="back"))

    def _on_settled(self, settlements: Sequence[Settlement]) -> None:
        for settlement in settlements:
            self._drop_from_batch(settlement.nonce, settlement.id)

    def _drop_from_batch(self, nonce: str, message_id: str) -> None:
        with self._lock:
            batch = self._batches.get(nonce)
            if batch is not None:
                batch.ids.discard(message_id)
                if not batch.ids:
                    del self._batches[nonce]

    # -- the end ----------------------------------------------------------------------------

    def stop(self, grace_s: float) -> int:
        """Takes no more, finishes what is on the wire, gives the rest back, settles all of it.

        ``stopping`` is set by the caller. Returns how many outcomes could not be settled in time.
        """
        end_s = self._clock.monotonic_s() + grace_s
        self._queue.close()
        for leased in self._queue.drain():
            self._give_back(leased.id, leased.nonce)
        for thread in self._threads:
            thread.join(max(0.0, end_s - self._clock.monotonic_s()))
        for leased in self._queue.drain():
            self._give_back(leased.id, leased.nonce)
        self._pool.close()
        return self.settler.close(max(1.0, end_s - self._clock.monotonic_s()))
