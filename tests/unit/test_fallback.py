"""When weight moves to the other provider, and when back: told as a story of minutes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.census import CONTAINERS, END_TERMS, IN_TERMS, Census
from paceline.fallback import Lean, Look, Policy, Watch, decide, lean_of, look_at

POLICY = Policy()
START_S = 1_800_000_000.0
NONE = Lean()


@dataclass
class Story:
    """Two destinations and the share, seen every ten seconds; each totals what happens to it."""

    policy: Policy = POLICY
    now_s: float = START_S
    lean: Lean = NONE
    why: str = ""

    def __post_init__(self) -> None:
        self.one, self.other = Side(self.policy), Side(self.policy)
        self.moves: list[tuple[float, int]] = []

    @property
    def share(self) -> int:
        return self.lean.share

    def turn(self, after_s: float = 10.0) -> None:
        self.now_s += after_s
        for side in (self.one, self.other):
            side.see(self.now_s)
        it = decide(self.lean, self.one.watch, self.other.watch, self.now_s)
        if it.share != self.lean.share:
            assert it.why
            self.why = it.why
            self.lean = replace(self.lean, share=it.share, at_s=self.now_s)
            self.moves.append((self.now_s, it.share))
        if it.loud:
            self.lean = replace(self.lean, loud_at_s=self.now_s)

    def go_on(self, minutes: float, **of_one: Any) -> None:
        """Some minutes in which so much happens each minute to the one: good, bad, latency_s."""
        for _ in range(round(minutes * 6)):
            self.one.happen(**{name: value / 6 if name in ("good", "bad") else value
                               for name, value in of_one.items()})  # fmt: skip
            self.turn()

    def gaps_s(self) -> list[float]:
        times = [at for at, _ in self.moves]
        return [after - before for before, after in pairwise(times)]


@dataclass
class Side:
    policy: Policy
    watch: Watch = field(init=False)
    good: float = 0
    bad: float = 0
    spent_s: float = 0.0
    closed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.watch = Watch(self.policy)

    def happen(self, good: float = 0, bad: float = 0, latency_s: float = 0.1) -> None:
        self.good += good
        self.bad += bad
        self.spent_s += (good + bad) * latency_s

    def see(self, now_s: float) -> None:
        answers = round(self.good + self.bad)
        look = Look(now_s, round(self.good), round(self.bad), answers, self.spent_s, self.closed)
        self.watch.see(look)


def test_fifty_errors_in_a_minute_move_ten_points_and_forty_nine_do_not() -> None:
    story = Story()
    story.go_on(10, good=600, bad=42)  # with those of a look more than a minute ago, under 50
    assert story.share == 0
    story.one.happen(bad=50)
    story.turn()
    assert story.share == 10
    assert "errors within 60 s" in story.why


def test_fifty_errors_over_an_hour_are_none_of_it() -> None:
    story = Story()
    story.go_on(60, good=600, bad=1)
    assert story.share == 0


def test_weight_moves_once_a_minute_while_the_trouble_lasts_and_ends_at_all_of_it() -> None:
    story = Story()
    story.go_on(4.9, good=100, bad=300)
    assert story.share == 50
    story.go_on(20, good=100, bad=300)
    assert story.share == 100
    assert [share for _, share in story.moves] == list(range(10, 101, 10))
    assert min(story.gaps_s()) >= 60


def test_an_open_breaker_is_trouble_though_only_its_probe_fails() -> None:
    story = Story()
    story.turn()
    story.one.closed = frozenset({"breaker"})
    story.go_on(3, bad=2)
    assert story.share == 30
    assert story.why == "its breaker is open"
    assert min(story.gaps_s()) >= 60


@pytest.mark.parametrize("what", ["paused", "held", "breaker", "quota"])
def test_nothing_moves_to_another_that_is_closed(what: str) -> None:
    story = Story()
    story.other.closed = frozenset({what})
    story.go_on(5, bad=300)
    assert story.share == 0
    story.other.closed = frozenset()
    story.go_on(1, bad=300)
    assert story.share == 10


def test_a_wait_that_a_429_asked_for_does_not_make_it_unwell() -> None:
    story = Story()
    story.other.closed = frozenset({"throttled"})
    story.go_on(1, bad=300)
    assert story.share == 10


def test_nothing_moves_to_another_where_one_in_twenty_fails() -> None:
    story = Story()
    for _ in range(30):
        story.other.happen(good=95, bad=5)
        story.go_on(1 / 6, bad=300)
    assert story.share == 0
    for _ in range(12):
        story.other.happen(good=96, bad=4)
        story.go_on(1 / 6, bad=300)
    assert story.share > 0


def test_a_lone_error_of_another_that_is_hardly_used_is_no_illness() -> None:
    story = Story()
    story.other.happen(good=1, bad=2)
    story.go_on(1, bad=300)
    assert story.share > 0


def test_after_fifteen_quiet_minutes_it_moves_back_and_then_each_minute() -> None:
    story = Story()
    story.go_on(2.5, bad=300)
    trouble_s = story.now_s
    story.go_on(1, good=600)  # the last errors are those of the last minute still
    assert story.share == 40
    del story.moves[:]
    story.go_on(14.5, good=600)
    assert story.share == 40
    story.go_on(5, good=600)
    assert [share for _, share in story.moves] == [30, 20, 10, 0]
    assert story.moves[0][0] - trouble_s == pytest.approx(16 * 60, abs=20)
    assert story.gaps_s() == [60, 60, 60]
    story.go_on(30, good=600)
    assert story.share == 0


def test_trouble_within_them_begins_them_anew() -> None:
    story = Story()
    story.go_on(1, bad=300)
    story.go_on(14, good=600)
    share = story.share
    assert share > 0
    story.go_on(1, good=600, bad=40)  # too little to move weight, too much to be quiet
    story.go_on(14, good=600)
    assert story.share == share
    story.go_on(3, good=600)
    assert story.share < share


@pytest.mark.parametrize("what", ["paused", "held", "breaker"])
def test_time_in_which_it_was_closed_is_no_quiet(what: str) -> None:
    story = Story()
    story.go_on(1, bad=300)
    story.go_on(2)
    before = story.share
    assert before > 0
    story.one.closed = frozenset({what})
    story.go_on(60)
    assert story.share == (100 if what == "breaker" else before)
    before = story.share
    story.one.closed = frozenset()
    story.go_on(14)
    assert story.share == before


def test_nothing_moves_back_at_the_moment_it_falls_ill_again() -> None:
    story = Story(lean=Lean(share=50, at_s=START_S - 4000, loud_at_s=START_S - 840))
    story.go_on(1)
    assert story.share == 50
    story.one.happen(good=100, bad=30)
    story.turn(10)
    assert story.share == 50


def test_one_that_an_operator_paused_is_left_alone() -> None:
    story = Story()
    story.turn()
    story.one.closed = frozenset({"paused", "breaker"})
    story.go_on(5, bad=300)
    assert story.share == 0


def test_a_daemon_that_has_just_started_takes_its_own_ignorance_for_no_quiet() -> None:
    story = Story(lean=Lean(share=50, at_s=START_S - 4000, loud_at_s=START_S - 4000))
    story.go_on(0.9)
    assert story.share == 50
    story.go_on(1)
    assert story.share == 40


# --- slower than usual ---


def slow_story(latency_s: float, minutes: float, usual_minutes: float = 120) -> Story:
    story = Story()
    story.go_on(usual_minutes, good=60, latency_s=0.1)
    story.go_on(minutes, good=60, latency_s=latency_s)
    return story


def test_answers_that_take_a_sixth_longer_for_a_quarter_of_an_hour_move_weight() -> None:
    assert slow_story(0.117, 14).share == 0
    story = slow_story(0.117, 17)
    assert story.share > 0
    assert story.why == "answers take 117 ms, usually 100 ms"


def test_a_tenth_longer_does_not() -> None:
    assert slow_story(0.11, 60).share == 0


def test_nor_does_one_terrible_minute() -> None:
    story = slow_story(30.0, 1)
    story.go_on(30, good=60, latency_s=0.1)
    assert story.share == 0


def test_nor_a_few_answers_that_prove_nothing() -> None:
    story = Story()
    story.go_on(120, good=60, latency_s=0.1)
    story.go_on(60, good=3, latency_s=5.0)
    assert story.share == 0


def test_what_has_lasted_for_a_day_is_usual() -> None:
    story = slow_story(0.3, 6 * 60, usual_minutes=24 * 60)
    assert story.share == 100
    story.go_on(20 * 60, good=60, latency_s=0.3)
    assert story.share == 0


# --- what is seen ---


def census(gate: dict[str, str] | None = None, **given: Any) -> Census:
    fields: dict[str, Any] = {
        "destination": "a", "now_us": 1_000_000_000, "sizes": {}, "config": {}, "workers": [],
        "law": dict.fromkeys((*IN_TERMS, *END_TERMS, *CONTAINERS), 0), "daemons": 1,
        "counters": {}, "outcomes": {}, "histogram": {}, "gate": gate or {},
    }  # fmt: skip
    return Census(**{**fields, **given})


def test_results_that_speak_of_the_provider_are_counted() -> None:
    assert look_at(census(counters={"good": 7, "bad": 3})) == Look(1000.0, 7, 3)
    histogram = {
        "api:100000": 3.0,
        "api:inf": 1.0,
        "api:sum": 5e6,
        "sent:inf": 9.0,
        "sent:sum": 1.0,
    }
    seen = look_at(census(histogram=histogram))
    assert (seen.answers, seen.spent_s) == (4, 5.0)


@pytest.mark.parametrize(
    ("gate", "closed"),
    [
        ({}, set()),
        ({"pause_until": "-1"}, {"paused"}),
        ({"hold_until": "-1", "hold_kind": "held"}, {"held"}),
        ({"hold_until": "1000000001", "hold_kind": "throttled"}, {"throttled"}),
        ({"hold_until": "1000000000", "hold_kind": "throttled"}, set()),
        ({"pause_until": "-1", "hold_until": "-1", "hold_kind": "held"}, {"paused", "held"}),
        # Its hold has run out and the probe is under way.
        ({"breaker": "900000000", "hold_until": "1", "hold_kind": "breaker"}, {"breaker"}),
    ],
)
def test_all_that_closes_it_is_seen(gate: dict[str, str], closed: set[str]) -> None:
    assert look_at(census(gate)).closed == closed


def test_a_share_is_of_the_destination_it_was_meant_for() -> None:
    gate = {"fb_to": "b", "fb_share": "30", "fb_at": "2000000", "fb_loud_at": "3000000"}
    assert lean_of(gate, "b") == Lean(30, 2.0, 3.0)
    assert lean_of(gate, "c") == lean_of({}, "b") == Lean()


def test_totals_that_went_back_are_a_redis_with_older_data_and_no_errors() -> None:
    watch = Watch(POLICY)
    watch.see(Look(START_S, 1000, 900))
    watch.see(Look(START_S + 10, 10, 0))
    watch.see(Look(START_S + 20, 20, 45))
    assert watch.errors == 45
    assert watch.trouble() == ""


looks = st.tuples(
    st.floats(0, 400), st.integers(0, 200), st.integers(0, 80), st.floats(0, 5),
    st.sets(st.sampled_from(["paused", "held", "breaker", "throttled"]), max_size=1),
)  # fmt: skip


@given(st.lists(st.tuples(looks, looks), max_size=60))
def test_whatever_is_seen_the_share_keeps_its_bounds_and_its_minute(turns: list[Any]) -> None:
    story = Story()
    for (after_s, good, bad, latency_s, closed), (_, well, ill, late_s, shut) in turns:
        story.one.happen(good, bad, latency_s)
        story.other.happen(well, ill, late_s)
        story.one.closed, story.other.closed = frozenset(closed), frozenset(shut)
        story.turn(after_s)
        assert 0 <= story.share <= 100
    assert all(gap_s >= 60 for gap_s in story.gaps_s())
    shares = [0, *(share for _, share in story.moves)]
    assert all(abs(b - a) == 10 for a, b in pairwise(shares))
