"""Events as messages to the app's own URL: which go together, and what the message is. Pure.

A batch is a range of events' numbers. Those numbers have no gap, so what was not found within a
range had been trimmed away; and the same range makes the same message, whoever makes it, as long
as its events are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from paceline.events import Event
from paceline.message import Message

__all__ = [
    "EVENT_BYTES",
    "FRAME_BYTES",
    "Batch",
    "Cut",
    "Forwarding",
    "batches_of",
    "cut",
    "forwarding_of",
    "message_of",
]

#: One event in a message takes at most so many bytes, and what is around them.
EVENT_BYTES: Final = 2560
FRAME_BYTES: Final = 1024

_FIELDS = (
    "kind", "id", "at", "seq", "status", "latency_s", "attempt", "provider_id", "reason", "request",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Forwarding:
    """How far it stands with a destination's events (``lua/forward.lua``).

    cursor  number of the last event that is done with
    total   number of the last that was told
    now_us  Redis's clock
    entry   of the stream, from which to read on; "" for its beginning
    ends    of the planned batches; () where nothing is planned. The plan is ``by`` whom, made at
            ``at_us``, when ``gap`` of its first batch had been trimmed away
    """

    cursor: int
    total: int
    now_us: int
    entry: str = ""
    ends: tuple[int, ...] = ()
    by: str = ""
    at_us: int = 0
    gap: int = 0


def forwarding_of(reply: Sequence[Any]) -> Forwarding:
    """From the script's reply."""
    cursor, total, now, entry, ends, by, at, gap = (
        part.decode() if isinstance(part, bytes) else str(part) for part in reply
    )
    return Forwarding(
        int(cursor), int(total), int(now), entry,
        tuple(int(end) for end in ends.split()), by, int(at), int(gap),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cut:
    """Where batches end, and in how many seconds the rest is due (None: there is no rest)."""

    ends: tuple[int, ...]
    due_s: float | None = None


def cut(
    events: Sequence[Event], kinds: Collection[str], size: int, linger_s: float, now_s: float,
    *, more: bool = False,
) -> Cut:  # fmt: skip
    """Where to end batches of ``size`` events of ``kinds``, of events in their order.

    What is left over waits for more until its first event is ``linger_s`` old. ``more``: there are
    more behind these than one turn looks at.
    """
    ends: list[int] = []
    count, first = 0, None
    for event in events:
        if event.kind not in kinds:
            continue
        count, first = count + 1, first or event
        if count == size:
            ends.append(event.seq)
            count, first = 0, None
    if not events:
        return Cut(())
    last = events[-1].seq
    if first is None:
        # Nobody wants to hear of the rest: it goes with the last batch, or is passed over.
        ends[-1:] = [last]
    elif not more:
        due_s = first.at + linger_s - now_s
        if due_s > 0:
            return Cut(tuple(ends), due_s)
        ends.append(last)
    elif not ends:
        # Not full, but as far as one turn looks.
        ends.append(last)
    return Cut(tuple(ends), 0.0 if more else None)


@dataclass(frozen=True, slots=True)
class Batch:
    """The events after number ``after`` up to number ``upto``: those of the wanted kinds, the entry
    that holds the last of all that are left ("" for none), and how many had been trimmed away."""

    after: int
    upto: int
    events: tuple[Event, ...]
    entry: str
    missed: int

    @property
    def silent(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.events and not self.missed


def batches_of(
    events: Sequence[Event], after: int, ends: Sequence[int], kinds: Collection[str]
) -> Iterator[Batch]:
    """The batches that end there; ``events`` in their order, all that are left of those after
    ``after``."""
    at = 0
    for upto in ends:
        since = at
        while at < len(events) and events[at].seq <= upto:
            at += 1
        found = events[since:at]
        wanted = tuple(event for event in found if event.kind in kinds)
        entry = found[-1].entry if found else ""
        yield Batch(after, upto, wanted, entry, upto - after - len(found))
        after = upto


def message_of(batch: Batch, source: str, to: str, at_us: int) -> Message:
    """The message to destination ``to``. ``at_us``: when the batch was planned.

    Its id follows from the plan, so that enqueued again it is known there: ``source``, the first
    number of the range, and the time, for a Redis that lost something gives numbers again.
    """
    data: dict[str, Any] = {
        "destination": source,
        "events": [_told(event) for event in batch.events],
    }
    if batch.missed:
        data["missed"] = batch.missed
    when = datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds")
    payload = {"type": "paceline.events", "timestamp": when.replace("+00:00", "Z"), "data": data}
    return Message(
        id=f"events-{source}-{batch.after + 1}-{at_us // 1000}",
        destination=to,
        payload=msgspec.json.encode(payload),
    )


def _told(event: Event) -> dict[str, Any]:
    pairs = ((name, getattr(event, name)) for name in _FIELDS)
    return {name: value for name, value in pairs if value is not None}
