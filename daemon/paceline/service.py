"""The daemon: scheduler and reaper of every destination, and the exporter, in one process."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import redis

from paceline.dispatch import Dispatcher
from paceline.lifecycle import Loop
from paceline.mover import Moved, Mover
from paceline.outbox import OutboxStore
from paceline.reaper import Reaped, Reaper
from paceline.scheduler import Scheduler, Turn
from paceline.scripts import Pinned, load_library
from paceline.settings import Destination
from paceline.shared_config import publish

if TYPE_CHECKING:
    from paceline.exporter.service import Exporter

Part = Literal["scheduler", "reaper"]

REAP_EVERY_S = 0.5
MOVE_EVERY_S = 1.0
#: Ids of jobs that expired unseen lie in RQ's queues until a worker pops them; where none does for
#: long, they are taken out this often.
PURGE_EVERY_S = 30.0
_JOIN_S = 8.0

log = logging.getLogger("paceline.daemon")


class DaemonService:
    """Runs parts of the daemon for all destinations until stopped.

    ``client`` is this process's own; it must not repeat commands. ``exporter`` is started and
    stopped with the rest; None for none.
    """

    def __init__(
        self,
        client: redis.Redis,
        destinations: Sequence[Destination],
        parts: Sequence[Part] = ("scheduler", "reaper"),
        exporter: Exporter | None = None,
    ) -> None:
        self._client = client
        self._destinations = destinations
        self._parts = parts
        self._exporter = exporter
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.stopping = threading.Event()
        self._loops: list[Loop[Any]] = []
        self._started: Sequence[Loop[Any]] | None = None

    def expose(self) -> None:
        """Starts the exporter, before all else: it can tell that Redis is not there yet.

        Raises AddressTaken.
        """
        if self._exporter is not None:
            self._exporter.start(lambda: self._started)

    def start(self) -> None:
        """Publishes the configuration, loads the function library, starts the loops.

        Raises ConfigMismatch, RedisError.
        """
        load_library(self._client)
        for destination in self._destinations:
            store = OutboxStore(self._client, destination.name)
            publish(store, destination)
            if "scheduler" in self._parts:
                self._loops.append(self._scheduler_loop(store, destination))
                if destination.fallback is not None:
                    self._loops.append(self._mover_loop(store, destination.fallback))
            if "reaper" in self._parts:
                self._loops.append(self._reaper_loop(store, destination))
        for loop in self._loops:
            loop.start()
        self._started = self._loops
        names = ", ".join(d.name for d in self._destinations)
        log.info("%s of %s started", " and ".join(self._parts), names, extra={"event": "started"})

    def stop(self) -> None:
        """Ends the loops, and the exporter last."""
        self.stopping.set()
        self._started = None
        for loop in self._loops:
            if not loop.join(_JOIN_S):
                log.warning("a loop did not end in %.0f s; leaving it", _JOIN_S)
        if self._exporter is not None:
            self._exporter.stop()
        log.info("%s stopped", " and ".join(self._parts), extra={"event": "stopped"})

    def _scheduler_loop(self, store: OutboxStore, destination: Destination) -> Loop[Any]:
        dispatcher = Dispatcher(self._client, destination.name)
        scheduler = Scheduler(store, dispatcher, destination.batch)
        purge_at_s = 0.0

        def step() -> Turn:
            nonlocal purge_at_s
            if time.monotonic() >= purge_at_s:
                purge_at_s = time.monotonic() + PURGE_EVERY_S
                dispatcher.purge_stale()
            return scheduler.run_once()

        return Loop(f"scheduler-{destination.name}", step, scheduler.wait, self.stopping)

    def _mover_loop(self, store: OutboxStore, to: str) -> Loop[Any]:
        mover = Mover(store, OutboxStore(self._client, to))

        def rest(_: Moved) -> None:
            self.stopping.wait(MOVE_EVERY_S)

        return Loop(f"mover-{store.destination}", mover.run_once, rest, self.stopping)

    def _reaper_loop(self, store: OutboxStore, destination: Destination) -> Loop[Any]:
        reaper = Reaper(store, Pinned(self._client), self._name)

        def step() -> Reaped:
            # A Redis that came back empty knows neither configuration nor functions.
            load_library(self._client)
            publish(store, destination)
            return reaper.run_once()

        def rest(_: Reaped) -> None:
            self.stopping.wait(REAP_EVERY_S)

        return Loop(f"reaper-{destination.name}", step, rest, self.stopping)
