"""Several URLs of one destination, from the outbox to real sinks: shares, one that fails, its way
back, and one rate over all."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from paceline.cli import explain
from paceline.message import Message
from paceline.settings import Destination
from paceline.settings_file import loads
from paceline.sink.thread import SinkThread
from paceline.sink.windows import worst_window
from paceline_workers.transports.adapter import GatedAdapter, GatedRequest
from paceline_workers.transports.connection import Connector
from paceline_workers.transports.pool import ConnectionPool, Retirement
from paceline_workers.transports.routes import LEAVE_AT
from paceline_workers.transports.watchdog import Watchdog
from support.line import NAME, QUICK, Line
from support.peers import OK, Peer, answers
from support.wait import until

RATE, BURST, CONNECTIONS = 300, 60, 8


def _to(*urls: str, rate: int = RATE) -> Destination:
    text = f"""[destinations.{NAME}]
provider = "http"
url = {json.dumps(urls)}
rate = {rate}
burst = {BURST}
connections = {CONNECTIONS}
lease_s = 2.0
{QUICK}"""
    return loads(text).destinations[NAME]


def _send(line: Line, count: int, prefix: str = "m") -> list[str]:
    ids = [f"{prefix}-{n}" for n in range(count)]
    line.outbox.send_many([Message(destination=NAME, payload=b"{}", id=i) for i in ids])
    return ids


def _route(line: Line, number: int) -> dict[str, Any]:
    """A URL as the worker's last heartbeat told."""
    for worker in line.store.census().workers:
        routes = worker.facts.get("routes")
        if routes:
            return dict(routes[number])
    return {}


def _is(line: Line, number: int, *, healthy: bool) -> Callable[[], bool]:
    return lambda: _route(line, number).get("healthy") is healthy


def _check_pace(*sinks: SinkThread, rate: int = RATE) -> None:
    """The rate is the account's, not each URL's."""
    times = sorted(arrival.mono_ns for sink in sinks for arrival in sink.arrivals())
    assert worst_window(times, rate, BURST).excess == 0


def _check_all_sent(line: Line, ids: list[str], *sinks: SinkThread) -> Counter[str | None]:
    """Nothing is lost, and twice came only what may have been sent. Returns how often each came."""
    census = line.store.census()
    assert census.law["sent"] == len(ids), census.law
    accepted = Counter(a.id for sink in sinks for a in sink.arrivals() if a.accepted)
    assert set(accepted) == set(ids)
    ambiguous = sum(n for label, n in census.outcomes.items() if label.startswith("ambiguous"))
    assert accepted.total() - len(ids) <= ambiguous
    return accepted


def test_the_load_follows_latency(redis_url: str) -> None:
    with (
        SinkThread(profile="http", latency="5ms") as fast,
        SinkThread(profile="http", latency="150ms") as slow,
        # Slowly: connections wait for permits most of the time, not for answers.
        Line(redis_url, _to(slow.url + "/send?key=s3cret", fast.url, rate=100)) as line,
    ):
        ids = _send(line, 400)
        line.wait_done()
        _check_all_sent(line, ids, fast, slow)
        _check_pace(fast, slow, rate=100)
        assert len(slow.arrivals()) > 0
        # Half of the connections led to the slow one at first; they move, one after another.
        times = [(a.mono_ns, sink) for sink in (fast, slow) for a in sink.arrivals()]
        last = [sink for _, sink in sorted(times, key=lambda it: it[0])[-100:]]
        assert last.count(slow) <= 5

        until(lambda: _route(line, 0).get("requests"), 5, "it is told")
        told = _route(line, 0)
        assert told["url"] == slow.url + "/send?key=***"
        assert 0.14 < told["latency_s"] < 0.4
        assert told["failures"] == 0
        words = explain.route_words(line.store.census().workers[0])
        assert words[0].startswith(f"{told['url']}: used; answers in 1")
        assert len(words) == 2


def test_one_that_goes_down_is_left_and_used_again_when_it_is_back(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("paceline_workers.transports.routes.PROBE_FIRST_S", 0.5)
    caplog.set_level(logging.INFO, "paceline.worker")
    with (
        SinkThread(profile="http", latency="15-25ms") as frail,
        SinkThread(profile="http", latency="15-25ms") as sound,
        Line(redis_url, _to(frail.url, sound.url)) as line,
    ):
        ids = _send(line, 400)
        frail.wait_begun(60)
        frail.down()
        until(_is(line, 0, healthy=False), 5, "it is left")
        before = len(sound.arrivals())
        sound.wait_begun(before + 100)
        frail.up()
        # Without requests there are no probes.
        ids += _send(line, 600, "during")
        until(_is(line, 0, healthy=True), 4, "a probe found it again")
        before = len(frail.arrivals())
        ids += _send(line, 150, "after")
        line.wait_done()
        assert len(frail.arrivals()) > before + 40
        _check_all_sent(line, ids, frail, sound)
        _check_pace(frail, sound)
        outcomes = line.store.census().outcomes
        # What could not be connected went to the other URL, and no attempt of it is on record.
        assert not [label for label in outcomes if label.startswith("retry")], outcomes
        failed = sum(n for label, n in outcomes.items() if not label.startswith("sent"))
        assert failed <= CONNECTIONS, outcomes
    events = [getattr(record, "event", "") for record in caplog.records]
    assert [e for e in events if e.startswith("url_")] == ["url_left", "url_back"]


def test_one_that_comes_to_answer_502_is_left_and_its_messages_go_elsewhere(redis_url: str) -> None:
    with (
        SinkThread(profile="http", latency="5ms") as bad,
        SinkThread(profile="http", latency="5ms") as good,
        SinkThread(profile="http", latency="5ms") as other,
        Line(redis_url, _to(bad.url, good.url, other.url)) as line,
    ):
        ids = _send(line, 600)
        bad.wait_ended(60)
        bad.set_faults("502")
        line.wait_done()  # what was refused may wait for an outage that is suspected
        _check_all_sent(line, ids, bad, good, other)
        _check_pace(bad, good, other)
        refused = sum(not arrival.accepted for arrival in bad.arrivals())
        assert LEAVE_AT <= refused <= LEAVE_AT + CONNECTIONS
        assert min(len(good.arrivals()), len(other.arrivals())) > 100


def test_a_single_url_tells_of_no_routes(redis_url: str) -> None:
    with SinkThread(profile="http") as sink, Line(redis_url, _to(sink.url)) as line:
        _send(line, 5)
        line.wait_done()
        worker = until(lambda: line.store.census().workers, 5, "a heartbeat came")[0]
        assert "routes" not in worker.facts
        assert explain.route_words(worker) == []


def test_a_request_whose_url_is_left_while_it_waits_for_its_permit_goes_elsewhere() -> None:
    with Peer(answers(OK)) as failing, Peer(answers(OK)) as sound:
        pool = ConnectionPool(
            [Connector(p.url, connect_timeout_s=1, read_timeout_s=1) for p in (failing, sound)],
            Retirement(),
            clock=time.monotonic,
            rand=lambda: 0.5,
        )
        pool.set_limit(6)
        watchdog = Watchdog(time.monotonic)
        watchdog.start()
        adapter = GatedAdapter(
            pool,
            watchdog,
            total_timeout_s=5,
            monotonic_s=time.monotonic,
            elapsed_s=time.monotonic,
        )

        def gate() -> float:
            """Requests of two other threads time out meanwhile: enough to leave it."""
            for link in [pool.checkout() for _ in range(5)]:
                first = link.route is not None and link.route.number == 0
                pool.checkin(link, not first, 30.0)
            return time.monotonic()

        try:
            # The first goes to the first URL, of which nothing is known.
            adapter.send(GatedRequest("POST", failing.url, {}, b"{}", gate))
        finally:
            pool.close()
            watchdog.stop()
        assert [route["healthy"] for route in pool.route_facts()] == [False, True]
        assert (len(failing.requests), len(sound.requests)) == (0, 1)
