"""One contestant that is Paceline: a destination with a daemon and workers of its own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis

from paceline.bench.child import BenchFailed
from paceline.bench.cpu import used_s
from paceline.bench.plan import BURST, CONNECTIONS
from paceline.outbox import OutboxStore
from paceline.rehearsal.processes import Part
from paceline.supervisor import PARENT_VARIABLE

_READY_S, _LOOK_S = 30.0, 0.05
#: How long a drain may take for each thousand messages, and at least.
_DRAIN_S, _DRAIN_LEAST_S = 30.0, 60.0
#: Between two looks at the outbox: a look costs Redis 0.1 ms, and the last one tells the time.
_LOOK_FIRST_S, _LOOK_LEAST_S, _LOOK_MOST_S = 0.02, 0.005, 0.25


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a destination speaks to the sink: its provider, more lines of its table (TOML), and the
    environment variables that they name."""

    provider: str = "http"
    more: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


HTTP = Dialect()


class Line:
    """``start`` it, and ``ready`` waits for it; who started it stops ``daemons`` and ``workers``.
    Raises PartFailed, OSError."""

    def __init__(
        self,
        name: str,
        workers: int,
        rate: float,
        burst: int,
        folder: Path,
        client: redis.Redis,
        dialect: Dialect = HTTP,
    ) -> None:
        self.name = name
        self.store = OutboxStore(client, name)
        self.daemons: list[Part] = []
        self.workers: list[Part] = []
        self._count = workers
        self._rate = rate
        self._burst = burst
        self._folder = folder
        self._dialect = dialect

    def start(self, redis_url: str, sink_url: str, most: int) -> None:
        """Starts daemon and workers, for an outbox of at most ``most`` messages."""
        config = self._folder / f"{self.name}.toml"
        text = config_text(
            self.name, redis_url, sink_url, self._rate, most, self._burst, self._dialect
        )
        config.write_text(text, encoding="utf-8")
        self.daemons.append(self._part("daemon", "daemon", config))
        for number in range(1, self._count + 1):
            self.workers.append(self._part(f"worker-{number}", "worker", config))

    def _part(self, name: str, command: str, config: Path) -> Part:
        words = [sys.executable, "-m", "paceline", command, "--config", str(config)]
        # What the caller's environment says of Paceline is meant for another one.
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PACELINE_")}
        environ |= {**self._dialect.variables, PARENT_VARIABLE: str(os.getpid())}
        return Part(f"{self.name}-{name}", words, environ, self._folder / f"{self.name}-{name}.log")

    def ready(self) -> None:
        """Waits until daemon and workers live, the workers with connections to open."""

        def all_live() -> bool:
            census = self.store.census()
            live = sum(worker.live and worker.slots > 0 for worker in census.workers)
            return census.daemons > 0 and live == self._count

        self._until(all_live, _READY_S, "be ready", lambda: _LOOK_S)

    def cpu_s(self) -> tuple[float, float]:
        """CPU seconds so far: (daemon, workers). Raises BenchFailed."""
        return used_s(part.pid for part in self.daemons), used_s(part.pid for part in self.workers)

    def sent(self) -> int:
        """Messages sent so far."""
        return self.store.census().law["sent"]

    def pause(self) -> None:
        """Nothing is sent from now on; returns when nothing is held by a worker any more."""
        self.store.hold("pause", why="bench")
        self._until(
            lambda: self.store.census().law["leased"] == 0,
            _READY_S,
            "give back what it held",
            lambda: _LOOK_S,
        )

    def resume(self) -> None:
        """It sends."""
        self.store.hold("resume")

    def await_sent(self, count: int) -> int:
        """Waits until ``count`` messages have been sent in all; returns how many were, then.

        Looks seldom while there is far to go: looking is Redis's work too.
        """
        first, began_s = self.sent(), time.monotonic()
        seen = first

        def there() -> bool:
            nonlocal seen
            seen = self.sent()
            return seen >= count

        def next_look_s() -> float:
            done = seen - first
            if not done:
                return _LOOK_FIRST_S
            left_s = (count - seen) * (time.monotonic() - began_s) / done
            return min(_LOOK_MOST_S, max(_LOOK_LEAST_S, left_s / 2))

        limit_s = max(_DRAIN_LEAST_S, (count - first) / 1000 * _DRAIN_S)
        self._until(there, limit_s, f"send {count - first:,} messages", next_look_s)
        return seen

    def _until(
        self, there: Callable[[], bool], limit_s: float, what: str, look_s: Callable[[], float]
    ) -> None:
        end_s = time.monotonic() + limit_s
        while not there():
            for part in (*self.daemons, *self.workers):
                part.check()
            if time.monotonic() > end_s:
                parts = (*self.daemons, *self.workers)
                words = "".join(f"\n{part.name}:{part.tail()}" for part in parts)
                raise BenchFailed(f"{self.name} did not {what} within {limit_s:.0f} s{words}")
            time.sleep(look_s())


def config_text(
    name: str,
    redis_url: str,
    sink_url: str,
    rate: float,
    most: int,
    burst: int = BURST,
    dialect: Dialect = HTTP,
) -> str:
    """The TOML file of a contestant."""
    lines = [
        "[redis]",
        f"url = {json.dumps(redis_url)}",
        # As in service, but on any port: several daemons run here.
        "[exporter]",
        'listen = "127.0.0.1:0"',
        f"[destinations.{name}]",
        f"provider = {json.dumps(dialect.provider)}",
        f"url = {json.dumps(sink_url)}",
        f"rate = {rate}",
        f"burst = {burst}",
        f"connections = {CONNECTIONS}",
        f"max_messages = {most}",
        f"max_bytes = {most * 4096}",
        *dialect.more,
    ]
    return "\n".join(lines) + "\n"
