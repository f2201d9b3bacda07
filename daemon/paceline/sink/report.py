"""The summary of what a sink saw. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from paceline.sink.connections import ConnectionRecord, max_open
from paceline.sink.record import Arrival, ArrivalLog
from paceline.sink.windows import max_count, smoothness

PACE_WINDOWS_S = (0.1, 1.0, 10.0)
_SHOWN = 20


class Requests(msgspec.Struct, frozen=True):
    """Requests per connection."""

    min: int
    median: float
    max: int


class Connections(msgspec.Struct, frozen=True):
    """Connections, without those of the control endpoint."""

    opened: int
    max_open: int
    open: int
    requests_per_connection: Requests


class Pace(msgspec.Struct, frozen=True):
    """Rate over the whole span, and the most arrivals in any window of 0.1, 1 and 10 s."""

    rate: float
    span_s: float
    gap_cv: float
    max_in_window: dict[str, int]


class Report(msgspec.Struct, frozen=True):
    """``duplicates``: ids accepted more than once, each with all its arrivals.

    ``recipients`` were accepted in all; ``exposed_recipients`` of them can read one another's
    addresses. ``repeated_recipients`` are the addresses accepted more than once, each with how
    often; with ``distinct_recipients`` it is null unless addresses are kept (``--recipients``).

    ``answered`` counts whole answers by HTTP status; ``faults`` counts arrivals by what was
    played, "ok" among them; ``open`` are arrivals under way.
    """

    profile: str
    arrivals: int
    open: int
    accepted: int
    recipients: int
    exposed_recipients: int
    distinct_recipients: int | None
    repeated_recipients: dict[str, int] | None
    distinct_ids: int
    without_id: int
    duplicates: dict[str, list[Arrival]]
    faults: dict[str, int]
    answered: dict[str, int]
    connections: Connections
    pace: Pace
    latency_asked: str
    faults_asked: str
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, as in the JSON."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def make_report(
    log: ArrivalLog,
    connections: Sequence[ConnectionRecord],
    *,
    profile: str,
    latency: str,
    faults: str,
    seed: int,
) -> Report:
    """Sum up a log."""
    arrivals = log.all()
    accepted: dict[str, int] = {}
    answered: dict[str, int] = {}
    ids: set[str] = set()
    anonymous = 0
    for arrival in arrivals:
        if arrival.id is None:
            anonymous += 1
        else:
            ids.add(arrival.id)
            if arrival.accepted:
                accepted[arrival.id] = accepted.get(arrival.id, 0) + 1
        status = "none" if arrival.status is None else str(arrival.status)
        answered[status] = answered.get(status, 0) + 1
    addresses = log.addresses
    repeated = None
    if addresses is not None:
        repeated = {address: count for address, count in addresses.items() if count > 1}
    duplicates: dict[str, list[Arrival]] = {i: [] for i, n in accepted.items() if n > 1}
    if duplicates:
        for arrival in arrivals:
            if arrival.id in duplicates:
                duplicates[arrival.id].append(arrival)
    return Report(
        profile=profile,
        arrivals=len(arrivals),
        open=len(log.open),
        accepted=sum(arrival.accepted for arrival in arrivals),
        recipients=sum(arrival.recipients for arrival in arrivals),
        exposed_recipients=sum(arrival.exposed for arrival in arrivals),
        distinct_recipients=None if addresses is None else len(addresses),
        repeated_recipients=repeated,
        distinct_ids=len(ids),
        without_id=anonymous,
        duplicates=duplicates,
        faults=dict(sorted(log.faults.items())),
        answered=dict(sorted(answered.items())),
        connections=_connections(connections),
        pace=_pace([arrival.mono_ns for arrival in arrivals]),
        latency_asked=latency,
        faults_asked=faults,
        seed=seed,
    )


def _connections(records: Sequence[ConnectionRecord]) -> Connections:
    counts = [record.requests for record in records] or [0]
    return Connections(
        opened=len(records),
        max_open=max_open(records),
        open=sum(record.closed_ns is None for record in records),
        requests_per_connection=Requests(min(counts), float(median(counts)), max(counts)),
    )


def _pace(times: list[int]) -> Pace:
    even = smoothness(times)
    rate = even.rate if even.span_s > 0 else 0.0
    windows = {f"{window_s:g}s": max_count(times, window_s) for window_s in PACE_WINDOWS_S}
    return Pace(rate, even.span_s, even.gap_cv, windows)


def as_text(report: Report) -> str:
    """The report for a reader: a few aligned lines, ending in a line break."""
    connections, pace = report.connections, report.pace
    each = connections.requests_per_connection
    rows = [
        ("arrivals", f"{report.arrivals} ({report.open} still open)"),
        ("accepted", f"{report.accepted}"),
        ("recipients", _recipients(report)),
        ("distinct ids", f"{report.distinct_ids} (and {report.without_id} arrivals without id)"),
        ("accepted twice", f"{len(report.duplicates)} ids"),
        ("played", _counts(report.faults)),
        ("answered", _counts(report.answered)),
        (
            "connections",
            f"{connections.opened} opened, at most {connections.max_open} at once; requests on "
            f"each: {each.min} min, {each.median:g} median, {each.max} max",
        ),
        (
            "pace",
            f"{pace.rate:.1f}/s over {pace.span_s:.1f} s; most in any window: "
            + _counts(pace.max_in_window),
        ),
        ("latency asked", report.latency_asked),
    ]
    lines = [f"{name + ':':<16}{value}" for name, value in rows]
    for message_id, twice in list(report.duplicates.items())[:_SHOWN]:
        lines.append(f"  {message_id}: " + ", ".join(arrival.fault for arrival in twice))
    if len(report.duplicates) > _SHOWN:
        lines.append(f"  and {len(report.duplicates) - _SHOWN} more ids")
    repeated = report.repeated_recipients or {}
    lines += [f"  {address}: {count} times" for address, count in list(repeated.items())[:_SHOWN]]
    if len(repeated) > _SHOWN:
        lines.append(f"  and {len(repeated) - _SHOWN} more addresses")
    return "\n".join(lines) + "\n"


def _recipients(report: Report) -> str:
    text = f"{report.recipients}"
    if report.repeated_recipients is not None:
        text += f", {len(report.repeated_recipients)} of them more than once"
    if report.exposed_recipients:
        text += f"; {report.exposed_recipients} see the addresses of others"
    return text


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
