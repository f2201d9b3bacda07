"""The wiring of one worker process: one destination, one engine at a time, many batches.

Start: configuration confirmed in Redis → first heartbeat (a share of the connections) → sender
threads → RQ. Stop (SIGTERM): nothing more is taken, what is on the wire is finished, the rest goes
back untouched, all outcomes are settled, and only then the heartbeat ends and the slots are given
back. The second signal ends the process at once; leases do the rest.

Reload (SIGHUP): where only the profile changed (credentials, what replies mean), it is replaced for
the next request. Where more did, the engine is: the old one stops in the same order, then the new
one begins, under the same name, with the same leases, heartbeat and registration. Connections of
the two are never open at once.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis.exceptions

from paceline.clock import Clock
from paceline.config_digest import digest
from paceline.connect import connect
from paceline.errors import ConfigError, ConfigProblem
from paceline.host import identity, memory_bytes
from paceline.names import LANES, Lane, client_name, queue_name
from paceline.outbox import OutboxStore
from paceline.reloading import changed, check_destination
from paceline.scripts import Pinned
from paceline.settings import Destination
from paceline.shared_config import publish, republish
from paceline.standing import Standing
from paceline.version import __version__
from paceline_workers import jobs
from paceline_workers.engine import Engine
from paceline_workers.heartbeat import Heartbeat
from paceline_workers.providers.registry import build
from paceline_workers.recall import Recall
from paceline_workers.recipe import recipe_of
from paceline_workers.trace import WireTrace
from paceline_workers.worker import PacelineWorker

_LOOK_S = 0.1
#: It becomes part of Redis keys and of the names in CLIENT LIST, which take no blanks.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = logging.getLogger("paceline.worker")


class WorkerRuntime:
    """One worker process of one destination.

    ``environ`` is where secrets named by the configuration are found. ``name`` is unique among
    live workers. ``trace_wire`` is a file for the moments at which requests start, see trace.py.
    Raises ConfigError (a secret is missing, a name or that file cannot be used) when built.
    """

    def __init__(
        self,
        destination: Destination,
        redis_url: str,
        environ: Mapping[str, str],
        *,
        name: str | None = None,
        clock: Clock | None = None,
        trace_wire: Path | None = None,
    ) -> None:
        if name is not None and not _NAME.fullmatch(name):
            raise ConfigError(
                [
                    ConfigProblem(
                        "--name",
                        f"{name!r} cannot name a worker",
                        "Use 1 to 128 letters, digits, dots, dashes and underscores",
                    )
                ],
                source="command line",
            )
        self._environ = environ
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.stopping = threading.Event()
        self._clock = clock or Clock()
        label = client_name(self.name)
        self._client = connect(redis_url, name=label)
        self.store = OutboxStore(self._client, destination.name)
        self._facts_pin = Pinned(self._client)
        self._trace = _open_trace(trace_wire, destination.id_header)
        self._standing = Standing(log, self._clock.monotonic_s)
        #: Totals of engines that are no more.
        self._past: Counter[str] = Counter()
        #: What any of them told Redis, which may come back without it.
        self._recall = Recall(self.store, self._clock.elapsed_s)
        #: Held while an invitation is carried out; and by a reload, so that none is.
        self._taking = threading.Lock()
        self._changing = threading.Lock()
        self._started = threading.Event()
        self.engine = self._make_engine(destination)
        self._rq = PacelineWorker(
            destination.name,
            [queue_name(destination.name, lane) for lane in LANES],
            connect=lambda: connect(redis_url, name=label),
            name=self.name,
            ready=lambda: self.engine.sender.is_open(),
            stop_event=self.stopping,
            seek=self._take_unanswered,
        )
        self._heartbeat = Heartbeat(
            self.store,
            self.name,
            self.engine.pool,
            self.engine.sender,
            self._facts,
            self._rq.nudge,
            period_s=destination.heartbeat_s,
            elapsed_s=self._clock.elapsed_s,
            totals=self._totals,
        )

    @property
    def destination(self) -> Destination:
        """Its configuration now."""
        return self.engine.destination

    def run(self) -> int:
        """Works until ``stop`` is called. Returns how many outcomes could not be settled.

        Raises ConfigMismatch and RedisError at the start; later outages of Redis are outlived.
        """
        publish(self.store, self.destination)
        self._heartbeat.run_once()
        jobs.install(self.destination.name, self)
        threading.Thread(target=self._pass_on_stop, name="stop-engine", daemon=True).start()
        self.engine.start()
        self._heartbeat.start()
        self._started.set()
        log.info(
            "worker %s of %s started",
            self.name,
            self.destination.name,
            extra={"event": "started", "worker": self.name},
        )
        try:
            self._rq.run()
        finally:
            self.stopping.set()
            with self._changing:
                self.engine.stopping.set()
                lost = self.engine.stop()
            jobs.uninstall(self.destination.name)
            self._heartbeat.stop()
            self.engine.close()
            if lost:
                log.error("stopped with %d outcomes unsettled: their leases run out", lost)
            log.info(
                "worker %s stopped", self.name, extra={"event": "stopped", "worker": self.name}
            )
        return lost

    def stop(self) -> None:
        """Asks ``run`` to end. May be called from a signal handler: on a thread of its own, for
        an Event cannot be set by a handler that interrupted its own thread waiting for it."""

        def ask() -> None:
            self.stopping.set()
            self._rq.nudge()

        threading.Thread(target=ask, name="stop", daemon=True).start()

    def _pass_on_stop(self) -> None:
        """Whoever sets ``stopping``, the engine's threads hear of it."""
        self.stopping.wait()
        self.engine.stopping.set()
        self._rq.nudge()

    def take_batch(self, count: int, lane: Lane, invitation: str) -> int:
        """Carries an invitation out (jobs.Taker). Never raises for Redis."""
        with self._taking:
            return self.engine.take_batch(count, lane, invitation)

    def _take_unanswered(self) -> bool:
        with self._taking:
            return self.engine.take_unanswered()

    # -- reload -----------------------------------------------------------------------------

    def reload(self, destination: Destination) -> str:
        """Goes on with this configuration, its secrets read anew. Returns what changed, in words.

        Waits for ``run`` to have begun. Raises ConfigError (a secret is missing, a key cannot
        change) and RedisError: everything goes on as before then.
        """
        while not self._started.wait(_LOOK_S):
            if self.stopping.is_set():
                return "it is stopping"
        with self._changing:
            if self.stopping.is_set():
                return "it is stopping"
            before = self.engine.destination
            check_destination(before, destination)
            profile = build(destination, self._environ, self._clock.wall_s)
            same = recipe_of(destination, self._environ) == self.engine.recipe
            # Built before anything is touched: what is wrong with it is found now.
            engine = None if same else self._make_engine(destination)
            republish(self.store, before, destination)
            if engine is None:
                self.engine.replace_profile(destination, profile)
            else:
                self._replace_engine(engine)
        keys = ", ".join(changed(before, destination)) or "no key"
        how = "for the next request" if engine is None else "with new connections"
        return f"{keys} changed, secrets were read anew; {how}"

    def _replace_engine(self, new: Engine) -> None:
        old = self.engine
        old.stopping.set()
        with self._taking:
            # Beats go on meanwhile: what is on the wire keeps its lease.
            old.await_quiet(self.stopping)
            lost = old.stop()
            if lost:
                log.error("reloaded with %d outcomes unsettled: their leases run out", lost)
            if old.pool.open_connections:
                # A thread that outlived every deadline. No more may be opened beside it.
                log.error("a request does not end: stopping, to be started again with all new")
                self.stopping.set()
                return

            def exchange() -> None:
                self._past.update(old.totals())
                self.engine = new

            self._heartbeat.take_over(new.pool, new.sender, exchange)
            new.start()
        old.close()
        if self.stopping.is_set():
            new.stopping.set()
        try:
            self._heartbeat.run_once()
        except redis.exceptions.RedisError as error:
            log.warning("reload: connections come with the next heartbeat: %s", error)
        self._rq.nudge()

    # -- wiring -----------------------------------------------------------------------------

    def _make_engine(self, destination: Destination) -> Engine:
        return Engine(
            destination,
            self._environ,
            self.store,
            worker=self.name,
            clock=self._clock,
            recall=self._recall,
            trace=self._trace,
        )

    def _totals(self) -> Mapping[str, int]:
        return self._past + Counter(self.engine.totals())

    def _facts(self) -> Mapping[str, Any]:
        destination = self.engine.destination
        run_id = self._facts_pin.current_run_id()
        # One that has nothing to send would not notice a restart of Redis.
        self._recall.look(run_id)
        return {
            **identity(),
            "config": digest(destination),
            "config_stale": self._standing.look(self.store, destination),
            "version": __version__,
            "run_id": run_id,
            "memory_bytes": memory_bytes(),
            **self.engine.facts(),
        }


def _open_trace(path: Path | None, id_header: str) -> WireTrace | None:
    if path is None:
        return None
    try:
        return WireTrace(path, id_header)
    except OSError as error:
        raise ConfigError(
            [
                ConfigProblem(
                    "--trace-wire",
                    f"cannot open {path}: {error.strerror}",
                    "Give a file in a folder that can be written",
                )
            ],
            source="command line",
        ) from error
