"""The bucket at the wire against exact arithmetic, on a real server with an injected clock.

A nominal start is the moment `begin` answered plus the wait it told. Tolerances: Lua counts in
doubles, so a level may be off by 1e-6 permits; a wait is rounded up to a whole microsecond, so a
window of nominal starts may be a microsecond too short: rate · 1 µs of a permit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from contract.test_outbox_model import NUMBERS, START_US, FixedRun
from paceline import scripts
from paceline.answers import Permit
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.sink.windows import worst_window
from support.model import SECOND

TOLERANCE = Fraction(1, 1_000_000)
AHEAD_US = 250_000
BUDGET = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, print_blob=True,
    suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate),
)  # fmt: skip

rates = st.one_of(
    st.sampled_from([0.5, 1.0, 7.3, 90.0, 100.0, 5000.0]),
    st.integers(5, 50_000).map(lambda tenths: tenths / 10),
)


def tolerance(rate: float) -> Fraction:
    return TOLERANCE + Fraction(rate) / 1_000_000


class Gate:
    """One destination with one leased message of each priority, asked at will."""

    def __init__(
        self, client: redis.Redis, *, rate: float, burst: int, connections: int, reserve: int = 0
    ) -> None:
        client.flushdb()
        scripts.load_library(client)
        self.client, self.now, self.rate = client, START_US, rate
        self.store = OutboxStore(client, "d", now_us=lambda: self.now)
        self.pin = FixedRun(client)
        numbers = NUMBERS | {
            "rate": rate, "burst": burst, "connections": connections, "reserve": reserve,
            "max_age_us": 10**15, "lease_us": 10**15,
        }  # fmt: skip
        self.store.publish_config("digest", {}, numbers)
        self.k = self.store.slots("beat", "ann").bucket
        for priority in ("high", "normal"):
            self.store.enqueue(
                Message(id=priority, destination="d", payload=b"[]", priority=priority)  # type: ignore[arg-type]
            )
        self.store.take("ann", "n" * 16, 2, "any")

    def ask(self, priority: str = "high") -> Permit:
        return self.store.begin(self.pin, priority, "n" * 16)  # type: ignore[arg-type]

    def start(self, priority: str = "high") -> int | None:
        """The nominal start, or None when there is no permit yet."""
        permit = self.ask(priority)
        assert permit.wait_s is not None
        assert permit.wait_s * 1e6 <= AHEAD_US or permit.verdict == "wait"
        return self.now + round(permit.wait_s * 1e6) if permit.verdict == "go" else None

    def starts(self, span_us: int) -> Iterator[int]:
        """A backlog: asks whenever it may, for a span of time."""
        until = self.now + span_us
        while self.now < until:
            permit = self.ask()
            assert permit.wait_s is not None
            if permit.verdict == "go":
                yield self.now + round(permit.wait_s * 1e6)
            else:
                self.now += max(1, round(permit.wait_s * 1e6))


def fullest_window(starts: Sequence[int], rate: float) -> float:
    """The largest (permits in a window) - (rate · its length), over all windows."""
    return worst_window([us * 1000 for us in sorted(starts)], rate, 0).margin


@BUDGET
@given(
    rate=rates,
    connections=st.integers(1, 12),
    k=st.integers(1, 30),
    reserve=st.integers(0, 3),
    gaps=st.lists(
        st.tuples(
            st.one_of(
                st.sampled_from([0, 0, 0, 1, 10_000_000]), st.integers(0, 400_000)
            ),
            st.booleans(),
        ),
        min_size=10,
        max_size=80,
    ),
)  # fmt: skip
def test_every_answer_is_that_of_exact_arithmetic(
    redis_session: redis.Redis, rate: float, connections: int, k: int, reserve: int,
    gaps: list[tuple[int, bool]],
) -> None:  # fmt: skip
    burst = k + connections + reserve
    gate = Gate(redis_session, rate=rate, burst=burst, connections=connections, reserve=reserve)
    assert gate.k == k + reserve
    per_us = Fraction(rate) / 1_000_000
    gate.now += gaps[0][0]  # the bucket starts to fill when it is first asked
    level, at, starts = Fraction(0), gate.now, []
    for gap, high in [(0, gaps[0][1]), *gaps[1:]]:
        gate.now += gap
        level, at = min(Fraction(gate.k), level + (gate.now - at) * per_us), gate.now
        need = 1 if high else 1 + reserve
        wait_us = max(Fraction(0), (need - level) / per_us)
        permit = gate.ask("high" if high else "normal")
        assert permit.wait_s is not None
        told = round(permit.wait_s * 1e6)
        slack = 1 + TOLERANCE / per_us
        if permit.verdict == "go":
            assert wait_us - slack <= told <= wait_us + slack
            assert told <= AHEAD_US
            starts.append(gate.now + told)
            level -= 1
        else:
            assert told + AHEAD_US == pytest.approx(float(wait_us), abs=float(slack) + 1)
            assert wait_us > AHEAD_US - slack
    assert fullest_window(starts, rate) <= gate.k + tolerance(rate)


@BUDGET
@given(rate=rates, connections=st.integers(1, 10), k=st.integers(1, 40))
def test_a_backlog_gets_99_of_100_permits_and_no_window_more_than_its_share(
    redis_session: redis.Redis, rate: float, connections: int, k: int
) -> None:
    gate = Gate(redis_session, rate=rate, burst=k + connections, connections=connections)
    span_us = math.ceil(300 / rate * 1e6)
    starts = list(gate.starts(span_us))
    assert fullest_window(starts, rate) <= gate.k + tolerance(rate)
    assert len(starts) >= math.floor(0.99 * rate * span_us / 1e6)


def _drain(gate: Gate) -> int:
    """How many permits are there for the asking, at this moment."""
    count = 0
    while count < 100 and gate.start() == gate.now:
        count += 1
    return count


def _loses_its_bucket(gate: Gate) -> None:
    gate.client.hdel("{d}:gate", "level", "at", "run")


def _restarts(gate: Gate) -> None:
    gate.pin.run_id = "another"


@pytest.mark.parametrize("happens", [_loses_its_bucket, _restarts])
def test_a_bucket_that_was_lost_starts_empty(
    redis_client: redis.Redis, happens: Callable[[Gate], None]
) -> None:
    gate = Gate(redis_client, rate=100, burst=20, connections=5)
    gate.start()
    gate.now += 60 * SECOND
    happens(gate)
    first = gate.start()
    assert first is not None
    assert first >= gate.now + 10_000


def test_a_bucket_that_was_in_debt_is_still_in_debt_after_a_restart(
    redis_client: redis.Redis,
) -> None:
    gate = Gate(redis_client, rate=100, burst=20, connections=5)
    promised = [gate.start() for _ in range(5)]
    _restarts(gate)
    assert gate.start() == (promised[-1] or 0) + 10_000


def test_a_clock_that_steps_back_adds_nothing(redis_client: redis.Redis) -> None:
    gate = Gate(redis_client, rate=100, burst=20, connections=5)
    gate.start()
    gate.now += 60 * SECOND
    assert _drain(gate) == 15
    gate.now -= 3600 * SECOND
    assert _drain(gate) == 0
    gate.now += 1_000_000
    assert 0 < _drain(gate) <= 15


def test_a_clock_that_steps_forward_adds_no_more_than_the_bucket(
    redis_client: redis.Redis,
) -> None:
    gate = Gate(redis_client, rate=100, burst=20, connections=5)
    gate.start()
    gate.now += 3600 * SECOND
    assert _drain(gate) == 15


def test_the_last_permits_of_the_bucket_are_only_for_high(redis_client: redis.Redis) -> None:
    gate = Gate(redis_client, rate=10, burst=20, connections=5, reserve=4)
    gate.start()
    gate.now += 60 * SECOND
    at_once = 0
    while gate.start("normal") == gate.now:
        at_once += 1
    assert at_once == 15 - 4
    # That last question reserved one of the four, 100 ms ahead.
    assert _drain(gate) == 3


@pytest.mark.parametrize("op", ["pause", "hold"])
def test_a_pause_or_hold_acts_at_the_next_begin_and_draws_nothing(
    redis_client: redis.Redis, op: Any
) -> None:
    gate = Gate(redis_client, rate=10, burst=20, connections=5)
    gate.start()
    gate.now += 60 * SECOND
    gate.store.hold(op, for_s=2.0, why="because")
    permit = gate.ask()
    assert (permit.verdict, permit.wait_s, permit.why) == ("closed", 2.0, "because")
    gate.now += 2 * SECOND
    assert _drain(gate) == 15


def test_nothing_is_reserved_more_than_250_ms_ahead(redis_client: redis.Redis) -> None:
    gate = Gate(redis_client, rate=100, burst=200, connections=100)
    answers = [gate.ask() for _ in range(60)]
    waits = [a.wait_s for a in answers if a.verdict == "go"]
    assert max(w or 0 for w in waits) <= 0.25
    assert len(waits) == 25
    assert gate.store.census().counters["permits"] == 25


def test_a_bucket_smaller_than_the_reserve_still_serves_normal_messages(
    redis_client: redis.Redis,
) -> None:
    gate = Gate(redis_client, rate=0.5, burst=10, connections=5, reserve=3)
    gate.store.slots("beat", "bob", 5)
    gate.store.slots("beat", "ann", 4)  # both held the connections: 9 stand, K is 1
    assert gate.store.slots("beat", "ann", 4).bucket == 1
    gate.start("normal")
    gate.now += 60 * SECOND
    assert gate.start("normal") == gate.now
