"""The wiring of one worker process: one destination, one pool, many batches.

Start: configuration confirmed in Redis → first heartbeat (a share of the connections) → sender
threads → RQ. Stop (SIGTERM): nothing more is taken, what is on the wire is finished, the rest goes
back untouched, all outcomes are settled, and only then the heartbeat ends and the slots are given
back. The second signal ends the process at once; leases do the rest.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paceline.clock import Clock
from paceline.connect import connect
from paceline.errors import ConfigError, ConfigProblem
from paceline.host import identity, memory_bytes
from paceline.names import LANES, Lane, client_name, queue_name
from paceline.outbox import OutboxStore
from paceline.scripts import Pinned
from paceline.settings import Destination
from paceline.shared_config import publish
from paceline.version import __version__
from paceline_workers import jobs
from paceline_workers.engine import Engine
from paceline_workers.heartbeat import Heartbeat
from paceline_workers.trace import WireTrace
from paceline_workers.worker import PacelineWorker

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
        self.destination = destination
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.stopping = threading.Event()
        self._clock = clock or Clock()
        label = client_name(self.name)
        self._client = connect(redis_url, name=label)
        self.store = OutboxStore(self._client, destination.name)
        self._facts_pin = Pinned(self._client)
        self.engine = Engine(
            destination,
            environ,
            self.store,
            worker=self.name,
            clock=self._clock,
            stopping=self.stopping,
            trace=_open_trace(trace_wire, destination.id_header),
        )
        self._rq = PacelineWorker(
            destination.name,
            [queue_name(destination.name, lane) for lane in LANES],
            connect=lambda: connect(redis_url, name=label),
            name=self.name,
            ready=self.engine.sender.is_open,
            stop_event=self.stopping,
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
            totals=self.engine.totals,
        )

    def run(self) -> int:
        """Works until ``stop`` is called. Returns how many outcomes could not be settled.

        Raises ConfigMismatch and RedisError at the start; later outages of Redis are outlived.
        """
        publish(self.store, self.destination)
        self._heartbeat.run_once()
        jobs.install(self.destination.name, self)
        self.engine.start()
        self._heartbeat.start()
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

    def take_batch(self, count: int, lane: Lane, invitation: str) -> int:
        """Carries an invitation out (jobs.Taker). Never raises for Redis."""
        return self.engine.take_batch(count, lane, invitation)

    def _facts(self) -> Mapping[str, Any]:
        return {
            **identity(),
            "version": __version__,
            "run_id": self._facts_pin.current_run_id(),
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
