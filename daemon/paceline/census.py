"""The conservation law's terms and all that ``status`` shows, from one script call. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

IN_TERMS = ("accepted", "moved_in")
END_TERMS = ("sent", "expired", "cancelled", "dropped", "moved_out")
CONTAINERS = ("dead", "parked", "ready", "scheduled", "leased")

#: Of the gate, as ``lua/press.lua`` writes it: until when (us), when to try again (s), why.
_FULL = re.compile(r"(\d{1,18}) \d+ (.*)$")

#: Upper bounds of the histograms' slots (``lua/settle.lua``), in microseconds; a slot is in Redis
#: once it holds something.
BOUNDS_US = (
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000, 300_000_000,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """A worker as its last heartbeat told: its lease may have lapsed (``live`` False)."""

    id: str
    live: bool
    lease_left_s: float
    slots: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """One destination at one instant (``now_us``, Redis time).

    ``law`` holds the law's terms by name; ``counters`` all monotonic totals; ``histogram`` maps
    ``api:<upper bound us>`` and ``sent:<...>`` to counts, and ``api:sum`` to microseconds.
    """

    destination: str
    now_us: int
    law: Mapping[str, int]
    counters: Mapping[str, int]
    sizes: Mapping[str, int]
    gate: Mapping[str, str]
    config: Mapping[str, str]
    workers: Sequence[WorkerSeen]
    daemons: int
    outcomes: Mapping[str, int]
    histogram: Mapping[str, float]

    @property
    def difference(self) -> int:
        """What came in less what is accounted for: 0 when the law holds."""
        arrived = sum(self.law[term] for term in IN_TERMS)
        return arrived - sum(self.law[term] for term in (*END_TERMS, *CONTAINERS))

    @property
    def sound(self) -> bool:
        """Whether the conservation law holds."""
        return self.difference == 0

    @property
    def unfinished(self) -> int:
        """Messages that still want sending: ready, scheduled and leased."""
        return self.law["ready"] + self.law["scheduled"] + self.law["leased"]

    @property
    def held_back(self) -> int:
        """Messages that wait with their campaigns, which are paused; they are among the
        scheduled."""
        return self.sizes.get("campaign_paused", 0)

    @property
    def to_send(self) -> int:
        """Messages that are sent by themselves, now or later: unfinished, and not held back."""
        return self.unfinished - self.held_back

    @property
    def ceiling(self) -> float:
        """Requests/s at most: as an operator set it live, or as configured."""
        return float(self.gate.get("rate_set") or self.config.get("rate") or 0)

    @property
    def rate(self) -> float:
        """Requests/s now: not above the pace that the provider's answers allow."""
        return min(self.ceiling, float(self.gate.get("pace", self.ceiling)))

    @property
    def fill(self) -> float:
        """Messages that a request carries: as it was so far where they are merged, else 1."""
        requests = self.counters.get("merged_requests", 0)
        merges = int(self.config.get("merge_most", 1)) > 1
        return self.counters["merged_messages"] / requests if merges and requests else 1.0

    @property
    def usable_connections(self) -> int:
        """Connections in use by feedback, of those that are configured."""
        most = int(self.config.get("connections", 0))
        return min(most, max(1, ceil(float(self.gate.get("conc", most)))))

    @property
    def forward_lag(self) -> int | None:
        """Events that were told, and are not yet handed on to the app's own URL; None where none
        is configured."""
        if not self.config.get("deliver_to"):
            return None
        n = self.counters
        return n.get("events", 0) - n.get("events_forwarded", n.get("events_trimmed", 0))

    def intake_shut(self) -> str | None:
        """Why a daemon keeps intake shut now: Redis has no memory to spare. None where it does
        not."""
        found = _FULL.match(self.gate.get("full", ""))
        return found[2] if found and int(found[1]) > self.now_us else None

    def closed(self) -> tuple[str, float | None, str] | None:
        """(what, seconds left or None for ever, why) while paused, held, or the breaker is open,
        else None."""
        for what, field in (("paused", "pause"), (self.gate.get("hold_kind", "held"), "hold")):
            until = float(self.gate.get(f"{field}_until", "0"))
            if until == -1:
                return what, None, self.gate.get(f"{field}_why", "")
            if until > self.now_us:
                return what, (until - self.now_us) / 1e6, self.gate.get(f"{field}_why", "")
        if "breaker" in self.gate:
            # Its wait is over: the next message is the probe.
            return "breaker", 0.0, self.gate.get("breaker_why", "")
        return None


def decode_census(destination: str, reply: Sequence[Any]) -> Census:
    """Decodes the reply of ``census.lua``."""
    now, counters, gate, cfg, workers, slots, facts, outcomes, histogram, sizes, daemons = reply
    now_us = int(now)
    n = {name: int(value) for name, value in _pairs(counters)}
    size = {name: int(float(value)) for name, value in _pairs(sizes)}
    law = {term: n.get(term, 0) for term in (*IN_TERMS, *END_TERMS)}
    law |= {term: size[term] for term in CONTAINERS}
    held = {name: int(value) for name, value in _pairs(slots)}
    told = dict(_pairs(facts))
    return Census(
        destination=destination,
        now_us=now_us,
        law=law,
        counters=n,
        sizes=size,
        gate=dict(_pairs(gate)),
        config=dict(_pairs(cfg)),
        workers=[
            WorkerSeen(
                id=name,
                live=float(until) > now_us,
                lease_left_s=(float(until) - now_us) / 1e6,
                slots=held.get(name, 0),
                facts=json.loads(told.get(name) or "{}"),
            )
            for name, until in _pairs(workers)
        ],
        daemons=sum(1 for _, until in _pairs(daemons) if float(until) > now_us),
        outcomes={name: int(value) for name, value in _pairs(outcomes)},
        histogram={name: float(value) for name, value in _pairs(histogram)},
    )


def _pairs(flat: Sequence[Any]) -> list[tuple[str, str]]:
    texts = [_text(item) for item in flat]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
