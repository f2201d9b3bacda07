"""campaign list, show, pause, resume, cancel: what they say, as scripts and people read it; and
what apps are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import pytest
import redis
from click.testing import CliRunner, Result

from paceline import Outbox
from paceline.cli.campaign import campaign
from paceline.cli.look import show, status
from paceline.errors import InvalidMessage, UnknownDestination
from paceline.outbox import OutboxStore
from support.cli import Cli, put, shelve, take

Run = Callable[..., Result]


@pytest.fixture
def run(redis_url: str) -> Run:
    """In this process, for speed; the return value is the exit code."""

    def call(*args: str, command: click.Command = campaign, stdin: str | None = None) -> Result:
        env = {"PACELINE_REDIS_URL": redis_url, "PACELINE_CONFIG": None}
        return CliRunner().invoke(command, args, stdin, env, standalone_mode=False)

    return call


def told(run: Run, *args: str, **options: Any) -> Any:
    return json.loads(run(*args, "--json", **options).stdout)


def test_a_campaign_from_its_first_message_to_its_end(
    run: Run, cli: Cli, store: OutboxStore
) -> None:
    put(store, "a", "b", "c", campaign="spring")
    put(store, "x", campaign="autumn")
    paused = cli("campaign", "pause", "api", "spring", "--reason", "wrong subject")
    assert (paused.code, paused.out) == (0, "spring paused; 3 messages of it have not ended\n")

    found = told(run, "list", "api")["campaigns"]
    assert [(it["campaign"], it["live"], it["paused"]) for it in found] == [
        ("autumn", 1, False), ("spring", 3, True),
    ]  # fmt: skip
    assert found[1]["paused_reason"] == "wrong subject"
    listed = run("list", "api").stdout
    assert "2 campaigns of api" in listed
    assert "wrong subject" in listed

    seen = told(run, "show", "api", "spring")
    assert seen["states"] == {
        "ready": 0, "scheduled": 0, "paused": 3, "leased": 0, "dead": 0, "parked": 0,
    }  # fmt: skip
    assert (seen["accepted"], seen["sent"], seen["soonest_s"]) == (3, 0, None)
    assert "0 of 3 sent" in run("show", "api", "spring").stdout
    message = run("api", "a", command=show).stdout
    assert "it waits with its campaign, which is paused" in message
    state = run("api", command=status).stdout
    assert "3 of those scheduled wait with paused campaigns" in state
    assert "next due" not in state

    assert run("resume", "api", "spring").stdout.startswith("spring resumed;")
    assert "was not paused" in run("resume", "api", "spring").stdout
    assert store.census().law["ready"] == 4

    done = run("cancel", "api", "spring", "--yes")
    assert (done.return_value, done.stdout) == (0, "cancelled 3 messages of spring\n")
    assert told(run, "show", "api", "spring")["cancelled"] == 3
    assert [hand["what"] for hand in store.hands()][-1] == "pause campaign spring"


def test_all_that_waits_is_paused(run: Run, store: OutboxStore) -> None:
    put(store, "a", campaign="spring")
    run("pause", "api", "spring")
    view = told(run, "api", command=status)["destinations"]["api"]
    assert (view["why"]["code"], view["campaign_paused"], view["eta_s"]) == ("campaign", 1, 0.0)
    assert view["next_due_s"] is None


def test_what_cannot_be_cancelled_is_told(run: Run, store: OutboxStore) -> None:
    shelve(store, "dead", "no", "dead-one")
    put(store, "wire", campaign="spring")
    nonce = take(store, 1)
    store.client.setrange("{api}:m:wire", 1, b"B" + b"\0\1\0\0" + nonce.encode())
    done = run("cancel", "api", "spring", "--yes")
    assert done.return_value == 1
    assert "1 may be on the wire" in done.stderr
    counts = told(run, "cancel", "api", "spring", "--yes")["counts"]
    assert counts == {"cancelled": 0, "begun": 1, "dead": 0, "parked": 0}


def test_cancelling_wants_a_word_of_confirmation(run: Run, store: OutboxStore) -> None:
    put(store, "a", campaign="spring")
    refused = run("cancel", "api", "spring")
    assert isinstance(refused.exception, click.UsageError)
    assert "--yes" in str(refused.exception)
    assert store.census().law["ready"] == 1


def test_what_is_not_known(run: Run, cli: Cli, store: OutboxStore) -> None:
    none = cli("campaign", "show", "api", "winter")
    assert (none.code, none.out) == (1, "nothing is known of the campaign winter of api\n")
    assert isinstance(run("show", "nowhere", "x").exception, UnknownDestination)
    assert isinstance(run("pause", "api", "no name").exception, InvalidMessage)
    assert run("list", "api").stdout == "0 campaigns of api\n"


def test_apps_are_told_the_same(redis_client: redis.Redis, store: OutboxStore) -> None:
    put(store, "a", "b", campaign="spring")
    outbox = Outbox(redis_client)
    found = outbox.campaign("api", "spring")
    assert (found.live, found.states["ready"], found.waiting, found.known) == (2, 2, 2, True)
    store.pause_campaign("spring")
    store.walk_campaigns()
    paused = outbox.status("api", "a")
    assert (paused.state, paused.paused, paused.due) == ("scheduled", True, None)
    assert outbox.cancel_campaign("api", "spring")["cancelled"] == 2
    assert outbox.campaign("api", "winter").known is False
    with pytest.raises(UnknownDestination):
        outbox.cancel_campaign("nowhere", "spring")
    with pytest.raises(InvalidMessage, match="campaign"):
        outbox.campaign("api", "no name")
