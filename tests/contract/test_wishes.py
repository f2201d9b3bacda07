"""paceline_cancel by a user who may not cancel: it leaves a wish, which promote carries out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import redis

from contract.test_merged import R1, merged, merging
from contract.test_transitions import Post
from paceline.outbox import OutboxStore
from paceline.rights import acl_lines


@pytest.fixture
def post(redis_client: redis.Redis) -> Iterator[Post]:
    with merging(redis_client) as it:
        yield it


@pytest.fixture
def app(post: Post) -> Iterator[OutboxStore]:
    """The same destination, as a user of the role "app" reaches it."""
    [_, line] = acl_lines([("shop", "app")], ["d"], {})
    rules = re.findall(r"\([^)]*\)|\S+", line.removeprefix("user "))
    post.client.execute_command("ACL", "SETUSER", *rules, "on", "nopass")
    port = post.client.connection_pool.connection_kwargs["port"]
    with redis.Redis.from_url(f"redis://shop:x@127.0.0.1:{port}") as client:
        yield OutboxStore(client, "d", now_us=lambda: post.now)
    post.client.execute_command("ACL", "DELUSER", "shop")


def test_a_wish_is_carried_out_by_the_next_promote(post: Post, app: OutboxStore) -> None:
    post.put_many("m", 3)
    assert [app.ask_to_cancel("m1") for _ in range(2)] == ["asked", "asked"]
    assert post.store.wait_for_work(1)
    assert post.store.promote() == (0, None)
    assert [app.ask_to_cancel("m1") for _ in range(2)] == ["already", "already"]
    assert post.waiting() == ["m0", "m2"]
    assert app.ask_to_cancel("nobody") == "unknown"
    assert post.client.exists("{d}:cx") == 0


def test_a_wish_that_comes_too_late_changes_nothing(post: Post, app: OutboxStore) -> None:
    post.put_many("m", 3)
    taken = post.take()
    words = [app.ask_to_cancel(f"m{n}") for n in range(3)]
    assert words == ["asked"] * 3
    post.settle("m0", taken.nonce, "sent")
    post.settle("m1", taken.nonce, "dead")
    post.settle("m2", taken.nonce, "parked")
    post.store.promote()
    assert [app.ask_to_cancel(f"m{n}") for n in range(3)] == ["ended", "dead", "parked"]
    assert [post.state(f"m{n}") for n in range(3)] == ["sent", "dead", "parked"]


def test_of_a_request_that_began_a_member_is_flagged(post: Post, app: OutboxStore) -> None:
    request = merged(post)
    post.begin(request, R1)
    assert app.ask_to_cancel("m2") == "asked"
    post.store.promote()
    assert app.ask_to_cancel("m2") == "begun"
    post.settle(request, R1, "split")
    assert app.ask_to_cancel("m2") == "already"


def test_many_wishes_are_carried_out_in_pieces_without_a_rest(post: Post) -> None:
    post.put_many("m", 5)
    post.client.zadd("{d}:cx", {f"m{n}": n for n in range(5)})
    assert post.store.promote(3) == (0, 0.0)
    assert post.waiting() == ["m3", "m4"]
    assert post.store.promote(3) == (0, None)
    assert post.waiting() == []


def test_what_no_app_may_wish_for_is_forgotten(post: Post) -> None:
    request = merged(post)
    post.client.zadd("{d}:cx", {request: 0, b"\xff": 1, b"": 2, b"x" * 500: 3})
    post.store.promote()
    assert post.client.exists("{d}:cx") == 0
    assert {post.state(f"m{n}") for n in range(5)} == {"leased"}


def test_a_full_redis_lets_cancel(post: Post, app: OutboxStore) -> None:
    post.put_many("m", 3)
    post.client.config_set("maxmemory", "1")
    try:
        assert post.store.ask_to_cancel("m0") == "cancelled"
        assert app.ask_to_cancel("m1") == "asked"
        post.store.promote()
        assert app.ask_to_cancel("m1") == "already"
        post.client.function_flush()
        assert post.store.ask_to_cancel("m2") == "cancelled", "without functions"
    finally:
        post.client.config_set("maxmemory", "0")
