"""The report: figures, checks, and both of its forms. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paceline.rehearsal.checks import Check, law_equation, rate_achieved
from paceline.rehearsal.evidence import Evidence
from paceline.rehearsal.measures import excesses, histogram_quantile_s, quantile
from paceline.rehearsal.plan import Plan
from paceline.rehearsal.reconcile import Findings

_IDLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Report:
    """``figures`` are plain containers; ``passed`` when every check is."""

    plan: Plan
    figures: Mapping[str, Any]
    checks: Sequence[Check]
    folder: str

    @property
    def passed(self) -> bool:
        """The verdict."""
        return all(check.ok for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "passed": self.passed,
            "folder": self.folder,
            "plan": asdict(self.plan),
            "figures": dict(self.figures),
            "checks": [asdict(check) for check in self.checks],
        }


def figures(
    plan: Plan, evidence: Evidence, findings: Findings, forecast: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures. Times in seconds unless the name says otherwise."""
    arrivals, census = evidence.arrivals, evidence.census
    net = rate_achieved(plan, evidence)
    answer_times_ms = [
        (arrival.answered_ns - arrival.mono_ns) / 1e6
        for arrival in arrivals
        if arrival.answered_ns is not None
    ]
    counters, crowd = census.counters, evidence.crowd
    first_s = arrivals[0].wall_ns / 1e9 if arrivals else None
    begun_s = evidence.samples[0].at_us / 1e6 if evidence.samples else None
    return {
        "messages": {
            "asked": plan.messages,
            "accepted": len(evidence.entries),
            "refused": len(evidence.refusals),
            "sent": findings.states["sent"],
            "dead": findings.states["dead"],
            "parked": findings.states["parked"],
            "retried": counters.get("retried", 0),
            "states": dict(findings.states),
            "dead_reasons": dict(findings.dead_reasons),
        },
        "intake": {
            "messages_per_s": _over(evidence.taken.acknowledged, evidence.taken.seconds),
            "mb": evidence.taken.bytes / 1e6,
            "s": evidence.taken.seconds,
        },
        "sink": {
            "requests": len(arrivals),
            "accepted": evidence.sink["accepted"],
            "faults": evidence.sink["faults"],
            "answered": evidence.sink["answered"],
            "connections": evidence.sink["connections"],
        },
        "duplicates": {
            "ids": len(findings.duplicates),
            "unexplained": findings.unexplained,
            "by_cause": dict(findings.duplicate_causes),
            "each": [asdict(found) for found in findings.duplicates],
        },
        "rate": {
            "asked_per_s": plan.rate,
            "achieved_per_s": net.rate,
            "busy_s": net.busy_s,
            "requests_in_busy_time": net.requests,
            "first_request_after_s": first_s - begun_s if first_s and begun_s else None,
        },
        "margin_by_window": excesses([a.mono_ns for a in arrivals], plan.rate, plan.burst),
        "api_latency_ms": {
            "sink_p50": quantile(answer_times_ms, 0.50),
            "sink_p99": quantile(answer_times_ms, 0.99),
            "outbox_p50_at_most": _ms(histogram_quantile_s(census.histogram, "api", 0.50)),
            "outbox_p99_at_most": _ms(histogram_quantile_s(census.histogram, "api", 0.99)),
        },
        "cpu_ms_per_message": _cpu(evidence.cpu_s, len(evidence.entries)),
        "cpu_ms_per_message_while_sending": _cpu(crowd.cpu_s, crowd.ended) if crowd else None,
        "cpu_ms_per_idle_s": _idle(evidence),
        "law": law_equation(census),
        "outcomes": dict(census.outcomes),
        "forecast": dict(forecast),
        "run_s": evidence.run_s,
        "elapsed_s": evidence.elapsed_s,
    }


def _cpu(cpu_s: Mapping[str, float | None], count: float) -> dict[str, float | None]:
    """Milliseconds by kind of process, for each of ``count``; None where it is not known."""
    shares: dict[str, float | None] = {}
    for part in ("daemon", "worker", "redis"):
        seconds = [s for name, s in cpu_s.items() if name.startswith(part)]
        known = [s for s in seconds if s is not None]
        whole = len(known) == len(seconds) and count > 0
        shares[part] = sum(known) / count * 1e3 if whole else None
    parts = list(shares.values())
    shares["total"] = None if None in parts else sum(p for p in parts if p is not None)
    return shares


def _idle(evidence: Evidence) -> dict[str, float | None] | None:
    """What waiting costs: CPU for each second after which only retries were left; None where there
    were less than _IDLE_S of them."""
    crowd = evidence.crowd
    if crowd is None or evidence.run_s - crowd.at_s < _IDLE_S:
        return None
    rest: dict[str, float | None] = {}
    for name, after in evidence.cpu_s.items():
        before = crowd.cpu_s.get(name)
        rest[name] = None if after is None or before is None else after - before
    return _cpu(rest, evidence.run_s - crowd.at_s)


def as_text(report: Report) -> str:
    """The report for a reader, ending in a line break."""
    f = report.figures
    m, sink, rate = f["messages"], f["sink"], f["rate"]
    latency, margins = f["api_latency_ms"], f["margin_by_window"]
    connections = sink["connections"]
    rows = [
        ("messages", f"{m['asked']:,}: {m['accepted']:,} accepted, {m['refused']:,} refused"),
        (
            "became",
            f"{m['sent']:,} sent, {m['dead']:,} dead, {m['parked']:,} parked; "
            f"{m['retried']:,} retries",
        ),
        ("dead because", _counts(m["dead_reasons"])),
        (
            "intake",
            f"{f['intake']['messages_per_s']:,.0f} messages/s, {f['intake']['mb']:.1f} MB in "
            f"{f['intake']['s']:.1f} s, each on disk before it was acknowledged",
        ),
        ("sink saw", f"{sink['requests']:,} requests, {sink['accepted']:,} accepted"),
        ("sink played", _counts(sink["faults"])),
        ("duplicates", f"{f['duplicates']['ids']}: {_counts(f['duplicates']['by_cause'])}"),
        (
            "rate",
            f"{_number(rate['achieved_per_s'], '.1f')}/s achieved of {rate['asked_per_s']:g}/s "
            f"asked, over {rate['busy_s']:.1f} s with messages ready (retry waits and holds are "
            f"left out); first request after "
            f"{_number(rate['first_request_after_s'], '.2f')} s",
        ),
        ("excess", ", ".join(f"{w}: {max(0.0, v):.1f}" for w, v in margins.items())),
        (
            "API latency",
            f"p50 {_number(latency['sink_p50'], '.1f')} ms, "
            f"p99 {_number(latency['sink_p99'], '.1f')} ms (the sink's: first byte to answer); by "
            f"the outbox's histogram p50 ≤ {_number(latency['outbox_p50_at_most'], 'g')} ms, "
            f"p99 ≤ {_number(latency['outbox_p99_at_most'], 'g')} ms",
        ),
        ("CPU a message", _cpu_text(f)),
        (
            "connections",
            f"{connections['opened']} opened, at most {connections['max_open']} at once",
        ),
        ("law", f["law"]),
        ("time", f"{f['run_s']:.1f} s from intake to the end, {f['elapsed_s']:.1f} s in all"),
    ]
    lines = [f"{name + ':':<15}{value}" for name, value in rows]
    if f["forecast"].get("waits_twice"):
        ids = ", ".join(f["forecast"]["waits_twice"])
        lines.append(f"{'forecast:':<15}this seed gives 503 twice to {ids}: over {_least(report)}")
    lines.append("")
    for check in report.checks:
        lines.append(f"{'PASS' if check.ok else 'FAIL'}  {check.name + ':':<20}{check.what}")
        if not check.ok and check.look:
            lines.append(f"{'':<26}→ {check.look}")
    failed = [check.name for check in report.checks if not check.ok]
    lines.append("")
    lines.append(f"FAILED: {', '.join(failed)}" if failed else "PASSED: all of it adds up")
    return "\n".join(lines) + "\n"


def _cpu_text(f: Mapping[str, Any]) -> str:
    text = _parts(f["cpu_ms_per_message"])
    if f["cpu_ms_per_message_while_sending"]:
        text += f"; until only retries were left {_parts(f['cpu_ms_per_message_while_sending'])}"
    if f["cpu_ms_per_idle_s"]:
        text += f"; after that {_parts(f['cpu_ms_per_idle_s'])} each second"
    return text


def _parts(cpu: Mapping[str, float | None]) -> str:
    return (
        f"{_number(cpu['total'], '.2f')} ms (daemon {_number(cpu['daemon'], '.2f')}, "
        f"workers {_number(cpu['worker'], '.2f')}, Redis {_number(cpu['redis'], '.2f')})"
    )


def _least(report: Report) -> str:
    least, most = report.plan.wait_503_s or (30.0, 60.0)
    return f"{2 * least:g} to {2 * most:g} s of waits"


def _over(count: float, seconds: float) -> float:
    return count / seconds if seconds else 0.0


def _ms(seconds: float | None) -> float | None:
    # Beyond the histogram's last slot there is no upper bound to tell, nor can JSON tell infinity.
    return None if seconds is None or math.isinf(seconds) else seconds * 1e3


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items())) or "none"
