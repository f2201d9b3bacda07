"""What a show measured: figures, some of them with a bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paceline.rehearsal.measures import quantile


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` as measured, its unit in its name; ``bar`` in words and whether it is ``met``: None
    where there is no bar."""

    name: str
    value: float | str
    bar: str = ""
    met: bool | None = None


def at_most(name: str, value: float, bar: float) -> Figure:
    """A figure that may be as large as its bar."""
    return Figure(name, value, f"at most {bar:g}", value <= bar)


def at_least(name: str, value: float, bar: float) -> Figure:
    """A figure that may be as small as its bar."""
    return Figure(name, value, f"at least {bar:g}", value >= bar)


def quantiles(name: str, values: Sequence[float]) -> list[Figure]:
    """Median and maximum, without bars."""
    return [
        Figure(f"{name}, median", quantile(values, 0.5) or 0.0),
        Figure(f"{name}, most", max(values, default=0.0)),
    ]


def all_met(figures: Sequence[Figure]) -> bool:
    """Whether no bar was missed."""
    return not any(figure.met is False for figure in figures)


def as_text(show: str, figures: Sequence[Figure]) -> str:
    """For people, one figure a line."""
    lines = [f"{show}: {'met' if all_met(figures) else 'MISSED'}"]
    for figure in figures:
        value = figure.value if isinstance(figure.value, str) else f"{figure.value:,.6g}"
        lines.append(f"  {figure.name}: {value}{_verdict(figure)}")
    return "\n".join(lines)


def _verdict(figure: Figure) -> str:
    if figure.met is None:
        return ""
    return f"  ({figure.bar})" if figure.met else f"  ({figure.bar}: MISSED)"


def as_data(show: str, seconds: float, seed: int, figures: Sequence[Figure]) -> dict[str, Any]:
    """For programs, JSON-able."""
    return {
        "show": show,
        "seconds": seconds,
        "seed": seed,
        "met": all_met(figures),
        "figures": [asdict(figure) for figure in figures],
    }
