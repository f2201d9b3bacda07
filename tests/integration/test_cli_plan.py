"""``paceline plan``: against a real census, its exit codes, and what it says of bad input."""

from __future__ import annotations

import time

import pytest

from paceline.answers import Settlement
from paceline.outbox import OutboxStore
from support.cli import Cli, put, take


def test_what_waits_goes_first(cli: Cli, store: OutboxStore) -> None:
    put(store, *(f"m{n}" for n in range(180)))
    put(store, "tomorrow", not_before=time.time() + 86_400)
    before = time.time()
    view = cli("plan", "api", "--count", "9000", "--by", "2h", "--json").json
    assert (view["feasible"], view["ahead"], view["per_s"], view["binds"]) == (
        True, 180, 90.0, "rate",
    )  # fmt: skip
    assert view["takes_s"] == pytest.approx(102)
    assert view["latest_start"] == pytest.approx(view["by"] - 100)
    assert view["start_by"] == pytest.approx(view["by"] - 1900)
    assert before + 7200 <= view["by"] <= time.time() + 7200
    assert (view["room"], view["notes"][0]) == (999_819, "no daemon runs; reckoned as if one did")
    early = cli("plan", "api", "--count", "9000", "--by", "2h", "--margin", "1h", "--json").json
    assert early["start_by"] == pytest.approx(early["by"] - 3700)


def test_slow_connections_bind(cli: Cli, store: OutboxStore) -> None:
    put(store, "a")
    nonce = take(store, 1)
    store.settle([Settlement(id="a", nonce=nonce, action="sent", latency_s=0.5, label="sent:200")])
    result = cli("plan", "api", "--count", "20000", "--by", "10m")
    assert result.code == 1
    assert "20/s: the connections bind, below the rate of 90/s" in result.out
    assert "ask for     17 connections at 500 ms a request" in result.out


def test_exit_codes_say_whether_it_can_be_done(cli: Cli, store: OutboxStore) -> None:
    can = cli("plan", "api", "--count", "5000", "--by", "1h")
    assert (can.code, can.err) == (0, "")
    assert "5,000 messages can be sent by" in can.out
    cannot = cli("plan", "api", "--count", "5000", "--by", "10s")
    assert (cannot.code, cannot.err) == (1, "")
    assert "5,000 messages cannot be sent by" in cannot.out
    assert cli("plan", "api", "--count", "2000000").code == 0
    assert cli("plan", "api", "--by", "10s").code == 0
    put(store, *(f"m{n}" for n in range(1000)))
    none = cli("plan", "api", "--by", "10s")
    assert none.code == 1
    assert "0 messages more can be sent" in none.out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("api",), "Give --count N, --by TIME, or both"),
        (("api", "--count", "0"), "'--count': 0 is not in the range"),
        (("api", "--count", "many"), "'--count': 'many' is not a valid integer"),
        (("api", "--by", "soon"), "'--by': 'soon' is no time. Write 09:00"),
        (("api", "--by", "2020-01-01T09:00Z"), "'--by': '2020-01-01T09:00Z' is past, by"),
        (("api", "--by", "1h", "--margin", "some"), "'--margin': 'some' is no duration"),
        (("apo", "--count", "1"), "DEST: unknown destination 'apo'. Known: api"),
    ],
)
def test_bad_input_is_told_apart_from_what_cannot_be_done(
    cli: Cli, store: OutboxStore, given: tuple[str, ...], told: str
) -> None:
    result = cli("plan", *given)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
