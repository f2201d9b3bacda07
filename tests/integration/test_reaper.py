"""The reaper's turns: leases that ran out, gaps that nobody watched, the dead and the silent."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import redis

from paceline.connect import connect
from paceline.embedded import EmbeddedServer
from paceline.message import Message
from paceline.names import client_name
from paceline.outbox import OutboxStore
from paceline.reaper import Reaper
from paceline.scripts import Pinned
from paceline.shared_config import publish
from support.line import destination

LEASE_S = 4.0


class Bench:
    """A reaper over real scripts, with a clock of our own. A worker "w" has taken three messages
    and begun the first."""

    def __init__(self, client: redis.Redis, url: str, more: str = "") -> None:
        self.now_us = 1_800_000_000_000_000
        self.client = client
        self.url = url
        self.store = OutboxStore(client, "d", now_us=lambda: self.now_us)
        to = destination("http://127.0.0.1:9/", more=f"lease_s = {LEASE_S}\n{more}")
        publish(self.store, to)
        self.pin = Pinned(client)
        self.dead: set[str] = set()
        self.reaper = self.another("daemon-1")
        self.reaper.run_once()

    def another(self, name: str) -> Reaper:
        def dead_here(facts: Mapping[str, Any]) -> bool:
            return facts.get("name") in self.dead

        return Reaper(self.store, Pinned(self.client), name, dead_here=dead_here)

    def run_id(self) -> str:
        return self.pin.current_run_id()

    def worker(self, name: str = "w", connections: int = 0) -> None:
        facts = {"name": name, "run_id": self.run_id()}
        self.store.slots("beat", name, connections, facts)

    def take(self) -> None:
        self.worker()
        for n in range(3):
            self.store.enqueue(Message(destination="d", id=f"m-{n}", payload=b"{}"))
        self.store.take("w", "n" * 16, 3, "any")
        self.client.hset("{d}:gate", mapping={"level": 9, "at": self.now_us, "run": self.run_id()})
        assert self.store.begin(self.pin, "m-0", "n" * 16).verdict == "go"

    def pass_s(self, seconds: float, step_s: float = 0.5) -> tuple[int, int]:
        """Time passes with the reaper watching; (back, ambiguous) in it."""
        back = ambiguous = 0
        for _ in range(round(seconds / step_s)):
            self.now_us += round(step_s * 1e6)
            reaped = self.reaper.run_once()
            back, ambiguous = back + reaped.back, ambiguous + reaped.ambiguous
        return back, ambiguous

    def workers(self) -> dict[str, bool]:
        return {w.id: w.live for w in self.store.census().workers}


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    with connect(redis_url) as client:
        yield Bench(client, redis_url)


def test_a_lease_that_ran_out(bench: Bench) -> None:
    bench.take()
    assert bench.pass_s(LEASE_S - 0.5) == (0, 0)
    assert bench.pass_s(1) == (2, 1)
    heads = [found[0] for found in bench.store.look(["m-0", "m-1", "m-2"]) if found]
    assert [(h.state, getattr(h, "tries", None)) for h in heads] == [
        ("scheduled", 1), ("ready", 0), ("ready", 0),
    ]  # fmt: skip
    assert bench.store.attempts("m-0")[-1]["outcome"] == "ambiguous"
    assert bench.store.census().sound


def test_what_it_did_is_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "paceline.reaper")
    bench.take()
    bench.dead.add("w")
    bench.pass_s(LEASE_S + 3)
    bench.store.hold("hold", why="HTTP 401: said the provider")
    bench.pass_s(2)
    bench.store.hold("resume")
    bench.pass_s(2)
    told = [record.__dict__ for record in caplog.records]
    assert [(line["event"], line["cause"]) for line in told] == [
        ("worker_dead", None),
        # Its leases end with it.
        ("ambiguous", "lease-expired"),
        ("no_worker", "no-worker"),
        ("closed", "held"),
        ("opened", "held"),
    ]
    assert {line["destination"] for line in told} == {"d"}
    assert told[0]["worker"] == "w"
    assert "messages begun: 1," in caplog.records[1].getMessage()
    assert "said the provider" not in caplog.text


def test_renewed_it_does_not_run_out(bench: Bench) -> None:
    bench.take()
    for _ in range(6):
        assert bench.pass_s(2) == (0, 0)
        bench.store.renew(["n" * 16])
    assert bench.pass_s(LEASE_S + 1) == (2, 1)


def test_time_that_nobody_watched_does_not_count(bench: Bench) -> None:
    """Redis or the daemon was away, and so nobody could renew either."""
    bench.take()
    bench.pass_s(3)
    bench.now_us += 60_000_000
    turn = bench.reaper.run_once()
    assert (turn.terms, turn.back, turn.ambiguous) == (1, 0, 0)
    assert bench.pass_s(LEASE_S - 0.5) == (0, 0)
    assert bench.pass_s(1) == (2, 1)


def test_two_reapers_reap_once(bench: Bench) -> None:
    bench.take()
    other = bench.another("daemon-2")
    total = 0
    for _ in range(12):
        bench.now_us += 500_000
        for reaper in (bench.reaper, other):
            turn = reaper.run_once()
            total += turn.back + turn.ambiguous
    assert total == 3
    assert bench.store.census().counters["reaped"] == 3
    assert bench.store.census().daemons == 2


def test_one_that_comes_back_while_it_is_looked_at_is_not_buried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.worker("w", 3)
    looked, look = [], bench.client.client_list

    def slowly() -> Any:
        found = look()
        looked.append(bench.workers())
        bench.worker("w", 3)
        return found

    monkeypatch.setattr(bench.client, "client_list", slowly)
    bench.pass_s(LEASE_S + 3)
    assert looked == [{"w": False}]
    assert bench.workers() == {"w": True}
    monkeypatch.undo()
    bench.pass_s(LEASE_S + 3)
    assert bench.workers() == {}


def test_the_dead_are_buried_and_the_frozen_are_not(bench: Bench) -> None:
    """Frozen: silent, but its Redis connections stand. Gone: they are closed. Dead: seen here."""
    bench.worker("frozen", 3)
    bench.worker("gone", 3)
    bench.worker("dead", 3)
    standing = connect(bench.url, name=client_name("frozen"))
    standing.ping()
    bench.dead.add("dead")
    bench.pass_s(2)
    assert bench.workers() == {"frozen": True, "gone": True}, "the dead one, at once"
    bench.pass_s(LEASE_S + 2)
    assert bench.workers() == {"frozen": False}
    census = bench.store.census()
    assert next(w.slots for w in census.workers) > 0, "its connections are still accounted for"
    standing.close()
    bench.pass_s(2.5)
    assert bench.workers() == {}


@pytest.mark.timeout(60)
def test_a_redis_that_restarted_gives_full_terms(durable_server: EmbeddedServer) -> None:
    client = connect(durable_server.url, timeout_s=2.0)
    bench = Bench(client, durable_server.url)
    bench.take()
    bench.pass_s(3)
    before = bench.run_id()
    durable_server.kill()
    for _ in range(3):
        with pytest.raises(redis.exceptions.RedisError):
            bench.reaper.run_once()
    durable_server.start()
    bench.now_us += 500_000
    turn = bench.reaper.run_once()
    assert turn.terms == 1, "the restart went unnoticed"
    bench.pin.close()
    assert bench.run_id() != before
    # A worker that lapsed meanwhile is not buried for connections that the old Redis had.
    assert bench.pass_s(LEASE_S - 1) == (0, 0)
    assert bench.pass_s(2) == (2, 1)


def test_a_connection_that_stands_half_way_is_not_trusted(redis_client: redis.Redis) -> None:
    """Connected, but the run_id could not be read: the next turn asks anew."""
    bench = Bench(redis_client, "")
    pin = Pinned(redis_client)
    pin.run_id = "the old one's"
    reaper = Reaper(bench.store, pin, "daemon-1")
    redis_client.execute_command("ACL", "SETUSER", "default", "-info")
    try:
        with pytest.raises(redis.exceptions.NoPermissionError):
            reaper.run_once()
    finally:
        redis_client.execute_command("ACL", "SETUSER", "default", "+info")
    reaper.run_once()
    assert pin.run_id == bench.run_id()
