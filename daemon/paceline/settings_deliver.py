"""Where a destination's events are delivered to: checked across destinations, each right in itself.

What is delivered must never come back: the fate of the messages that carry events is delivered
nowhere, neither by the destination that carries them nor by one that it falls back to.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping

from paceline.errors import ConfigProblem
from paceline.event_batches import EVENT_BYTES, FRAME_BYTES
from paceline.settings import Destination

__all__ = ["deliver_problems"]


def deliver_problems(
    destinations: Mapping[str, Destination], names: Collection[str]
) -> Iterator[ConfigProblem]:
    """What is wrong with each `events.deliver_to`. `names`: all destinations of the file, also
    those that are not among `destinations`, for they have problems of their own."""
    for it in destinations.values():
        to = it.events.deliver_to
        if to is None:
            continue
        key = f"destinations.{it.name}.events.deliver_to"
        other = destinations.get(to)
        if not it.events.kinds:
            yield ConfigProblem(key, "no events are written", 'Set kinds = "all", or remove it')
        if to == it.name:
            yield ConfigProblem(key, "names the destination itself", "Name another, or remove it")
        elif other is not None:
            yield from _unfit(key, it, other, destinations)
        elif to not in names:
            near = difflib.get_close_matches(to, names, 1)
            mend = f"Did you mean {near[0]}?" if near else f"Add a table [destinations.{to}]"
            yield ConfigProblem(key, f"there is no destination {to!r} here", mend)


def _unfit(
    key: str, it: Destination, other: Destination, destinations: Mapping[str, Destination]
) -> Iterator[ConfigProblem]:
    if other.provider != "webhook":
        yield ConfigProblem(
            key, f"{other.name} is of provider {other.provider}", "Name one of provider webhook"
        )
    if other.endpoints is not None:
        yield ConfigProblem(
            key,
            f"{other.name} has many endpoints, and events go to one URL",
            "Name a destination with a url of its own",
        )
    if other.events.deliver_to is not None:
        yield ConfigProblem(
            key,
            f"{other.name} delivers its own events ({other.events.deliver_to})",
            f"Remove deliver_to of {other.name}: what becomes of delivered events is not delivered",
        )
    then = destinations.get(other.fallback or "")
    if then is not None and then.events.deliver_to is not None:
        yield ConfigProblem(
            key,
            f"{other.name} falls back to {then.name}, which delivers its events "
            f"({then.events.deliver_to})",
            f"Remove deliver_to of {then.name}, or the fallback of {other.name}",
        )
    most = (other.max_payload_bytes - FRAME_BYTES) // EVENT_BYTES
    if it.events.deliver_batch > most:
        yield ConfigProblem(
            key,
            f"{it.events.deliver_batch} events in one message may be more than the "
            f"{other.max_payload_bytes} bytes that max_payload_bytes of {other.name} allows",
            f"Raise that of {other.name}, or lower deliver_batch"
            + (f" to {most}" if most > 0 else ""),
        )
