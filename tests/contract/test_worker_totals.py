"""Workers' running totals become the destination's, each event once, whatever happens between."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import redis

from contract.test_transitions import Post
from paceline_workers.totals import Totals


class Teller:
    """One worker process with its totals."""

    def __init__(self, post: Post, name: str = "bob") -> None:
        self._post, self._name = post, name
        self.now: dict[str, int] = {}
        self._totals = Totals(lambda: self.now)

    def beat(self, *, heard: bool = True, op: str = "beat", **more: int) -> None:
        """``heard`` False: Redis did it, and its answer was lost."""
        for name, count in more.items():
            self.now[name] = self.now.get(name, 0) + count
        claim = self._totals.claim()
        self._post.store.slots(op, self._name, 0, {"totals": claim})  # type: ignore[arg-type]
        if heard:
            self._totals.accepted(claim)


@pytest.fixture
def post(redis_client: redis.Redis) -> Post:
    return Post(redis_client)


def totals(post: Post) -> Mapping[str, int]:
    counters = post.store.census().counters
    return {n.removeprefix("net:"): v for n, v in counters.items() if n.startswith("net:")}


def test_each_event_counts_once(post: Post) -> None:
    bob = Teller(post)
    bob.beat(opened=3)
    bob.beat()
    bob.beat(opened=2, reused=7)
    assert totals(post) == {"opened": 5, "reused": 7}


def test_a_beat_whose_answer_was_lost_counts_once(post: Post) -> None:
    bob = Teller(post)
    bob.beat(opened=3, heard=False)
    bob.beat(opened=1, heard=False)
    bob.beat(opened=1)
    assert totals(post) == {"opened": 5}


def test_workers_add_up_and_their_end_takes_nothing_away(post: Post) -> None:
    bob, cid = Teller(post), Teller(post, "cid")
    bob.beat(opened=3)
    cid.beat(opened=4)
    bob.beat(op="leave", opened=1)
    post.store.slots("bury", "cid")
    assert totals(post) == {"opened": 8}
    assert [w.id for w in post.store.census().workers] == ["ann"]


def test_one_that_comes_back_from_its_grave_is_not_counted_again(post: Post) -> None:
    bob = Teller(post)
    bob.beat(opened=3)
    post.store.slots("bury", "bob")
    bob.beat(opened=1)
    assert totals(post) == {"opened": 4}


def test_a_new_process_of_the_same_name_begins_at_nothing(post: Post) -> None:
    Teller(post).beat(opened=30)
    Teller(post).beat(opened=2)
    assert totals(post) == {"opened": 32}


def test_a_redis_that_came_back_empty_is_told_what_it_missed_and_no_more(post: Post) -> None:
    bob = Teller(post)
    bob.beat(opened=30)
    post.client.flushall()
    post.store.publish_config("digest", {}, post.numbers)
    bob.beat(opened=2)
    assert totals(post) == {"opened": 2}


def test_a_worker_cannot_touch_the_laws_terms(post: Post) -> None:
    Teller(post).beat(accepted=5, sent=5)
    census = post.store.census()
    assert census.sound
    assert census.counters.get("accepted", 0) == 0
    assert totals(post) == {"accepted": 5, "sent": 5}


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"totals": None},
        {"totals": {}},
        {"totals": {"now": [1]}},
        {"totals": {"now": {"opened": "x"}, "counted": 5}},
    ],
)
def test_facts_of_another_version_are_no_trouble(post: Post, facts: dict[str, object]) -> None:
    post.store.slots("beat", "bob", 0, facts)
    post.store.slots("beat", "bob", 0, {"totals": {"process": "p", "now": {"opened": 1}}})
    assert totals(post)["opened"] == 1
