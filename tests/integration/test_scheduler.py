"""The scheduler's turns against real scripts: what it releases, when it looks again."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

import pytest
import redis

from paceline.connect import connect
from paceline.dispatch import Dispatcher
from paceline.message import Message
from paceline.names import Lane, queue_name
from paceline.outbox import OutboxStore
from paceline.scheduler import INVITATION_LEASE_S, Scheduler
from paceline.service import DaemonService
from paceline.shared_config import publish
from support.line import destination
from support.wait import until

MORE = "rate = 50\nburst = 100\nconnections = 5\n"


@dataclass
class Invited:
    """An inviter that notes; ``fails`` times it cannot reach RQ."""

    fails: int = 0
    refuses: bool = False
    noted: list[tuple[str, int, Lane]] = field(default_factory=list)

    def invite(self, invitation_id: str, count: int, lane: Lane, ttl_s: float) -> None:
        if self.fails:
            self.fails -= 1
            raise redis.exceptions.ConnectionError("away")
        if self.refuses:
            raise redis.exceptions.OutOfMemoryError("command not allowed")
        assert ttl_s == INVITATION_LEASE_S
        self.noted.append((invitation_id, count, lane))


class Bench:
    def __init__(self, client: redis.Redis) -> None:
        self.now_us = 1_800_000_000_000_000
        self.client = client
        self.store = OutboxStore(client, "d", now_us=lambda: self.now_us)
        self.to = destination("http://127.0.0.1:9/", more=MORE)
        publish(self.store, self.to)
        self.invited = Invited()
        self.scheduler = self.another()

    def another(self) -> Scheduler:
        return Scheduler(self.store, self.invited, self.to.batch)

    def worker(self, name: str = "w") -> None:
        self.store.slots("beat", name)

    def send(self, count: int, prefix: str = "m", **options: object) -> None:
        messages = [
            Message(destination="d", id=f"{prefix}-{n}", payload=b"{}", **options)  # type: ignore[arg-type]
            for n in range(count)
        ]
        for answer in self.store.enqueue_many(messages):
            assert answer == "new", answer

    @property
    def released(self) -> int:
        return sum(count for _, count, _ in self.invited.noted)


@pytest.fixture
def bench(redis_client: redis.Redis) -> Bench:
    return Bench(redis_client)


@pytest.mark.parametrize("priority", ["normal", "high"])
def test_nothing_without_a_worker_and_soon_after_there_is_one(bench: Bench, priority: str) -> None:
    bench.send(3, priority=priority)
    turn = bench.scheduler.run_once()
    assert (turn.released, turn.why) == (0, "no-worker")
    assert turn.next_s <= 0.25, "a worker that comes is left without work"
    bench.worker()
    assert bench.scheduler.run_once().released == 3


def test_high_alone_is_looked_at_as_often_as_the_rest(bench: Bench) -> None:
    bench.send(3, priority="high")
    bench.store.hold("pause")
    bench.worker()
    turn = bench.scheduler.run_once()
    assert (turn.released, turn.why) == (0, "paused")
    assert turn.next_s <= 0.25
    bench.store.hold("resume")
    assert bench.scheduler.run_once().released == 3
    assert [lane for _, _, lane in bench.invited.noted] == ["high"]


def test_idle_it_sleeps_until_the_next_is_due(bench: Bench) -> None:
    bench.worker()
    assert bench.scheduler.run_once().next_s == 1.0
    bench.send(1, not_before=bench.now_us / 1e6 + 0.3)
    turn = bench.scheduler.run_once()
    assert (turn.promoted, turn.released) == (0, 0)
    assert 0.25 < turn.next_s <= 0.3
    bench.now_us += 300_001
    turn = bench.scheduler.run_once()
    assert (turn.promoted, turn.released) == (1, 1)


def test_it_promotes_and_expires_in_pieces_without_a_rest(bench: Bench) -> None:
    bench.send(600, not_before=bench.now_us / 1e6 + 1)
    bench.now_us += 2_000_000
    turn = bench.scheduler.run_once()
    assert (turn.promoted, turn.next_s) == (500, 0.0)
    turn = bench.scheduler.run_once()
    assert turn.promoted == 100
    assert turn.next_s > 0


def test_several_release_no_more_than_one_would(bench: Bench) -> None:
    """The burst, then the rate; and never more ahead than the window, whoever asks."""
    bench.worker()
    bench.send(500)
    schedulers = [bench.another() for _ in range(4)]
    threads = [
        threading.Thread(target=lambda s=s: [s.run_once() for _ in range(5)], daemon=True)
        for s in schedulers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert bench.released == 100
    assert len({name for name, _, _ in bench.invited.noted}) == len(bench.invited.noted)
    # A second on: one second of the rate more, again however many ask; the window is 2 batches.
    bench.now_us += 2_000_000
    for scheduler in schedulers:
        scheduler.run_once()
    assert bench.released == 200
    turn = bench.scheduler.run_once()
    assert (turn.released, turn.why) == (0, "window")


def test_an_invitation_that_was_lost_frees_its_place(bench: Bench) -> None:
    bench.worker()
    bench.send(3)
    bench.invited.fails = 1
    with pytest.raises(redis.exceptions.ConnectionError):
        bench.scheduler.run_once()
    assert bench.scheduler.run_once().why == "covered"
    bench.now_us += round(INVITATION_LEASE_S * 1e6) + 1
    bench.worker()
    assert bench.scheduler.run_once().released == 3


def test_invitations_that_rq_refuses_stand_all_the_same(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "paceline")
    bench.worker()
    bench.send(3)
    bench.invited.refuses = True
    assert bench.scheduler.run_once().released == 3
    bench.now_us += 300_000
    found = bench.store.unanswered(0.25)
    assert found is not None
    assert found.count == 3
    bench.store.take("w", "n" * 16, found.count, found.lane, found.id)
    bench.send(2, "more")
    assert bench.scheduler.run_once().released == 2
    assert [getattr(r, "event", "") for r in caplog.records] == ["invitations_refused"], "once"
    bench.invited.refuses = False
    bench.send(1, "last")
    assert bench.scheduler.run_once().released == 1
    assert caplog.records[-1].event == "invitations_carried"  # type: ignore[attr-defined]


def test_a_daemon_starts_on_a_full_redis_without_functions(
    redis_client: redis.Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An upgrade, for one: its functions must wait, the reaper must not."""
    redis_client.config_set("maxmemory", "1")
    service = DaemonService(connect(redis_url), [destination("http://127.0.0.1:9/")])
    service.start()
    try:
        until(lambda: redis_client.exists("{d}:reap"), 5, "it reaps")
        refused = [r for r in caplog.records if getattr(r, "event", "") == "library_refused"]
        assert len(refused) == 1
        redis_client.config_set("maxmemory", "0")
        until(lambda: redis_client.execute_command("FUNCTION", "LIST"), 5, "they are loaded")
    finally:
        service.stop()


def test_the_daemon_takes_stale_jobs_out_of_the_queues(redis_url: str) -> None:
    client = connect(redis_url)
    stale = Dispatcher(client, "d")
    stale.invite("long-gone", 5, "any", 60)
    client.delete("rq:job:long-gone")
    queue = f"rq:queue:{queue_name('d', 'any')}"
    assert client.llen(queue) == 1
    service = DaemonService(connect(redis_url), [destination("http://127.0.0.1:9/")])
    service.start()
    try:
        until(lambda: client.llen(queue) == 0, 5, "it is taken out")
    finally:
        service.stop()
        client.close()


def test_a_daemon_that_stops_is_not_live_any_more(redis_url: str) -> None:
    client = connect(redis_url)
    store = OutboxStore(client, "d")
    service = DaemonService(connect(redis_url), [destination("http://127.0.0.1:9/")])
    service.start()
    try:
        until(lambda: store.census().daemons == 1, 5, "it is live")
    finally:
        service.stop()
    assert store.census().daemons == 0
    client.close()
