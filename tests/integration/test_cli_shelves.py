"""dead list/replay/drop and parked list/settle."""

from __future__ import annotations

import pytest
import redis

from paceline.outbox import OutboxStore
from support.cli import Cli, open_outbox, put, shelve


@pytest.fixture
def store(redis_client: redis.Redis) -> OutboxStore:
    store = open_outbox(redis_client)
    shelve(store, "dead", "code 2: address", "d1", "d2")
    shelve(store, "dead", "connect: refused", "d3")
    shelve(store, "parked", "ambiguous: reset after the write", "p1", "p2", "p3")
    put(store, "waits")
    return store


def law(store: OutboxStore) -> dict[str, int]:
    census = store.census()
    assert census.sound
    return dict(census.law)


def test_list(cli: Cli, store: OutboxStore) -> None:
    told = cli("dead", "list", "api")
    assert told.code == 0
    assert told.err == ""
    for words in ("d1", "code 2: address", "[bold]no such box[/]", "3 of 3 dead letters of api"):
        assert words in told.out
    some = cli("dead", "list", "api", "--json", "--reason", "CODE 2", "--limit", "1").json
    assert some["total"] == 3
    [entry] = some["messages"]
    assert (entry["id"], entry["reason"], entry["tries"]) == ("d1", "code 2: address", 1)
    assert entry["last"]["response"].startswith('{"code": 2')
    parked = cli("parked", "list", "api", "--json").json
    assert [entry["id"] for entry in parked["messages"]] == ["p1", "p2", "p3"]
    assert "0 of 3 dead" in cli("dead", "list", "api", "--reason", "nothing like it").out


def test_replay_and_drop(cli: Cli, store: OutboxStore) -> None:
    by_reason = cli("dead", "replay", "api", "--all", "--reason", "connect*", "--json")
    assert by_reason.code == 0
    assert by_reason.json == {"destination": "api", "counts": {"ready": 1}, "failed": {}}
    assert (law(store)["dead"], law(store)["ready"]) == (2, 2)
    mixed = cli("dead", "replay", "api", "d1", "p1", "waits", "nobody")
    assert mixed.code == 1
    assert "1 message: ready to be sent again" in mixed.out
    assert "p1: is not dead" in mixed.err
    assert "waits: is not dead" in mixed.err
    assert "nobody: unknown" in mixed.err
    assert law(store)["parked"] == 3
    assert cli("dead", "drop", "api", "--all").out == "1 message: dropped\n"
    assert (law(store)["dead"], law(store)["dropped"]) == (0, 1)
    none = cli("dead", "replay", "api", "--all")
    assert (none.code, none.out) == (0, "nothing to replay: none fits\n")


def test_many_in_chunks(cli: Cli, store: OutboxStore) -> None:
    store.cancel(["waits"])  # else the helper's batch would hold it
    shelve(store, "dead", "no", *(f"m{n}" for n in range(1200)))
    some = cli("dead", "drop", "api", "--all", "--limit", "1100", "--json")
    assert some.json["counts"] == {"dropped": 1100}
    assert law(store)["dead"] == 103


def test_what_to_act_on_must_be_said(cli: Cli, store: OutboxStore) -> None:
    for args in (["dead", "replay", "api"], ["dead", "drop", "api", "--limit", "2"]):
        result = cli(*args)
        assert result.code == 2
        assert "--all" in result.err
    both = cli("dead", "drop", "api", "d1", "--all")
    assert both.code == 2
    assert "not both" in both.err
    assert cli("parked", "settle", "api", "p1").code == 2
    assert law(store)["dead"] == 3


def test_settle(cli: Cli, store: OutboxStore) -> None:
    sent = cli("parked", "settle", "api", "p1", "--as", "sent")
    assert (sent.code, sent.out) == (0, "1 message: settled as sent\n")
    dead = cli("parked", "settle", "api", "d1", "--as", "drop")
    assert dead.code == 1
    assert "d1: is not parked" in dead.err
    assert cli("parked", "settle", "api", "p2", "--as", "retry").code == 0
    assert cli("parked", "settle", "api", "--all", "--as", "drop").code == 0
    after = law(store)
    assert (after["sent"], after["ready"], after["dropped"], after["parked"]) == (1, 2, 1, 0)
    assert after["dead"] == 3
