"""What real processes ask of a real Redis: idle, at full speed, at intake; memory and disk."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import redis

from paceline.answers import Settlement
from paceline.connect import connect
from paceline.embedded import EmbeddedServer
from paceline.message import Message
from paceline.outbox import OutboxStore, new_nonce
from simulation.meter import read
from support.published import published
from support.stack import Stack
from support.wait import until

_IDLE_S = 20.0
#: Until what is asked only at a start is over.
_START_S = 3.0


@dataclass(frozen=True)
class Idle:
    """A second of a daemon, and of a worker, of one destination with nothing to do: commands sent
    (a script call is one), connections to Redis; and the part of a core that Redis spends on both.
    """

    daemon: float
    worker: float
    daemon_connections: int
    worker_connections: int
    share: float


@dataclass(frozen=True)
class Full:
    """A backlog drained as fast as two workers can: messages/s, Redis CPU a message."""

    per_s: float
    redis_us: float


@dataclass(frozen=True)
class Kept:
    """Bytes a message: in memory while it waits and after it was sent, in the append-only file for
    its way in and for its way out."""

    waiting: float
    ended: float
    aof_in: float
    aof_out: float


def idle() -> Idle:
    """One daemon and one worker with connections, of one destination."""
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), workers=1) as stack:
        time.sleep(_START_S)
        began = read(stack.client)
        time.sleep(_IDLE_S)
        ended = read(stack.client)
        sent, connections = _watched(stack)
        return Idle(
            sent["paceline-daemon"] / _IDLE_S,
            sent["paceline-worker"] / _IDLE_S,
            connections["paceline-daemon"],
            connections["paceline-worker"],
            (ended.cpu_s - began.cpu_s) / (ended.at_s - began.at_s),
        )


def _watched(stack: Stack) -> tuple[Counter[str], Counter[str]]:
    """Commands by kind of process, as MONITOR shows them, those that scripts call left out; and
    connections."""
    sent: Counter[str] = Counter()
    with connect(stack.server.url, timeout_s=30) as client, client.monitor() as monitor:
        entries: Any = stack.client.client_list()
        kinds = {e["addr"]: "-".join(e["name"].split("-")[:2]) for e in entries}
        end_s = time.monotonic() + _IDLE_S
        for command in monitor.listen():
            if time.monotonic() > end_s:
                return sent, Counter(kinds.values())
            if command["client_type"] != "lua":
                at = f"{command['client_address']}:{command['client_port']}"
                sent[kinds.get(at, "other")] += 1
    raise AssertionError("MONITOR ended")


def full_speed(count: int = 8000) -> Full:
    """Two workers, an instant sink, ``appendfsync always``."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), rate=50_000, burst=20_000, latency="0ms") as stack,
    ):
        stack.send(500, "warm")
        stack.wait_done(60)
        stack.store.hold("pause", why="filling")
        stack.send(count)
        began = read(stack.client)
        stack.store.hold("resume")
        until(lambda: stack.store.census().unfinished == 0, 120, "drained", 0.05)
        ended = read(stack.client)
        assert stack.store.census().sound
        span_s = ended.at_s - began.at_s
        return Full(count / span_s, (ended.cpu_s - began.cpu_s) / count * 1e6)


def intake(fsync: Literal["always", "everysec"], together: int, count: int) -> float:
    """Messages of 1 kB accepted a second, by one producer that pipelines so many."""
    with _outbox(fsync) as (store, _):
        messages = _messages(count, 1000)
        began_s = time.monotonic()
        for start in range(0, count, together):
            answers = store.enqueue_many(messages[start : start + together])
            assert set(answers) == {"new"}
        return count / (time.monotonic() - began_s)


def kept(payload: int, count: int = 20_000) -> Kept:
    """Measured on so many messages of one size, sent in batches of 100. With ``always``: else what
    is not yet in the file is in memory, in a buffer."""
    with _outbox("always") as (store, client):
        empty, aof_empty = _memory(client), _aof(client)
        messages = _messages(count, payload)
        for start in range(0, count, 500):
            store.enqueue_many(messages[start : start + 500])
        filled, aof_filled = _memory(client), _aof(client)
        store.slots("beat", "w")
        for _ in range(0, count, 100):
            taken = store.take("w", new_nonce(), 100, "any")
            done = [
                Settlement(
                    id=i, nonce=taken.nonce, action="sent", latency_s=0.04, label="sent:200",
                    provider_id="0123456789abcdef", sha1=b"x" * 20,
                )
                for i in taken.sizes
            ]  # fmt: skip
            assert set(store.settle(done)) == {"ok"}
        ended, aof_ended = _memory(client), _aof(client)
        return Kept(
            (filled - empty) / count,
            (ended - empty) / count,
            (aof_filled - aof_empty) / count,
            (aof_ended - aof_filled) / count,
        )


def rewrite(count: int, payload: int) -> tuple[float, int, int]:
    """Seconds of a rewrite of the append-only file, and its bytes before and after."""
    with _outbox("always") as (store, client):
        for start in range(0, count, 500):
            store.enqueue_many(_messages(min(500, count - start), payload, start))
        before = _aof(client)
        began_s = time.monotonic()
        client.bgrewriteaof()

        def done() -> bool:
            info: Any = client.info("persistence")
            return not (info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])

        until(done, 120, "the file is rewritten")
        return time.monotonic() - began_s, before, _aof(client)


@contextmanager
def _outbox(fsync: Literal["always", "everysec"]) -> Iterator[tuple[OutboxStore, redis.Redis]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer(
            Path(folder) / "redis",
            appendfsync=fsync,
            extra={"auto-aof-rewrite-percentage": "0"},
        ) as server,
        connect(server.url, timeout_s=30) as client,
    ):
        yield published(client), client


def _messages(count: int, payload: int, first: int = 0) -> list[Message]:
    body = b'"' + b"y" * (payload - 2) + b'"'
    return [
        Message(destination="web", id=f"message-{n:012}", payload=body)
        for n in range(first, first + count)
    ]


def _memory(client: redis.Redis) -> int:
    info: Any = client.info("memory")
    return int(info["used_memory"]) - int(info["mem_clients_normal"])


def _aof(client: redis.Redis) -> int:
    info: Any = client.info("persistence")
    return int(info["aof_current_size"])
