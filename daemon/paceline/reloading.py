"""A configuration that is read again: what can change in a running process, and what cannot. Pure.

Nearly all can. What cannot is what leases, identities and connections to Redis stand on; it is
refused, and the process goes on by what it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields

from paceline.errors import ConfigError, ConfigProblem
from paceline.settings import Destination, Settings

__all__ = ["changed", "check_destination", "check_settings"]

_MEND = "Take it back, or restart all processes"

#: Key -> why it stays.
_FIXED: Mapping[str, str] = {
    "provider": "what waits was checked for the provider that it had",
    "lease_s": "leases are held by it, and renewed at a pace that follows from it",
}


def check_settings(before: Settings, now: Settings) -> None:
    """Raises ConfigError for what is not a destination's and cannot change."""
    problems = []
    if before.redis.url != now.redis.url:
        problems.append(_fixed("redis.url", "all that is known is in that Redis"))
    if before.redis.appendfsync != now.redis.appendfsync:
        problems.append(_fixed("redis.appendfsync", "the embedded server has been started with it"))
    if before.exporter.listen != now.exporter.listen:
        problems.append(_fixed("exporter.listen", "the exporter listens there"))
    _raise(problems)


def check_destination(before: Destination, now: Destination) -> None:
    """Raises ConfigError, naming the keys that cannot change."""
    _raise(
        _fixed(f"destinations.{before.name}.{key}", why)
        for key, why in _FIXED.items()
        if getattr(before, key) != getattr(now, key)
    )


def changed(before: Destination, now: Destination) -> list[str]:
    """The keys that differ; of a secret that is written in the file too, by its key alone."""
    names = [field.name for field in fields(Destination)]
    found = [name for name in names if getattr(before, name) != getattr(now, name)]
    return ["url" if name == "urls" else name for name in found]


def _fixed(key: str, why: str) -> ConfigProblem:
    return ConfigProblem(
        key, f"cannot change in a running process, it needs a restart: {why}", _MEND
    )


def _raise(problems: Iterable[ConfigProblem]) -> None:
    found = list(problems)
    if found:
        raise ConfigError(found)
