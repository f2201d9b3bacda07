"""The stage: Redis, sink, daemon and workers, each a process of its own, in one folder.

Started in this order, daemon and workers at once; stopped the other way round: workers first, while
daemon and Redis still serve them, then the daemon, the sink, Redis. Whatever happens
in between, leaving the ``with`` block stops what still runs, in that order.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import redis

from paceline.connect import connect
from paceline.embedded import EmbeddedServer
from paceline.outbox import OutboxStore
from paceline.rehearsal.plan import (
    DESTINATION,
    PASSWORD_VARIABLE,
    USERNAME_VARIABLE,
    Plan,
    config_text,
    destination_of,
)
from paceline.rehearsal.processes import Part, PartFailed, cpu_s
from paceline.rehearsal.sink_client import SinkClient
from paceline.supervisor import PARENT_VARIABLE

_READY_S = 30.0
_LOOK_S = 0.05
_GRACE_S = 15.0


class Stage:
    """Everything that runs. ``folder`` exists and is empty. ``exits`` grows by the exit code of
    each process that was stopped. Raises PartFailed, EmbeddedServerError, OSError."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.folder = folder
        self.username, self.password = "rehearsal", secrets.token_urlsafe(16)
        self.exits: dict[str, int] = {}
        self.redis = EmbeddedServer(folder / "redis", appendfsync="always")
        self.destination = destination_of(plan)
        self._client: redis.Redis | None = None
        self.sink: SinkClient
        self.store: OutboxStore
        self._plan = plan
        self._sink: Part | None = None
        self._daemon: Part | None = None
        self._workers: list[Part] = []
        self._cpu_before: Mapping[str, float | None] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- starting ---------------------------------------------------------------------------

    def _start(self) -> None:
        url = self.redis.start()
        self._client = connect(url, name="paceline-rehearsal")
        self.store = OutboxStore(self._client, DESTINATION)
        self._start_sink()
        config = self.folder / "paceline.toml"
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(config_text(self._plan, url, self.sink.url))
        environ = self._environ(url)
        arguments = ["--config", str(config)]
        self._daemon = self._part("daemon", ["daemon", *arguments], environ)
        for number in range(1, self._plan.workers + 1):
            name = f"worker-{number}"
            self._workers.append(self._part(name, ["worker", DESTINATION, *arguments], environ))
        self._until(self._all_live, "announce itself in Redis, or the daemon did not,")
        self._cpu_before = self._cpu_now()

    def _start_sink(self) -> None:
        port_file = self.folder / "sink.port"
        arguments = ["sink", "--profile", "maxmd", "--port", "0", "--port-file", str(port_file)]
        arguments += ["--faults", self._plan.faults, "--latency", self._plan.latency]
        arguments += ["--seed", str(self._plan.seed)]
        arguments += ["--record", str(self.folder / "arrivals.jsonl")]
        environ = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        self._sink = self._part("sink", arguments, environ)
        self._until(port_file.exists, "listen")
        self.sink = SinkClient(port_file.read_text("utf-8").strip())

    def _environ(self, url: str) -> dict[str, str]:
        # Ours over whatever the caller's environment points to: a rehearsal must never touch it.
        return {
            **os.environ,
            "PACELINE_REDIS_URL": url,
            PARENT_VARIABLE: str(os.getpid()),
            USERNAME_VARIABLE: self.username,
            PASSWORD_VARIABLE: self.password,
        }

    def _part(self, name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Part:
        command = [sys.executable, "-m", "paceline", *arguments]
        return Part(name, command, environ, self.folder / f"{name}.log")

    def _all_live(self) -> bool:
        census = self.store.census()
        return census.daemons > 0 and sum(w.live for w in census.workers) == self._plan.workers

    def _until(self, ready: Callable[[], Any], what: str) -> None:
        end_s = time.monotonic() + _READY_S
        while not ready():
            self.check()
            if time.monotonic() > end_s:
                newest = self._parts()[0]
                raise PartFailed(
                    f"{newest.name} did not {what} within {_READY_S:.0f} s{newest.tail()}"
                )
            time.sleep(_LOOK_S)

    # -- running ----------------------------------------------------------------------------

    def _parts(self) -> list[Part]:
        """Those that run, newest first."""
        parts = [*self._workers, self._daemon, self._sink]
        return [part for part in parts if part is not None and part.name not in self.exits]

    def check(self) -> None:
        """Raises PartFailed when a process has ended by itself."""
        for part in self._parts():
            part.check()

    def _cpu_now(self) -> dict[str, float | None]:
        pids = {part.name: part.pid for part in self._parts() if part is not self._sink}
        return {name: cpu_s(pid) for name, pid in {**pids, "redis": self.redis.pid}.items()}

    def cpu_used_s(self) -> dict[str, float | None]:
        """CPU seconds by process since all were ready: start-up is not a message's cost. None
        where the system does not tell. The sink is no part of it."""
        used: dict[str, float | None] = {}
        for name, after in self._cpu_now().items():
            before = self._cpu_before.get(name)
            used[name] = None if after is None or before is None else after - before
        return used

    # -- stopping ---------------------------------------------------------------------------

    def stop_senders(self) -> None:
        """Workers, then the daemon."""
        self._stop(self._workers)
        self._stop([self._daemon])

    def close(self) -> None:
        """All that still runs, in order. A second call does nothing."""
        try:
            self.stop_senders()
            self._stop([self._sink])
        finally:
            if self._client is not None:
                self._client.close()
            self.redis.stop()

    def _stop(self, parts: Sequence[Part | None]) -> None:
        running = [part for part in parts if part is not None and part.name not in self.exits]
        for part in running:
            part.ask_to_stop()
        for part in running:
            self.exits[part.name] = part.await_end(_GRACE_S)
