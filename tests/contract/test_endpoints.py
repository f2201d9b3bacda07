"""What a destination with many endpoints promises: each has its own cap, rate, breaker and order,
and none keeps the others waiting. Real Redis, an injected clock."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from contract.test_transitions import Post
from paceline.endpoint_registry import EndpointRegistry
from paceline.endpoints import Endpoint, EndpointSeen
from paceline.errors import EndpointDisabled, InvalidMessage
from paceline.events import decode_entry
from support.model import SECOND

URL = "https://acme.example/hooks"
DAY_US = 86_400 * SECOND
#: in flight, rate, burst, disabled after us
ALL = "4 0 1 432000000000"
EVERY_KIND = (
    "100000 86400000000 accepted sent retried rejected dead expired"
    " endpoint_failing endpoint_recovered endpoint_disabled endpoint_enabled "
)


class Hooks(Post):
    """A destination with endpoints, of which some are registered."""

    def __init__(self, client: redis.Redis, **numbers: Any) -> None:
        super().__init__(
            client,
            **{"endpoints": ALL, "events": EVERY_KIND, "pace": "fixed", "max_age_us": 10 * DAY_US}
            | numbers,
        )
        self.registry = EndpointRegistry(self.store)

    def register(self, *names: str, **about: Any) -> None:
        self.registry.put({name: Endpoint(url=URL, **about) for name in names}, "test")

    def queue(self, endpoint: str, count: int = 1, key: str | None = None, **about: Any) -> None:
        start = next(self._names)
        self.put_many(f"{endpoint}-{start}-", count, endpoint=endpoint, key=key, **about)

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)
        self.store.slots("beat", "ann", 0)
        self.store.promote(500)

    def fail(self, taken: Any, message_id: str, action: Any = "retry", **about: Any) -> None:
        about = {
            "delay_s": 5.0,
            "charge": True,
            "health": "o",
            "label": "ambiguous:timeout",
        } | about
        self.begin(message_id, taken.nonce)
        assert self.settle(message_id, taken.nonce, action, **about) == "ok"

    def succeed(self, taken: Any) -> None:
        for message_id in taken.sizes:
            self.begin(message_id, taken.nonce)
            self.settle(message_id, taken.nonce, "sent", label="sent:200")

    def serve(self, count: int = 100) -> Counter[str]:
        """Takes and sends; how many of each endpoint's."""
        taken = self.take(count)
        self.succeed(taken)
        return Counter(message_id.partition("-")[0] for message_id in taken.sizes)

    def seen(self, name: str) -> EndpointSeen:
        [found] = self.registry.look([name])
        assert found is not None
        return found

    def told(self) -> list[tuple[str, str]]:
        """Events of endpoints."""
        entries: Any = self.client.xrange("{d}:ev")
        events = [event for entry in entries for event in decode_entry("d", *entry)]
        return [(it.kind, it.id) for it in events if it.kind.startswith("endpoint_")]

    def invited(self) -> int:
        return self.store.release("any", 100, 10.0, f"inv-{next(self._names)}").count

    def break_it(self, name: str) -> None:
        """Three failures in a row."""
        while self.seen(name).failures < 3:
            taken = self.take()
            for message_id in taken.sizes:
                self.fail(taken, message_id)
            self.advance(6)


@pytest.fixture
def hooks(redis_client: redis.Redis) -> Iterator[Hooks]:
    it = Hooks(redis_client)
    yield it
    assert it.sound()
    leased = sum(redis_client.scard(key) for key in redis_client.scan_iter("{d}:b:*"))
    counted: Any = redis_client.hgetall("{d}:eo")
    assert sum(int(n) for name, n in counted.items() if b"/" not in name) == leased


# -- intake ---------------------------------------------------------------------------------


def test_only_what_is_registered_gets_messages(hooks: Hooks) -> None:
    hooks.register("acme")
    hooks.queue("acme")
    with pytest.raises(InvalidMessage, match=r"endpoint.*unheard-of is not registered"):
        hooks.put("a", endpoint="unheard-of")
    with pytest.raises(InvalidMessage, match=r"endpoint.*missing"):
        hooks.put("b")
    with pytest.raises(InvalidMessage, match=r"tenant.*shared between its endpoints"):
        hooks.put("c", tenant="acme")


def test_a_destination_without_endpoints_takes_none(post: Post) -> None:
    with pytest.raises(InvalidMessage, match=r"endpoint.*has no endpoints"):
        post.put("a", endpoint="acme")


@pytest.fixture
def post(redis_client: redis.Redis) -> Post:
    return Post(redis_client)


def test_a_repeated_message_is_known_although_its_endpoint_is_disabled(hooks: Hooks) -> None:
    hooks.register("acme")
    hooks.put("a", endpoint="acme")
    hooks.registry.disable(["acme"], "moved away", "ops")
    assert hooks.store.enqueue(hooks.store_message("a")) == "already"
    with pytest.raises(EndpointDisabled, match="moved away"):
        hooks.put("b", endpoint="acme")


# -- caps -----------------------------------------------------------------------------------


def test_no_endpoint_has_more_in_flight_than_it_may(hooks: Hooks) -> None:
    hooks.register("wide", in_flight=7)
    hooks.register("usual")
    hooks.queue("wide", 50)
    hooks.queue("usual", 50)
    taken = hooks.take(100)
    of = Counter(i.partition("-")[0] for i in taken.sizes)
    assert of == {"wide": 7, "usual": 4}
    assert not hooks.take(100).sizes
    # One is done: one more may go, and no more.
    first = next(i for i in taken.sizes if i.startswith("usual"))
    hooks.begin(first, taken.nonce)
    hooks.settle(first, taken.nonce, "sent")
    assert [i.partition("-")[0] for i in hooks.take(100).sizes] == ["usual"]


def test_endpoints_have_their_turns_whatever_waits_for_each(hooks: Hooks) -> None:
    hooks.register("huge", in_flight=1000)
    hooks.register(*(f"e{n}" for n in range(30)))
    hooks.queue("huge", 1000)
    for n in range(30):
        hooks.queue(f"e{n}", 5)
    served = sum((hooks.serve(31) for _ in range(4)), Counter())
    assert served["huge"] == 4
    assert sum(served.values()) == 124


def test_a_rate_of_its_own_bars_it_until_there_is_room(hooks: Hooks) -> None:
    hooks.register("slow", rate=2.0, burst=3, in_flight=100)
    hooks.register("free", in_flight=100)
    hooks.queue("slow", 20)
    hooks.queue("free", 20)
    got = Counter(i.partition("-")[0] for i in hooks.take(100).sizes)
    assert got == {"slow": 3, "free": 20}
    assert not hooks.invited(), "nothing can be taken, so nobody is asked to"
    sent = 0
    for _ in range(20):
        hooks.advance(0.25)
        sent += len(hooks.take(100).sizes)
    assert sent == pytest.approx(10, abs=1)


def test_at_an_endpoint_that_is_full_the_most_urgent_goes_next(hooks: Hooks) -> None:
    hooks.register("acme", in_flight=1)
    for n in range(30):
        hooks.queue("acme", key=f"n{n}")
        hooks.queue("acme", key=f"b{n}", priority="bulk")
    before = [hooks.take()]
    assert not hooks.take().sizes, "all are set aside"
    hooks.put_many("high-", 20, endpoint="acme", priority="high")
    order: list[str] = []
    for _ in range(40):
        hooks.now += 1
        hooks.succeed(before[-1])
        before.append(hooks.take())
        order += before[-1].sizes
    high = [place for place, message_id in enumerate(order) if message_id.startswith("high-")]
    assert len(high) == 20
    assert high[-1] < 27, "some of bulk in between, and nothing normal"


# -- trouble --------------------------------------------------------------------------------


def test_one_that_fails_is_tried_one_at_a_time_then_rests_and_is_probed(hooks: Hooks) -> None:
    hooks.register("bad", "good")
    hooks.queue("bad", 20)
    taken = hooks.take(4)
    assert len(taken.sizes) == 4
    for message_id in taken.sizes:
        hooks.begin(message_id, taken.nonce)
    begun_us = hooks.now
    for message_id in taken.sizes:
        hooks.fail(taken, message_id, begun_us=begun_us)
    seen = hooks.seen("bad")
    assert (seen.state, seen.failures) == ("failing", 1), "together under way, one failure"
    hooks.advance(1.1)
    taken = hooks.take()
    assert len(taken.sizes) == 1, "one at a time, while it fails"
    hooks.fail(taken, *taken.sizes)
    hooks.advance(1.1)
    taken = hooks.take()
    hooks.fail(taken, *taken.sizes)
    assert hooks.seen("bad").state == "waiting"
    assert ("endpoint_failing", "bad") in hooks.told()
    hooks.queue("good", 3)
    assert hooks.serve(100) == {"good": 3}
    assert not hooks.invited(), "what waits for it invites nobody"
    hooks.advance(13)
    taken = hooks.take()
    assert len(taken.sizes) == 1, "the probe"
    hooks.succeed(taken)
    assert hooks.seen("bad").state == "well"
    assert ("endpoint_recovered", "bad") in hooks.told()
    assert hooks.serve(100) == {"bad": 4}


def test_the_wait_between_probes_doubles_to_half_an_hour(hooks: Hooks) -> None:
    hooks.register("bad")
    hooks.queue("bad", 100)
    hooks.break_it("bad")
    waits = []
    for _ in range(11):
        until = hooks.seen("bad").until
        assert until is not None
        waits.append(until - hooks.now / SECOND)
        hooks.advance(waits[-1] + 1)
        taken = hooks.take()
        assert len(taken.sizes) == 1
        hooks.fail(taken, *taken.sizes)
    for one, following in itertools.pairwise(waits[:6]):
        assert 1.5 * one < following < 2.6 * one
    assert 1800 <= waits[-1] <= 2250


def test_an_outage_of_one_costs_its_backlog_nothing(hooks: Hooks) -> None:
    hooks.register("bad")
    hooks.queue("bad", 1)
    hooks.break_it("bad")
    for _ in range(6):
        until = hooks.seen("bad").until
        assert until is not None
        hooks.advance(until - hooks.now / SECOND + 6)
        taken = hooks.take()
        hooks.fail(taken, *taken.sizes)
    [message_id] = taken.sizes
    [(head, *_)] = hooks.store.look([message_id])  # type: ignore[misc]
    assert head.tries == 1  # type: ignore[union-attr]


def test_one_bad_endpoint_is_no_outage_of_the_destination(hooks: Hooks) -> None:
    hooks.register("bad", in_flight=1)
    hooks.queue("bad", 50)
    for _ in range(40):
        taken = hooks.take()
        for message_id in taken.sizes:
            hooks.fail(taken, message_id)
        hooks.advance(3)
    assert "breaker" not in hooks.store.census().gate


def test_a_crowd_of_bad_ones_does_not_close_the_destination(hooks: Hooks) -> None:
    names = [f"e{n}" for n in range(60)]
    hooks.register(*names, "good")
    for name in names:
        hooks.queue(name)
    taken = hooks.take(60)
    for message_id in taken.sizes:
        hooks.fail(taken, message_id)
    assert "breaker" not in hooks.store.census().gate
    hooks.queue("good", 4)
    assert hooks.serve(100)["good"] == 4


def test_429_is_the_endpoints_own(hooks: Hooks) -> None:
    hooks.register("busy", "good")
    hooks.queue("busy", 4)
    hooks.queue("good", 4)
    taken = hooks.take(100)
    first = next(i for i in taken.sizes if i.startswith("busy"))
    hooks.fail(
        taken, first, "throttled", delay_s=60.0, charge=False, health="", label="throttled:429"
    )
    for message_id in taken.sizes:
        if message_id != first:
            hooks.begin(message_id, taken.nonce)
            hooks.settle(message_id, taken.nonce, "back")
    assert hooks.serve(100) == {"good": 4}
    hooks.advance(61)
    assert hooks.serve(100) == {"busy": 1}, "one at a time until it is well"
    assert hooks.serve(100) == {"busy": 3}


def test_410_disables_it_and_says_so(hooks: Hooks) -> None:
    hooks.register("gone")
    hooks.queue("gone", 3)
    taken = hooks.take(1)
    hooks.fail(
        taken, *taken.sizes, "dead", health="g", label="rejected:410", why="endpoint is gone"
    )
    seen = hooks.seen("gone")
    assert (seen.state, seen.why, seen.waiting) == ("disabled", "endpoint is gone", 2)
    assert ("endpoint_disabled", "gone") in hooks.told()
    assert not hooks.take().sizes
    assert hooks.registry.enable(["gone"], "ops") == ["enabled"]
    assert hooks.serve(100) == {"gone": 2}
    assert ("endpoint_enabled", "gone") in hooks.told()


def test_what_was_under_way_does_not_enable_a_disabled_one(hooks: Hooks) -> None:
    hooks.register("gone", "moved")
    hooks.queue("gone", 3)
    hooks.queue("moved", 3)
    taken = hooks.take(4)
    first, second = sorted(i for i in taken.sizes if i.startswith("gone"))
    hooks.registry.disable(["moved"], "by hand", "ops")
    hooks.begin(second, taken.nonce)
    hooks.fail(taken, first, "dead", health="g", label="rejected:410", why="is gone")
    hooks.settle(second, taken.nonce, "sent", label="sent:200")
    for message_id in taken.sizes:
        if message_id.startswith("moved"):
            hooks.begin(message_id, taken.nonce)
            hooks.settle(message_id, taken.nonce, "sent", label="sent:200")
    assert [hooks.seen(name).state for name in ("gone", "moved")] == ["disabled", "disabled"]
    assert not hooks.take().sizes
    assert hooks.registry.enable(["gone", "moved"], "ops") == ["enabled", "enabled"]
    assert hooks.serve() == {"gone": 1, "moved": 1}


def test_after_days_of_failure_it_is_disabled(hooks: Hooks) -> None:
    hooks.register("bad")
    for day in range(6):
        hooks.queue("bad", 1)
        hooks.advance(2400)
        taken = hooks.take()
        for message_id in taken.sizes:
            hooks.fail(taken, message_id)
        if day < 5:
            assert hooks.seen("bad").state != "disabled", day
            hooks.now += DAY_US
            hooks.advance(2400)
    assert hooks.seen("bad").state == "disabled"
    assert "has failed for" in hooks.seen("bad").why


def test_what_waits_for_a_disabled_one_becomes_too_old(hooks: Hooks) -> None:
    hooks.register("gone")
    hooks.queue("gone", 30)
    hooks.registry.disable(["gone"], "by hand")
    hooks.now += 10 * DAY_US
    for _ in range(10):
        hooks.advance(0.1)
    assert hooks.store.census().counters["expired"] == 30


def test_one_that_hangs_at_a_worker_is_left_alone_for_a_moment(hooks: Hooks) -> None:
    hooks.register("hangs")
    hooks.queue("hangs", 2)
    taken = hooks.take(2)
    for message_id in taken.sizes:
        hooks.settle(message_id, taken.nonce, "back", delay_s=2.0)
    assert not hooks.take().sizes
    hooks.advance(2.1)
    assert len(hooks.take().sizes) == 2


# -- order ----------------------------------------------------------------------------------


def test_messages_of_one_key_go_one_after_the_other(hooks: Hooks) -> None:
    hooks.register("acme")
    for key in ("k1", "k2"):
        hooks.put_many(f"{key}-", 3, endpoint="acme", key=key)
    first = hooks.take()
    assert sorted(first.sizes) == ["k1-0", "k2-0"]
    assert not hooks.take().sizes
    hooks.fail(first, "k1-0", delay_s=30.0, health="b")
    hooks.begin("k2-0", first.nonce)
    hooks.settle("k2-0", first.nonce, "sent", label="sent:200")
    assert list(hooks.take().sizes) == ["k2-1"], "k1 waits, with all behind it; k2 goes on"
    hooks.advance(31)
    assert list(hooks.take().sizes) == ["k1-0"]


def test_an_ordered_endpoint_keeps_its_order_over_retries_and_death(hooks: Hooks) -> None:
    hooks.register("acme", ordered=True)
    hooks.put_many("m", 3, endpoint="acme")
    order = []
    for turn in range(40):
        taken = hooks.take()
        assert len(taken.sizes) <= 1
        for message_id in taken.sizes:
            order.append(message_id)
            if turn % 2:
                hooks.succeed(taken)
            else:
                hooks.fail(taken, message_id, health="b", delay_s=1.0)
        hooks.advance(11)
    assert order == ["m0", "m0", "m1", "m1", "m2", "m2"] or order == sorted(order)
    assert hooks.store.census().counters["sent"] == 3


def test_a_replayed_dead_letter_goes_first_again_where_there_is_an_order(hooks: Hooks) -> None:
    hooks.register("acme")
    hooks.put_many("m", 3, endpoint="acme", key="k1")
    taken = hooks.take()
    hooks.fail(taken, "m0", "dead", health="g", label="rejected:400")
    assert hooks.store.replay(["m0"]) == ["ready"]
    assert list(hooks.take().sizes) == ["m0"]


def test_a_new_address_keeps_the_order(hooks: Hooks) -> None:
    hooks.register("acme", ordered=True)
    hooks.queue("acme", 3)
    first = hooks.take()
    hooks.registry.put({"acme": Endpoint(url=URL + "/new", ordered=True)})
    assert not hooks.take().sizes
    hooks.succeed(first)
    assert list(hooks.take().sizes) == ["acme-0-1"]


def test_order_begins_when_what_was_out_of_order_is_done(hooks: Hooks) -> None:
    hooks.register("acme")
    hooks.queue("acme", 6)
    first = hooks.take(2)
    hooks.register("acme", ordered=True)
    assert not hooks.take().sizes
    one, two = first.sizes
    for message_id, then in ((one, 0), (two, 1)):
        hooks.begin(message_id, first.nonce)
        hooks.settle(message_id, first.nonce, "sent", label="sent:200")
        assert len(hooks.take().sizes) == then
    hooks.register("acme")
    for _ in range(3):  # a few lanes are looked after each time
        hooks.advance(1)
    assert len(hooks.take().sizes) == 3


def test_a_worker_that_dies_leaves_the_order_and_the_caps_whole(hooks: Hooks) -> None:
    hooks.register("acme", ordered=True)
    hooks.register("wide")
    hooks.put_many("m", 2, endpoint="acme")
    hooks.put_many("w", 8, endpoint="wide")
    taken = hooks.take()
    hooks.begin("m0", taken.nonce)
    hooks.reap(after_s=40)
    hooks.advance(60)
    again = hooks.take()
    assert "m0" in again.sizes
    assert "m1" not in again.sizes
    assert sum(i.startswith("w") for i in again.sizes) == 4


def test_a_message_deleted_by_hand_takes_no_place_for_ever(hooks: Hooks) -> None:
    hooks.register("acme", in_flight=1)
    hooks.put("a", endpoint="acme")
    hooks.put("b", endpoint="acme")
    taken = hooks.take()
    assert list(taken.sizes) == ["a"]
    hooks.client.delete("{d}:m:a")
    hooks.reap(after_s=40)
    hooks.advance(1)
    assert list(hooks.take().sizes) == ["b"]
    hooks.client.hincrby("{d}:n", "dropped", 1)  # the books, by the same hand


# -- the registry ---------------------------------------------------------------------------


def test_the_registry_says_what_it_did(hooks: Hooks) -> None:
    one = Endpoint(url=URL)
    assert hooks.registry.put({"a": one, "b": one}) == ["new", "new"]
    assert hooks.registry.put({"a": one, "b": Endpoint(url=URL, in_flight=2)}) == [
        "same",
        "changed",
    ]
    hooks.queue("a", 1)
    assert hooks.registry.remove(["a", "b", "c"]) == ["waits", "removed", "unknown"]
    assert [it.name for it in hooks.registry.all()] == ["a"]
    assert hooks.registry.remove(["a"], force=True) == ["removed"]
    assert not hooks.take().sizes
    hooks.register("a")
    assert hooks.serve() == {"a": 1}, "registered again, what waited is sent"


def test_what_has_left_keeps_no_endpoint_from_being_removed(hooks: Hooks) -> None:
    hooks.register("acme", "late")
    hooks.queue("acme", 2)
    hooks.queue("late", 2)
    hooks.registry.disable(["acme", "late"], "moved", "ops")
    assert not hooks.take().sizes
    assert hooks.registry.remove(["acme"]) == ["waits"]
    assert set(hooks.store.cancel(["acme-0-0", "acme-0-1"])) == {"cancelled"}
    assert hooks.registry.remove(["acme"]) == ["removed"]
    # Opened again by whoever looks after lanes, it waits in one place and is sent from another.
    hooks.client.sadd("{d}:ef:late", "1:late")
    hooks.registry.enable(["late"], "ops")
    hooks.client.sadd("{d}:ef:late", "1:late")
    assert hooks.serve() == {"late": 2}
    assert hooks.registry.remove(["late"]) == ["removed"]
    assert not list(hooks.client.scan_iter("{d}:ef:*"))


def test_more_in_flight_holds_at_once(hooks: Hooks) -> None:
    hooks.register("acme", in_flight=1)
    hooks.queue("acme", 9)
    assert len(hooks.take().sizes) == 1
    assert not hooks.take().sizes
    hooks.register("acme", in_flight=6)
    assert len(hooks.take().sizes) == 5


def test_tenants_become_endpoints_and_wait_until_they_are_registered(
    redis_client: redis.Redis,
) -> None:
    post = Post(redis_client)
    post.put("a", tenant="acme")
    post.store.publish_config("other", {}, post.numbers | {"endpoints": ALL}, force=True)
    registry = EndpointRegistry(post.store)
    registry.put({"acme": Endpoint(url=URL)})
    for _ in range(3):
        post.now += SECOND
        post.store.promote(100)
    assert list(post.take().sizes) == ["a"]


def test_what_ends_while_there_are_no_endpoints_takes_no_place_for_ever(hooks: Hooks) -> None:
    hooks.register("acme", "other")
    hooks.queue("acme", 6)
    hooks.queue("other", 1)
    taken = hooks.take()
    assert len(taken.sizes) == 5
    hooks.store.publish_config("none", {}, hooks.numbers | {"endpoints": ""}, force=True)
    for message_id in taken.sizes:
        if message_id.startswith("acme"):
            hooks.begin(message_id, taken.nonce)
            hooks.settle(message_id, taken.nonce, "sent")
    hooks.store.publish_config("again", {}, hooks.numbers, force=True)
    assert [hooks.seen(name).leased for name in ("acme", "other")] == [0, 1]
    assert len(hooks.take().sizes) == 2


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_stranded_whatever_happens(redis_client: redis.Redis, seed: int) -> None:
    """Random transitions; then all is well, and every message must come to its end."""
    rand = random.Random(seed)
    hooks = Hooks(redis_client)
    names = [f"e{n}" for n in range(6)]
    for n, name in enumerate(names):
        hooks.register(name, ordered=n == 0, in_flight=1 + n % 3, rate=5.0 if n == 1 else None)
    held: list[tuple[str, str]] = []
    for _ in range(300):
        what = rand.random()
        name = rand.choice(names)
        if what < 0.3 and hooks.seen(name).state != "disabled":
            key = rand.choice([None, None, "k1", "k2"])
            hooks.queue(
                name, rand.randint(1, 4), key, priority=rand.choice(["high", "normal", "bulk"])
            )
        elif what < 0.5:
            taken = hooks.store.take("ann", f"n-{next(hooks._names):014d}", 5, "any")
            held += [(i, taken.nonce) for i in taken.sizes]
        elif what < 0.8 and held:
            message_id, nonce = held.pop(rand.randrange(len(held)))
            hooks.begin(message_id, nonce)
            action: Any = rand.choice(["sent", "sent", "retry", "back", "throttled", "dead"])
            health = {"sent": "g", "retry": "o", "dead": "g"}.get(action, "")
            label = "rejected:410" if action == "dead" and rand.random() < 0.2 else "x:1"
            delay = rand.choice([0.0, 1.0, 20.0])
            hooks.settle(message_id, nonce, action, health=health, label=label, delay_s=delay)
        elif what < 0.85:
            hooks.registry.enable([name], "ops")
        elif what < 0.88:
            hooks.registry.put({name: Endpoint(url=URL, ordered=rand.random() < 0.5)})
        elif what < 0.9:
            held.clear()
            hooks.reap(after_s=40)
        else:
            hooks.advance(rand.choice([0.1, 1.0, 15.0]))
    hooks.reap(after_s=40)
    for _ in range(200):
        hooks.registry.enable(names, "ops")
        hooks.advance(10)
        hooks.serve(50)
    census = hooks.store.census()
    assert census.sound
    assert (census.sizes["ready"], census.sizes["scheduled"], census.sizes["leased"]) == (0, 0, 0)
    assert not redis_client.exists("{d}:eo", "{d}:el:0", "{d}:el:1", "{d}:el:2")
