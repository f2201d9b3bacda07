"""The report of merging, and its three forms: for a reader, as Markdown, for JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paceline.bench.figures import Figure
from paceline.bench.machine import Machine
from paceline.bench.merge.figures import Turn, figures
from paceline.bench.merge.plan import MergePlan
from paceline.bench.report import machine_line


@dataclass(frozen=True, slots=True)
class MergeReport:
    """All of a bench."""

    plan: MergePlan
    machine: Machine
    turns: Sequence[Turn]
    elapsed_s: float

    @property
    def figures(self) -> list[Figure]:
        """In the order of the way: intake, floor, drain."""
        return figures(self.turns, merging=self.plan.speech.most > 1)

    @property
    def missed(self) -> list[Figure]:
        """Those that miss their bar."""
        return [figure for figure in self.figures if figure.met is False]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; raw numbers and figures. Times are seconds where the name says nothing else."""
        return {
            "format": 1,
            "machine": asdict(self.machine),
            "plan": asdict(self.plan) | {"provider": self.plan.speech.dialect.provider},
            "turns": [_turn(turn) for turn in self.turns],
            "figures": [_figure(figure) for figure in self.figures],
            "missed": [figure.name for figure in self.missed],
            "elapsed_s": self.elapsed_s,
        }


def _turn(turn: Turn) -> dict[str, Any]:
    derived = ("intake_per_min", "floor_per_min", "drain_per_min", "ratio", "peak_mb")
    return {**asdict(turn), **{name: getattr(turn, name) for name in derived}}


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "unit": figure.unit,
        "median": figure.median,
        "min": min(figure.values),
        "max": max(figure.values),
        "n": len(figure.values),
        "bar": _bar(figure) or None,
        "met": figure.met,
    }


def as_text(report: MergeReport) -> str:
    """For a reader: raw numbers, then figures; ends in a line break."""
    lines = [*_head(report), ""]
    for t in report.turns:
        peak = "" if t.peak_mb is None else f", workers at most {t.peak_mb:.0f} MB"
        lines += [
            f"{t.pair} intake {t.messages:,} in {t.intake.wall_s:.2f} s: {t.intake_per_min:,.0f} a "
            f"minute; CPU us a message: producer {t.us(t.intake.cpu_s):.1f}, "
            f"Redis {t.us(t.intake.redis_cpu_s):.1f}",
            f"{t.pair} floor  {t.messages:,} in {t.floor.wall_s:.2f} s: {t.floor_per_min:,.0f} a "
            f"minute; CPU us a message: loop {t.us(t.floor.cpu_s):.1f}, "
            f"Redis {t.us(t.floor.redis_cpu_s):.1f}",
            f"{t.pair} drain  {t.drain.recipients:,} in {t.drain.wall_s:.2f} s: "
            f"{t.drain_per_min:,.0f} a minute in {t.drain.requests:,} requests; CPU us a message: "
            f"workers {t.us(t.drain.workers_cpu_s):.1f}, daemon {t.us(t.drain.daemon_cpu_s):.1f}, "
            f"Redis {t.us(t.drain.redis_cpu_s):.1f}{peak}; {t.ratio:.3f} of the floor",
        ]
    lines += ["", f"{'figure':<26}{'median':>16}  {'min – max':<27}{'bar':<13}verdict"]
    for f in report.figures:
        lines.append(
            f"{f.name:<26}{_number(f.median) + ' ' + f.unit:>16}  {_spread(f):<27}{_bar(f):<13}"
            f"{_verdict(f)}".rstrip()
        )
    return "\n".join([*lines, "", _ending(report)]) + "\n"


def as_markdown(report: MergeReport) -> str:
    """For a document: the machine, and the table of figures; ends in a line break."""
    lines = [*_head(report), ""]
    lines += ["| figure | median | min – max | n | bar | |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {f.name} | {_number(f.median)} {f.unit} | {_spread(f)} | {len(f.values)} "
        f"| {_bar(f)} | {_verdict(f)} |"
        for f in report.figures
    ]
    return "\n".join([*lines, "", _ending(report)]) + "\n"


def _head(report: MergeReport) -> list[str]:
    plan = report.plan
    speech = plan.speech
    many = f", up to {speech.most:,} messages in a request" if speech.most > 1 else ", not merged"
    return [
        machine_line(report.machine),
        f"{plan.messages:,} messages, {plan.pairs} turns; {speech.dialect.provider}{many}; "
        f"{plan.workers} workers; appendfsync always; {report.elapsed_s:.0f} s in all.",
    ]


def _bar(figure: Figure) -> str:
    return "" if figure.bar is None else f"{figure.bar.sign} {figure.bar.limit:,.0f}"


def _spread(figure: Figure) -> str:
    return f"{_number(min(figure.values))} – {_number(max(figure.values))}"


def _verdict(figure: Figure) -> str:
    return {True: "met", False: "MISSED", None: ""}[figure.met]


def _ending(report: MergeReport) -> str:
    judged = [figure for figure in report.figures if figure.met is not None]
    if report.missed:
        names = "; ".join(figure.name for figure in report.missed)
        return f"{len(report.missed)} of {len(judged)} bars missed: {names}"
    return f"All {len(judged)} bars met."


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
