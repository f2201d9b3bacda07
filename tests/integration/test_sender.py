"""The sender and what stands around it: queue, threads, leases, outcomes, defects of ours."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import redis

from paceline.answers import Leased, Settlement, Share
from paceline.clock import Clock
from paceline.embedded import EmbeddedServer
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.shared_config import publish
from paceline.sink.thread import SinkThread
from paceline_workers.heartbeat import Heartbeat
from paceline_workers.pending import PendingQueue
from paceline_workers.runtime import WorkerRuntime
from paceline_workers.sender import STUCK_AFTER_S, Sender, _Desk
from paceline_workers.settler import Settler
from paceline_workers.transports.pool import ConnectionPool, Retirement
from support.line import QUICK, Line, destination
from support.servers import connect
from support.wait import until

Change = Callable[[WorkerRuntime], None]


def _broken(runtime: WorkerRuntime, name: str, spoil: Callable[[Any], Any]) -> None:
    """Plants a defect in the profile: ``spoil`` gets the sound method and returns its successor."""
    profile = runtime.engine.profile
    replaced = type("Broken", (), {})()
    for attribute in ("name", "policy", "render", "judge"):
        if hasattr(profile, attribute):
            setattr(replaced, attribute, getattr(profile, attribute))
    setattr(replaced, name, spoil(getattr(profile, name)))
    runtime.engine.profile = replaced


def _threads_alive(line: Line) -> bool:
    sender = line.workers[0].runtime.engine.sender
    return all(thread.is_alive() for thread in sender._threads)


# -- defects of ours ----------------------------------------------------------------------------


def test_a_defect_before_the_wire_is_a_dead_letter_and_no_more(redis_url: str) -> None:
    def spoil(render: Any) -> Any:
        def broken(message_id: str, payload: bytes) -> Any:
            if message_id == "bad":
                raise ZeroDivisionError("planted")
            return render(message_id, payload)

        return broken

    with (
        SinkThread(profile="http") as sink,
        Line(
            redis_url, destination(sink.url), change=lambda r: _broken(r, "render", spoil)
        ) as line,
    ):
        line.send({}, id="bad")
        for n in range(20):
            line.send({}, id=f"m-{n}")
        status = line.wait("dead", "bad")
        assert status.history[-1]["reason"] == "internal: ZeroDivisionError"
        line.wait_done()
        assert len(sink.arrivals()) == 20
        assert _threads_alive(line)


def test_a_reply_that_breaks_its_judge_is_ambiguous_and_bounded(redis_url: str) -> None:
    def spoil(_: Any) -> Any:
        def broken(*_: Any) -> Any:
            raise KeyError("planted")

        return broken

    with SinkThread(profile="http") as sink:
        to = destination(sink.url, tables=QUICK + "max_retries = 2\n")
        with Line(redis_url, to, change=lambda r: _broken(r, "judge", spoil)) as line:
            line.send({})
            status = line.wait("dead")
            assert [a["outcome"] for a in status.history] == ["ambiguous"] * 3
            assert status.history[0]["reason"] == "internal: KeyError"
            assert status.history[0]["status"] == 200
            assert len(sink.arrivals()) == 3
            assert _threads_alive(line)


@pytest.mark.timeout(60)
def test_a_defect_after_the_write_leaves_the_message_to_its_lease(redis_url: str) -> None:
    planted = threading.Event()

    def change(runtime: WorkerRuntime) -> None:
        policy = runtime.engine.profile.policy

        class Broken:
            name = runtime.engine.profile.name
            render = staticmethod(runtime.engine.profile.render)
            judge = staticmethod(runtime.engine.profile.judge)

            @property
            def policy(self) -> Any:
                if not planted.is_set():
                    planted.set()
                    raise ZeroDivisionError("planted")
                return policy

        runtime.engine.profile = Broken()  # type: ignore[assignment]

    with (
        SinkThread(profile="http") as sink,
        Line(redis_url, destination(sink.url, more="lease_s = 2.0"), change=change) as line,
    ):
        line.send({})
        status = line.wait("sent", timeout_s=15)
        assert [a["outcome"] for a in status.history] == ["ambiguous", "sent"]
        assert len(sink.arrivals()) == 2
        assert _threads_alive(line)


# -- order, bounds, slowness --------------------------------------------------------------------


def test_a_slow_reply_holds_up_nobody_else(redis_url: str) -> None:
    with (
        SinkThread(profile="http", script={"m-0": ["hang:for=3s"]}) as sink,
        Line(redis_url, destination(sink.url, more="connections = 2\nrate = 500")) as line,
    ):
        for n in range(150):
            line.send({}, id=f"m-{n}")
        until(lambda: line.store.census().law["sent"] == 149, 2.9, "the others are sent")
        assert line.status("m-0").state == "begun"


def test_high_passes_what_waits(redis_url: str) -> None:
    """Also a batch that is still on its way into the queue, which takes seconds here."""
    with (
        SinkThread(profile="http", latency="60ms") as sink,
        Line(redis_url, destination(sink.url, more="connections = 1\nrate = 50")) as line,
    ):
        for n in range(40):
            line.send({}, id=f"b-{n}", priority="bulk")
        sink.wait_ended(3)
        line.send({}, id="urgent", priority="high")
        seen = len(sink.arrivals())
        line.wait("sent", "urgent")
        place = [a.id for a in sink.arrivals()].index("urgent")
        assert place <= seen + 4, "it waited behind what was taken before"


def test_the_queue_is_bounded_and_what_is_taken_is_soon_sent(redis_url: str) -> None:
    with SinkThread(profile="http", latency="50ms") as sink:
        more = "rate = 20\nburst = 20\nconnections = 1"
        with Line(redis_url, destination(sink.url, more=more)) as line:
            for n in range(40):
                line.send({}, id=f"m-{n}")
            sender = line.workers[0].runtime.engine.sender
            most = 0

            def done() -> bool:
                nonlocal most
                most = max(most, sender.counts()["queued"])
                return len(sink.arrivals()) >= 15

            until(done, 10, "some are sent", 0.005)
            assert most == 2, "a tenth of a second of the rate"


# -- leases -------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_leases_are_renewed_while_messages_wait_for_permits(redis_url: str) -> None:
    more = "rate = 2\nburst = 12\nconnections = 1\nreserve = 0\nlease_s = 2.0"
    with (
        SinkThread(profile="http") as sink,
        Line(redis_url, destination(sink.url, more=more)) as line,
    ):
        line.client.hset("{d}:gate", mapping={"level": -6, "at": line.store.redis_now_us()})
        for n in range(3):
            line.send({}, id=f"m-{n}")
        line.wait_done(15)
        census = line.store.census()
        assert census.counters.get("reaped", 0) == 0
        assert census.counters.get("late_sent", 0) == 0
        took_s = (sink.arrivals()[-1].mono_ns - sink.arrivals()[0].mono_ns) / 1e9
        assert took_s > 0.9
        assert len(sink.arrivals()) == 3


class _Sent:
    """A store, a pool and a sender without threads, with a clock of our own."""

    def __init__(self, client: redis.Redis) -> None:
        self.now = 1000.0
        self.store = OutboxStore(client, "d")
        self.to = destination("http://127.0.0.1:9/")
        publish(self.store, self.to)
        self.pool = ConnectionPool([], Retirement(), clock=time.monotonic, rand=random.random)
        self.pool.set_limit(2)
        self.sender = Sender(
            0,
            PendingQueue(100),
            self.pool,
            lambda _: pytest.fail("no thread"),
            lambda settled: Settler(self.store, settled),
            clock=Clock(monotonic_s=lambda: self.now),
            total_timeout_s=35.0,
            stopping=threading.Event(),
        )

    def take(self, count: int, nonce: str = "n" * 16) -> tuple[dict[str, int], Iterator[Leased]]:
        self.store.slots("beat", "w", 2)
        for n in range(count):
            self.store.enqueue(Message(destination="d", id=f"m-{n}", payload=b"{}"))
        taken = self.store.take("w", nonce, count, "any")
        return dict(taken.sizes), self.store.fetch(taken)


def test_a_stuck_request_is_not_renewed_and_a_long_wait_is(redis_client: redis.Redis) -> None:
    it = _Sent(redis_client)
    sizes, messages = it.take(3)
    assert it.sender.accept("n" * 16, sizes, messages) == 3
    assert it.sender.nonces_to_renew() == ["n" * 16]
    leased = it.sender._queue.get(0)
    assert leased is not None
    it.now += 3600  # in the queue, or at the gate: not begun
    assert it.sender.nonces_to_renew() == ["n" * 16]
    it.sender._desks.append(_Desk(nonce=leased.nonce, begun_s=it.now))
    it.now += 35.0 + STUCK_AFTER_S - 0.1
    assert it.sender.nonces_to_renew() == ["n" * 16]
    it.now += 0.2
    assert it.sender.nonces_to_renew() == []


def test_what_could_not_be_fetched_is_given_back_at_once(redis_client: redis.Redis) -> None:
    it = _Sent(redis_client)
    sizes, messages = it.take(4)

    def broken() -> Iterator[Leased]:
        yield next(messages)
        raise redis.exceptions.ConnectionError("away")

    with pytest.raises(redis.exceptions.ConnectionError):
        it.sender.accept("n" * 16, sizes, broken())
    it.sender.settler.start()
    until(lambda: it.store.census().law["ready"] == 3, 5, "three are back")
    assert it.store.census().law["leased"] == 1
    assert len(it.sender._queue) == 1
    assert it.sender.settler.close(1) == 0


def test_a_batch_that_closes_on_the_way_in_goes_back(redis_client: redis.Redis) -> None:
    it = _Sent(redis_client)
    sizes, messages = it.take(4)
    it.sender._close_for(None, "paused")
    assert it.sender.accept("n" * 16, sizes, messages) == 0
    it.sender.settler.start()
    until(lambda: it.store.census().law["ready"] == 4, 5, "all are back")
    until(lambda: it.sender.nonces_to_renew() == [], 5, "nothing is renewed")
    it.sender.settler.close(1)


# -- outcomes -----------------------------------------------------------------------------------


def _settler(store: OutboxStore) -> tuple[Settler, list[Settlement]]:
    seen: list[Settlement] = []
    settler = Settler(store, seen.extend)
    settler.start()
    return settler, seen


def test_an_outcome_that_cannot_be_told_holds_up_no_other(
    redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    it = _Sent(redis_client)
    it.take(5)
    settler, seen = _settler(it.store)
    for n in range(5):
        bad = "\ud800" if n == 2 else ""  # no UTF-8
        settler.put(Settlement(id=f"m-{n}", nonce="n" * 16, action="sent", provider_id=bad))
    until(lambda: it.store.census().law["sent"] == 4, 10, "the others are settled")
    until(lambda: len(seen) == 5, 5, "all are off its hands")
    assert it.store.census().law["leased"] == 1
    assert settler.close(5) == 0
    assert any("m-2" in record.getMessage() for record in caplog.records)


@pytest.mark.timeout(60)
def test_outcomes_outlive_a_redis_that_refuses_and_one_that_is_away(
    durable_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    client = connect(durable_server.url)
    it = _Sent(client)
    it.take(6)
    settler, seen = _settler(it.store)
    # A fail-over half done: a replica refuses to be written to.
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    for n in range(3):
        settler.put(Settlement(id=f"m-{n}", nonce="n" * 16, action="sent"))

    def refusals() -> int:
        found: Any = client.info("errorstats")
        return int(found.get("errorstat_READONLY", {}).get("count", 0))

    until(lambda: refusals() >= 4, 5, "it is refused, all together and one by one", 0.05)
    assert any("read only" in r.getMessage() for r in caplog.records)
    assert len(settler) == 3
    client.execute_command("REPLICAOF", "NO", "ONE")
    until(lambda: it.store.census().law["sent"] == 3, 10, "settled")
    durable_server.kill()
    for n in range(3, 6):
        settler.put(Settlement(id=f"m-{n}", nonce="n" * 16, action="sent"))
    durable_server.start()
    until(lambda: len(seen) == 6, 10, "settled after the restart")
    assert it.store.census().law["sent"] == 6
    assert settler.close(5) == 0
    assert len(caplog.records) < 10, "an outage fills the log"


def test_a_stop_waits_for_outcomes_and_not_for_what_merely_goes_back(
    redis_client: redis.Redis,
) -> None:
    away = OutboxStore(connect("redis://127.0.0.1:1/0"), "d")
    for action, least_s, most_s in (("back", 0.0, 2.6), ("sent", 2.8, 3.6)):
        settler, _ = _settler(away)
        settler.put(Settlement(id="m", nonce="n" * 16, action=action))  # type: ignore[arg-type]
        began = time.monotonic()
        assert settler.close(3.0) == 1
        assert least_s <= time.monotonic() - began <= most_s


# -- the heartbeat ------------------------------------------------------------------------------


class _Asked(OutboxStore):
    """Calls ``then`` between the script's answer and its use."""

    then: Callable[[], object] = staticmethod(lambda: None)

    def slots(self, *arguments: Any, **options: Any) -> Share:
        share = super().slots(*arguments, **options)
        self.then()
        return share


def _heart(
    client: redis.Redis,
    name: str,
    facts: Callable[[], Mapping[str, Any]] = dict,
    elapsed_s: Callable[[], float] = time.monotonic,
) -> tuple[Heartbeat, ConnectionPool, _Asked]:
    store = _Asked(client, "d")
    it = _Sent(client)
    pool = ConnectionPool([], Retirement(), clock=time.monotonic, rand=random.random)
    beat = Heartbeat(
        store, name, pool, it.sender, facts, lambda: None, period_s=0.02, elapsed_s=elapsed_s
    )
    return beat, pool, store


def test_no_connection_is_granted_twice_while_an_answer_is_under_way(
    redis_client: redis.Redis,
) -> None:
    a, pool_a, store_a = _heart(redis_client, "a")
    b, pool_b, _ = _heart(redis_client, "b")
    a.run_once()
    assert pool_a.limit == 10
    b.run_once()
    sums: list[int] = []

    def others_beat() -> None:
        b.run_once()
        sums.append(pool_a.limit + pool_b.limit)

    store_a.then = others_beat  # type: ignore[method-assign]
    for _ in range(4):
        a.run_once()
    assert max(sums) <= 10, "both could have opened them"
    assert (pool_a.limit, pool_b.limit) == (5, 5)


def test_one_that_comes_back_claims_only_what_it_has_open(redis_client: redis.Redis) -> None:
    """It lapsed, frozen; the others have its share, and it has nothing open."""
    now = [100.0]
    a, pool_a, _ = _heart(redis_client, "a", elapsed_s=lambda: now[0])
    b, pool_b, _ = _heart(redis_client, "b")
    a.run_once()
    assert pool_a.limit == 10
    redis_client.zadd("{d}:workers", {"a": 1})
    b.run_once()
    assert pool_b.limit == 10
    now[0] += 60
    a.run_once()
    assert pool_a.limit == 0, "twenty connections in all"
    for beat in (b, a, b, a):
        beat.run_once()
        assert pool_a.limit + pool_b.limit <= 10
    assert (pool_a.limit, pool_b.limit) == (5, 5)


def test_a_defect_does_not_end_the_heartbeat(redis_client: redis.Redis) -> None:
    times: list[int] = []

    def facts() -> Mapping[str, Any]:
        times.append(1)
        if len(times) == 2:
            raise ZeroDivisionError("planted")
        return {}

    beat, pool, store = _heart(redis_client, "a", facts)
    beat.run_once()
    beat.start()
    until(lambda: len(times) > 4, 5, "it goes on")
    assert pool.limit == 10
    beat.stop()
    assert store.census().workers == []
