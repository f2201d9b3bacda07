"""The sender: a fixed number of threads that outlive every RQ job.

A job hands its batch over, message by message, as room comes (``accept``), and returns; so a slow
reply never blocks the next batch. Each thread enters the connection pool before it takes a
message: a message is out of the queue only when a connection is free for it.

When the destination closes (pause, hold, throttle) for more than a moment, all that was taken and
not begun goes back to its old place at once, untouched, and nothing is taken until it reopens.

A thread that finds no message may run an errand (status_poll.py) with the place that it holds: the
threads keep their places while they wait, so nobody else would get one.

The messages of a tenant whose requests hang (tenancy.py) may fill half of the queue; more of them
go back too, so that what others sent comes in.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

from redis.exceptions import RedisError

from paceline.answers import Leased, Settlement
from paceline.clock import Clock
from paceline_workers.delivery import Delivery
from paceline_workers.gate import CalledOff
from paceline_workers.merger import Merger
from paceline_workers.pending import PendingQueue
from paceline_workers.settler import Settler
from paceline_workers.tenancy import Returns, Tenancy
from paceline_workers.transports.base import NoRoom, Pool
from paceline_workers.watch import Watch

_POLL_S = 0.25
_ROOM_POLL_S = 0.04
#: How soon to look again whether a message of a tenant that hangs may go back.
_RETURN_POLL_S = 0.02
#: After a close of unknown length the destination is looked at again so often.
_LOOK_AGAIN_S = 1.0
#: One connection is kept for high messages for so long after the last one, where there are so many.
RESERVE_FOR_S = 600.0
RESERVE_FROM = 3
#: What the queue holds, in seconds of this worker's part of the rate: the later a message is taken,
#: the longer its priority, its tenant's turn, its cancel and a pause can act.
QUEUE_S = 0.1
#: Messages of tenants that hang go back at this many times the rate at most. They are taken again:
#: unbounded, the worker would do nothing else.
RETURNS_TIMES = 2
#: A request this long past its total deadline is lost with its thread: its lease runs out.
STUCK_AFTER_S = 5.0
#: What goes back because its endpoint hangs is not taken again for so long.
REST_S = 2.0

log = logging.getLogger("paceline.sender")


@dataclass(slots=True)
class _Desk:
    """One thread: its delivery, and the request it has on the wire since ``begun_s``."""

    delivery: Delivery | None = None
    nonce: str = ""
    begun_s: float | None = None


class Errand(Protocol):
    """A request that carries no message, for a thread that has none to send."""

    def is_due(self) -> bool:
        """Whether there may be something to do. Cheap."""

    def run(self) -> None:
        """Does it, or finds that there is none; at most one request, and by one thread at a
        time."""


class Sender:
    """Threads between the outbox and the wire.

    ``make_delivery(settler)`` is called once in each thread. ``total_timeout_s`` bounds one
    request, for the judgement of which batches are stuck. ``members`` gives the ids in a merged
    request. ``errand`` is what threads do while no message waits. ``watch_of(now_s, connections)``
    makes what keeps threads free of what hangs. ``apart``: messages go to many endpoints, and an
    answer that asks for time speaks of its own alone.
    """

    def __init__(
        self,
        threads: int,
        queue: PendingQueue,
        pool: Pool,
        make_delivery: Callable[[Settler], Delivery],
        settler_of: Callable[[Callable[[Sequence[Settlement]], None]], Settler],
        *,
        clock: Clock,
        total_timeout_s: float,
        stopping: threading.Event,
        merger_of: Callable[[Sender], Merger] | None = None,
        members: Callable[[str], Sequence[str]] = lambda _: (),
        errand: Errand | None = None,
        watch_of: Callable[[Callable[[], float], Callable[[], int]], Watch] = Tenancy,
        apart: bool = False,
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._make_delivery = make_delivery
        self._clock = clock
        self._total_timeout_s = total_timeout_s
        self._stopping = stopping
        self._closed_until_s = 0.0
        self._high_until_s = 0.0
        queue.watch_tenants(watch_of(clock.monotonic_s, lambda: pool.limit))
        self._returns = Returns(clock.monotonic_s)
        self._batches: dict[str, set[str]] = {}  # ids not settled yet, by nonce
        self._lock = threading.Lock()
        self.settler = settler_of(self._on_settled)
        #: Where many messages go in one request: stands between what is taken and the queue.
        self.merger = None if merger_of is None else merger_of(self)
        self._members = members
        self._errand = errand
        self._apart = apart
        self._desks = [_Desk() for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._run, args=(desk,), name=f"sender-{n}", daemon=True)
            for n, desk in enumerate(self._desks)
        ]

    def start(self) -> None:
        """Starts the settler and the threads."""
        self.settler.start()
        if self.merger is not None:
            self.merger.start()
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
        self.adopt(nonce, missing)
        accepted = 0
        try:
            for leased in messages:
                del missing[leased.id]
                if self.hand_over(leased, meanwhile):
                    accepted += 1
                else:
                    self._turn_away(leased)
        except BaseException:
            for message_id in missing:
                self.give_back(message_id, nonce)
            raise
        for message_id in missing:
            self._drop_from_batch(nonce, message_id)
        return accepted

    def adopt(self, nonce: str, ids: Iterable[str]) -> None:
        """These are held under ``nonce``: its lease is renewed until all of them are settled."""
        with self._lock:
            self._batches.setdefault(nonce, set()).update(ids)

    def release(self, nonce: str, ids: Iterable[str]) -> None:
        """These are not held under it any more."""
        with self._lock:
            held = self._batches.get(nonce)
            if held is not None:
                held.difference_update(ids)
                if not held:
                    del self._batches[nonce]

    def hand_over(self, leased: Leased, meanwhile: Callable[[], object]) -> bool:
        """Puts one message, or one merged request, into the queue, once there is room. False where
        it is to be given back: the destination has closed, or the worker stops."""
        if leased.head.priority == "high":
            self._expect_high()
        while self.is_open():
            meanwhile()
            if self._queue.shared and self._queue.has_enough_of(leased):
                if self._may_return(1):
                    return False
                self._stopping.wait(_RETURN_POLL_S)
            elif self._queue.put(leased, _ROOM_POLL_S):
                return True
            elif self._queue.shared:
                self._make_room()
        return False

    def hand_over_now(self, leased: Leased) -> None:
        """The same, whether there is room or not: of what a sender thread has taken apart itself.
        Given back where the destination has closed."""
        if not (self.is_open() and self._queue.put_beyond(leased)):
            self.give_back(leased.id, leased.nonce)

    def _may_return(self, wanted: int) -> int:
        """What goes back has had its tenant's turn: of what is taken next, others are the first."""
        return self._returns.up_to(wanted, RETURNS_TIMES * self._queue.capacity / QUEUE_S)

    def _make_room(self) -> None:
        """The queue is full: of one that hangs, perhaps, since before that was known."""
        surplus = self._queue.surplus()
        if surplus:
            for leased in self._queue.take_out(self._may_return(surplus)):
                self._turn_away(leased)

    def _turn_away(self, leased: Leased) -> None:
        """Back, for it would stand in the others' way; unless the destination has closed meanwhile,
        its endpoint is let alone for a moment."""
        rest_s = REST_S if self._apart and self.is_open() else 0.0
        self.give_back(leased.id, leased.nonce, rest_s)

    def _expect_high(self) -> None:
        """Where one came, more will: until they do, a connection is kept free for them."""
        now = self._clock.monotonic_s()
        began = now >= self._high_until_s
        self._high_until_s = now + RESERVE_FOR_S
        if began:
            self._reserve()

    def _reserve(self) -> None:
        limit = self._pool.limit
        reserves = limit >= RESERVE_FROM and self._clock.monotonic_s() < self._high_until_s
        self._queue.keep_for_high(limit - 1 if reserves else None)

    def tend(self, rate: float) -> None:
        """Once a heartbeat: the destination's rate, in requests/s, and this worker's share of
        connections may have changed."""
        part = min(1.0, self._pool.limit / max(1, len(self._desks)))
        self._queue.resize(max(1, ceil(rate * part * QUEUE_S)))
        self._reserve()
        self._tell_slow()

    def _tell_slow(self) -> None:
        for line in self._queue.news():
            level = logging.WARNING if line.bad else logging.INFO
            log.log(level, "%s", line.text, extra={"event": line.event, "cause": line.cause})

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
        stuck = {
            desk.nonce
            for desk in self._desks
            if (since := desk.begun_s) is not None and since <= limit
        }
        with self._lock:
            return [nonce for nonce in self._batches if nonce not in stuck]

    def lost(self, nonces: Iterable[str]) -> None:
        """Batches that are leased to us no more: begin and settle will say so for each message."""
        for nonce in nonces:
            self.forget(nonce)

    def counts(self) -> dict[str, Any]:
        """What is held: messages queued, in flight, outcomes unsettled; whose requests hang, where
        any do."""
        carried = sum(desk.delivery.carried for desk in self._desks if desk.delivery is not None)
        return {
            "queued": len(self._queue),
            **({"merging": len(self.merger)} if self.merger is not None else {}),
            "in_flight": sum(desk.begun_s is not None for desk in self._desks),
            "unsettled": len(self.settler) + carried,
            **self._queue.facts(),
        }

    # -- the threads ------------------------------------------------------------------------

    def _run(self, desk: _Desk) -> None:
        delivery = desk.delivery = self._make_delivery(self.settler)
        try:
            while not self._stopping.is_set():
                if not self._pool.enter(_POLL_S):
                    continue
                try:
                    # A thread keeps its place while it may: handing it on after each message
                    # would wake another thread for every one of them.
                    while not self._stopping.is_set() and self._pool.may_stay():
                        leased = self._next(delivery)
                        if leased is not None:
                            try:
                                self._send(desk, delivery, leased)
                            finally:
                                self._queue.done(leased)
                finally:
                    delivery.flush()
                    self._pool.leave()
        finally:
            delivery.close()

    def _next(self, delivery: Delivery) -> Leased | None:
        leased = self._queue.get_now()
        if leased is None:
            # The last outcome does not wait for a message that may never come.
            delivery.flush()
            if self._errand is not None and self._errand.is_due():
                self._run_errand(self._errand)
            leased = self._queue.get(_POLL_S)
        return leased

    def _run_errand(self, errand: Errand) -> None:
        if not self._queue.lend():
            return
        try:
            errand.run()
        except Exception:
            log.exception("an errand failed unexpectedly; messages are sent all the same")
        finally:
            self._queue.unlend()

    def _send(self, desk: _Desk, delivery: Delivery, leased: Leased) -> None:
        def on_wire() -> None:
            desk.nonce = leased.nonce
            desk.begun_s = self._clock.monotonic_s()
            self._queue.began(leased)

        def on_connect(is_open: bool) -> None:
            tell = self._queue.connected if is_open else self._queue.connects
            tell(leased)

        try:
            settlement = delivery.deliver(leased, on_wire, on_connect)
        except CalledOff as off:
            self.give_back(leased.id, leased.nonce)
            if off.verdict == "closed":
                self._close_for(off.reopens_s, off.what)
        except NoRoom:
            self.give_back(leased.id, leased.nonce)
        except Exception as error:
            log.exception("message %s: delivery failed unexpectedly", leased.id)
            self._settle_defect(delivery, leased, error, wrote=desk.begun_s is not None)
        else:
            if settlement is None:
                self._drop_from_batch(leased.nonce, leased.id)
            else:
                delivery.carry(settlement)
                if settlement.action in ("split", "opened"):
                    delivery.flush()
                    self._take_apart(leased, delivery, settlement.action)
                waits = () if self._apart else ("throttled", "quota")
                if settlement.action in (*waits, "held"):
                    # The gate closes when this is settled; what would begin until then need not.
                    delivery.flush()
                    self._close_for(settlement.delay_s or None, settlement.why)
        finally:
            desk.begun_s = None

    def _take_apart(self, leased: Leased, delivery: Delivery, action: str) -> None:
        """A merged request whose members are held one by one again, Redis has accepted that."""
        try:
            if action == "split" and self.merger is not None:
                self.merger.halve(leased)
                return
            members = self._members(leased.id[1:])
            self.adopt(leased.nonce, members)
            if action == "split":
                for message_id in members:
                    self.give_back(message_id, leased.nonce)
            else:
                for settlement in delivery.each(leased, members):
                    self.settler.put(settlement)
        except RedisError as error:
            log.warning("request %s: its members: %s; their leases run out", leased.id, error)
            self.forget(leased.nonce)
        except Exception:
            # A defect of ours: it must not end the thread, nor hold its members for ever.
            log.exception("request %s: its members; their leases run out", leased.id)
            self.forget(leased.nonce)

    def _settle_defect(
        self, delivery: Delivery, leased: Leased, error: Exception, *, wrote: bool
    ) -> None:
        """A defect of ours must neither lose the message nor take it round for ever: one that
        never reached the wire is a dead letter; for one that may have, its lease runs out, and
        the reaper records it as ambiguous and charges it."""
        if wrote:
            self._drop_from_batch(leased.nonce, leased.id)
        else:
            self.settler.put(
                delivery.dead_letter(leased, "internal", f"internal: {type(error).__name__}")
            )

    def _close_for(self, reopens_s: float | None, what: str) -> None:
        wait_s = _LOOK_AGAIN_S if reopens_s is None else min(reopens_s, _LOOK_AGAIN_S)
        self._closed_until_s = self._clock.monotonic_s() + wait_s
        if self.merger is not None:
            self.merger.wake()
        waiting = self._queue.drain()
        for leased in waiting:
            self.give_back(leased.id, leased.nonce)
        if waiting:
            log.info("destination closed (%s): gave %d messages back", what, len(waiting))

    def give_back(self, message_id: str, nonce: str, rest_s: float = 0.0) -> None:
        """Unsent and untouched, to its place. ``rest_s``: for so long its endpoint gets nothing."""
        self.settler.put(Settlement(id=message_id, nonce=nonce, action="back", delay_s=rest_s))

    def _on_settled(self, settlements: Sequence[Settlement]) -> None:
        for settlement in settlements:
            self._drop_from_batch(settlement.nonce, settlement.id)

    def _drop_from_batch(self, nonce: str, message_id: str) -> None:
        with self._lock:
            ids = self._batches.get(nonce)
            if ids is not None:
                ids.discard(message_id)
                if not ids:
                    del self._batches[nonce]

    # -- the end ----------------------------------------------------------------------------

    def stop(self, grace_s: float) -> int:
        """Takes no more, finishes what is on the wire, gives the rest back, settles all of it.

        ``stopping`` is set by the caller. Returns how many outcomes could not be settled in time.
        """
        end_s = self._clock.monotonic_s() + grace_s
        self._queue.close()
        for leased in self._queue.drain():
            self.give_back(leased.id, leased.nonce)
        if self.merger is not None:
            self.merger.join(max(0.0, end_s - self._clock.monotonic_s()))
        for thread in self._threads:
            thread.join(max(0.0, end_s - self._clock.monotonic_s()))
        for leased in self._queue.drain():
            self.give_back(leased.id, leased.nonce)
        self._pool.close()
        return self.settler.close(max(1.0, end_s - self._clock.monotonic_s()))
