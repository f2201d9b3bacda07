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
from redis.exceptions import OutOfMemoryError

from paceline.dispatch import Dispatcher
from paceline.errors import ConfigMismatch
from paceline.event_forwarder import EventForwarder, Forwarded
from paceline.lifecycle import Loop
from paceline.mover import Moved, Mover
from paceline.outbox import OutboxStore
from paceline.pressure import Limits
from paceline.reaper import Reaped, Reaper
from paceline.reloading import changed, check_destination
from paceline.scheduler import Scheduler, Turn
from paceline.scripts import Pinned, load_library
from paceline.settings import Destination, Events
from paceline.shared_config import confirm, publish, republish
from paceline.standing import Standing
from paceline.watch_intake import IntakeWatch

if TYPE_CHECKING:
    from paceline.exporter.service import Exporter

Part = Literal["scheduler", "reaper"]

REAP_EVERY_S = 0.5
MOVE_EVERY_S = 1.0
#: Ids of jobs that expired unseen lie in RQ's queues until a worker pops them; where none does for
#: long, they are taken out this often.
PURGE_EVERY_S = 30.0
_JOIN_S = 8.0
NO_LIMITS = Limits()

log = logging.getLogger("paceline.daemon")


class DaemonService:
    """Runs parts of the daemon for all destinations until stopped.

    ``client`` is this process's own; it must not repeat commands. ``exporter`` is started and
    stopped with the rest; None for none. ``limits`` are of all destinations of this Redis together.
    """

    def __init__(
        self,
        client: redis.Redis,
        destinations: Sequence[Destination],
        parts: Sequence[Part] = ("scheduler", "reaper"),
        exporter: Exporter | None = None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self._client = client
        self._destinations = destinations
        self._parts = parts
        self._exporter = exporter
        self._limits = limits
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.stopping = threading.Event()
        #: Ends the loops that run now: all of them at the end, or to be made anew.
        self._halt = threading.Event()
        self._loops: list[Loop[Any]] = []
        self._started: Sequence[Loop[Any]] | None = None
        self._changing = threading.Lock()
        self._unloaded = False

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
        self._load_library()
        for destination in self._destinations:
            publish(self._store(destination), destination)
        with self._changing:
            self._start_loops()
        names = ", ".join(d.name for d in self._destinations)
        log.info("%s of %s started", " and ".join(self._parts), names, extra={"event": "started"})

    def reload(self, destinations: Sequence[Destination], limits: Limits | None = None) -> str:
        """Goes on with these instead: publishes what changed, and makes the loops anew. Leases,
        workers and messages do not notice. Returns what changed, in words.

        Raises ConfigError (a key that cannot change), ConfigMismatch (a destination that is new
        here, and configured otherwise elsewhere), RedisError; everything goes on as before then.
        """
        with self._changing:
            before = {d.name: d for d in self._destinations}
            now = {d.name: d for d in destinations}
            for name in before.keys() & now.keys():
                check_destination(before[name], now[name])
            said = [f"{n} is gone" for n in before if n not in now]
            for name, destination in now.items():
                if name not in before:
                    publish(self._store(destination), destination)
                    said.append(f"{name} is new")
                elif keys := changed(before[name], destination):
                    republish(self._store(destination), before[name], destination)
                    said.append(f"{name}: {', '.join(keys)}")
            if limits is not None and limits != self._limits:
                self._limits = limits
                said.append("limits of [redis]")
            if said and not self.stopping.is_set():
                self._stop_loops()
                self._destinations = list(destinations)
                self._start_loops()
            return "; ".join(said) or "nothing changed"

    def ask_to_stop(self) -> None:
        """Lets the loops end after their turn; ``stop`` awaits them."""
        self.stopping.set()
        self._halt.set()

    def stop(self) -> None:
        """Ends the loops, and the exporter last."""
        self.ask_to_stop()
        with self._changing:
            ran = self._started is not None
            self._stop_loops()
        if ran:
            self._sign_off()
        if self._exporter is not None:
            self._exporter.stop()
        log.info("%s stopped", " and ".join(self._parts), extra={"event": "stopped"})

    def _sign_off(self) -> None:
        """So that who starts next, a newer version say, need not wait until we are forgotten."""
        try:
            for destination in self._destinations:
                self._store(destination).daemon_left(self._name)
        except redis.exceptions.RedisError as error:
            log.info("not signed off, which expires by itself: %s", error)

    def _load_library(self) -> None:
        """A full Redis takes no functions; intake waits for that, the rest does not."""
        try:
            load_library(self._client)
        except OutOfMemoryError as error:
            if not self._unloaded:
                self._unloaded = True
                extra = {"event": "library_refused", "cause": "OutOfMemoryError"}
                log.warning("intake's functions cannot be loaded: %s", error, extra=extra)
        else:
            self._unloaded = False

    def _store(self, destination: Destination) -> OutboxStore:
        return OutboxStore(self._client, destination.name)

    def _start_loops(self) -> None:
        self._halt = threading.Event()
        self._loops = []
        for destination in self._destinations:
            store = self._store(destination)
            if "scheduler" in self._parts:
                self._loops.append(self._scheduler_loop(store, destination))
                if destination.fallback is not None:
                    self._loops.append(self._mover_loop(store, destination.fallback))
                if destination.events.deliver_to is not None:
                    self._loops.append(self._forwarder_loop(store, destination.events))
            if "reaper" in self._parts:
                self._loops.append(self._reaper_loop(store, destination))
        if "reaper" in self._parts:
            self._loops.append(self._intake_loop())
        for loop in self._loops:
            loop.start()
        self._started = self._loops

    def _stop_loops(self) -> None:
        self._halt.set()
        self._started = None
        for loop in self._loops:
            if not loop.join(_JOIN_S):
                log.warning("a loop did not end in %.0f s; leaving it", _JOIN_S)

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

        return Loop(f"scheduler-{destination.name}", step, scheduler.wait, self._halt)

    def _mover_loop(self, store: OutboxStore, to: str) -> Loop[Any]:
        mover = Mover(store, OutboxStore(self._client, to))

        halt = self._halt

        def rest(_: Moved) -> None:
            halt.wait(MOVE_EVERY_S)

        return Loop(f"mover-{store.destination}", mover.run_once, rest, halt)

    def _forwarder_loop(self, store: OutboxStore, events: Events) -> Loop[Any]:
        assert events.deliver_to is not None
        forwarder = EventForwarder(store, OutboxStore(self._client, events.deliver_to), events)

        halt = self._halt

        def rest(turn: Forwarded) -> None:
            halt.wait(turn.next_s)

        return Loop(f"forwarder-{store.destination}", forwarder.run_once, rest, halt)

    def _intake_loop(self) -> Loop[Any]:
        stores = [self._store(destination) for destination in self._destinations]
        watch = IntakeWatch(self._client, stores, self._limits)
        halt = self._halt

        def rest(_: bool) -> None:
            halt.wait(REAP_EVERY_S)

        return Loop("intake", watch.run_once, rest, halt)

    def _reaper_loop(self, store: OutboxStore, destination: Destination) -> Loop[Any]:
        reaper = Reaper(store, Pinned(self._client), self._name)
        standing = Standing(log, time.monotonic)
        halt = self._halt

        def step() -> Reaped:
            # A Redis that came back empty knows neither configuration nor functions.
            self._load_library()
            try:
                confirm(store, destination)
            except ConfigMismatch as error:
                # Reaping is done by what is in force in Redis, and must not wait for a reload.
                reaper.run_once()
                standing.bad(error)
                raise
            standing.good(destination.name)
            return reaper.run_once()

        def rest(_: Reaped) -> None:
            halt.wait(REAP_EVERY_S)

        return Loop(f"reaper-{destination.name}", step, rest, halt)
