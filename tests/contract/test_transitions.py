"""What each transition promises, as a user would notice it. Real Redis, an injected clock."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from contract.redis_snapshot import snapshot
from contract.test_outbox_model import NUMBERS, START_US, FixedRun
from paceline import scripts
from paceline.answers import Settlement, Taken
from paceline.errors import OutboxFull, PacelineError
from paceline.intake import BULK
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.records import Ended, Live
from support.model import SECOND

ROOMY = NUMBERS | {
    "rate": 1000, "burst": 200, "connections": 10, "reserve": 0, "max_count": 10**6,
    "max_bytes": 10**9, "max_payload": 10_000, "max_age_us": 3600 * SECOND,
}  # fmt: skip


class Post:
    """One destination, worker "ann" live, and the short words the tests below are made of."""

    def __init__(self, client: redis.Redis, **numbers: Any) -> None:
        scripts.load_library(client)
        self.client, self.now = client, START_US
        self.store = OutboxStore(client, "d", now_us=lambda: self.now)
        self.pin = FixedRun(client)
        self.numbers = ROOMY | numbers
        assert self.store.publish_config("digest", {}, self.numbers)[0] == "published"
        self.store.slots("beat", "ann", 0)
        self._names = itertools.count()

    def store_message(self, message_id: str, payload: bytes = b"[]") -> Message:
        return Message(id=message_id, destination="d", payload=payload)

    def put(self, message_id: str, priority: Any = "normal", tenant: str | None = None,
            payload: bytes = b"[]", **times: Any) -> str:  # fmt: skip
        self.store.enqueue(
            Message(id=message_id, destination="d", payload=payload, priority=priority,
                    tenant=tenant, **times)
        )  # fmt: skip
        return message_id

    def put_many(self, prefix: str, count: int, **about: Any) -> None:
        messages = [
            Message(id=f"{prefix}{n}", destination="d", payload=b"[]", **about)
            for n in range(count)
        ]
        assert set(self.store.enqueue_many(messages)) == {"new"}

    def take(self, count: int = 100, lane: Any = "any", worker: str = "ann") -> Taken:
        taken = self.store.take(worker, f"nonce-{next(self._names):010d}", count, lane)
        assert taken.status == "batch", taken
        return taken

    def begin(self, message_id: str, nonce: str) -> str:
        self.now += SECOND // 10
        permit = self.store.begin(self.pin, message_id, nonce)  # type: ignore[arg-type]
        return permit.verdict if permit.verdict != "gone" else permit.what

    def settle(self, message_id: str, nonce: str, action: Any, **about: Any) -> str:
        about.setdefault("begun_us", self.now)
        health = {"sent": "g", "unavailable": "u"}.get(action, "")
        about = {"health": health} | about
        [word] = self.store.settle([Settlement(id=message_id, nonce=nonce, action=action, **about)])
        return word

    def reap(self, after_s: int = 0) -> None:
        """Lets the time pass under the reaper's eyes, a second at a time."""
        for _ in range(after_s + 1):
            self.store.reap(self.pin.run_id, "daemon-1")
            self.now += SECOND

    def state(self, message_id: str) -> str:
        [seen] = self.store.look([message_id])
        assert seen is not None
        assert seen[2], f"{message_id} is not in the container that its header names"
        return seen[0].state

    def waiting(self) -> list[str]:
        return [i for ids in snapshot(self.client, "d")["ready"].values() for i in ids]

    def sound(self) -> bool:
        return self.store.census().sound


@pytest.fixture
def post(redis_client: redis.Redis) -> Iterator[Post]:
    """A roomy destination, whose books must balance at the end."""
    the_post = Post(redis_client)
    yield the_post
    assert the_post.sound()


# -- take: who goes first -------------------------------------------------------------------


def test_a_tenant_with_a_hundredfold_backlog_takes_no_more_than_its_turn(post: Post) -> None:
    post.put_many("huge", 2000, tenant="huge")
    for n in range(49):
        post.put_many(f"small{n}-", 20, tenant=f"t{n}")
    served = Counter(i[:4] for _ in range(10) for i in post.take(100).sizes)
    assert served["huge"] == pytest.approx(1000 / 50, abs=3)
    assert sum(served.values()) == 1000


def test_a_tenant_that_comes_late_neither_waits_nor_catches_up(post: Post) -> None:
    post.put_many("a", 500, tenant="a")
    for _ in range(3):
        post.take(100)
    post.put_many("b", 200, tenant="b")
    served = Counter(i[0] for i in post.take(100).sizes)
    assert served == {"a": 50, "b": 50}


def test_bulk_gets_a_tenth_however_much_else_waits(post: Post) -> None:
    post.put_many("n", 1000, priority="normal")
    post.put_many("b", 200, priority="bulk")
    assert Counter(i[0] for i in post.take(100).sizes) == {"n": 90, "b": 10}


@pytest.mark.parametrize("size", [1, 3, 7, 15])
def test_bulk_gets_a_tenth_and_no_more_in_small_batches_too(post: Post, size: int) -> None:
    post.put_many("h", 400, priority="high")
    post.put_many("b", 400, priority="bulk")
    served = Counter(i[0] for _ in range(210 // size) for i in post.take(size).sizes)
    assert served["b"] == pytest.approx(21, abs=1)


def test_high_goes_before_normal_before_bulk_and_each_in_its_order(post: Post) -> None:
    for n in range(12):
        post.put(f"{n % 3}-{n:02d}", priority=["bulk", "normal", "high"][n % 3])
    order = list(post.take(100).sizes)
    assert [i[0] for i in order] == list("222211110000")
    assert [sorted(i for i in order if i[0] == p) for p in "012"] == [
        [i for i in order if i[0] == p] for p in "012"
    ]


def test_a_high_invitation_takes_high_messages_only(post: Post) -> None:
    post.put("h", priority="high")
    post.put("n")
    assert list(post.take(10, "high").sizes) == ["h"]


def test_a_take_whose_answer_was_lost_is_told_the_same_batch_again(post: Post) -> None:
    post.put_many("m", 5)
    first = post.store.take("ann", "n" * 16, 3, "any")
    assert dict(post.store.take("ann", "n" * 16, 3, "any").sizes) == dict(first.sizes)
    assert len(post.waiting()) == 2


@pytest.mark.parametrize("how", ["settled back", "reaped"])
def test_a_message_that_comes_back_keeps_its_place(post: Post, how: str) -> None:
    post.put_many("m", 4)
    taken = post.take(2)
    assert list(taken.sizes) == ["m0", "m1"]
    post.put("m9")
    if how == "reaped":
        post.reap(after_s=11)
    else:
        for i in ("m1", "m0"):
            assert post.settle(i, taken.nonce, "back") == "ok"
    assert post.waiting() == ["m0", "m1", "m2", "m3", "m9"]


def test_a_retried_message_returns_to_its_old_place_when_it_is_due(post: Post) -> None:
    post.put_many("m", 2)
    taken = post.take(1)
    assert post.settle("m0", taken.nonce, "retry", delay_s=3.0, charge=True) == "ok"
    assert post.store.promote() == (0, 3.0)
    post.now += 3 * SECOND
    assert post.store.promote() == (1, None)
    assert post.waiting() == ["m0", "m1"]


# -- the ends -------------------------------------------------------------------------------


def test_a_sent_message_leaves_a_record_of_150_bytes_at_most_for_the_window(post: Post) -> None:
    post.put("m" * 128, payload=b"x" * 5000)
    taken = post.take()
    post.settle("m" * 128, taken.nonce, "sent", provider_id="p" * 500)
    key = "{d}:m:" + "m" * 128
    assert post.client.strlen(key) <= 150
    assert 86_390_000 < post.client.pttl(key) <= 86_400_000
    [seen] = post.store.look(["m" * 128])
    assert seen is not None
    assert isinstance(seen[0], Ended)
    assert seen[0].provider_id == "p" * 100


def test_an_expired_message_is_not_sent(post: Post) -> None:
    later = post.now / 1e6 + 5
    for message_id in ("ready", "taken", "scheduled"):
        post.put(message_id, expires=later, not_before=later - 1 if "sch" in message_id else None)
    post.settle("ready", post.take(1).nonce, "back")
    taken = post.take(1)
    mine = next(iter(taken.sizes))
    post.now += 6 * SECOND
    assert post.begin(mine, taken.nonce) == "expired"
    assert post.store.expire() == 2
    assert post.store.census().law["expired"] == 3
    assert snapshot(post.client, "d")["expiries"] == []


def test_a_message_over_its_max_age_is_ended_when_it_is_taken(post: Post) -> None:
    post.put("old")
    post.now += 3600 * SECOND
    post.store.slots("beat", "ann", 0)
    assert dict(post.take().sizes) == {}
    assert post.state("old") == "expired"


def _bring_to(post: Post, state: str) -> str:
    """A message "m" in that state, last held under the nonce returned."""
    post.put("m")
    taken = post.take(1)
    assert post.begin("m", taken.nonce) == "go"
    if state == "scheduled":
        post.settle("m", taken.nonce, "retry", delay_s=60)
    elif state in ("dead", "parked"):
        post.settle("m", taken.nonce, state)
    else:
        post.settle("m", taken.nonce, "back")
    if state in ("leased", "begun"):
        other = post.take(1)
        if state == "begun":
            assert post.begin("m", other.nonce) == "go"
    assert post.state("m") == state
    return taken.nonce


@pytest.mark.parametrize("state", ["ready", "scheduled", "leased", "begun", "dead", "parked"])
def test_a_late_sent_is_true_whatever_became_of_the_message(post: Post, state: str) -> None:
    nonce = _bring_to(post, state)
    assert post.settle("m", nonce, "sent") == "won"
    assert post.state("m") == "sent"
    assert post.settle("m", nonce, "sent") == "repeat"
    census = post.store.census()
    assert census.counters["late_sent"] == 1
    assert census.counters.get("overtaken", 0) == int(state == "begun")
    assert census.unfinished == 0


@pytest.mark.parametrize("state", ["ready", "scheduled", "leased", "begun", "dead", "parked"])
def test_a_worker_that_lost_its_lease_gets_no_permit(post: Post, state: str) -> None:
    nonce = _bring_to(post, state)
    before = snapshot(post.client, "d")
    assert post.begin("m", nonce) == "fenced"
    assert snapshot(post.client, "d") == before


@pytest.mark.parametrize("action", ["retry", "dead", "parked", "back"])
def test_a_late_outcome_other_than_sent_changes_nothing(post: Post, action: str) -> None:
    nonce = _bring_to(post, "leased")
    before = snapshot(post.client, "d")
    assert post.settle("m", nonce, action) == "late"
    assert snapshot(post.client, "d") == before


def test_a_second_sent_is_one_duplicate_however_often_both_are_repeated(post: Post) -> None:
    first = _bring_to(post, "begun")
    [second] = snapshot(post.client, "d")["batches"]
    assert post.settle("m", first, "sent") == "won"
    words = [post.settle("m", n, "sent", record={"n": 1}) for n in (second, first, second, first)]
    assert words == ["duplicate", "repeat", "repeat", "repeat"]
    assert post.store.census().counters["duplicates"] == 1
    assert [a.get("reason") for a in post.store.attempts("m")] == ["redis-loss", None]


def test_a_sent_after_the_end_is_counted_once(post: Post) -> None:
    nonce = _bring_to(post, "dead")
    post.store.drop(["m"])
    assert [post.settle("m", nonce, "sent") for _ in range(3)] == ["gone"] * 3
    assert post.store.census().counters["sent_after_end"] == 1


def test_a_record_of_attempts_that_is_none_stops_no_call_half_way(post: Post) -> None:
    post.put_many("m", 2)
    first = post.take(1)
    assert post.begin("m0", first.nonce) == "go"
    post.reap(after_s=40)
    post.store.slots("beat", "ann", 0)
    second = post.take(1)
    assert post.begin("m1", second.nonce) == "go"
    post.client.set("{d}:a:m0", "by hand")
    both = [
        Settlement(id="m1", nonce=second.nonce, action="sent"),
        Settlement(id="m0", nonce="another's-nonce-", action="sent"),
    ]
    assert post.store.settle(both) == ["ok", "won"]
    assert post.store.census().law["sent"] == 2


def test_settling_again_moves_no_counter(post: Post) -> None:
    post.put_many("m", 3)
    taken = post.take()
    about: dict[str, Any] = {"label": "x", "latency_s": 0.01, "charge": True, "record": {"a": 1}}
    for message_id, action in (("m0", "sent"), ("m1", "retry"), ("m2", "throttled")):
        post.settle(message_id, taken.nonce, action, **about)
    before = snapshot(post.client, "d")
    for message_id, action in (("m0", "sent"), ("m1", "retry"), ("m2", "throttled")):
        post.settle(message_id, taken.nonce, action, **about)
    assert snapshot(post.client, "d") == before


def test_a_begin_asked_again_is_the_same_attempt(post: Post) -> None:
    post.put("m")
    taken = post.take(1)
    assert [post.begin("m", taken.nonce) for _ in range(3)] == ["go", "go", "go"]
    [seen] = post.store.look(["m"])
    assert seen is not None
    assert isinstance(seen[0], Live)
    assert seen[0].attempts == 1


def test_a_dead_message_replayed_goes_to_the_end_as_if_new(post: Post) -> None:
    _bring_to(post, "dead")
    post.put("n")
    assert post.store.replay(["m", "n", "nobody"]) == ["ready", "not-dead", "unknown"]
    assert post.waiting() == ["n", "m"]
    [seen] = post.store.look(["m"])
    assert seen is not None
    assert isinstance(seen[0], Live)
    assert (seen[0].tries, seen[0].cancel_asked) == (0, False)


def test_a_parked_message_is_sent_when_an_operator_attests_it(post: Post) -> None:
    _bring_to(post, "parked")
    assert post.store.attest(["m", "m", "nobody"]) == ["sent", "unknown", "unknown"]
    assert post.store.census().law["sent"] == 1


def test_cancelling_a_begun_message_ends_it_only_if_its_attempt_fails(post: Post) -> None:
    post.put_many("m", 2)
    taken = post.take()
    for message_id in taken.sizes:
        while post.begin(message_id, taken.nonce) != "go":
            pass
    assert post.store.cancel(["m0", "m1"]) == ["begun", "begun"]
    assert post.settle("m0", taken.nonce, "sent") == "ok"
    assert post.settle("m1", taken.nonce, "retry", charge=True) == "ok"
    assert (post.state("m0"), post.state("m1")) == ("sent", "cancelled")


# -- leases ---------------------------------------------------------------------------------


def test_a_begun_message_whose_lease_ran_out_is_charged_and_one_not_begun_is_not(
    post: Post,
) -> None:
    post.put_many("m", 2)
    taken = post.take()
    assert post.begin("m0", taken.nonce) == "go"
    post.reap(after_s=11)
    assert (post.state("m0"), post.state("m1")) == ("scheduled", "ready")
    heads = [seen[0] for seen in post.store.look(["m0", "m1"]) if seen]
    assert [h.tries for h in heads if isinstance(h, Live)] == [1, 0]
    assert post.store.attempts("m0")[0]["outcome"] == "ambiguous"


@pytest.mark.parametrize("how", ["gap", "another run", "clock back"])
def test_lease_time_counts_only_while_the_reaper_looks_on(post: Post, how: str) -> None:
    post.put("m")
    post.take()
    post.reap(after_s=8)
    if how == "gap":
        post.now += 60 * SECOND
    elif how == "another run":
        post.pin.run_id = "another"
    else:
        post.now -= 2 * SECOND
    assert post.store.reap(post.pin.run_id, "daemon-1")[0] == "terms"
    post.now += SECOND
    post.reap(after_s=7)
    assert post.state("m") == "leased"
    post.reap(after_s=3)
    assert post.state("m") == "ready"


def test_a_renewed_batch_is_never_reaped(post: Post) -> None:
    post.put("m")
    taken = post.take()
    for _ in range(10):
        post.reap(after_s=5)
        assert post.store.renew([taken.nonce, "nobody"]) == {"nobody"}
    assert post.state("m") == "leased"


# -- the provider says: slow down -----------------------------------------------------------


def _results(post: Post, *actions: str) -> None:
    for action in actions:
        post.now += SECOND
        name = post.put(f"r{next(post._names)}")
        post.store.slots("beat", "ann", 0)
        taken = post.store.take("ann", f"result-{name:>9}", 1000, "any")
        post.settle(name, taken.nonce, action, delay_s=1.0)


def test_three_503_within_the_last_20_results_make_the_destination_wait(post: Post) -> None:
    _results(post, "unavailable", *["sent"] * 10, "unavailable", *["sent"] * 7)
    assert post.store.census().closed() is None
    _results(post, "unavailable")
    assert (post.store.census().closed() or ("",))[0] == "throttled"


def test_503s_further_apart_than_20_results_do_not(post: Post) -> None:
    _results(post, "unavailable", *["sent"] * 10, "unavailable", *["sent"] * 8, "unavailable")
    assert post.store.census().closed() is None


class Refusals:
    """Messages taken beforehand, each refused by a 429 in its turn."""

    def __init__(self, post: Post) -> None:
        self.post = post
        post.put_many("m", 60)
        self.taken = post.take()
        self.ids = iter(self.taken.sizes)

    def refuse(self, begun_us: int, **about: Any) -> float:
        """One more; how long the destination waits for it."""
        about |= {"begun_us": begun_us}
        assert self.post.settle(next(self.ids), self.taken.nonce, "throttled", **about) == "ok"
        closed = self.post.store.census().closed()
        assert closed is not None
        assert closed[1] is not None
        return closed[1]

    def succeed(self, begun_us: int) -> None:
        word = self.post.settle(next(self.ids), self.taken.nonce, "sent", begun_us=begun_us)
        assert word == "ok"


def test_the_wait_doubles_with_every_refusal_and_not_with_every_request(post: Post) -> None:
    provider, waits = Refusals(post), []
    for _ in range(4):
        begun = post.now
        post.now += SECOND // 10
        waits.append([provider.refuse(begun) for _ in range(10)])
        post.now += round(waits[-1][0] * 1e6)
    # The cap is 5 s.
    assert waits == [[1.0] * 10, [2.0] * 10, [4.0] * 10, [5.0] * 10]
    assert post.store.census().counters["throttles"] == 4


def test_a_success_ends_the_doubling_only_if_it_began_after_the_refusal(post: Post) -> None:
    provider, begun = Refusals(post), post.now
    post.now += SECOND
    assert provider.refuse(begun) == 1.0
    provider.succeed(begun)
    post.now += 2 * SECOND
    assert provider.refuse(post.now - 1) == 2.0
    post.now += 2 * SECOND
    provider.succeed(post.now)
    post.now += 1
    assert provider.refuse(post.now) == 1.0


def test_a_retry_after_is_a_minimum_that_a_shorter_one_does_not_cut(post: Post) -> None:
    provider = Refusals(post)
    assert provider.refuse(post.now, delay_s=30.0) == 30.0
    assert provider.refuse(post.now, delay_s=5.0) == 30.0


def test_a_hold_by_an_outcome_lasts_until_an_operator_resumes(post: Post) -> None:
    post.put("m")
    taken = post.take()
    assert post.settle("m", taken.nonce, "held", why="401") == "ok"
    post.now += 10**6 * SECOND
    assert post.store.census().closed() == ("held", None, "401")
    assert post.store.hold("resume") == ["held"]
    assert post.store.census().closed() is None


# -- configuration --------------------------------------------------------------------------


def test_a_process_whose_configuration_differs_is_refused_while_a_worker_lives(post: Post) -> None:
    publish = post.store.publish_config
    assert publish("digest", {}, post.numbers)[:2] == ("same", 1)
    assert publish("other", {"a": 1}, post.numbers) == ("differs", 1, "{}")
    assert publish("other", {"a": 1}, post.numbers, force=True)[:2] == ("published", 2)
    post.store.slots("leave", "ann")
    assert publish("third", {}, post.numbers)[:2] == ("published", 3)


# -- the window of invitations --------------------------------------------------------------


@pytest.mark.parametrize("lane", ["any", "high"])
@pytest.mark.parametrize(("rate", "allowed"), [(10, 2 * 2 * 20), (500, 500)])
def test_no_more_is_invited_than_two_batches_a_worker_or_a_second_of_rate(
    redis_client: redis.Redis, rate: int, allowed: int, lane: Any
) -> None:
    post = Post(redis_client, rate=rate, burst=5000)
    post.store.slots("beat", "bob", 0)
    post.put_many("m", 2000, priority="high" if lane == "high" else "normal")
    out = sum(post.store.release(lane, 20, 60.0, f"i{n}").count for n in range(100))
    assert out == allowed
    assert post.store.release(lane, 20, 60.0, "more").why == "window"


def test_a_full_window_does_not_keep_high_from_being_invited(redis_client: redis.Redis) -> None:
    post = Post(redis_client, rate=10, burst=5000)
    post.put_many("m", 200)
    while post.store.release("any", 20, 60.0, f"i{next(post._names)}").count:
        pass
    post.put("h", priority="high")
    assert post.store.release("high", 20, 60.0, "high").count == 1


def test_a_lost_invitation_frees_its_place_even_if_the_clock_steps_back(
    redis_client: redis.Redis,
) -> None:
    post = Post(redis_client, rate=10, burst=5000)
    post.put_many("m", 40)
    assert [post.store.release("any", 20, 5.0, i).count for i in "abc"] == [20, 20, 0]
    post.now -= 3600 * SECOND
    assert post.store.release("any", 20, 5.0, "d").count == 0
    post.now += 5 * SECOND
    assert post.store.release("any", 20, 5.0, "e").count == 20


def test_a_batch_larger_than_the_burst_is_released_all_the_same_at_the_rate(
    redis_client: redis.Redis,
) -> None:
    post = Post(redis_client, rate=25, burst=20, connections=2)
    post.put_many("m", 200)
    assert post.store.release("any", 50, 5.0, "a").count == 50
    assert post.store.release("any", 50, 5.0, "b").why == "rate"
    post.now += 1_900_000
    post.store.slots("beat", "ann", 0)
    assert post.store.release("any", 50, 60.0, "c").why == "rate"
    post.now += 100_000
    assert post.store.release("any", 50, 60.0, "d").count == 50


def test_a_batch_is_no_more_than_its_worker_sends_in_two_seconds(
    redis_client: redis.Redis,
) -> None:
    """Else the first of many workers takes a second of the rate, sends it over its one connection,
    and the others wait for work."""
    post = Post(redis_client, rate=30, burst=200, connections=3)
    post.put_many("m", 200)
    assert post.store.release("any", 100, 5.0, "a").count == 60
    for _ in range(2):  # a share is told at the beat after the one that made room for it
        for worker in ("ann", "bob", "cid"):
            post.store.slots("beat", worker, 1)
    assert post.store.release("any", 100, 5.0, "b").count == 20
    post.store.slots("beat", "dan", 0)  # live, and without a connection: it sends nothing
    assert post.store.release("any", 100, 5.0, "c").count == 20


def test_what_comes_in_one_by_one_shares_an_invitation_where_workers_are_behind(post: Post) -> None:
    """One for each message, workers would read nothing but invitations that have run out."""
    sizes = []
    for n in range(30):
        post.put(f"m{n}")
        sizes.append(post.store.release("any", 100, 10.0, f"inv-{n}").count)
    assert sizes[:2] == [1, 1], "at once, while workers keep up"
    assert not any(sizes[2:])
    assert list(post.store.take("ann", "n" * 16, 1, "any", "inv-0").sizes) == ["m0"]
    assert post.store.release("any", 100, 10.0, "inv-30").count == 28, "all that came meanwhile"


def test_without_a_live_worker_nothing_is_released(post: Post) -> None:
    post.put("m")
    post.now += 11 * SECOND
    assert post.store.release("any", 20, 5.0, "i").why == "no-worker"


def test_an_invitation_is_good_for_one_take(post: Post) -> None:
    post.put_many("m", 5)
    assert post.store.release("any", 2, 5.0, "i").count == 2
    assert post.store.take("ann", "n" * 16, 2, "any", "i").status == "batch"
    assert post.store.take("ann", "o" * 16, 2, "any", "i").status == "stale"
    assert post.store.release("any", 2, 5.0, "j").count == 2


# -- connections ----------------------------------------------------------------------------


def test_workers_that_come_and_go_never_hold_more_than_the_account_allows(
    redis_client: redis.Redis,
) -> None:
    post = Post(redis_client)
    post.store.slots("leave", "ann")
    held: dict[str, int] = {}
    script = [*"abcabcabc", "-a", *"bcbc", *"dbcdbcd", "-b", "-c", *"dd"]
    for step in script:
        worker = step[-1]
        post.now += SECOND // 10
        if step[0] == "-":
            post.store.slots("leave", worker)
            del held[worker]
            continue
        # It closes what is over its share, says so, and opens what it is allowed.
        share = post.store.slots("beat", worker, held.get(worker, 0))
        held[worker] = min(held.get(worker, 0), share.allowance)
        held[worker] = post.store.slots("beat", worker, held[worker]).allowance
        assert sum(held.values()) <= 10
    assert held == {"d": 10}


def test_one_that_lapsed_and_returns_gets_only_what_the_others_have_not(
    redis_client: redis.Redis,
) -> None:
    post = Post(redis_client)
    assert post.store.slots("beat", "ann", 0).allowance == 10
    post.now += 11 * SECOND
    assert post.store.slots("beat", "bob", 0).allowance == 10
    assert post.store.slots("beat", "ann", 0).allowance == 0
    assert post.store.slots("beat", "bob", 10).allowance == 5
    assert post.store.slots("beat", "bob", 5).allowance == 5
    assert post.store.slots("beat", "ann", 0).allowance == 5


def test_the_bucket_is_smaller_while_a_lapsed_holder_may_be_frozen(
    redis_client: redis.Redis,
) -> None:
    post = Post(redis_client)
    assert post.store.slots("beat", "ann", 10).bucket == 190
    post.now += 11 * SECOND
    assert post.store.slots("beat", "bob", 0).bucket == 180
    assert post.store.slots("bury", "ann").bucket == 190


def test_what_a_dead_worker_held_does_not_wait_for_its_lease(redis_client: redis.Redis) -> None:
    post = Post(redis_client)
    post.reap()
    post.put_many("m", 3)
    post.store.slots("beat", "dead", 0)
    dead = post.take(2, worker="dead")
    alive = post.take(1)
    assert post.begin("m0", dead.nonce) == "go"
    post.store.slots("bury", "dead")
    post.reap()
    assert [post.state(m) for m in ("m0", "m1", "m2")] == ["scheduled", "ready", "leased"]
    assert post.settle("m2", alive.nonce, "sent") == "ok"


# -- trouble --------------------------------------------------------------------------------


def test_a_queued_kilobyte_costs_at_most_350_bytes_more(redis_client: redis.Redis) -> None:
    post = Post(redis_client)
    payload, count = b"x" * 1000, 20_000
    before = redis_client.info("memory")["used_memory"]
    for start in range(0, count, 2000):
        batch = [
            Message(id=f"0198c6f0-0000-7000-{n:012d}", destination="d", payload=payload)
            for n in range(start, start + 2000)
        ]
        assert set(post.store.enqueue_many(batch)) == {"new"}
    after = redis_client.info("memory")["used_memory"]
    assert (after - before) / count - 1000 <= 350


def test_a_full_redis_refuses_new_messages_and_settles_the_old(redis_client: redis.Redis) -> None:
    post = Post(redis_client)
    post.put_many("m", 3)
    taken = post.take()
    redis_client.config_set("maxmemory-policy", "noeviction")
    redis_client.config_set("maxmemory", "1mb")
    with pytest.raises(OutboxFull, match="memory"):
        post.put("more")
    assert post.settle("m0", taken.nonce, "sent") == "ok"
    assert post.settle("m1", taken.nonce, "retry", record={"a": "b" * 1000}) == "ok"
    assert post.settle("m2", taken.nonce, "dead") == "ok"
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        post.store.replay(["m2"])
    redis_client.config_set("maxmemory", "0")
    assert post.store.replay(["m2"]) == ["ready"]
    assert post.sound()


def _delete(client: redis.Redis, key: str) -> None:
    client.delete(key)


def _another_type(client: redis.Redis, key: str) -> None:
    client.delete(key)
    client.hset(key, "somebody", "else's")


def _another_string(client: redis.Redis, key: str) -> None:
    client.set(key, "somebody else's")


POISONS = pytest.mark.parametrize("poison", [_delete, _another_type, _another_string])


@POISONS
def test_a_poisoned_message_does_not_stall_those_behind_it(
    redis_client: redis.Redis, poison: Any
) -> None:
    post = Post(redis_client)
    post.put_many("m", 3)
    poison(redis_client, "{d}:m:m0")
    taken = post.take()
    assert list(taken.sizes) == ["m1", "m2"]
    poison(redis_client, "{d}:m:m1")
    again = post.store.take("ann", taken.nonce, 100, "any")
    assert list(again.sizes) == ["m2"]
    both = [Settlement(id=i, nonce=taken.nonce, action="sent") for i in ("m1", "m2")]
    assert post.store.settle(both) == ["gone", "ok"]
    post.reap(after_s=11)
    census = post.store.census()
    assert (census.law["leased"], census.law["sent"], census.unfinished) == (0, 1, 0)


@POISONS
def test_a_poisoned_place_stops_neither_purge_nor_promote_nor_expire(
    redis_client: redis.Redis, poison: Any
) -> None:
    post = Post(redis_client)
    post.put_many("m", 3)
    post.put("s0", not_before=post.now / 1e6 + 1)
    post.put("s1", not_before=post.now / 1e6 + 1, expires=post.now / 1e6 + 5)
    post.put("s2", not_before=post.now / 1e6 + 100)
    post.put("s3", not_before=post.now / 1e6 + 101)
    for message_id in ("m0", "s0", "s1", "s2"):
        poison(redis_client, f"{{d}}:m:{message_id}")
    post.now += 6 * SECOND
    assert post.store.promote()[0] == 0
    assert post.store.expire() == 0
    dropped = 0
    for _ in range(10):
        dropped += post.store.purge(1)
    assert dropped == 3
    census = post.store.census()
    assert census.unfinished == 0


def test_a_place_left_by_a_deleted_message_does_not_send_its_successor_twice(
    redis_client: redis.Redis,
) -> None:
    post = Post(redis_client)
    post.put("m", not_before=post.now / 1e6 + 1)
    _delete(redis_client, "{d}:m:m")
    post.put("m")
    assert list(post.take().sizes) == ["m"]
    post.now += 2 * SECOND
    assert post.store.promote() == (0, None)
    assert post.state("m") == "leased"
    assert post.waiting() == []


@POISONS
def test_an_id_in_somebody_elses_hands_is_refused_and_hinders_no_other(
    redis_client: redis.Redis, poison: Any
) -> None:
    post = Post(redis_client)
    poison(redis_client, "{d}:m:m0")
    messages = [Message(id=f"m{n}", destination="d", payload=b"[]") for n in range(3)]
    answers = post.store.enqueue_many(messages)
    assert answers[1:] == ["new", "new"]
    assert answers[0] == "new" if poison is _delete else isinstance(answers[0], PacelineError)


def test_a_foreign_list_of_attempts_stalls_neither_settle_nor_reap(post: Post) -> None:
    post.put_many("m", 2)
    taken = post.take()
    for message_id in taken.sizes:
        post.client.set(f"{{d}}:a:{message_id}", "somebody else's")
    while post.begin("m0", taken.nonce) != "go":
        pass
    assert post.settle("m1", taken.nonce, "retry", record={"a": 1}) == "ok"
    post.reap(after_s=11)
    assert post.state("m0") == "scheduled"


def test_what_comes_back_unsent_does_not_count_against_the_pace_of_releases(post: Post) -> None:
    post.put_many("m", 400)
    for _ in range(2):  # the whole burst of 200, taken and given back as after a hold
        assert post.store.release("any", 100, 10.0, f"inv-{next(post._names)}").count == 100
    assert post.store.release("any", 100, 10.0, "too-soon").why == "rate"
    for _ in range(2):
        taken = post.take(100)
        for message_id in taken.sizes:
            post.settle(message_id, taken.nonce, "back")
    assert post.store.release("any", 100, 10.0, "after").count == 100


# -- many at once -------------------------------------------------------------------------------


def _messages(count: int, **options: Any) -> list[Message]:
    return [
        Message(id=f"m{n}", destination="d", payload=b'{"n":%d}' % n, **options)
        for n in range(count)
    ]


def test_many_at_once_are_taken_or_refused_each_by_itself(redis_client: redis.Redis) -> None:
    post = Post(redis_client, max_payload=20)
    messages = _messages(2 * BULK + 7)
    messages[3] = Message(id="m3", destination="d", payload=b"x" * 21)
    messages[60] = Message(id="m5", destination="d", payload=b"another")
    answers = post.store.enqueue_many(messages)
    refused = {n: type(a).__name__ for n, a in enumerate(answers) if a != "new"}
    assert refused == {3: "MessageTooLarge", 60: "DuplicateConflict"}
    assert post.store.census().law["ready"] == len(messages) - 2
    again = post.store.enqueue_many(messages)
    assert [a for n, a in enumerate(again) if n not in refused] == ["already"] * (len(messages) - 2)
    assert post.store.census().sound


def test_the_limits_count_those_of_the_same_call(redis_client: redis.Redis) -> None:
    post = Post(redis_client, max_count=5)
    answers = post.store.enqueue_many(_messages(8))
    assert [a if a == "new" else type(a).__name__ for a in answers] == ["new"] * 5 + [
        "OutboxFull"
    ] * 3
    redis_client.flushdb()
    post = Post(redis_client, max_bytes=18)
    answers = post.store.enqueue_many(_messages(3))
    assert [a if a == "new" else type(a).__name__ for a in answers] == ["new"] * 2 + ["OutboxFull"]


def test_what_breaks_one_of_many_costs_no_other_its_place_in_the_books(
    redis_client: redis.Redis,
) -> None:
    """A key of ours that another program overwrote: its message fails, the others are counted."""
    post = Post(redis_client)
    redis_client.set("{d}:s", "in the way")
    messages = _messages(4)
    messages[1] = Message(
        id="later", destination="d", payload=b"[]", not_before=post.now / 1e6 + 60
    )
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        post.store.enqueue_many(messages)
    redis_client.delete("{d}:s")
    assert post.store.enqueue_many(messages) == ["already", "new", "already", "already"]
    assert post.store.census().law["accepted"] == 4
    assert post.sound()


def _bulk(post: Post, *arguments: str | bytes) -> list[Any]:
    """The reply of the function, errors as text."""
    reply = post.client.execute_command("FCALL", "paceline_enqueue_bulk", 1, "{d}", *arguments)
    return [str(one) if isinstance(one, redis.exceptions.ResponseError) else one for one in reply]


def test_options_hold_until_others_come(post: Post) -> None:
    now_s = post.now / 1e6
    reply = _bulk(
        post, str(post.now), "a", "[1]", '{"priority": "high", "tenant": "t"}', "b", "{}",
        "c", "{}", json.dumps({"priority": "bulk", "delay_s": 5, "ttl_s": 9, "campaign": "x"}),
        "d", "[4]", "{}", "e", "[5]",
    )  # fmt: skip
    assert reply == []
    found = snapshot(post.client, "d")
    assert found["ready"] == {(1, ""): ["a", "e"], (0, "t"): ["b", "c"]}
    [(head, *_)] = [seen for seen in post.store.look(["d"]) if seen is not None]
    assert isinstance(head, Live)
    assert (head.state, head.campaign, head.priority) == ("scheduled", "x", "bulk")
    assert (head.due_us, head.expires_us) == ((now_s + 5) * 1e6, (now_s + 9) * 1e6)
    assert post.store.payload("b") == b"{}"


def test_places_are_in_the_order_given_whatever_the_options(post: Post) -> None:
    options = ['{"tenant": "t"}', '{"tenant": "u"}']
    _bulk(post, "", *[x for n in range(40) for x in (options[n % 3 % 2], f"m{n:02}", "[]")])
    seqs = {
        i: int(s)
        for t in "tu"
        for i, s in post.client.zrange(f"{{d}}:r:1:{t}", 0, -1, withscores=True)
    }
    assert [i.decode() for i in sorted(seqs, key=lambda i: seqs[i])] == [
        f"m{n:02}" for n in range(40)
    ]
    assert sorted(seqs.values()) == list(range(1, 41))


def test_more_than_lua_can_unpack_at_once(post: Post) -> None:
    options = '{"not_before": 1e9, "expires": 1e10}'
    ids = [f"m{n:05}" for n in range(9000)]
    for its in ("{}", options):
        prefix = "" if its == "{}" else "x"
        assert _bulk(post, "", its, *[x for i in ids for x in (prefix + i, "[]")]) == []
    assert post.store.census().law["ready"] == 18_000
    assert post.client.zcard("{d}:e") == 9000


def test_replies_tell_of_those_that_are_not_new_by_their_numbers(redis_client: redis.Redis) -> None:
    post = Post(redis_client, max_count=3, max_payload=20)
    reply = _bulk(
        post, "", '{"tenant":"t"}', "a", "[]", "b", "[]", "a", "[]", "a", "[1]", "", "[]",
        "é", "[]", "big", "x" * 21, "none", "", "c", "[]", "d", "[]", "a", "[]", "{", "last", "[]",
    )  # fmt: skip
    assert {
        number: text if text == b"already" else text.partition(";")[0].partition(", over")[0]
        for number, text in zip(reply[::2], reply[1::2], strict=True)
    } == {
        2: b"already",
        3: "PLCONFLICT options.id: a was used before with another payload",
        4: "PLINVALID options.id: must be 1 to 128 characters of A-Z a-z 0-9 . _ -",
        5: "PLINVALID options.id: must be 1 to 128 characters of A-Z a-z 0-9 . _ -",
        6: "PLTOOBIG payload: 21 bytes",
        7: "PLINVALID payload: empty",
        9: "PLFULL outbox: 3 messages wait, max_messages is 3",
        10: b"already",
        11: "PLINVALID options: not a JSON object",
    }  # fmt: skip
    assert post.waiting() == ["a", "b", "c"]
    assert post.sound()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ("{", "options:"),
        ('{"id": "x"}', "options.id:"),
        ('{"prio": "high"}', "options.prio:"),
        ('{"priority": "urgent"}', "options.priority:"),
        ('{"tenant": "a b"}', "options.tenant:"),
        ('{"campaign": 1}', "options.campaign:"),
        ('{"ttl_s": -1}', "options.ttl_s:"),
        ('{"not_before": 1, "delay_s": 1}', "options.delay_s:"),
        ('{"expires": 5}', "options.expires:"),
        ('{"ttl_s": 0}', "options.ttl_s:"),
        ('{"delay_s": 9, "ttl_s": 8}', "options.expires:"),
        ('{"tenant": "' + "x" * 9000 + '"}', "options:"),
    ],
)
def test_bad_options_refuse_what_follows_them_and_name_the_field(
    post: Post, options: str, field: str
) -> None:
    reply = _bulk(post, "", "a", "[]", options, "b", "[]", "c", "[]", "{}", "d", "[]")
    assert [reply[0], reply[2]] == [1, 2]
    assert reply[1] == reply[3]
    assert reply[1].startswith(f"PLINVALID {field}")
    assert post.waiting() == ["a", "d"]


def test_what_is_no_call_is_refused_whole(post: Post) -> None:
    for arguments in ((), ("",), ("", "{}"), ("now", "{}", "a", "[]")):
        with pytest.raises(redis.exceptions.ResponseError, match="PLINVALID arguments"):
            _bulk(post, *arguments)
    with pytest.raises(redis.exceptions.ResponseError, match="PLUNKNOWN"):
        post.client.execute_command("FCALL", "paceline_enqueue_bulk", 1, "{e}", "", "{}", "a", "[]")
    assert _bulk(post, "", "{}", "a", "[]", "b") == [1, "PLINVALID payload: missing"]


def test_a_draining_outbox_knows_what_it_has(post: Post) -> None:
    assert _bulk(post, "", "{}", "a", "[]", "b", "[]") == []
    post.store.hold("drain")
    reply = _bulk(post, "", "{}", "a", "[]", "c", "[]", "b", "[1]")
    assert reply[:3] == [0, b"already", 1]
    assert reply[3].startswith("PLDRAINING")
    assert reply[5].startswith("PLCONFLICT")
    answers = post.store.enqueue_many(_messages(3))
    assert [type(a).__name__ for a in answers] == ["Draining"] * 3


def test_a_place_in_somebody_elses_hands_refuses_its_messages_and_writes_nothing(
    redis_client: redis.Redis,
) -> None:
    post = Post(redis_client)
    redis_client.set("{d}:r:0:", "in the way")
    reply = _bulk(
        post, "", "{}", "a", "[]", '{"priority":"high"}', "b", "[]", "c", "[]", "{}", "d", "[]"
    )
    assert [reply[0], reply[2]] == [1, 2]
    assert "WRONGTYPE" in reply[1]
    assert redis_client.exists("{d}:m:b", "{d}:m:c") == 0
    redis_client.delete("{d}:r:0:")
    assert post.waiting() == ["a", "d"]
    assert post.sound()


@pytest.mark.parametrize(("version", "without"), [(2, ["bulk"]), (1, ["bulk", "many"])])
def test_an_older_library_takes_them_its_way(
    redis_client: redis.Redis, version: int, without: list[str]
) -> None:
    """A producer that is newer than the daemon, and may not load functions."""
    post = Post(redis_client, max_payload=20)
    older = scripts.source("enqueue").replace(
        f"local VERSION = {scripts.LIBRARY_VERSION}", f"local VERSION = {version}"
    )
    for name in without:
        line = f"redis.register_function('paceline_enqueue_{name}', enqueue_{name})"
        assert line in older
        older = older.replace(line, "")
    messages = _messages(120)
    messages[7] = Message(id="m7", destination="d", payload=b"x" * 21)
    redis_client.execute_command("FUNCTION", "LOAD", "REPLACE", older)
    redis_client.execute_command(
        "ACL", "SETUSER", "producer", "on", "nopass", "~*", "+@all", "-function|load"
    )
    try:
        with redis.Redis.from_url(
            f"redis://producer:x@127.0.0.1:{redis_client.connection_pool.connection_kwargs['port']}"
        ) as producer:
            answers = OutboxStore(producer, "d").enqueue_many(messages)
            assert [n for n, a in enumerate(answers) if a != "new"] == [7]
            assert redis_client.execute_command("FCALL_RO", "paceline_version", 0) == version
            redis_client.function_flush()
            assert OutboxStore(producer, "d").ask_to_cancel("m119") == "cancelled"
            with pytest.raises(redis.exceptions.NoPermissionError):
                OutboxStore(producer, "d").enqueue_many(messages)
    finally:
        redis_client.execute_command("ACL", "DELUSER", "producer")
        redis_client.function_flush()
        scripts.load_library(redis_client)
    assert post.store.census().law["ready"] == 118


def test_a_missing_library_is_loaded_by_who_hands_over(redis_client: redis.Redis) -> None:
    post = Post(redis_client)
    redis_client.function_flush()
    assert post.store.enqueue_many(_messages(3)) == ["new"] * 3
    redis_client.function_flush()
    assert post.put("one") == "one"
    redis_client.function_flush()
    assert post.store.ask_to_cancel("one") == "cancelled"
    version = redis_client.execute_command("FCALL_RO", "paceline_version", 0)
    assert version == scripts.LIBRARY_VERSION
