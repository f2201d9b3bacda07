"""An outage is told once, reminded of now and then, and its end is told."""

from __future__ import annotations

import logging
import threading

import pytest
import redis.exceptions

from paceline_workers import outage
from paceline_workers.outage import Outage

GONE = redis.exceptions.ConnectionError("gone")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "it")
    return caplog


def events(told: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["event"] for record in told.records]


def test_many_failures_of_many_threads_are_one_line(told: pytest.LogCaptureFixture) -> None:
    it = Outage(logging.getLogger("it"), "take")
    threads = [threading.Thread(target=lambda: [it.note(GONE) for _ in range(50)]) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events(told) == ["redis_away"]
    assert told.records[0].__dict__["cause"] == "ConnectionError"
    assert "take: Redis does not answer: gone" in told.text
    it.over()
    it.over()
    assert events(told) == ["redis_away", "redis_back"]
    it.note(GONE)
    assert events(told)[2:] == ["redis_away"], "the next one is another"


def test_it_is_reminded_of(told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    it = Outage(logging.getLogger("it"), "take")
    monkeypatch.setattr(outage, "_REMIND_S", 0.0)
    it.note(GONE)
    it.note(GONE)
    assert events(told) == ["redis_away", "redis_away"]


def test_no_outage_no_line(told: pytest.LogCaptureFixture) -> None:
    Outage(logging.getLogger("it"), "take").over()
    assert told.records == []
