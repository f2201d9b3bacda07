"""When a mailing must start, how it is spread, what time a person means, what binds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.census import CONTAINERS, END_TERMS, IN_TERMS, Census, WorkerSeen
from paceline.cli import explain
from paceline.cli.moment import parse_moment
from paceline.cli.plan import Plan
from paceline.cli.reckon import reckon, room
from paceline.errors import NotPossible
from paceline.plan import Pace, last_due, round_up, spread

HOUR = 3600.0
#: 2026-06-15 10:00:00 in Berlin, which is two hours ahead of UTC in summer.
NOW = 1_781_510_400.0


# -- arithmetic ---------------------------------------------------------------------------------


def test_a_mailing_after_what_waits_and_after_a_pause() -> None:
    pace = Pace(per_s=90.0, ahead=9_000, closed_s=60.0)
    assert pace.takes_s(0) == pytest.approx(160)
    assert pace.takes_s(324_000) == pytest.approx(160 + HOUR)
    assert pace.fits(160 + HOUR) == 324_000
    assert pace.fits(160) == 0
    assert pace.fits(30) == 0
    assert pace.needed_per_s(324_000, 60 + HOUR) == pytest.approx(92.5)
    assert pace.needed_per_s(1, 60) is None


def test_the_latest_start_counts_on_what_waits_going_out_meanwhile() -> None:
    pace = Pace(per_s=90.0, ahead=9_000)
    assert pace.latest_start_s(324_000, 3 * HOUR) == pytest.approx(2 * HOUR)
    assert pace.latest_start_s(324_000, HOUR + 100) == pytest.approx(100)
    assert pace.latest_start_s(324_000, HOUR + 99) == pytest.approx(-1)


PACES = st.builds(
    Pace,
    per_s=st.floats(0.01, 20_000),
    ahead=st.integers(0, 10_000_000),
    closed_s=st.floats(0, 86_400),
)


@given(PACES, st.integers(1, 10_000_000))
def test_what_fits_is_what_it_takes(pace: Pace, count: int) -> None:
    takes_s = pace.takes_s(count)
    assert pace.fits(takes_s + 0.001 / pace.per_s) in (count, count - 1)
    assert pace.fits(takes_s - 1 / pace.per_s) < count
    enough = pace.needed_per_s(count, takes_s + 1)
    assert enough is not None
    faster = Pace(per_s=round_up(enough), ahead=pace.ahead, closed_s=pace.closed_s)
    assert faster.fits(takes_s + 1) >= count - 1


@given(st.integers(1, 500), st.floats(0, 2e9), st.floats(1, 1e6))
def test_a_spread_is_even_and_ends_before_its_end(count: int, start: float, span: float) -> None:
    turns = list(spread(count, start, start + span))
    until = last_due(start, start + span)
    assert len(turns) == count
    assert turns[0] == start
    assert start + 0.98 * span - 1e-3 <= until
    assert start + span - 60.001 <= until < start + span
    gap = (until - start) / count
    for earlier, later in zip(turns, [*turns[1:], until], strict=True):
        assert later - earlier == pytest.approx(gap, abs=1e-5)


def test_a_spread_leaves_a_minute_at_most() -> None:
    assert last_due(NOW, NOW + 100) == NOW + 98
    assert last_due(NOW, NOW + 8 * HOUR) == NOW + 8 * HOUR - 60
    assert list(spread(0, NOW, NOW + 1)) == []


@pytest.mark.parametrize(
    ("rate", "asked"),
    [(48.149, 48.2), (48.1, 48.1), (1234.2, 1235), (100, 100), (0.012_31, 0.0124), (9.999, 10)],
)
def test_a_rate_to_ask_for_is_enough(rate: float, asked: float) -> None:
    assert round_up(rate) == pytest.approx(asked)


# -- the time that is meant ---------------------------------------------------------------------


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("10:30", "2026-06-15T08:30+00:00"),
        ("9:00", "2026-06-16T07:00+00:00"),
        ("10:00", "2026-06-16T08:00+00:00"),
        ("10:00:01", "2026-06-15T08:00:01+00:00"),
        ("2026-06-15T12:00", "2026-06-15T10:00+00:00"),
        ("2026-06-15 12:00:30", "2026-06-15T10:00:30+00:00"),
        ("2026-06-15t12:00z", "2026-06-15T12:00+00:00"),
        ("2026-12-24T18:00-05:00", "2026-12-24T23:00+00:00"),
        ("2026-12-24T18:00", "2026-12-24T17:00+00:00"),
        ("2h", "2026-06-15T10:00+00:00"),
        ("in 1h30m", "2026-06-15T09:30+00:00"),
    ],
)
def test_a_moment_is_local_unless_it_says_otherwise(text: str, utc: str) -> None:
    assert parse_moment(text, NOW) == datetime.fromisoformat(utc).timestamp()


@pytest.mark.usefixtures("berlin")
def test_tomorrow_is_not_24_hours_when_the_clock_is_changed() -> None:
    evening = datetime.fromisoformat("2026-10-24T22:00+02:00").timestamp()
    assert parse_moment("09:00", evening) == evening + 12 * HOUR


@pytest.mark.parametrize(
    "text", ["", "9", "25:00", "12:60", "tomorrow", "2026-06-31T09:00", "2026-06-15", "0s", "-2h"]
)
def test_what_is_no_time_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="is no time") as error:
        parse_moment(text, NOW)
    assert repr(text) in str(error.value)
    assert "Write 09:00" in str(error.value)


def test_a_moment_that_is_past_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is past, by 1h\. Write a later time"):
        parse_moment("2026-06-15T07:00Z", NOW)


# -- what a census says -------------------------------------------------------------------------


def census(law: dict[str, int] | None = None, workers: int = 1, **given: Any) -> Census:
    fields: dict[str, Any] = {
        "destination": "api",
        "now_us": int(NOW * 1e6),
        "law": dict.fromkeys((*IN_TERMS, *END_TERMS, *CONTAINERS), 0) | (law or {}),
        "counters": {},
        "sizes": {"next_due_us": -1, "last_due_us": -1},
        "gate": {"k": "140"},
        "config": {"rate": "90", "burst": "150", "max_count": "1000000"},
        "workers": [
            WorkerSeen(id=f"w{n}", live=True, lease_left_s=10, slots=5, facts={})
            for n in range(workers)
        ],
        "daemons": 1,
        "outcomes": {},
        "histogram": {"api:50000": 100, "api:sum": 100 * 0.025e6},
    }
    return Census(**{**fields, **given})


SLOW = {"api:1000000": 10, "api:sum": 10 * 0.5e6}
WAITING = {"accepted": 1_000, "ready": 900, "leased": 60, "scheduled": 40}


def test_the_pace_is_the_rate_or_what_the_connections_carry() -> None:
    quick = reckon(census(WAITING))
    assert (quick.pace.per_s, quick.pace.ahead, quick.binds, quick.notes) == (90, 1_000, "rate", ())
    slow = reckon(census(WAITING, histogram=SLOW))
    assert slow.pace.per_s == pytest.approx(10)
    assert (slow.binds, slow.latency_s) == ("connections", 0.5)
    assert slow.ask_for(60) == "30 connections at 500 ms a request"
    assert slow.ask_for(120) == "a rate of 120/s and 60 connections at 500 ms a request"
    assert quick.ask_for(120.04) == "a rate of 121/s"


def test_what_is_scheduled_for_later_does_not_go_first() -> None:
    later = {"next_due_us": int(7200e6), "last_due_us": int(9000e6)}
    assert reckon(census(WAITING, sizes=later), HOUR).pace.ahead == 960
    assert reckon(census(WAITING, sizes=later), HOUR).notes == ()
    assert reckon(census(WAITING, sizes=later)).pace.ahead == 1_000
    across = {"next_due_us": int(10e6), "last_due_us": int(9000e6)}
    partly = reckon(census(WAITING, sizes=across), HOUR)
    assert partly.pace.ahead == 1_000
    assert "40 are scheduled, some for later" in partly.notes[0]


def test_what_a_plan_rests_on_is_told() -> None:
    until = str(int((NOW + 600) * 1e6))
    paused = reckon(census(WAITING, gate={"pause_until": until, "pause_why": "lunch"}))
    assert paused.pace.closed_s == pytest.approx(600)
    assert paused.notes == ("paused for 10m more: lunch; counted",)
    held = reckon(census(WAITING, gate={"hold_until": "-1", "hold_kind": "held"}))
    assert held.pace.closed_s == 0
    assert held.notes == ("held until resumed; reckoned as if it were resumed now",)
    alone = " ".join(reckon(census(workers=0, daemons=0, gate={"draining": "1"})).notes)
    assert "paceline resume api" in alone
    assert "no daemon runs" in alone
    assert "no live worker" in alone
    assert "no request was measured yet" in reckon(census(histogram={})).notes[0]


def test_a_spread_is_done_no_sooner_than_its_last_is_due() -> None:
    law = {"accepted": 900, "scheduled": 900}
    sizes = {"next_due_us": int(5e6), "last_due_us": int(7200e6)}
    assert explain.eta_s(census(law, sizes=sizes)) == pytest.approx(7200)
    crowded = {"next_due_us": int(1e6), "last_due_us": int(2e6)}
    assert explain.eta_s(census(law, sizes=crowded)) == pytest.approx(10)
    older = {"next_due_us": int(60e6)}
    assert explain.eta_s(census(law, sizes=older)) == pytest.approx(60)
    gone = {"next_due_us": -1, "last_due_us": -1}
    assert explain.eta_s(census({"accepted": 90, "ready": 90}, sizes=gone)) == pytest.approx(1)


def test_no_rate_no_plan() -> None:
    with pytest.raises(NotPossible, match="its rate is not known"):
        reckon(census(config={}))


# -- the plan -----------------------------------------------------------------------------------


def planned(count: int | None, by_s: float | None, law: dict[str, int] | None = None) -> Plan:
    found = census(law)
    return Plan(
        destination="api",
        count=count,
        by=None if by_s is None else NOW + by_s,
        now=NOW,
        margin_s=1800.0,
        reckoning=reckon(found, by_s),
        room=room(found),
    )


@pytest.mark.usefixtures("berlin")
def test_when_to_start() -> None:
    plan = planned(324_000, 3 * HOUR, WAITING)
    assert plan.feasible
    assert plan.view()["start_by"] == pytest.approx(NOW + 1.5 * HOUR)
    assert plan.view()["latest_start"] == pytest.approx(NOW + 2 * HOUR)
    text = plan.text()
    assert text.startswith(
        "api: 324,000 messages can be sent by 2026-06-15 13:00:00 +0200 (in 3h)\n"
    )
    assert "start       by 2026-06-15 11:30:00 +0200 (in 1h 30m), with 30m to spare" in text
    assert "takes       1h\n" in text
    assert "1,000 messages wait already and go first: 11.1 s" in text
    assert "enough      30.1/s, when it starts now" in text


def test_less_to_spare_than_the_margin_is_told_but_can_be_done() -> None:
    plan = planned(324_000, HOUR + 720)
    assert plan.feasible
    assert plan.view()["start_by"] == NOW
    assert "now: 12m to spare, less than the margin of 30m" in plan.text()


@pytest.mark.usefixtures("berlin")
def test_what_cannot_be_done_is_told_with_what_would_do_it() -> None:
    plan = planned(2_000_000, 3 * HOUR, WAITING)
    assert not plan.feasible
    view = plan.view()
    assert (view["fits"], view["start_by"]) == (971_000, None)
    assert view["needed_per_s"] == pytest.approx(2_001_000 / 10_800)
    text = plan.text()
    assert "cannot be sent by 2026-06-15 13:00:00 +0200 (in 3h): they take 6h 10m" in text
    assert "at most     971,000 messages can be sent by then" in text
    assert "ask for     a rate of 186/s" in text
    assert "or by       2026-06-15 16:10:33 +0200 (in 6h 10m), started now" in text
    assert "the outbox has room for 999,000 messages now" in text


def test_done_when_and_how_many() -> None:
    done = planned(324_000, None)
    assert done.feasible
    assert done.view()["done_at"] == pytest.approx(NOW + HOUR)
    assert "324,000 messages, started now, are sent by" in done.text()
    many = planned(None, HOUR)
    assert many.feasible
    assert many.fits == 324_000
    assert "324,000 messages more can be sent by" in many.text()
    assert "with margin 162,000, done 30m before that" in many.text()
    assert not planned(None, 10, {"accepted": 900, "ready": 900}).feasible


def test_a_mailing_without_end_has_no_date() -> None:
    assert "(in" not in planned(10**15, None).text()
