"""Asks a Redis for all that doctor judges. Writes nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from paceline import keys
from paceline.doctor.redis_facts import RedisFacts
from paceline.log_veil import redact
from paceline.names import queue_name

T = TypeVar("T")

PINGS = 20
_PINGS_MOST_S = 3.0
_SETTINGS = (
    "appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy", "dir",
    "appenddirname", "appendfilename", "min-replicas-to-write",
    "min-replicas-max-lag",
)  # fmt: skip

#: What scripts, scheduler, reaper and worker do: on a destination's keys, on RQ's, on none. The
#: scripts' commands are checked against the user's rights one by one.
_ON_OURS: tuple[tuple[str, ...], ...] = (
    ("EVALSHA", "sha", "1"), ("FCALL", "paceline_enqueue", "1"), ("GET",), ("SET", "", "v"),
    ("HGETALL",), ("HSET", "", "f", "v"), ("ZADD", "", "1", "m"), ("ZRANGE", "", "0", "1"),
    ("SADD", "", "m"), ("SMEMBERS",), ("RPUSH", "", "v"), ("BLPOP", "", "1"), ("DEL",),
)  # fmt: skip
_ON_RQS: tuple[tuple[str, ...], ...] = (
    ("HSET", "", "f", "v"),
    ("EXPIRE", "", "1"),
    ("RPUSH", "", "v"),
    ("BLPOP", "", "1"),
)
_ON_NONE: tuple[tuple[str, ...], ...] = (
    ("INFO",),
    ("TIME",),
    ("CLIENT", "LIST"),
    ("FUNCTION", "LOAD", "x"),
    ("MULTI",),
)


def probe(client: redis.Redis, shown_url: str, destinations: Iterable[str]) -> RedisFacts:
    """The facts; never raises for Redis: what stands in the way is among them.

    ``client`` has short time-outs and repeats nothing.
    """
    refused: list[str] = []

    def ask(name: str, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except (ConnectionError, TimeoutError):
            raise
        except ResponseError:
            # No right to it, or a host that leaves it out (CONFIG at most hosted ones).
            refused.append(name)
            return None

    try:
        client.ping()
        info: Any = ask("INFO", client.info) or {}
        found = ask("CONFIG GET", lambda: _settings(client))
        ahead_s = ask("TIME", lambda: _ahead_s(client))
        pings_s = _pings(client)
        library = ask("FCALL_RO", lambda: _library(client))
        user, lacking = ask("ACL", lambda: _rights(client, destinations)) or (None, ())
    except RedisError as error:
        trouble, mend = _trouble(error)
        return RedisFacts(url=shown_url, trouble=trouble, mend=mend)
    folder = _local_folder(found)
    disk = shutil.disk_usage(folder) if folder else None
    return RedisFacts(
        url=shown_url,
        info=info,
        config=found,
        ahead_s=ahead_s,
        pings_s=pings_s,
        library=library,
        user=user,
        lacking=lacking,
        refused=tuple(refused),
        aof_dir=folder,
        disk_free_bytes=disk.free if disk else None,
        disk_bytes=disk.total if disk else None,
    )


def _trouble(error: RedisError) -> tuple[str, str]:
    text = redact(str(error)) or type(error).__name__
    if isinstance(error, AuthenticationError) or "NOAUTH" in text or "WRONGPASS" in text:
        return f"it refuses the login: {text}", "Mend user and password in [redis] url"
    if isinstance(error, BusyLoadingError):
        return "it is loading its data", "Wait: it answers when all is read"
    if isinstance(error, TimeoutError):
        return (
            f"it does not answer in time: {text}",
            "Look whether it is frozen, or a firewall drops",
        )
    if isinstance(error, ConnectionError):
        return f"it cannot be reached: {text}", "Start it, or mend [redis] url"
    return f"it refuses: {text}", "Check its version and the rights of the user in [redis] url"


def _settings(client: redis.Redis) -> dict[str, str]:
    found: Any = client.config_get(*_SETTINGS)
    return {_text(name): _text(value) for name, value in found.items()}


def _ahead_s(client: redis.Redis) -> float:
    """The least certain by half a round trip, the shortest of three."""
    best: tuple[float, float] | None = None
    for _ in range(3):
        before = time.time()
        seconds, micros = client.time()
        trip_s = time.time() - before
        ahead_s = int(seconds) + int(micros) / 1e6 - (before + trip_s / 2)
        if best is None or trip_s < best[0]:
            best = (trip_s, ahead_s)
    assert best is not None
    return best[1]


def _pings(client: redis.Redis) -> tuple[float, ...]:
    times: list[float] = []
    end = time.perf_counter() + _PINGS_MOST_S
    while len(times) < PINGS and time.perf_counter() < end:
        before = time.perf_counter()
        client.ping()
        times.append(time.perf_counter() - before)
    return tuple(times)


def _library(client: redis.Redis) -> int:
    try:
        return int(client.execute_command("FCALL_RO", "paceline_version", 0))  # type: ignore[no-untyped-call]
    except ResponseError as error:
        if "unction not found" not in str(error):
            raise
        return 0


def _rights(client: redis.Redis, destinations: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """The user, and what it lacks. Redis says so without doing it (ACL DRYRUN)."""
    user = _text(client.acl_whoami())
    lacking: list[str] = []

    def dry_run(key: str, *command: str) -> None:
        answer: Any = client.execute_command("ACL", "DRYRUN", user, *command)  # type: ignore[no-untyped-call]
        if _text(answer) != "OK":
            name = " ".join(command[: 2 if command[0] in ("CLIENT", "FUNCTION") else 1])
            lacking.append(f"{name} on {key}" if key else name)

    # A person's user runs nothing of the service.
    serves = user != "operator"
    for command in _ON_NONE:
        if serves or command[0] != "FUNCTION":
            dry_run("", *command)
    for name in destinations:
        for where, commands in (
            (keys.key(name, "n"), _ON_OURS),
            (f"rq:queue:{queue_name(name, 'any')}", _ON_RQS),
        ):
            for command in commands:
                if serves or (commands is _ON_OURS and command[0] != "BLPOP"):
                    dry_run(where, *_with_key(command, where))
    dry_run(keys.DESTINATIONS, "SMEMBERS", keys.DESTINATIONS)
    return user, tuple(lacking)


def _with_key(command: tuple[str, ...], key: str) -> tuple[str, ...]:
    name, *rest = command
    if name in ("EVALSHA", "FCALL"):
        return (name, *rest, key)
    return (name, key, *rest[1:])


def _local_folder(settings: dict[str, str] | None) -> str | None:
    """The append-only file's folder where it can be seen from here. Redis may run in another
    container, where the same path is another folder: so the file itself is looked for."""
    folder = Path((settings or {}).get("dir") or "/nonexistent")
    for name in ("appenddirname", "appendfilename"):
        file_name = (settings or {}).get(name)
        if file_name and os.access(folder, os.X_OK) and (folder / file_name).exists():
            return str(folder)
    return None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
