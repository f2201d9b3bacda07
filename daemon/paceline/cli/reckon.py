"""A census as what a plan reckons with: the pace, what binds it, what the plan rests on. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from paceline.census import CONTAINERS, Census
from paceline.cli import explain
from paceline.cli.words import count_of, in_words
from paceline.errors import NotPossible
from paceline.plan import Pace, round_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """What a destination sends by, and what keeps it from being faster (``binds``).

    ``rate``       messages a second that it may send: requests, as full as they were so far
    ``able``       messages a second that the open connections carry, None where nothing is known
    ``latency_s``  the provider's mean latency, None likewise
    ``notes``      what the figures rest on, where it may be otherwise
    """

    pace: Pace
    binds: Literal["rate", "connections"]
    rate: float
    able: float | None
    latency_s: float | None
    notes: tuple[str, ...]

    @property
    def why(self) -> str:
        """What binds, for people."""
        if self.binds == "rate":
            return f"{per_s(self.pace.per_s)}: the rate binds"
        return f"{per_s(self.pace.per_s)}: the connections bind, below the rate of " + per_s(
            self.rate
        )

    def ask_for(self, needed: float) -> str:
        """What would carry ``needed`` messages a second, which is more than the pace."""
        wanted = []
        if needed > self.rate:
            wanted.append(f"a rate of {per_s(round_up(needed))}")
        if self.able is not None and self.latency_s is not None and needed > self.able:
            count = count_of(math.ceil(needed * self.latency_s), "connection")
            wanted.append(f"{count} at {in_words(self.latency_s)} a request")
        return " and ".join(wanted)


def reckon(census: Census, until_s: float | None = None) -> Reckoning:
    """What the destination sends by. ``until_s``, seconds from the census, leaves out what is
    scheduled for later than that. Raises NotPossible where no rate is known."""
    rate = explain.rate(census)
    if rate <= 0:
        raise NotPossible(
            f"planning for {census.destination!r}",
            "its rate is not known",
            "Start its daemon once, with a configuration",
        )
    able = explain.capacity(census)
    latency_s = None if able is None else explain.connections(census) / able
    rate, able = rate * census.fill, able and able * census.fill
    bound = able is not None and able < rate
    closed_s = max((c.left_s or 0.0 for c in explain.closures(census)), default=0.0)
    return Reckoning(
        pace=Pace(
            per_s=able if bound and able is not None else rate,
            ahead=_ahead(census, until_s),
            closed_s=closed_s,
        ),
        binds="connections" if bound else "rate",
        rate=rate,
        able=able,
        latency_s=latency_s,
        notes=tuple(_notes(census, until_s, measured=able is not None)),
    )


def room(census: Census) -> int | None:
    """How many messages more the outbox takes; None where its limit is not known."""
    most = census.config.get("max_count")
    if most is None:
        return None
    return max(0, int(float(most)) - sum(census.law[name] for name in CONTAINERS))


def per_s(rate: float) -> str:
    """A rate for people: ``13.5/s``, ``1,200/s``."""
    return f"{rate:,.0f}/s" if rate >= 1000 else f"{rate:.3g}/s"


def _ahead(census: Census, until_s: float | None) -> int:
    if until_s is not None and census.sizes.get("next_due_us", 0) / 1e6 > until_s:
        return census.unfinished - census.law["scheduled"]
    return census.to_send


def _notes(census: Census, until_s: float | None, *, measured: bool) -> list[str]:
    notes = []
    if census.fill > 1:
        notes.append(f"a request carries {census.fill:.0f} messages, as on average so far")
    for closure in explain.closures(census):
        as_if = "counted" if closure.left_s is not None else "reckoned as if it were resumed now"
        notes.append(f"{closure.text}; {as_if}")
    if census.held_back:
        notes.append(f"{census.held_back:,} of paused campaigns wait besides, and are left out")
    if "draining" in census.gate:
        notes.append(f"draining: it takes nothing new until: paceline resume {census.destination}")
    if not census.daemons:
        notes.append("no daemon runs; reckoned as if one did")
    if not explain.live_workers(census):
        notes.append("no live worker; reckoned as if there were enough of them")
    elif not measured:
        notes.append("no request was measured yet: what the connections carry is not known")
    if (
        until_s is not None
        and census.sizes.get("next_due_us", 0) / 1e6 <= until_s
        and census.sizes.get("last_due_us", 0) / 1e6 > until_s
    ):
        notes.append(
            f"{census.law['scheduled']:,} are scheduled, some for later than that; "
            "reckoned as if all of them went first"
        )
    return notes
