"""The report of a run, and the sum of several. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paceline.rehearsal.measures import quantile

_SUMS = ("acknowledged", "requests", "lost", "duplicates", "duplicates_allowed", "unexplained")


def report(
    seed: int,
    seconds: float,
    scenes: Sequence[Mapping[str, Any]],
    deeds: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """One run."""
    return {
        "seeds": [seed],
        "seconds": round(seconds, 1),
        **_figures(scenes, deeds),
        "scenes": list(scenes),
        "deeds": list(deeds),
    }


def total(reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All of them as one, without the lists."""
    runs = list(reports)
    return {
        "seeds": sorted(seed for run in runs for seed in run["seeds"]),
        "seconds": sum(run["seconds"] for run in runs),
        **_figures(
            [s for run in runs for s in run["scenes"]], [d for r in runs for d in r["deeds"]]
        ),
    }


def _figures(
    scenes: Sequence[Mapping[str, Any]], deeds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    causes, kills = Counter[str](), Counter[str]()
    for scene in scenes:
        causes.update(scene["duplicate_causes"])
    recoveries = [deed["recovery_s"] for deed in deeds if deed["counts"]]
    for deed in deeds:
        if deed["counts"]:
            kills[f"{deed['deed'].split()[1]} ({deed['way']})"] += 1
    return {
        "kills": len(recoveries),
        "kills_of": dict(sorted(kills.items())),
        "other_deeds": len(deeds) - len(recoveries),
        "recovery_s": {
            "median": quantile(recoveries, 0.5),
            "p90": quantile(recoveries, 0.9),
            "most": max(recoveries, default=None),
        },
        **{name: sum(scene[name] for scene in scenes) for name in _SUMS},
        "duplicate_causes": dict(causes),
        "wrong": [words for scene in scenes for words in scene["wrong"]],
    }


def line(found: Mapping[str, Any]) -> str:
    """For people, in one line."""
    recovery = found["recovery_s"]
    span = (
        "none"
        if recovery["most"] is None
        else (f"{recovery['median']:.1f} s in the median, {recovery['most']:.1f} s at most")
    )
    return (
        f"{'ok' if not found['wrong'] else 'WRONG'}: seed {', '.join(map(str, found['seeds']))}: "
        f"{found['kills']} kills with something in flight, {found['other_deeds']} other deeds, "
        f"{found['acknowledged']:,} messages in {found['seconds']:.0f} s; {found['lost']} lost, "
        f"{found['duplicates']} duplicates (at most {found['duplicates_allowed']}), "
        f"{found['unexplained']} unexplained; recovery {span}"
    )
