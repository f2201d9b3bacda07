"""config.lua: who may publish which configuration, and what a new one does to the bucket."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import redis

from contract.test_outbox_model import NUMBERS, START_US, FixedRun
from paceline import scripts
from paceline.message import Message
from paceline.outbox import OutboxStore
from support.model import SECOND

LEASE_US = 10 * SECOND


class Place:
    """One destination: rate 10, K = 60 − 10."""

    def __init__(self, client: redis.Redis, **numbers: Any) -> None:
        client.flushdb()
        scripts.load_library(client)
        self.client, self.now = client, START_US
        self.store = OutboxStore(client, "d", now_us=lambda: self.now)
        self.numbers = NUMBERS | {
            "rate": 10, "burst": 60, "connections": 10, "reserve": 0, "lease_us": LEASE_US,
            "max_age_us": 10**15,
        } | numbers  # fmt: skip
        self._names = itertools.count()
        assert self.publish("first")[0] == "published"

    def publish(
        self, digest: str, *, force: bool = False, keep: bool = False, **numbers: Any
    ) -> Any:
        self.numbers = self.numbers | numbers
        found = self.store.publish_config(digest, {}, self.numbers, force=force, keep=keep)
        return found[:2]

    def beat(self, worker: str, open_connections: int = 0) -> int:
        return self.store.slots("beat", worker, open_connections).allowance

    @property
    def k(self) -> int:
        return int(self.store.census().gate["k"])

    def starts_now(self) -> int:
        """How many requests may start in this very instant; one more may be drawn ahead."""
        name = f"m{next(self._names)}"
        self.store.enqueue(Message(id=name, destination="d", payload=b"[]", priority="high"))
        nonce = f"{name:n<16}"
        self.store.take("ann", nonce, 1, "any")
        pin, count = FixedRun(self.client), 0
        while (permit := self.store.begin(pin, name, nonce)).verdict == "go" and not permit.wait_s:  # type: ignore[arg-type]
            count += 1
        return count


@pytest.fixture
def place(redis_session: redis.Redis) -> Place:
    return Place(redis_session)


def test_a_reload_publishes_and_a_daemon_only_confirms(place: Place) -> None:
    place.beat("ann")
    assert place.publish("first", keep=True) == ("same", 1)
    assert place.publish("second") == ("differs", 1)
    assert place.publish("second", force=True) == ("published", 2)
    assert place.publish("first", keep=True) == ("differs", 2)
    assert place.store.config_in_force() == ("second", "{}")
    # Nor when nobody seems to live, as after a Redis that stood still for long.
    place.now += 100 * LEASE_US
    assert place.publish("first", keep=True) == ("differs", 2)
    place.client.delete("{d}:cfg")
    assert place.store.config_in_force() == ("", "")
    assert place.publish("first", keep=True) == ("published", 1)


def test_connections_that_are_out_count_until_they_are_closed(place: Place) -> None:
    assert (place.beat("ann"), place.k) == (10, 50)
    place.publish("fewer", force=True, connections=4)
    assert place.k == 50, "each of the ten may hold a permit still"
    assert (place.beat("ann", 10), place.k) == (4, 50)
    assert (place.beat("ann", 4), place.k) == (4, 56)
    place.publish("more", force=True, connections=20)
    assert place.k == 40, "as if the new ones were out already"
    assert (place.beat("ann", 4), place.k) == (20, 40)


def test_the_connections_of_a_frozen_worker_count_too(place: Place) -> None:
    place.beat("ann")
    place.beat("bob")
    assert (place.beat("ann", 5), place.beat("bob")) == (5, 5)
    place.now += LEASE_US + 1  # both lapse; ann is back
    place.beat("ann", 5)
    assert place.k == 45, "ten for those that may be in use, five for the frozen one's"
    place.publish("other", force=True, max_count=7)
    assert place.k == 45


def test_what_came_in_before_a_new_rate_came_in_at_the_old_one(place: Place) -> None:
    place.beat("ann")
    assert place.starts_now() == 0, "a bucket that is missing starts empty"
    place.now += SECOND
    place.publish("faster", force=True, rate=1000)
    assert place.starts_now() == 9, "the second that passed was paid at the new rate"
    place.now += SECOND // 100
    assert place.starts_now() == 9
    place.now += SECOND // 100
    place.publish("slower", force=True, rate=1)
    assert place.starts_now() == 9, "what had come in is gone"


@pytest.mark.parametrize(
    ("numbers", "pace"),
    [
        ({"rate": 20}, "5"),  # found below the ceiling, and still below it
        ({"rate": 4}, ""),
        ({"pace": "fixed"}, ""),
        ({"max_count": 7}, "5"),
    ],
)
def test_a_pace_that_means_nothing_any_more_is_forgotten(
    redis_session: redis.Redis, numbers: dict[str, Any], pace: str
) -> None:
    place = Place(redis_session, pace="adaptive")
    place.client.hset("{d}:gate", mapping={"pace": "5", "conc": "3"})
    place.publish("other", force=True, **numbers)
    gate = place.store.census().gate
    assert gate.get("pace", "") == pace
    assert gate.get("conc", "") == ("" if "pace" in numbers else "3")


def test_numbers_that_an_older_version_did_not_know_are_added(place: Place) -> None:
    place.client.hdel("{d}:cfg", "max_count")
    before = place.client.hgetall("{d}:cfg")
    assert place.publish("first", keep=True, max_count=9, rate=77) == ("same", 1)
    assert place.client.hgetall("{d}:cfg") == before | {b"max_count": b"9"}


def test_a_number_of_a_newer_version_does_not_outlive_its_key(place: Place) -> None:
    place.publish("newer", force=True, novel=5)
    del place.numbers["novel"]
    # By an older version, which leaves what it does not know to the newer one's scripts.
    place.publish("older", force=True)
    assert place.client.hget("{d}:cfg", "novel") == b"5"
    assert place.publish("older") == ("same", 2 + 1)
    assert place.publish("older", keep=True, novel=0) == ("same", 3)
    assert place.client.hget("{d}:cfg", "novel") == b"0"
    place.client.hset("{d}:cfg", "novel", 1)
    place.publish("older", keep=True)
    assert place.client.hget("{d}:cfg", "novel") == b"1", "known to all by now"


def test_a_number_is_added_where_another_one_is_known_no_more(place: Place) -> None:
    del place.numbers["max_count"]
    assert place.publish("first", keep=True, novel=9) == ("same", 1)
    assert place.client.hget("{d}:cfg", "novel") == b"9"


def test_the_breaker_of_all_is_gone_where_each_endpoint_has_its_own(place: Place) -> None:
    held = {"breaker": place.now, "hold_kind": "breaker", "hold_why": "x"}
    place.client.hset("{d}:gate", mapping=held | {"probe": "m", "hold_until": place.now + SECOND})
    place.publish("other", force=True, max_count=7)
    assert place.store.census().closed() is not None
    place.publish("with endpoints", force=True, endpoints="4 0 1 5000000")
    assert place.store.census().closed() is None
    assert not {"breaker", "probe", "hold_kind"} & set(place.store.census().gate)
    # What an operator closed stays so.
    place.client.hset("{d}:gate", mapping=held | {"hold_kind": "held"})
    place.publish("again", force=True, max_count=8)
    assert place.store.census().gate["hold_kind"] == "held"
