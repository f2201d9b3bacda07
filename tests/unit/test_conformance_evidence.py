"""The judge of the conformance runs, with records made by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from conformance.case import Case
from conformance.evidence import Evidence, collect
from conformance.mischief import plan
from conformance.verdict import judge

CASE = Case(rate=10.0, burst=3, connections=2, seconds=1.0, seed=1)
MS = 1_000_000


def _collect(folder: Path, lines: list[str], arrivals: list[tuple[str, int]]) -> Evidence:
    (folder / "000").write_text("".join(f"{line}\n" for line in lines))
    mischief = SimpleNamespace(began_s=0.0, done=[], counts=Counter())
    seen = [{"id": name, "mono_ns": at_ns} for name, at_ns in arrivals]
    return collect(
        CASE,
        folder,
        seen,
        cast("Any", mischief),
        backlog=1,
        law={},
        sound=True,
        apart=True,
        cores={},
    )


def test_what_arrives_unrecorded_is_told(tmp_path: Path) -> None:
    lines = [f"{1 * MS} 1 a", f"{2 * MS} 1 b"]
    arrivals = [("a", 2 * MS), ("a", 9 * MS), ("b", 1 * MS), ("c", 3 * MS)]
    found = _collect(tmp_path, lines, arrivals)
    # One start of a, two arrivals; b arrived before it started; nobody started c.
    assert [it.split(" ")[0] for it in found.unexplained] == ["a", "b", "c"]
    assert not judge(found).kept


def test_a_retry_is_matched_with_its_own_start(tmp_path: Path) -> None:
    lines = [f"{1 * MS} 1 a", f"{500 * MS} 1 a"]
    found = _collect(tmp_path, lines, [("a", 3 * MS), ("a", 504 * MS)])
    assert list(found.delays_ns) == [2 * MS, 4 * MS]
    assert judge(found).kept


def test_one_request_too_many_in_a_window_is_seen(tmp_path: Path) -> None:
    lines = [f"{n} 1 m{n}" for n in range(4)]
    verdict = judge(_collect(tmp_path, lines, []))
    assert 0.99 < verdict.trace < 1
    assert not verdict.kept
    assert judge(_collect(tmp_path, lines[:3], [])).trace < 0


def test_the_same_seed_does_the_same() -> None:
    case = Case(
        rate=10.0, burst=5, connections=3, seconds=30.0, seed=4, freezes=9, kills=3, pauses=2
    )
    assert plan(case) == plan(case)
    assert len(plan(case)) == 14
