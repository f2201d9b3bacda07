"""Several sender threads at one Redis connection: one round trip for all, and nobody's trouble is
another's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis
from redis.exceptions import ResponseError

from paceline.answers import Leased, Permit, Settlement
from paceline.clock import Clock
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.scripts import Pinned
from paceline.shared_config import publish
from paceline_workers.exchange import Exchange, Turn
from paceline_workers.gate import WireGate
from paceline_workers.recall import Recall
from paceline_workers.settler import Settler
from support.line import destination
from support.wait import until

NONCE = "n" * 16


class Rig:
    """A destination with ten leased messages, and threads that speak of them."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.store = OutboxStore(client, "d")
        publish(self.store, destination("http://127.0.0.1:9/", more="rate = 1000"))
        self.store.slots("beat", "w", 10)
        for n in range(10):
            self.store.enqueue(Message(destination="d", id=f"m-{n}", payload=b"{}"))
        taken = self.store.take("w", NONCE, 10, "any")
        self.leased = {leased.id: leased for leased in self.store.fetch(taken)}
        # A bucket with something in it: a new one starts empty.
        client.hset("{d}:gate", mapping={"level": 50, "at": self.store.redis_now_us()})
        client.hset("{d}:gate", "run", str(client.info("server")["run_id"]))
        self.ticks = 0
        self.exchange = Exchange(self.store, Pinned(client), self._tick)
        self.settled: list[str] = []
        self.settler = Settler(self.store, lambda done: self.settled.extend(s.id for s in done))
        self.settler.start()
        self.stopping = threading.Event()

    def _tick(self) -> float:
        self.ticks += 1
        return float(self.ticks)

    def gate(self) -> WireGate:
        return WireGate(self.exchange, self.settler, Clock(), self.stopping)

    def state(self, message_id: str) -> str:
        found = self.store.look([message_id])[0]
        assert found is not None
        return found[0].state

    def calls(self) -> int:
        stats: Any = self.client.info("commandstats")
        return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


def sent(message_id: str, **more: Any) -> Settlement:
    return Settlement(id=message_id, nonce=NONCE, action="sent", sha1=b"x" * 20, **more)


@pytest.fixture
def rig(redis_client: redis.Redis) -> Iterator[Rig]:
    made = Rig(redis_client)
    yield made
    made.stopping.set()
    made.settler.close(2.0)
    made.exchange.close()


def _say(rig: Rig, what: list[tuple[list[Settlement], Leased | None]]) -> list[Turn]:
    """All of it while the first one is at Redis, each in a thread of its own."""
    turns = [Turn() for _ in what]

    def speak(turn: Turn, settlements: list[Settlement], asks: Leased | None) -> None:
        rig.exchange.say(turn, settlements, asks)

    threads = [
        threading.Thread(target=speak, args=(turn, *said), daemon=True)
        for turn, said in zip(turns, what, strict=True)
    ]
    rig.client.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
    threads[0].start()
    until(lambda: rig.exchange._busy and not rig.exchange._gathered, 5, "one is at Redis")
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(rig.exchange._gathered) == len(threads) - 1, 5, "the others gather")
    rig.client.execute_command("CLIENT", "UNPAUSE")
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "a thread was forgotten"
    return turns


def test_who_waits_together_speaks_in_one_round_trip(rig: Rig) -> None:
    rig.exchange.say(Turn(), [], rig.leased["m-9"])  # the script is known to Redis now
    before = rig.calls()
    lost = msgspec.structs.replace(rig.leased["m-8"], nonce="x" * 16)
    turns = _say(rig, [([], leased) for leased in (*list(rig.leased.values())[:6], lost)])
    assert rig.calls() - before == 2, "one call for the first, one for the six behind it"
    verdicts = [getattr(turn.permit, "verdict", None) for turn in turns]
    assert verdicts == ["go"] * 6 + ["gone"]
    assert {rig.state(f"m-{n}") for n in range(6)} == {"begun"}
    # The answer's age counts from its reading, not from when the thread that waited woke up.
    assert len({turn.at_s for turn in turns[1:]}) == 1


def test_the_last_outcome_and_the_next_ask_are_one_trip(rig: Rig) -> None:
    gate = rig.gate()
    gate.await_permit(rig.leased["m-0"])
    gate.carry(sent("m-0"))
    assert gate.carried == 1
    permit, _ = gate.await_permit(rig.leased["m-1"])
    assert (permit.verdict, gate.carried) == ("go", 0)
    assert (rig.state("m-0"), rig.state("m-1")) == ("sent", "begun")
    assert rig.settled == ["m-0"]


class Dawdling:
    """The exchange's lock, of which one thread comes away late: when its turn has been given to it
    already."""

    def __init__(self, lock: Any, turn: Turn) -> None:
        self._lock, self._turn = lock, turn
        self.thread: threading.Thread | None = None

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if threading.current_thread() is self.thread:
            self.thread = None
            until(lambda: self._turn.leads, 10, "it is its turn")


def test_a_turn_given_before_it_was_waited_for_is_taken_once(rig: Rig) -> None:
    """Found by a soak: the next call did not wait for its answer, and read none."""
    mine, exchange = Turn(), rig.exchange
    lock = Dawdling(exchange._lock, mine)
    exchange._lock = lock  # type: ignore[assignment]

    def both() -> None:
        exchange.say(mine, [], rig.leased["m-1"])
        again.wait(10)
        exchange.say(mine, [sent("m-1")], None)

    def speak(ask: str) -> threading.Thread:
        other = threading.Thread(
            target=exchange.say, args=(Turn(), [], rig.leased[ask]), daemon=True
        )
        rig.client.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
        other.start()
        until(lambda: exchange._busy and not exchange._gathered, 5, "another is at Redis")
        return other

    again = threading.Event()
    lock.thread = thread = threading.Thread(target=both, daemon=True)
    others = [speak("m-2")]
    thread.start()
    until(lambda: exchange._gathered, 5, "it waits behind the other")
    rig.client.execute_command("CLIENT", "UNPAUSE")
    until(lambda: mine.permit is not None, 10, "it is answered")
    until(lambda: not exchange._busy, 10, "all is quiet")
    others.append(speak("m-3"))
    again.set()
    until(lambda: exchange._gathered or not thread.is_alive(), 10, "it speaks again")
    rig.client.execute_command("CLIENT", "UNPAUSE")
    for one in (thread, *others):
        one.join(10)
    assert mine.words == ["ok"]


def test_what_each_thread_settled_is_answered_to_it(rig: Rig) -> None:
    for n in range(3):
        rig.exchange.say(Turn(), [], rig.leased[f"m-{n}"])
    more = ([sent("m-1")], rig.leased["m-5"])
    turns = _say(rig, [([sent("m-0")], None), more, ([sent("no-such"), sent("m-2")], None)])
    assert [turn.words for turn in turns] == [["ok"], ["ok"], ["gone", "ok"]]
    assert [turn.permit is not None for turn in turns] == [False, True, False]


def test_an_outcome_that_cannot_be_told_spoils_nobody_elses(rig: Rig) -> None:
    spoilt, sound = rig.gate(), rig.gate()
    for gate, message_id in ((spoilt, "m-0"), (sound, "m-1")):
        gate.await_permit(rig.leased[message_id])
    spoilt.carry(sent("m-0", record={"planted": object()}))
    sound.carry(sent("m-1"))
    done = [
        threading.Thread(target=gate.await_permit, args=(rig.leased[next_id],), daemon=True)
        for gate, next_id in ((spoilt, "m-2"), (sound, "m-3"))
    ]
    for thread in done:
        thread.start()
    for thread in done:
        thread.join(10)
        assert not thread.is_alive(), "one poisoned outcome stopped a sender"
    assert rig.state("m-1") == "sent"
    assert (rig.state("m-2"), rig.state("m-3")) == ("begun", "begun")
    assert rig.state("m-0") == "begun", "left to its lease"


def test_an_outcome_that_redis_refuses_is_kept_until_it_is_taken(rig: Rig) -> None:
    gate = rig.gate()
    gate.await_permit(rig.leased["m-0"])
    gate.carry(sent("m-0", label="sent:200"))
    rig.client.rename("{d}:cfg", "kept")
    rig.client.set("{d}:cfg", "in the way")
    waiting = threading.Thread(target=gate.flush, daemon=True)
    waiting.start()
    until(lambda: len(rig.settler) == 1, 5, "it is the settler's")
    assert waiting.is_alive(), "nothing may begin on this connection before Redis knows"
    rig.client.rename("kept", "{d}:cfg")
    waiting.join(10)
    assert not waiting.is_alive()
    assert (rig.state("m-0"), gate.carried, len(rig.settler)) == ("sent", 0, 0)


def test_without_redis_every_thread_is_told_and_none_is_stuck(rig: Rig) -> None:
    real = rig.store.turn
    away = redis.exceptions.ConnectionError("away")

    def fails(*_: Any) -> Any:
        raise away

    rig.store.turn = fails  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(redis.exceptions.ConnectionError):
            rig.exchange.say(Turn(), [sent("m-0")], rig.leased["m-1"])
    rig.store.turn = real  # type: ignore[method-assign]
    turn = Turn()
    rig.exchange.say(turn, [], rig.leased["m-1"])
    assert not isinstance(turn.permit, ResponseError)


def test_what_is_carried_when_the_worker_stops_is_settled_all_the_same(rig: Rig) -> None:
    gate = rig.gate()
    gate.await_permit(rig.leased["m-0"])
    gate.carry(sent("m-0"))
    rig.stopping.set()
    gate.flush()
    assert rig.settler.close(5.0) == 0
    assert rig.state("m-0") == "sent"


def test_a_redis_that_forgot_is_told_before_anything_begins_there(rig: Rig) -> None:
    recall = Recall(rig.store, rig._tick)
    recall.look("the Redis before")
    recall.note([sent("m-0")], ["ok"])
    pinned = Pinned(rig.client)
    turn = Turn()
    Exchange(rig.store, pinned, rig._tick, recall).say(turn, [], rig.leased["m-0"])
    assert isinstance(turn.permit, Permit)
    assert (turn.permit.verdict, rig.state("m-0")) == ("gone", "sent")


class LateTurn(Turn):
    """Its thread comes to look whether it leads only after the lead was handed to it."""

    def __init__(self) -> None:
        self.handed = threading.Event()
        super().__init__()

    def __getattribute__(self, name: str) -> Any:
        if name == "leads":
            assert self.handed.wait(5)
        return super().__getattribute__(name)


def test_a_baton_handed_over_early_is_taken_all_the_same(rig: Rig) -> None:
    """Left released it would end the next wait before anybody has spoken."""
    turn = LateTurn()
    rig.exchange._busy = True  # another speaks
    speaker = threading.Thread(target=rig.exchange.say, args=(turn, [], rig.leased["m-0"]))
    speaker.start()
    until(lambda: rig.exchange._gathered, 5, "it has joined")
    with rig.exchange._lock:
        turn.leads = True
        turn.baton.release()
    turn.handed.set()
    speaker.join(5)
    assert isinstance(turn.permit, Permit)
    assert turn.baton.locked()
