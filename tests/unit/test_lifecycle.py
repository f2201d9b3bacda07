"""A loop of the daemon: it goes on after outages and after defects, and tells of them sparingly."""

from __future__ import annotations

import logging
import threading

import pytest
import redis.exceptions

from paceline import lifecycle
from paceline.lifecycle import Loop
from support.wait import until


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_AWAY_S", 0.005)


def _run(errors: list[Exception | None], caplog: pytest.LogCaptureFixture) -> tuple[int, list[int]]:
    caplog.set_level(logging.INFO, "paceline.daemon")
    stopping = threading.Event()
    calls, rested = [0], list[int]()

    def step() -> int:
        calls[0] += 1
        error = errors[calls[0] - 1] if calls[0] <= len(errors) else None
        if error is not None:
            raise error
        return calls[0]

    def rest(result: int) -> None:
        rested.append(result)
        stopping.wait(0.001)

    loop = Loop("it", step, rest, stopping)
    loop.start()
    until(lambda: len(rested) >= 2, 5, "it goes on")
    stopping.set()
    assert loop.join(5)
    return calls[0], rested


def test_each_step_is_followed_by_its_rest(caplog: pytest.LogCaptureFixture) -> None:
    _, rested = _run([], caplog)
    assert rested[:2] == [1, 2]
    assert caplog.records == []


def test_an_outage_is_told_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    away = redis.exceptions.ConnectionError("gone")
    _, rested = _run([away, redis.exceptions.TimeoutError("slow"), away, None], caplog)
    assert rested[0] == 4
    told = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in told] == ["it", "it"]
    assert "does not answer" in told[0]
    assert "is back" in told[1]


def test_a_defect_is_told_with_its_trace_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    _, rested = _run([ZeroDivisionError("oh")], caplog)
    assert rested[0] == 2
    assert [bool(record.exc_info) for record in caplog.records] == [True]
