"""Rates between two looks, and what is told of changes between them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from paceline.census import CONTAINERS, END_TERMS, IN_TERMS, Census, WorkerSeen
from paceline.changes import Changes
from paceline.rates import between, gained

NOW = 1_800_000_000_000_000
LIVE = WorkerSeen(id="w", live=True, lease_left_s=5, slots=5, facts={})


def census(at_s: float = 0.0, law: dict[str, int] | None = None, **given: Any) -> Census:
    fields: dict[str, Any] = {
        "destination": "web", "now_us": NOW + round(at_s * 1e6),
        "law": dict.fromkeys((*IN_TERMS, *END_TERMS, *CONTAINERS), 0) | (law or {}),
        "counters": {}, "sizes": {}, "gate": {}, "config": {"rate": "90"}, "workers": [LIVE],
        "daemons": 1, "outcomes": {}, "histogram": {},
    }  # fmt: skip
    return Census(**{**fields, **given})


def test_rates_are_gains_over_redis_time() -> None:
    before = census(
        law={"accepted": 100, "sent": 50},
        counters={"permits": 60, "retried": 5, "died": 1},
        outcomes={"ambiguous:500": 1, "sent:200": 50},
        histogram={"api:1000": 50, "api:sum": 40_000},
    )
    after = census(
        2.0,
        law={"accepted": 120, "moved_in": 10, "sent": 90},
        counters={"permits": 160, "retried": 9, "died": 1, "duplicates": 1, "ambiguous_reaped": 2},
        outcomes={"ambiguous:500": 2, "ambiguous:reset": 1, "sent:200": 90},
        histogram={"api:1000": 50, "api:250000": 40, "api:sum": 9_000_000},
    )
    rates = between(before, after)
    assert rates is not None
    assert rates.over_s == 2.0
    assert (rates.accepted, rates.sent, rates.requests) == (15.0, 20.0, 50.0)
    assert (rates.retried, rates.dead, rates.duplicates, rates.ambiguous) == (2.0, 0.0, 0.5, 2.0)
    # Of these two seconds alone: all of them between 100 and 250 ms.
    assert rates.api_p50_s == pytest.approx(0.175)
    assert rates.api_p99_s == pytest.approx(0.2485)


def test_no_rates_where_there_are_none() -> None:
    busy = census(1.0, law={"accepted": 9, "sent": 9})
    assert between(busy, busy) is None, "no time passed"
    assert between(busy, census(2.0, law={"accepted": 3})) is None, "Redis lost its last seconds"
    quiet = between(busy, census(2.0, law={"accepted": 9, "sent": 9}))
    assert quiet is not None
    assert (quiet.sent, quiet.api_p50_s) == (0.0, None)


def test_a_histogram_that_went_back_gained_nothing() -> None:
    assert gained({"api:1000": 5}, {"api:1000": 7, "api:2500": 1}) == {
        "api:1000": 2, "api:2500": 1,
    }  # fmt: skip
    assert gained({"api:1000": 5}, {"api:1000": 4, "api:2500": 1}) == {}


def told(changes: Changes, it: Census) -> list[tuple[str, str]]:
    return [(change.event, logging.getLevelName(change.level)) for change in changes.since_last(it)]


def test_a_change_is_told_once_and_so_is_its_end() -> None:
    changes = Changes()
    held = census(gate={"hold_until": "-1", "hold_kind": "held", "hold_why": "HTTP 401: bob@x"})
    assert told(changes, census()) == []
    [change] = list(changes.since_last(held))
    assert (change.event, change.cause, change.level) == ("closed", "held", logging.ERROR)
    assert change.text == "web: held until resumed: HTTP 401", "the provider's words stay out"
    assert told(changes, held) == []
    assert told(changes, census()) == [("opened", "INFO")]
    paused = census(gate={"pause_until": str(NOW + 9_000_000), "pause_why": "their maintenance"})
    [change] = list(changes.since_last(paused))
    assert change.text == "web: paused for 9 s: their maintenance"
    assert told(changes, held) == [("closed", "ERROR")], "from one to the other"


def test_nobody_to_send_and_nothing_lost() -> None:
    changes = Changes()
    assert told(changes, census(workers=[])) == [], "nothing waits: nobody is needed"
    waiting = census(law={"accepted": 3, "ready": 3}, workers=[])
    assert told(changes, waiting) == [("no_worker", "WARNING")]
    assert told(changes, waiting) == []
    served = census(law={"accepted": 3, "ready": 3})
    assert told(changes, served) == [("worker_back", "INFO")]
    broken = census(law={"accepted": 3, "ready": 2})
    assert told(changes, broken) == [("law_broken", "ERROR")]
    assert told(changes, served) == [("law_sound", "INFO")]
