"""The arithmetic of ``paceline bench merge``, and what it prints of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from paceline.bench.child import BenchFailed
from paceline.bench.figures import Figure
from paceline.bench.lines import config_text
from paceline.bench.machine import Machine
from paceline.bench.merge.body import payload
from paceline.bench.merge.figures import Drain, Loop, Turn, figures
from paceline.bench.merge.plan import BATCH, NAME, MergePlan, plain, sparkpost
from paceline.bench.merge.report import MergeReport, as_markdown, as_text
from paceline.bench.peak import peak_bytes
from paceline.message import encode_payload
from paceline.payloads import check
from paceline.settings_file import loads

MACHINE = Machine(2, "a processor", "Linux 6", "CPython 3.11.7", "Valkey 9", (1.0, 0.5, 0.25), 0.01)
MB = 1024 * 1024


def turn(pair: int, *, intake_s: float = 6.0, drain_s: float = 4.0, **drain: Any) -> Turn:
    given: dict[str, Any] = {
        "recipients": 100_000,
        "requests": 50,
        "workers_cpu_s": 2.0,
        "daemon_cpu_s": 0.1,
        "redis_cpu_s": 1.0,
        "peaks": (90 * MB, 120 * MB),
    }
    return Turn(
        pair,
        100_000,
        Loop(intake_s, 1.5, 1.0),
        Loop(2.0, 0.5, 1.2),
        Drain(drain_s, **{**given, **drain}),
    )


def by_name(turns: list[Turn], *, merging: bool = True) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(turns, merging=merging)}


def test_figures_are_of_a_minute_and_the_ratio_of_one_turn() -> None:
    found = by_name([turn(1), turn(2, drain_s=8.0), turn(3, drain_s=2.0)])
    assert found["intake"].values == [1_000_000.0] * 3
    assert found["intake"].met is True
    assert found["floor"].median == 3_000_000
    assert found["floor"].bar is None
    assert found["drain"].values == [1_500_000, 750_000, 3_000_000]
    assert found["drain"].met is False
    assert found["drain / floor"].values == [0.5, 0.25, 1.0]
    assert found["worker's peak memory"].median == 120
    assert found["intake: producer's CPU"].median == pytest.approx(15)
    assert found["drain: daemon's CPU"].median == pytest.approx(1)


def test_bars_are_missed_by_what_is_below_them() -> None:
    found = by_name([turn(1, intake_s=6.001, drain_s=3.0, peaks=(401 * MB,))])
    assert [f.name for f in found.values() if f.met is False] == ["intake", "worker's peak memory"]
    assert found["drain"].met is True


def test_one_request_a_message_is_not_judged_by_what_is_promised_of_many() -> None:
    assert by_name([turn(1, drain_s=60.0)], merging=False)["drain"].met is None


def test_memory_is_left_out_where_the_system_does_not_tell() -> None:
    assert "worker's peak memory" not in by_name([turn(1, peaks=())])


def test_the_report_says_the_same_in_its_three_forms() -> None:
    report = MergeReport(MergePlan(messages=100_000, pairs=1), MACHINE, [turn(1)], 12.0)
    data = json.loads(json.dumps(report.as_dict()))
    assert data["turns"][0]["drain"]["requests"] == 50
    assert data["turns"][0]["drain_per_min"] == 1_500_000
    assert data["plan"]["provider"] == report.plan.speech.dialect.provider
    rows = {figure["name"]: figure for figure in data["figures"]}
    assert rows["intake"] | {"unit": ""} == {
        "name": "intake", "unit": "", "median": 1e6, "min": 1e6, "max": 1e6, "n": 1,
        "bar": "≥ 1,000,000", "met": True,
    }  # fmt: skip
    text = as_text(report)
    assert "1 intake 100,000 in 6.00 s: 1,000,000 a minute" in text
    assert "1,500,000 a minute in 50 requests" in text
    assert "0.500 of the floor" in text
    assert "1 of 3 bars missed: drain" in text
    assert "| intake | 1,000,000 /min | 1,000,000 – 1,000,000 | 1 | ≥ 1,000,000 | met |" in (
        as_markdown(report)
    )


def test_messages_differ_in_their_recipient_only_and_are_of_one_length() -> None:
    first, last = payload(0), payload(8_999_999)
    sizes = {len(encode_payload(payload(n))) for n in (0, 1, 77, 8_999_999)}
    assert sizes == {281}
    assert {k: v for k, v in first.items() if k != "recipients"} == {
        k: v for k, v in last.items() if k != "recipients"
    }
    assert first["recipients"] != last["recipients"]
    check("sparkpost", encode_payload(first))


def test_the_outbox_holds_what_is_asked_for_in_the_configuration() -> None:
    for messages in (100, 400_000, 5_000_000):
        plan = MergePlan(messages=messages)
        text = config_text(
            NAME, "redis://h/0", "http://127.0.0.1:9/x", 50_000, plan.room, dialect=plain().dialect
        )
        destination = loads(text).destinations[NAME]
        assert destination.max_messages >= 2 * messages
        assert destination.max_bytes >= 2 * messages * 281
        assert destination.provider == "http"


def test_merged_requests_are_configured_with_their_key_and_how_many() -> None:
    speech = sparkpost(2000)
    text = config_text(NAME, "redis://h/0", "http://h/x", 1, 100, dialect=speech.dialect)
    assert 'provider = "sparkpost"' in text
    assert "merge = { most = 2000 }" in text
    assert (speech.batch, plain().batch) == (2000, BATCH)
    assert [name in text for name in speech.dialect.variables] == [True]
    config = config_text(
        NAME, "redis://h/0", "http://127.0.0.1:9/x", 50_000, 10_000, dialect=speech.dialect
    )
    destination = loads(config).destinations[NAME]
    assert (destination.merge.most, destination.merge.on_ambiguous) == (2000, "retry")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_what_was_held_once() -> None:
    grown = "import sys; x = b'x' * 80_000_000; del x; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", grown], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        assert child.stdin
        child.stdout.readline()
        assert 80_000_000 < (peak_bytes(child.pid) or 0) < 160_000_000
        child.stdin.close()
    with pytest.raises(BenchFailed, match="has it ended"):
        peak_bytes(2**22 + os.getpid())
