"""One simulated worker process: real take, gate, exchange, heartbeat and RQ bookkeeping; simulated
threads, connections and provider.

What is simulated follows ``paceline_workers.sender``, ``pending`` and ``transports.pool``: a
quarter of a second of the rate in the queue, a connection a busy thread, an outcome told with the
next ask.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from math import ceil
from typing import TYPE_CHECKING, Any

from paceline.answers import Leased, Permit, Settlement
from paceline.host import identity, memory_bytes
from paceline.names import LANES, Lane, queue_name
from paceline.outbox import new_nonce
from paceline_workers import jobs
from paceline_workers.exchange import Exchange
from paceline_workers.gate import CalledOff, WireGate
from paceline_workers.heartbeat import Heartbeat
from paceline_workers.outcome import Outcome, dispose
from paceline_workers.sender import QUEUE_S
from paceline_workers.settler import GATHER_S, MOST_IN_ONE_CALL
from paceline_workers.taker import HIGH_EVERY_S
from paceline_workers.transports.adapter import STALE_PERMIT_S
from paceline_workers.worker import PacelineWorker
from simulation.kernel import Kernel, Process

if TYPE_CHECKING:
    from simulation.stage import Place, Stage

_NOT_READY_US = 100_000
_POP_US = 1_000_000
_RQ_BEAT_US = 5_000_000
_CLOSED_US = 1_000_000
_CONNECT_US = 5_000
#: Between the last look at the permit's age and the first byte.
_WRITE_US = (20, 500)
_IDLE_US = 20_000_000


class Worker:
    """A worker process of one destination on one host. Stands for the settler and the sender, too,
    where real code asks for them."""

    def __init__(self, stage: Stage, place: Place, host: int, number: int) -> None:
        self.stage, self.place, self.host = stage, place, host
        self.kernel = stage.kernel
        self.exchange = Exchange(place.store, stage.pinned, stage.clock.elapsed_s)
        self.name = f"host{host:03}-{number:05}"
        self.lines = Lines(self)
        self._rank = {"high": 0, "normal": 1, "bulk": 2}
        self._order = count()
        self.queue: list[tuple[int, int, Leased]] = []
        self._capacity = max(1, ceil(place.to.rate * QUEUE_S))
        self._feeding: Iterator[Leased] | None = None
        self._high_at_us = 0
        self._batches: dict[str, set[str]] = {}
        self._closed_until_us = 0
        self._settling: list[Settlement] = []
        self._gathering = False
        self._rq = PacelineWorker(
            place.to.name,
            [queue_name(place.to.name, lane) for lane in LANES],
            connect=lambda: stage.client,
            name=self.name,
            ready=lambda: True,
            stop_event=stage.stopping,
        )
        self._heartbeat = Heartbeat(
            place.store,
            self.name,
            self.lines,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self._facts,
            lambda: None,
            period_s=place.to.heartbeat_s,
            elapsed_s=stage.clock.elapsed_s,
        )

    def start(self) -> None:
        """First heartbeat at once, then each at its own time."""
        self._heartbeat.run_once()
        self._rq.register_birth()
        kernel, spread = self.kernel, self.stage.rand.random
        period_us = self.place.to.heartbeat_s * 1e6
        kernel.every(period_us, self._heartbeat.run_once, self.host, spread() * period_us)
        kernel.every(_RQ_BEAT_US, self._rq._register, self.host, spread() * _RQ_BEAT_US)
        kernel.after(spread() * 1e5, self.look, self.host)

    # -- the RQ side ------------------------------------------------------------------------

    def look(self) -> None:
        """The loop of the RQ worker: ready? an invitation? wait for one."""
        if self._feeding is not None:
            return
        if not self.lines.limit or self.kernel.now_us < self._closed_until_us:
            self.kernel.after(_NOT_READY_US, self.look, self.host)
        elif self.place.invitations:
            self.place.invitations -= 1
            self.stage.takers[self.place.to.name] = self
            popped = self._rq._pop()
            if popped is not None:
                self._rq.execute_job(*popped)
            if self._feeding is None:
                self.kernel.after(0, self.look, self.host)
        else:
            # A BLPOP that nothing ends; this one answers at once and costs Redis about the same.
            self.stage.client.lpop(self._rq.queue_keys()[0])
            self.place.wait_for_invitation(self)

    def invited(self) -> None:
        """Ends the wait: an invitation came, or a second is over."""
        self.kernel.after(self.stage.rtt_us / 2, self.look, self.host)

    def take_batch(self, wanted: int, lane: Lane, invitation: str) -> int:
        """Called by the real job."""
        leased = self._take(wanted, lane, invitation)
        if leased is not None:
            self._feeding = leased
            self.kernel.after(0, self._feed, self.host)
        return 0

    def _take(self, wanted: int, lane: Lane, invitation: str) -> Iterator[Leased] | None:
        taken = self.place.store.take(self.name, new_nonce(), wanted, lane, invitation)
        self.place.takes[taken.status if taken.sizes else taken.status + " of none"] += 1
        if not taken.sizes:
            return None
        self._batches[taken.nonce] = set(taken.sizes)
        return self.place.store.fetch(taken)

    def _feed(self) -> None:
        """From the batch into the queue as room comes; high ones are looked for meanwhile."""
        if self._feeding is None:
            return
        if self.kernel.now_us >= self._high_at_us:
            self._high_at_us = self.kernel.now_us + round(HIGH_EVERY_S * 1e6)
            for urgent in self._take(self._capacity, "high", "") or ():
                self._enqueue(urgent)
            self.kernel.after(HIGH_EVERY_S * 1e6, self._feed, self.host)
        while len(self.queue) < self._capacity:
            leased = next(self._feeding, None)
            if leased is None:
                self._feeding = None
                self.kernel.after(0, self.look, self.host)
                break
            self._enqueue(leased)
        self.lines.deal()

    def _enqueue(self, leased: Leased) -> None:
        heapq.heappush(self.queue, (self._rank[leased.head.priority], next(self._order), leased))

    def next_message(self) -> Leased | None:
        """The most urgent of the queue, None where it is empty."""
        if not self.queue:
            return None
        leased = heapq.heappop(self.queue)[2]
        # As PendingQueue does: who waits for room is woken when there is room for several.
        if self._feeding is not None and len(self.queue) <= self._capacity // 2:
            self.kernel.after(0, self._feed, self.host)
        return leased

    # -- outcomes: the settler's side, as gate and exchange see it ---------------------------

    def accepted(self, settlements: Sequence[Settlement], words: Sequence[str]) -> None:
        """Redis has them."""
        for settlement, word in zip(settlements, words, strict=True):
            self.place.words[f"{settlement.action} {word}"] += 1
            self.forget_message(settlement)

    def put(self, settlement: Settlement) -> None:
        """What goes beside the gate: gathered with others."""
        self._settling.append(settlement)
        if len(self._settling) == 1:
            self.kernel.after(GATHER_S * 1e6, self._flush, self.host)

    def _flush(self) -> None:
        piece = self._settling[:MOST_IN_ONE_CALL]
        del self._settling[: len(piece)]
        if self._settling:
            self.kernel.after(self.stage.rtt_us, self._flush, self.host)
        self.accepted(piece, self.place.store.settle(piece))

    def forget_message(self, it: Settlement | Leased) -> None:
        """It is off this worker's hands."""
        batch = self._batches.get(it.nonce)
        if batch is not None:
            batch.discard(it.id)
            if not batch:
                del self._batches[it.nonce]

    def close_down(self) -> None:
        """The destination is closed: all that was not begun goes back."""
        self._closed_until_us = self.kernel.now_us + _CLOSED_US
        rest = [leased for _, _, leased in self.queue] + list(self._feeding or ())
        self.queue.clear()
        was_feeding, self._feeding = self._feeding is not None, None
        for leased in rest:
            self.give_back(leased)
        if was_feeding:
            self.kernel.after(0, self.look, self.host)

    def give_back(self, leased: Leased) -> None:
        """To its old place, untouched."""
        self.put(Settlement(id=leased.id, nonce=leased.nonce, action="back"))

    # -- what the heartbeat asks of the sender ----------------------------------------------

    def nonces_to_renew(self) -> list[str]:
        """Batches with unsettled messages."""
        return list(self._batches)

    def tend(self, rate: float) -> None:
        """The rate may have changed, and with it what the queue holds."""
        part = min(1.0, self.lines.limit / max(1, self.place.to.effective_connections))
        self._capacity = max(1, ceil(rate * part * QUEUE_S))

    def lost(self, nonces: Iterable[str]) -> None:
        """Leased to others by now."""
        for nonce in nonces:
            self._batches.pop(nonce, None)
            self.place.lost_batches += 1

    def _facts(self) -> dict[str, Any]:
        """As large as a real worker's, with the round trip that it makes."""
        return {
            **identity(),
            "version": "0",
            "run_id": self.stage.pinned.current_run_id(),
            "memory_bytes": memory_bytes(),
            "connections": self.lines.open_connections,
            "connection_counts": {"opened": 1, "reused": 1, "closed:idle": 1},
            "queued": len(self.queue),
            "in_flight": self.lines.busy,
            "unsettled": len(self._settling),
        }


class Lines:
    """The worker's connections, each with the thread that uses it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.limit = 0
        self.open_connections = 0
        self.busy = 0
        self._idle: deque[Line] = deque()

    def set_limit(self, limit: int) -> None:
        """A new share: idle ones over it are closed at once."""
        self.limit = limit
        while self._idle and self.open_connections > limit:
            self._close(self._idle.popleft())
        self.deal()

    def trim(self) -> None:
        """Closes those that lay idle for long."""
        while self._idle and self._worker.kernel.now_us - self._idle[0].idle_since_us > _IDLE_US:
            self._close(self._idle.popleft())

    def deal(self) -> None:
        """Messages of the queue to free connections."""
        while self._worker.queue and self.busy < self.limit:
            if self._idle:
                line = self._idle.pop()
            elif self.open_connections < self.limit:
                line = Line(self._worker, self)
                self.open_connections += 1
                self._worker.place.note_connections(1)
            else:
                return
            leased = self._worker.next_message()
            assert leased is not None
            self.busy += 1
            line.carry(leased)

    def may_stay(self) -> bool:
        """Whether a busy line may take the next message at once."""
        return self.open_connections <= self.limit

    def done(self, line: Line) -> None:
        """Nothing is under way on that line."""
        self.busy -= 1
        line.idle_since_us = self._worker.kernel.now_us
        if self.open_connections > self.limit:
            self._close(line)
        else:
            self._idle.append(line)
        self.deal()

    def _close(self, line: Line) -> None:
        self.open_connections -= 1
        self._worker.place.note_connections(-1)
        line.hang_up()


class Baton:
    """What a thread waits with while another speaks for it (``exchange.Turn``), on the fake
    clock."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waits: Process | None = None
        self._there = False

    def acquire(self) -> None:
        """Waits for ``release``."""
        if not self._there:
            self._waits = self._kernel.current
            self._kernel.park()
        self._there = False

    def release(self) -> None:
        """Lets who waits, or comes, go on."""
        if self._waits is not None:
            self._kernel.wake(self._waits)
            self._waits = None
        else:
            self._there = True


class Line:
    """One connection: message after message, as ``Delivery`` and ``GatedAdapter`` do it."""

    def __init__(self, worker: Worker, lines: Lines) -> None:
        self._worker, self._lines = worker, lines
        self._leased: Leased | None = None
        self._over = False
        self.idle_since_us = 0
        stage = worker.stage
        self._gate = WireGate(
            worker.exchange,
            worker,  # type: ignore[arg-type]
            stage.clock,
            stage.patience,
        )
        self._gate._turn.baton = Baton(worker.kernel)  # type: ignore[assignment]
        self._process = worker.kernel.spawn(self._run, worker.host)
        #: The provider's when it accepted this connection; None: there is none.
        self._epoch: int | None = None
        self._parked = False

    def carry(self, leased: Leased) -> None:
        """The next message."""
        self._leased = leased
        self._wake()

    def hang_up(self) -> None:
        """The end of it."""
        self._over = True
        self._wake()

    def _wake(self) -> None:
        if self._parked:
            self._parked = False
            self._worker.kernel.wake(self._process)

    def _run(self) -> None:
        while not self._over:
            if self._leased is None:
                self._parked = True
                self._worker.kernel.park()
                continue
            leased: Leased | None = self._leased
            self._leased = None
            while leased is not None:
                self._deliver(leased)
                leased = self._worker.next_message() if self._lines.may_stay() else None
            # The last outcome does not wait for a message that may never come.
            self._gate.flush()
            self._lines.done(self)

    def _deliver(self, leased: Leased) -> None:
        worker, stage = self._worker, self._worker.stage
        kernel, place = worker.kernel, worker.place
        refused = self._connect()
        if refused is not None:
            self._tell(leased, refused, None, None)
            return
        try:
            permit, due_s = self._gate.await_permit(leased)
            while stage.clock.elapsed_s() - due_s > STALE_PERMIT_S:
                place.words["permit stale"] += 1
                permit, due_s = self._gate.await_permit(leased)
        except CalledOff as off:
            place.words[f"called off {off.verdict}"] += 1
            if off.verdict == "gone":
                worker.forget_message(leased)
            else:
                worker.give_back(leased)
                worker.close_down()
            return
        stage.about_to_write(worker.host)
        kernel.sleep(stage.rand.uniform(*_WRITE_US))
        place.wire(worker.host)
        written_us = kernel.now_us
        outcome = place.provider.answer()
        self._tell(leased, outcome, permit, (kernel.now_us - written_us) / 1e6)

    def _connect(self) -> Outcome | None:
        """What hinders a connection; None where it stands. One that the provider dropped while it
        lay idle is found dead before a byte is written."""
        provider = self._worker.place.provider
        if self._epoch == provider.epoch:
            return None
        # As the adapter does: connecting may take long, and what is told last would wait for it.
        self._gate.flush()
        self._worker.kernel.sleep(_CONNECT_US)
        failed = provider.connects()
        self._epoch = None if failed else provider.epoch
        return failed

    def _tell(
        self, leased: Leased, outcome: Outcome, permit: Permit | None, latency_s: float | None
    ) -> None:
        """An outcome, as ``Delivery`` puts it. No ``permit``: nothing was begun."""
        worker, stage, place = self._worker, self._worker.stage, self._worker.place
        decision = dispose(outcome, leased.head.tries, place.to.retry, stage.rand.random())
        sent = decision.action == "sent"
        if not sent:
            place.failures[leased.id] += 1
        settlement = Settlement(
            id=leased.id,
            nonce=leased.nonce,
            action=decision.action,
            charge=decision.charge,
            delay_s=decision.delay_s,
            why=decision.reason,
            record={
                "outcome": str(outcome.kind), "action": decision.action, "reason": decision.reason,
                "status": outcome.status, "attempt": permit.attempt if permit else 0,
                "at_us": str(permit.begun_us if permit else worker.kernel.now_us),
                "worker": worker.name, "nonce": leased.nonce,
                "latency_ms": None if latency_s is None else latency_s * 1e3,
            },
            sha1=hashlib.sha1(leased.payload, usedforsecurity=False).digest() if sent else b"",
            latency_s=latency_s,
            label=f"{outcome.kind}:{outcome.status or 'none'}",
            begun_us=permit.begun_us if permit else 0,
            health=outcome.health,
        )  # fmt: skip
        self._gate.carry(settlement)
        if decision.action in ("throttled", "quota", "held"):
            self._gate.flush()
            worker.close_down()


def install(stage: Stage, destination: str) -> None:
    """The real job asks whoever popped it."""

    class Taker:
        def take_batch(self, count: int, lane: Lane, invitation: str) -> int:
            return stage.takers[destination].take_batch(count, lane, invitation)

    jobs.install(destination, Taker())
