"""Events as apps and operators read them: iterated, waited for, shared by a group, on the command
line. Real Redis; the whole line where deliveries matter."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from paceline import Outbox, event_reader
from paceline.cli.events import event_text
from paceline.connect import connect
from paceline.errors import InvalidMessage, NotPossible, UnknownDestination
from paceline.events import ENDS, KINDS, RESTS, Event
from paceline.message_status import Status
from paceline.outbox import OutboxStore
from paceline.settings import Events
from paceline.sink.thread import SinkThread
from support.cli import Cli, open_outbox, put, shelve
from support.line import NAME, QUICK, Line, destination
from support.servers import command_calls
from support.wait import until

ON = '[destinations.d.events]\nkinds = "all"\n'


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each test would wait a second for the readers of the one before."""
    monkeypatch.setattr("paceline.event_reader._SLICE_S", 0.1)


@pytest.fixture
def told(redis_client: redis.Redis) -> OutboxStore:
    """A destination whose events are on."""
    return open_outbox(redis_client, events=Events(kinds=KINDS))


@pytest.fixture
def outbox(redis_url: str) -> Iterator[Outbox]:
    with Outbox.from_url(redis_url) as found:
        yield found


class Aside:
    """A call in a thread of its own; ``result`` waits for what it returns or raises."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self._found = call, [None, None]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found[0] = self._call()
            self.at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._found[1] = error  # type: ignore[call-overload]

    def result(self, timeout_s: float = 10.0) -> Any:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "it never returned"
        if self._found[1] is not None:
            raise self._found[1]
        return self._found[0]


def blocked_reads(client: redis.Redis, name: str = "paceline-client") -> int:
    """Of the clients of this name. One of the test before may be there for a moment."""
    return sum(
        c["cmd"] == "xread" and "b" in c["flags"] and c["name"] == name
        for c in client.client_list()
    )


# -- the whole line -------------------------------------------------------------------------


def test_every_message_has_one_end_and_waiters_hear_of_it(redis_url: str) -> None:
    faults = "500:8%,400:5%,reset_after:2%"
    more = "rate = 1000\nburst = 400\nconnections = 5"
    with (
        SinkThread(profile="http", faults=faults, seed=6) as sink,
        Line(redis_url, destination(sink.url, more=more, tables=QUICK + ON)) as line,
    ):
        messages = [line.outbox.message(NAME, {"n": n}, id=f"m-{n}") for n in range(200)]
        line.outbox.send_many(messages)
        statuses = [line.outbox.wait(NAME, message.id, 20) for message in messages]
        found = list(line.outbox.events(NAME, start="first", block_s=0))
        n = line.store.census().counters
        provider_ids = {a.id for a in sink.arrivals()}
    kinds = Counter(event.kind for event in found)
    assert kinds["accepted"] == 200
    assert kinds["retried"] == n["retried"] > 0
    assert kinds["rejected"] + kinds["dead"] == n["died"] > 0
    ends = Counter(event.id for event in found if event.kind in ENDS | RESTS)
    assert ends == Counter(message.id for message in messages)
    assert Counter(s.state for s in statuses) == {"sent": kinds["sent"], "dead": n["died"]}
    sent = [event for event in found if event.kind == "sent"]
    assert all(e.status == 200 and e.latency_s and e.attempt for e in sent)
    assert {event.id for event in sent} <= provider_ids
    assert [event.seq for event in found] == list(range(1, len(found) + 1))


# -- wait -----------------------------------------------------------------------------------


def test_wait_returns_with_the_event(
    told: OutboxStore, outbox: Outbox, redis_client: redis.Redis
) -> None:
    put(told, "a")
    waiting = Aside(lambda: outbox.wait("api", "a", 10))
    until(lambda: blocked_reads(redis_client), 5, "it waits for the event")
    settled = time.monotonic()
    assert told.cancel(["a"]) == ["cancelled"]
    assert waiting.result().state == "cancelled"
    # Without the event it would look again after 5 s.
    assert waiting.at - settled < 1


def test_a_waiter_needs_no_connection_of_the_pool_to_listen(
    told: OutboxStore, redis_url: str, redis_client: redis.Redis
) -> None:
    put(told, "a")
    with _pool_of(1, redis_url) as outbox:
        waiting = Aside(lambda: outbox.wait("api", "a", 10))
        until(lambda: blocked_reads(redis_client), 5, "it waits for the event")
        told.cancel(["a"])
        assert waiting.result(1).state == "cancelled"


def _pool_of(connections: int, url: str) -> Outbox:
    client = connect(url, name="paceline-client")
    client.connection_pool.max_connections = connections
    return Outbox(client)


def test_many_waiters_share_one_read_and_ask_nothing_meanwhile(
    told: OutboxStore, redis_url: str, redis_client: redis.Redis
) -> None:
    # Fewer connections than waiters that are woken at once.
    outbox = _pool_of(10, redis_url)
    ids = [f"m{n}" for n in range(40)]
    put(told, *ids)
    waiting = [Aside(lambda i=i: outbox.wait("api", i, 10)) for i in ids]  # type: ignore[misc]

    looks = "evalsha_ro"
    until(lambda: command_calls(redis_client).get(looks, 0) >= 40, 5, "all have looked")
    until(lambda: blocked_reads(redis_client) == 1, 5, "they share one read")
    assert command_calls(redis_client)["xinfo|stream"] == 1
    redis_client.config_resetstat()
    until(lambda: command_calls(redis_client).get("xread", 0) >= 3, 5, "some time passes")
    assert set(command_calls(redis_client)) <= {"xread", "client|list"}
    assert set(told.cancel(ids)) == {"cancelled"}
    states = {one.result().state for one in waiting}
    outbox.close()
    assert states == {"cancelled"}


def test_wait_without_events_and_with_too_few_of_them_polls(
    redis_client: redis.Redis, outbox: Outbox
) -> None:
    for name, events in (("off", Events()), ("few", Events(kinds=("sent",)))):
        store = open_outbox(redis_client, name, events=events)
        put(store, "a", "b")
        with pytest.raises(TimeoutError, match="still ready"):
            outbox.wait(name, "a", 0.05)
        waiting = Aside(lambda name=name: outbox.wait(name, "b", 4))  # type: ignore[misc]
        store.cancel(["b"])
        found: Status = waiting.result(2)
        assert found.state == "cancelled"


def test_wait_goes_on_where_the_stream_may_not_be_read(
    told: OutboxStore, redis_client: redis.Redis, redis_url: str
) -> None:
    put(told, "a")
    rights = ("on", ">pw", "~*", "+@all", "-xread")
    redis_client.execute_command("ACL", "SETUSER", "app", *rights)
    try:
        with Outbox.from_url(redis_url.replace("//", "//app:pw@")) as app:
            waiting = Aside(lambda: app.wait("api", "a", 10))
            until(lambda: app._watch("api").refused, 5, "it was refused")
            told.cancel(["a"])
            assert waiting.result(2).state == "cancelled"
    finally:
        redis_client.execute_command("ACL", "DELUSER", "app")


# -- events ---------------------------------------------------------------------------------


def test_a_lone_reader_keeps_its_place(told: OutboxStore, outbox: Outbox) -> None:
    put(told, "a", "b")
    from_now = outbox.events("api", block_s=0)
    told.cancel(["a"])
    told.cancel(["b"])
    assert [(e.kind, e.id) for e in from_now] == [("cancelled", "a"), ("cancelled", "b")]
    everything = list(outbox.events("api", start="first", block_s=0))
    assert [e.kind for e in everything] == ["accepted"] * 2 + ["cancelled"] * 2
    after = outbox.events("api", start=everything[1].entry, block_s=0, kinds={"cancelled"})
    assert [e.id for e in after] == ["a", "b"]


def test_a_reader_sleeps_until_something_comes(
    told: OutboxStore, outbox: Outbox, redis_client: redis.Redis
) -> None:
    events = outbox.events("api")
    first = Aside(lambda: next(events))
    until(lambda: blocked_reads(redis_client), 5, "it waits")
    put(told, "a")
    assert first.result().id == "a"


def test_what_is_not_acknowledged_comes_again_to_the_same_consumer(
    told: OutboxStore, outbox: Outbox
) -> None:
    put(told, "a", "b", "c")

    def read() -> Iterator[str]:
        for event in outbox.events("api", "g", consumer="one", block_s=0):
            yield event.id

    assert next(read()) == "a"  # and dies before it has done with it
    again = read()
    assert [next(again), next(again)] == ["a", "b"]
    again.close()
    assert list(read()) == ["b", "c"]
    assert list(read()) == []


def test_what_a_dead_consumer_held_goes_to_another(told: OutboxStore, outbox: Outbox) -> None:
    put(told, "a", "b", "c")
    dead = outbox.events("api", "g", consumer="dead", block_s=0)
    assert next(dead).id == "a"
    put(told, "d")
    claims = outbox.events("api", "g", consumer="other", block_s=3, claim_after_s=0.2)
    assert [next(claims).id for _ in range(4)] == ["d", "a", "b", "c"]
    claims.close()
    # A second group has all of them for itself, from the first on.
    second = outbox.events("api", "second", block_s=0)
    assert [event.id for event in second] == ["a", "b", "c", "d"]


def test_a_slow_consumer_does_not_handle_what_another_took_over(
    told: OutboxStore, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(told, "a", "b")
    held_s = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + held_s)
    monkeypatch.setattr(event_reader, "time", clock)
    slow = outbox.events("api", "g", consumer="slow", block_s=0, claim_after_s=30)
    assert next(slow).id == "a"
    quick = outbox.events("api", "g", consumer="quick", block_s=2, claim_after_s=0.01)
    assert [next(quick).id, next(quick).id] == ["a", "b"]
    put(told, "c")
    held_s = 11.0  # the slow one comes back from what it did with "a"
    assert [event.id for event in slow] == ["c"]


def test_a_group_outlives_its_stream(told: OutboxStore, outbox: Outbox) -> None:
    put(told, "a")
    events = outbox.events("api", "g", block_s=2)
    assert next(events).id == "a"
    told.client.delete("{api}:ev")
    put(told, "b")
    assert next(events).id == "b"


def test_a_foreign_entry_is_passed_over(told: OutboxStore, outbox: Outbox) -> None:
    told.client.xadd("{api}:ev", {"some": "body"})
    put(told, "a")
    assert [e.id for e in outbox.events("api", start="first", block_s=0)] == ["a"]


def test_what_cannot_be_read_is_said_at_once(redis_client: redis.Redis, outbox: Outbox) -> None:
    with pytest.raises(UnknownDestination):
        outbox.events("api")
    open_outbox(redis_client)
    with pytest.raises(NotPossible, match=r"kinds = "):
        outbox.events("api")
    open_outbox(redis_client, "on", events=Events(kinds=KINDS))
    with pytest.raises(InvalidMessage, match="no place"):
        outbox.events("on", start="yesterday")


# -- the command line -----------------------------------------------------------------------


def test_events_on_the_command_line(cli: Cli, told: OutboxStore) -> None:
    shelve(told, "dead", "code 2", "a")
    put(told, "b")
    lines = cli("events", "api").out.splitlines()
    assert [line.split()[3:5] for line in lines] == [
        ["accepted", "a"], ["dead", "a"], ["accepted", "b"],
    ]  # fmt: skip
    found = cli("events", "api", "--json", "--kind", "dead", "--from", "1h")
    [only] = [json.loads(line) for line in found.out.splitlines()]
    assert (only["kind"], only["id"], only["destination"], only["seq"]) == ("dead", "a", "api", 2)
    for place in ("noon", "10y", "-5m"):
        wrong = cli("events", "api", "--from", place)
        said = f"Invalid value for '--from': '{place}' is no place in the stream. Give first, now,"
        assert (wrong.code, said in wrong.err) == (2, True), wrong.err


def test_what_a_terminal_would_act_on_is_not_printed() -> None:
    text = event_text(Event(
        entry="1-0", destination="api", kind="moved", at=1e25, id="a\x1b[2J", seq=1, reason="b\nc",
        provider_id="d\x07", request="e\x9b",
    ))  # fmt: skip
    assert text == "1e+25  moved      a?[2J  to d?  in request e?  (b c)"


def test_following_ends_with_ctrl_c(cli: Cli, told: OutboxStore, redis_client: redis.Redis) -> None:
    with cli.popen("events", "api", "--follow", "--json") as process:
        try:
            assert process.stdout
            assert process.stderr
            until(lambda: blocked_reads(redis_client, "paceline-cli"), 10, "it follows")
            put(told, "a")
            assert json.loads(process.stdout.readline())["id"] == "a"
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            assert process.stderr.read() == b""
        finally:
            process.kill()
