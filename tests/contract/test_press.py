"""Limits of all destinations together, and of Redis's memory: what intake refuses."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import ResponseError

from paceline import scripts
from paceline.errors import OutboxFull
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.pressure import Limits
from paceline.watch_intake import HOLDS_S, IntakeWatch
from support.published import published

NAMES = ("a", "b")


class Two:
    """Two destinations on one Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self.now_us = 1_800_000_000_000_000
        self.client = client
        scripts.load_library(client)
        self.stores = {}
        for name in NAMES:
            published(client, name)
            self.stores[name] = OutboxStore(client, name, now_us=lambda: self.now_us)

    def put(self, name: str, message_id: str, payload: bytes = b"[]") -> str | OutboxFull:
        message = Message(destination=name, id=message_id, payload=payload)
        [answer] = self.stores[name].enqueue_many([message])
        assert isinstance(answer, (str, OutboxFull)), answer
        return answer

    def watch(self, **limits: float) -> IntakeWatch:
        return IntakeWatch(self.client, list(self.stores.values()), Limits(**limits))  # type: ignore[arg-type]

    def fill(self, share: float) -> None:
        """As if so much of maxmemory were used."""
        used = self.client.info("memory")["used_memory"]
        self.client.config_set("maxmemory", int(used / share))


def test_memory_shuts_intake_until_it_is_well_below(redis_client: redis.Redis) -> None:
    two = Two(redis_client)
    store = two.stores["a"]
    assert two.put("a", "known") == "new"
    assert store.press("keep", 15, 7, "75% is used", None) is False, "it was open"
    assert two.put("a", "m1") == "new"
    assert store.press("shut", 15, 7, "80% is used", None) is True
    refused = two.put("a", "m2")
    assert isinstance(refused, OutboxFull)
    assert (refused.limit, refused.retry_after_s) == ("80% is used", 7)
    assert str(refused).endswith(
        "the message was not taken. Try again in about 7 s, or raise the limit"
    )
    assert two.put("a", "known") == "already", "it was accepted before"
    assert two.put("b", "m2") == "new", "it was told of a alone"
    assert store.census().intake_shut() == "80% is used"
    assert store.press("keep", 15, 9, "73% is used", None) is True, "it was shut"
    refused = two.put("a", "m2")
    assert isinstance(refused, OutboxFull)
    assert (refused.limit, refused.retry_after_s) == ("73% is used", 9)
    assert store.press("open", 15, 5, "", None) is False
    assert two.put("a", "m2") == "new"
    assert store.census().intake_shut() is None


def test_without_a_daemon_it_does_not_stay_shut(redis_client: redis.Redis) -> None:
    two = Two(redis_client)
    two.stores["a"].press("shut", HOLDS_S, 7, "80% is used", None)
    two.now_us += round(HOLDS_S * 1e6) - 1
    assert isinstance(two.put("a", "m"), OutboxFull)
    two.now_us += 1
    assert two.stores["a"].census().intake_shut() is None
    assert two.put("a", "m") == "new"
    assert two.stores["a"].press("keep", HOLDS_S, 7, "73% is used", None) is False


def test_the_daemon_looks_at_redis_itself(redis_client: redis.Redis) -> None:
    two = Two(redis_client)
    watch = two.watch()
    assert watch.run_once() is False, "no limit"
    two.fill(0.8)
    assert watch.run_once() is True
    refused = two.put("b", "m")
    assert isinstance(refused, OutboxFull)
    assert "of Redis's memory is used, and intake stops at 75%" in refused.limit
    assert two.watch(memory_share=0.95).run_once() is False
    two.fill(0.1)
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert watch.run_once() is True
        refused = two.put("a", "m")
        assert isinstance(refused, OutboxFull)
        assert "maxmemory-policy allkeys-lru" in refused.limit
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    assert watch.run_once() is False
    assert two.put("a", "m") == "new"


def test_all_destinations_together(redis_client: redis.Redis) -> None:
    two = Two(redis_client)
    watch = two.watch(max_messages=5)
    for number in range(3):
        assert two.put("a", f"m{number}") == "new"
    watch.run_once()
    # Its own are counted at once, those of the others as of the last look.
    assert [two.put("b", f"m{n}") == "new" for n in range(3)] == [True, True, False]
    refused = two.put("b", "m2")
    assert isinstance(refused, OutboxFull)
    assert refused.limit == "5 messages wait in all destinations, max_messages of [redis] is 5"
    assert refused.retry_after_s == 5
    assert two.put("a", "m3") == "new", "b's are not known to a yet"
    watch.run_once()
    assert isinstance(two.put("a", "m4"), OutboxFull)
    two.stores["a"].purge()
    watch.run_once()
    assert two.put("b", "m2") == "new"

    watch = two.watch(max_bytes=100)
    watch.run_once()
    assert two.put("a", "big", b"x" * 94) == "new"
    assert isinstance(two.put("a", "m5"), OutboxFull)
    watch.run_once()
    refused = two.put("b", "m5")
    assert isinstance(refused, OutboxFull)
    assert refused.limit == "100 bytes wait in all destinations, max_bytes of [redis] is 100"
    two.watch().run_once()
    assert two.put("b", "m5") == "new", "the limits are gone"


def test_what_somebody_overwrote_keeps_it_from_no_other(redis_client: redis.Redis) -> None:
    two = Two(redis_client)
    redis_client.set("{a}:gate", "in the way")
    redis_client.delete("{a}:n")
    redis_client.set("{a}:n", "in the way")
    two.fill(0.8)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        two.watch(max_messages=5).run_once()
    assert isinstance(two.put("b", "m"), OutboxFull)
    redis_client.hset("{b}:gate", "full", "whatever")
    assert two.put("b", "m") == "new"
    assert two.stores["b"].census().intake_shut() is None


def test_an_invitation_that_stands_is_found_by_age(redis_client: redis.Redis) -> None:
    two = Two(redis_client)
    store = two.stores["a"]
    store.slots("beat", "w")
    for number in range(3):
        two.put("a", f"m{number}")
    store.enqueue(Message(destination="a", id="urgent", payload=b"[]", priority="high"))
    assert store.release("any", 100, 10.0, "first").count == 3
    two.now_us += 100_000
    assert store.release("high", 100, 10.0, "second").count == 1
    two.now_us += 200_000
    found = store.unanswered(0.25)
    assert found is not None
    assert (found.id, found.lane, found.count) == ("first", "any", 3)
    two.now_us += 100_000
    found = store.unanswered(0.25)
    assert found is not None
    assert (found.id, found.lane, found.count) == ("second", "high", 1), "high before all others"
    assert len(store.take("w", "n" * 16, found.count, found.lane, found.id).sizes) == 1
    found = store.unanswered(0.25)
    assert found is not None
    assert found.id == "first"
    two.now_us += 10_000_000
    assert store.unanswered(0.25) is None, "its lease is over"
    assert store.unanswered(-1) is None


def test_other_languages_read_when_to_try_again(redis_client: redis.Redis) -> None:
    two = Two(redis_client)
    two.stores["a"].press("shut", 15, 7, "80% is used", None)
    with pytest.raises(ResponseError, match=r"^PLFULL redis: 80% is used; try again in about 7 s$"):
        redis_client.execute_command(
            "FCALL", "paceline_enqueue", 1, "{a}", "[]", '{"id": "m"}', str(two.now_us)
        )
