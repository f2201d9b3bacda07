"""What is known of endpoints, for people and for programs. Pure."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from paceline.census import Census
from paceline.cli.words import count_of, excerpt, in_words, local_time
from paceline.endpoints import EndpointSeen, State, Turn, lane_of
from paceline.errors import PacelineError
from paceline.settings import without_query_values

#: In the order in which an operator wants to see them.
STATES: Final[tuple[State, ...]] = ("disabled", "waiting", "failing", "well")

#: Columns of the table that are set to the right.
_NUMBERS: Final = range(2, 6)


def unknown_endpoint(destination: str, name: str, known: Iterable[str]) -> PacelineError:
    """The error that names the nearest of those that are registered, or says that what is
    registered under this very name is nothing of ours."""
    known = list(known)
    if name in known:
        return PacelineError(
            f"what is registered of endpoint {name!r} of {destination!r} cannot be read: another "
            "program wrote there",
            f"Register it again: paceline endpoints add {destination} {name} URL",
        )
    near = nearest(name, known)
    mend = f"Did you mean {near}? " if near else ""
    return PacelineError(
        f"destination {destination!r} has no endpoint {name!r}",
        f"{mend}All of them: paceline endpoints list {destination}",
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """ "acme or acme2"; "" where none is near."""
    return " or ".join(difflib.get_close_matches(name, list(known), 2))


def by_trouble(seen: EndpointSeen) -> tuple[int, str]:
    """A key to sort by: those in trouble first, and by name."""
    return STATES.index(seen.state), seen.name


def seen_view(seen: EndpointSeen) -> dict[str, Any]:
    """For --json. None: as the destination has it for all; times in unix seconds."""
    it = seen.endpoint
    return {
        "name": seen.name,
        "state": seen.state,
        "failures": seen.failures,
        "since": seen.since,
        "until": seen.until,
        "waiting": seen.waiting,
        "leased": seen.leased,
        "why": seen.why or None,
        "url": without_query_values(it.url),
        "in_flight": it.in_flight,
        "rate": it.rate,
        "burst": it.burst,
        "ordered": it.ordered,
    }


def states_text(counts: Mapping[str, int]) -> str:
    """ "4,997 well, 2 failing, 1 disabled"."""
    told = [f"{counts[state]:,} {state}" for state in reversed(STATES) if counts.get(state)]
    return ", ".join(told) or "none"


def count_states(found: Iterable[EndpointSeen]) -> dict[str, int]:
    """How many are in each state, all four of them."""
    counts = Counter(seen.state for seen in found)
    return {state: counts[state] for state in reversed(STATES)}


def left_text(until: float | None, now: float) -> str:
    """How long a wait lasts yet, "" where none is."""
    return "" if until is None else in_words(max(0.0, until - now))


def seen_table(shown: Sequence[EndpointSeen], now: float) -> str:
    """A line each, below a line of headings. Columns by hand: thousands take no time so."""
    rows = [("name", "state", "failures", "for", "waiting", "leased", "why", "url")]
    rows += [
        (
            seen.name,
            seen.state,
            f"{seen.failures:,}" if seen.failures else "-",
            left_text(seen.until, now) or "-",
            f"{seen.waiting:,}",
            f"{seen.leased:,}",
            excerpt(seen.why, 60) or "-",
            excerpt(without_query_values(seen.endpoint.url), 300),
        )
        for seen in shown
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place in _NUMBERS else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def seen_text(seen: EndpointSeen, destination: str, now: float) -> str:
    """One endpoint in full; ``now`` in unix seconds."""
    it = seen.endpoint
    lines = [
        f"{destination} {seen.name}: {seen.state}",
        f"  url         {without_query_values(it.url)}",
    ]
    if seen.why:
        lines.append(f"  why         {excerpt(seen.why, 200)}")
    if seen.failures:
        lines.append(f"  failures    {seen.failures:,} in a row")
    if seen.since is not None:
        ago = in_words(max(0.0, now - seen.since))
        lines.append(f"  since       {local_time(seen.since)} ({ago} ago)")
    if seen.until is not None:
        lines.append(f"  until       {local_time(seen.until)} (in {left_text(seen.until, now)})")
    own = [
        *([f"{count_of(it.in_flight, 'request')} in flight"] if it.in_flight is not None else []),
        *([f"{it.rate:g}/s" if it.rate else "no cap of its rate"] if it.rate is not None else []),
        *([f"burst {it.burst:,}"] if it.burst is not None else []),
        *(["in order"] if it.ordered else []),
    ]
    lines.append(f"  of its own  {', '.join(own) or 'nothing: all is as the destination has it'}")
    lines.append(f"  waits       {seen.waiting:,} without a key, {seen.leased:,} with workers")
    if seen.state == "disabled":
        lines.append(f"  mend        paceline endpoints enable {destination} {seen.name}")
    return "\n".join(lines)


def lane_text(lane: str) -> str:
    """ "endpoint acme, key order-17"."""
    name, key = lane_of(lane)
    return f"endpoint {name}" + (f", key {key}" if key else "")


def why_lane_waits(
    destination: str, lane: str, seen: EndpointSeen | None, turn: Turn | None, census: Census
) -> str | None:
    """Why a message of an endpoint is not sent now, where that is the endpoint's doing, or that of
    its order; ``seen`` is None where it is not registered, ``turn`` where it is in no order."""
    name, _ = lane_of(lane)
    if seen is None:
        return (
            f"its endpoint {name} is registered no more; "
            f"paceline endpoints add {destination} {name} URL has it sent"
        )
    now, why = census.now_us / 1e6, excerpt(seen.why, 200)
    if seen.state == "disabled":
        return (
            f"its endpoint {name} is disabled: {why}; "
            f"paceline endpoints enable {destination} {name} has it sent"
        )
    if seen.until is not None:
        after = f", after {count_of(seen.failures, 'failure')}: {why}" if seen.failures else ""
        when = f"{local_time(seen.until)}, in {left_text(seen.until, now)}"
        return f"nothing is sent to {name} until {when}{after}"
    if turn is not None and turn.under_way:
        return f"another of {lane_text(lane)} is under way, and they go one after the other"
    if turn is not None and turn.until is not None and turn.until > now:
        when = f"{local_time(turn.until)}, in {left_text(turn.until, now)}"
        return f"the first of {lane_text(lane)} is tried again {when}, and they go in order"
    most = 1 if seen.state == "failing" else seen.endpoint.in_flight or _in_flight(census)
    if seen.leased >= most:
        under_way = f"{count_of(seen.leased, 'message')} of {name} under way or with workers"
        fails = f", for it fails: {why}" if seen.state == "failing" else ""
        return f"{under_way}, and no more than {most:,} may be{fails}"
    return None


def _in_flight(census: Census) -> int:
    """Of each, as the destination has it (as shared_config.py writes it)."""
    return int(census.config["endpoints"].split()[0])
