"""Ledger, sink and outbox, compared at the end of a scene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paceline.audit import DeepAudit
from paceline.rehearsal import ledger as ledgers
from paceline.rehearsal.evidence import collect_facts
from paceline.rehearsal.reconcile import Fact, Findings, reconcile
from rampage.deeds import Done
from rampage.scene import Scene

#: Of these there must be none. Dead and parked are no losses: they are kept, with a reason.
NONE_OF = (
    "lost", "unseen", "unfinished", "unreasoned", "disposed", "missent", "misjudged", "altered",
    "strangers", "misrefused", "unexplained",
)  # fmt: skip
RECOVERY_S = 10.0
_SHOWN = 5


def judge(
    scene: Scene,
    ledger: Path,
    done: Sequence[Done],
    facts: Mapping[str, Fact] | None = None,
    *,
    of_all_causes: bool = True,
) -> dict[str, Any]:
    """Figures of one scene, JSON-able; ``wrong`` lists in words what must not be. ``facts`` where
    the outbox's records have been read on the way, and may be gone. Bounded by the kills are
    duplicates of all causes, or those alone that a kill explains."""
    entries, refusals = ledgers.read(ledger)
    if facts is None:
        facts = collect_facts(scene.store, [entry.id for entry in entries])
    arrivals = scene.all_arrivals()
    findings = reconcile(entries, refusals, arrivals, facts)
    census = scene.store.census()
    deep = DeepAudit(scene.store).run()
    kills = [it for it in done if it.counts]
    extra = sum(duplicate.times - 1 for duplicate in findings.duplicates)
    # What a worker may leave behind at most: of a Redis or daemon killed, nothing is left behind.
    most = len(kills) * (scene.connections // scene.workers)
    wrong = [_words(findings, name, facts) for name in NONE_OF if getattr(findings, name)]
    bounded = extra if of_all_causes else findings.duplicate_causes["lease-expired"]
    if bounded > most:
        wrong.append(f"{bounded} duplicates: more than {most}, kills x connections of a worker")
    if not census.sound:
        wrong.append(f"the conservation law: {dict(census.law)}")
    if not deep.sound:
        wrong.append(f"audit --deep: {dict(deep.counts)} {deep.faults[:_SHOWN]}")
    wrong += [
        f"recovered after {it.recovery_s:.1f} s: {it.deed}"
        for it in done
        if it.recovery_s >= RECOVERY_S
    ]
    wrong += [f"exit code {it.code}: {it.deed}" for it in done if it.code and not it.kill]
    return {
        "way": scene.way,
        "acknowledged": len(entries),
        "requests": len(arrivals),
        "states": dict(findings.states),
        "dead_reasons": dict(findings.dead_reasons),
        "faults": dict(Counter(a.fault for a in arrivals)),
        "lost": len(findings.lost) + len(findings.unseen),
        "duplicates": extra,
        "duplicates_allowed": most,
        "duplicate_causes": dict(findings.duplicate_causes),
        "unexplained": len(findings.unexplained),
        "law": dict(census.law),
        "audit_deep": "sound" if deep.sound else dict(deep.counts),
        "wrong": wrong,
    }


def _words(findings: Findings, name: str, facts: Any) -> str:
    ids = getattr(findings, name)
    about = [f"{i} {facts.get(i)}" for i in ids[:_SHOWN]]
    return f"{len(ids)} {name}: {about}"
