"""What a tenant's weight and cap promise: who is served, how soon, and that nobody else pays."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

import pytest
import redis

from contract.test_transitions import Post
from paceline.scheduler import Scheduler
from support.model import SECOND

#: weight, messages/s (0: no cap), burst
Terms = Mapping[str, tuple[float, float, int]]


class Shared(Post):
    """A destination whose tenants have terms; its worker stays live as the time goes on."""

    def __init__(self, client: redis.Redis, terms: Terms, **numbers: Any) -> None:
        super().__init__(client, tenants=json.dumps(terms) if terms else "", **numbers)

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)
        self.store.slots("beat", "ann", 0)

    def serve(self, count: int) -> list[str]:
        """Takes up to ``count``; the tenants whose messages came, each as often as they did."""
        return [message_id.partition("-")[0] for message_id in self.take(count).sizes]

    def queue(self, tenant: str, count: int, start: int = 0, **about: Any) -> None:
        self.put_many(f"{tenant or 'none'}-{start}-", count, tenant=tenant or None, **about)

    def ask(self, lane: Any = "any") -> tuple[int, str, float]:
        """One invitation, as the scheduler asks for it."""
        got = self.store.release(lane, 100, 10.0, f"inv-{next(self._names)}")
        return got.count, got.why, got.retry_s


@pytest.fixture
def shared(redis_client: redis.Redis) -> Iterator[type[Shared]]:
    """Opens a destination by its terms; the books must balance at the end."""
    opened: list[Shared] = []

    class Opened(Shared):
        def __init__(self, terms: Terms, **numbers: Any) -> None:
            super().__init__(redis_client, terms, **numbers)
            opened.append(self)

    yield Opened
    assert all(it.sound() for it in opened)


# -- weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 100, 400])
def test_three_times_the_weight_is_three_times_the_messages(shared: Any, size: int) -> None:
    it = shared({"big": (3, 0, 1), "small": (1, 0, 1)})
    it.queue("big", 700)
    it.queue("small", 700)
    served = [tenant for _ in range(400 // size) for tenant in it.serve(size)]
    assert Counter(served)["big"] == pytest.approx(len(served) * 3 / 4, abs=2)


@pytest.mark.parametrize("weights", [(0.2, 0.1), (1e6, 5e5), (1.5, 0.75)])
def test_weights_are_relative(shared: Any, weights: tuple[float, float]) -> None:
    it = shared({"a": (weights[0], 0, 1), "b": (weights[1], 0, 1)})
    it.queue("a", 300)
    it.queue("b", 300)
    served = Counter(tenant for _ in range(10) for tenant in it.serve(30))
    assert served["a"] == pytest.approx(200, abs=3)


def test_at_no_moment_is_a_tenant_far_behind_its_part(shared: Any) -> None:
    """One by one, in whatever order: never more than a message or two from what is its due."""
    it = shared({"a": (5, 0, 1), "b": (2, 0, 1), "c": (1, 0, 1)})
    for tenant in "abc":
        it.queue(tenant, 300)
    order = [it.serve(1)[0] for _ in range(240)]
    for tenant, part in (("a", 5 / 8), ("b", 2 / 8), ("c", 1 / 8)):
        for n, got in enumerate(accumulate(t == tenant for t in order), 1):
            assert abs(got - n * part) < 2.5, (tenant, n, got)


def test_the_star_is_any_other_and_no_tenant_at_all_weighs_one(shared: Any) -> None:
    it = shared({"*": (4, 0, 1), "x": (2, 0, 1)})
    for tenant in ("", "x", "y", "z"):
        it.queue(tenant, 400)
    served = Counter(tenant for _ in range(11) for tenant in it.serve(40))
    assert served["y"] == pytest.approx(160, abs=4)
    assert served["z"] == pytest.approx(160, abs=4)
    assert served["x"] == pytest.approx(80, abs=4)
    assert served["none"] == pytest.approx(40, abs=4)


def test_without_a_star_tenants_that_are_not_named_weigh_one(shared: Any) -> None:
    it = shared({"x": (3, 0, 1)})
    it.queue("x", 200)
    it.queue("other", 200)
    assert Counter(it.serve(100)) == {"x": 75, "other": 25}


def test_what_one_cannot_use_is_for_the_others(shared: Any) -> None:
    it = shared({"big": (9, 0, 1), "small": (1, 0, 1)})
    it.queue("big", 10)
    it.queue("small", 200)
    assert Counter(it.serve(100)) == {"big": 10, "small": 90}


def test_a_weighty_tenant_that_was_away_has_nothing_saved_up(shared: Any) -> None:
    it = shared({"big": (3, 0, 1)})
    it.queue("small", 900)
    for _ in range(5):
        it.serve(100)
    it.queue("big", 400)
    assert Counter(it.serve(100)) == {"big": 75, "small": 25}


def test_weights_hold_within_each_priority_and_not_across(shared: Any) -> None:
    it = shared({"big": (9, 0, 1)})
    it.queue("big", 100)
    it.queue("small", 20, priority="high")
    assert it.serve(20) == ["small"] * 20


# -- caps -----------------------------------------------------------------------------------


def test_in_no_window_more_than_the_burst_and_the_rate(shared: Any) -> None:
    rate, burst = 20, 5
    it = shared({"a": (1, rate, burst)})
    it.queue("a", 500)
    taken: list[float] = []
    for step in (0.01, 0.3, 0.02, 0.001, 0.5, 0.049, 0.2) * 12:
        taken += [it.now / SECOND] * len(it.serve(50))
        it.advance(step)
    for n, since in enumerate(taken):
        for m, until in enumerate(taken[n:], 1):
            assert m <= burst + rate * (until - since) + 0.01
    lasted = taken[-1] - taken[0]
    # Only in the long breaks did the bucket overflow.
    assert len(taken) > 0.5 * rate * lasted


def test_a_tenant_at_its_cap_leaves_all_the_rest_to_the_others(shared: Any) -> None:
    it = shared({"capped": (100, 10, 10)})
    it.queue("capped", 300)
    it.queue("free", 600)
    served: Counter[str] = Counter()
    for _ in range(5):
        got = it.serve(100)
        assert len(got) == 100, "the others wait, and a batch is not full"
        served.update(got)
        it.advance(1.0)
    assert served["capped"] == 10 + 4 * 10


def test_the_cap_is_the_tenants_over_all_priorities(shared: Any) -> None:
    it = shared({"a": (1, 1, 6)})
    it.queue("a", 10, 0, priority="high")
    it.queue("a", 10, 1, priority="normal")
    it.queue("a", 10, 2, priority="bulk")
    assert len(it.serve(100)) == 6
    assert len(it.serve(100)) == 0


def test_each_tenant_has_the_cap_of_the_star_for_itself(shared: Any) -> None:
    it = shared({"*": (1, 5, 5), "vip": (1, 0, 1)})
    for tenant in ("a", "b", "vip", ""):
        it.queue(tenant, 30)
    assert Counter(it.serve(100)) == {"a": 5, "b": 5, "vip": 30, "none": 30}


@pytest.mark.parametrize("how", ["settled back", "throttled", "reaped"])
def test_what_comes_back_unsent_is_not_counted(shared: Any, how: str) -> None:
    it = shared({"a": (1, 0.001, 4)})
    it.queue("a", 20)
    it.reap()
    taken = it.take(100)
    assert len(taken.sizes) == 4
    if how == "reaped":
        it.reap(after_s=11)
        it.advance(0)
    else:
        action = "back" if how == "settled back" else "throttled"
        for message_id in taken.sizes:
            assert it.settle(message_id, taken.nonce, action, delay_s=1.0) == "ok"
        it.advance(2.0)
    assert len(it.take(100).sizes) == 4


def test_giving_back_never_saves_up_more_than_the_burst(shared: Any) -> None:
    it = shared({"a": (1, 2, 4)})
    it.queue("a", 40)
    taken = it.take(100)
    it.advance(10)
    for message_id in taken.sizes:
        it.settle(message_id, taken.nonce, "back")
    assert len(it.take(100).sizes) == 4


@pytest.mark.parametrize("junk", [b"x", b"nan", b"inf"])
def test_a_bucket_that_is_no_number_stops_nobody(shared: Any, junk: bytes) -> None:
    it = shared({"a": (1, 10, 5), "b": (1, 0, 1)})
    it.queue("a", 20)
    it.queue("b", 20)
    it.serve(2)
    it.client.hset("{d}:tb", mapping={"a:l": junk, "a:a": junk})
    taken = it.take(20)
    assert sum(message_id.startswith("b") for message_id in taken.sizes) >= 15
    it.client.hset("{d}:tb", "b:l", junk)
    for message_id in taken.sizes:
        assert it.settle(message_id, taken.nonce, "back") == "ok"


def test_what_expired_in_the_queue_costs_the_cap_nothing(shared: Any) -> None:
    it = shared({"a": (1, 1, 3)})
    it.queue("a", 50, expires=it.now / SECOND + 1)
    it.queue("a", 10, 1)
    it.advance(2)
    assert len(it.serve(100)) == 3
    assert it.store.census().law["expired"] == 50


def test_a_clock_that_steps_back_holds_a_capped_tenant_up_no_longer(shared: Any) -> None:
    it = shared({"a": (1, 5, 5)})
    it.queue("a", 50)
    assert len(it.serve(100)) == 5
    it.advance(-3600)
    assert it.ask()[1] == "tenant-cap"
    it.advance(1.0)
    assert it.ask()[:2] == (5, "released")
    assert len(it.serve(100)) == 5


def test_one_that_joins_beside_a_capped_one_starves_nobody(shared: Any) -> None:
    """The capped one was served little: who joins is not owed what that one was not allowed."""
    it = shared({"capped": (1, 1, 1)})
    it.queue("capped", 100)
    it.queue("busy", 2000)
    for _ in range(10):
        it.serve(100)
    it.queue("late", 500)
    assert Counter(it.serve(100)) == {"busy": 50, "late": 50}


def test_bulk_over_its_cap_is_owed_no_turns_before_high(shared: Any) -> None:
    it = shared({"mailing": (1, 1, 1)})
    it.queue("mailing", 100, priority="bulk")
    it.queue("shop", 2000, priority="high")
    for _ in range(10):
        it.serve(100)
    it.queue("other", 500, priority="bulk")
    assert Counter(it.serve(100))["shop"] >= 90


def test_tenants_seen_once_leave_nothing_behind(shared: Any) -> None:
    it = shared({"*": (1, 10, 10)})
    for n in range(400):
        it.queue(f"t{n}", 1)
        it.serve(1)
        it.advance(0.2)
    assert it.client.hlen("{d}:tb") < 2 * 40


def test_thousands_of_capped_tenants_cost_a_take_no_more_than_a_look_at_each(shared: Any) -> None:
    it = shared({"*": (1, 1, 1)})
    for n in range(2000):
        it.queue(f"t{n:04d}", 2)
    it.client.config_resetstat()
    assert len(it.serve(200)) == 200
    stats: Any = it.client.info("commandstats")
    calls = sum(entry["calls"] for name, entry in stats.items() if "config" not in name)
    assert calls < 2 * 2000 + 200 * 20


# -- what is invited ------------------------------------------------------------------------


def test_what_a_cap_holds_back_is_not_invited(shared: Any) -> None:
    it = shared({"a": (1, 10, 5)})
    it.queue("a", 100)
    assert it.ask()[:2] == (5, "released")
    assert it.ask()[1] == "covered"


def test_over_its_cap_it_says_so_and_when_to_ask_again(shared: Any) -> None:
    it = shared({"a": (1, 10, 5)})
    it.queue("a", 100)
    it.serve(100)
    count, why, retry_s = it.ask()
    assert (count, why) == (0, "tenant-cap")
    assert retry_s == pytest.approx(0.1, abs=0.001)
    it.advance(retry_s)
    assert it.ask()[:2] == (1, "released")


def test_a_fast_cap_is_asked_for_a_tenth_of_a_second_at_a_time(shared: Any) -> None:
    it = shared({"a": (1, 200, 200)})
    it.queue("a", 1000)
    for _ in range(2):
        it.serve(100)
    count, why, retry_s = it.ask()
    assert (count, why) == (0, "tenant-cap")
    it.advance(retry_s)
    assert it.ask()[:2] == (20, "released")


def test_one_cap_is_not_invited_for_twice_by_two_priorities(shared: Any) -> None:
    it = shared({"a": (1, 10, 5)})
    it.queue("a", 50, 0)
    it.queue("a", 50, 1, priority="bulk")
    assert it.ask()[:2] == (5, "released")


def test_others_are_invited_at_the_full_rate_beside_a_capped_one(shared: Any) -> None:
    it = shared({"a": (1, 1, 1)}, rate=100, burst=100)
    it.queue("a", 1000)
    it.queue("b", 3000)
    sent: Counter[str] = Counter()
    for n in range(1000):
        count = it.store.release("any", 100, 10.0, f"inv-{n}").count
        if count:
            taken = it.store.take("ann", f"nonce-{n:010d}", count, "any", f"inv-{n}")
            sent.update(message_id[0] for message_id in taken.sizes)
        it.advance(0.01)
    # What the bucket of releases held at first, and ten seconds of the rate.
    assert 1000 <= sum(sent.values()) <= 1000 + 100
    assert sent["a"] <= 1 + 10


class _Nobody:
    """An inviter whose invitations are taken at once by a worker of the test's own."""

    def __init__(self, it: Shared) -> None:
        self.it, self.taken = it, 0

    def invite(self, invitation_id: str, count: int, lane: Any, ttl_s: float) -> None:
        nonce = f"nonce-{next(self.it._names):010d}"
        self.taken += len(self.it.store.take("ann", nonce, count, lane, invitation_id).sizes)


@pytest.mark.parametrize("priority", ["high", "normal"])
def test_the_scheduler_looks_again_when_the_cap_allows_more(shared: Any, priority: str) -> None:
    it = shared({"a": (1, 50, 50)})
    it.queue("a", 1000, priority=priority)
    worker = _Nobody(it)
    scheduler = Scheduler(it.store, worker, 100)
    turns = 0
    until = it.now + 4 * SECOND
    while it.now < until:
        turn = scheduler.run_once()
        assert turn.why == "tenant-cap"
        turns += 1
        it.advance(turn.next_s)
    assert worker.taken == pytest.approx(50 + 4 * 50, abs=6)
    assert turns < 60, "it asks far more often than there is something to ask for"


# -- what is told ---------------------------------------------------------------------------


def test_the_census_counts_what_caps_hold_back(shared: Any) -> None:
    it = shared({"a": (1, 10, 4)})
    it.queue("a", 6)
    it.queue("a", 6, 1, priority="bulk")
    it.queue("b", 5)
    assert it.store.census().sizes["capped"] == 8
    it.serve(3)
    it.serve(100)
    census = it.store.census()
    assert census.sizes["capped"] == census.law["ready"] == 8


def test_where_nobody_has_a_cap_nothing_is_held_back(shared: Any) -> None:
    it = shared({"a": (2, 0, 1)})
    it.queue("a", 6)
    assert it.store.census().sizes["capped"] == 0
