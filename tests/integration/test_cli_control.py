"""pause, hold, resume, drain, cancel, purge: what they do, and what they say."""

from __future__ import annotations

import signal

import pytest
from click.testing import CliRunner

from paceline.cli import control
from paceline.outbox import OutboxStore
from paceline.scripts import Pinned
from support.cli import Cli, put, shelve, take
from support.wait import until


def test_pause_hold_resume(cli: Cli, store: OutboxStore) -> None:
    paused = cli("pause", "api", "--for", "10m", "--reason", "their maintenance")
    assert paused.code == 0
    assert "api is paused for 10m" in paused.out
    assert "paceline resume api" in paused.out
    census = store.census()
    closed = census.closed()
    assert closed is not None
    what, left_s, why = closed
    assert (what, why) == ("paused", "their maintenance")
    assert left_s is not None
    assert 580 < left_s <= 600
    assert "@" in census.gate["pause_who"]

    held = cli("hold", "api", "--reason", "locked", "--json")
    assert held.json["done"] == "held"
    assert store.census().gate["hold_until"] == "-1"
    lifted = cli("resume", "api", "--json")
    assert (lifted.code, lifted.json["lifted"]) == (0, ["paused"])
    assert store.census().closed() is None
    assert "nothing to lift" in cli("resume", "api").out


@pytest.mark.parametrize("text", ["10", "10x", "-5m", "0s", "", "1h 30m", "99999d"])
def test_durations_that_are_none(text: str) -> None:
    result = CliRunner().invoke(control.pause, ["api", "--for", text])
    assert result.exit_code == 2
    assert "--for" in result.output
    assert "90s, 10m, 2h, 1d" in result.output or "3650d" in result.output


def test_unknown_destination(cli: Cli, store: OutboxStore) -> None:
    for command in (["pause"], ["resume"], ["drain"], ["cancel"], ["purge", "--yes"]):
        ids = ["x"] if command == ["cancel"] else []
        result = cli(command[0], "apo", *ids, *command[1:])
        assert result.code == 1
        assert "unknown destination 'apo'. Known: api" in result.err


def test_drain_waits_until_nothing_is_left(cli: Cli, store: OutboxStore) -> None:
    put(store, "a", "b")
    process = cli.popen("drain", "api", "--wait")
    until(lambda: "draining" in store.census().gate, 30, "drain on")
    assert "@" in store.census().gate["draining"]
    assert process.stderr is not None
    assert b"no daemon runs" in process.stderr.readline()
    assert process.poll() is None
    store.cancel(["a", "b"])
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"drained: nothing is left to send" in out
    assert "draining" in store.census().gate


def test_interrupted_drain_stays_on(cli: Cli, store: OutboxStore) -> None:
    put(store, "a")
    process = cli.popen("drain", "api", "--wait")
    assert process.stderr is not None
    # It has said why it waits, so it waits.
    assert b"no daemon" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"The drain of api stays on" in err
    assert "draining" in store.census().gate
    late = cli("drain", "api", "--wait", "--timeout", "1s")
    assert late.code == 1
    assert "1 message left; the drain stays on" in late.out


def test_cancel_says_what_became_of_each(cli: Cli, store: OutboxStore) -> None:
    shelve(store, "dead", "no", "dead-one")
    put(store, "on-the-wire")
    nonce = take(store, 1)
    store.client.hset("{api}:gate", mapping={"level": 100, "at": 0})
    gate = Pinned(store.client)
    until(lambda: store.begin(gate, "on-the-wire", nonce).verdict == "go", 30, "begun")
    gate.close()
    put(store, "waits")
    fine = cli("cancel", "api", "waits")
    assert (fine.code, fine.out) == (0, "waits: cancelled\n")
    mixed = cli("cancel", "api", "waits", "on-the-wire", "dead-one", "nobody", "--json")
    assert mixed.code == 1
    assert mixed.json["messages"] == {
        "waits": "ended",
        "on-the-wire": "begun",
        "dead-one": "dead",
        "nobody": "unknown",
    }
    told = cli("cancel", "api", "on-the-wire", "dead-one").out
    assert "may be on the wire" in told
    assert "paceline dead drop" in told
    bad = cli("cancel", "api", "not an id")
    assert bad.code == 1
    assert "id: 'not an id' is not allowed. Use 1 to 128" in bad.err


def test_purge(cli: Cli, store: OutboxStore) -> None:
    shelve(store, "dead", "no", "dead-one")
    put(store, "out")
    take(store, 1)
    put(store, *(f"m{n}" for n in range(700)))
    put(store, "later", delay_s=4e9)
    refused = cli("purge", "api")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert store.census().law["ready"] == 700
    done = cli("purge", "api", "--yes", "--json")
    assert (done.code, done.json["dropped"], done.json["leased"]) == (0, 701, 1)
    law = store.census().law
    assert (law["ready"], law["scheduled"], law["leased"], law["dead"]) == (0, 0, 1, 1)
    assert store.census().sound
