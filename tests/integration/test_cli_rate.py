"""The rate, looked at and set live: what it says, and that it holds on all workers at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

from paceline.census import Census
from paceline.outbox import OutboxStore
from support.cli import Cli
from support.stack import Stack
from support.wait import until


def test_a_rate_is_set_shown_and_reset_with_who_and_why(cli: Cli, store: OutboxStore) -> None:
    configured = store.census().rate
    done = cli("rate", "api", "60", "--reason", "they asked us to")
    assert done.code == 0
    assert "60/s" in done.out
    assert store.census().rate == 60

    shown = cli("rate", "api")
    assert "set by" in shown.out
    assert "they asked us to" in shown.out
    view = cli("rate", "api", "--json").json
    assert (view["configured"], view["set"]["rate"]) == (configured, 60)
    assert view["set"]["reason"] == "they asked us to"
    assert "@" in view["set"]["who"]

    cli("rate", "api", "reset")
    assert store.census().rate == configured
    log = cli("rate", "api", "--json").json["log"]
    assert [(entry["what"], entry["value"]) for entry in log] == [("rate", ""), ("rate", "60.0")]


@pytest.mark.parametrize("wrong", ["0", "1e9", "nan", "inf", "ninety", ""])
def test_what_is_no_rate_is_refused_and_changes_nothing(
    cli: Cli, store: OutboxStore, wrong: str
) -> None:
    before = store.census().rate
    done = cli("rate", "api", wrong)
    assert done.code == 2
    assert "requests per second above 0" in done.err
    assert store.census().rate == before


def test_a_negative_rate_is_refused(cli: Cli, store: OutboxStore) -> None:
    assert cli("rate", "api", "-5").code == 2
    assert cli("rate", "api", "--", "-5").code == 2
    assert "rate_set" not in store.census().gate


def test_a_reason_without_a_rate_is_a_mistake(cli: Cli, store: OutboxStore) -> None:
    assert cli("rate", "api", "--reason", "why not").code == 2


@pytest.mark.timeout(90)
def test_a_rate_set_live_holds_on_all_workers_and_over_a_restart(tmp_path: Path) -> None:
    with Stack(tmp_path, rate=60, burst=12, latency="5ms") as stack:
        cli = Cli(stack.server.url, tmp_path)
        stack.send(2000)
        until(lambda: stack.store.census().law["sent"] > 60, 30, "it sends at 60/s")
        assert cli("rate", stack.store.destination, "10", "--reason", "a test").code == 0
        set_ns = time.monotonic_ns()

        def after() -> list[int]:
            """Starts from a second after it was set."""
            return [a["mono_ns"] for a in stack.arrivals() if a["mono_ns"] > set_ns + 1e9]

        starts = until(lambda: (s := after()) and len(s) >= 22 and s, 30, "22 requests more", 0.2)
        # At most the burst at once, and the rest at the new rate.
        assert (starts[21] - starts[0]) / 1e9 >= (21 - 12) / 10
        stack.server.stop()
        stack.server.start()
        census = until(lambda: _census(stack), 20, "Redis is back")
        assert (census.ceiling, census.gate["rate_why"]) == (10, "a test")


def _census(stack: Stack) -> Census | None:
    try:
        return stack.store.census()
    except redis.exceptions.RedisError:
        return None
