"""Pace, connections and breaker, by what a provider answers: real scripts, a provider on a fake
clock."""

from __future__ import annotations

import random
from typing import Any

import pytest
import redis

from support.provider_clock import DOWN, REFUSED, SENT, Limit, Line

RATE = 100


def _use(line: Line, from_s: float, to_s: float) -> float:
    """Requests accepted a second."""
    return line.log.count("sent", from_s, to_s) / (to_s - from_s)


def test_an_unknown_limit_is_found_kept_to_and_left_when_it_is_lifted(
    redis_client: redis.Redis,
) -> None:
    """A provider that takes 60/s, 150 at once; 100/s is configured."""
    limit = Limit(60, 150)
    line = Line(redis_client, limit)
    line.run(80)
    refused, sent = (line.log.count(a, 20, 80) for a in ("throttled", "sent"))
    assert refused <= 0.02 * (refused + sent)
    assert sent >= 0.95 * 60 * 60
    limit.rate = 1000
    line.run(145)
    assert _use(line, 135, 140) >= 95
    census = line.store.census()
    assert (census.law["dead"], census.sound) == (0, True)
    assert "pace" not in census.gate, "at the ceiling there is nothing to remember"


def test_a_fixed_pace_is_kept_to_whatever_the_provider_says(redis_client: redis.Redis) -> None:
    line = Line(redis_client, Limit(60, 20), pace="fixed")
    line.run(20)
    assert line.log.count("throttled", 0, 20) > 3
    assert line.rate == RATE


def test_one_failure_in_thirty_costs_nothing(redis_client: redis.Redis) -> None:
    rand = random.Random(7)
    line = Line(redis_client, lambda _: DOWN if rand.random() < 0.033 else SENT)
    line.run(40)
    assert line.rate == RATE
    assert line.store.census().counters.get("breaker_opened", 0) == 0
    assert len([s for s, _ in line.log.requests if s >= 10]) >= 0.99 * 30 * RATE


def test_an_outage_charges_the_destination_and_not_its_messages(redis_client: redis.Redis) -> None:
    """Down for three minutes: probes only, each with another message; then the full rate again."""
    line = Line(redis_client, lambda s: DOWN if 20 <= s < 200 else SENT, rate=50)
    line.run(200)
    census = line.store.census()
    closed = census.closed()
    assert closed is not None
    assert closed[0] == "breaker"
    begun = [sum(20 <= s < 200 for s in tries) for tries in line.log.tries.values()]
    assert max(begun) == 1, "a message was spent on the outage twice"
    probes = line.log.count("retry", 25, 200)
    assert 4 <= probes <= 6, "one request in 30 s"
    line.run(260)
    assert _use(line, 250, 260) >= 0.99 * 50
    census = line.store.census()
    assert (census.law["dead"], census.sound) == (0, True)
    assert census.counters["breaker_opened"] == census.counters["breaker_closed"] == 1


def test_a_provider_that_hangs_is_an_outage_too(redis_client: redis.Redis) -> None:
    """All connections wait for time-outs: ten results, all bad, and late."""
    line = Line(
        redis_client,
        lambda s: DOWN | {"why": "timeout on read"} if 10 <= s < 100 else SENT,
        latency_s=lambda s: 30.0 if 10 <= s < 100 else 0.03,
    )
    line.run(60)
    assert (line.store.census().closed() or ("",))[0] == "breaker"
    assert max(len(tries) for tries in line.log.tries.values()) == 1


def test_a_slow_destination_opens_its_breaker_after_five_failures(
    redis_client: redis.Redis,
) -> None:
    line = Line(redis_client, lambda _: DOWN, rate=0.05, connections=3, reserve=0, burst=5)
    line.run(79)
    assert line.store.census().closed() is None
    line.run(121)
    assert (line.store.census().closed() or ("",))[0] == "breaker"


def test_rising_response_times_lower_the_pace(redis_client: redis.Redis) -> None:
    line = Line(
        redis_client, lambda _: SENT, rate=40, connections=30,
        latency_s=lambda s: 0.05 if s < 20 else 0.7,
    )  # fmt: skip
    line.run(19)
    assert line.rate == 40
    line.run(25)
    assert line.rate < 0.97 * 40
    assert line.store.census().gate["pace_why"].startswith("answers take")
    # What lasts is the new usual: it does not hold the pace down for ever.
    line.run(140)
    assert line.rate == 40


@pytest.mark.parametrize(("latency_s", "connections"), [(0.05, 10), (0.5, 64)])
def test_slow_answers_alone_lower_nothing(
    redis_client: redis.Redis, latency_s: float, connections: int
) -> None:
    line = Line(
        redis_client, lambda _: SENT, connections=connections, latency_s=lambda _: latency_s
    )
    line.run(20)
    assert line.rate == RATE
    assert _use(line, 5, 20) >= 0.99 * RATE


def test_connections_follow_failures_and_come_back(redis_client: redis.Redis) -> None:
    """Postfix's feedback: a quarter for a failure, a part for a success."""
    line = Line(redis_client, lambda s: DOWN if 5 <= s < 5.1 else SENT)
    line.run(5.2)
    assert line.store.census().usable_connections < 10
    line.run(20)
    assert line.store.census().usable_connections == 10


def test_a_429_is_not_followed_by_all_that_the_bucket_held(redis_client: redis.Redis) -> None:
    """The provider's bucket is empty then, so ours is: after the wait it begins slowly."""
    refused: list[float] = []

    def answer(at_s: float) -> dict[str, Any]:
        if at_s >= 10 and not refused:
            refused.append(at_s)
            return REFUSED | {"delay_s": 2.0}
        return SENT

    line = Line(redis_client, answer)
    line.run(16)
    resumed = min(s for s, _ in line.log.requests if s > refused[0] + 1)
    assert resumed >= refused[0] + 2
    assert line.log.count("sent", resumed, resumed + 0.5) <= 0.5 * RATE


class Windows:
    """So many requests in each window, told by RateLimit headers."""

    def __init__(self, limit: int, span_s: float) -> None:
        self._limit, self._span_s = limit, span_s
        self._window, self._used = -1, 0

    def __call__(self, at_s: float) -> dict[str, Any]:
        window = int(at_s // self._span_s)
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1
        if self._used > self._limit:
            return REFUSED
        if self._used < self._limit - 10:
            return SENT
        return SENT | {"advised_s": (window + 1) * self._span_s - at_s}


def test_a_ratelimit_header_is_heeded(redis_client: redis.Redis) -> None:
    """200 in ten seconds, in the header's words: all of it used, next to none refused."""
    line = Line(redis_client, Windows(200, 10.0))
    line.run(60)
    assert line.log.count("throttled", 0, 60) <= 10
    assert _use(line, 0, 60) >= 0.9 * 20


def test_a_ratelimit_header_that_lies_is_not_believed(redis_client: redis.Redis) -> None:
    """It says that nothing is left for an hour, and takes every request."""
    line = Line(redis_client, lambda _: SENT | {"advised_s": 3600.0}, rate=20)
    line.run(180)
    assert line.log.count("sent", 0, 10) >= 1
    assert _use(line, 150, 180) >= 0.95 * 20


# -- an operator's hand ------------------------------------------------------------------------


def test_a_rate_set_live_holds_from_the_next_permit_on_and_is_on_record(
    redis_client: redis.Redis,
) -> None:
    line = Line(redis_client, lambda _: SENT)
    line.run(10)
    line.store.set_rate(20, why="they asked", who="ann@host")
    line.run(20)
    assert _use(line, 10.3, 20) == pytest.approx(20, rel=0.02)
    line.store.set_rate(None, who="ann@host")
    line.run(30)
    assert _use(line, 21, 30) == pytest.approx(RATE, rel=0.02)
    first, second = line.store.hands()
    assert (second["what"], float(second["value"]), second["why"]) == ("rate", 20, "they asked")
    assert (first["value"], first["who"]) == ("", "ann@host")


def test_a_rate_set_live_adds_nothing_to_what_came_in_before(redis_client: redis.Redis) -> None:
    """What the bucket gained until then it gained at the old rate."""
    line = Line(redis_client, lambda _: SENT, rate=1)
    line.run(5)
    line.store.hold("pause")
    line.run(15)
    line.store.set_rate(1000)
    line.store.hold("resume")
    line.run(15.005)
    assert line.log.count("sent", 15, 15.005) <= 10 + 5 + 1


def test_a_cap_in_bytes_binds_beside_the_rate(redis_client: redis.Redis) -> None:
    """Requests of 100 bytes, 2,000 bytes/s: 20 a second, whatever the rate."""
    line = Line(redis_client, lambda _: SENT, bytes_per_s=2000)
    line.run(11)
    assert line.log.count("sent", 0, 11) * 100 <= 2000 * 12
    assert _use(line, 1, 11) == pytest.approx(20, rel=0.03)


# -- tenants -----------------------------------------------------------------------------------


def test_the_failures_of_one_tenant_are_its_own(redis_client: redis.Redis) -> None:
    """All of its messages fail, at once; the others neither slow down nor stop."""
    line = Line(
        redis_client,
        lambda _: SENT,
        tenants=["ill", "a", "b", "c"],
        answer_for=lambda tenant, _: DOWN if tenant == "ill" else SENT,
    )
    line.run(30)
    census = line.store.census()
    assert line.rate == RATE
    assert census.counters.get("breaker_opened", 0) == 0
    assert census.usable_connections == 10
    assert line.log.count("retry", 0, 30) > 300, "its messages were tried"
    assert line.log.count("sent", 0, 30) >= 0.7 * 30 * RATE


def test_failures_of_all_tenants_are_the_providers(redis_client: redis.Redis) -> None:
    line = Line(redis_client, lambda s: DOWN if s >= 5 else SENT, tenants=["a", "b", "c"])
    line.run(8)
    assert (line.store.census().closed() or ("",))[0] == "breaker"


def test_three_503s_by_chance_cost_a_moment(redis_client: redis.Redis) -> None:
    """The wait is the answer; the pace is soon what it was."""
    down = {"action": "unavailable", "health": "u", "delay_s": 30.0, "why": "HTTP 503"}
    line = Line(redis_client, lambda s: down if 10 <= s < 10.03 else SENT)
    line.run(10.5)
    census = line.store.census()
    assert (census.closed() or ("",))[0] == "throttled"
    assert 0.7 * RATE <= census.rate < 0.8 * RATE
    line.run(20)
    assert line.rate == RATE
    assert _use(line, 14, 20) >= 0.99 * RATE
