"""The report of a pace, and its three forms: for a reader, as Markdown, for JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paceline.bench.machine import Machine
from paceline.bench.pacing.figures import NAMES, Figure, Turn, figures
from paceline.bench.pacing.plan import CONTESTANTS, EACH, FROZEN, WINDOWS_S, WORKERS, PacingPlan
from paceline.bench.report import machine_line


@dataclass(frozen=True, slots=True)
class PacingReport:
    """All of a bench; ``skipped`` says by contestant why it did not take part."""

    plan: PacingPlan
    machine: Machine
    turns: Sequence[Turn]
    skipped: Mapping[str, str]
    elapsed_s: float

    @property
    def figures(self) -> list[Figure]:
        """Scene by scene."""
        return figures(self.turns)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; raw numbers and figures. ``counts`` are requests in each 100 ms."""
        return {
            "format": 1,
            "machine": asdict(self.machine),
            "plan": asdict(self.plan)
            | {"lead_s": self.plan.lead_s, "freeze_s": self.plan.freeze_s},
            "turns": [_turn(turn) for turn in self.turns],
            "figures": [_figure(figure) for figure in self.figures],
            "skipped": dict(self.skipped),
            "elapsed_s": self.elapsed_s,
        }


def _turn(turn: Turn) -> dict[str, Any]:
    pace = turn.pace
    return {
        "contestant": turn.contestant,
        "scene": turn.scene,
        "pair": turn.pair,
        "requests": pace.requests,
        "utilisation": pace.utilisation,
        "smoothness": pace.smoothness,
        "windows": [asdict(window) for window in pace.windows],
        "counts": list(pace.counts),
        "stolen": turn.stolen,
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "scene": figure.scene,
        "contestant": figure.contestant,
        "name": figure.name,
        "median": figure.median,
        "min": min(figure.values),
        "max": max(figure.values),
        "n": len(figure.values),
    }


def as_text(report: PacingReport) -> str:
    """For a reader: raw numbers, then figures; ends in a line break."""
    lines = _head(report)
    for turn in report.turns:
        pace = turn.pace
        most = ", ".join(f"{w.most:,} in {w.window_s:g} s" for w in pace.windows)
        lines.append(
            f"{turn.scene} {turn.pair} {turn.contestant:<10}{pace.requests:7,} requests in "
            f"{report.plan.seconds} s; at most {most}; {max(pace.counts)} in 100 ms of the span"
        )
    for scene, rows in _rows(report).items():
        lines += ["", f"{_scene(report.plan, scene)}:"]
        lines.append(f"{'':<10}" + "".join(f"{name:>18}" for name in NAMES))
        lines += [f"{name:<10}" + "".join(f"{cell:>18}" for cell in cells) for name, cells in rows]
    return "\n".join([*lines, "", *_ending(report)]) + "\n"


def as_markdown(report: PacingReport) -> str:
    """For a document: the machine, and a table for each scene; ends in a line break."""
    lines = _head(report)[:-1]
    for scene, rows in _rows(report).items():
        lines += ["", f"{_scene(report.plan, scene)}:", ""]
        lines += ["| | " + " | ".join(NAMES) + " |", "|---" * (len(NAMES) + 1) + "|"]
        lines += [f"| `{name}` | " + " | ".join(cells) + " |" for name, cells in rows]
    return "\n".join([*lines, "", *_ending(report)]) + "\n"


def _head(report: PacingReport) -> list[str]:
    plan = report.plan
    most = ", ".join(f"{plan.burst + plan.rate * w:,.0f} in {w:g} s" for w in WINDOWS_S)
    return [
        machine_line(report.machine),
        f"{plan.rate:g} requests/s, burst {plan.burst}: at most {most}. {WORKERS} workers of "
        f"{EACH} connections; {plan.seconds} s a turn, {plan.pairs} a scene; "
        f"{report.elapsed_s:.0f} s in all.",
        "",
    ]


def _scene(plan: PacingPlan, scene: str) -> str:
    frozen = f", all workers frozen for {plan.freeze_s:g} s in the middle"
    return "A backlog" + (frozen if scene == FROZEN else ", undisturbed")


def _rows(report: PacingReport) -> dict[str, list[tuple[str, list[str]]]]:
    """Scene -> contestant and its cells, in the order of NAMES; contestants in the plan's order."""
    found: dict[str, dict[str, list[str]]] = {}
    for figure in report.figures:
        found.setdefault(figure.scene, {}).setdefault(figure.contestant, []).append(_cell(figure))
    return {
        scene: sorted(rows.items(), key=lambda row: CONTESTANTS.index(row[0]))
        for scene, rows in found.items()
    }


def _cell(figure: Figure) -> str:
    def number(value: float) -> str:
        digits = {"utilisation": 3, "smoothness": 1}.get(figure.name, 0)
        return f"{value:,.{digits}f}"

    spread = f" ({number(min(figure.values))} – {number(max(figure.values))})"
    return number(figure.median) + (spread if len(figure.values) > 1 else "")


def _ending(report: PacingReport) -> list[str]:
    return [
        "Excess: requests over burst + rate · w in the fullest window; 0 is none. Utilisation: "
        "requests over rate · T. Smoothness: the fullest 100 ms over the mean.",
        *(f"Left out: {name}, for {why}." for name, why in report.skipped.items()),
    ]
