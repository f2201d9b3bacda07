"""One simulation: Redis, the clock, destinations, daemons, exporters, producers, hosts."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.exceptions import ResponseError

from paceline.answers import Permit, Settlement
from paceline.clock import Clock
from paceline.connect import connect
from paceline.dispatch import Dispatcher
from paceline.embedded import EmbeddedServer
from paceline.message import Message
from paceline.names import Lane
from paceline.outbox import OutboxStore
from paceline.reaper import Reaper
from paceline.scheduler import Scheduler
from paceline.scripts import Pinned, load_library
from paceline.service import PURGE_EVERY_S, REAP_EVERY_S
from paceline.settings import Destination
from paceline.shared_config import publish
from simulation.kernel import Kernel
from simulation.meter import Meter
from simulation.provider import Provider
from simulation.scene import Scene
from simulation.worker import Worker, install

START_US = 1_900_000_000_000_000
_PRODUCE_US = 500_000
_EXPORT_US = 15_000_000
_FREEZE_US = 5_000_000
_TOGETHER = 500
_THREAD_STACK = 256 * 1024
_LOOK_UP_US = 50_000


class _Patience(threading.Event):
    """The gate's ``stopping``: it waits on the fake clock, and is never set."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self._kernel = kernel

    def wait(self, timeout: float | None = None) -> bool:
        self._kernel.sleep((timeout or 0.0) * 1e6)
        return False


class Store(OutboxStore):
    """The outbox on the fake clock; a gate's call takes a round trip."""

    def __init__(self, stage: Stage, destination: str) -> None:
        super().__init__(stage.client, destination, now_us=lambda: stage.kernel.now_us)
        self._stage = stage
        self.place: Place | None = None

    def turn(
        self,
        gate: Pinned,
        settlements: Sequence[Settlement],
        asks: Sequence[tuple[str, str, int]],
    ) -> tuple[list[str] | ResponseError, list[Permit] | ResponseError]:
        self._stage.kernel.sleep(self._stage.rtt_us / 2)
        replies = super().turn(gate, settlements, asks)
        self._stage.kernel.sleep(self._stage.rtt_us / 2)
        return replies

    def wait_for_work(self, timeout_s: float) -> bool:
        assert self.place is not None
        return self.place.wait_for_work(timeout_s)


class Place:
    """One destination: its outbox, and what was seen of it."""

    def __init__(self, stage: Stage, to: Destination) -> None:
        self.stage, self.to = stage, to
        self.store = Store(stage, to.name)
        self.store.place = self
        self.produced = 0
        self.invitations = 0
        self.starts_us: list[int] = []
        self.starts_by_host: Counter[int] = Counter()
        self.connections = self.most_connections = 0
        self.provider = Provider(
            stage.kernel, stage.rand, stage.scene.latency_ms, to.read_timeout_s
        )
        #: Attempts that did not end in "sent", by message.
        self.failures: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.takes: Counter[str] = Counter()
        self.lost_batches = 0
        self._waiting: deque[Worker] = deque()
        self._news = False

    # -- what a worker waits for, as BLPOP does: first come, first served -------------------

    def wait_for_invitation(self, worker: Worker) -> None:
        """At most a second."""
        self._waiting.append(worker)

        def timed_out() -> None:
            if worker in self._waiting:
                self._waiting.remove(worker)
                worker.look()

        self.stage.kernel.after(1_000_000, timed_out, worker.host)

    def invite(self, invitation_id: str, count: int, lane: Lane, ttl_s: float) -> None:
        """The scheduler's inviter: the real one, whose jobs' lives are measured by Redis's own
        clock, which is slow here."""
        self._dispatcher.invite(invitation_id, count, lane, ttl_s * 1000)
        self.invitations += 1
        if self._waiting:
            self._waiting.popleft().invited()

    # -- what a scheduler waits for ---------------------------------------------------------

    def wait_for_work(self, timeout_s: float) -> bool:
        kernel = self.stage.kernel
        end_us = kernel.now_us + round(timeout_s * 1e6)
        while True:
            self._news = False
            if self.stage.client.lpop(f"{self.store.tag}:wake") is not None:
                return True
            while not self._news:
                left_us = end_us - kernel.now_us
                if left_us <= 0:
                    return False
                kernel.sleep(min(left_us, _LOOK_UP_US))

    # -- what is noted ----------------------------------------------------------------------

    def wire(self, host: int) -> None:
        """A request starts now."""
        self.starts_us.append(self.stage.kernel.now_us)
        self.starts_by_host[host] += 1

    def note_connections(self, more: int) -> None:
        """Opened or closed."""
        self.connections += more
        self.most_connections = max(self.most_connections, self.connections)

    # -- the daemon's side ------------------------------------------------------------------

    def start_daemon(self, name: str) -> None:
        """Scheduler and reaper, as ``paceline.service`` runs them."""
        kernel, rand = self.stage.kernel, self.stage.rand
        self._dispatcher = Dispatcher(self.stage.client, self.to.name)
        scheduler = Scheduler(self.store, self, self.to.batch, new_id=self.stage.new_id)
        reaper = Reaper(self.store, self.stage.pinned, name, dead_here=lambda _: False)

        def schedule() -> None:
            while True:
                scheduler.wait(scheduler.run_once())

        def reap() -> None:
            load_library(self.stage.client)
            publish(self.store, self.to)
            reaper.run_once()

        kernel.spawn(schedule, None, rand.random() * 1e5)
        kernel.every(REAP_EVERY_S * 1e6, reap, None, rand.random() * REAP_EVERY_S * 1e6)
        kernel.every(PURGE_EVERY_S * 1e6, self._dispatcher.purge_stale, None, 0)

    def produce(self, count: int) -> None:
        """More messages."""
        body = b'{"text": "' + b"y" * (self.stage.scene.payload_bytes - 12) + b'"}'
        end = self.produced + count
        for first in range(self.produced, end, _TOGETHER):
            answers = self.store.enqueue_many(
                [
                    Message(destination=self.to.name, id=f"m-{n}", payload=body)
                    for n in range(first, min(first + _TOGETHER, end))
                ]
            )
            assert set(answers) <= {"new"}, answers
        self.produced = end
        self._news = True


@dataclass
class Stage:
    """A scene on a Redis of its own; ``with`` starts and ends it."""

    scene: Scene
    folder: Path

    def __enter__(self) -> Self:
        threading.stack_size(_THREAD_STACK)
        self.server = EmbeddedServer(self.folder, appendfsync="everysec", unix_socket=False)
        self.server.start()
        self.client: redis.Redis = connect(self.server.url, timeout_s=30)
        self.meter = Meter(connect(self.server.url, timeout_s=30)).__enter__()
        self.kernel = Kernel(START_US)
        self.rand = random.Random(self.scene.seed)
        self.pinned = Pinned(self.client)
        self.stopping = threading.Event()
        self.patience = _Patience(self.kernel)
        self.rtt_us = self.scene.round_trip_ms * 1e3
        self.takers: dict[str, Worker] = {}
        self._to_freeze: set[int] = set()
        self.frozen = 0
        us = 1e-6

        def now_s() -> float:
            return self.kernel.now_us * us

        self.clock = Clock(now_s, now_s, now_s)
        self._set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.kernel.close()
        self.meter.__exit__(None, None, None)
        self.server.stop()
        threading.stack_size(0)

    def new_id(self) -> str:
        """An invitation's id."""
        return f"{self.rand.getrandbits(64):016x}"

    def _set(self) -> None:
        scene, kernel = self.scene, self.kernel
        load_library(self.client)
        self.places = [Place(self, scene.destination(n)) for n in range(scene.destinations)]
        for place in self.places:
            publish(place.store, place.to)
            install(self, place.to.name)
        for n in range(scene.daemons):
            for place in self.places:
                place.start_daemon(f"daemon-{n}")
        self.workers: list[Worker] = []
        for d, place in enumerate(self.places):
            for n in range(scene.workers_each):
                host = (d * scene.workers_each + n) % scene.hosts
                self.workers.append(Worker(self, place, host, len(self.workers)))
        for worker in self.workers:
            kernel.after(self.rand.random() * 1e6, worker.start, worker.host)
        for place in self.places:
            if scene.load == "backlog":
                self._keep_backlog(place)
            if scene.queued:
                place.produce(scene.queued)
            for _ in range(scene.exporters):
                kernel.every(_EXPORT_US, place.store.census, None, self.rand.random() * _EXPORT_US)
        for _ in range(scene.freezes):
            host = self.rand.randrange(scene.hosts)
            at_us = (scene.warm_s + self.rand.uniform(0, max(0, scene.seconds - 5))) * 1e6
            kernel.after(at_us, partial(self._to_freeze.add, host))

    def _keep_backlog(self, place: Place) -> None:
        """Two seconds of the rate, and a burst; after a quiet spell, if there is one, before which
        some are sent, for a bucket that was never drawn from starts empty."""
        step = max(1, round(self.scene.rate * _PRODUCE_US / 1e6))
        first_us = 0.0
        if self.scene.quiet_s:
            first_us = self.scene.warm_s * 1e6
            place.produce(step)
        self.kernel.after(first_us, lambda: place.produce(step * 4 + self.scene.burst))
        self.kernel.every(_PRODUCE_US, lambda: place.produce(step), None, first_us + _PRODUCE_US)

    def about_to_write(self, host: int) -> None:
        """A thread of that host holds a permit and will not look at the clock again."""
        if host in self._to_freeze:
            self._to_freeze.discard(host)
            self.frozen += 1
            self.kernel.freeze(host, _FREEZE_US)
