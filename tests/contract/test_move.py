"""Messages that move to the destination theirs falls back to: which, how many, and that neither
side's books are ever out by one. Real Redis, an injected clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from contract.test_outbox_model import START_US, FixedRun
from contract.test_transitions import ROOMY
from paceline import Outbox, scripts
from paceline.answers import Settlement
from paceline.audit import DeepAudit
from paceline.errors import DuplicateConflict, NotPossible
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.records import Live
from support.model import SECOND

RATE = 100


class Pair:
    """Destinations "a" and "b", which a falls back to; a worker "ann" lives in each."""

    def __init__(self, client: redis.Redis) -> None:
        scripts.load_library(client)
        self.client, self.now = client, START_US
        self.a, self.b = (OutboxStore(client, name, now_us=lambda: self.now) for name in "ab")
        for store in (self.a, self.b):
            self.configure(store)
            store.slots("beat", "ann", 0)
        self._batches = 0

    def configure(self, store: OutboxStore, **numbers: Any) -> None:
        # json: the client asks it which provider's payloads to check.
        digest, public = repr(sorted(numbers.items())), {"provider": "http"}
        known = {**ROOMY, "rate": RATE, "pace": "adaptive", **numbers}
        store.publish_config(digest, public, known, force=True)

    def put(
        self, *ids: str, to: OutboxStore | None = None, payload: bytes = b"[]", **more: Any
    ) -> None:
        for message_id in ids:
            message = Message(id=message_id, destination="a", payload=payload, **more)
            assert (to or self.a).enqueue(message) == "new"

    def flow(self, share: int = 100, seconds: float = 1.0) -> tuple[int, str]:
        """Leans by so much, lets so long pass, and moves what may be moved."""
        self.a.lean("b", self.share, share, 0, loud=False)
        if not self.client.hexists("{a}:gate", "fb_credit_at"):
            assert self.a.move("b")[0] == 0  # the time counts from here on
        self.now += round(seconds * SECOND)
        return self.a.move("b")

    @property
    def share(self) -> int:
        return int(self.a.census().gate.get("fb_share", "0"))

    def take(self, store: OutboxStore, count: int = 100) -> tuple[str, list[str]]:
        self._batches += 1
        taken = store.take("ann", f"nonce-{self._batches:010d}", count, "any")
        assert taken.status == "batch"
        return taken.nonce, list(taken.sizes)

    def settle(
        self, store: OutboxStore, message_id: str, nonce: str, action: Any, **more: Any
    ) -> None:
        [word] = store.settle([Settlement(id=message_id, nonce=nonce, action=action, **more)])
        assert word == "ok"

    def where(self, message_id: str) -> tuple[str, str]:
        """Its state in a and in b, "" for unknown."""
        states = []
        for store in (self.a, self.b):
            [seen] = store.look([message_id])
            assert seen is None or seen[2], f"{message_id} is not where its header says"
            states.append(seen[0].state if seen else "")
        return states[0], states[1]

    def moved(self, *ids: str) -> bool:
        return all(self.where(i) == ("moved", "ready") for i in ids)

    def check(self) -> None:
        for store in (self.a, self.b):
            assert store.census().sound, store.census().law
            found = DeepAudit(store, rest=lambda _: None).run()
            assert found.sound, found.faults
        a, b = self.a.census().law, self.b.census().law
        assert a["moved_out"] == b["moved_in"]
        assert a["moved_in"] == b["moved_out"] == 0


@pytest.fixture
def pair(redis_client: redis.Redis) -> Iterator[Pair]:
    """Two destinations, whose books must balance at the end, message by message."""
    the_pair = Pair(redis_client)
    yield the_pair
    the_pair.check()


# -- what moves, and as what ------------------------------------------------------------------


def test_a_moved_message_is_the_same_message_there(pair: Pair) -> None:
    payload = b'{"a": [], "big": 12345678901234567890, "\xc3\xbc": 1}'
    expires = pair.now / 1e6 + 900
    pair.put("m", payload=payload, priority="high", tenant="acme", campaign="may", expires=expires)
    accepted = pair.now
    assert pair.flow()[0] == 1
    [(head, size, there, _)] = pair.b.look(["m"])  # type: ignore[misc]
    assert isinstance(head, Live)
    assert there
    assert (head.state, head.priority, head.tenant, head.campaign) == (
        "ready", "high", "acme", "may",
    )  # fmt: skip
    assert (head.at_us, head.expires_us) == (accepted, round(expires * 1e6))
    assert (head.attempts, head.tries, size) == (0, 0, len(payload))
    assert pair.b.payload("m") == payload


def test_it_expires_there_at_its_time(pair: Pair) -> None:
    pair.put("m", expires=pair.now / 1e6 + 60)
    assert pair.flow()[0] == 1
    pair.now += 61 * SECOND
    assert (pair.a.expire(), pair.b.expire()) == (0, 1)


def test_it_is_sent_there(pair: Pair) -> None:
    pair.put("m")
    pair.flow()
    nonce, ids = pair.take(pair.b)
    assert ids == ["m"]
    pin: Any = FixedRun(pair.client)
    pair.b.begin(pin, "m", nonce)  # a bucket that starts empty
    pair.now += SECOND
    assert pair.b.begin(pin, "m", nonce).verdict == "go"
    pair.settle(pair.b, "m", nonce, "sent", provider_id="p-7")
    assert pair.where("m") == ("moved", "sent")


def test_high_goes_before_normal_before_bulk_and_each_by_its_place_whatever_the_tenant(
    pair: Pair,
) -> None:
    for n in range(30):
        pair.put(f"{'bnh'[n % 3]}{n:02d}", priority=["bulk", "normal", "high"][n % 3],
                 tenant=["acme", "blue", None][n // 3 % 3])  # fmt: skip
    order: list[str] = []
    while len(order) < 30:
        count, _ = pair.flow(share=4)  # four a second
        assert count == 4 or len(order) + count == 30
        fresh = [i for i in pair.b.all_ids() if i not in order]
        assert len(fresh) == count
        order += sorted(fresh, key=lambda i: ("hnb".index(i[0]), i))
    assert order == sorted(order, key=lambda i: ("hnb".index(i[0]), i))
    # And there they are served in the same order, each tenant's and priority's.
    _, served = pair.take(pair.b)
    for tenant in range(3):
        own = [i for i in served if int(i[1:]) // 3 % 3 == tenant]
        for letter in "hnb":
            assert [i for i in own if i[0] == letter] == sorted(i for i in own if i[0] == letter)


def test_a_sleeping_scheduler_of_the_other_is_woken(pair: Pair) -> None:
    pair.put("m")
    pair.client.delete("{a}:wake", "{b}:wake")
    pair.flow()
    assert pair.client.llen("{b}:wake") == 1


# -- what stays -------------------------------------------------------------------------------


def test_what_the_provider_may_have_seen_stays_with_it(pair: Pair) -> None:
    pair.put("begun", "refused", "ready", "leased", "back")
    pair.put("later", not_before=pair.now / 1e6 + 3600)
    nonce, _ = pair.take(pair.a)
    pin: Any = FixedRun(pair.client)
    pair.a.begin(pin, "begun", nonce)
    pair.now += SECOND
    assert pair.a.begin(pin, "begun", nonce).verdict == "go"
    for message_id, charge in (("begun", False), ("refused", True)):
        pair.settle(pair.a, message_id, nonce, "retry", charge=charge)
    for message_id in ("ready", "back"):
        pair.settle(pair.a, message_id, nonce, "back")
    pair.now += SECOND
    assert pair.a.promote()[0] == 2
    assert pair.flow() == (2, "idle")
    assert pair.moved("ready", "back")
    assert [pair.where(i) for i in ("begun", "refused")] == [("ready", "")] * 2
    assert pair.where("leased") == ("leased", "")
    assert pair.where("later") == ("scheduled", "")


def test_an_id_that_is_known_there_stays_and_holds_up_nobody(pair: Pair) -> None:
    pair.put("one", "two", "three")
    pair.put("one", to=pair.b, payload=b'"another"')
    assert pair.flow() == (2, "idle")
    assert pair.moved("two", "three")
    assert pair.where("one") == ("ready", "ready")
    assert (pair.a.payload("one"), pair.b.payload("one")) == (b"[]", b'"another"')


def test_one_that_the_other_would_refuse_or_expire_stays(pair: Pair) -> None:
    pair.configure(pair.b, max_payload=10, max_age_us=60 * SECOND)
    pair.put("old")
    pair.now += 60 * SECOND
    pair.put("large", payload=b"[12345678901]")
    pair.put("small")
    assert pair.flow() == (1, "idle")
    assert pair.moved("small")
    assert pair.where("old") == pair.where("large") == ("ready", "")


def test_one_whose_time_is_over_ends_here(pair: Pair) -> None:
    pair.put("m", expires=pair.now / 1e6 + 1)
    assert pair.flow(seconds=2) == (0, "idle")
    assert pair.where("m") == ("expired", "")


def test_behind_a_thousand_that_were_tried_the_others_are_found(pair: Pair) -> None:
    pair.put("first")
    early, _ = pair.take(pair.a)
    pair.put(*(f"t{n:04d}" for n in range(1000)))
    while pair.a.census().law["ready"]:
        nonce, ids = pair.take(pair.a)
        for message_id in ids:
            pair.settle(pair.a, message_id, nonce, "retry", charge=True)
    pair.now += SECOND
    while pair.a.promote()[0]:
        pass
    pair.put("fresh-1", "fresh-2")
    for _ in range(4):
        pair.flow()
    assert pair.moved("fresh-1", "fresh-2")
    # And what comes before them afterwards is found too, in a later round.
    pair.put("high", priority="high")
    pair.settle(pair.a, "first", early, "back")
    for _ in range(8):
        pair.flow()
    assert pair.moved("high", "first")
    assert pair.b.census().law["ready"] == 4


def test_while_the_breaker_is_open_one_stays_to_be_its_probe(pair: Pair) -> None:
    pair.put(*(f"m{n}" for n in range(5)))
    pair.client.hset("{a}:gate", mapping={"breaker": pair.now, "hold_kind": "breaker",
                                          "hold_until": pair.now + 10**9})  # fmt: skip
    assert pair.flow()[0] == 4
    assert pair.a.census().law["ready"] == 1
    pair.client.hdel("{a}:gate", "breaker", "hold_kind", "hold_until")
    assert pair.flow()[0] == 1


def test_of_a_thousand_tenants_the_oldest_go_first(pair: Pair) -> None:
    pair.configure(pair.a, rate=20)
    pair.put(*(f"m{n:04d}" for n in range(100)), tenant="many")
    for n in range(1000):
        pair.put(f"t{n:04d}", tenant=f"t{n}")
    for _ in range(6):
        assert pair.flow()[0] == 20
    assert sorted(pair.b.all_ids()) == sorted(
        [f"m{n:04d}" for n in range(100)] + [f"t{n:04d}" for n in range(20)]
    )


def test_large_payloads_go_in_pieces_and_all_of_them(pair: Pair) -> None:
    for store in (pair.a, pair.b):
        pair.configure(store, max_payload=10**6)
    pair.put(*"123456", payload=b"[" + b"1" * 400_000 + b"]")
    assert pair.flow() == (3, "moved"), "one call keeps Redis from others for no more than this"
    assert pair.flow()[0] == 3


# -- when the other takes nothing -------------------------------------------------------------

CLOSED: dict[str, tuple[Callable[[Pair], object], str]] = {
    "paused": (lambda p: p.b.hold("pause"), "closed"),
    "held": (lambda p: p.b.hold("hold", why="by hand"), "closed"),
    "breaker": (lambda p: p.client.hset("{b}:gate", "breaker", p.now), "closed"),
    "draining": (lambda p: p.b.hold("drain"), "draining"),
    "unconfigured": (lambda p: p.client.delete("{b}:cfg"), "unconfigured"),
    "full": (lambda p: p.configure(p.b, max_count=0), "full"),
    "full of bytes": (lambda p: p.configure(p.b, max_bytes=0), "full"),
    "its own backlog": (
        lambda p: p.put(*(f"own{n}" for n in range(2 * RATE)), to=p.b), "covered",
    ),
    "own paused": (lambda p: p.a.hold("pause"), "paused"),
}  # fmt: skip


@pytest.mark.parametrize("how", CLOSED)
def test_nothing_moves_to_one_that_cannot_take_it_nor_from_one_that_is_paused(
    pair: Pair, how: str
) -> None:
    close, word = CLOSED[how]
    pair.put("m")
    close(pair)
    assert pair.flow() == (0, word)
    assert pair.where("m") == ("ready", "")
    for store in (pair.a, pair.b):
        store.hold("resume")
    pair.client.hdel("{b}:gate", "breaker")
    pair.configure(pair.b, again=1)
    if word == "covered":
        pair.take(pair.b)
    assert pair.flow()[0] == 1


def test_the_last_places_of_the_other_are_used_and_no_more(pair: Pair) -> None:
    pair.configure(pair.b, max_count=3)
    pair.put(*(f"m{n}" for n in range(5)))
    assert pair.flow()[0] == 3
    assert pair.flow() == (0, "full")
    pair.configure(pair.b, max_bytes=7)
    assert pair.flow() == (0, "idle"), "half a message's room is none"
    pair.configure(pair.b, max_bytes=8)
    assert pair.flow()[0] == 1


def test_what_waits_in_the_other_is_no_more_than_two_seconds_of_its_pace(pair: Pair) -> None:
    pair.configure(pair.a, rate=1000)
    pair.put(*(f"m{n}" for n in range(300)))
    for _ in range(5):
        pair.flow()
    assert pair.b.census().law["ready"] == 2 * RATE
    pair.take(pair.b, 50)
    pair.client.hset("{b}:gate", "pace", "80")
    assert pair.flow()[0] == 10, "its pace has fallen: 160 are two seconds of it"


# -- how many ---------------------------------------------------------------------------------


def test_no_share_moves_nothing(pair: Pair) -> None:
    pair.put("m")
    assert pair.flow(share=0) == (0, "share")
    pair.client.hset("{a}:gate", mapping={"fb_share": 50, "fb_to": "c"})
    assert pair.a.move("b") == (0, "share"), "it was meant for another"


@pytest.mark.parametrize(
    ("share", "seconds", "count"), [(10, 1, 10), (30, 0.5, 15), (100, 0.1, 10)]
)
def test_the_share_is_of_the_rate(pair: Pair, share: int, seconds: float, count: int) -> None:
    pair.put(*(f"m{n}" for n in range(120)))
    assert pair.flow(share, seconds) == (count, "moved")


def test_a_pace_that_has_fallen_does_not_lessen_it_but_a_live_rate_does(pair: Pair) -> None:
    pair.put(*(f"m{n}" for n in range(60)))
    pair.client.hset("{a}:gate", "pace", "1")
    assert pair.flow(30)[0] == 30
    pair.a.set_rate(50)
    assert pair.flow(30)[0] == 15


def test_parts_of_a_message_add_up(pair: Pair) -> None:
    pair.configure(pair.a, rate=1)
    pair.put(*(f"m{n}" for n in range(5)))
    assert [pair.flow(30)[0] for _ in range(7)] == [0, 0, 0, 1, 0, 0, 1]


def test_time_in_which_nobody_moved_is_not_made_up_for(pair: Pair) -> None:
    pair.put(*(f"m{n}" for n in range(100)))
    assert pair.flow(10, seconds=600)[0] == 20


def test_two_daemons_move_no_more_than_one(pair: Pair) -> None:
    pair.put(*(f"m{n}" for n in range(200)))
    pair.flow(50)
    before = pair.b.census().law["ready"]
    for _ in range(20):
        pair.now += SECOND // 20
        pair.a.move("b")
        pair.a.move("b")
    assert pair.b.census().law["ready"] - before == pytest.approx(50, abs=1)


def test_a_clock_that_steps_back_stops_nothing(pair: Pair) -> None:
    pair.put(*(f"m{n}" for n in range(40)))
    assert pair.flow(10)[0] == 10
    pair.now -= 3600 * SECOND
    assert pair.flow(10)[0] == 0, "nobody knows how long this second was"
    assert pair.flow(10)[0] == 10


# -- whatever else goes on --------------------------------------------------------------------


@pytest.mark.parametrize("luck", range(3))
def test_the_books_of_both_balance_after_every_step(pair: Pair, luck: int) -> None:
    dice = random.Random(luck)
    pair.configure(pair.b, max_count=40)
    pair.a.lean("b", 0, 60, 0, loud=True)
    held: list[tuple[OutboxStore, str, str]] = []

    def enqueue() -> None:
        to = dice.choice([pair.a, pair.a, pair.b])
        expires = dice.choice([None, pair.now / 1e6 + 3])
        name, payload = f"m{dice.randrange(60)}", dice.choice([b"[]", b"[1]"])
        message = Message(id=name, destination="a", payload=payload, expires=expires,
                          tenant=dice.choice([None, "acme"]),
                          priority=dice.choice(["high", "normal", "bulk"]))  # fmt: skip
        to.enqueue_many([message])

    def take() -> None:
        store = dice.choice([pair.a, pair.b])
        store.slots("beat", "ann", 0)
        nonce, ids = pair.take(store, dice.randrange(1, 8))
        held.extend((store, message_id, nonce) for message_id in ids)

    def settle() -> None:
        if held:
            store, message_id, nonce = held.pop(dice.randrange(len(held)))
            action: Any = dice.choice(["sent", "retry", "back", "dead", "parked"])
            store.settle([Settlement(id=message_id, nonce=nonce, action=action, charge=True)])

    def tend() -> None:
        for store in (pair.a, pair.b):
            store.promote()
            store.expire()
            store.reap("run-0", "daemon")

    def cancel() -> None:
        dice.choice([pair.a, pair.b]).cancel([f"m{dice.randrange(60)}"])

    for _ in range(250):
        pair.now += dice.choice([0, SECOND // 20, SECOND])
        dice.choice([enqueue, enqueue, take, settle, tend, cancel, lambda: pair.a.move("b", 3)])()
        a, b = pair.a.census(), pair.b.census()
        assert a.sound, a.law
        assert b.sound, b.law
        assert a.law["moved_out"] == b.law["moved_in"]
    assert a.law["moved_out"] > 5, "too little was moved to prove anything"


# -- afterwards -------------------------------------------------------------------------------


def test_a_repeated_enqueue_is_answered_as_ever(pair: Pair) -> None:
    pair.put("m")
    pair.flow()
    again = Message(id="m", destination="a", payload=b"[]")
    assert pair.a.enqueue(again) == "already"
    with pytest.raises(DuplicateConflict):
        pair.a.enqueue(Message(id="m", destination="a", payload=b"[1]"))
    assert pair.a.census().law["accepted"] == 1
    assert pair.where("m") == ("moved", "ready")


def test_whoever_asks_is_told_where_it_went(pair: Pair) -> None:
    pair.put("m")
    pair.flow()
    outbox = Outbox(pair.client)
    found = outbox.status("a", "m")
    assert (found.state, found.final, found.provider_id) == ("moved", True, "b")
    assert found.ended_at == pair.now / 1e6
    assert outbox.wait("a", "m", timeout_s=1).state == "moved"
    with pytest.raises(NotPossible, match="Cancel it in b"):
        outbox.cancel("a", "m")
    assert outbox.cancel("b", "m")


def test_the_record_here_lasts_as_long_as_of_any_end(pair: Pair) -> None:
    pair.configure(pair.a, record_us=60 * SECOND)
    pair.put("m")
    pair.flow()
    assert 0 < int(pair.client.pttl("{a}:m:m")) <= 60_000
    assert int(pair.client.pttl("{b}:m:m")) == -1, "the message itself must not run out"


# -- the share is changed by one at a time ----------------------------------------------------


def test_of_two_daemons_that_decide_the_same_one_changes_it(pair: Pair) -> None:
    assert pair.a.lean("b", 0, 10, 60, loud=True) == (10, True)
    assert pair.a.lean("b", 0, 10, 60, loud=True) == (10, False)
    pair.now += 59 * SECOND
    assert pair.a.lean("b", 10, 20, 60, loud=True) == (10, False)
    pair.now += SECOND
    assert pair.a.lean("b", 10, 20, 60, loud=False) == (20, True)
    gate = pair.a.census().gate
    assert (int(gate["fb_at"]), int(gate["fb_loud_at"])) == (pair.now, pair.now - SECOND)


def test_a_clock_that_stepped_back_holds_it_up_for_one_span_at_most(pair: Pair) -> None:
    pair.a.lean("b", 0, 10, 60, loud=True)
    pair.now -= 3600 * SECOND
    assert pair.a.lean("b", 10, 20, 60, loud=True) == (10, False)
    pair.now += 60 * SECOND
    assert pair.a.lean("b", 10, 20, 60, loud=True) == (20, True)


def test_another_fallback_begins_at_nothing(pair: Pair) -> None:
    pair.a.lean("b", 0, 10, 60, loud=True)
    pair.now += 60 * SECOND
    assert pair.a.lean("c", 10, 20, 60, loud=True) == (0, False)
    assert pair.a.lean("c", 0, 10, 60, loud=True) == (10, True)


# -- between different providers --------------------------------------------------------------

NATIVE = b'{"recipients": [], "email": {}}'
NEUTRAL = b'{"email": {"from": "a@b.example"}}'


@pytest.mark.parametrize(
    "payload",
    [NEUTRAL, b' \n{ "email" : {} }', b'{"email":{"subject":"' + b"x" * 5000 + b'"}}'],
)
def test_a_neutral_e_mail_moves_to_another_provider(pair: Pair, payload: bytes) -> None:
    pair.configure(pair.a, fallback_neutral=1)
    pair.put("one", payload=payload, tenant="acme", campaign="spring")
    assert pair.flow() == (1, "idle")
    assert pair.moved("one")


@pytest.mark.parametrize(
    "payload",
    [
        *(NATIVE, b"[]", b'""', b'{"email":"a@b.example"}', b'{"Email":{}}', b'{"x":{"email":{}}}'),
        *(b'["email",{}]', b'{"email ":{}}', b"5", b"null", b'{"em\\u0061il":{}}'),
    ],
)
def test_what_only_its_own_provider_understands_stays(pair: Pair, payload: bytes) -> None:
    pair.configure(pair.a, fallback_neutral=1)
    pair.put("own", payload=payload)
    pair.put("mail", payload=NEUTRAL)
    assert pair.flow() == (1, "idle")
    assert pair.where("own") == ("ready", "")
    assert pair.moved("mail")


def test_to_the_same_provider_everything_moves(pair: Pair) -> None:
    pair.configure(pair.a, fallback_neutral=0)
    pair.put("own", payload=NATIVE)
    assert pair.flow() == (1, "idle")
    assert pair.moved("own")
