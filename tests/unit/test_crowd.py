"""Thousands of endpoints: those that hang leave the connections to those that are well."""

from __future__ import annotations

import tracemalloc
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from paceline.answers import Leased
from paceline_workers.crowd import (
    FORGET_S,
    LEAST_OVERDUE_S,
    MOST_KNOWN,
    NAMED,
    OVERDUE_TIMES,
    Crowd,
)
from paceline_workers.pending import PendingQueue
from unit.test_pending import leased as untold

LIMIT = 12
QUARTER, HALF = LIMIT // 4, LIMIT // 2
HUNG_S = LEAST_OVERDUE_S + 0.01


class Worker:
    """A crowd with a clock of our own. ``begin`` writes requests, ``end`` ends the oldest."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.now, self.limit = 1000.0, limit
        self.it = Crowd(lambda: self.now, lambda: self.limit)
        self._keys = count()
        self.out: dict[str, list[int]] = {}

    def take(self, name: str) -> int | None:
        """The number of the request, off the queue; None where it may not go."""
        self.it.seen(name)
        if not self.it.may(name):
            return None
        self.it.took(name)
        key = next(self._keys)
        self.out.setdefault(name, []).append(key)
        return key

    def begin(self, *names: str) -> int:
        """A request to each that may; how many that are."""
        keys = [(name, self.take(name)) for name in names]
        for name, key in keys:
            if key is not None:
                self.it.began(name, key)
        return sum(key is not None for _, key in keys)

    def end(self, *names: str) -> None:
        for name in names:
            self.it.done(name, self.out[name].pop(0))

    def make_well(self, *names: str) -> None:
        for name in names:
            assert self.begin(name) == 1
            self.now += 0.01
            self.end(name)

    def make_suspect(self, *names: str) -> None:
        """Each has hung, and nothing of it is out."""
        for name in names:
            assert self.begin(name) == 1
            self.now += HUNG_S
            self.end(name)
            self.make_well("another")

    def out_of(self, names: list[str]) -> int:
        return sum(len(self.out.get(name, ())) for name in names)


def names(prefix: str, number: int) -> list[str]:
    return [f"{prefix}{n}" for n in range(number)]


def test_one_that_is_well_is_not_bounded_here() -> None:
    it = Worker()
    it.make_well("a")
    assert it.begin(*["a"] * LIMIT) == LIMIT


def test_unknown_ones_have_half_until_they_are_answered() -> None:
    it = Worker()
    new = names("n", LIMIT)
    assert it.begin(*new) == HALF
    it.end(new[0])
    assert it.begin(*new[HALF:]) == 1
    assert it.begin(new[0]) == 1, "it is well"


def test_a_suspect_one_has_one_request_out_until_one_is_answered_in_time() -> None:
    it = Worker()
    it.make_well("bad")
    assert it.begin(*["bad"] * 3) == 3
    it.now += HUNG_S
    assert it.it.is_late("bad")
    assert it.begin("bad") == 0
    it.now += 5
    it.end("bad", "bad")
    assert it.begin("bad") == 0, "one is out still"
    it.end("bad")
    assert it.begin("bad", "bad") == 1
    it.now += 0.1
    it.end("bad")
    assert it.begin("bad", "bad") == 2
    assert not it.it.is_late("bad")


def test_it_stays_suspect_while_one_hangs_though_another_is_answered() -> None:
    it = Worker()
    it.make_well("a")
    it.begin("a")
    it.now += HUNG_S - 0.1
    it.begin("a")
    it.now += 0.2
    assert it.it.is_slow("a")
    it.it.done("a", it.out["a"].pop(1))
    assert it.it.is_slow("a")


def test_suspect_ones_have_a_quarter_together() -> None:
    it = Worker()
    bad = names("b", 2 * QUARTER)
    it.make_suspect(*bad)
    assert it.begin(*bad) == QUARTER
    it.end(bad[0])
    assert it.begin(*bad[QUARTER:]) == 1


def test_a_quarter_is_left_whatever_unknown_ones_turn_out_to_be() -> None:
    """Half hang, are suspect then, and the next unknown ones hang too."""
    it = Worker()
    it.make_well("good")
    new = names("n", 100)
    for _ in range(5):
        it.begin(*new)
        it.now += HUNG_S
    assert it.out_of(new) == LIMIT - QUARTER
    assert it.it.is_late("n99"), "what waits for unknown ones would wait for long"
    assert not it.it.is_late("good")
    assert it.begin(*["good"] * QUARTER) == QUARTER


def test_unknown_ones_that_wait_for_each_other_do_not_go_back() -> None:
    it = Worker()
    bad, new = names("b", QUARTER), names("n", LIMIT)
    it.make_suspect(*bad)
    assert it.begin(*bad, *new) == QUARTER + HALF
    assert not it.it.may(new[-1])
    assert not it.it.is_late(new[-1])


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_with_few_connections_everybody_has_one_in_turn(limit: int) -> None:
    it = Worker(limit)
    it.make_suspect("bad")
    for name in ("bad", "new"):
        assert it.begin(name) == 1
        it.end(name)
    it.make_well("good")
    assert it.begin(*["good"] * limit) == limit


def test_while_the_number_of_connections_is_not_known_all_may() -> None:
    it = Worker()
    it.make_suspect("bad")
    it.begin("bad")
    assert not it.it.may("bad")
    it.limit = 0
    assert it.it.may("bad"), "the pool gives them no place"


STEPS = st.lists(
    st.tuples(st.sampled_from(["begin"] * 4 + ["end", "later", "hang"]), st.integers(0, 9)),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(4, 16))
def test_none_that_is_not_well_begins_beyond_three_quarters(
    steps: list[tuple[str, int]], limit: int
) -> None:
    it = Worker(limit)
    for what, n in steps:
        name = f"e{n}"
        if what == "begin":
            it.it.seen(name)
            it.it.may(name)
            was_well = it.it._known[name].state == 1
            if it.begin(name) and not was_well:
                others = sum(found.out for found in it.it._known.values() if found.state != 1)
                assert others <= limit - max(1, limit // 4)
        elif what == "end" and it.out.get(name):
            it.end(name)
        elif what in ("later", "hang"):
            it.now += 0.05 * n if what == "later" else HUNG_S
        by_state = [0, 0, 0]
        for found in it.it._known.values():
            assert found.out == len(it.out.get(found.name, ()))
            by_state[found.state] += found.out
        assert it.it._out == by_state
    for name, keys in it.out.items():
        it.end(*[name] * len(keys))
    assert it.it._out == [0, 0, 0]
    assert not it.it._running
    assert not it.it._hung


def test_an_endpoint_is_what_stands_before_the_slash() -> None:
    it = Worker()
    it.make_suspect("acme/order-1")
    assert it.it.is_late("acme/order-2")
    assert it.it.is_late("acme")
    assert it.begin("acme/order-2", "acme/order-3") == 1
    assert it.it.slow() == ["acme"]


# -- what counts as hanging -----------------------------------------------------------------------


def test_a_connection_that_does_not_open_hangs_and_the_wait_for_a_permit_does_not() -> None:
    it = Worker()
    it.make_well("a", "b", "c")
    waits, opens, opened = it.take("a"), it.take("b"), it.take("c")
    assert waits is not None
    assert opens is not None
    assert opened is not None
    it.it.connects("b", opens)
    it.it.connects("c", opened)
    it.it.connected("c", opened)
    it.now += HUNG_S
    assert it.it.slow() == ["b"]
    it.it.connected("b", opens)
    for name, key in (("a", waits), ("b", opens), ("c", opened)):
        it.it.began(name, key)
        it.now += 0.01
        it.end(name)
    assert it.it.slow() == ["b"], "it took long to open, though its answer came in time"
    it.make_well("b")
    assert it.it.slow() == []


def test_a_request_that_was_called_off_says_nothing() -> None:
    it = Worker()
    assert it.take("a") is not None
    it.now += 60
    it.end("a")
    assert not it.it.is_late("a")
    assert it.begin(*["a"] * LIMIT) == HALF, "it is unknown still"


def test_where_all_are_slow_nobody_is() -> None:
    it = Worker()
    slow, many = LEAST_OVERDUE_S * 2, names("e", 40)
    for name in many:
        it.begin(name)
        it.now += slow
        it.end(name)
    it.begin(many[-1])
    it.now += slow * OVERDUE_TIMES - 0.1
    assert not it.it.is_late(many[-1])
    it.now += 0.2
    assert it.it.is_late(many[-1])


def test_where_all_time_out_all_hang() -> None:
    it = Worker()
    for name in names("e", 40):
        it.begin(name)
        it.now += 30
        it.end(name)
        assert it.it.is_late(name)


def test_some_that_hang_do_not_make_it_usual() -> None:
    it = Worker()
    for n in range(100):
        name = f"e{n}"
        it.begin(name)
        it.now += 30 if n % 5 else 0.02
        it.end(name)
    it.make_well("a")
    it.begin("a")
    it.now += HUNG_S
    assert it.it.is_late("a")


# -- what is kept, and told -----------------------------------------------------------------------


def test_an_endpoint_without_messages_is_forgotten_but_not_its_requests_out() -> None:
    it = Worker()
    it.make_suspect("bad")
    it.begin("out")
    it.now += FORGET_S + 1
    assert it.it.facts() == {"slow_endpoints": {"count": 1, "some": ["out"]}}
    assert set(it.it._known) == {"out"}
    it.end("out")
    assert it.it._out == [0, 0, 0]
    assert it.begin("bad", "bad") == 2, "unknown again"


def test_of_a_hundred_thousand_a_bounded_number_is_known() -> None:
    it = Worker()
    it.make_suspect("first")
    it.make_well("busy")
    it.begin("busy")
    tracemalloc.start()
    for n in range(MOST_KNOWN):
        it.it.seen(f"endpoint-{n:06}")
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < MOST_KNOWN * 400
    for n in range(1000):
        it.it.seen(f"more-{n}")
    assert len(it.it._known) == MOST_KNOWN
    assert "busy" in it.it._known, "with a request out"
    assert it.it.slow() == []


def test_the_log_is_told_of_the_first_and_the_last_alone() -> None:
    it = Worker()
    assert it.it.news() == []
    assert it.it.facts() == {}
    bad = names("b", NAMED + 3)
    it.make_suspect(*bad)
    told = it.it.news()
    assert [(line.event, line.bad) for line in told] == [("endpoints_slow", True)]
    assert "b0, " in told[0].text
    assert "and 3 more" in told[0].text
    assert it.it.facts() == {"slow_endpoints": {"count": NAMED + 3, "some": bad[:NAMED]}}
    it.make_well(*bad[1:])
    assert it.it.news() == []
    it.make_well(bad[0])
    assert [(line.event, line.bad) for line in it.it.news()] == [("endpoints_back", False)]
    assert it.it.news() == []


# -- the queue that asks --------------------------------------------------------------------------


class Queue:
    """A queue that is watched so."""

    def __init__(self, capacity: int = 20) -> None:
        self.now = 0.0
        self.it = PendingQueue(capacity)
        self.it.watch_tenants(Crowd(lambda: self.now, lambda: LIMIT))
        self._ids = count()

    def leased(self, name: str, priority: str = "normal") -> Leased:
        it = untold(f"{name}-{next(self._ids)}", priority)
        return replace(it, head=replace(it.head, tenant=name))

    def put(self, *of: str, priority: str = "normal") -> None:
        for name in of:
            assert self.it.put(self.leased(name, priority), 0.0)

    def get(self) -> Leased | None:
        it = self.it.get_now()
        if it is not None:
            self.it.began(it)
        return it

    def got(self) -> list[str]:
        """Whose messages go now, all of them."""
        return [it.head.tenant for it in iter(self.get, None)]

    def make_well(self, *of: str) -> None:
        for name in of:
            self.put(name)
            it = self.get()
            assert it is not None
            self.it.done(it)


def test_the_queue_asks_from_the_first_message_on() -> None:
    it = Queue()
    assert it.it.shared
    it.put(*names("n", HALF + 2))
    assert it.got() == names("n", HALF)


def test_others_pass_what_hangs_in_their_order_and_high_ones_first() -> None:
    it = Queue()
    it.make_well("good")
    it.put("bad/1")
    assert it.got() == ["bad/1"]
    it.now += HUNG_S
    it.put("bad/1", "bad/2", "good")
    it.put("bad/3", "good", priority="high")
    assert it.get().head.priority == "high"  # type: ignore[union-attr]
    assert it.got() == ["good"]
    assert not it.it.holds_high()
    assert len(it.it) == 3


def test_when_it_is_answered_what_was_set_aside_goes_the_most_urgent_first() -> None:
    it = Queue()
    it.make_well("good")
    it.put("bad/1")
    first = it.get()
    it.now += HUNG_S
    it.put("bad/1", "bad/2", "bad/1")
    it.put("bad/3", priority="high")
    assert it.got() == []
    assert first is not None
    it.it.done(first)
    it.put("good")
    for name in ("bad/3", "bad/1", "bad/2", "bad/1"):
        leased = it.get()
        assert leased is not None
        assert leased.head.tenant == name
        if name == "bad/3":
            assert it.got() == ["good"], "one at a time while it is suspect"
        it.it.done(leased)


def test_half_of_the_queue_is_enough_of_those_that_hang_whatever_their_keys() -> None:
    it = Queue(capacity=8)
    it.put("bad/0")
    it.get()
    it.now += HUNG_S
    it.put(*[f"bad/{n}" for n in range(4)])
    assert it.got() == []
    assert it.it.has_enough_of(it.leased("bad/new"))
    assert not it.it.has_enough_of(it.leased("other/new"))
    it.put("bad/4", "bad/5")
    assert it.got() == []
    assert it.it.surplus() == 2
    assert len(it.it.take_out(2)) == 2


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "put", "done", "done", "hang", "limit", "forget"]),
            st.integers(0, 9),
        ),
        max_size=40,
    )
)
def test_nothing_that_may_go_stays_set_aside(steps: list[tuple[str, int]]) -> None:
    """Though what is set aside is looked through only when something has changed."""
    it, now, limit, out = PendingQueue(1000), [0.0], [4], list[Leased]()
    crowd = Crowd(lambda: now[0], lambda: limit[0])
    it.watch_tenants(crowd)
    make = Queue().leased
    for what, n in steps:
        if what == "put":
            for number in range(n, n + 4):
                it.put(make(f"e{number}", "high" if number == 7 else "normal"), 0.0)
        elif what == "done" and out:
            it.done(out.pop(n % len(out)))
        elif what in ("hang", "forget"):
            now[0] += HUNG_S if what == "hang" else FORGET_S + 1
        elif what == "limit":
            limit[0] = n
        while (leased := it.get_now()) is not None:
            it.began(leased)
            out.append(leased)
        assert not [name for name in it._aside if crowd.may(name)]
        assert len(it) == it._aside_count


def test_one_that_is_forgotten_while_it_waits_goes_as_an_unknown_one() -> None:
    it = Queue()
    bad = names("b", QUARTER + 1)
    it.put(*bad)
    out = [it.get() for _ in bad]
    it.now += HUNG_S
    for leased in out:
        assert leased is not None
        it.it.done(leased)
    it.put(*bad)
    assert it.got() == bad[:QUARTER]
    it.now += HUNG_S
    assert it.got() == []
    it.now += FORGET_S
    it.put("new")
    assert it.got() == [bad[QUARTER], "new"]
