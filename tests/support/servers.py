"""Real servers for tests, and what a test does to them: freeze, thaw, kill, watch."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from paceline.embedded import EmbeddedServer

if TYPE_CHECKING:
    import redis


def connect(url: str, *, timeout_s: float = 5.0) -> redis.Redis:
    """A client that never repeats a command (redis-py 8 repeats up to 10 times by default)."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis.from_url(
        url,
        decode_responses=False,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )


def free_port() -> int:
    """A port of loopback, free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def freeze(server: EmbeddedServer) -> None:
    """SIGSTOP: connections stay up, nothing answers. `stop` and `kill` work on a frozen one."""
    os.kill(server.pid, signal.SIGSTOP)


def thaw(server: EmbeddedServer) -> None:
    """SIGCONT."""
    os.kill(server.pid, signal.SIGCONT)


@contextlib.contextmanager
def frozen(server: EmbeddedServer) -> Iterator[None]:
    """Frozen within the block, thawed after it, whatever happens."""
    freeze(server)
    try:
        yield
    finally:
        thaw(server)


def command_calls(client: redis.Redis) -> dict[str, int]:
    """Calls per command since the last CONFIG RESETSTAT, by name ("hset", "config|get").

    Includes commands called by scripts; bookkeeping of this client itself is left out.
    """
    stats = client.info("commandstats")
    assert isinstance(stats, dict)
    calls = {name.removeprefix("cmdstat_"): int(entry["calls"]) for name, entry in stats.items()}
    return {n: c for n, c in calls.items() if n not in {"info", "config|resetstat"}}
