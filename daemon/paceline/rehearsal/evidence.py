"""All that is needed to judge a run: what each witness says, collected when the senders stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from paceline.census import Census
from paceline.outbox import OutboxStore
from paceline.records import Ended
from paceline.rehearsal.intake import Taken
from paceline.rehearsal.ledger import Entry, Refusal
from paceline.rehearsal.measures import Sample
from paceline.rehearsal.reconcile import Fact
from paceline.sink.record import Arrival

_LOOK_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Crowd:
    """The first moment at which only retries were left, for later: seconds since the intake began,
    messages ended by then, CPU used by then."""

    at_s: float
    ended: int
    cpu_s: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """``exits`` and ``cpu_s`` are by process; ``elapsed_s`` is from the command's start to the
    last process's end; ``run_s`` from the first message's intake until nothing was unfinished.
    ``crowd`` is None where nothing had to wait for a retry. ``stolen`` is the part (0 to 1) of this
    machine's CPU time that its host gave to others while messages were ready."""

    entries: Sequence[Entry]
    refusals: Sequence[Refusal]
    arrivals: Sequence[Arrival]
    facts: Mapping[str, Fact]
    census: Census
    sink: Mapping[str, Any]
    samples: Sequence[Sample]
    taken: Taken
    cpu_s: Mapping[str, float | None]
    run_s: float
    crowd: Crowd | None = None
    exits: Mapping[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0
    stolen: float = 0.0


def collect_facts(store: OutboxStore, ids: Sequence[str]) -> dict[str, Fact]:
    """What the outbox says of each id; none for those it does not know. Raises RedisError."""
    facts: dict[str, Fact] = {}
    for start in range(0, len(ids), _LOOK_AT_ONCE):
        piece = ids[start : start + _LOOK_AT_ONCE]
        for its_id, found in zip(piece, store.look(piece), strict=True):
            if found is None:
                continue
            head = found[0]
            sha1 = head.payload_sha1 if isinstance(head, Ended) else None
            facts[its_id] = Fact(head.state, sha1, store.attempts(its_id))
    return facts


def save_facts(facts: Mapping[str, Fact], path: Path) -> None:
    """One JSON line a message that was not simply sent at its first attempt. Raises OSError."""
    lines = [
        {"id": its_id, "state": fact.state, "attempts": fact.attempts}
        for its_id, fact in facts.items()
        if fact.attempts or fact.state != "sent"
    ]
    path.write_bytes(msgspec.json.Encoder().encode_lines(lines))


def save_looks(samples: Sequence[Sample], path: Path) -> None:
    """One JSON line a look at the outbox. Raises OSError."""
    path.write_bytes(msgspec.json.Encoder().encode_lines(samples))
