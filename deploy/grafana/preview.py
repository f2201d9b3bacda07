"""Draws the dashboard as SVG, without Grafana: its own panels, grid and expressions, evaluated on a
Prometheus that watched a run. Standard library only.

    python deploy/grafana/preview.py --prometheus http://127.0.0.1:9090 --minutes 10 > dashboard.svg

An approximation of Grafana's drawing (drawing.py), not of the data.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from drawing import BACK, DRAW, EDGE, FAINT, PANEL, TEXT, Box, Series, text

DASHBOARD = Path(__file__).parent / "dashboards" / "paceline.json"
UNIT_X, UNIT_Y, GAP, TOP = 56, 27, 6, 62
POINTS = 120


@dataclass(frozen=True)
class Source:
    """A Prometheus and a span of time. ``query`` gives the series of one of a panel's targets."""

    url: str
    start: float
    end: float
    rate_interval: str
    destination: str

    @property
    def step(self) -> float:
        """Seconds between two points of a line."""
        return max(1.0, (self.end - self.start) / POINTS)

    def query(self, target: Mapping[str, Any]) -> list[Series]:
        expression = target["expr"].replace("$destination", self.destination)
        parameters = {
            "query": expression.replace("$__rate_interval", self.rate_interval),
            "start": f"{self.start:.3f}", "end": f"{self.end:.3f}", "step": f"{self.step:.3f}",
        }  # fmt: skip
        url = f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as reply:  # noqa: S310 - as the caller says
            found = json.load(reply)["data"]["result"]
        return [
            Series(_label(target["legendFormat"], s["metric"]), points)
            for s in found
            if (points := [(t, float(v)) for t, v in s["values"] if math.isfinite(float(v))])
        ]


def _label(pattern: str, labels: Mapping[str, str]) -> str:
    if pattern == "__auto":
        shown = {k: v for k, v in labels.items() if k != "__name__"}
        return ", ".join(shown.values()) or "value"
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern.strip()


def draw(dashboard: Mapping[str, Any], source: Source, rows: Sequence[str], note: str) -> str:
    """The SVG of the rows named, or of all."""
    body: list[str] = []
    row, offset, bottom = "", 0, 0
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            row = panel["title"]
            if not rows or row in rows:
                offset = place["y"] - bottom
                y = TOP + bottom * UNIT_Y
                body.append(text(12, y + 19, f"▾ {row}", 14, TEXT, 'font-weight="600"'))
                bottom += 1
            continue
        if rows and row not in rows:
            continue
        bottom = max(bottom, place["y"] - offset + place["h"])
        body.extend(_panel(panel, place["y"] - offset, source))
    width, height = 24 * UNIT_X + GAP, TOP + bottom * UNIT_Y + GAP
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(source.start))
    about = f"{note} {when}, {(source.end - source.start) / 60:.0f} minutes."
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        'font-family="Inter, Helvetica, Arial, sans-serif">',
        f'<rect width="{width}" height="{height}" fill="{BACK}"/>',
        text(12, 28, dashboard["title"], 20, TEXT, 'font-weight="600"'),
        text(12, 48, about, 11, FAINT),
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def _panel(panel: Mapping[str, Any], y: float, source: Source) -> Iterator[str]:
    place = panel["gridPos"]
    left, top = place["x"] * UNIT_X + GAP, TOP + y * UNIT_Y
    width, height = place["w"] * UNIT_X - GAP, place["h"] * UNIT_Y - GAP
    yield (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="3" fill="{PANEL}" '
        f'stroke="{EDGE}"><title>{escape(panel["description"])}</title></rect>'
    )
    yield text(left + 9, top + 17, panel["title"], 12, TEXT, 'font-weight="500"')
    found = [series for target in panel["targets"] for series in source.query(target)]
    box = Box(left + 46, top + 28, width - 58, height - 66, source.start, source.end, source.step)
    if found:
        yield from DRAW[panel["type"]](panel, found, box)
    else:
        words = panel["fieldConfig"]["defaults"]["noValue"]
        yield text(left + width / 2, top + height / 2 + 8, words, 13, FAINT, 'text-anchor="middle"')


def main() -> None:
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--prometheus", required=True, metavar="URL")
    parser.add_argument("--minutes", type=float, default=60, help="back from --end [60]")
    parser.add_argument("--end", type=float, default=time.time(), help="Unix time [now]")
    parser.add_argument("--rate-interval", default="1m", help="for $__rate_interval [1m]")
    parser.add_argument("--destination", default=".*", help="pattern [.*]")
    parser.add_argument("--row", action="append", default=[], help="only this row; repeatable")
    parser.add_argument("--note", default="Drawn from the dashboard's own panels and a real run.")
    asked = parser.parse_args()
    start = asked.end - asked.minutes * 60
    source = Source(asked.prometheus, start, asked.end, asked.rate_interval, asked.destination)
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    sys.stdout.write(draw(dashboard, source, asked.row, asked.note))


if __name__ == "__main__":
    main()
