"""What rules for connections come to, as the provider sees them, over three workers."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from typing import Any

import pytest

from paceline.sink.thread import SinkThread
from support.line import Line, destination
from support.wait import until

pytestmark = pytest.mark.timeout(60)

FAST = "rate = 3000\nburst = 5000\nconnections = 10\n"


def _connections(sink: SinkThread) -> list[dict[str, Any]]:
    """Those that carried a request, as the sink has them on record."""
    with urllib.request.urlopen(f"{sink.url}/_sink/connections") as reply:
        found = [json.loads(line) for line in reply.read().splitlines()]
    return [it for it in found if it["requests"]]


def _most_open(connections: list[dict[str, Any]]) -> int:
    """At once; of two at the same instant the close counts first."""
    steps = [(it["opened_ns"], 1) for it in connections]
    steps += [(it["closed_ns"] or 2**62, -1) for it in connections]
    now = most = 0
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


def _send(line: Line, prefix: str, count: int) -> None:
    messages = [line.outbox.message("d", {"n": n}, id=f"{prefix}-{n}") for n in range(count)]
    line.outbox.send_many(messages)
    line.wait_done()


def _three_live(line: Line) -> None:
    working = lambda: [w.slots for w in line.store.census().workers if w.slots]  # noqa: E731
    until(lambda: sorted(working()) == [3, 3, 4], 8, "three workers share the ten")


@pytest.mark.parametrize(
    ("rule", "most_requests", "most_s"),
    [("connection_max_requests = 20", 20, 60.0), ("connection_max_age_s = 0.3", 10_000, 0.3)],
)
def test_none_is_used_over_its_count_or_its_age_and_ten_are_the_most(
    redis_url: str, rule: str, most_requests: int, most_s: float
) -> None:
    with SinkThread(profile="http", latency="5ms") as sink:
        with Line(redis_url, destination(f"{sink.url}/m", "http", FAST + rule), workers=3) as line:
            _three_live(line)
            _send(line, "m", 500)
        connections, arrivals = _connections(sink), sink.arrivals()
    assert len(arrivals) == 500
    assert _most_open(connections) <= 10
    opened = {it["conn"]: it["opened_ns"] for it in connections}
    assert max(Counter(arrival.conn for arrival in arrivals).values()) <= most_requests
    # The worker looks just before it writes; how late the sink reads is the machine's matter.
    assert max((it.mono_ns - opened[it.conn]) / 1e9 for it in arrivals) <= most_s + 0.25
    assert len(connections) > 10, "none was replaced"


def test_at_a_steady_pace_connections_are_used_again(redis_url: str) -> None:
    with SinkThread(profile="http", latency="2ms") as sink:
        with Line(redis_url, destination(f"{sink.url}/m", "http", FAST), workers=3) as line:
            _three_live(line)
            _send(line, "m", 1200)
            counters = line.store.census().counters
        connections, arrivals = _connections(sink), sink.arrivals()
    assert len(arrivals) == 1200
    assert 1 - len(connections) / len(arrivals) >= 0.99
    assert _most_open(connections) <= 10
    assert counters.get("net:failed", 0) == 0
