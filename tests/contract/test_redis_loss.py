"""A Redis that comes back without its last moment: what was sent stays sent, and is explained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
import redis

from contract.test_transitions import Post
from paceline.answers import Settlement
from paceline_workers.recall import KEPT_MOST, KEPT_S, Recall

PAYLOAD = b'{"n":1}'
Moment = dict[bytes, bytes]


class Lossy(Post):
    """Worker "ann", who remembers what she told Redis; another, "bob", who does not matter."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.store.slots("beat", "bob", 0)
        self.recall = Recall(self.store, lambda: self.now / 1e6)
        self.recall.look("first")
        self.put("m", payload=PAYLOAD)

    def moment(self) -> Moment:
        """All keys, as an append-only file would have them."""
        return {key: self.client.dump(key) for key in self.client.scan_iter("{d}*")}

    def back_to(self, moment: Moment) -> None:
        self.client.delete(*self.client.keys("{d}*"))
        for key, value in moment.items():
            self.client.restore(key, 0, value)

    def told(self, nonce: str, action: str = "sent", label: str = "sent:200") -> str:
        """Begins and settles "m"; the worker hears the answer."""
        assert self.begin("m", nonce) == "go"
        settlement = Settlement(
            id="m", nonce=nonce, action=action, begun_us=self.now, label=label,  # type: ignore[arg-type]
            record={"outcome": label.split(":")[0], "nonce": nonce}, provider_id="p-1",
            sha1=hashlib.sha1(PAYLOAD).digest(), delay_s=2.0,
        )  # fmt: skip
        [word] = self.store.settle([settlement])
        self.recall.note([settlement], [word])
        return word

    def counter(self, name: str) -> int:
        return self.store.census().counters.get(name, 0)

    def causes(self) -> list[tuple[str, str | None]]:
        return [(a["outcome"], a.get("reason")) for a in self.store.attempts("m")]


@pytest.fixture
def post(redis_client: redis.Redis) -> Iterator[Lossy]:
    it = Lossy(redis_client)
    yield it
    assert it.sound()


def test_a_lost_outcome_is_told_again_and_nothing_is_sent_twice(post: Lossy) -> None:
    taken = post.take()
    before = post.moment()
    assert post.told(taken.nonce) == "ok"
    post.back_to(before)
    assert post.state("m") == "leased"
    post.recall.look("second")
    assert post.state("m") == "sent"
    assert (post.counter("sent"), post.counter("lost_outcomes")) == (1, 1)


def test_a_take_that_was_lost_too_is_overtaken_by_the_outcome(post: Lossy) -> None:
    before = post.moment()
    post.told(post.take().nonce)
    post.back_to(before)
    assert post.waiting() == ["m"]
    post.recall.look("second")
    assert (post.state("m"), post.waiting()) == ("sent", [])
    assert (post.counter("late_sent"), post.counter("lost_outcomes")) == (1, 1)


@pytest.mark.parametrize("first", ["ann", "bob"])
def test_what_was_sent_again_meanwhile_is_a_duplicate_by_redis_loss(
    post: Lossy, first: str
) -> None:
    before = post.moment()
    post.told(post.take().nonce)
    post.back_to(before)
    again = post.take(worker="bob")
    assert post.begin("m", again.nonce) == "go"
    if first == "ann":
        post.recall.look("second")
    assert post.settle("m", again.nonce, "sent") == ("duplicate" if first == "ann" else "ok")
    post.recall.look("second")
    post.recall.look("third")
    assert (post.counter("sent"), post.counter("duplicates")) == (1, 1)
    assert ("ambiguous", "redis-loss") in post.causes()
    assert post.counter("lost_outcomes") == 1


def test_a_message_lost_with_its_outcome_is_not_taken_anew(post: Lossy) -> None:
    post.client.delete("{d}:m:m", "{d}:r:1:", "{d}:t:1")
    post.client.hset("{d}:n", mapping={"accepted": 0, "bytes": 0})
    before = post.moment()
    post.put("m", payload=PAYLOAD)
    assert post.told(post.take().nonce) == "ok"
    post.back_to(before)
    post.recall.look("second")
    assert (post.state("m"), post.counter("lost_sent")) == ("sent", 1)
    assert post.store.enqueue(post.store_message("m", PAYLOAD)) == "already"
    post.recall.look("third")
    assert post.counter("lost_sent") == 1


def test_a_first_attempt_of_unknown_fate_is_put_on_record_again(post: Lossy) -> None:
    before = post.moment()
    post.told(post.take().nonce, "retry", "ambiguous:timeout")
    post.back_to(before)
    post.recall.look("second")
    post.recall.look("third")
    assert (post.state("m"), post.causes()) == ("ready", [("ambiguous", None)])
    assert post.counter("lost_outcomes") == 1


def test_of_one_sent_meanwhile_too(post: Lossy) -> None:
    before = post.moment()
    post.told(post.take().nonce, "retry", "ambiguous:timeout")
    post.back_to(before)
    again = post.take(worker="bob")
    assert (post.begin("m", again.nonce), post.settle("m", again.nonce, "sent")) == ("go", "ok")
    post.recall.look("second")
    assert post.causes() == [("ambiguous", None)]
    assert post.client.pttl("{d}:a:m") > 0, "it goes with the record"


@pytest.mark.parametrize("action", ["sent", "retry"])
def test_a_redis_that_lost_nothing_is_not_changed(post: Lossy, action: str) -> None:
    post.told(post.take().nonce, action, "sent:200" if action == "sent" else "ambiguous:timeout")
    before = post.moment()
    post.recall.look("second")
    assert post.moment() == before


def test_a_record_whose_time_was_over_is_not_lost(
    post: Lossy, caplog: pytest.LogCaptureFixture
) -> None:
    post.told(post.take().nonce)
    post.now += post.numbers["record_us"]
    post.client.delete("{d}:m:m")  # as its expiry does
    post.recall.look("second")
    assert (post.counter("lost_sent"), caplog.messages) == (0, [])
    assert not post.client.exists("{d}:m:m")


def test_a_redis_that_takes_nothing_yet_is_told_when_it_does(post: Lossy) -> None:
    """Empty, until a daemon has published the configuration."""
    post.told(post.take().nonce)
    post.client.delete(*post.client.keys("{d}*"))
    for _ in range(60):
        with pytest.raises(redis.exceptions.ResponseError):
            post.recall.look("second")
    post.store.publish_config("digest", {}, post.numbers)
    post.recall.look("second")
    assert (post.state("m"), post.counter("lost_sent")) == ("sent", 1)


def test_outcomes_that_it_refuses_while_it_takes_others_keep_nobody_waiting(
    post: Lossy, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.told(post.take().nonce)

    def settle(settlements: list[Settlement]) -> list[str]:
        if settlements:
            raise redis.exceptions.ResponseError("not these")
        return []

    monkeypatch.setattr(post.store, "settle", settle)
    for _ in range(24):
        with pytest.raises(redis.exceptions.ResponseError):
            post.recall.look("second")
    post.recall.look("second")


def test_only_the_last_seconds_are_kept(post: Lossy) -> None:
    post.told(post.take().nonce)
    before = post.moment()
    post.now += int((KEPT_S + 1) * 1e6)
    post.recall.note([], [])
    post.back_to({key: value for key, value in before.items() if key != b"{d}:m:m"})
    post.recall.look("second")
    assert post.counter("lost_sent") == 0
    one = Settlement(id="x", nonce="n" * 16, action="sent", sha1=b"s" * 20)
    for _ in range(2):
        post.recall.note([one] * KEPT_MOST, ["ok"] * KEPT_MOST)
    assert len(post.recall) == KEPT_MOST


def test_what_is_missing_of_totals_counts_once_for_all_who_saw_them(post: Lossy) -> None:
    post.put_many("x", 9)
    before = post.store.totals()
    assert before == (10, 0)
    post.client.hset("{d}:n", "accepted", 4)
    assert [post.store.lose("run-2", *seen) for seen in ((8, 0), (10, 0), (9, 0))] == [
        (4, 0), (6, 0), (5, 0),
    ]  # fmt: skip
    assert (post.counter("losses"), post.counter("lost_accepted")) == (1, 6)
    assert post.store.lose("run-3", 3, 0) == (0, 0)
    assert post.store.lose("run-3", 5, 2) == (1, 2)
    assert (post.counter("losses"), post.counter("lost_accepted")) == (2, 7)
    post.client.hset("{d}:n", "accepted", 10)
