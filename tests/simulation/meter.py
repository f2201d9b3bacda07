"""What Redis was asked and what it cost: commands as sent, scripts by name, CPU, bytes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from statistics import median
from types import TracebackType
from typing import Any, Self

import redis
from redis.connection import AbstractConnection

from paceline import scripts


@dataclass(frozen=True)
class Reading:
    """Redis's own counters at one moment."""

    cpu_s: float
    bytes_in: int
    bytes_out: int
    at_s: float


@dataclass(frozen=True)
class Cost:
    """What happened between two readings. ``commands``: as sent, scripts by their own names."""

    cpu_s: float
    bytes_in: int
    bytes_out: int
    real_s: float
    commands: Counter[str]

    @property
    def sent(self) -> int:
        """Commands, each script call one of them."""
        return sum(self.commands.values())


class Meter:
    """Counts what this process sends, between ``start`` and ``stop``, in a ``with`` block.

    ``client`` is its own.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._commands: Counter[str] = Counter()
        self._names = script_names()

    def __enter__(self) -> Self:
        self._send: Any = AbstractConnection.send_command
        self._pack: Any = AbstractConnection.pack_commands
        meter = self

        def send(connection: Any, *args: Any, **kwargs: Any) -> Any:
            meter._note(args)
            return meter._send(connection, *args, **kwargs)

        def pack(connection: Any, commands: Any) -> Any:
            commands = list(commands)
            for command in commands:
                meter._note(command)
            return meter._pack(connection, commands)

        AbstractConnection.send_command = send  # type: ignore[method-assign,assignment]
        AbstractConnection.pack_commands = pack  # type: ignore[method-assign]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        AbstractConnection.send_command = self._send  # type: ignore[method-assign]
        AbstractConnection.pack_commands = self._pack  # type: ignore[method-assign]

    def start(self) -> None:
        """Forgets what was counted."""
        self._from = read(self._client)
        self._commands.clear()

    def stop(self) -> Cost:
        """What happened since ``start``."""
        commands = Counter(self._commands)
        now, then = read(self._client), self._from
        return Cost(
            now.cpu_s - then.cpu_s,
            now.bytes_in - then.bytes_in,
            now.bytes_out - then.bytes_out,
            now.at_s - then.at_s,
            commands,
        )

    def durations(self, work: Callable[[], object]) -> dict[str, float]:
        """Median microseconds of each script within Redis while ``work`` runs, by Redis's slow log.

        Apart from ``start`` and ``stop``: keeping that log costs Redis something itself."""
        client = self._client
        client.config_set("slowlog-max-len", 100_000)
        client.slowlog_reset()
        client.config_set("slowlog-log-slower-than", 0)
        work()
        client.config_set("slowlog-log-slower-than", -1)
        found: dict[str, list[int]] = {}
        entries: Any = client.slowlog_get(100_000)
        for entry in entries:
            name = self._name(entry["command"].split())
            if name in self._names.values():
                found.setdefault(name, []).append(int(entry["duration"]))
        return {name: median(spans) for name, spans in found.items()}

    def _note(self, command: Sequence[Any]) -> None:
        words = str(command[0]).split()
        self._commands[self._name([*words, *command[1:2]])] += 1

    def _name(self, command: Sequence[Any]) -> str:
        word, *rest = (_text(part) for part in command[:2])
        return self._names.get(rest[0], word) if rest else word


def script_names() -> dict[str, str]:
    """Our scripts and functions, by what commands call them."""
    folder = resources.files("paceline") / "lua"
    names = [f.name.removesuffix(".lua") for f in folder.iterdir() if f.name.endswith(".lua")]
    by_hash = {scripts.sha1(name): name for name in names if name != "lib"}
    functions = ("paceline_enqueue", "paceline_enqueue_many", "paceline_enqueue_bulk")
    return {**by_hash, **dict.fromkeys(functions, "enqueue")}


def read(client: redis.Redis) -> Reading:
    """Redis's counters now; what the looking itself costs is left out."""
    info: Any = client.info("everything")
    looking_us = info.get("cmdstat_info", {"usec": 0})["usec"]
    return Reading(
        info["used_cpu_user"] + info["used_cpu_sys"] - looking_us / 1e6,
        info["total_net_input_bytes"],
        info["total_net_output_bytes"],
        time.monotonic(),
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
