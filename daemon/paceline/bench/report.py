"""The report, and its three forms: for a reader, as Markdown, for JSON. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from paceline.bench.figures import Figure, Measured, Run, figures
from paceline.bench.machine import Machine
from paceline.bench.plan import Fsync, Plan

#: From this part of the CPU time on, that the host took it is told beside a run.
_STOLEN_TOLD = 0.01


@dataclass(frozen=True, slots=True)
class Report:
    """All of a bench."""

    plan: Plan
    machine: Machine
    measured: Measured
    elapsed_s: float

    @property
    def figures(self) -> list[Figure]:
        """Policy by policy."""
        return figures(self.measured, self.plan.fsync)

    @property
    def missed(self) -> list[Figure]:
        """Those that miss their bar."""
        return [figure for figure in self.figures if figure.met is False]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; raw numbers and figures. Times are seconds where the name says nothing else."""
        measured = self.measured
        return {
            "format": 1,
            "machine": asdict(self.machine),
            "plan": asdict(self.plan),
            "runs": [_run(run) for run in measured.runs],
            "memory": [{**asdict(one), "overhead": one.overhead} for one in measured.memory],
            "latency": [asdict(one) for one in measured.latency],
            "events": [_run(run) for run in measured.events],
            "backlog": [{**asdict(one), "ms": one.ms} for one in measured.backlog],
            "figures": [_figure(figure) for figure in self.figures],
            "missed": [f"{figure.fsync}: {figure.name}" for figure in self.missed],
            "elapsed_s": self.elapsed_s,
        }


def _run(run: Run) -> dict[str, Any]:
    derived = {name: getattr(run, name) for name in ("per_s", "intake_per_s", "cpu_ms", "redis_ms")}
    return {**asdict(run), **derived}


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "fsync": figure.fsync,
        "name": figure.name,
        "unit": figure.unit,
        "median": figure.median,
        "min": min(figure.values),
        "max": max(figure.values),
        "n": len(figure.values),
        "bar": None if figure.bar is None else str(figure.bar),
        "met": figure.met,
    }


def as_text(report: Report) -> str:
    """For a reader: raw numbers, then figures; ends in a line break."""
    lines = [*_machine(report), ""]
    for fsync in report.plan.fsync:
        lines += _raw(report.measured, fsync)
    lines.append(
        f"{'figure':<58}{'fsync':<10}{'median':>10}  {'min – max':<19}{'bar':<9}verdict".rstrip()
    )
    for f in report.figures:
        spread = f"{_number(min(f.values))} – {_number(max(f.values))}"
        value = f"{_number(f.median)} {f.unit}"
        bar = "" if f.bar is None else f"{f.bar}"
        lines.append(
            f"{f.name:<58}{f.fsync:<10}{value:>10}  {spread:<19}{bar:<9}{_verdict(f)}".rstrip()
        )
    lines += ["", _ending(report)]
    return "\n".join(lines) + "\n"


def as_markdown(report: Report) -> str:
    """For a document: the machine, and a table for each policy; ends in a line break."""
    lines = _machine(report)
    for fsync in report.plan.fsync:
        mine = [figure for figure in report.figures if figure.fsync == fsync]
        if not mine:
            continue
        lines += ["", f"`appendfsync {fsync}`:", ""]
        lines += ["| figure | median | min – max | n | bar | |", "|---|---|---|---|---|---|"]
        for f in mine:
            spread = f"{_number(min(f.values))} – {_number(max(f.values))}"
            bar = "" if f.bar is None else str(f.bar)
            lines.append(
                f"| {f.name} | {_number(f.median)} {f.unit} | {spread} | {len(f.values)} | {bar} "
                f"| {_verdict(f)} |"
            )
    return "\n".join([*lines, "", _ending(report)]) + "\n"


def _machine(report: Report) -> list[str]:
    plan = report.plan
    measured = report.measured
    pairs = f"{plan.pairs} pairs of {plan.messages:,} messages of 1 kB; "
    if not (measured.runs or measured.events or measured.backlog):
        pairs = ""
    return [machine_line(report.machine), f"{pairs}{report.elapsed_s:.0f} s in all."]


def machine_line(m: Machine) -> str:
    """On what it ran, for the head of a report."""
    load = " ".join(f"{value:.2f}" for value in m.load)
    return (
        f"{m.cpus} CPUs, {m.model}; {m.kernel}; {m.python}; {m.server}; load {load}; "
        f"{m.stolen:.1%} of the CPU time stolen by the host."
    )


def _raw(measured: Measured, fsync: Fsync) -> list[str]:
    lines: list[str] = []
    for run in (*measured.runs, *measured.events):
        if run.fsync != fsync:
            continue
        parts = ", ".join(
            f"{what} {seconds / run.messages * 1e3:.3f}" for what, seconds in run.cpu_s.items()
        )
        intake = f"in {run.intake_per_s:8,.0f}/s" if run.intake_per_s else ""
        lines.append(
            f"{fsync} {run.pair} {run.contestant:<11}{run.messages:7,} at{run.per_s:7,.0f}/s  "
            f"{intake:<13} CPU {run.cpu_ms:.3f} ms ({parts}), Redis {run.redis_ms:.3f} ms"
            + (f", {run.stolen:.0%} stolen" if run.stolen >= _STOLEN_TOLD else "")
        )
    for one in measured.memory:
        if one.fsync == fsync:
            each = f"{one.bytes / one.messages:.0f} bytes each, payload {one.payload}"
            lines.append(f"{fsync} memory: {one.messages:,} messages, {each}")
    for lat in measured.latency:
        if lat.fsync == fsync:
            ms = " ".join(f"{value:.1f}" for value in lat.ms)
            lines.append(f"{fsync} latency, {lat.opened} connections opened, ms: {ms}")
    for depth in measured.backlog:
        if depth.fsync == fsync:
            lines.append(
                f"{fsync} {depth.pair} {depth.standing:,} standing: {depth.ms:.3f} ms a message "
                f"({depth.taken_in:,} taken in {depth.intake_cpu_s:.2f} s; {depth.sent:,} sent: "
                f"{depth.drain_cpu_s:.2f} s, Redis {depth.redis_cpu_s:.2f} s)"
            )
    return [*lines, ""] if lines else []


def _verdict(figure: Figure) -> str:
    return {True: "met", False: "MISSED", None: ""}[figure.met]


def _ending(report: Report) -> str:
    judged = [figure for figure in report.figures if figure.met is not None]
    missed = report.missed
    if missed:
        return f"{len(missed)} of {len(judged)} bars missed: " + "; ".join(
            f"{figure.name} ({figure.fsync})" for figure in missed
        )
    return f"All {len(judged)} bars met." if judged else "No bar was measured."


def _number(value: float) -> str:
    """Three digits that tell something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
