"""The bucket as workers use it: several permits in one call, from several workers, while slots,
Redis's clock and its run_id change. On a real server with an injected clock; see test_bucket.py for
the tolerances.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conformance.hands import account_of, given_up, run
from contract.test_bucket import AHEAD_US, Gate
from paceline.answers import Permit
from support.model import SECOND

BUDGET = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, print_blob=True,
    suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate),
)  # fmt: skip

rates = st.sampled_from([0.5, 1.0, 7.3, 10.0, 90.0, 100.0, 1000.0, 5000.0])


class Exact:
    """The bucket in fractions. ``cap``: K."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.per_us = Fraction(gate.rate) / 1_000_000
        self.level = Fraction(0)
        self.at: int | None = None
        self.run_id = gate.pin.run_id

    def look(self, cap: int) -> None:
        """What is in it now."""
        now, gate = self.gate.now, self.gate
        if self.at is None or gate.pin.run_id != self.run_id:
            self.level = min(Fraction(0), self.level)
        else:
            # A clock that stepped back adds nothing.
            self.level += max(0, now - self.at) * self.per_us
        self.level = min(Fraction(cap), self.level)
        self.at, self.run_id = now, gate.pin.run_id

    def expects(self, permit: Permit, high: bool, cap: int, reserve: int) -> None:
        """One answer."""
        need = 1 if high else max(1, min(cap, 1 + reserve))
        exact_us = max(Fraction(0), (need - self.level) / self.per_us)
        assert permit.wait_s is not None
        told_us = round(permit.wait_s * 1e6)
        slack = 1 + Fraction(1, 1_000_000) / self.per_us
        if permit.verdict == "go":
            assert cap >= 1
            assert exact_us - slack <= told_us <= exact_us + slack
            assert told_us <= AHEAD_US
            self.level -= 1
        else:
            assert permit.verdict == "wait"
            if cap < 1:
                assert told_us == AHEAD_US
                return
            assert exact_us > AHEAD_US - slack
            assert exact_us - slack <= told_us + AHEAD_US <= exact_us + slack


asks = st.tuples(st.just("ask"), st.lists(st.booleans(), min_size=1, max_size=12))
passes = st.tuples(st.just("pass"), st.one_of(st.integers(0, 400_000), st.just(60 * SECOND)))
steps = st.tuples(st.just("step"), st.sampled_from([3600 * SECOND, -3600 * SECOND, -1, 50_000]))
others = st.tuples(st.just("other"), st.sampled_from(["beat", "leave", "bury"]))
restarts = st.tuples(st.just("restart"), st.none())


@BUDGET
@given(
    rate=rates,
    connections=st.integers(1, 12),
    k=st.integers(1, 30),
    reserve=st.integers(0, 3),
    events=st.lists(st.one_of(asks, asks, asks, passes, passes, steps, others, restarts),
                    min_size=10, max_size=60),
)  # fmt: skip
def test_every_answer_of_a_slice_is_that_of_exact_arithmetic(
    redis_session: redis.Redis, rate: float, connections: int, k: int, reserve: int,
    events: list[tuple[str, Any]],
) -> None:  # fmt: skip
    burst = k + connections + reserve
    gate = Gate(redis_session, rate=rate, burst=burst, connections=connections, reserve=reserve)
    exact, cap = Exact(gate), gate.k
    for kind, value in events:
        if kind == "ask":
            exact.look(cap)
            names = ["high" if high else "normal" for high in value]
            _, permits = gate.store.turn(gate.pin, [], [(name, "n" * 16, 0) for name in names])  # type: ignore[arg-type]
            assert isinstance(permits, list), permits
            for permit, high in zip(permits, value, strict=True):
                exact.expects(permit, high, cap, reserve)
        elif kind == "restart":
            gate.pin.run_id += "+"
        elif kind == "other":
            # Two of its connections are open although it was granted none: K shrinks by those.
            cap = gate.store.slots(value, "bob", 2).bucket
        else:
            gate.now += value


@BUDGET
@given(
    rate=st.sampled_from([7.3, 100.0, 1000.0, 5000.0]),
    account=st.sampled_from([(12, 10, 0), (12, 10, 1), (40, 10, 3), (5, 3, 0), (150, 64, 5)]),
    busy=st.sampled_from([0.02, 0.3, 0.8]),
    seed=st.integers(0, 10_000),
    steps=st.booleans(),
)
def test_no_window_of_any_length_has_more_than_burst_and_rate(
    redis_session: redis.Redis, rate: float, account: tuple[int, int, int], busy: float, seed: int,
    steps: bool,
) -> None:  # fmt: skip
    burst, connections, reserve = account
    scene = account_of(rate, burst, connections, busy, reserve=reserve)
    found = run(redis_session, scene, seed, permits=8 * burst, deeds=6, steps=steps)
    assert found.margin <= 0, found
    assert found.whole <= 0, found
    assert found.largest_slice > 1, "no call asked for several permits"


def test_a_bucket_as_large_as_the_burst_would_not_do(redis_session: redis.Redis) -> None:
    """The control: what is drawn and not yet written must be counted."""
    scene = account_of(100.0, 12, 10, 0.02)
    found = [run(redis_session, scene, seed, permits=300, deeds=6) for seed in range(8)]
    over = [
        run(redis_session, scene, seed, permits=300, deeds=6, sabotage=True) for seed in range(8)
    ]
    assert all(it.kept for it in found)
    assert max(it.margin for it in found) > -2, "no full bucket met permits in hand"
    assert max(it.margin for it in over) > 5


def test_a_worker_given_up_wakes_with_permits_in_hand(redis_session: redis.Redis) -> None:
    """The others have its connections by then, and wake with permits in hand themselves."""
    scene = account_of(100.0, 40, 10, 0.02)
    found = given_up(redis_session, scene)
    assert -2 < found.margin <= 0


def test_slices_of_a_calm_backlog_use_the_whole_rate(redis_session: redis.Redis) -> None:
    scene = account_of(5000.0, 150, 10, 0.5)
    found = run(redis_session, scene, 1, permits=2000, deeds=0)
    assert found.use >= 0.99
    assert found.largest_slice > 1


def test_a_forward_step_of_the_clock_adds_no_more_than_the_burst(redis_client: redis.Redis) -> None:
    """K, and what the connections were promised ahead of it, one permit each."""
    gate = Gate(redis_client, rate=100, burst=20, connections=5)
    gate.start()
    gate.now += 60 * SECOND
    at_once = sum(gate.start() == gate.now for _ in range(20))
    assert (gate.k, at_once) == (15, 15)  # and five are promised, over 50 ms
    gate.now += 3600 * SECOND
    after = 0
    while after < 100 and gate.start() == gate.now:
        after += 1
    assert after == gate.k
