"""Dead and parked messages as people look through them: read in bulk, never changed here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from paceline import keys
from paceline.outbox import OutboxStore
from paceline.records import Live

Shelf = Literal["dead", "parked"]

CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelved:
    """One message on a shelf. ``since_s`` is when it came there; ``last`` its last attempt on
    record, None where none was recorded."""

    id: str
    since_s: float
    accepted_s: float
    attempts: int
    tries: int
    priority: str
    tenant: str
    campaign: str
    payload_bytes: int
    last: Mapping[str, Any] | None

    @property
    def reason(self) -> str:
        """Why it is here, in one line."""
        return str((self.last or {}).get("reason") or "no reason on record")


def ids(store: OutboxStore, shelf: Shelf) -> list[tuple[str, float]]:
    """(id, unix seconds of its coming) of all that stand there, longest there first. Complete even
    while others replay and drop; the list is bounded by the destination's max_messages."""
    place = keys.key(store.destination, shelf)
    found = {_text(i): float(at) / 1e6 for i, at in store.client.zscan_iter(place, count=1000)}
    return sorted(found.items(), key=lambda item: (item[1], item[0]))


def read(
    store: OutboxStore, shelf: Shelf, standing: Sequence[tuple[str, float]]
) -> Iterator[Shelved]:
    """Looks at each, in order. One that has left the shelf meanwhile is passed over."""
    for start in range(0, len(standing), CHUNK):
        piece = standing[start : start + CHUNK]
        heads = store.look([message_id for message_id, _ in piece])
        pipe = store.client.pipeline(transaction=False)
        for message_id, _ in piece:
            pipe.lindex(keys.attempts(store.destination, message_id), -1)
        for (message_id, since_s), found, last in zip(piece, heads, pipe.execute(), strict=True):
            head = found[0] if found else None
            if found is None or not isinstance(head, Live) or head.state != shelf:
                continue
            yield Shelved(
                id=message_id,
                since_s=since_s,
                accepted_s=head.at_us / 1e6,
                attempts=head.attempts,
                tries=head.tries,
                priority=head.priority,
                tenant=head.tenant,
                campaign=head.campaign,
                payload_bytes=found[1],
                last=json.loads(last) if last else None,
            )


def matches(shelved: Shelved, pattern: str) -> bool:
    """Whether its reason fits a shell pattern (``*``, ``?``, ``[…]``), whatever the case; a
    pattern without any of these fits anywhere in the reason."""
    wanted = pattern.lower()
    if not any(sign in wanted for sign in "*?["):
        wanted = f"*{wanted}*"
    return fnmatchcase(shelved.reason.lower(), wanted)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
