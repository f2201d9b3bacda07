"""Delivery events: their kinds, and an entry of the stream as the events in it. Pure.

The scripts write them (``lua/events.lua``); docs/events.md is the page for readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

__all__ = ["ENDS", "KINDS", "RESTS", "Event", "EventKind", "decode_entry", "kinds_in_force"]

EventKind = Literal[
    "accepted", "sent", "retried", "rejected", "dead", "parked", "expired", "cancelled", "dropped",
    "replayed", "moved",
    "endpoint_failing", "endpoint_recovered", "endpoint_disabled", "endpoint_enabled",
]  # fmt: skip

KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)
#: After these nothing comes (but a late ``sent`` that was true all the same).
ENDS: Final[frozenset[str]] = frozenset({"sent", "expired", "cancelled", "dropped", "moved"})
#: After these nothing comes until a person acts.
RESTS: Final[frozenset[str]] = frozenset({"rejected", "dead", "parked"})


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to one message; or to an endpoint, whose name is `id` then.

    ``at`` is in unix seconds, ``latency_s`` in seconds; ``entry`` is the entry of the stream, which
    may hold the events of several messages; ``seq`` numbers all events of the destination from 1
    on, without a gap: one that is not the successor of the one before tells how many were trimmed
    away between. ``request`` is the merged request that it went in. What does not apply is None.
    ``provider_id`` of a moved message is the destination that has it now.
    """

    destination: str
    kind: str
    id: str
    at: float
    seq: int
    entry: str
    provider_id: str | None = None
    status: int | None = None
    latency_s: float | None = None
    attempt: int | None = None
    reason: str | None = None
    request: str | None = None


def decode_entry(destination: str, entry: bytes, fields: Mapping[bytes, bytes]) -> list[Event]:
    """The events of one entry, in their order; [] of one that is none of ours."""
    try:
        told = {name.decode(): value.decode("utf-8", "replace") for name, value in fields.items()}
        shared: dict[str, Any] = {
            "destination": destination,
            "kind": told["kind"],
            "at": int(told["at"]) / 1e6,
            "entry": entry.decode(),
            "provider_id": told.get("provider_id"),
            "status": _int(told.get("status")),
            "latency_s": int(told["latency_us"]) / 1e6 if "latency_us" in told else None,
            "attempt": _int(told.get("attempt")),
            "reason": told.get("reason"),
            "request": told.get("request"),
        }
        first = int(told["seq"])
        return [Event(id=i, seq=first + n, **shared) for n, i in enumerate(told["ids"].split())]
    except (KeyError, ValueError, OverflowError):
        # Somebody else's, by XADD: it must not stop the readers for ever.
        return []


def kinds_in_force(numbers: str) -> frozenset[str]:
    """The kinds that are written, of the field ``events`` of ``{destination}:cfg``."""
    return frozenset(numbers.split()[2:])


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)
