"""errand.lua: requests without a message draw from the same bucket, and ask about each message that
was sent once, or three times at most. On a real server with an injected clock; see test_bucket.py
for the tolerances."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from contract.redis_snapshot import snapshot
from contract.test_bucket import Gate, fullest_window, tolerance
from contract.test_bucket_slices import Exact, rates
from contract.test_outbox_model import NUMBERS
from paceline.answers import Settlement
from paceline.errands import Errand, Errands
from paceline.message import Message
from paceline.outbox import OutboxStore
from support.model import SECOND

BUDGET = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, print_blob=True,
    suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate),
)  # fmt: skip
AFTER_US = 60 * SECOND
AGAIN_US = 300 * SECOND
RECORD_US = NUMBERS["record_us"]


class Asking(Gate):
    """A destination whose provider is asked a minute after a message was sent."""

    def __init__(self, client: redis.Redis, **numbers: Any) -> None:
        super().__init__(client, **({"rate": 100, "burst": 20, "connections": 5} | numbers))
        client.hset("{d}:cfg", "poll_us", AFTER_US)
        self.errands = Errands(self.store, self.pin)  # type: ignore[arg-type]

    def sends(self, message_id: str = "m", provider_id: str = "p-1") -> None:
        nonce = message_id.ljust(16, "n")
        self.store.enqueue(Message(id=message_id, destination="d", payload=b"[1]"))
        self.store.take("ann", nonce, 1, "any")
        self.store.settle(
            [Settlement(id=message_id, nonce=nonce, action="sent", provider_id=provider_id)]
        )

    def due(self, message_id: str = "m") -> Errand:
        """One that was sent a minute ago, with a full bucket."""
        self.ask()
        self.sends(message_id)
        self.now += AFTER_US
        errand = self.errands.look()
        assert errand is not None
        return errand

    @property
    def waiting(self) -> dict[str, float]:
        return {
            i.decode(): due for i, due in self.client.zrange("{d}:poll", 0, -1, withscores=True)
        }

    @property
    def permits(self) -> int:
        return self.store.census().counters.get("permits", 0)


# -- the bucket ---------------------------------------------------------------------------------

asks = st.tuples(st.just("ask"), st.booleans())
errands = st.tuples(st.just("errand"), st.none())
passes = st.tuples(st.just("pass"), st.one_of(st.integers(0, 400_000), st.just(60 * SECOND)))
restarts = st.tuples(st.just("restart"), st.none())


@BUDGET
@given(
    rate=rates,
    connections=st.integers(1, 12),
    k=st.integers(1, 30),
    reserve=st.integers(0, 3),
    events=st.lists(st.one_of(asks, asks, errands, errands, errands, passes, restarts),
                    min_size=10, max_size=60),
)  # fmt: skip
def test_messages_and_errands_draw_from_one_bucket(
    redis_session: redis.Redis, rate: float, connections: int, k: int, reserve: int,
    events: list[tuple[str, Any]],
) -> None:  # fmt: skip
    gate = Asking(
        redis_session, rate=rate, burst=k + connections + reserve, connections=connections,
        reserve=reserve,
    )  # fmt: skip
    gate.sends()
    gate.now += AFTER_US
    exact, cap, starts = Exact(gate), gate.k, []
    exact.run_id = gate.pin.run_id
    errand = gate.errands.look()
    assert errand is not None
    for kind, value in events:
        if kind == "pass":
            gate.now += value
        elif kind == "restart":
            gate.pin.run_id += "+"
        else:
            exact.look(cap)
            if kind == "ask":
                permit = gate.ask("high" if value else "normal")
            else:
                permit, errand = gate.errands.draw(errand)
            exact.expects(permit, kind == "ask" and value, cap, reserve)
            if permit.verdict == "go":
                assert permit.wait_s is not None
                starts.append(gate.now + round(permit.wait_s * 1e6))
    assert fullest_window(starts, rate) <= cap + tolerance(rate)
    assert gate.permits == len(starts)


def test_a_permit_is_counted_and_a_look_draws_none(redis_client: redis.Redis) -> None:
    gate = Asking(redis_client)
    errand = gate.due()
    before = gate.permits
    assert gate.errands.look() == errand
    assert gate.permits == before
    permit, mine = gate.errands.draw(errand)
    assert (permit.verdict, permit.wait_s, permit.begun_us) == ("go", 0.0, gate.now)
    assert gate.errands.draw(mine)[0].verdict == "go", "a permit that became too old"
    assert gate.permits == before + 2


def test_an_errand_waits_until_bytes_that_are_owed_are_paid(redis_client: redis.Redis) -> None:
    gate = Asking(redis_client)
    redis_client.hset("{d}:cfg", "bytes_per_s", 1000)
    errand = gate.due()
    gate.store.begin(gate.pin, "high", "n" * 16, 3000)  # type: ignore[arg-type]
    permit, _ = gate.errands.draw(errand)
    assert (permit.verdict, permit.wait_s) == ("wait", pytest.approx(2.001 - 0.25, abs=1e-3))


@pytest.mark.parametrize("op", ["pause", "hold"])
def test_a_closed_destination_asks_nothing(redis_client: redis.Redis, op: Any) -> None:
    gate = Asking(redis_client)
    errand = gate.due()
    before = gate.permits, gate.waiting
    gate.store.hold(op, for_s=2.0, why="because")
    assert gate.errands.look() is None
    permit, _ = gate.errands.draw(errand)
    assert (permit.verdict, permit.wait_s, permit.why) == ("closed", 2.0, "because")
    assert (gate.permits, gate.waiting) == before
    gate.now += 2 * SECOND
    assert gate.errands.look() == errand


def test_while_the_breaker_is_open_nothing_is_asked(redis_client: redis.Redis) -> None:
    gate = Asking(redis_client)
    errand = gate.due()
    redis_client.hset("{d}:gate", mapping={"breaker": gate.now, "probe": errand.id})
    assert gate.errands.look() is None
    assert gate.errands.draw(errand)[0].what == "breaker"


# -- who is asked about -------------------------------------------------------------------------


def test_a_message_is_asked_about_after_the_time_and_what_is_learnt_is_on_record(
    redis_client: redis.Redis,
) -> None:
    gate = Asking(redis_client)
    gate.sends()
    gate.now += AFTER_US - 4
    assert gate.errands.look() is None
    gate.now += 4
    errand = gate.errands.look()
    assert errand is not None
    assert (errand.id, errand.provider_id) == ("m", "p-1")
    _, errand = gate.errands.draw(errand)
    assert gate.errands.look() is None, "it is out"
    assert snapshot(redis_client, "d")["ended"]["m"].state == "sent"
    assert gate.errands.note(errand, {"outcome": "status", "reason": "ü"})
    assert gate.store.attempts("m") == [{"outcome": "status", "reason": "ü"}]
    assert 0 < redis_client.pttl("{d}:a:m") <= RECORD_US / 1000
    assert gate.waiting == {}
    assert gate.store.census().sound
    # One of a merged request: its record stays until it is swept.
    redis_client.persist("{d}:m:m")
    assert gate.errands.note(errand, {"outcome": "status", "reason": "b"})
    assert 0 < redis_client.pttl("{d}:a:m") <= RECORD_US / 1000
    assert len(gate.store.attempts("m")) == 2


def test_whoever_dies_with_one_leaves_it_to_be_asked_again_three_times_in_all(
    redis_client: redis.Redis,
) -> None:
    gate = Asking(redis_client)
    errand: Errand | None = gate.due()
    for _ in range(3):
        assert errand is not None
        _, mine = gate.errands.draw(errand)
        # A permit that was too old at the write is no further time.
        gate.now += 200_000
        assert gate.errands.draw(mine)[0].verdict == "go"
        gate.now += AGAIN_US - 4
        assert gate.errands.look() is None
        gate.now += 8
        errand = gate.errands.look()
    assert errand is None
    assert gate.waiting == {}


def test_one_that_another_worker_has_is_not_drawn_for(redis_client: redis.Redis) -> None:
    gate = Asking(redis_client)
    errand = gate.due()
    gate.errands.draw(errand)
    before = gate.permits
    permit, _ = gate.errands.draw(errand)
    assert (permit.verdict, permit.what) == ("gone", "taken")
    assert gate.permits == before


def test_a_message_that_is_forgotten_is_not_asked_about(redis_client: redis.Redis) -> None:
    gate = Asking(redis_client)
    errand = gate.due()
    redis_client.delete("{d}:m:m")
    assert gate.errands.look() is None
    assert gate.waiting == {}
    assert not gate.errands.note(errand, {"outcome": "status"})
    assert not redis_client.exists("{d}:a:m")
    # Sent again under the same id: it has not been sent yet.
    errand = gate.due()
    redis_client.delete("{d}:m:m")
    gate.store.enqueue(Message(id="m", destination="d", payload=b"[2]"))
    assert gate.errands.look() is None
    assert gate.waiting == {}


@pytest.mark.parametrize("provider_id", ["", "p" * 101])
def test_without_a_whole_id_of_the_providers_there_is_nothing_to_ask(
    redis_client: redis.Redis, provider_id: str
) -> None:
    gate = Asking(redis_client)
    gate.sends(provider_id=provider_id)
    assert gate.waiting == {}
    gate.sends("n", provider_id="p" * 100)
    assert list(gate.waiting) == ["n"]


def test_a_late_sent_is_asked_about_and_a_duplicate_is_not(redis_client: redis.Redis) -> None:
    gate = Asking(redis_client)
    gate.sends("m")
    due = gate.waiting
    gate.now += SECOND
    late = {"action": "sent", "provider_id": "p-2"}
    words = gate.store.settle([
        Settlement(id="m", nonce="x" * 16, **late),  # type: ignore[arg-type]
        Settlement(id="high", nonce="x" * 16, **late),  # type: ignore[arg-type]
    ])  # fmt: skip
    assert words == ["duplicate", "won"]
    assert {"m", "high"} == set(gate.waiting)
    assert gate.waiting["m"] == due["m"]


def test_off_nothing_is_put_down_and_turned_off_nothing_is_left(redis_client: redis.Redis) -> None:
    gate = Asking(redis_client)
    gate.sends("m")
    assert gate.waiting
    store: OutboxStore = gate.store
    store.publish_config("on", {}, NUMBERS | {"poll_us": 1}, force=True)
    assert gate.waiting
    store.publish_config("off", {}, NUMBERS | {"poll_us": 0}, force=True)
    assert gate.waiting == {}
    gate.sends("n")
    assert gate.waiting == {}


def test_more_than_can_be_asked_about_are_not_put_down(redis_client: redis.Redis) -> None:
    gate = Asking(redis_client)
    fill = "for i = 1, 99999 do redis.call('ZADD', KEYS[1], 1, i) end"
    redis_client.eval(fill, 1, "{d}:poll")
    gate.sends("m")
    gate.sends("n")
    assert redis_client.zcard("{d}:poll") == 100_000
    assert redis_client.zscore("{d}:poll", "n") is None
    assert redis_client.zscore("{d}:poll", "m") is not None
