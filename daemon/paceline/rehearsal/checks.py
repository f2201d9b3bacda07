"""The verdict: one line for each thing that must be right, with what to look at when it is not.

Pure. A rehearsal has passed when every check has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.census import CONTAINERS, END_TERMS, IN_TERMS, Census
from paceline.rehearsal.evidence import Evidence
from paceline.rehearsal.measures import Achieved, achieved, busy_spans, excesses
from paceline.rehearsal.plan import Plan
from paceline.rehearsal.reconcile import Findings

_SHOWN = 5
#: From this part of the CPU time on, that the host took it is told beside a rate that failed.
_STARVED = 0.05


@dataclass(frozen=True, slots=True)
class Check:
    """``what`` was found; ``look`` is where to look further, shown when it failed."""

    name: str
    ok: bool
    what: str
    look: str = ""


def judge(plan: Plan, evidence: Evidence, findings: Findings, connections: int) -> list[Check]:
    """All checks. ``connections`` is the account's allowance as configured in effect."""
    return [
        _nothing_lost(evidence, findings),
        _nothing_unfinished(evidence, findings),
        _dead_letters(findings),
        _refusals(evidence, findings),
        _strangers(findings),
        _duplicates(findings),
        _bytes_kept(evidence, findings),
        _law(evidence),
        _pace(plan, evidence),
        _rate(plan, evidence),
        _connections(evidence, connections),
        _exits(evidence),
        _time(plan, evidence),
    ]


def rate_achieved(plan: Plan, evidence: Evidence) -> Achieved:
    """As ``measures`` defines it, from the sink's arrivals and the looks at the outbox."""
    times = sorted(arrival.wall_ns // 1000 for arrival in evidence.arrivals)
    spans = busy_spans(evidence.samples, plan.rate, times[0] if times else 0)
    return achieved(times, spans, plan.rate)


def law_equation(census: Census) -> str:
    """The conservation law with its numbers; terms of nought on the right are left out."""
    left = " + ".join(f"{term} {census.law[term]:,}" for term in IN_TERMS)
    terms = (*END_TERMS, *CONTAINERS)
    right = " + ".join(f"{term} {census.law[term]:,}" for term in terms if census.law[term])
    sign = "=" if census.sound else "≠"
    rest = "" if census.sound else f"   (difference {census.difference:+,})"
    return f"{left} {sign} {right or '0'}{rest}"


def _nothing_lost(evidence: Evidence, found: Findings) -> Check:
    bad = [*found.lost, *found.unseen]
    accepted = evidence.census.law["accepted"]
    agree = accepted == len(evidence.entries)
    what = f"{len(evidence.entries):,} acknowledged, each sent and seen, or dead with a reason"
    if found.lost:
        what = f"lost: {_some(found.lost)} acknowledged, and unknown to the outbox"
    elif found.unseen:
        what = f"lost: {_some(found.unseen)} sent says the outbox, never accepted says the sink"
    elif not agree:
        what = f"{len(evidence.entries):,} in the ledger, but {accepted:,} accepted by the outbox"
    look = "look the ids up in ledger.jsonl, arrivals.jsonl, and the workers' logs"
    return Check("nothing lost", not bad and agree, what, look)


def _nothing_unfinished(evidence: Evidence, found: Findings) -> Check:
    unfinished, disposed = found.unfinished, found.disposed
    what = "nothing waits any more"
    if unfinished or evidence.census.unfinished:
        law = evidence.census.law
        waits = ", ".join(f"{law[term]:,} {term}" for term in ("ready", "scheduled", "leased"))
        what = f"unfinished: {_some(unfinished)} ({waits})"
    elif disposed:
        what = f"cancelled, expired or dropped, and nobody asked for it: {_some(disposed)}"
    look = "outbox.jsonl has their state and attempts; daemon.log, worker-N.log why they wait"
    ok = not (unfinished or disposed or evidence.census.unfinished)
    return Check("nothing unfinished", ok, what, look)


def _dead_letters(found: Findings) -> Check:
    bad = [*found.unreasoned, *found.missent, *found.misjudged]
    count = sum(found.dead_reasons.values())
    what = f"{count:,} dead or parked, each with its reason; no invalid message was sent"
    if found.unreasoned:
        what = f"without a reason: {_some(found.unreasoned)}"
    elif found.missent:
        what = f"invalid, and yet sent: {_some(found.missent)}"
    elif found.misjudged:
        what = f"dead though accepted by the sink, nothing ambiguous: {_some(found.misjudged)}"
    return Check("dead letters", not bad, what, "outbox.jsonl has their attempts")


def _refusals(evidence: Evidence, found: Findings) -> Check:
    what = f"{len(evidence.refusals):,} refused at once, all of them invalid, each with a reason"
    if found.misrefused:
        first = next(r for r in evidence.refusals if r.id == found.misrefused[0])
        what = f"refused though valid: {_some(found.misrefused)} ({first.error})"
    return Check("refusals", not found.misrefused, what, "ledger.jsonl has the errors")


def _strangers(found: Findings) -> Check:
    what = "nothing reached the sink that is not in the ledger"
    if found.strangers:
        what = f"at the sink, not in the ledger: {_some(found.strangers)}"
    return Check("no strangers", not found.strangers, what, "arrivals.jsonl has the requests")


def _duplicates(found: Findings) -> Check:
    causes = ", ".join(f"{cause} {n}" for cause, n in sorted(found.duplicate_causes.items()))
    what = f"{len(found.duplicates)} accepted twice, each after an ambiguous attempt: {causes}"
    if not found.duplicates:
        what = "none"
    if found.unexplained:
        what = f"UNEXPLAINED: {_some(found.unexplained)} of {len(found.duplicates)} duplicates"
    look = "compare arrivals.jsonl with the attempts in outbox.jsonl"
    return Check("duplicates", not found.unexplained, what, look)


def _bytes_kept(evidence: Evidence, found: Findings) -> Check:
    size = sum(entry.bytes for entry in evidence.entries)
    what = f"{size / 1e6:.1f} MB acknowledged; what arrived is the same to the last byte"
    if found.altered:
        what = f"altered on the way: {_some(found.altered)}"
    return Check("bytes kept", not found.altered, what, "compare the hashes in ledger.jsonl")


def _law(evidence: Evidence) -> Check:
    unsound = [sample for sample in evidence.samples if sample.difference]
    what = law_equation(evidence.census)
    if evidence.census.sound:
        what += f"; and at {len(evidence.samples) - len(unsound)} looks on the way"
    if evidence.census.sound and unsound:
        what += f", but not at {len(unsound)} others, first {unsound[0].difference:+,}"
    look = "serve the folder's redis/ again and run: paceline audit --deep"
    return Check("conservation law", evidence.census.sound and not unsound, what, look)


def _pace(plan: Plan, evidence: Evidence) -> Check:
    times = [arrival.mono_ns for arrival in evidence.arrivals]
    margins = excesses(times, plan.rate, plan.burst)
    over = {name: margin for name, margin in margins.items() if margin > 0}
    what = f"no window over {plan.burst} + {plan.rate:g} · length: " + ", ".join(
        f"{name} {-margin:.0f} below" for name, margin in margins.items()
    )
    if over:
        what = "excess: " + ", ".join(
            f"{margin:.1f} requests over in a window of {name}" for name, margin in over.items()
        )
    return Check("pace", not over, what, "arrivals.jsonl has every request's time (mono_ns)")


def _rate(plan: Plan, evidence: Evidence) -> Check:
    net = rate_achieved(plan, evidence)
    if net.rate is None:
        return Check("rate", False, "there was no time with enough ready messages to measure it")
    share = net.rate / plan.rate
    what = (
        f"{net.rate:.1f}/s of {plan.rate:g}/s ({share:.1%}) over {net.busy_s:.1f} s with messages "
        f"ready; at least {plan.least:.0%} is asked"
    )
    look = "looks.jsonl has ready and leased by time; is the machine busy? the workers' logs"
    if share < plan.least and evidence.stolen >= _STARVED:
        # It fails all the same: a starved machine cannot be told from a slow sender by its rate.
        look = f"the host took {evidence.stolen:.0%} of this machine's CPU time meanwhile; {look}"
    return Check("rate", share >= plan.least, what, look)


def _connections(evidence: Evidence, allowed: int) -> Check:
    seen = evidence.sink["connections"]
    what = f"at most {seen['max_open']} open at once of {allowed}; {seen['opened']} opened"
    look = "the sink's /_sink/connections, and the slots in: paceline status --json"
    return Check("connections", seen["max_open"] <= allowed, what, look)


def _exits(evidence: Evidence) -> Check:
    bad = {name: code for name, code in evidence.exits.items() if code != 0}
    what = f"{', '.join(evidence.exits)}: ended in this order, each with code 0"
    if bad:
        what = ", ".join(f"{name} ended with code {code}" for name, code in bad.items())
    return Check("orderly end", not bad, what, "NAME.log has its last words")


def _time(plan: Plan, evidence: Evidence) -> Check:
    what = f"{evidence.elapsed_s:.1f} s of {plan.within_s:g} s"
    look = "waits after 503 alone may take long for this seed: see the forecast in the report"
    return Check("time", evidence.elapsed_s <= plan.within_s, what, look)


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{len(ids)} message{'' if len(ids) == 1 else 's'} ({', '.join(ids[:_SHOWN])}{more})"
