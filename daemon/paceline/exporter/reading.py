"""One reading of Redis: every destination's census and the server's facts, writing nothing.

All destinations in one pipeline, by EVALSHA_RO, which Redis refuses to a script that writes. RQ is
not asked: reading its registries cleans them up.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from paceline import keys, scripts
from paceline.census import Census, decode_census
from paceline.exporter.redis_server import ServerFacts
from paceline.outbox import known_destinations

#: Events of Redis's latency monitor in which a client waited for an fsync.
_FSYNC_EVENTS = ("aof-fsync-always", "aof-write-pending-fsync")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """``unread`` says of each destination that could not be read, why."""

    server: ServerFacts
    censuses: Sequence[Census]
    unread: Sequence[str]
    run_id: str
    took_s: float


def read(client: redis.Redis) -> Reading:
    """Reads everything. Raises RedisError when Redis does not answer, or denies INFO."""
    began_s = time.monotonic()
    client.ping()  # or the first round trip would count the connecting
    pinged_s = time.monotonic()
    client.ping()
    latency_s = time.monotonic() - pinged_s
    names = known_destinations(client)
    pipe = client.pipeline(transaction=False)
    pipe.info()
    pipe.time()
    pipe.config_get("*appendfsync*")
    pipe.config_get("latency-monitor-threshold")
    for event in _FSYNC_EVENTS:
        _add(pipe, "LATENCY", "HISTORY", event)
    for name in names:
        _add(pipe, "EVALSHA_RO", scripts.sha1("census"), 1, keys.tag(name), "")
    info, now, fsync, monitor, *rest = pipe.execute(raise_on_error=False)
    spikes, replies = rest[: len(_FSYNC_EVENTS)], rest[len(_FSYNC_EVENTS) :]
    for reply in (info, now):
        if isinstance(reply, RedisError):
            raise reply
    if any(isinstance(reply, NoScriptError) for reply in replies):
        replies = _read_with_source(client, names)
    censuses, unread = _decode(names, replies)
    threshold = _setting(monitor, "latency-monitor-threshold")
    server = ServerFacts(
        info=info,
        appendfsync=_setting(fsync, "appendfsync"),
        unsynced_rewrite=_setting(fsync, "no-appendfsync-on-rewrite") or "no",
        monitor_ms=None if threshold is None else int(threshold),
        spikes=[
            (int(at), int(ms)) for found in spikes if isinstance(found, list) for at, ms in found
        ],
        latency_s=latency_s,
        now_s=float(now[0]),
    )
    return Reading(
        server=server,
        censuses=censuses,
        unread=unread,
        run_id=str(info.get("run_id", "")),
        took_s=time.monotonic() - began_s,
    )


def _read_with_source(client: redis.Redis, names: Sequence[str]) -> list[Any]:
    """For a Redis that does not know the script: its text goes along once."""
    first, *others = names
    pipe = client.pipeline(transaction=False)
    _add(pipe, "EVAL_RO", scripts.source("census"), 1, keys.tag(first), "")
    for name in others:
        _add(pipe, "EVALSHA_RO", scripts.sha1("census"), 1, keys.tag(name), "")
    return pipe.execute(raise_on_error=False)


def _decode(names: Sequence[str], replies: Sequence[Any]) -> tuple[list[Census], list[str]]:
    censuses, unread = [], []
    for name, reply in zip(names, replies, strict=True):
        if isinstance(reply, RedisError):
            unread.append(f"{name}: {reply}")
            continue
        try:
            censuses.append(decode_census(name, reply))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # A field that another program wrote.
            unread.append(f"{name}: {type(error).__name__}: {error}")
    return censuses, unread


def _setting(reply: Any, name: str) -> str | None:
    """None where Redis refuses CONFIG, as managed ones do."""
    if isinstance(reply, ResponseError) or not isinstance(reply, dict):
        return None
    value = reply.get(name, reply.get(name.encode()))
    return value.decode() if isinstance(value, bytes) else value


def _add(pipe: Any, *command: str | int) -> None:
    pipe.execute_command(*command)
