"""From one mail provider to another and back: neutral mails, two strict simulators, real
workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from paceline import Outbox
from paceline.audit import DeepAudit
from paceline.connect import connect
from paceline.fallback import Policy
from paceline.mover import Moved, Mover
from paceline.outbox import OutboxStore
from paceline.service import DaemonService
from paceline.settings_file import loads
from paceline.sink.thread import SinkThread
from paceline_workers.runtime import WorkerRuntime
from support.counter import PLACES
from support.line import Worker
from support.wait import until

#: The rule in tenths of a second instead of minutes.
QUICK = Policy(errors=5, errors_s=0.3, apart_s=0.05, quiet_s=0.2, step=50)
# Each provider's own form, of which the other could make nothing.
NATIVE: dict[str, dict[str, Any]] = {
    "sparkpost": {
        "recipients": [{"address": "native@example.org"}],
        "content": {"template_id": "t"},
    },
    "mailgun": {"from": "a@b.example", "to": "native@example.org", "subject": "s", "text": "t"},
}


@dataclass
class Pair:
    """Destinations "a" and "b", each with its provider; a falls back to b."""

    outbox: Outbox
    sinks: tuple[SinkThread, SinkThread]
    stores: tuple[OutboxStore, OutboxStore]

    def send(self, prefix: str, count: int) -> None:
        messages = [
            self.outbox.message("a", _mail(f"{prefix}{n}"), id=f"{prefix}{n}") for n in range(count)
        ]
        for answer in self.outbox.send_many(messages):
            assert not isinstance(answer, Exception), answer

    def accepted(self, sink: int) -> int:
        return self.sinks[sink].report().recipients

    def unfinished(self) -> int:
        return sum(store.census().unfinished for store in self.stores)


def _mail(name: str) -> dict[str, Any]:
    return {
        "email": {
            "from": "Zoë <news@acme.example>",
            "to": [f"{name}@example.org"],
            "subject": "Grüße, {{name}}",
            "text": "Dear {{name}}",
            "substitution": {"name": name},
        }
    }


def _toml(first: str, second: str, sinks: tuple[SinkThread, SinkThread], merge: int) -> str:
    text = ""
    for name, provider, sink in zip("ab", (first, second), sinks, strict=True):
        path, _ = PLACES[provider]
        text += (
            f'[destinations.{name}]\nprovider = "{provider}"\nurl = "{sink.url}{path}"\n'
            'api_key = { env = "KEY" }\nrate = 1000\nburst = 200\nconnections = 5\npace = "fixed"\n'
        )
        if name == "a":
            text += 'fallback = "b"\nprobe_after_s = 0.2\n'
        text += f"[destinations.{name}.merge]\nmost = {merge}\nlinger_s = 0.02\n"
        text += f"[destinations.{name}.retry]\nfirst_s = 0.05\ncap_s = 0.1\nmax_retries = 50\n"
    return text


@contextmanager
def running(redis_url: str, first: str, second: str, merge: int) -> Iterator[Pair]:
    """All of it; at the end every mail was accepted once, and the books of both sides balance."""
    with ExitStack() as exits:
        sinks = (
            exits.enter_context(SinkThread(profile=first, recipients=True)),
            exits.enter_context(SinkThread(profile=second, recipients=True)),
        )
        settings = loads(_toml(first, second, sinks, merge))
        client = exits.enter_context(connect(redis_url))
        outbox = exits.enter_context(Outbox.from_url(redis_url))
        both = list(settings.destinations.values())
        daemon = DaemonService(connect(redis_url), both, ("scheduler", "reaper"))
        daemon.start()
        exits.callback(daemon.stop)
        exits.callback(lambda: [client.lpush(f"{{{name}}}:wake", "1") for name in "ab"])
        exits.callback(daemon.ask_to_stop)
        for it in both:
            environ = {**os.environ, "KEY": "k"}
            exits.callback(Worker(WorkerRuntime(it, redis_url, environ)).stop)
        stores = (OutboxStore(client, "a"), OutboxStore(client, "b"))
        yield Pair(outbox, sinks, stores)
        for store in stores:
            assert store.census().sound, store.census().law
            assert DeepAudit(store).run().sound


def _fail(sink: SinkThread, how: str) -> None:
    if how == "down":
        sink.down()
    else:
        sink.set_faults(how)


def _mend(sink: SinkThread) -> None:
    sink.set_faults("")
    sink.up()


@pytest.mark.parametrize(
    ("first", "second", "merge", "how"),
    [
        # Ambiguous ones of SparkPost's are retried by their key; of Mailgun's none may be.
        ("sparkpost", "mailgun", 20, "502"),
        ("mailgun", "sparkpost", 20, "down"),
    ],
)
def test_there_and_back(redis_url: str, first: str, second: str, merge: int, how: str) -> None:
    with running(redis_url, first, second, merge) as two:
        mover = Mover(*two.stores, QUICK)

        def turn() -> Moved:
            return mover.run_once()

        _fail(two.sinks[0], how)
        for n in range(3):
            two.outbox.send("a", NATIVE[first], id=f"native-{n}", priority="bulk")
        two.send("l", 60)
        until(lambda: turn().share == 100, 9, "all the weight is with the other", 0.02)
        # What was tried stays where it is: of these only what goes to see whether it is well yet.
        two.send("m", 100)
        until(lambda: turn() and two.accepted(1) >= 40, 9, "it carries on", 0.02)
        assert two.accepted(0) == 0
        _mend(two.sinks[0])
        until(lambda: turn().share == 0, 9, "the weight is back", 0.02)
        until(lambda: turn() and not two.unfinished(), 9, "all are sent", 0.02)
        by_the_other = two.accepted(1)
        two.send("n", 40)
        until(lambda: turn() and not two.unfinished(), 9, "these too", 0.02)

        assert two.accepted(1) == by_the_other, "the first is well, and the other was asked"
        assert two.accepted(0) + by_the_other == 203
        reports = [sink.report() for sink in two.sinks]
        assert [report.exposed_recipients for report in reports] == [0, 0]
        # The native ones are all to one address, and never left.
        assert [report.repeated_recipients for report in reports] == [{"native@example.org": 3}, {}]
        a, b = (store.census() for store in two.stores)
        assert a.law["moved_out"] == b.law["moved_in"] == b.law["sent"] == by_the_other
        assert a.law["sent"] == 203 - by_the_other
        for n in range(3):
            assert two.outbox.status("a", f"native-{n}").state == "sent"
