"""Whose requests may go: by what hangs, by what the others use; and the queue that asks."""

from __future__ import annotations

import random
import threading
from itertools import count

import pytest
from msgspec.structs import replace

from paceline.answers import Leased
from paceline_workers.pending import PendingQueue
from paceline_workers.tenancy import FORGET_S, LEARN_S, WINDOW_S, Returns, Tenancy
from support.wait import until
from unit.test_pending import leased as untold

LIMIT = 12
QUARTER = LIMIT // 4


class Worker:
    """A tenancy with a clock of our own. ``begin`` writes requests, ``end`` answers the oldest."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.now, self.limit = 1000.0, limit
        self.it = Tenancy(lambda: self.now, lambda: self.limit)
        self._keys = count()
        self.out: dict[str, list[int]] = {}
        self._chance = random.Random(1)

    def begin(self, tenant: str, most: int = 100) -> int:
        """As many as may, up to ``most``; how many that are."""
        self.it.seen(tenant)
        begun = 0
        while begun < most and self.it.may(tenant):
            key = next(self._keys)
            self.it.took(tenant)
            self.it.began(tenant, key)
            self.out.setdefault(tenant, []).append(key)
            begun += 1
        return begun

    def end(self, tenant: str, number: int = 1) -> None:
        for _ in range(number):
            self.it.done(tenant, self.out[tenant].pop(0))

    def flow(self, seconds: float, took_s: float, **per_s: float) -> None:
        """Tenants that are answered after ``took_s``, each so many requests a second."""
        until = self.now + seconds
        while self.now < until:
            for tenant, rate in per_s.items():
                self.begin(tenant, int(rate * took_s + self._chance.random()))
            self.now += took_s
            for tenant in per_s:
                self.end(tenant, len(self.out.get(tenant, [])))


def test_without_tenants_there_is_nothing_to_ask() -> None:
    it = Worker()
    assert not it.it.shared
    assert it.it.may("")
    assert it.it.slow() == []


def test_no_tenant_at_all_may_have_every_connection_and_hang() -> None:
    it = Worker()
    assert it.begin("", LIMIT) == LIMIT
    it.now += 60
    assert it.it.slow() == []


def test_one_that_hangs_has_a_quarter_until_it_is_answered_in_time() -> None:
    it = Worker()
    it.flow(LEARN_S, 0.02, good=10, bad=10)
    assert it.begin("bad", 1) == 1
    it.now += 1.01
    assert it.it.slow() == ["bad"]
    assert it.begin("bad") == QUARTER - 1
    assert it.begin("good") > QUARTER
    it.now += 30
    it.end("bad", QUARTER)  # their time-outs
    assert it.begin("bad") == QUARTER, "that they are over does not mean that it answers"
    it.now += 0.05
    it.end("bad")
    assert "bad" not in it.it.slow()
    assert it.begin("bad") >= QUARTER


def test_answers_in_time_do_not_hide_one_that_hangs() -> None:
    it = Worker()
    it.flow(LEARN_S, 0.02, good=10, bad=10)
    it.begin("bad", 2)
    it.now += 1.01
    assert it.begin("bad", 1) == 1
    key = it.out["bad"].pop()
    it.it.done("bad", key)
    assert it.it.slow() == ["bad"]


def test_a_late_answer_is_no_answer_in_time() -> None:
    it = Worker()
    it.flow(LEARN_S, 0.02, good=10, bad=10)
    it.begin("bad", 1)
    it.now += 5
    it.end("bad")
    assert it.it.slow() == ["bad"]


def test_what_waits_for_its_permit_does_not_hang() -> None:
    it = Worker()
    it.it.seen("a")
    it.it.seen("b")
    it.it.took("a")
    it.now += 300
    assert it.it.slow() == []


def test_one_that_is_begun_again_hangs_from_then_on() -> None:
    it = Worker()
    it.flow(LEARN_S, 0.02, good=10, bad=10)
    it.begin("bad", 1)
    it.now += 0.5
    it.begin("bad", 1)
    it.now += 0.4
    it.it.began("bad", it.out["bad"][0])
    it.now += 0.5
    assert it.it.slow() == []
    it.now += 0.2
    assert it.it.slow() == ["bad"], "the other one of it"


def test_hanging_is_measured_by_what_is_usual() -> None:
    it = Worker()
    it.flow(LEARN_S + 10, 0.8, good=1, bad=1)
    it.begin("bad", 1)
    it.now += 3.1
    assert it.it.slow() == []
    it.now += 0.2
    assert it.it.slow() == ["bad"]


def test_a_provider_slow_for_all_is_soon_the_usual() -> None:
    it = Worker()
    it.flow(LEARN_S, 0.02, a=20, b=20)
    for _ in range(6):
        it.begin("a", 1)
        it.begin("b", 1)
        it.now += 2
        it.end("a")
        it.end("b")
    assert it.it.slow() == []


def test_time_outs_of_one_are_never_the_usual_for_the_others() -> None:
    it = Worker()
    it.flow(LEARN_S, 0.02, good=10, bad=10)
    for _ in range(100):
        it.begin("bad", 1)
        it.now += 30
        it.end("bad")
        it.flow(1, 0.02, good=3)
    it.begin("bad", 1)
    it.now += 1.1
    assert it.it.slow() == ["bad"]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 10, 64])
def test_beside_others_nobody_has_all_connections(limit: int) -> None:
    it = Worker(limit)
    it.it.seen("good")
    assert it.begin("bad") == max(1, (limit + 1) // 2), "nothing is known yet"
    it.end("bad", len(it.out["bad"]))
    it.flow(LEARN_S + 1, 0.02, good=5)
    assert it.begin("bad") == max(1, limit - max(1, limit // 4))


def test_what_the_others_use_is_kept_for_them_up_to_a_fair_part() -> None:
    it = Worker()
    it.flow(WINDOW_S + LEARN_S, 0.1, good=25, bad=25)
    # Two and a half connections, twice over.
    assert it.begin("bad") in (LIMIT - 6, LIMIT - 5)


def test_what_is_kept_for_the_others_leaves_each_its_fair_part() -> None:
    it = Worker()
    it.flow(WINDOW_S + LEARN_S, 0.1, good=40, other=40, third=40)
    assert it.begin("bad") == LIMIT // 4


def test_one_that_is_alone_leaves_one_for_who_may_come() -> None:
    assert Worker(10).begin("a") == 9
    assert Worker(2).begin("a") == 2


def test_a_tenant_that_went_away_keeps_nothing() -> None:
    it = Worker()
    it.flow(LEARN_S, 0.1, good=30, other=10)
    for _ in range(12):
        it.flow(FORGET_S / 5, 0.1, other=10)
    it.end("other", len(it.out["other"]))
    assert it.begin("other") == LIMIT - 1


def test_before_the_share_is_known_nobody_is_held() -> None:
    it = Worker(0)
    it.it.seen("a")
    it.it.seen("b")
    assert it.it.may("a")


def test_what_goes_back_is_bounded() -> None:
    now = [100.0]
    returns = Returns(lambda: now[0])
    gone = 0
    for _ in range(1000):
        gone += returns.up_to(50, 20)
        now[0] += 0.01
    assert gone == pytest.approx(200, abs=6)


# -- the queue ------------------------------------------------------------------------------


class Watched:
    """A queue whose tenants are watched, past the time of learning."""

    def __init__(self, capacity: int = 20) -> None:
        self.now = 0.0
        self.queue = PendingQueue(capacity)
        self.queue.watch_tenants(Tenancy(lambda: self.now, lambda: LIMIT))
        self._ids = count()
        for tenant in ("good", "bad"):
            self.put(tenant)
            self.answer(self.get())
        self.now = LEARN_S + 1

    def put(self, tenant: str, priority: str = "normal", timeout_s: float = 0.0) -> bool:
        it = untold(f"{tenant}-{next(self._ids)}", priority)
        return self.queue.put(replace(it, head=replace(it.head, tenant=tenant)), timeout_s)

    def try_get(self) -> Leased | None:
        it = self.queue.get_now()
        if it is not None:
            self.queue.began(it)
        return it

    def get(self) -> Leased:
        it = self.try_get()
        assert it is not None
        return it

    def answer(self, leased: Leased) -> None:
        self.now += 0.01
        self.queue.done(leased)

    def hang(self) -> list[Leased]:
        """Tenant "bad" has as many out as it may, and they hang."""
        for _ in range(QUARTER):
            self.put("bad")
        out = [self.get() for _ in range(QUARTER)]
        self.now += 1.5
        return out


def test_others_pass_one_that_hangs() -> None:
    it = Watched()
    it.hang()
    for tenant in ("bad", "bad", "good", "bad", "good"):
        it.put(tenant)
    assert [it.get().head.tenant for _ in range(2)] == ["good", "good"]
    assert it.try_get() is None
    assert len(it.queue) == 3


def test_when_it_answers_all_of_it_goes_in_its_order() -> None:
    it = Watched()
    out = it.hang()
    for _ in range(4):
        it.put("bad")
    it.put("bad", "high")
    assert it.try_get() is None
    for leased in out:
        it.answer(leased)
    assert it.queue.facts() == {"slow_tenants": ["bad"]}
    first = it.get()
    assert first.head.priority == "high"
    it.answer(first)
    rest = [it.get().id for _ in range(4)]
    assert rest == sorted(rest, key=lambda i: int(i[4:]))
    assert len(it.queue) == 0


def test_who_waits_is_woken_when_it_answers() -> None:
    it = Watched()
    out = it.hang()
    it.put("bad")
    got: list[Leased] = []

    def wait() -> None:
        got.extend(filter(None, [it.queue.get(60)]))

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    until(lambda: it.queue._aside_count == 1, 10, "it has looked, and waits")
    it.answer(out[0])
    waiter.join(10)
    assert [leased.head.tenant for leased in got] == ["bad"]


def test_a_high_message_set_aside_does_not_hide_the_others_high_ones() -> None:
    it = Watched()
    it.hang()
    it.put("bad", "high")
    assert it.try_get() is None
    assert not it.queue.holds_high()
    it.put("good", "high")
    assert it.queue.holds_high()
    assert it.get().head.tenant == "good"


def test_half_of_the_queue_is_enough_of_one_that_hangs() -> None:
    it = Watched(capacity=8)
    it.hang()
    for _ in range(4):
        it.put("bad")
    assert it.try_get() is None
    more, other = untold("x"), untold("y")
    more = replace(more, head=replace(more.head, tenant="bad"))
    other = replace(other, head=replace(other.head, tenant="good"))
    assert it.queue.has_enough_of(more)
    assert not it.queue.has_enough_of(other)
    assert it.queue.surplus() == 0


def test_what_fills_the_queue_can_be_taken_out_down_to_half_the_last_first() -> None:
    it = Watched(capacity=8)
    it.hang()
    while it.put("bad"):
        pass
    assert it.try_get() is None
    assert it.queue.surplus() == 4
    assert len(it.queue.take_out(3)) == 3
    assert it.queue.surplus() == 1
    assert len(it.queue.take_out(1)) == 1
    assert it.put("good")
    assert it.get().head.tenant == "good"


def test_a_healthy_flood_waits_here_and_is_not_given_back() -> None:
    it = Watched(capacity=20)
    while it.put("bad"):
        pass
    while it.try_get() is not None:
        pass
    assert len(it.queue) > 10
    while it.put("bad"):
        pass
    assert it.try_get() is None
    it.now += 0.05
    more = untold("x")
    assert not it.queue.has_enough_of(replace(more, head=replace(more.head, tenant="bad")))
    assert it.queue.surplus() == 0


def test_what_is_set_aside_is_drained_too() -> None:
    it = Watched()
    it.hang()
    for tenant in ("bad", "good", "bad"):
        it.put(tenant)
    assert it.get().head.tenant == "good"
    assert sorted(leased.head.tenant for leased in it.queue.drain()) == ["bad", "bad"]
    assert len(it.queue) == 0
