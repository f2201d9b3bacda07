"""The pace's arithmetic against arrivals made by hand; what is printed; and who takes part."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from paceline.bench import command
from paceline.bench.machine import Machine
from paceline.bench.pacing import scene as scenes
from paceline.bench.pacing.contestant import Contestant
from paceline.bench.pacing.figures import Pace, Turn, figures, pace_of
from paceline.bench.pacing.node import PACKAGES, Unavailable, install
from paceline.bench.pacing.plan import CONTESTANTS, FROZEN, SCENES, STEADY, PacingPlan
from paceline.bench.pacing.report import PacingReport, as_markdown, as_text
from paceline.sink.windows import UnsortedTimesError
from support.wait import until

S = 1_000_000_000
MACHINE = Machine(2, "a processor", "Linux 6", "CPython 3.11.7", "Valkey 9", (1.0, 0.5, 0.25), 0.01)


def metronome(begin_ns: int, seconds: float, rate: int = 100) -> list[int]:
    return [begin_ns + n * S // rate for n in range(round(seconds * rate))]


def over(pace: Pace) -> dict[float, float]:
    return {window.window_s: window.excess for window in pace.windows}


def test_a_metronome_at_the_rate_is_the_ideal() -> None:
    pace = pace_of(metronome(7 * S, 2), rate=100, burst=1, begin_ns=7 * S, seconds=2)
    assert (pace.requests, pace.utilisation, pace.smoothness) == (200, 1.0, 1.0)
    assert list(pace.counts) == [10] * 20
    assert over(pace) == {0.1: 0, 1.0: 0, 5.0: 0}


def test_half_the_rate_uses_half_of_it() -> None:
    pace = pace_of(metronome(0, 2, rate=50), rate=100, burst=1, begin_ns=0, seconds=2)
    assert (pace.utilisation, pace.smoothness) == (0.5, 1.0)


def test_each_window_is_judged_by_its_own_allowance() -> None:
    # 300 at once, 300 more 0.9 s later: over 160 in 0.1 s, 250 in 1 s and under 650 in 5 s.
    times = [S] * 300 + [S + 9 * S // 10] * 300
    pace = pace_of(times, rate=100, burst=150, begin_ns=0, seconds=5)
    assert over(pace) == {0.1: 140.0, 1.0: 350.0, 5.0: 0.0}
    assert [window.most for window in pace.windows] == [300, 600, 600]
    assert pace.smoothness == pytest.approx(300 / (600 / 50))


def test_a_fullest_window_may_lie_across_two_counts() -> None:
    times = [95 * S // 1000] * 8 + [105 * S // 1000] * 8
    pace = pace_of(times, rate=10, burst=3, begin_ns=0, seconds=1)
    assert list(pace.counts[:2]) == [8, 8]
    assert pace.windows[0].most == 16
    assert pace.windows[0].excess == 12.0


def test_the_lead_is_judged_but_not_counted() -> None:
    times = [0] * 200 + metronome(2 * S, 1)
    pace = pace_of(times, rate=100, burst=150, begin_ns=2 * S, seconds=1)
    assert (pace.requests, pace.utilisation, pace.smoothness) == (100, 1.0, 1.0)
    assert over(pace)[0.1] == 40.0


def test_the_span_is_closed_at_its_beginning_and_open_at_its_end() -> None:
    times = [S, 2 * S - 1, 2 * S, *[2 * S + 1] * 500]
    pace = pace_of(times, rate=10, burst=1, begin_ns=S, seconds=1)
    assert (pace.requests, pace.counts[0], pace.counts[-1]) == (2, 1, 1)
    assert over(pace) == {0.1: 0, 1.0: 0, 5.0: 0}


def test_nothing_sent_is_no_use_and_no_excess() -> None:
    pace = pace_of([], rate=100, burst=150, begin_ns=0, seconds=1)
    assert (pace.requests, pace.utilisation, pace.smoothness) == (0, 0.0, 0.0)
    assert over(pace) == {0.1: 0, 1.0: 0, 5.0: 0}


def test_times_out_of_order_are_refused() -> None:
    with pytest.raises(UnsortedTimesError):
        pace_of([2, 1], rate=100, burst=150, begin_ns=0, seconds=1)


def turn(contestant: str, scene: str, clump: int, pair: int = 1) -> Turn:
    times = [S] * clump + metronome(S, 1)
    return Turn(contestant, scene, pair, pace_of(sorted(times), 100, 150, S, 1))


TURNS = [turn("paceline", STEADY, 0), turn("dispatch", STEADY, 0), turn("dispatch", FROZEN, 400)]


def test_figures_are_medians_over_the_turns_of_a_scene() -> None:
    turns = [turn("dispatch", FROZEN, clump, n) for n, clump in enumerate((300, 500, 310))]
    found = {
        figure.name: figure for figure in figures([*TURNS[:2], *turns]) if figure.scene == FROZEN
    }
    one = found["excess in 1 s"]
    assert (one.median, min(one.values), max(one.values)) == (160.0, 150.0, 350.0)
    assert found["utilisation"].values == (4.0, 6.0, 4.1)
    assert set(found) == {
        "excess in 0.1 s", "excess in 1 s", "excess in 5 s", "utilisation", "smoothness",
    }  # fmt: skip


# -- what is asked ---------------------------------------------------------------------------


def test_what_is_asked_for() -> None:
    assert (PacingPlan().contestants, PacingPlan().scenes) == (CONTESTANTS, SCENES)
    assert PacingPlan(node=False).contestants == ("paceline", "dispatch")
    only = PacingPlan(only=("dispatch", FROZEN))
    assert (only.contestants, only.scenes) == (("dispatch",), (FROZEN,))


def test_the_freeze_is_five_seconds_but_never_more_than_a_quarter() -> None:
    assert [PacingPlan(seconds=s).freeze_s for s in (2, 20, 60)] == [0.5, 5.0, 5.0]


def test_a_bucket_released_at_once_is_empty_before_the_span_and_the_backlog_lasts() -> None:
    plan = PacingPlan(rate=50, burst=100, seconds=10)
    assert plan.lead_s >= plan.burst / plan.rate
    assert plan.messages > plan.burst + plan.rate * (plan.lead_s + plan.seconds)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["pacing", "--json", "--markdown"], "exclude each other"),
        (["pacing", "--only", "bullmq", "--no-node"], "leave --no-node out"),
        (["--pairs", "3", "pacing"], "--pairs belongs behind pacing"),
        (["--json", "pacing"], "--json belongs behind pacing"),
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        command.bench.main(options, standalone_mode=False)


def test_help_shows_examples_and_the_way_there() -> None:
    shown = CliRunner().invoke(command.bench, ["pacing", "--help"]).output
    assert "paceline bench pacing --rate 500 --burst 1000" in shown
    above = CliRunner().invoke(command.bench, ["--help"]).output
    assert "How well the pace is kept, beside others." in above


# -- what is printed -------------------------------------------------------------------------


def report(turns: list[Turn], **skipped: str) -> PacingReport:
    return PacingReport(PacingPlan(seconds=1), MACHINE, turns, skipped, 12.0)


def test_the_text_shows_raw_numbers_and_figures() -> None:
    text = as_text(report(TURNS, bullmq="node is not installed"))
    assert text.startswith("2 CPUs, a processor; Linux 6; CPython 3.11.7; Valkey 9; load 1.00 ")
    assert "burst 150: at most 160 in 0.1 s, 250 in 1 s, 650 in 5 s." in text
    assert (
        "500 requests in 1 s; at most 411 in 0.1 s, 500 in 1 s, 500 in 5 s; 410 in 100 ms" in text
    )
    rows = [
        line.split() for line in text.splitlines() if line.startswith(("paceline ", "dispatch "))
    ]
    assert rows == [
        ["paceline", "0", "0", "0", "1.000", "1.0"],
        ["dispatch", "0", "0", "0", "1.000", "1.0"],
        ["dispatch", "251", "250", "0", "5.000", "8.2"],
    ]
    assert "all workers frozen for 0.25 s in the middle:" in text
    assert text.endswith("Left out: bullmq, for node is not installed.\n")


def test_the_tables_of_the_markdown_are_whole() -> None:
    text = as_markdown(report([*TURNS, turn("dispatch", FROZEN, 500, 2)]))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {7}
    assert "| `paceline` | 0 | 0 | 0 | 1.000 | 1.0 |" in rows
    assert "300 (250 – 350)" in rows[-1]
    assert "Left out" not in text


def test_json_holds_raw_numbers_and_figures() -> None:
    document = json.loads(json.dumps(report(TURNS, bullmq="npm is not installed").as_dict()))
    frozen = document["turns"][2]
    assert frozen["counts"] == [410, *[10] * 9]
    assert frozen["windows"][1] == {"window_s": 1.0, "most": 500, "excess": 250.0}
    assert (frozen["requests"], frozen["utilisation"]) == (500, 5.0)
    figure = document["figures"][-1]
    assert (figure["scene"], figure["contestant"]) == (FROZEN, "dispatch")
    assert document["skipped"] == {"bullmq": "npm is not installed"}


# -- the freeze ------------------------------------------------------------------------------


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_frozen_workers_go_on_also_after_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, worker: subprocess.Popen[bytes]
) -> None:
    plan = PacingPlan(seconds=3600)

    def interrupted(_: float) -> None:
        until(lambda: state(worker.pid) == "T", 10, "the worker is stopped")
        raise KeyboardInterrupt

    # The first request came so long ago that the freeze is due.
    first_ns = time.monotonic_ns() - round((plan.lead_s + plan.seconds / 2) * 1e9)
    sink: Any = SimpleNamespace(
        forget=lambda: None,
        client=SimpleNamespace(arrivals=lambda: [SimpleNamespace(mono_ns=first_ns, status=200)]),
    )
    part: Any = SimpleNamespace(pid=worker.pid, check=lambda: None)
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=interrupted)
    monkeypatch.setattr(scenes, "time", clock)
    with pytest.raises(KeyboardInterrupt):
        scenes.play(Contestant("Valkey 9", lambda: None, [part]), FROZEN, plan, sink)
    until(lambda: state(worker.pid) != "T", 10, "the worker goes on")


# -- BullMQ's packages -----------------------------------------------------------------------


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)


def test_packages_are_installed_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "node", "exit 1")
    program(tmp_path / "bin", "npm", f'echo "$@" >> {tmp_path}/asked')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for _ in range(2):
        install(tmp_path / "cache")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 1
    assert asked[0].endswith(" ".join(PACKAGES))
    (tmp_path / "cache" / "installed").write_text("bullmq@1.0.0")
    install(tmp_path / "cache")
    assert len((tmp_path / "asked").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ({}, "node is not installed"),
        ({"node": "exit 0"}, "npm is not installed"),
        (
            {"node": "exit 0", "npm": "echo 'npm error code ENOTFOUND' >&2; exit 7"},
            "npm install ended with code 7: npm error code ENOTFOUND",
        ),
        ({"node": "exit 0", "npm": "exit 1"}, "ended with code 1: it wrote nothing"),
    ],
)
def test_what_is_missing_is_named_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: dict[str, str], why: str
) -> None:
    (tmp_path / "bin").mkdir()
    for name, text in there.items():
        program(tmp_path / "bin", name, text)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for _ in range(2):
        with pytest.raises(Unavailable, match=why):
            install(tmp_path / "cache")
