"""What of the soak and the random run is arithmetic: trends, sums of reports, the plan."""

from __future__ import annotations

from itertools import islice

from rampage import report as reports
from rampage.plan import deeds
from soak.trend import count_grows, memory_grows, slope, trend


def test_the_slope_is_the_lines() -> None:
    assert slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) == 2.0
    assert slope([(0.0, 1.0), (1.0, 4.0), (2.0, 1.0)]) == 0.0
    assert slope([(5.0, 1.0)]) == 0.0


def test_what_leaks_is_told_from_what_wavers() -> None:
    seconds = [10.0 * n for n in range(300)]
    leaks = trend([(s, 50 + 10 * s / 3600) for s in seconds])
    assert round(leaks.slope, 6) == 10
    assert memory_grows(leaks)
    wavers = trend([(s, 50 + n % 7) for n, s in enumerate(seconds)])
    assert not memory_grows(wavers)
    assert not count_grows(wavers)
    assert count_grows(trend([(s, float(n // 50)) for n, s in enumerate(seconds)]))


def test_the_plan_is_the_seeds() -> None:
    first = list(islice(deeds(1, "apart"), 40))
    assert first == list(islice(deeds(1, "apart"), 40))
    assert first != list(islice(deeds(2, "apart"), 40))
    assert {deed.how for deed in first} == {"kill", "freeze", "term"}


def test_reports_are_summed() -> None:
    def run(seed: int, recovery_s: float, wrong: list[str]) -> dict[str, object]:
        scene = {
            "acknowledged": 10, "requests": 11, "lost": 0, "duplicates": 1,
            "duplicates_allowed": 4, "unexplained": 0, "duplicate_causes": {"reset": 1},
            "wrong": wrong,
        }  # fmt: skip
        deed = {"deed": "kill worker 1", "way": "up", "counts": True, "recovery_s": recovery_s}
        idle = {**deed, "counts": False, "recovery_s": 99.0}
        return reports.report(seed, 5.0, [scene], [deed, idle])

    found = reports.total([run(1, 2.0, []), run(2, 4.0, ["something"])])
    assert (found["kills"], found["other_deeds"], found["seeds"]) == (2, 2, [1, 2])
    assert (found["acknowledged"], found["duplicates"], found["recovery_s"]["most"]) == (20, 2, 4.0)
    assert found["kills_of"] == {"worker (up)": 2}
    assert found["wrong"] == ["something"]
    assert reports.line(found).startswith("WRONG: seed 1, 2: 2 kills")
