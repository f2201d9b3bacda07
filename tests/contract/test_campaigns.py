"""Campaigns: paused to the last moment, resumed to their places, cancelled, counted. Real Redis, an
injected clock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from contract.test_endpoints import Hooks
from contract.test_merged import freeze
from contract.test_move import Pair
from contract.test_transitions import Post
from paceline import campaign_desk as desk
from paceline.audit import DeepAudit
from paceline.campaigns import STATES, Campaign
from paceline.message import Message
from support.model import SECOND


@pytest.fixture
def post(redis_client: redis.Redis) -> Iterator[Post]:
    """A roomy destination; its books and its campaigns' must balance at the end."""
    the_post = Post(redis_client, max_tries=3)
    yield the_post
    assert_sound(the_post)


@pytest.fixture
def merging(redis_client: redis.Redis) -> Iterator[Post]:
    """The same, where many messages go in one request."""
    the_post = Post(redis_client, merge_most=100, merge_ambiguous="retry", max_tries=3)
    yield the_post
    assert_sound(the_post)


def assert_sound(post: Post) -> None:
    assert post.sound()
    findings = DeepAudit(post.store, rest=lambda _: None).run()
    assert findings.sound, findings.faults
    for known in desk.listed(post.store):
        n = known.totals
        ended = sum(n[t] for t in ("sent", "expired", "cancelled", "dropped", "moved_out"))
        assert n["accepted"] + n["moved_in"] == ended + known.live


def put(
    post: Post, count: int, campaign: str | None = "spring", prefix: str = "m", **about: Any
) -> None:
    post.put_many(prefix, count, campaign=campaign, **about)


def pause(post: Post, campaign: str = "spring") -> bool:
    return desk.pause(post.store, campaign, why="wrong subject", who="eve")


def resume(post: Post, campaign: str = "spring") -> bool:
    return desk.resume(post.store, campaign, who="eve")


def look(post: Post, campaign: str = "spring") -> Campaign:
    return desk.look(post.store, campaign)


def states(post: Post, campaign: str = "spring") -> dict[str, int]:
    return {name: n for name, n in look(post, campaign).states.items() if n}


# -- pause ----------------------------------------------------------------------------------------


def test_what_is_paused_keeps_its_place_and_others_go_on(post: Post) -> None:
    put(post, 2)
    put(post, 2, "autumn", prefix="a")
    put(post, 2, prefix="n")
    assert pause(post)
    assert post.waiting() == ["a0", "a1"]
    assert states(post) == {"paused": 4}
    put(post, 1, None, prefix="z")
    assert resume(post)
    assert post.waiting() == ["m0", "m1", "a0", "a1", "n0", "n1", "z0"]


def test_what_a_worker_holds_does_not_begin(post: Post) -> None:
    put(post, 3)
    taken = post.take()
    assert post.begin("m0", taken.nonce) == "go"
    pause(post)
    assert states(post) == {"leased": 3}
    assert [post.begin(f"m{n}", taken.nonce) for n in (1, 2)] == ["paused", "paused"]
    assert post.settle("m0", taken.nonce, "sent") == "ok"
    assert states(post) == {"paused": 2}
    assert post.store.census().counters["permits"] == 1


def test_what_was_drawn_for_but_not_written_waits_too(post: Post) -> None:
    put(post, 1)
    taken = post.take()
    assert post.begin("m0", taken.nonce) == "go"
    pause(post)
    assert post.begin("m0", taken.nonce) == "paused"


def test_what_comes_in_or_back_while_it_is_paused_waits(post: Post) -> None:
    put(post, 3)
    taken = post.take()
    pause(post)
    post.put("new", campaign="spring")
    post.put("later", campaign="spring", not_before=post.now / 1e6 + 50)
    assert post.settle("m0", taken.nonce, "back") == "ok"
    assert post.settle("m1", taken.nonce, "retry", delay_s=1.0) == "ok"
    post.reap(12)
    assert states(post) == {"paused": 4, "scheduled": 1}
    assert post.store.promote() == (1, None)
    assert states(post) == {"paused": 5}
    assert not post.waiting()


def test_resumed_ones_are_due_when_they_were(post: Post) -> None:
    post.put("later", campaign="spring", not_before=post.now / 1e6 + 50)
    post.put("soon", campaign="spring", not_before=post.now / 1e6 + 5)
    pause(post)
    assert (post.store.census().sizes["next_due_us"], post.store.promote()) == (-1, (0, None))
    post.now += 10 * SECOND
    assert not post.store.promote()[0]
    resume(post)
    assert post.waiting() == ["soon"]
    assert post.store.promote() == (0, 40.0)


def test_an_expiry_acts_while_paused(post: Post) -> None:
    post.put("m", campaign="spring", expires=post.now / 1e6 + 5)
    pause(post)
    post.now += 6 * SECOND
    assert post.store.expire() == 1
    assert look(post).totals["expired"] == 1


def test_paused_is_not_pressing(post: Post) -> None:
    put(post, 4)
    post.put("other")
    pause(post)
    census = post.store.census()
    assert (census.unfinished, census.held_back, census.to_send) == (5, 4, 1)
    found = look(post)
    assert (found.soonest_s, found.latest_s) == (None, None)
    assert found.pause is not None
    assert (found.pause.who, found.pause.why) == ("eve", "wrong subject")


def test_pausing_and_resuming_again_changes_nothing(post: Post) -> None:
    put(post, 2)
    assert [pause(post), pause(post)] == [True, False]
    assert [resume(post), resume(post)] == [True, False]
    assert post.waiting() == ["m0", "m1"]


def test_the_scheduler_does_the_rest_where_the_operator_is_gone(post: Post) -> None:
    put(post, 1200)
    post.store.pause_campaign("spring")
    post.store.walk_campaigns(500)
    assert 0 < states(post)["ready"] < 1200
    assert look(post).under_way
    while post.store.promote()[1] is not None:
        pass
    assert states(post) == {"paused": 1200}
    post.store.resume_campaign("spring")
    while look(post).under_way:
        post.store.promote()
    assert post.waiting() == [f"m{n}" for n in range(1200)]


def test_replayed_ones_wait_with_their_campaign(post: Post) -> None:
    put(post, 1)
    taken = post.take()
    post.begin("m0", taken.nonce)
    post.settle("m0", taken.nonce, "dead")
    pause(post)
    assert states(post) == {"dead": 1}
    assert post.store.replay(["m0"]) == ["ready"]
    assert states(post) == {"paused": 1}


# -- cancel ---------------------------------------------------------------------------------------


def test_cancel_leaves_what_may_be_on_the_wire_and_other_campaigns(post: Post) -> None:
    put(post, 600)
    put(post, 2, "autumn", prefix="a")
    taken = post.take(3)
    post.begin("m0", taken.nonce)
    post.begin("m1", taken.nonce)
    post.settle("m1", taken.nonce, "dead")
    assert desk.cancel(post.store, "spring") == {
        "cancelled": 598, "begun": 1, "dead": 1, "parked": 0,
    }  # fmt: skip
    assert post.waiting() == ["a0", "a1"]
    assert post.settle("m0", taken.nonce, "retry", delay_s=1.0) == "ok"
    assert look(post).totals["cancelled"] == 599


def test_an_id_that_is_of_another_campaign_by_now_is_left_alone(post: Post) -> None:
    post.put("m", campaign="spring")
    post.client.sadd("{d}:c:autumn", "m", "nobody")
    assert desk.cancel(post.store, "autumn")["cancelled"] == 0
    assert not post.client.exists("{d}:c:autumn")
    assert post.waiting() == ["m"]


def test_paused_ones_can_be_cancelled_and_purged(post: Post) -> None:
    put(post, 3)
    pause(post)
    assert post.store.cancel(["m0"]) == ["cancelled"]
    assert post.store.purge() == 2
    assert look(post).live == 0


# -- count ----------------------------------------------------------------------------------------


def test_counts_agree_with_the_truth_whatever_happens(post: Post) -> None:
    """Some hundred random steps; the truth is read message by message."""
    rng, names = random.Random(6), ["spring", "autumn"]
    held: list[tuple[str, str]] = []
    campaign_of: dict[str, str] = {}
    for step in range(250):
        what = rng.randrange(9)
        name = rng.choice(names)
        if what < 2:
            for n in range(rng.randrange(5)):
                message_id = f"m{step}-{n}"
                later = post.now / 1e6 + rng.choice([1, 5, 60])
                about = {"not_before": later} if rng.random() < 0.3 else {}
                post.put(message_id, campaign=name, priority=rng.choice(["high", "bulk"]), **about)
                campaign_of[message_id] = name
        elif what == 2:
            rng.choice([pause, resume])(post, name)
        elif what == 3:
            taken = post.take(4)
            held += [(i, taken.nonce) for i in taken.sizes]
        elif what < 7 and held:
            one = held.pop(rng.randrange(len(held)))
            paused = look(post, campaign_of[one[0]]).pause is not None
            assert post.begin(*one) == ("paused" if paused else "go")
            action = rng.choice(["sent", "retry", "dead", "parked", "back"])
            assert paused or post.settle(*one, action, delay_s=2.0) == "ok"
        elif what == 7:
            post.now += SECOND
            post.store.promote()
        else:
            post.store.replay(rng.sample(sorted(campaign_of), min(5, len(campaign_of))))
        post.store.slots("beat", "ann", 0)
    for name in names:
        ids = [i for i, its in campaign_of.items() if its == name]
        truth = [seen[0].state for seen in post.store.look(ids) if seen is not None]
        found = look(post, name)
        both = found.states["scheduled"] + found.states["paused"]
        assert both == truth.count("scheduled")
        for state in ("ready", "dead", "parked"):
            assert found.states[state] == truth.count(state)
        assert found.states["leased"] == truth.count("leased") + truth.count("begun")
        assert found.totals["sent"] == truth.count("sent") > 0
        assert found.totals["accepted"] == len(ids)
        if found.pause:
            assert found.states["ready"] == 0


def test_an_ended_campaign_is_told_of_for_as_long_as_records_are(post: Post) -> None:
    put(post, 1)
    taken = post.take()
    post.begin("m0", taken.nonce)
    post.settle("m0", taken.nonce, "sent")
    post.now += 86_399 * SECOND
    post.store.sweep()
    assert [(it.name, it.live, it.totals["sent"]) for it in desk.listed(post.store)] == [
        ("spring", 0, 1)
    ]
    post.now += SECOND
    post.store.sweep()
    assert not desk.listed(post.store)
    assert not look(post).known
    assert not [name for name in post.client.keys("{d}:c*") if name != b"{d}:cfg"]


def test_when_it_will_be_done(post: Post) -> None:
    """rate 1000/s: alone its 200 take 0.2 s; 500 of the same priority and 100 high ones go
    first."""
    post.reap()
    put(post, 500, None, prefix="o")
    put(post, 200)
    put(post, 700, None, prefix="late")
    put(post, 100, None, prefix="h", priority="high")
    found = look(post)
    assert (found.soonest_s, found.latest_s) == (pytest.approx(0.2), pytest.approx(0.8))
    put(post, 1, None, prefix="x", tenant="acme")  # it may take turns with all 1,400
    assert look(post).latest_s == pytest.approx(1.501)
    put(post, 1, None, prefix="b", priority="bulk")  # of ten places in a batch one is its
    assert look(post).latest_s == pytest.approx(1.501 / 0.9)
    post.put("due", campaign="spring", not_before=post.now / 1e6 + 30)
    assert (look(post).soonest_s, look(post).latest_s) == (pytest.approx(30), pytest.approx(30))
    post.store.hold("pause", for_s=60)
    assert look(post).soonest_s == pytest.approx(60.201)
    post.store.hold("pause")
    assert (look(post).soonest_s, look(post).latest_s) == (None, None)
    assert look(post, "none").soonest_s == 0.0


# -- merged, moved --------------------------------------------------------------------------------


def test_a_request_that_never_began_is_taken_apart_and_waits(merging: Post) -> None:
    put(merging, 5)
    taken = merging.take()
    freeze_spring(merging, taken)
    pause(merging)
    assert states(merging) == {"leased": 5}
    assert merging.begin("+" + REQUEST, REQUEST) == "paused"
    assert states(merging) == {"paused": 5}
    resume(merging)
    assert merging.waiting() == [f"m{n}" for n in range(5)]


def test_a_request_that_has_begun_goes_on(merging: Post) -> None:
    put(merging, 5)
    freeze_spring(merging, merging.take())
    merging.begin("+" + REQUEST, REQUEST)
    pause(merging)
    merging.settle("+" + REQUEST, REQUEST, "retry", delay_s=1.0)
    assert states(merging) == {"scheduled": 5}
    merging.now += 2 * SECOND
    merging.store.promote()
    assert states(merging) == {"ready": 5}
    taken = merging.take()
    assert merging.begin("+" + REQUEST, taken.nonce) == "go"
    merging.settle("+" + REQUEST, taken.nonce, "sent")
    assert (look(merging).live, look(merging).totals["sent"]) == (0, 5)


def test_members_that_are_taken_unread_are_counted_as_leased_and_cancelled(merging: Post) -> None:
    put(merging, 4)
    taken = merging.take(2)
    assert states(merging) == {"ready": 2, "leased": 2}
    freeze_spring(merging, taken)
    assert desk.cancel(merging.store, "spring")["cancelled"] == 4


REQUEST = "request-00000001"


def freeze_spring(post: Post, taken: Any) -> None:
    freeze(post, taken, REQUEST, campaign="spring")


def test_a_moved_message_is_counted_there(redis_client: redis.Redis) -> None:
    pair = Pair(redis_client)
    pair.put("m", "n", campaign="spring")
    desk.pause(pair.b, "spring", why="", who="")
    assert pair.flow() == (2, "idle")
    there, here = desk.look(pair.b, "spring"), desk.look(pair.a, "spring")
    assert (here.live, here.totals["moved_out"]) == (0, 2)
    assert (there.states["paused"], there.totals["moved_in"]) == (2, 2)
    for store in (pair.a, pair.b):
        assert DeepAudit(store, rest=lambda _: None).run().sound


def test_a_paused_message_steps_out_of_the_order_of_its_key(redis_client: redis.Redis) -> None:
    """The others of its key go on; resumed, it is before what came after it."""
    hooks = Hooks(redis_client)
    hooks.register("acme")
    for n, campaign in enumerate(["spring", "spring", None, None]):
        hooks.put(f"m{n}", endpoint="acme", key="k", campaign=campaign)
    taken = hooks.take()
    assert list(taken.sizes) == ["m0"]
    pause(hooks)
    assert hooks.begin("m0", taken.nonce) == "paused"
    taken = hooks.take()
    assert list(taken.sizes) == ["m2"]
    hooks.succeed(taken)
    resume(hooks)
    for expected in ("m0", "m1", "m3"):
        taken = hooks.take()
        assert list(taken.sizes) == [expected]
        hooks.succeed(taken)
    assert_sound(hooks)
    assert not redis_client.exists("{d}:eo")


def test_what_is_retried_in_order_waits_with_its_campaign(redis_client: redis.Redis) -> None:
    hooks = Hooks(redis_client)
    hooks.register("acme")
    hooks.put("m0", endpoint="acme", key="k", campaign="spring")
    taken = hooks.take()
    hooks.begin("m0", taken.nonce)
    pause(hooks)
    assert hooks.settle("m0", taken.nonce, "retry", delay_s=5.0) == "ok"
    hooks.advance(6)
    assert states(hooks) == {"paused": 1}
    resume(hooks)
    assert list(hooks.take().sizes) == ["m0"]
    assert_sound(hooks)


def test_audit_tells_of_an_index_that_is_wrong(post: Post) -> None:
    put(post, 2)
    post.client.srem("{d}:c:spring", "m0")
    post.client.sadd("{d}:c:spring", "nobody")
    faults = DeepAudit(post.store, rest=lambda _: None).run().faults
    assert {(it.kind, it.subject) for it in faults} == {("campaign", "m0"), ("campaign", "nobody")}
    post.client.sadd("{d}:c:spring", "m0")
    post.client.srem("{d}:c:spring", "nobody")


def test_a_refused_message_leaves_no_campaign_behind(post: Post) -> None:
    [answer] = post.store.enqueue_many(
        [Message(id="m", destination="d", payload=b"x" * 20_000, campaign="spring")]
    )
    assert not isinstance(answer, str)
    assert not look(post).known
    assert not post.client.exists("{d}:c:spring", "{d}:cn:spring", "{d}:cs")
    assert set(look(post).states) == set(STATES)
