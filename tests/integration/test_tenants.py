"""One tenant's requests hang; the others must not notice."""

from __future__ import annotations

import logging
import time
from statistics import median

import pytest
import redis

from integration.test_sender import _Sent as Unstaffed
from paceline.cli import explain
from paceline.message import Message
from paceline.sink.thread import SinkThread
from paceline_workers.sender import QUEUE_S, RETURNS_TIMES
from support.line import Line, destination
from support.wait import until

#: Each request of "bad" is held until its time-out, and tried again too late to matter here.
RATE = 100
MORE = f"rate = {RATE}\nburst = 50\nconnections = 10\nread_timeout_s = 2\ntotal_timeout_s = 2.5\n"
TABLES = "[destinations.d.retry]\nfirst_s = 60\ncap_s = 60\n"
GOOD, BAD = 200, 600


def _queue(line: Line, tenant: str, count: int) -> None:
    line.outbox.send_many(
        line.outbox.message("d", {}, id=f"{tenant}-{n}", tenant=tenant) for n in range(count)
    )


@pytest.mark.timeout(60)
def test_a_tenant_that_hangs_takes_nothing_from_the_others(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    script = {f"bad-{n}": ["hang*"] for n in range(BAD)}
    with (
        SinkThread(profile="http", latency="20ms", script=script) as sink,
        Line(redis_url, destination(sink.url, more=MORE, tables=TABLES)) as line,
    ):
        line.store.hold("pause", why="queueing")
        _queue(line, "bad", BAD)
        _queue(line, "good", GOOD)
        line.store.hold("resume")
        began_s = time.monotonic()

        def sent() -> int:
            return line.store.census().law["sent"]

        until(lambda: sent() == GOOD, 4.0, "the other's are sent", 0.02)
        took_s = time.monotonic() - began_s
        # Alone it takes two seconds: the whole rate.
        assert took_s < 3.0
        bad = sum(str(arrival.id).startswith("bad") for arrival in sink.arrivals())
        assert 2 <= bad <= 5 + 2 + 1, "half of the connections until it is known, then a quarter"

        waits_s = []
        for n in range(7):
            since_s = time.monotonic()
            line.send({}, id=f"late-{n}", tenant="good")
            line.wait("sent", f"late-{n}", 4.0)
            waits_s.append(time.monotonic() - since_s)
        assert median(waits_s) < 0.8, "about a batch, as beside a tenant that is well"

        census = line.store.census()
        lasted_s = time.monotonic() - began_s
        assert census.counters["returned"] < 2.2 * RATE * lasted_s + RATE, (
            "it takes, and gives back"
        )
        assert census.workers[0].facts["slow_tenants"] == ["bad"]
        assert any("tenant bad: SLOW" in it for it in explain.route_words(census.workers[0]))
        told = [it for it in caplog.records if getattr(it, "event", "") == "tenant_slow"]
        assert [getattr(it, "cause", "") for it in told] == ["bad"]


def test_what_one_that_hangs_has_too_much_of_goes_back_at_a_bounded_pace(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """High messages too, for which there is always room."""
    it = Unstaffed(redis_client)
    queue = it.sender._queue
    it.store.slots("beat", "w", 2)
    it.store.enqueue_many(
        [
            Message(destination="d", id=f"m-{n}", payload=b"{}", tenant="bad", priority="high")
            for n in range(105)
        ]
    )
    first = it.store.take("w", "a" * 16, 5, "any")
    for leased in it.store.fetch(first):
        assert queue.put(leased, 0)
    hangs = queue.get_now()
    assert hangs is not None
    queue.began(hangs)
    it.now += 2
    assert queue.get_now() is None
    queue.resize(8)
    returns_per_s = RETURNS_TIMES * 8 / QUEUE_S
    rest = it.store.take("w", "b" * 16, 100, "any")
    began_s = it.now

    def wait(timeout_s: float) -> bool:
        it.now += timeout_s
        return False

    monkeypatch.setattr(it.sender._stopping, "wait", wait)
    assert it.sender.accept("b" * 16, rest.sizes, it.store.fetch(rest)) == 0
    # Twice the rate, and a quarter of a second's worth at once.
    assert it.now - began_s >= (100 - returns_per_s / 4) / returns_per_s
    assert len(queue) == 4
    it.sender.settler.start()
    until(lambda: it.store.census().law["ready"] == 100, 5, "they are back")
    assert it.sender.settler.close(1) == 0
