"""A worker and a daemon go on by another configuration: in one process, against a real Redis."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paceline.cli.look import status_text
from paceline.embedded import EmbeddedServer
from paceline.errors import ConfigError
from paceline.pressure import Limits
from paceline.settings import Destination
from paceline_workers.engine import Engine
from paceline_workers.runtime import WorkerRuntime
from support.gatekeeper import Gatekeeper
from support.line import Line, Worker, destination
from support.wait import until

pytestmark = pytest.mark.timeout(60)


class Stage:
    """A provider with a key, a file that holds it, a line that sends."""

    def __init__(self, folder: Path, provider: Gatekeeper) -> None:
        self.provider = provider
        self.key = folder / "key"
        self.key.write_text("first\n")
        self.sent: list[str] = []

    def destination(self, more: str = "", url: str = "", key: Path | None = None) -> Destination:
        header = f'headers = {{ X-Key = {{ file = "{key or self.key}" }} }}'
        return destination(url or self.provider.url, "http", f"{header}\nrate = 400\n{more}")

    def send(self, line: Line, count: int) -> None:
        for _ in range(count):
            self.sent.append(line.send({"n": len(self.sent)}, id=f"m-{len(self.sent)}"))

    def check(self, line: Line, *others: Gatekeeper) -> None:
        """Each message accepted once, none by the way; nothing dead, parked or held."""
        line.wait_done()
        census = line.store.census()
        assert (census.law["sent"], census.law["dead"]) == (len(self.sent), 0), census.law
        assert census.closed() is None
        accepted = sum((it.accepted for it in others), self.provider.accepted)
        assert dict(accepted) == dict.fromkeys(self.sent, 1)
        assert sum(it.refused for it in (self.provider, *others)) == 0
        assert census.counters.get("reaped", 0) == 0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Gatekeeper({"first", "second"}) as provider:
        yield Stage(tmp_path, provider)


def test_a_new_key_is_shown_by_the_next_request_on_the_same_connections(
    redis_url: str, stage: Stage
) -> None:
    to = stage.destination("connections = 2")
    with Line(redis_url, to) as line:
        runtime = line.workers[0].runtime
        stage.send(line, 20)
        until(lambda: len(stage.provider.shown) >= 10, 8, "it sends")
        stage.key.write_text("second\n")
        said = runtime.reload(to)
        assert said == "no key changed, secrets were read anew; for the next request"
        stage.provider.keys = {"second", "first"}
        stage.send(line, 20)
        until(lambda: stage.provider.last(10) == {"second"}, 8, "the new key is shown")
        stage.provider.keys = {"second"}
        stage.send(line, 20)
        stage.check(line)
        assert set(stage.provider.shown) == {"first", "second"}
        assert runtime.engine.pool.counts["opened"] <= 2, "it has stood still for new connections"
        assert line.client.hget("{d}:cfg", "version") == b"1", "nothing that is shared changed"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("lease_s = 9", "destinations.d.lease_s"),
        ('ca_file = "/nowhere/ca.pem"', "destinations.d.ca_file"),
        (
            'proxy = "http://127.0.0.1:1"\nproxy_username = "u"\nproxy_password = { env = "GONE" }',
            "destinations.d.proxy_password",
        ),
        ("the key's file is gone", "destinations.d.headers.X-Key"),
    ],
)
def test_what_cannot_be_used_changes_nothing(
    redis_url: str, stage: Stage, change: str, says: str, tmp_path: Path
) -> None:
    gone = tmp_path / "gone" if "gone" in change else None
    if gone is not None:
        change = "connections = 3"
    with Line(redis_url, stage.destination()) as line:
        runtime = line.workers[0].runtime
        engine, before = runtime.engine, line.client.hgetall("{d}:cfg")
        url = stage.provider.url.replace("http:", "https:") if "ca_file" in change else ""
        with pytest.raises(ConfigError) as caught:
            runtime.reload(stage.destination(change, url=url, key=gone))
        assert [problem.key for problem in caught.value.problems] == [says]
        assert runtime.engine is engine
        assert line.client.hgetall("{d}:cfg") == before
        stage.send(line, 5)
        stage.check(line)


def test_a_new_engine_goes_on_where_the_old_one_stopped(redis_url: str, stage: Stage) -> None:
    """What is on the wire is finished, the rest is the new one's: another URL, 3 connections."""
    with Gatekeeper({"first"}) as other, Line(redis_url, stage.destination()) as line:
        runtime = line.workers[0].runtime
        [before] = until(lambda: line.store.census().workers, 8, "it is registered")
        stage.provider.go.clear()
        stage.send(line, 60)
        until(lambda: len(stage.provider.shown) == 10, 8, "every connection has a request")
        changed = stage.destination("connections = 3", other.url)
        waits = _in_background(lambda: runtime.reload(changed))
        until(lambda: runtime.engine.stopping.is_set(), 8, "the old one stops")
        assert other.shown == [], "both are in use at once"
        stage.provider.go.set()
        assert "url, connections changed" in waits()
        stage.send(line, 20)
        stage.check(line, other)
        assert len(runtime.engine.recall) == 80, "what the old one told Redis is forgotten"
        assert len(stage.provider.shown) == 10, "more was begun than was on the wire"
        assert other.peer.most_open <= 3
        [after] = line.store.census().workers
        assert (after.id, after.slots) == (before.id, 3)
        opened = lambda: line.store.census().counters.get("net:opened", 0)  # noqa: E731
        until(lambda: opened() >= 11, 4, "totals go on where the old one's stopped")
        assert line.store.census().config["version"] == "2"
        assert line.client.sismember("rq:workers", f"rq:worker:{runtime.name}")
        assert {m.tries for m in map(line.status, stage.sent)} == {0}


def test_outcomes_wait_for_a_redis_that_is_away(
    durable_server: EmbeddedServer, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long: a stop has to end, and gives them up for ambiguous; a reload has not."""
    monkeypatch.setattr(Engine, "grace_s", 0.1)
    with Line(durable_server.url, stage.destination()) as line:
        runtime = line.workers[0].runtime
        stage.provider.go.clear()
        stage.send(line, 5)
        until(lambda: len(stage.provider.shown) == 5, 8, "all are on the wire")
        waits = _in_background(lambda: runtime.reload(stage.destination("connections = 3")))
        until(lambda: runtime.engine.stopping.is_set(), 8, "the old one stops")
        durable_server.kill()
        stage.provider.go.set()
        time.sleep(1.5)  # the outage itself: longer than a stop would wait
        durable_server.start()
        waits()
        stage.check(line)
        assert line.store.census().outcomes == {"sent:200": 5}


def test_a_batch_that_is_being_handed_over_is_not_left_behind(redis_url: str, stage: Stage) -> None:
    with Line(redis_url, stage.destination()) as line:
        runtime = line.workers[0].runtime
        fetch, fetching, go = runtime.store.fetch, threading.Event(), threading.Event()

        def slowly(taken: Any) -> Any:
            fetching.set()
            go.wait(10)
            return fetch(taken)

        runtime.store.fetch = slowly  # type: ignore[method-assign]
        stage.send(line, 5)
        assert fetching.wait(8)
        waits = _in_background(lambda: runtime.reload(stage.destination("connections = 3")))
        until(lambda: runtime.engine.stopping.is_set(), 8, "the old one stops")
        with pytest.raises(TimeoutError):
            waits(0.3)
        go.set()
        waits()
        stage.check(line)


def test_whoever_was_not_reloaded_says_so_and_goes_on(
    redis_url: str, stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr("paceline.standing.GRACE_S", 0.0)
    caplog.set_level(logging.INFO, "paceline")
    now = stage.destination("max_age_s = 1000")
    with Line(redis_url, stage.destination(), workers=2) as line:
        first, second = (worker.runtime for worker in line.workers)
        until(lambda: len(line.store.census().workers) == 2, 8, "both are there")
        assert "max_age_s changed" in first.reload(now)
        mark = f"{second.name}"

        def stale() -> list[str]:
            return [w.id for w in line.store.census().workers if w.facts["config_stale"]]

        until(lambda: stale() == [mark], 8, "the one that is left behind says so")
        status = status_text(line.store.census())
        assert status.count("by an older configuration") == 1
        until(lambda: _told(caplog, "paceline.worker", "max_age_s is 1000"), 8, "in its log too")
        until(lambda: _told(caplog, "paceline.daemon", "max_age_s is 1000"), 8, "and the daemon")
        assert [loop.trouble for loop in line._daemon._loops if "reaper" in loop.name] == [
            "another configuration is in force"
        ]
        seen = lambda: line.client.zrange("{d}:daemons", 0, -1, withscores=True)  # noqa: E731
        before = seen()
        until(lambda: seen() != before, 8, "it reaps all the same")
        stage.send(line, 20)
        line.wait_done()
        # Read again for a new password, an older file does not undo what is in force.
        second.reload(stage.destination())
        assert line.store.census().config["max_age_us"] == "1000000000"
        second.reload(now)
        line._daemon.reload([now])
        until(lambda: stale() == [], 8, "all are of one mind")
        until(
            lambda: not any(loop.trouble for loop in line._daemon._loops), 8, "the daemon is ready"
        )
        assert "by an older configuration" not in status_text(line.store.census())
        assert _told(caplog, "paceline.worker", "in force again")
        stage.check(line)


def test_a_daemon_goes_on_by_other_destinations(redis_url: str, stage: Stage) -> None:
    with Line(redis_url, stage.destination()) as line:
        before = list(line._daemon._loops)
        assert line._daemon.reload([stage.destination()]) == "nothing changed"
        assert line._daemon._loops == before
        assert line._daemon.reload([stage.destination()], Limits(max_messages=10**9)) == (
            "limits of [redis]"
        )
        limits = lambda: line.client.hget("{d}:gate", "all") == b"1000000000 0 0 0"  # noqa: E731
        until(limits, 8, "it goes on by the new limits")
        stage.send(line, 10)
        until(lambda: line.store.census().workers, 8, "the worker has read the old one")
        changed = stage.destination("burst = 40")
        assert line._daemon.reload([changed]) == "d: burst, reserve"
        assert not any(loop.alive for loop in before)
        line.workers[0].runtime.reload(changed)
        stage.send(line, 10)
        stage.check(line)
        with pytest.raises(ConfigError, match="lease_s"):
            line._daemon.reload([stage.destination("burst = 40\nlease_s = 20")])
        assert line.store.census().config["burst"] == "40"


def test_a_reload_before_the_start_waits_for_it(redis_url: str, stage: Stage) -> None:
    with Line(redis_url, stage.destination(), workers=0) as line:
        runtime = WorkerRuntime(stage.destination(), redis_url, {})
        waits = _in_background(lambda: runtime.reload(stage.destination("gzip_from_bytes = 1")))
        line.workers.append(Worker(runtime))
        assert "gzip_from_bytes" in waits()
        stage.send(line, 5)
        stage.check(line)


def test_a_stop_ends_a_reload_that_waits_for_the_wire(redis_url: str, stage: Stage) -> None:
    with Line(redis_url, stage.destination()) as line:
        runtime = line.workers[0].runtime
        stage.provider.go.clear()
        stage.send(line, 5)
        until(lambda: len(stage.provider.shown) == 5, 8, "all are on the wire")
        waits = _in_background(lambda: runtime.reload(stage.destination("connections = 3")))
        until(lambda: runtime.engine.stopping.is_set(), 8, "it waits")
        runtime.stop()
        stage.provider.go.set()
        waits()
        line.workers[0].stop()
        assert line.workers.pop().lost == 0
        stage.check(line)


def _told(caplog: pytest.LogCaptureFixture, logger: str, text: str) -> bool:
    return any(r.name == logger and text in r.getMessage() for r in list(caplog.records))


def _in_background(call: Any) -> Any:
    """Starts it; what is returned awaits and returns its result."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return lambda within_s=20.0: future.result(within_s)
