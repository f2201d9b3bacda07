"""Events at the app's own URL, the whole way: real Redis, workers, a receiver that verifies."""

from __future__ import annotations

import base64
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email import message_from_bytes
from pathlib import Path
from typing import Any

import msgspec
from standardwebhooks import Webhook as Receiver

from paceline import Outbox
from paceline.cli.explain import status_view
from paceline.cli.look import status_text
from paceline.connect import connect
from paceline.event_forwarder import EventForwarder, Forwarded
from paceline.outbox import OutboxStore
from paceline.service import DaemonService
from paceline.settings import Settings
from paceline.settings_file import loads
from paceline.sink.thread import SinkThread
from paceline_workers.runtime import WorkerRuntime
from support.line import Worker
from support.peers import OK, Peer, Talk
from support.wait import until

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
NO = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"

TOML = """
[destinations.mail]
provider = "http"
url = "{mail}"
rate = 1000
burst = 400
[destinations.mail.events]
kinds = "all"
deliver_to = "hook"
deliver_batch = 20
deliver_linger_s = 0.1
[destinations.hook]
provider = "webhook"
url = "{hook}"
rate = 1000
burst = 400
guard_allow = ["127.0.0.1"]
secrets = [{{ file = "{new}" }}, {{ file = "{old}" }}]
[destinations.hook.retry]
first_s = 0.05
cap_s = 0.1
[destinations.hook.events]
kinds = "all"
"""


def unsteady(peer: Peer, talk: Talk) -> None:
    """Every second try fails, after it was read."""
    while request := talk.read_request():
        peer.requests.append(request)
        talk.send(NO if len(peer.requests) % 2 else OK)


def read(request: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    return dict(message_from_bytes(head.partition(b"\r\n")[2])), body


class Documented:
    """The receiver that docs/events.md shows, with the key in it."""

    def __init__(self, key: str) -> None:
        [code] = re.findall(
            r"```python\n(import sqlite3.*?)```", PAGE.read_text("utf-8"), re.DOTALL
        )
        self._space: dict[str, Any] = {}
        exec(code.replace("whsec_…", key).replace("events.db", ":memory:"), self._space)

    def status(self, headers: dict[str, str], body: bytes) -> str:
        environ = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        environ |= {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in headers.items()}
        said: list[str] = []
        assert self._space["app"](environ, lambda status, _: said.append(status)) == []
        return said[0]

    def booked(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = (
            self._space["DB"].execute("SELECT * FROM event ORDER BY seq").fetchall()
        )
        return rows


@contextmanager
def running(redis_url: str, settings: Settings) -> Iterator[None]:
    """A daemon."""
    with connect(redis_url) as client:
        daemon = DaemonService(client, list(settings.destinations.values()))
        daemon.start()
        try:
            yield
        finally:
            daemon.ask_to_stop()
            for name in settings.destinations:
                client.lpush(f"{{{name}}}:wake", "1")
            daemon.stop()


def test_events_arrive_signed_once_and_their_own_fate_stays_here(
    redis_url: str, tmp_path: Path
) -> None:
    keys = {}
    for name in ("new", "old"):
        keys[name] = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        (tmp_path / name).write_text(keys[name])
    with ExitStack() as exits:
        sink = exits.enter_context(SinkThread(profile="http", faults="400:20%", seed=6))
        peer = exits.enter_context(Peer(unsteady))
        hook = f"http://127.0.0.1:{peer.port}/events"
        text = TOML.format(mail=sink.url, hook=hook, new=tmp_path / "new", old=tmp_path / "old")
        settings = loads(text)
        client = exits.enter_context(connect(redis_url))
        outbox = exits.enter_context(Outbox.from_url(redis_url))
        mail, target = (OutboxStore(client, name) for name in ("mail", "hook"))
        # Two daemons, for any number may run.
        for _ in range(2):
            exits.enter_context(running(redis_url, settings))
        for it in settings.destinations.values():
            exits.callback(Worker(WorkerRuntime(it, redis_url, dict(os.environ))).stop)

        outbox.send_many([outbox.message("mail", {"n": n}, id=f"m-{n}") for n in range(60)])
        until(lambda: mail.census().unfinished == 0, 10, "all mails have ended", 0.02)
        until(lambda: mail.census().forward_lag == 0, 5, "all is handed on", 0.02)
        until(lambda: target.census().unfinished == 0, 10, "all hooks have ended", 0.02)

        census = mail.census()
        told = [
            msgspec.to_builtins(event) for event in outbox.events("mail", start="first", block_s=0)
        ]
        own = list(outbox.events("hook", start="first", block_s=0))
        again = EventForwarder(mail, target, settings.destinations["mail"].events).run_once()
        ended = target.census()
    arrived: dict[str, dict[str, Any]] = {}
    for headers, body in map(read, peer.requests):
        for key in keys.values():
            heard = Receiver(key).verify(body, headers)
        assert arrived.setdefault(headers["webhook-id"], heard) == heard
    assert {(it["type"], it["data"]["destination"]) for it in arrived.values()} == {
        ("paceline.events", "mail")
    }
    events = [event for it in arrived.values() for event in it["data"]["events"]]
    assert all(len(it["data"]["events"]) <= 20 for it in arrived.values())
    # As they stand in the stream, but for what a reader there needs besides.
    for event in told:
        del event["destination"], event["entry"]
    wanted = [{k: v for k, v in event.items() if v is not None} for event in told]
    assert sorted(events, key=lambda event: event["seq"]) == wanted
    assert Counter(e["kind"] for e in events) == {
        "accepted": 60, "sent": census.law["sent"], "rejected": census.law["dead"],
    }  # fmt: skip
    # Whatever came twice is booked once; and what is forged is not.
    receiver = Documented(keys["old"])
    for headers, body in map(read, peer.requests):
        assert receiver.status(headers, body) == "204 No Content"
        assert receiver.status(headers, body + b" ") == "401 Unauthorized"
    assert receiver.booked() == [("mail", e["seq"], e["kind"], e["id"]) for e in wanted]
    # The target's own events are told, and are nobody's to deliver.
    assert Counter(event.kind for event in own)["retried"] > 0
    assert again == Forwarded(next_s=0.05)
    assert ended.law["accepted"] == len(arrived) == ended.law["sent"]

    assert status_view(census)["events_forward"] == {"to": "hook", "lag": 0, "unforwarded": 0}
    assert "  events      to hook, 0 not there yet\n" in status_text(census)
    assert status_view(ended)["events_forward"] is None
