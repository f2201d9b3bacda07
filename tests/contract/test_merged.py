"""Many messages in one request: frozen, begun and settled as one, and never lost or sent in two.
Real Redis, an injected clock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import redis

from contract.test_transitions import Post
from paceline.answers import Taken
from paceline.audit import DeepAudit
from paceline.leases import leased_of
from paceline.merged import Member
from paceline.records import Ended, Live, decode
from support.model import SECOND

SHA = hashlib.sha1(b"[]").digest()
R1, R2 = "request-00000001", "request-00000002"


@contextmanager
def merging(client: redis.Redis) -> Iterator[Post]:
    """A destination that merges; its books must balance at the end, to the last message."""
    the_post = Post(client, merge_most=100, merge_ambiguous="retry", max_tries=3)
    yield the_post
    assert the_post.sound()
    findings = DeepAudit(the_post.store, rest=lambda _: None).run()
    assert findings.sound, findings.faults


@pytest.fixture
def post(redis_client: redis.Redis) -> Iterator[Post]:
    with merging(redis_client) as it:
        yield it


def freeze(
    post: Post,
    taken: Taken,
    request: str = R1,
    ids: Sequence[str] | None = None,
    campaign: str = "",
) -> None:
    chosen = list(taken.sizes) if ids is None else ids
    assert try_freeze(post, taken, request, chosen, campaign=campaign) is None


def try_freeze(
    post: Post,
    taken: Taken,
    request: str,
    ids: Sequence[str],
    size: int | None = None,
    campaign: str = "",
) -> set[str] | None:
    values = {i: v for piece in post.store.fetch_values(taken) for i, v in piece}
    members = [member(i, taken.nonce, values[i] or b"") for i in ids]
    first = decode(values[ids[0]] or b"")
    assert isinstance(first, Live)
    return post.store.freeze(
        "ann", request, b"BODY-" + request.encode(), members,
        priority=first.priority, tenant=first.tenant, campaign=campaign,
        batches={taken.nonce: len(taken.sizes) if size is None else size},
    )  # fmt: skip


def member(message_id: str, nonce: str, value: bytes) -> Member:
    return Member(message_id, nonce, value[:60], SHA, len(b"[]"))


def held_members(post: Post, request: str = R1) -> list[Member]:
    ids = post.store.members(request)
    values = post.client.mget([f"{{d}}:m:{i}" for i in ids])
    return [member(i, request, value) for i, value in zip(ids, values, strict=True)]


def merged(post: Post, count: int = 5, **about: object) -> str:
    """The name of a request of so many new messages m0, m1, …"""
    post.put_many("m", count, **about)
    freeze(post, post.take(count))
    return "+" + R1


def take_again(post: Post, count: int = 5) -> Taken:
    """What was scheduled is due, and the worker lives."""
    post.now += 2 * SECOND
    post.store.promote()
    post.store.slots("beat", "ann", 0)
    return post.take(count)


def law(post: Post) -> dict[str, int]:
    return {term: n for term, n in post.store.census().law.items() if n}


def tell(post: Post, message_id: str) -> Live | Ended:
    [seen] = post.store.look([message_id])
    assert seen is not None
    assert seen[2], f"{message_id} is nowhere"
    return seen[0]


def test_members_are_begun_and_sent_as_one(post: Post) -> None:
    request = merged(post)
    assert {post.state(f"m{n}") for n in range(5)} == {"leased"}
    assert post.begin(request, R1) == "go"
    assert {post.state(f"m{n}") for n in range(5)} == {"begun"}
    assert post.settle(request, R1, "sent", provider_id="1166") == "ok"
    found = [tell(post, f"m{n}") for n in range(5)]
    assert all(isinstance(one, Ended) and one.state == "sent" for one in found)
    assert {one.provider_id for one in found if isinstance(one, Ended)} == {"1166"}
    assert law(post) == {"accepted": 5, "sent": 5}
    census = post.store.census()
    assert census.counters["permits"] == 1
    assert census.counters["bytes"] == 0
    assert sum(v for k, v in census.histogram.items() if k[:5] == "sent:" and k[5].isdigit()) == 5


def test_a_sent_message_of_a_request_is_known_again(post: Post) -> None:
    request = merged(post, 2)
    post.begin(request, R1)
    post.settle(request, R1, "sent")
    assert post.store.enqueue(post.store_message("m0")) == "already"


def test_records_of_a_request_go_when_their_window_is_over(post: Post) -> None:
    request = merged(post, 3)
    post.begin(request, R1)
    post.settle(request, R1, "sent")
    post.now += (24 * 3600 - 1) * SECOND
    assert post.store.sweep() == 0
    assert tell(post, "m0").state == "sent"
    post.now += 2 * SECOND
    assert post.store.sweep() == 3
    assert post.store.look(["m0", "m1", "m2"]) == [None] * 3
    assert not post.client.keys("{d}:m:m*")
    assert not post.client.keys("{d}:qm:*")
    assert not post.client.exists("{d}:gone")


def test_a_duplicate_of_a_member_is_counted_once(post: Post) -> None:
    post.put("early")
    alone = post.take(1)
    post.begin("early", alone.nonce)
    post.reap(12)
    post.put_many("m", 1)
    freeze(post, take_again(post, 2))
    post.begin("+" + R1, R1)
    post.settle("+" + R1, R1, "sent")
    assert post.settle("early", alone.nonce, "sent") == "duplicate"
    assert post.settle("early", alone.nonce, "sent") == "repeat"
    assert post.store.census().counters["duplicates"] == 1


def test_it_is_settled_once_however_often_it_is_told(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    assert post.settle(request, R1, "sent") == "ok"
    assert post.settle(request, R1, "sent") == "repeat"
    assert law(post) == {"accepted": 5, "sent": 5}


def test_freezing_again_with_the_same_id_changes_nothing(post: Post) -> None:
    post.put_many("m", 3)
    taken = post.take(3)
    freeze(post, taken)
    freeze(post, taken)
    assert law(post) == {"accepted": 3, "leased": 3}


def test_what_is_not_this_workers_any_more_stops_the_freeze_and_is_named(post: Post) -> None:
    post.put_many("m", 3)
    taken = post.take(3)
    assert post.store.cancel(["m1"]) == ["cancelled"]
    assert try_freeze(post, taken, R1, ["m0", "m1", "m2"]) == {"m1"}
    assert post.store.members(R1) == []
    assert try_freeze(post, taken, R1, ["m0", "m2"]) is None
    assert post.store.members(R1) == ["m0", "m2"]


def test_a_whole_batch_that_has_lost_a_message_is_walked(post: Post) -> None:
    post.put_many("m", 3)
    taken = post.take(3)
    assert post.store.cancel(["m1"]) == ["cancelled"]
    assert try_freeze(post, taken, R1, ["m0", "m1", "m2"], size=3) == {"m1"}
    assert try_freeze(post, taken, R1, ["m0", "m2"], size=3) is None
    assert post.state("m0") == "leased"


def test_a_late_yes_for_one_that_goes_with_others_by_now_is_remembered(post: Post) -> None:
    post.put("early")
    alone = post.take(1)
    post.begin("early", alone.nonce)
    post.reap(12)
    post.put_many("m", 2)
    again = take_again(post, 3)
    freeze(post, again)
    post.begin("+" + R1, R1)
    assert post.settle("early", alone.nonce, "sent") == "late"
    assert post.settle("+" + R1, R1, "dead", charge=True) == "ok"
    assert law(post) == {"accepted": 3, "sent": 1, "dead": 2}
    assert post.store.census().counters["died"] == 2, "it is no dead letter, for it was sent"


def test_such_a_one_that_is_sent_with_the_others_is_a_duplicate(post: Post) -> None:
    post.put("early")
    alone = post.take(1)
    post.begin("early", alone.nonce)
    post.reap(12)
    post.put_many("m", 2)
    freeze(post, take_again(post, 3))
    post.begin("+" + R1, R1)
    assert post.settle("early", alone.nonce, "sent") == "late"
    assert post.settle("+" + R1, R1, "sent") == "ok"
    assert law(post) == {"accepted": 3, "sent": 3}
    assert post.store.census().counters["duplicates"] == 1


def test_a_late_yes_takes_one_out_of_a_request_that_never_began(post: Post) -> None:
    post.put("early")
    alone = post.take(1)
    post.begin("early", alone.nonce)
    post.reap(12)
    post.put_many("m", 2)
    freeze(post, take_again(post, 3))
    assert post.settle("early", alone.nonce, "sent") == "won"
    assert law(post) == {"accepted": 3, "sent": 1, "ready": 2}


def test_members_of_several_batches_keep_the_order_of_the_body(post: Post) -> None:
    post.put_many("m", 4)
    first, second = post.take(2), post.take(2)
    heads = {
        i: v for t in (first, second) for piece in post.store.fetch_values(t) for i, v in piece
    }
    members = [
        member(i, taken.nonce, heads[i] or b"")
        for pair in zip(first.sizes, second.sizes, strict=True)
        for i, taken in zip(pair, (first, second), strict=True)
    ]
    assert post.store.freeze("ann", R1, b"BODY", members, priority="normal") is None
    assert post.store.members(R1) == ["m0", "m2", "m1", "m3"]
    assert post.settle("+" + R1, R1, "back") == "ok"


def test_one_that_was_refused_goes_again_whole_with_the_same_bytes(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    assert post.settle(request, R1, "retry", charge=True, delay_s=1.0) == "ok"
    assert law(post) == {"accepted": 5, "scheduled": 5}
    assert {post.state(f"m{n}") for n in range(5)} == {"scheduled"}
    post.now += 2 * SECOND
    assert post.store.promote()[0] == 1
    assert law(post) == {"accepted": 5, "ready": 5}
    again = post.take(5)
    [leased] = post.store.fetch(again)
    assert (leased.id, leased.request_id, leased.count) == (request, R1, 5)
    assert leased.payload == b"BODY-" + R1.encode()
    assert leased.head.tries == 1
    post.begin(request, again.nonce)
    assert post.settle(request, again.nonce, "sent") == "ok"
    assert law(post) == {"accepted": 5, "sent": 5}


def test_a_late_yes_wins_over_the_schedule(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    post.reap(12)
    assert {post.state(f"m{n}") for n in range(5)} == {"scheduled"}
    assert post.settle(request, R1, "sent") == "won"
    assert law(post) == {"accepted": 5, "sent": 5}
    assert post.store.census().counters["late_sent"] == 5


def test_two_yeses_are_a_duplicate_of_every_member(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    post.reap(12)
    again = take_again(post)
    post.begin(request, again.nonce)
    assert post.settle(request, again.nonce, "sent") == "ok"
    assert post.settle(request, R1, "sent") == "duplicate"
    assert post.settle(request, R1, "sent") == "repeat"
    assert post.store.census().counters["duplicates"] == 5
    assert law(post) == {"accepted": 5, "sent": 5}


def test_a_worker_that_dies_before_the_write_gives_every_member_back(post: Post) -> None:
    merged(post)
    post.reap(12)
    assert post.waiting() == [f"m{n}" for n in range(5)]
    assert post.store.members(R1) == []


def test_one_that_may_have_been_sent_stays_whole_when_its_next_worker_dies(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    post.settle(request, R1, "retry", delay_s=1.0)
    take_again(post)
    post.reap(12)
    assert post.waiting() == [request]


def test_given_back_unsent_the_members_are_merged_anew(post: Post) -> None:
    request = merged(post)
    assert post.settle(request, R1, "back") == "ok"
    assert post.waiting() == [f"m{n}" for n in range(5)]
    taken = post.take(5)
    freeze(post, taken, R2)
    assert post.begin(request, R1) == "fenced"
    assert post.begin("+" + R2, R2) == "go"
    assert post.settle("+" + R2, R2, "sent") == "ok"


def test_throttled_after_the_write_it_waits_whole_in_its_place(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    post.settle(request, R1, "throttled", delay_s=1.0)
    assert post.waiting() == [request]
    assert law(post) == {"accepted": 5, "ready": 5}
    assert post.state("m3") == "ready"


@pytest.mark.parametrize(("action", "state"), [("dead", "dead"), ("parked", "parked")])
def test_what_ends_on_a_shelf_stands_there_message_by_message(
    post: Post, action: str, state: str
) -> None:
    request = merged(post)
    post.begin(request, R1)
    record = {"outcome": "ambiguous", "reason": "why"}
    assert post.settle(request, R1, action, charge=True, record=record) == "ok"
    assert law(post) == {"accepted": 5, state: 5}
    assert post.state("m0") == state
    assert post.store.attempts("m0") == [record]
    assert post.store.drop(["m0"]) == ["dropped"]
    assert post.store.replay(["m1"]) == ["ready"]


def test_a_late_yes_brings_them_back_from_the_shelf(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    post.settle(request, R1, "parked")
    post.store.drop(["m0"])
    post.store.replay(["m1"])
    assert post.settle(request, R1, "sent") == "won"
    assert law(post) == {"accepted": 5, "sent": 4, "dropped": 1}


def test_a_late_yes_finds_a_member_that_waits_in_another_request(post: Post) -> None:
    request = merged(post, 2)
    post.begin(request, R1)
    post.settle(request, R1, "parked")
    post.store.replay(["m0", "m1"])
    freeze(post, post.take(2), R2)
    assert post.settle(request, R1, "sent") == "won"
    assert law(post) == {"accepted": 2, "sent": 2}
    assert post.begin("+" + R2, R2) == "fenced"


def test_without_a_key_what_may_have_been_sent_is_parked_when_its_worker_died(
    redis_client: redis.Redis,
) -> None:
    post = Post(redis_client, merge_most=100, merge_ambiguous="park")
    request = merged(post)
    post.begin(request, R1)
    post.reap(12)
    assert law(post) == {"accepted": 5, "parked": 5}
    assert post.store.attempts("m4")[-1]["reason"] == "lease-expired"


def test_one_that_kills_its_workers_ends_on_the_shelf_of_the_dead(post: Post) -> None:
    request = merged(post)
    nonce = R1
    for _ in range(4):
        post.begin(request, nonce)
        post.reap(12)
        nonce = take_again(post).nonce
    assert law(post) == {"accepted": 5, "dead": 5}


def test_cancelled_before_it_began_the_others_go_without_it(post: Post) -> None:
    request = merged(post)
    assert post.store.cancel(["m2"]) == ["cancelled"]
    assert post.begin(request, R1) == "fenced"
    assert post.waiting() == ["m0", "m1", "m3", "m4"]


def test_cancelled_after_it_began_it_stays_in_the_bytes_but_not_on_the_shelf(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    assert post.store.cancel(["m2"]) == ["begun"]
    post.settle(request, R1, "split")
    assert law(post) == {"accepted": 5, "cancelled": 1, "leased": 4}


def test_split_its_members_are_held_one_by_one_and_may_be_merged_again(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    assert post.settle(request, R1, "split") == "ok"
    held = [leased_of(i, R1, value) for i, value in post.store.fetch_members(R1, R1)]
    assert [(one.id, one.payload, one.head.attempts) for one in held if one] == [
        (f"m{n}", b"[]", 1) for n in range(5)
    ]
    again = held_members(post)
    assert post.store.freeze("ann", R2, b"A", again[:2], priority="normal") is None
    assert post.store.freeze("ann", "request-00000003", b"B", again[2:], priority="normal") is None
    for name in (R2, "request-00000003"):
        post.begin("+" + name, name)
        assert post.settle("+" + name, name, "sent") == "ok"
    assert law(post) == {"accepted": 5, "sent": 5}


def test_split_and_then_left_alone_all_go_back_uncharged(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    post.settle(request, R1, "split")
    post.reap(12)
    assert post.waiting() == [f"m{n}" for n in range(5)]
    found = tell(post, "m0")
    assert isinstance(found, Live)
    assert found.tries == 0


def test_opened_each_member_has_its_own_end(post: Post) -> None:
    request = merged(post, 3)
    post.begin(request, R1)
    assert post.settle(request, R1, "opened") == "ok"
    assert {post.state(f"m{n}") for n in range(3)} == {"begun"}
    assert post.settle("m0", R1, "sent", provider_id="a") == "ok"
    assert post.settle("m1", R1, "dead", charge=True) == "ok"
    post.reap(12)
    assert law(post) == {"accepted": 3, "sent": 1, "dead": 1, "scheduled": 1}


def test_an_expiry_before_the_write_takes_that_member_out(post: Post) -> None:
    post.put_many("m", 2)
    post.put("short", expires=post.now / 1e6 + 5)
    freeze(post, post.take(3))
    post.now += 6 * SECOND
    assert post.begin("+" + R1, R1) == "expired"
    assert post.waiting() == ["m0", "m1"]
    assert law(post) == {"accepted": 3, "expired": 1, "ready": 2}


def test_after_the_write_no_expiry_changes_the_bytes(post: Post) -> None:
    post.put_many("m", 2)
    post.put("short", expires=post.now / 1e6 + 5)
    freeze(post, post.take(3))
    assert post.begin("+" + R1, R1) == "go"
    post.now += 6 * SECOND
    assert post.store.expire() == 0
    assert post.settle("+" + R1, R1, "retry", delay_s=1) == "ok"
    again = take_again(post)
    assert list(again.sizes) == ["+" + R1]
    assert post.begin("+" + R1, again.nonce) == "go"
    assert post.settle("+" + R1, again.nonce, "sent") == "ok"


def test_a_whole_request_that_is_too_old_expires_with_all_members(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    post.settle(request, R1, "retry", delay_s=1)
    post.now += 3600 * SECOND
    assert post.begin(request, take_again(post).nonce) == "expired"
    assert law(post) == {"accepted": 5, "expired": 5}


def test_purged_while_scheduled_every_member_is_dropped(post: Post) -> None:
    request = merged(post)
    post.begin(request, R1)
    post.settle(request, R1, "retry", delay_s=60)
    assert post.store.purge() == 5
    assert law(post) == {"accepted": 5, "dropped": 5}


def test_a_request_keeps_priority_tenant_and_place(post: Post) -> None:
    post.put_many("m", 3, priority="bulk", tenant="acme")
    freeze(post, post.take(3))
    post.begin("+" + R1, R1)
    post.put_many("later", 3, priority="bulk", tenant="acme")
    post.settle("+" + R1, R1, "throttled", delay_s=0.001)
    post.now += SECOND
    assert post.waiting() == ["+" + R1, "later0", "later1", "later2"]
    [first, *_] = post.store.fetch(post.take(2))
    assert (first.head.priority, first.head.tenant, first.count) == ("bulk", "acme", 3)


def test_a_batch_is_as_many_as_fill_a_few_requests(post: Post) -> None:
    post.put_many("m", 1000)
    assert post.store.release("any", 10, 10.0, "i1").count == 400


def test_deep_audit_finds_a_request_that_lost_a_member(redis_client: redis.Redis) -> None:
    post = Post(redis_client, merge_most=100, merge_ambiguous="retry")
    merged(post, 3)
    redis_client.delete("{d}:m:m1")
    findings = DeepAudit(post.store, rest=lambda _: None).run()
    assert findings.counts["merged"] == 1
    assert "m1" in findings.faults[0].problem


def test_a_batch_counts_a_merged_request_as_full(post: Post) -> None:
    for n in range(3):
        post.put_many(f"m{n}-", 2)
        freeze(post, post.take(2), f"request-0000000{n}")
        post.begin(f"+request-0000000{n}", f"request-0000000{n}")
    for n in range(3):
        post.settle(f"+request-0000000{n}", f"request-0000000{n}", "retry", delay_s=1)
    post.put_many("later", 300)
    assert len(take_again(post, 250).sizes) == 3
    assert len(post.take(250).sizes) == 250
