"""The verdict: a sound run passes, and each thing that can be wrong fails the check of its name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from paceline.census import Census
from paceline.rehearsal.checks import judge, law_equation
from paceline.rehearsal.evidence import Evidence
from paceline.rehearsal.intake import Taken
from paceline.rehearsal.ledger import Entry
from paceline.rehearsal.measures import Sample
from paceline.rehearsal.plan import Plan
from paceline.rehearsal.reconcile import Fact, reconcile
from paceline.rehearsal.report import Report, as_text, figures
from paceline.sink.record import Arrival

S = 1_000_000
SHA1, BODY = "a" * 40, "b" * 16
COUNT = 100
PLAN = Plan(messages=COUNT, rate=100, burst=20, connections=10, within_s=60)
LAW = {
    "accepted": COUNT, "moved_in": 0, "sent": COUNT, "expired": 0, "cancelled": 0, "dropped": 0,
    "moved_out": 0, "dead": 0, "parked": 0, "ready": 0, "scheduled": 0, "leased": 0,
}  # fmt: skip
IDS = [f"m{n}" for n in range(COUNT)]


def census(**law: int) -> Census:
    return Census(
        destination="rehearsal",
        now_us=0,
        law={**LAW, **law},
        counters={"retried": 3},
        sizes={},
        gate={},
        config={},
        workers=[],
        daemons=1,
        outcomes={"sent:200": COUNT},
        histogram={"api:50000": 99.0, "api:100000": 1.0, "api:sum": 4e6},
    )


def sample(at_s: float, ready: int, difference: int = 0) -> Sample:
    return Sample(round(at_s * S), ready, 0, ready, True, difference)


def arrivals_at(rate: float) -> list[Arrival]:
    made = []
    for number, its_id in enumerate(IDS):
        at_ns = round(number / rate * 1e9)
        answered_ns = at_ns + 40_000_000
        made.append(
            Arrival(
                number, at_ns, at_ns, its_id, 0, "", "/", 100, "ok", 200, BODY, answered_ns, True
            )
        )
    return made


def sink(max_open: int = 10) -> dict[str, Any]:
    return {
        "accepted": COUNT,
        "faults": {"ok": COUNT},
        "answered": {"200": COUNT},
        "connections": {"opened": 10, "max_open": max_open},
    }


SOUND = Evidence(
    entries=[Entry(i, "good", SHA1, BODY, 100, 0.0) for i in IDS],
    refusals=[],
    arrivals=arrivals_at(100),
    facts=dict.fromkeys(IDS, Fact("sent", SHA1)),
    census=census(),
    sink=sink(),
    samples=[sample(n / 10, COUNT - 10 * n) for n in range(11)],
    taken=Taken(COUNT, 0, 10_000, 0.1),
    cpu_s={"daemon": 0.01, "worker-1": 0.1, "worker-2": 0.1, "redis": 0.05},
    run_s=1.0,
    exits={"worker-1": 0, "worker-2": 0, "daemon": 0, "sink": 0},
    elapsed_s=3.0,
)


def report(evidence: Evidence, plan: Plan = PLAN) -> Report:
    found = reconcile(evidence.entries, evidence.refusals, evidence.arrivals, evidence.facts)
    return Report(
        plan, figures(plan, evidence, found, {}), judge(plan, evidence, found, 10), "/folder"
    )


def failed(evidence: Evidence, plan: Plan = PLAN) -> list[str]:
    return [check.name for check in report(evidence, plan).checks if not check.ok]


def test_a_slow_run_fails_on_a_starved_machine_too_and_says_that_it_was() -> None:
    slow = replace(SOUND, arrivals=arrivals_at(90), stolen=0.2)
    assert failed(slow) == ["rate"]
    said = [check.look for check in report(slow).checks if not check.ok]
    assert "the host took 20% of this machine's CPU time" in said[0]


def test_a_sound_run_passes() -> None:
    assert failed(SOUND) == []
    assert report(SOUND).passed


@pytest.mark.parametrize(
    ("change", "check"),
    [
        pytest.param(
            {"facts": dict.fromkeys(IDS[1:], Fact("sent", SHA1))}, "nothing lost", id="lost"
        ),
        pytest.param({"census": census(accepted=99, sent=99)}, "nothing lost", id="never counted"),
        pytest.param({"census": census(sent=99, leased=1)}, "nothing unfinished", id="leased"),
        pytest.param({"census": census(sent=99)}, "conservation law", id="law at the end"),
        pytest.param(
            {"samples": [*SOUND.samples, sample(2, 0, -1)]}, "conservation law", id="law on the way"
        ),
        pytest.param({"arrivals": arrivals_at(1000)}, "pace", id="excess"),
        pytest.param({"arrivals": arrivals_at(90)}, "rate", id="slow"),
        pytest.param({"samples": []}, "rate", id="rate not measured"),
        pytest.param({"sink": sink(11)}, "connections", id="a connection too many"),
        pytest.param({"exits": {"worker-1": -9}}, "orderly end", id="killed"),
        pytest.param({"elapsed_s": 60.1}, "time", id="late"),
    ],
)
def test_each_failure_fails_its_check_alone(change: dict[str, Any], check: str) -> None:
    assert failed(replace(SOUND, **change)) == [check]


def test_every_finding_of_the_reconciliation_fails_a_check() -> None:
    facts = {
        **SOUND.facts,
        "m0": Fact("dead"),
        "m1": Fact("scheduled"),
        "m2": Fact("sent", "c" * 40),
    }
    twice = arrivals_at(100)
    twice.append(replace_id(twice[-1], "stranger"))
    twice.append(twice[3])
    twice.sort(key=lambda arrival: arrival.mono_ns)
    names = failed(replace(SOUND, facts=facts, arrivals=twice))
    assert names == [
        "nothing unfinished", "dead letters", "no strangers", "duplicates", "bytes kept",
    ]  # fmt: skip


def replace_id(arrival: Arrival, its_id: str) -> Arrival:
    fields = {name: getattr(arrival, name) for name in arrival.__struct_fields__}
    return Arrival(**{**fields, "id": its_id})


def test_the_law_is_written_as_an_equation() -> None:
    assert law_equation(census()) == "accepted 100 + moved_in 0 = sent 100"
    broken = law_equation(census(sent=90, dead=9))
    assert broken == "accepted 100 + moved_in 0 ≠ sent 90 + dead 9   (difference +1)"


def test_the_text_names_each_check_and_what_failed() -> None:
    text = as_text(report(replace(SOUND, elapsed_s=60.1)))
    assert text.endswith("FAILED: time\n")
    assert "FAIL  time:" in text
    assert "PASS  conservation law:" in text
    assert as_text(report(SOUND)).endswith("PASSED: all of it adds up\n")


def test_the_figures() -> None:
    found = report(SOUND).figures
    assert found["api_latency_ms"] == {
        "sink_p50": 40.0, "sink_p99": 40.0, "outbox_p50_at_most": 50.0, "outbox_p99_at_most": 50.0,
    }  # fmt: skip
    assert found["cpu_ms_per_message"] == pytest.approx(
        {"daemon": 0.1, "worker": 2.0, "redis": 0.5, "total": 2.6}
    )
    assert found["rate"]["achieved_per_s"] == pytest.approx(100)


def test_unknown_cpu_is_said_to_be_unknown() -> None:
    cpu = {**SOUND.cpu_s, "redis": None}
    found = report(replace(SOUND, cpu_s=cpu))
    assert found.figures["cpu_ms_per_message"]["total"] is None
    assert "CPU a message: unknown ms" in as_text(found)


def test_the_report_is_json() -> None:
    document = json.loads(json.dumps(report(SOUND).as_dict()))
    assert document["passed"] is True
    assert document["plan"]["seed"] == PLAN.seed
    assert document["checks"][0]["name"] == "nothing lost"
