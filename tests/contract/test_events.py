"""Every transition tells what it did, once, in its stream. Real Redis, an injected clock."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from contract.test_merged import freeze
from contract.test_transitions import Post
from paceline import keys
from paceline.answers import Settlement
from paceline.events import KINDS, Event, decode_entry
from paceline.intake import BULK
from paceline.outbox import OutboxStore
from paceline.settings import Destination, Events
from paceline.shared_config import script_numbers
from support.model import SECOND

R1 = "request-00000001"


def numbers(*kinds: Any, **about: Any) -> dict[str, Any]:
    """As a destination with these events has them in Redis."""
    given = Destination(
        name="d", provider="http", urls=("x",), events=Events(kinds=kinds or KINDS, **about)
    )
    return {"events": script_numbers(given)["events"]}


class Listener:
    """What was told since it was asked last."""

    def __init__(self, client: redis.Redis, destination: str = "d") -> None:
        self._client, self._destination, self._after = client, destination, "-"

    def entries(self) -> list[list[Event]]:
        found: Any = self._client.xrange(keys.key(self._destination, "ev"), self._after)
        if found:
            self._after = "(" + found[-1][0].decode()
        return [decode_entry(self._destination, *entry) for entry in found]

    def events(self) -> list[Event]:
        return [event for entry in self.entries() for event in entry]

    def heard(self) -> list[tuple[str, str]]:
        return [(event.kind, event.id) for event in self.events()]


@pytest.fixture
def post(redis_client: redis.Redis) -> Iterator[Post]:
    the_post = Post(redis_client, merge_most=1, max_tries=3, **numbers())
    yield the_post
    assert the_post.sound()
    assert told_by_kind(redis_client) == counted(the_post)


@pytest.fixture
def told(redis_client: redis.Redis) -> Listener:
    return Listener(redis_client)


def told_by_kind(client: redis.Redis, destination: str = "d") -> Counter[str]:
    found = Counter(kind for kind, _ in Listener(client, destination).heard())
    found["died"] = found.pop("rejected", 0) + found.pop("dead", 0)
    return +found


def counted(post: Post, destination: str = "d") -> Counter[str]:
    n = OutboxStore(post.client, destination).census().counters
    found = Counter({
        "accepted": n.get("accepted", 0) + n.get("moved_in", 0), "moved": n.get("moved_out", 0),
        "parked": n.get("stopped", 0),
    })  # fmt: skip
    for name in ("sent", "retried", "died", "expired", "cancelled", "dropped", "replayed"):
        found[name] = n.get(name, 0)
    return +found


# -- each transition ------------------------------------------------------------------------


def test_what_is_sent_is_told_with_what_the_provider_said(post: Post, told: Listener) -> None:
    post.put("a")
    nonce = post.take().nonce
    post.begin("a", nonce)
    post.settle("a", nonce, "sent", provider_id="p-1", label="sent:202", latency_s=0.125)
    accepted, sent = told.events()
    assert (accepted.kind, accepted.id, accepted.attempt, accepted.seq) == (
        "accepted",
        "a",
        None,
        1,
    )
    assert accepted.at == pytest.approx((post.now - SECOND / 10) / 1e6, abs=1e-6)
    assert sent == Event(
        destination="d", kind="sent", id="a", at=post.now / 1e6, seq=2, entry=sent.entry,
        provider_id="p-1", status=202, latency_s=0.125, attempt=1,
    )  # fmt: skip


def test_a_repeated_outcome_is_told_once_and_a_duplicate_never(post: Post, told: Listener) -> None:
    post.put("a")
    nonce = post.take().nonce
    for _ in range(2):
        post.settle("a", nonce, "sent")
    assert post.settle("a", "another-nonce-00", "sent") == "duplicate"
    assert told.heard() == [("accepted", "a"), ("sent", "a")]


def test_failures_are_told_with_their_reason(post: Post, told: Listener) -> None:
    for message_id in ("again", "refused", "spent", "unsure", "back", "held"):
        post.put(message_id)
    nonce = post.take().nonce
    told.events()
    post.begin("again", nonce)
    post.settle("again", nonce, "retry", why="http-500", label="retry:500", delay_s=1)
    post.settle("refused", nonce, "dead", why="http-400", label="rejected:400")
    post.settle("spent", nonce, "dead", why="retries", label="retry:500")
    post.settle("unsure", nonce, "parked", why="read-timeout", label="ambiguous:read-timeout")
    post.settle("back", nonce, "back")
    post.settle("held", nonce, "held", why="credentials", label="held:401")
    found = [(e.kind, e.id, e.status, e.attempt, e.reason) for e in told.events()]
    assert found == [
        ("retried", "again", 500, 1, "http-500"),
        ("rejected", "refused", 400, None, "http-400"),
        ("dead", "spent", 500, None, "retries"),
        ("parked", "unsure", None, None, "read-timeout"),
    ]


def test_what_operators_do_is_told(post: Post, told: Listener) -> None:
    post.put_many("m", 4)
    nonce = post.take().nonce
    for message_id in ("m0", "m1", "m2", "m3"):
        post.settle(message_id, nonce, "parked")
    post.put("w", not_before=post.now / 1e6 + 60)
    post.put("x")
    told.events()
    post.store.replay(["m0"])
    post.store.attest(["m1", "m1"])
    post.store.drop(["m2", "m3", "unknown"])
    post.store.cancel(["x", "x"])
    post.store.purge()
    assert told.heard() == [
        ("replayed", "m0"), ("sent", "m1"), ("dropped", "m2"), ("dropped", "m3"),
        ("cancelled", "x"), ("dropped", "m0"), ("dropped", "w"),
    ]  # fmt: skip


def test_expiry_is_told_wherever_it_is_met(post: Post, told: Listener) -> None:
    soon = post.now / 1e6 + 30
    post.put("in-index", expires=soon)
    post.put("old")
    post.put("at-gate", expires=soon)
    nonce = post.take(3).nonce
    post.settle("old", nonce, "back")
    post.settle("in-index", nonce, "dead")
    post.now += 31 * SECOND
    assert post.begin("at-gate", nonce) == "expired"
    assert post.store.replay(["in-index"]) == ["expired"]
    post.put("by-clock", expires=post.now / 1e6 + 1)
    post.now += 3600 * SECOND
    assert post.store.expire() == 1
    post.store.slots("beat", "ann", 0)
    post.take()
    assert [i for kind, i in told.heard() if kind == "expired"] == [
        "at-gate", "in-index", "by-clock", "old",
    ]  # fmt: skip


def test_a_cancel_while_begun_is_told_when_it_comes_true(post: Post, told: Listener) -> None:
    post.put("a")
    nonce = post.take().nonce
    post.begin("a", nonce)
    assert post.store.cancel(["a"]) == ["begun"]
    assert told.heard() == [("accepted", "a")]
    post.settle("a", nonce, "retry", why="http-500", label="retry:500")
    [cancelled] = told.events()
    assert (cancelled.kind, cancelled.attempt, cancelled.status) == ("cancelled", 1, 500)


def test_leases_that_run_out_are_told_where_the_message_had_begun(
    post: Post, told: Listener
) -> None:
    post.put("begun")
    post.put("held")
    nonce = post.take().nonce
    post.begin("begun", nonce)
    told.events()
    post.reap(after_s=40)
    [retried] = told.events()
    assert (retried.kind, retried.id, retried.reason) == ("retried", "begun", "lease-expired")


@pytest.mark.parametrize(("policy", "kind"), [("park", "parked"), ("retry", "dead")])
def test_what_a_lease_that_ran_out_lays_to_rest_is_told(
    redis_client: redis.Redis, told: Listener, policy: str, kind: str
) -> None:
    post = Post(redis_client, max_tries=0, **numbers() | {"on_ambiguous": policy})
    post.put("a")
    post.begin("a", post.take().nonce)
    post.reap(after_s=40)
    found = [(e.kind, e.id, e.attempt, e.reason) for e in told.events()]
    assert found == [("accepted", "a", None, None), (kind, "a", 1, "lease-expired")]


def test_a_late_sent_wins_and_is_told(post: Post, told: Listener) -> None:
    post.put("a")
    nonce = post.take().nonce
    post.settle("a", nonce, "dead")
    assert post.settle("a", nonce, "sent", provider_id="p") == "won"
    assert told.heard() == [("accepted", "a"), ("dead", "a"), ("sent", "a")]


def test_a_move_is_told_on_both_sides(post: Post, told: Listener) -> None:
    other = OutboxStore(post.client, "e", now_us=lambda: post.now)
    other.publish_config("digest", {}, post.numbers | numbers())
    post.put("a")
    told.events()
    post.store.lean("e", 0, 100, 0, loud=True)
    post.store.move("e")
    post.now += SECOND
    assert post.store.move("e")[0] == 1
    [gone] = told.events()
    assert (gone.kind, gone.id, gone.provider_id) == ("moved", "a", "e")
    [come] = Listener(post.client, "e").events()
    assert (come.kind, come.id, come.reason) == ("accepted", "a", "moved from d")
    assert told_by_kind(post.client, "e") == counted(post, "e")


# -- many at once ---------------------------------------------------------------------------


def test_one_call_that_accepts_many_writes_one_entry(post: Post, told: Listener) -> None:
    post.put_many("m", 2500)
    assert post.store.enqueue_many([post.store_message("m7")]) == ["already"]
    entries = told.entries()
    assert len(entries) == 2500 / BULK
    assert [e.id for entry in entries for e in entry] == [f"m{n}" for n in range(2500)]
    assert [e.seq for entry in entries for e in entry] == list(range(1, 2501))


def test_a_merged_request_tells_of_its_members_in_one_entry(post: Post, told: Listener) -> None:
    post.put_many("m", 5)
    freeze(post, post.take())
    told.events()
    post.begin("+" + R1, R1)
    post.settle("+" + R1, R1, "retry", delay_s=1, label="retry:500")
    post.now += 2 * SECOND
    post.store.promote()
    post.store.slots("beat", "ann", 0)
    nonce = post.take().nonce
    post.begin("+" + R1, nonce)
    post.settle("+" + R1, nonce, "sent", provider_id="p", label="sent:200", latency_s=0.5)
    retried, sent = told.entries()
    members = [f"m{n}" for n in range(5)]
    assert sorted(e.id for e in retried) == sorted(e.id for e in sent) == members
    assert {(e.kind, e.request, e.attempt) for e in retried} == {("retried", R1, 1)}
    assert {(e.kind, e.request, e.attempt, e.provider_id, e.status) for e in sent} == {
        ("sent", R1, 2, "p", 200)
    }


def test_members_that_end_apart_are_told_apart(post: Post, told: Listener) -> None:
    post.put_many("m", 4)
    freeze(post, post.take())
    post.begin("+" + R1, R1)
    post.store.cancel(["m0"])
    post.settle("+" + R1, R1, "split", label="rejected:400")
    for message_id, action in (("m1", "sent"), ("m2", "dead"), ("m3", "parked")):
        post.settle(message_id, R1, action, label="rejected:400" if action == "dead" else "")
    assert sorted(told.heard()[4:]) == [
        ("cancelled", "m0"), ("parked", "m3"), ("rejected", "m2"), ("sent", "m1"),
    ]  # fmt: skip


def test_a_request_that_dies_is_told_of_each_member(post: Post, told: Listener) -> None:
    post.put_many("m", 3)
    freeze(post, post.take())
    post.begin("+" + R1, R1)
    told.events()
    post.settle("+" + R1, R1, "dead", why="retries", label="ambiguous:read-timeout")
    [dead] = told.entries()
    assert sorted(e.id for e in dead) == ["m0", "m1", "m2"]
    assert {(e.kind, e.reason, e.request) for e in dead} == {("dead", "retries", R1)}


def test_a_random_run_is_told_as_it_is_counted(post: Post, told: Listener) -> None:
    rand = random.Random(6)
    actions = ["sent", "sent", "sent", "retry", "dead", "parked", "back"]
    for turn in range(25):
        post.put_many(f"t{turn}-", 10, tenant=f"t{turn % 3}")
        post.store.slots("beat", "ann", 0)
        taken = post.take(12)
        post.store.settle([
            Settlement(id=i, nonce=taken.nonce, action=rand.choice(actions), delay_s=1)  # type: ignore[arg-type]
            for i in taken.sizes
        ])  # fmt: skip
        ids = [f"t{rand.randrange(turn + 1)}-{rand.randrange(10)}" for _ in range(9)]
        post.store.cancel(ids[:3])
        post.store.replay(ids[3:6])
        post.store.drop(ids[6:])
        post.store.promote()
        post.now += SECOND
    post.store.purge(100)
    law = post.store.census().law
    ends = Counter(i for kind, i in told.heard() if kind in ("sent", "cancelled", "dropped"))
    assert set(ends.values()) == {1}
    assert len(ends) == law["sent"] + law["cancelled"] + law["dropped"]


# -- off, kinds, trimming, trouble ----------------------------------------------------------


def test_off_leaves_no_key(redis_client: redis.Redis) -> None:
    post = Post(redis_client)
    post.put("a")
    post.settle("a", post.take().nonce, "sent")
    post.store.sweep()
    assert redis_client.exists("{d}:ev") == 0
    assert "events" not in post.store.census().counters


def test_only_the_kinds_that_are_wanted_are_written(redis_client: redis.Redis) -> None:
    post = Post(redis_client, **numbers("sent", "dead"))
    post.put_many("m", 3)
    nonce = post.take().nonce
    post.settle("m0", nonce, "sent")
    post.settle("m1", nonce, "dead", label="rejected:400")
    post.settle("m2", nonce, "dead")
    assert Listener(redis_client).heard() == [("sent", "m0"), ("dead", "m2")]


def test_turned_off_the_stream_goes_and_is_counted_as_lost(redis_client: redis.Redis) -> None:
    post = Post(redis_client, **numbers())
    post.put_many("m", 3)
    post.store.publish_config("other", {}, post.numbers | {"events": ""}, force=True)
    post.put("more")
    assert redis_client.exists("{d}:ev") == 0
    assert post.store.census().counters["events_trimmed"] == 3


def _left(client: redis.Redis) -> list[Event]:
    return Listener(client).events()


def test_too_many_are_trimmed_and_the_loss_is_counted(redis_client: redis.Redis) -> None:
    post = Post(redis_client, **numbers(max_count=300))
    for n in range(800):
        post.put(f"m{n}")
    left = _left(redis_client)
    n = post.store.census().counters
    assert 200 <= len(left) <= 500
    assert (n["events"], n["events_trimmed"]) == (800, 800 - len(left))
    assert left[0].seq == 800 - len(left) + 1
    assert left[-1].seq == 800


def test_entries_of_many_messages_count_as_many(redis_client: redis.Redis) -> None:
    post = Post(redis_client, **numbers(max_count=3000))
    for n in range(20):
        post.put_many(f"x{n}-", 1000)
    left = _left(redis_client)
    assert 1000 <= len(left) <= 4500
    assert post.store.census().counters["events_trimmed"] == 20_000 - len(left)


def test_old_ones_are_trimmed_by_the_clock_alone(redis_client: redis.Redis) -> None:
    post = Post(redis_client, **numbers(max_age_s=60))
    post.now = round(time.time() * 1e6)
    post.put_many("m", 3)
    post.store.sweep()
    assert len(_left(redis_client)) == 3
    post.now += 70 * SECOND
    post.store.sweep()
    assert _left(redis_client) == []
    assert post.store.census().counters["events_trimmed"] == 3


def test_a_full_redis_still_settles(redis_client: redis.Redis) -> None:
    post = Post(redis_client, **numbers())
    post.put_many("m", 2)
    nonce = post.take().nonce
    redis_client.config_set("maxmemory-policy", "noeviction")
    redis_client.config_set("maxmemory", "1mb")
    try:
        assert post.settle("m0", nonce, "sent") == "ok"
        assert post.settle("m1", nonce, "retry") == "ok"
    finally:
        redis_client.config_set("maxmemory", "0")
    assert post.sound()
    assert Listener(redis_client).heard()[2:] == [("sent", "m0"), ("retried", "m1")]


def test_a_stream_that_somebody_overwrote_stops_nothing(redis_client: redis.Redis) -> None:
    post = Post(redis_client, **numbers())
    redis_client.set("{d}:ev", "somebody else's")
    post.put_many("m", 100)
    nonce = post.take().nonce
    assert post.settle("m0", nonce, "sent") == "ok"
    post.store.sweep()
    assert post.sound()
    assert post.store.census().counters["events_lost"] == 101
