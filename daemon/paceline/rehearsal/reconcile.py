"""The reconciliation: ledger against sink against outbox. Pure.

Three witnesses that do not know each other: the **ledger** (what was acknowledged to the sender),
the **sink** (what the provider saw and accepted), the **outbox** (what Paceline says became of each
message). The promise: every acknowledged message is sent and was seen accepted, or is dead or
parked with a reason; nothing else reached the provider; what reached it twice has an ambiguous
attempt in its history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paceline.rehearsal.ledger import Entry, Refusal
from paceline.sink.record import Arrival

_WAITING = ("ready", "scheduled", "leased", "begun")
_SHELVED = ("dead", "parked")
_CAUSES = {
    "reset": "reset",
    "timeout": "timeout",
    "deadline": "timeout",
    "eof": "eof",
    "lease-expired": "lease-expired",
    "unreadable": "unreadable",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """What the outbox says of one message: its state, its payload's SHA-1 where it has ended, and
    its attempts on record (none for one sent at the first)."""

    state: str
    sha1: str | None = None
    attempts: Sequence[Mapping[str, Any]] = ()

    @property
    def reason(self) -> str:
        """The last attempt's reason, "" where there is none."""
        return str(self.attempts[-1].get("reason", "")) if self.attempts else ""

    @property
    def causes(self) -> list[str]:
        """Of each ambiguous attempt, what made it so."""
        return [
            cause_of(str(attempt.get("reason", "")))
            for attempt in self.attempts
            if attempt.get("outcome") == "ambiguous"
        ]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A message accepted ``times`` > 1 by the sink, with the causes of its ambiguous attempts."""

    id: str
    times: int
    causes: tuple[str, ...]
    explained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the three witnesses say together; every list but ``duplicates`` should be empty.

    lost          acknowledged, and unknown to the outbox
    unseen        the outbox says sent, the sink never accepted it
    unfinished    still ready, scheduled or leased
    unreasoned    dead or parked without a reason on record
    disposed      cancelled, expired or dropped: nobody asked for that here
    missent       invalid, and yet sent
    misjudged     dead or parked, accepted by the sink, and nothing ambiguous in its history
    altered       other bytes at the sink, or another hash in the outbox, than were acknowledged
    strangers     at the sink, not in the ledger; "(no id)" for requests without one
    misrefused    valid, and yet refused, or refused without a reason
    duplicates    accepted more than once, explained or not
    """

    lost: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    unreasoned: list[str] = field(default_factory=list)
    disposed: list[str] = field(default_factory=list)
    missent: list[str] = field(default_factory=list)
    misjudged: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    misrefused: list[str] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    dead_reasons: Counter[str] = field(default_factory=Counter)
    duplicate_causes: Counter[str] = field(default_factory=Counter)

    @property
    def unexplained(self) -> list[str]:
        """Ids of the duplicates that no ambiguous attempt explains."""
        return [found.id for found in self.duplicates if not found.explained]


def reconcile(
    entries: Sequence[Entry],
    refusals: Sequence[Refusal],
    arrivals: Iterable[Arrival],
    facts: Mapping[str, Fact],
) -> Findings:
    """Compares. ``facts`` has no key for an id that the outbox does not know."""
    findings = Findings()
    seen: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        seen.setdefault("(no id)" if arrival.id is None else arrival.id, []).append(arrival)
    known = {entry.id for entry in entries}
    findings.strangers.extend(sorted(seen.keys() - known))
    findings.misrefused.extend(r.id for r in refusals if r.kind != "refused" or not r.error)
    for entry in entries:
        _judge(entry, seen.get(entry.id, []), facts.get(entry.id), findings)
    return findings


def _judge(
    entry: Entry, arrivals: Sequence[Arrival], fact: Fact | None, findings: Findings
) -> None:
    accepted = [arrival for arrival in arrivals if arrival.accepted]
    hashed = fact.sha1 if fact is not None else None
    if hashed not in (None, entry.sha1) or any(a.sha256 != entry.body for a in accepted):
        findings.altered.append(entry.id)
    if len(accepted) > 1:
        causes = tuple(fact.causes) if fact is not None else ()
        explained = len(accepted) - 1 <= _may_have_acted(causes, arrivals)
        findings.duplicates.append(Duplicate(entry.id, len(accepted), causes, explained))
        # A reset or time-out is the likelier culprit than an error that was answered.
        likely = sorted(causes, key=lambda cause: cause == "status")[: len(accepted) - 1]
        findings.duplicate_causes.update(likely if explained else ["UNEXPLAINED"])
    if fact is None:
        findings.states["lost"] += 1
        findings.lost.append(entry.id)
        return
    findings.states[fact.state] += 1
    if fact.state == "sent":
        if not accepted:
            findings.unseen.append(entry.id)
        if entry.kind != "good":
            findings.missent.append(entry.id)
    elif fact.state in _SHELVED:
        findings.dead_reasons[fact.reason or "(no reason)"] += 1
        if not fact.reason:
            findings.unreasoned.append(entry.id)
        if accepted and not fact.causes:
            findings.misjudged.append(entry.id)
    elif fact.state in _WAITING:
        findings.unfinished.append(entry.id)
    else:
        findings.disposed.append(entry.id)


def _may_have_acted(causes: Sequence[str], arrivals: Sequence[Arrival]) -> int:
    """How many ambiguous attempts can have been accepted: those that the sink itself saw fail
    without acting (a 500, a reset before the body) explain no duplicate."""
    idle = sum(
        not a.accepted and (a.status is None or (a.status >= 500 and a.status != 503))
        for a in arrivals
    )
    return len(causes) - idle


def cause_of(reason: str) -> str:
    """reset, timeout, eof, lease-expired, unreadable or status, from an attempt's reason."""
    word = reason.partition(":")[0].partition(" on ")[0].partition(";")[0].strip()
    if word.startswith("HTTP"):
        return "status"
    return _CAUSES.get(word, "unreadable" if "cannot be read" in reason else "other")
