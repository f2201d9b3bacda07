"""The law in words, why something waits, when it will be done; spans of time, ranges of lines."""

from __future__ import annotations

from typing import Any

import pytest

from paceline.census import CONTAINERS, END_TERMS, IN_TERMS, Census, WorkerSeen
from paceline.cli import explain
from paceline.cli.common import DURATION
from paceline.cli.lines import Ranges
from paceline.cli.words import count_of, excerpt, in_words
from paceline.rates import observations, percentile_s

NOW = 1_800_000_000_000_000


def census(
    law: dict[str, int] | None = None, workers: int = 1, daemons: int = 1, **given: Any
) -> Census:
    terms = dict.fromkeys((*IN_TERMS, *END_TERMS, *CONTAINERS), 0) | (law or {})
    seen = [
        WorkerSeen(id=f"w{n}", live=True, lease_left_s=10, slots=5, facts={})
        for n in range(workers)
    ]
    fields: dict[str, Any] = {
        "destination": "api",
        "now_us": NOW,
        "law": terms,
        "counters": {},
        "sizes": {"next_due_us": -1},
        "gate": {"k": "140"},
        "config": {"rate": "90", "burst": "150"},
        "workers": seen,
        "daemons": daemons,
        "outcomes": {},
        "histogram": {},
    }
    return Census(**{**fields, **given})


READY = {"accepted": 900, "ready": 900}


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("nothing", {"law": {"accepted": 1, "sent": 1}}),
        ("paused", {"gate": {"pause_until": "-1", "k": "9"}}),
        ("throttled", {"gate": {"hold_until": str(NOW + 1), "hold_kind": "throttled", "k": "9"}}),
        ("no-daemon", {"daemons": 0, "workers": 0}),
        ("no-worker", {"workers": 0}),
        ("bucket", {"gate": {"k": "0"}}),
        ("scheduled", {"law": {"accepted": 1, "scheduled": 1}, "sizes": {"next_due_us": 5e6}}),
        ("connections", {"histogram": {"api:1000000": 10, "api:sum": 10e6}}),
        ("rate", {"histogram": {"api:10000": 10, "api:sum": 0.1e6}}),
        ("rate", {"gate": {"pause_until": str(NOW - 1), "k": "9"}}),
    ],
)
def test_why_it_waits(code: str, given: dict[str, Any]) -> None:
    found = explain.why_waits(census(**{"law": READY, **given}))
    assert found.code == code
    assert found.text


@pytest.mark.parametrize(
    ("ready", "capped", "code"),
    [
        (900, 900, "tenant-cap"),
        (900, 895, "tenant-cap"),  # what they have gained since the last take
        (900, 450, "rate"),
        (900, 0, "rate"),
    ],
)
def test_tenants_caps_bind_when_little_else_is_ready(ready: int, capped: int, code: str) -> None:
    sizes = {"next_due_us": -1, "capped": capped, "capped:acme": capped - 1, "capped:bolt": 1}
    found = explain.why_waits(census({"accepted": ready, "ready": ready}, sizes=sizes))
    assert found.code == code
    assert ("acme, bolt" in found.text) == (code == "tenant-cap")


def test_a_cap_is_named_only_where_it_holds_back() -> None:
    config = {"rate": "90", "tenants": '{"acme": [1, 5, 5], "*": [1, 2.5, 3]}'}
    found = census(READY, config=config, sizes={"capped": 7, "capped:acme": 3, "capped:any": 4})
    assert "acme has used up its own rate, 5/s" in (explain.tenant_cap(found, "acme") or "")
    assert "any has used up its own rate, 2.5/s" in (explain.tenant_cap(found, "any") or "")
    assert explain.tenant_cap(found, "idle") is None
    assert explain.tenant_cap(found, None) is None
    assert explain.tenant_cap(census(READY), "acme") is None


def test_when_it_will_be_done() -> None:
    assert explain.eta_s(census()) == 0
    assert explain.eta_s(census(READY)) == pytest.approx(10)
    assert explain.eta_s(census(READY, workers=0)) is None
    assert explain.eta_s(census(READY, gate={"pause_until": "-1"})) is None
    timed = census(READY, gate={"pause_until": str(NOW + 5_000_000)})
    assert explain.eta_s(timed) == pytest.approx(15)
    slow = census(READY, histogram={"api:1000000": 10, "api:sum": 10e6})
    assert explain.eta_s(slow) == pytest.approx(180)
    late = census({"accepted": 1, "scheduled": 1}, sizes={"next_due_us": 60e6})
    assert explain.eta_s(late) == pytest.approx(60)


def test_pause_and_hold_together() -> None:
    gate = {"pause_until": "-1", "pause_why": "a", "pause_who": "x@y", "hold_until": "-1",
            "hold_kind": "held", "hold_why": "401"}  # fmt: skip
    assert [c.text for c in explain.closures(census(gate=gate))] == [
        "paused until resumed by x@y: a",
        "held until resumed: 401",
    ]


def test_percentiles_are_read_off_the_slots() -> None:
    histogram = {
        "api:1000": 50.0,
        "api:50000": 49.0,
        "api:inf": 1.0,
        "api:sum": 1.0,
        "sent:1000": 9.0,
    }
    assert observations(histogram, "api") == 100
    assert percentile_s(histogram, "api", 0.25) == pytest.approx(0.0005)
    # The slot below 50 ms begins at 25 ms, though nothing lies between.
    assert percentile_s(histogram, "api", 0.745) == pytest.approx(0.0375)
    assert percentile_s(histogram, "api", 1.0) == pytest.approx(300)
    assert percentile_s({}, "api", 0.5) is None


def test_bucket_fills_with_time_up_to_its_size() -> None:
    gate = {"level": "-10", "at": str(NOW - 1_000_000), "k": "140"}
    assert explain.bucket_level(census(gate=gate)) == pytest.approx(80)
    assert explain.bucket_level(census(gate={**gate, "at": "0"})) == pytest.approx(140)
    assert explain.bucket_level(census()) is None


def test_the_law_as_an_equation() -> None:
    sound = census({"accepted": 1200, "sent": 1000, "ready": 200})
    assert explain.equation(sound) == (
        "accepted 1,200 + moved_in 0 = 1,200",
        "sent 1,000 + expired 0 + cancelled 0 + dropped 0 + moved_out 0 + dead 0 + parked 0 + "
        "ready 200 + scheduled 0 + leased 0 = 1,200",
    )
    assert explain.law_verdict(sound).startswith("sound")
    assert "1 message came in" in explain.law_verdict(census({"accepted": 1}))
    assert "2 messages more than came in" in explain.law_verdict(census({"sent": 2}))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("0.5s", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"), (0.045, "45 ms"), (12.34, "12.3 s"), (59.99, "60 s"), (60, "1m"),
        (200, "3m 20s"), (3600, "1h"), (8040, "2h 14m"), (86400 * 3 + 4 * 3600, "3d 4h"),
    ],
)  # fmt: skip
def test_spans_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_counts_in_words() -> None:
    assert count_of(1, "message") == "1 message"
    assert count_of(1200, "message") == "1,200 messages"
    assert count_of(2, "discrepancy", "discrepancies") == "2 discrepancies"


def test_ranges_of_lines() -> None:
    ranges = Ranges()
    for place, number in enumerate([1, 2, 4, 9], start=1):  # line 3 is blank
        ranges.add(number, place)
    ranges.add(12, 7)
    assert (str(ranges), ranges.count) == ("1–9, 12", 5)


def test_excerpts_are_harmless_to_terminals() -> None:
    assert excerpt("a\n\x1b[31mb\tc", 80) == "a ?[31mb c"
    assert excerpt("x" * 50, 10) == "x" * 9 + "…"


def test_what_redis_forgot_is_told_where_there_is_something() -> None:
    assert explain.lost_text(census()) == ""
    assert "redis_lost" not in explain.law_view(census())
    some = census(counters={"losses": 1, "lost_accepted": 40, "lost_sent": 1})
    assert explain.law_view(some)["redis_lost"] == {"accepted": 40, "outcomes": 0, "sent": 1}
    assert explain.lost_text(some) == (
        "redis-loss: Redis forgot at least 40 accepted messages; of 0 outcomes it was told again, "
        "and of 1 sent message that it did not know any more"
    )
