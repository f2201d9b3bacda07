"""How panels come onto paper: each kind of panel as pieces of SVG. Approximates Grafana's look."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

BACK, PANEL, EDGE, TEXT, FAINT, GRID = (
    "#111217", "#181b1f", "#2a2d33", "#d5d7de", "#8e919b", "#26292f",
)  # fmt: skip
PALETTE = (
    "#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#37872d", "#8ab8ff",
    "#e0b400", "#ffa6b0",
)  # fmt: skip
COLORS = {"green": "#37872d", "red": "#c4162a", "orange": "#e0752d", "blue": "#1f60c4"}

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line: its label and (time, value) pairs, in the order of time."""

    label: str
    points: Sequence[Point]


def shown(value: float, unit: str) -> str:
    """A value as Grafana would write it."""
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    if unit == "bytes":
        for name in ("B", "KiB", "MiB", "GiB"):
            if abs(value) < 1024 or name == "GiB":
                return f"{value:.3g} {name}"
            value /= 1024
    if unit == "s":
        for limit, scale, name in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"),
                                   (7200, 1 / 60, "min"), (172800, 1 / 3600, "h")):  # fmt: skip
            if abs(value) < limit:
                return f"{value * scale:.3g} {name}" if value else "0 s"
        return f"{value / 86400:.3g} d"
    suffix = {"reqps": "/s", "ops": "/s", "cps": "/s", "pps": "/s"}.get(unit, "")
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k{suffix}"
    return f"{value:.3g}{suffix}" if abs(value) < 1000 else f"{value:.0f}{suffix}"


def text(x: float, y: float, words: str, size: float = 11, fill: str = TEXT, more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{fill}"'
    return f"<text {place} {more}>{escape(words)}</text>"


def ticks(low: float, high: float, unit: str) -> list[float]:
    """About four values from ``low`` to ``high`` that are round in ``unit``."""
    base = 1.0
    if unit == "bytes":
        base = 1024.0 ** min(3, max(0, math.floor(math.log(max(1.0, high), 1024))))
    elif unit == "s" and high >= 120:
        base = 60.0 if high < 7200 else 3600.0
    return [base * tick for tick in _round_values(low / base, high / base)]


def _round_values(low: float, high: float) -> list[float]:
    rough = (high - low) / 4 or 1
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _color(steps: Sequence[Mapping[str, Any]], value: float) -> str:
    passed = [s["color"] for s in steps if s["value"] is None or value >= s["value"]]
    return COLORS.get(str(passed[-1]), str(passed[-1]))


def rect(x: float, y: float, w: float, h: float, fill: str, more: str = "") -> str:
    size = f'width="{max(0, w):.1f}" height="{max(0, h):.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{fill}" {more}/>'


@dataclass(frozen=True)
class Box:
    """A panel's inside, and the span of time that it shows."""

    x: float
    y: float
    w: float
    h: float
    start: float
    end: float
    step: float

    def at(self, moment: float) -> float:
        return self.x + (moment - self.start) / (self.end - self.start) * self.w

    def times(self) -> Iterator[str]:
        span = self.end - self.start
        for i in range(1, 4):
            moment = self.start + span * i / 4
            words = time.strftime("%H:%M:%S", time.gmtime(moment))
            yield text(
                self.at(moment), self.y + self.h + 13, words, 9, FAINT, 'text-anchor="middle"'
            )


def lines(panel: Mapping[str, Any], found: Sequence[Series], box: Box) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    found = sorted(found, key=lambda s: -max(v for _, v in s.points))
    layers = _stack(found) if stacked else [(s, [(t, v, 0.0) for t, v in s.points]) for s in found]
    values = [v for _, points in layers for _, v, _ in points]
    low = min([*values, defaults.get("min", math.inf)])
    high = max([*values, defaults.get("max", -math.inf)])
    high = high + (high - low) * 0.06 if high > low else low + max(1.0, abs(low) * 0.1)

    def height(value: float) -> float:
        return box.y + box.h - (value - low) / (high - low) * box.h

    for value in ticks(low, high, defaults["unit"]):
        y = height(value)
        yield f'<path d="M{box.x:.1f} {y:.1f}h{box.w:.1f}" stroke="{GRID}"/>'
        yield text(box.x - 4, y + 3, shown(value, defaults["unit"]), 9, FAINT, 'text-anchor="end"')
    yield from box.times()
    for number, (_, points) in enumerate(layers):
        color = PALETTE[number % len(PALETTE)]
        for run in _runs(points, box.step * 1.5):
            top = " ".join(f"{box.at(t):.1f},{height(v):.1f}" for t, v, _ in run)
            bottom = " ".join(f"{box.at(t):.1f},{height(b):.1f}" for t, _, b in reversed(run))
            opacity = 0.45 if stacked else 0.07
            yield f'<polygon points="{top} {bottom}" fill="{color}" fill-opacity="{opacity}"/>'
            yield f'<polyline points="{top}" fill="none" stroke="{color}" stroke-width="1.3"/>'
    x = box.x - 30
    for number, (series, _) in enumerate(layers):
        width = 16 + 6 * len(series.label)
        if x + width > box.x + box.w:
            yield text(x, box.y + box.h + 29, "…", 10, FAINT)
            break
        color = PALETTE[number % len(PALETTE)]
        yield rect(x, box.y + box.h + 25, 9, 3, color)
        yield text(x + 12, box.y + box.h + 30, series.label, 10, FAINT)
        x += width + 6


def _stack(found: Sequence[Series]) -> list[tuple[Series, list[tuple[float, float, float]]]]:
    ground: dict[float, float] = {}
    layers = []
    for series in found:
        points = []
        for t, value in series.points:
            below = ground.get(t, 0.0)
            points.append((t, below + value, below))
            ground[t] = below + value
        layers.append((series, points))
    return layers


def _runs(points: Sequence[tuple[float, float, float]], gap: float) -> list[list[Any]]:
    """Pieces without a hole: where nothing was measured, nothing is drawn."""
    runs: list[list[Any]] = []
    for point in points:
        if not runs or point[0] - runs[-1][-1][0] > gap:
            runs.append([])
        runs[-1].append(point)
    return runs


def stat(panel: Mapping[str, Any], found: Sequence[Series], box: Box) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    last = max(found, key=lambda s: s.points[-1][0])
    value = last.points[-1][1]
    words = shown(value, defaults["unit"])
    color = _color(defaults["thresholds"]["steps"], value)
    for mapping in defaults["mappings"]:
        known = mapping["options"].get(f"{value:g}")
        if known:
            words, color = known["text"], COLORS.get(known["color"], known["color"])
    if panel["options"]["textMode"] == "name":
        words, color = last.label, PANEL
    yield rect(box.x - 38, box.y - 4, box.w + 46, box.h + 32, color, 'rx="2"')
    size = min(30.0, (box.w + 34) / max(4, len(words)) * 1.7)
    middle = 'text-anchor="middle" font-weight="600"'
    yield text(
        box.x + box.w / 2 - 15, box.y + box.h / 2 + 12 + size / 3, words, size, "#fff", middle
    )


def timeline(_: Mapping[str, Any], found: Sequence[Series], box: Box) -> Iterator[str]:
    height = min(22.0, (box.h + 14) / len(found))
    yield from box.times()
    for number, series in enumerate(found):
        y = box.y + number * height
        yield text(box.x - 34, y + height / 2 + 3, series.label, 9, FAINT)
        left = box.x + 40
        yield rect(left, y + 2, box.x + box.w - left, height - 4, GRID)
        for t, value in series.points:
            if value:
                x = max(left, box.at(t - box.step))
                yield rect(x, y + 2, max(1, box.at(t) - x), height - 4, COLORS["red"])


def heatmap(_: Mapping[str, Any], found: Sequence[Series], box: Box) -> Iterator[str]:
    bounds = sorted(found, key=lambda s: float(s.label))
    cells: list[tuple[float, int, float]] = []
    below: dict[float, float] = {}
    for number, series in enumerate(bounds):
        for t, value in series.points:
            cells.append((t, number, value - below.get(t, 0.0)))
            below[t] = value
    used = [number for _, number, value in cells if value > 1e-9]
    first, last = (min(used), max(used)) if used else (0, len(bounds) - 1)
    rows, most = last - first + 1, max((value for *_, value in cells), default=1) or 1
    width, height = box.at(box.start + box.step) - box.x + 0.4, box.h / rows
    yield from box.times()
    for number in range(first, last + 1):
        y = box.y + box.h - (number - first + 1) * height
        yield text(
            box.x - 4, y + 4, shown(float(bounds[number].label), "s"), 9, FAINT, 'text-anchor="end"'
        )
    for t, number, value in cells:
        if value > 1e-9:
            y = box.y + box.h - (number - first + 1) * height
            opacity = f'fill-opacity="{(value / most) ** 0.5:.2f}"'
            yield rect(box.at(t) - width, y, width, height - 1, "#ff8f1c", opacity)


def table(_: Mapping[str, Any], found: Sequence[Series], box: Box) -> Iterator[str]:
    now = [s for s in found if s.points[-1][0] > box.end - 20]
    for number, series in enumerate(now or [Series("none", [])]):
        yield text(box.x - 30, box.y + 14 + number * 16, series.label, 11, TEXT)


DRAW: Mapping[str, Callable[..., Iterator[str]]] = {
    "timeseries": lines,
    "stat": stat,
    "state-timeline": timeline,
    "heatmap": heatmap,
    "table": table,
}
