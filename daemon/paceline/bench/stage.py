"""One server of its own, with Paceline's contestants on it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

import redis

from paceline.bench.child import Told, run_child
from paceline.bench.cpu import redis_s
from paceline.bench.lines import HTTP, Dialect, Line
from paceline.bench.plan import BURST, RATE, Fsync
from paceline.connect import connect
from paceline.embedded import EmbeddedServer
from paceline.rehearsal.processes import Part

_LOOK_S, _GRACE_S = 0.1, 15.0
#: Where RQ alone keeps its keys: Paceline's invitations are RQ jobs too, in database 0.
_RQ_DATABASE = 1


@dataclass(frozen=True, slots=True)
class Mark:
    """CPU seconds used up to a moment."""

    daemon_s: float
    workers_s: float
    redis_s: float

    def __sub__(self, before: Mark) -> Mark:
        return Mark(
            self.daemon_s - before.daemon_s,
            self.workers_s - before.workers_s,
            self.redis_s - before.redis_s,
        )


class BenchStage:
    """Started by ``with``; ``lines`` by name. ``workers`` maps each contestant's name to its number
    of workers; ``most`` is how many messages an outbox must hold; ``dialects`` are of those that
    speak otherwise than ``dialect``. Raises EmbeddedServerError, PartFailed, BenchFailed,
    RedisError, OSError."""

    def __init__(
        self,
        folder: Path,
        fsync: Fsync,
        sink_url: str,
        workers: Mapping[str, int],
        *,
        rate: float = RATE,
        burst: int = BURST,
        most: int = 1_000_000,
        dialect: Dialect = HTTP,
        dialects: Mapping[str, Dialect] = MappingProxyType({}),
    ) -> None:
        self.fsync = fsync
        self.lines: dict[str, Line] = {}
        self._server = EmbeddedServer(folder / "redis", appendfsync=fsync)
        self._folder = folder
        self._sink_url = sink_url
        self._workers = workers
        self._rate = rate
        self._burst = burst
        self._most = most
        self._dialect = dialect
        self._dialects = dialects

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=0o700, parents=True)
        try:
            self.url = self._server.start()
            # Time enough for a server that is flushing half a million messages to its disk.
            self.client = connect(self.url, name="paceline-bench", timeout_s=30.0)
            for name, workers in self._workers.items():
                dialect = self._dialects.get(name, self._dialect)
                line = Line(
                    name, workers, self._rate, self._burst, self._folder, self.client, dialect
                )
                self.lines[name] = line
                line.start(self.url, self._sink_url, self._most)
            for line in self.lines.values():
                line.ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            lines = self.lines.values()
            _stop([part for line in lines for part in line.workers])
            _stop([part for line in lines for part in line.daemons])
        finally:
            self._server.stop()

    @property
    def rq_url(self) -> str:
        """The same server, another database."""
        return self.url.rpartition("/")[0] + f"/{_RQ_DATABASE}"

    def forget_rq(self) -> None:
        """Empties RQ's database: job results would pile up."""
        with connect(self.rq_url) as client:
            client.flushdb()

    def mark(self, line: Line) -> Mark:
        """What has been used so far. Raises BenchFailed, RedisError."""
        return Mark(*line.cpu_s(), redis_s(self.client))

    def redis_s(self) -> float:
        """CPU seconds that Redis has used."""
        return redis_s(self.client)

    def fill(self, line: Line, prefix: str, count: int) -> Told:
        """Hands ``count`` messages over, from a process of its own. Raises BenchFailed."""
        return run_child("producer", self.url, line.name, prefix, count)

    def memory(self) -> int:
        """Bytes that Redis uses for data: connections' and append-only file's buffers come and go
        with what happens to be under way."""
        info = self.client.info("memory")
        return (
            int(info["used_memory"])
            - int(info.get("mem_clients_normal", 0))
            - int(info.get("mem_aof_buffer", 0))
        )

    def settle(self) -> None:
        """Waits until Redis rewrites its append-only file no more: that is work for the past."""
        while True:
            info = self.client.info("persistence")
            if not (info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"]):
                return
            time.sleep(_LOOK_S)


def _stop(parts: Sequence[Part]) -> None:
    for part in parts:
        part.ask_to_stop()
    for part in parts:
        part.await_end(_GRACE_S)


def server_name(client: redis.Redis) -> str:
    """``Valkey 9.1.0`` or ``Redis 8.0.0``. Raises RedisError."""
    info = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"
