"""The bench's arithmetic: ratios of pairs, medians, bars; and what it prints of them."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from paceline.bench import command
from paceline.bench.body import PAYLOAD_BYTES, payload
from paceline.bench.child import BenchFailed
from paceline.bench.contest import order
from paceline.bench.cpu import used_s
from paceline.bench.figures import (
    Bar,
    Depth,
    Figure,
    Latency,
    Measured,
    Memory,
    Run,
    figures,
    paired,
)
from paceline.bench.lines import config_text
from paceline.bench.machine import Machine, look
from paceline.bench.plan import CONTESTANTS, EVENTS, STANDARD, Fsync, Plan
from paceline.bench.report import Report, as_markdown, as_text
from paceline.message import encode_payload
from paceline.rehearsal.processes import parse_ps_time
from paceline.settings_file import loads

MACHINE = Machine(2, "a processor", "Linux 6", "CPython 3.11.7", "Valkey 9", (1.0, 0.5, 0.25), 0.01)


def run(name: str, pair: int, **changed: Any) -> Run:
    given: dict[str, Any] = {
        "fsync": "always",
        "messages": 100,
        "accepted": 100,
        "wall_s": 1.0,
        "intake_s": 0.5,
        "cpu_s": {"producer": 0.01, "workers": 0.03},
        "redis_cpu_s": 0.01,
    }
    return Run(contestant=name, pair=pair, **{**given, **changed})


def named(found: list[Figure], name: str) -> Figure:
    return next(figure for figure in found if figure.name == name)


def test_a_run_tells_what_one_message_cost() -> None:
    one = run("paceline-2", 1, wall_s=0.25)
    assert (one.per_s, one.intake_per_s) == (400.0, 200.0)
    assert one.cpu_ms == pytest.approx(0.4)
    assert one.redis_ms == pytest.approx(0.1)
    assert one.all_ms == pytest.approx(0.5)
    assert run("naive", 1, intake_s=None).intake_per_s is None


def test_ratios_are_of_the_same_pair_in_any_order() -> None:
    runs = [
        run("paceline-1", 2, wall_s=0.5),
        run("naive", 1, wall_s=1.0),
        run("paceline-1", 1, wall_s=0.1),
        run("naive", 2, wall_s=4.0),
        run("paceline-1", 3),
    ]
    assert paired(runs, "paceline-1", "naive", lambda r: r.per_s) == [8.0, 10.0]
    found = named(figures(Measured(runs), ["always"]), "drain rate, paceline-1 / naive")
    assert (found.median, min(found.values), max(found.values)) == (9.0, 8.0, 10.0)


def test_the_median_of_the_ratios_is_no_ratio_of_medians() -> None:
    cpu = [(1.0, 1.0), (10.0, 2.0), (3.0, 9.0)]
    runs = [
        run(name, pair, cpu_s={"x": seconds})
        for pair, both in enumerate(cpu)
        for name, seconds in zip(("paceline-2", "naive"), both, strict=True)
    ]
    found = named(figures(Measured(runs), ["always"]), "CPU a message, paceline-2 / naive")
    assert found.median == 1.0  # of 1, 5 and 1/3; the medians' own would be 3 / 2


def test_what_redis_used_is_told_apart_and_together() -> None:
    runs = [
        run("naive", 1, cpu_s={"loop": 0.05}, redis_cpu_s=0.0, intake_s=None),
        run("paceline-2", 1, cpu_s={"workers": 0.025}, redis_cpu_s=0.05),
    ]
    found = figures(Measured(runs), ["always"])
    assert named(found, "CPU a message, paceline-2 / naive").median == pytest.approx(0.5)
    with_redis = named(found, "CPU a message with Redis's, paceline-2 / naive")
    assert with_redis.median == pytest.approx(1.5)
    assert "naive: intake rate" not in {figure.name for figure in found}


@pytest.mark.parametrize(("redis_s", "met"), [(0.014, True), (0.016, False)])
def test_what_events_cost_is_judged_with_redis_part(redis_s: float, met: bool) -> None:
    runs = [run(STANDARD, 1), run(EVENTS, 1, redis_cpu_s=redis_s)]
    found = figures(Measured(events=runs), ["always"])
    assert named(found, "CPU a message with Redis's, with events / without").met is met
    assert named(found, "Redis's CPU a message, with all events").median == redis_s * 10
    assert named(found, "workers' CPU a message, with events / without").values == [1.0]
    assert not figures(Measured(events=runs), ["everysec"])


@pytest.mark.parametrize(("rq_s", "met"), [(10.1, True), (10.0, True), (9.9, False)])
def test_the_bar_of_intake_holds_for_durable_intake_only(rq_s: float, met: bool) -> None:
    runs = [
        run(name, 1, fsync=fsync, intake_s=seconds)
        for fsync in ("always", "everysec")
        for name, seconds in (("rq", rq_s), ("paceline-2", 1.0))
    ]
    of = {
        figure.fsync: figure
        for figure in figures(Measured(runs), ["always", "everysec"])
        if figure.name == "intake rate, paceline-2 / rq"
    }
    assert of["always"].met is met
    assert of["everysec"].bar is None
    assert of["everysec"].met is None


@pytest.mark.parametrize(
    ("fsync", "wall_s", "cpu_s", "met"),
    [
        ("always", 1.5, 0.89, (True, True)),
        ("always", 1.49, 0.91, (False, False)),
        ("everysec", 2.0, 0.89, (True, True)),
        ("everysec", 1.99, 0.89, (False, True)),
    ],
)
def test_the_bars_beside_the_naive_loop(
    fsync: Fsync, wall_s: float, cpu_s: float, met: tuple[bool, bool]
) -> None:
    found = figures(
        Measured(
            [
                run("naive", 1, fsync=fsync, wall_s=wall_s, cpu_s={"loop": 1.0}),
                run("paceline-2", 1, fsync=fsync, wall_s=1.0, cpu_s={"workers": cpu_s}),
                run("paceline-1", 1, fsync=fsync, wall_s=1.0, cpu_s={"workers": cpu_s}),
            ]
        ),
        [fsync],
    )
    drain, cpu = "drain rate, paceline-2 / naive", "CPU a message, paceline-2 / naive"
    assert (named(found, drain).met, named(found, cpu).met) == met
    assert named(found, "drain rate, paceline-1 / naive").met is None
    assert named(found, "CPU a message, paceline-1 / naive").met == met[1]


def test_bars_stand_on_one_side() -> None:
    assert Bar("≤", 1.1).met(1.1)
    assert not Bar("≤", 1.1).met(1.11)
    assert Bar("≥", 10).met(10)
    assert not Bar("≥", 10).met(9.99)
    assert str(Bar("≥", 10)) == "≥ 10"


def depth(pair: int, standing: int, **changed: Any) -> Depth:
    given: dict[str, Any] = {
        "taken_in": 200,
        "intake_cpu_s": 0.02,
        "sent": 100,
        "drain_s": 1.0,
        "drain_cpu_s": 0.03,
        "redis_cpu_s": 0.01,
    }
    return Depth("always", pair, standing, **{**given, **changed})


def test_the_backlogs_cost_is_of_intake_and_drain_each_by_its_own_count() -> None:
    assert depth(1, 1000).ms == pytest.approx(0.1 + 0.4)


def test_the_backlogs_ratio_is_deep_over_shallow() -> None:
    found = figures(
        Measured(
            backlog=[
                depth(1, 500_000, redis_cpu_s=0.02),
                depth(1, 1000),
                depth(2, 1000),
                depth(2, 500_000),
            ]
        ),
        ["always"],
    )
    ratio = named(found, "the same, 500,000 / 1,000")
    assert ratio.values == pytest.approx([1.2, 1.0])
    assert ratio.median == pytest.approx(1.1)


def test_memory_is_what_goes_beyond_the_payload() -> None:
    one = Memory("always", 10, 1000, 13_500)
    assert one.overhead == 350
    found = figures(Measured(memory=[one]), ["always", "everysec"])
    assert [figure.met for figure in found] == [True]


def test_latency_is_judged_by_its_p99() -> None:
    ms = [1.0] * 97 + [24.0, 26.0, 90.0]
    p50, p99 = figures(Measured(latency=[Latency("always", ms, 0)]), ["always"])
    assert (p50.median, p50.met) == (1.0, None)
    assert (p99.median, p99.met) == (26.0, False)


def test_nothing_measured_makes_no_figures() -> None:
    assert figures(Measured(), ["always", "everysec"]) == []


def test_each_pair_begins_with_another_contestant() -> None:
    names = ("a", "b", "c")
    turns = [order(names, pair) for pair in range(1, 4)]
    assert sorted(turn[0] for turn in turns) == ["a", "b", "c"]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)


@pytest.mark.parametrize("number", [0, 8_999_999])
def test_every_message_is_of_the_same_size(number: int) -> None:
    assert len(encode_payload(payload(number))) == PAYLOAD_BYTES == 1000


def test_what_is_asked_for() -> None:
    assert Plan().contestants == CONTESTANTS
    assert Plan().wants("backlog")
    assert not Plan(backlog=0).wants("backlog")
    assert [Plan().messages_of(name) for name in ("naive", "rq")] == [4000, 1000]
    only = Plan(only=("memory", "paceline-1"))
    assert only.contestants == ("paceline-1",)
    assert (only.wants("memory"), only.wants("latency")) == (True, False)


def test_the_configuration_is_read_as_meant() -> None:
    text = config_text(
        "paceline-2", "redis://127.0.0.1:1/0", "http://127.0.0.1:2/m", 50_000, 70_000
    )
    found = loads(text, source="bench")
    its = found.destinations["paceline-2"]
    assert (its.rate, its.burst, its.effective_connections) == (50_000, 20_000, 10)
    assert its.max_messages == 70_000
    assert found.warnings == ()


def test_cpu_time_is_this_processes_own() -> None:
    before = time.process_time()
    seen = used_s([os.getpid()])
    assert before <= seen + 0.02
    assert seen <= time.process_time() + 0.02


def test_cpu_time_of_one_that_is_gone_is_an_error() -> None:
    with pytest.raises(BenchFailed, match="cannot be read"):
        used_s([os.getpid(), 2**22 + 1])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00.05", 0.05),
        ("12:34.50", 754.5),
        ("01:00:01", 3601.0),
        ("2-00:00:01", 172_801.0),
        ("", None),
        ("TIME", None),
    ],
)
def test_the_time_that_ps_tells(text: str, seconds: float | None) -> None:
    assert parse_ps_time(text) == seconds


def test_the_machine_is_named() -> None:
    seen = look("Valkey 9")
    assert seen.cpus >= 1
    assert seen.model
    assert seen.python.startswith("CPython 3.")
    assert not any(math.isnan(value) for value in seen.load)


# -- what is printed -------------------------------------------------------------------------


def report(*runs: Run, **measured: Any) -> Report:
    return Report(Plan(pairs=1), MACHINE, Measured(runs=runs, **measured), 12.0)


GOOD = Memory("always", 10, 1000, 12_000)
BAD = Memory("everysec", 10, 1000, 14_000)


def test_the_text_shows_raw_numbers_figures_and_bars() -> None:
    text = as_text(report(run("paceline-2", 1), memory=[GOOD, BAD]))
    assert text.startswith("2 CPUs, a processor; Linux 6; CPython 3.11.7; Valkey 9; load 1.00 ")
    assert "1.0% of the CPU time stolen" in text
    assert "(producer 0.100, workers 0.300), Redis 0.100 ms" in text
    assert "everysec memory: 10 messages, 1400 bytes each, payload 1000" in text
    lines = [line for line in text.splitlines() if line.startswith("memory beyond")]
    assert lines[0].split()[-3:] == ["≤", "350", "met"]
    assert lines[1].split()[-3:] == ["≤", "350", "MISSED"]
    assert "1 of 2 bars missed: memory beyond the payload, 10 waiting (everysec)" in text


def test_the_tables_of_the_markdown_are_whole() -> None:
    text = as_markdown(report(run("paceline-2", 1), memory=[GOOD]))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {7}
    row = "| memory beyond the payload, 10 waiting | 200 bytes | 200 – 200 | 1 | ≤ 350 | met |"
    assert row in rows
    assert "everysec" not in text


def test_json_holds_raw_numbers_and_figures() -> None:
    document = json.loads(json.dumps(report(run("rq", 1), memory=[BAD]).as_dict()))
    assert document["format"] == 1
    assert document["runs"][0]["per_s"] == 100.0
    assert document["runs"][0]["accepted"] == 100
    assert document["memory"][0]["overhead"] == 400
    figure = next(f for f in document["figures"] if f["bar"])
    assert (figure["median"], figure["bar"], figure["met"]) == (400.0, "≤ 350", False)
    assert document["missed"] == ["everysec: memory beyond the payload, 10 waiting"]


@pytest.mark.parametrize(
    ("options", "memory", "code"),
    [
        ((), BAD, 0),
        (("--check",), BAD, 1),
        (("--check",), GOOD, 0),
        (("--json", "--check"), BAD, 1),
    ],
)
def test_a_missed_bar_is_a_failure_only_where_asked(
    monkeypatch: pytest.MonkeyPatch, options: list[str], memory: Memory, code: int
) -> None:
    monkeypatch.setattr(command, "run_bench", lambda *_: report(memory=[memory]))
    given = command.bench.main(options, standalone_mode=False)
    assert given == code


def test_a_folder_of_its_own_is_removed_but_kept_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(command, "run_bench", lambda *_: report(memory=[GOOD]))
    command.bench.main([], standalone_mode=False)
    assert list(tmp_path.iterdir()) == []

    def fails(*_: object) -> None:
        raise BenchFailed("the sink is gone")

    monkeypatch.setattr(command, "run_bench", fails)
    with pytest.raises(BenchFailed):
        command.bench.main([], standalone_mode=False)
    assert len(list(tmp_path.iterdir())) == 1


def test_two_forms_at_once_are_refused() -> None:
    with pytest.raises(click.UsageError, match="exclude each other"):
        command.bench.main(["--json", "--markdown"], standalone_mode=False)


def test_a_backlog_of_none_is_no_section() -> None:
    with pytest.raises(click.UsageError, match="above 0"):
        command.bench.main(["--only", "backlog", "--backlog", "0"], standalone_mode=False)


def test_help_shows_examples() -> None:
    shown = CliRunner().invoke(command.bench, ["--help"]).output
    assert "paceline bench --pairs 3 --fsync always" in shown
    assert "--backlog" in shown
