"""A provider fails, another takes its messages, and gives them back: two sinks, real workers.
Between different ones only neutral e-mails move."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from paceline import Outbox
from paceline.cli.explain import status_view
from paceline.cli.look import status_text
from paceline.connect import connect
from paceline.fallback import Policy
from paceline.mover import Moved, Mover
from paceline.outbox import OutboxStore
from paceline.service import DaemonService
from paceline.settings_file import loads
from paceline.sink.thread import SinkThread
from paceline_workers.runtime import WorkerRuntime
from support.cli import Cli
from support.line import Worker
from support.published import published
from support.wait import until

#: The rule in seconds instead of minutes.
QUICK = Policy(errors=20, errors_s=1.0, apart_s=0.15, quiet_s=0.6)


PATHS = {
    "http": "/x",
    "maxmd": "/x",
    "sparkpost": "/api/v1/transmissions",
    "mailgun": "/v3/d.example/messages",
}
KEYS = {
    "http": "",
    "maxmd": 'username = "u"\npassword = "p"',
    "sparkpost": 'api_key = "k"',
    "mailgun": 'api_key = "k"',
}
EMAIL = {"email": {"from": "a@b.example", "to": ["c@d.example"], "subject": "s", "text": "t"}}
OWN = {
    "recipients": [{"address": "c@d.example"}],
    "content": {"from": "a@b.example", "subject": "s", "text": "t"},
}


@dataclass
class Two:
    """Destinations "a" and "b" with a provider, a worker and a daemon; a falls back to b."""

    client: redis.Redis
    outbox: Outbox
    sinks: tuple[SinkThread, SinkThread]
    stores: tuple[OutboxStore, OutboxStore]

    def send(self, prefix: str, count: int, *, own: bool = False) -> set[str]:
        """`own`: as the provider of a alone understands them."""
        payload = OWN if own else EMAIL
        messages = [self.outbox.message("a", payload, id=f"{prefix}{n}") for n in range(count)]
        self.outbox.send_many(messages)
        return {m.id for m in messages}

    def arrived(self, sink: int, *, accepted: bool = False) -> set[str]:
        return {a.id for a in self.sinks[sink].arrivals() if a.accepted or not accepted}

    def unfinished(self) -> int:
        return sum(store.census().unfinished for store in self.stores)


def _toml(sinks: tuple[SinkThread, SinkThread], providers: tuple[str, str]) -> str:
    more = (
        'fallback = "b"\nprobe_after_s = 1.5\n[destinations.a.retry]\nfirst_s = 0.05\ncap_s = 0.1',
        "",
    )
    return "\n".join(
        f'[destinations.{name}]\nprovider = "{provider}"\nurl = "{sink.url}{PATHS[provider]}"\n'
        f"rate = 200\nburst = 100\nconnections = 5\n{KEYS[provider]}\n{its}"
        for name, sink, provider, its in zip("ab", sinks, providers, more, strict=True)
    )


@pytest.fixture(params=[("http", "http")], ids="-to-".join)
def two(redis_url: str, request: pytest.FixtureRequest) -> Iterator[Two]:
    """All of it running; at the end both sides' books balance."""
    providers: tuple[str, str] = request.param
    with ExitStack() as exits:
        one, other = (exits.enter_context(SinkThread(profile=name)) for name in providers)
        sinks = (one, other)
        settings = loads(_toml(sinks, providers))
        client = exits.enter_context(connect(redis_url))
        outbox = exits.enter_context(Outbox.from_url(redis_url))
        daemon = DaemonService(connect(redis_url), list(settings.destinations.values()))
        daemon.start()
        exits.callback(daemon.stop)
        exits.callback(lambda: [client.lpush(f"{{{name}}}:wake", "1") for name in "ab"])
        exits.callback(daemon.ask_to_stop)
        for it in settings.destinations.values():
            exits.callback(Worker(WorkerRuntime(it, redis_url, dict(os.environ))).stop)
        stores = (OutboxStore(client, "a"), OutboxStore(client, "b"))
        yield Two(client, outbox, sinks, stores)
        for store in stores:
            assert store.census().sound, store.census().law


def test_the_daemon_moves_a_tenth_of_what_has_not_been_tried(two: Two) -> None:
    two.sinks[0].set_faults("500")
    two.send("m", 200)
    until(lambda: len(two.arrived(1, accepted=True)) >= 10, 9, "the other provider gets some")
    a, b = two.stores
    census = a.census()
    assert status_view(census)["fallback"] == {"to": "b", "share": 10}
    assert "fallback    10% to b" in status_text(census)
    assert census.law["moved_out"] == b.census().law["moved_in"]
    assert not two.arrived(0) & two.arrived(1), "given to both providers"


@pytest.mark.parametrize("two", [("sparkpost", "mailgun")], ids="-to-".join, indirect=True)
def test_all_of_it_moves_step_by_step_and_back(two: Two) -> None:
    two.sinks[0].set_faults("500")
    mover = Mover(*two.stores, QUICK)
    shares: list[int] = []

    def turn() -> Moved:
        moved = mover.run_once()
        if not shares or shares[-1] != moved.share:
            shares.append(moved.share)
        return moved

    sent = two.send("m", 400)
    own = two.send("own", 20, own=True)
    sent |= own
    until(lambda: turn().share == 100, 9, "all the weight is with the other", 0.02)
    assert shares[:11] == list(range(shares[0], 101, 10))[: len(shares)]
    until(lambda: turn() and two.stores[1].census().law["sent"] >= 150, 9, "it carries on", 0.02)
    two.sinks[0].set_faults("")
    until(lambda: turn().share == 0, 9, "the weight is back", 0.02)
    sent |= two.send("n", 50)
    until(lambda: turn() and not two.unfinished(), 9, "all are sent", 0.02)
    first, second = two.arrived(0, accepted=True), two.arrived(1, accepted=True)
    assert first | second == sent
    assert not two.arrived(0) & two.arrived(1), "given to both providers"
    assert {f"n{n}" for n in range(50)} <= first
    assert own <= first, "what no other provider understands stayed"
    assert all(one.accepted for one in two.sinks[1].arrivals())


def test_two_daemons_lean_no_faster_than_one(redis_client: redis.Redis) -> None:
    a, b = published(redis_client, "a"), published(redis_client, "b")
    movers = [Mover(a, b), Mover(a, b)]
    redis_client.hset("{a}:gate", "breaker", "1")
    assert [mover.run_once().share for mover in movers * 3] == [10] * 6


def test_a_pause_of_the_one_stops_what_moves(redis_client: redis.Redis) -> None:
    a, b = published(redis_client, "a"), published(redis_client, "b")
    redis_client.hset("{a}:gate", "breaker", "1")
    mover = Mover(a, b)
    assert mover.run_once().share == 10
    a.hold("pause")
    moved = mover.run_once()
    assert (moved.count, moved.share, moved.why) == (0, 10, "paused")


def test_the_command_line_says_where_it_went(redis_client: redis.Redis, redis_url: str,
                                             tmp_path: Path) -> None:  # fmt: skip
    a, _ = published(redis_client, "a"), published(redis_client, "b")
    redis_client.hset("{a}:cfg", "fallback", "b")
    with Outbox.from_url(redis_url) as outbox:
        outbox.send("a", {"n": 1}, id="m")
    a.lean("b", 0, 30, 0, loud=True)
    until(lambda: a.move("b")[0], 5, "it is moved", 0.02)
    paceline = Cli(redis_url, tmp_path)
    shown = paceline("show", "a", "m")
    assert shown.code == 0
    assert "a m: moved" in shown.out
    assert "moved to b, to which this one falls back; paceline show b m tells" in shown.out
    assert "provider id" not in shown.out
    assert "b m: ready" in paceline("show", "b", "m").out
    assert "fallback 30% to b" in " ".join(paceline("status").out.split())
    assert "fallback    30% to b, 1 moved so far" in paceline("status", "a").out
    refused = paceline("cancel", "a", "m")
    assert refused.code != 0
    assert "Traceback" not in refused.out + refused.err
    assert paceline("audit", "--deep").code == 0
