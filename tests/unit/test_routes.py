"""Which URL gets the next request: the load follows health and latency. The clock is the test's."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest

from paceline_workers.transports.routes import (
    LEAVE_AT,
    LOOK_AFTER_S,
    MOVE_EVERY_S,
    PROBE_CAP_S,
    PROBE_FIRST_S,
    Pick,
    Routes,
    UrlRoute,
    Why,
)


class Rig:
    """Routes with a clock in hand."""

    def __init__(self, count: int = 2) -> None:
        self.now = 1000.0
        rng = random.Random(1)
        self.routes = Routes(count, clock=lambda: self.now, rand=rng.random)
        self.all = self.routes.all

    def use(self, pick: Pick, good: bool | None = True, latency_s: float = 0.05) -> bool:
        self.routes.took(pick)
        return self.routes.judge(pick.route, good, latency_s, probe=pick.why is Why.PROBE)

    def feed(self, number: int, answers: Iterable[bool]) -> None:
        for good in answers:
            self.use(Pick(self.all[number]), good)

    def leave(self, number: int) -> None:
        self.feed(number, [False] * (2 * LEAVE_AT))

    def healthy(self) -> list[bool]:
        return [route.healthy for route in self.all]

    def one_by_one(self, count: int, latencies: dict[int, float]) -> Counter[int]:
        """Requests one after another, each as long as its URL takes."""
        shares: Counter[int] = Counter()
        for _ in range(count):
            pick = self.routes.choose()
            self.now += latencies[pick.route.number]
            self.use(pick, latency_s=latencies[pick.route.number])
            shares[pick.route.number] += 1
        return shares

    def side_by_side(
        self, threads: int, span_s: float, latencies: dict[int, float]
    ) -> Counter[int]:
        """So many threads, each with one request after another, for so long."""
        shares: Counter[int] = Counter()
        flying: list[tuple[float, int, Pick]] = []
        end_s = self.now + span_s
        while self.now < end_s:
            while len(flying) < threads:
                pick = self.routes.choose()
                self.routes.took(pick)
                shares[pick.route.number] += 1
                flying.append((self.now + latencies[pick.route.number], len(shares), pick))
            flying.sort(key=lambda it: it[0])
            self.now, _, pick = flying.pop(0)
            latency_s = latencies[pick.route.number]
            self.routes.judge(pick.route, True, latency_s, probe=pick.why is Why.PROBE)
        return shares


# -- health -------------------------------------------------------------------------------------


def test_a_dead_url_is_left_after_ten_requests() -> None:
    one = Rig()
    one.feed(0, [False] * (LEAVE_AT - 1))
    assert one.healthy() == [True, True]
    assert one.use(Pick(one.all[0]), False)
    assert one.healthy() == [False, True]
    assert {one.routes.choose().route.number for _ in range(100)} == {1}


def test_good_answers_of_long_ago_do_not_keep_a_dead_url_in_use() -> None:
    one = Rig()
    one.feed(0, [True] * 10_000 + [False] * LEAVE_AT)
    assert one.healthy() == [False, True]


def test_one_bad_answer_in_four_is_tolerated() -> None:
    one = Rig()
    one.feed(0, [False, True, True, True] * 500)
    assert one.healthy() == [True, True]
    rng = random.Random(5)
    one.feed(0, (rng.random() >= 0.25 for _ in range(10_000)))
    assert one.healthy() == [True, True]
    assert one.all[0].failures > 2500


def test_two_timeouts_are_enough_but_not_one_now_and_then() -> None:
    one = Rig()
    for _ in range(50):
        assert not one.use(Pick(one.all[0]), False, latency_s=30.0)
        one.feed(0, [True] * 5)
    one.use(Pick(one.all[0]), False, latency_s=30.0)
    assert one.use(Pick(one.all[0]), False, latency_s=5.0)
    assert one.healthy() == [False, True]


def test_a_url_where_three_of_four_fail_is_left_soon() -> None:
    one = Rig()
    rng = random.Random(5)
    one.feed(0, (rng.random() >= 0.75 for _ in range(60)))
    assert one.healthy() == [False, True]


def test_what_was_called_off_says_nothing() -> None:
    one = Rig()
    for _ in range(50):
        assert not one.use(Pick(one.all[0]), None)
    assert one.healthy() == [True, True]
    assert one.all[0].facts() == {
        "healthy": True, "latency_s": None, "requests": 0, "failures": 0,
    }  # fmt: skip


def test_where_all_are_left_all_are_used_and_the_first_to_answer_is_back() -> None:
    one = Rig(3)
    for number in range(3):
        one.leave(number)
    assert one.healthy() == [False, False, False]
    tried = set()
    for _ in range(60):
        pick = one.routes.choose()
        tried.add(pick.route.number)
        one.use(pick, False)
    assert tried == {0, 1, 2}
    assert one.use(Pick(one.all[1]), True)
    assert one.healthy() == [False, True, False]
    assert [route.usable for route in one.all] == [False, True, False]


# -- probes -------------------------------------------------------------------------------------


def test_probes_come_one_at_a_time_with_growing_waits() -> None:
    one = Rig()
    one.leave(0)
    for wait_s in (PROBE_FIRST_S, 20.0, 40.0, PROBE_CAP_S, PROBE_CAP_S):
        one.now += wait_s - 0.01
        assert one.routes.choose().route.number == 1
        one.now += 0.01
        probe = one.routes.choose()
        assert (probe.route.number, probe.why) == (0, Why.PROBE)
        one.routes.took(probe)
        assert one.routes.choose().route.number == 1, "a second probe beside the first"
        one.routes.judge(probe.route, False, None, probe=True)


def test_a_probe_that_succeeds_brings_the_url_back_and_its_wait_to_the_first() -> None:
    one = Rig()
    one.leave(0)
    one.now += PROBE_FIRST_S
    one.use(one.routes.choose(), False)
    one.now += 2 * PROBE_FIRST_S
    assert one.use(one.routes.choose(), True, latency_s=0.2)
    assert one.healthy() == [True, True]
    assert one.all[0].latency_s == 0.2
    # Half trusted: it is left the sooner if it fails again, and probed as at first.
    one.feed(0, [False] * (LEAVE_AT - LEAVE_AT // 2))
    assert one.healthy() == [False, True]
    one.now += PROBE_FIRST_S
    one.use(one.routes.choose(), False)
    one.now += 2 * PROBE_FIRST_S
    assert one.routes.choose().why is Why.PROBE


def test_a_probe_that_was_called_off_is_given_to_the_next() -> None:
    one = Rig()
    one.leave(0)
    one.now += PROBE_FIRST_S
    one.use(one.routes.choose(), None)
    assert one.routes.choose().why is Why.PROBE


def test_late_answers_neither_bring_back_nor_delay_the_probe() -> None:
    one = Rig()
    late = [Pick(one.all[0]) for _ in range(2)]
    for pick in late:
        one.routes.took(pick)
    one.leave(0)
    one.routes.judge(one.all[0], True, 0.05, probe=False)
    one.routes.judge(one.all[0], False, None, probe=False)
    assert one.healthy() == [False, True]
    one.now += PROBE_FIRST_S
    assert one.routes.choose().why is Why.PROBE


# -- latency ------------------------------------------------------------------------------------


def test_equal_urls_share_the_load_even_one_by_one() -> None:
    one = Rig(3)
    shares = one.one_by_one(900, {0: 0.05, 1: 0.05, 2: 0.05})
    assert min(shares.values()) > 220, shares


def test_one_by_one_the_fastest_gets_nearly_all() -> None:
    one = Rig()
    shares = one.one_by_one(1000, {0: 0.2, 1: 0.02})
    assert shares[1] > 900
    assert shares[0] > 0, "nobody looks at the slow one any more"


def test_side_by_side_the_load_follows_latency() -> None:
    one = Rig()
    shares = one.side_by_side(10, 60, {0: 0.2, 1: 0.05})
    assert shares[1] > 4 * shares[0]
    assert shares[0] > 100


def test_an_error_that_comes_quickly_makes_no_url_look_fast() -> None:
    one = Rig()
    one.use(Pick(one.all[0]), True, latency_s=0.5)
    one.now += 1
    one.use(Pick(one.all[0]), False, latency_s=0.001)
    assert one.all[0].latency_s == 0.5


def test_smoothing_goes_by_time() -> None:
    one = Rig()
    one.use(Pick(one.all[0]), latency_s=1.0)
    for _ in range(30):
        one.now += 0.1
        one.use(Pick(one.all[0]), latency_s=0.0)
    assert one.all[0].latency_s == pytest.approx(1 / 2.71828, rel=0.01)


def test_one_that_became_fast_again_is_noticed() -> None:
    one = Rig()
    latencies = {0: 0.001, 1: 0.02}
    one.one_by_one(200, {0: 2.0, 1: 0.02})
    one.one_by_one(int(2.1 * LOOK_AFTER_S / 0.02), latencies)
    assert one.one_by_one(100, latencies)[0] > 90


def test_looks_at_a_slow_one_are_few_however_slow_the_destination() -> None:
    """One request a minute: not every second one to the slow URL."""
    one = Rig()
    shares: Counter[int] = Counter()
    for _ in range(400):
        one.now += 60
        pick = one.routes.choose()
        one.use(pick, latency_s=(2.0, 0.05)[pick.route.number])
        shares[pick.route.number] += 1
    assert 0 < shares[0] <= 400 / 20 + 1


# -- where no connection more may be opened -----------------------------------------------------


def _held(one: Rig, *counts: int) -> None:
    for route, count in zip(one.all, counts, strict=True):
        route.in_flight = count


def test_equal_urls_keep_the_connections_they_have() -> None:
    one = Rig()
    for route in one.all:
        route.latency_s = 0.05
    _held(one, 4, 5)  # ten, and the one that is idle leads to URL 0
    assert one.routes.content_with(Pick(one.all[1]), {one.all[0]}) is one.all[0]


def test_a_connection_moves_where_that_is_worth_it_and_not_all_at_once() -> None:
    one = Rig()
    one.all[0].latency_s, one.all[1].latency_s = 1.0, 0.05
    _held(one, 4, 5)
    pick = Pick(one.all[1])
    assert one.routes.content_with(pick, {one.all[0]}) is None
    assert one.routes.content_with(pick, {one.all[0]}) is one.all[0], "two at one moment"
    one.now += MOVE_EVERY_S
    assert one.routes.content_with(pick, {one.all[0]}) is None


def test_one_in_doubt_gets_its_requests_until_it_is_known() -> None:
    one = Rig()
    one.all[0].latency_s = one.all[1].latency_s = 0.05
    _held(one, 8, 0)
    pick = Pick(one.all[1])
    assert one.routes.content_with(pick, {one.all[0]}) is None
    assert one.routes.content_with(pick, {one.all[0]}) is one.all[0]
    one.all[1].excess = 1
    assert one.routes.content_with(pick, {one.all[0]}) is None


def test_a_probe_and_a_look_get_their_connection() -> None:
    one = Rig()
    _held(one, 4, 5)
    for why in (Why.PROBE, Why.LOOK):
        assert one.routes.content_with(Pick(one.all[1], why), {one.all[0]}) is None


def test_a_request_that_could_not_connect_goes_to_a_healthy_url_or_nowhere() -> None:
    one = Rig(3)
    one.leave(1)

    def other_than(route: UrlRoute) -> int | None:
        pick = one.routes.instead_of(route)
        return None if pick is None else pick.route.number

    assert other_than(one.all[0]) == 2
    one.leave(2)
    assert other_than(one.all[0]) is None
    assert other_than(one.all[1]) == 0
