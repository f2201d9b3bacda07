"""What a destination may fall back to: checked across destinations, each right in itself."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from paceline.errors import ConfigProblem
from paceline.settings import Destination

__all__ = ["fallback_problems", "fallback_warnings", "with_providers"]


def fallback_problems(
    destinations: Mapping[str, Destination], names: Collection[str]
) -> Iterator[ConfigProblem]:
    """What is wrong with each `fallback`. `names`: all destinations of the file, also those that
    are not among `destinations`, for they have problems of their own."""
    for it in destinations.values():
        if it.fallback is None:
            continue
        key = f"destinations.{it.name}.fallback"
        other = destinations.get(it.fallback)
        if it.fallback == it.name:
            yield ConfigProblem(key, "names the destination itself", "Name another, or remove it")
        elif other is not None:
            for problem, mend in _unfit(it, other):
                yield ConfigProblem(key, problem, mend)
        elif it.fallback not in names:
            near = difflib.get_close_matches(it.fallback, names, 1)
            mend = (
                f"Did you mean {near[0]}?" if near else f"Add a table [destinations.{it.fallback}]"
            )
            yield ConfigProblem(key, f"there is no destination {it.fallback!r} here", mend)


def fallback_warnings(destinations: Mapping[str, Destination]) -> Iterator[str]:
    """What an operator should know of a `fallback` that is right in itself."""
    for it in destinations.values():
        other = destinations.get(it.fallback or "")
        if other is None or it.provider == other.provider:
            continue
        line = f"destinations.{it.name}: to {other.name} only neutral e-mails are moved"
        if other.provider == "maxmd":
            line += ", and those with headers, a template or inline attachments die there"
        yield line


def with_providers(destinations: Mapping[str, Destination]) -> dict[str, Destination]:
    """The same, each knowing the provider that it falls back to: of another provider's own payload
    it could make nothing, so that to a different one only neutral e-mails are moved."""
    return {
        name: replace(it, fallback_provider=destinations[it.fallback].provider)
        if it.fallback is not None
        else it
        for name, it in destinations.items()
    }


def _unfit(it: Destination, other: Destination) -> Iterator[tuple[str, str]]:
    if other.fallback is not None:
        yield (
            f"{other.name} has a fallback itself ({other.fallback})",
            f"Remove that of {other.name}: a message is moved once at most",
        )
    if other.max_payload_bytes < it.max_payload_bytes:
        yield (
            f"max_payload_bytes of {other.name} is {other.max_payload_bytes}, below the "
            f"{it.max_payload_bytes} of {it.name}",
            f"Raise that of {other.name}, or lower that of {it.name}",
        )
