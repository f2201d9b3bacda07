"""What became of a message, asked of the provider some time later: over real HTTP, by a worker, and
by the errand alone with answers of every kind."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Any

import pytest
import redis

from paceline import scripts
from paceline.answers import Permit, Settlement
from paceline.cli.look import attempt_line
from paceline.clock import Clock
from paceline.errands import Errand, Errands
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.shared_config import publish
from paceline.sink.thread import SinkThread
from paceline.sink.windows import worst_window
from paceline_workers.pending import PendingQueue
from paceline_workers.providers.base import as_polling
from paceline_workers.providers.registry import build
from paceline_workers.sender import Sender
from paceline_workers.settler import Settler
from paceline_workers.status_poll import DEADLINE_S, StatusPoll
from paceline_workers.transports.adapter import GatedAdapter
from paceline_workers.transports.connection import Connector
from paceline_workers.transports.pool import ConnectionPool, Retirement
from paceline_workers.transports.watchdog import Watchdog
from support.line import Line, destination
from support.peers import Peer, answers
from support.wait import until

SOON = "poll_status_after_s = 0.05\n"


def maxmd(sink: SinkThread, more: str) -> Any:
    return destination(f"{sink.url}/message/Send", "maxmd", more)


def of_status(line: Line, message_id: str = "m-1") -> list[dict[str, Any]]:
    history = line.status(message_id).history
    return [dict(entry) for entry in history if entry["outcome"] == "status"]


# -- a worker -----------------------------------------------------------------------------------


def test_what_became_of_a_message_is_in_its_history(redis_url: str) -> None:
    with SinkThread(profile="maxmd") as sink, Line(redis_url, maxmd(sink, SOON)) as line:
        line.send()
        [entry] = until(lambda: of_status(line), 8, "its status is on record")
        assert entry["reason"] == "b@direct.example delivered"
        assert (entry["status"], '"delivered"' in entry["response"]) == (200, True)
        assert attempt_line(entry).endswith("  status: b@direct.example delivered")
        status = line.status()
        post, get = sink.arrivals()
        assert (status.state, status.provider_id) == ("sent", "sink-0")
        assert (post.method, get.method) == ("POST", "GET")
        assert get.path == "/message/GetMessageStatus/sink-0"
        assert (post.accepted, get.accepted, get.id, get.bytes) == (True, False, None, 0)
        census = line.store.census()
        assert census.outcomes == {"sent:200": 1}
        assert census.counters["permits"] == 2
        assert post.conn == get.conn or line.destination.connections > 1
        assert line.client.zcard("{d}:poll") == 0
        adapter = line.workers[0].runtime.engine.sender._errand._adapter  # type: ignore[union-attr]
        assert adapter._total_timeout_s == DEADLINE_S  # type: ignore[attr-defined]


def test_off_by_default(redis_url: str) -> None:
    with SinkThread(profile="maxmd") as sink, Line(redis_url, maxmd(sink, "")) as line:
        line.send()
        line.wait("sent")
        assert line.workers[0].runtime.engine.sender._errand is None
        assert not line.client.exists("{d}:poll")
        assert [arrival.method for arrival in sink.arrivals()] == ["POST"]


def test_messages_and_questions_together_keep_to_the_bound(redis_url: str) -> None:
    more = f"rate = 40\nburst = 8\nreserve = 0\nconnections = 2\n{SOON}"
    with SinkThread(profile="maxmd") as sink, Line(redis_url, maxmd(sink, more)) as line:
        for n in range(16):
            line.send(id=f"m-{n}")
        line.wait_done()

        def asked() -> bool:
            return sum(a.method == "GET" for a in sink.arrivals()) >= 4

        until(asked, 8, "some are asked about")
        arrivals = sink.arrivals()
        assert sum(arrival.accepted for arrival in arrivals) == 16
        assert worst_window([a.mono_ns for a in arrivals], 40, 8).margin <= 0
        assert sink.report().connections.max_open <= 2


# -- the sender ---------------------------------------------------------------------------------


class _Counted:
    def __init__(self) -> None:
        self.runs = 0

    def is_due(self) -> bool:
        return True

    def run(self) -> None:
        self.runs += 1
        if self.runs == 2:
            raise ZeroDivisionError("planted")


def test_a_thread_that_has_a_message_runs_no_errand(
    redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    store, queue, errand = OutboxStore(redis_client, "d"), PendingQueue(9), _Counted()
    publish(store, destination("http://127.0.0.1:9/"))
    store.slots("beat", "w", 1)
    for n in range(3):
        store.enqueue(Message(destination="d", id=f"m-{n}", payload=b"{}"))
    taken = store.take("w", "n" * 16, 3, "any")
    sender = Sender(
        0, queue, ConnectionPool([], Retirement(), clock=time.monotonic, rand=random.random),
        lambda _: pytest.fail("no thread"), lambda settled: Settler(store, settled), clock=Clock(),
        total_timeout_s=35.0, stopping=threading.Event(), errand=errand,
    )  # fmt: skip

    class Idle:
        def flush(self) -> None:
            queue.close()  # so that it does not wait for a message

    idle: Any = Idle()
    for leased in store.fetch(taken):
        queue.put(leased, 0)
    got = [sender._next(idle) for _ in range(3)]
    assert [leased.id for leased in got if leased] == ["m-0", "m-1", "m-2"]
    assert errand.runs == 0
    queue._closed = False
    queue.close = lambda: None  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR):
        assert sender._next(idle) is None
        assert (errand.runs, len(caplog.records)) == (1, 0)
        assert sender._next(idle) is None, "a defect ends no thread"
    assert (errand.runs, len(caplog.records)) == (2, 1)
    assert queue._others_out == 3, "what was lent is not back"


# -- the errand alone ---------------------------------------------------------------------------


class Asker:
    """One message that was sent as ``<1.a@direct.example>`` and is due; a StatusPoll without a
    worker, to a URL, which is one of ``urls`` alike."""

    def __init__(
        self, client: redis.Redis, url: str, *, deadline_s: float = 5.0, urls: int = 1
    ) -> None:
        self.client = client
        self.store = OutboxStore(client, "d")
        scripts.load_library(client)
        to = destination(f"{url}/api/Send", "maxmd", "poll_status_after_s = 0.000001\nrate = 1000")
        publish(self.store, to)
        self.store.slots("beat", "w", 1)
        self.store.enqueue(Message(destination="d", id="m-1", payload=b"{}"))
        self.store.take("w", "n" * 16, 1, "any")
        sent = Settlement(
            id="m-1", nonce="n" * 16, action="sent", provider_id="<1.a@direct.example>"
        )
        self.store.settle([sent])
        # An empty bucket would only make it wait; what it draws is not the question here.
        client.hset(
            "{d}:gate", mapping={"level": 5, "at": 1, "run": scripts.Pinned(client).ready()}
        )
        self.pool = ConnectionPool(
            [Connector(to.urls[0], connect_timeout_s=2.0, read_timeout_s=5.0)] * urls,
            Retirement(), clock=time.monotonic, rand=random.random,
        )  # fmt: skip
        self.pool.set_limit(1)
        self.watchdog = Watchdog(time.monotonic)
        self.watchdog.start()
        clock = Clock()
        self.adapter = adapter = GatedAdapter(
            self.pool, self.watchdog, total_timeout_s=deadline_s,
            monotonic_s=clock.monotonic_s, elapsed_s=clock.elapsed_s,
        )  # fmt: skip
        profile = as_polling(build(to, {"PW": "secret"}))
        assert profile is not None
        self.stopping = threading.Event()
        self.errands = Errands(self.store, scripts.Pinned(client))
        self.poll = StatusPoll(
            profile, to.urls[0], adapter, self.errands, clock=clock, stopping=self.stopping
        )

    def run(self) -> float:
        """Asks once; returns for how many seconds it rests."""
        self.poll.run()
        return self.poll._next_s - time.monotonic()

    @property
    def times(self) -> int | None:
        """How often it was handed out; None where it is not to be asked about any more."""
        due: Any = self.client.zscore("{d}:poll", "m-1")
        return None if due is None else int(due) % 4

    def close(self) -> None:
        self.pool.close()
        self.watchdog.stop()


def _answer(status: str, body: bytes = b"", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


TOLD = _answer("200 OK", b'{"recipients":[{"email":"b@x","status":"delivered"}]}')


def test_the_question_on_the_wire(redis_client: redis.Redis) -> None:
    with Peer(answers(TOLD)) as peer:
        asker = Asker(redis_client, peer.url)
        assert asker.run() <= 0
        assert asker.poll.is_due(), "the next one need not wait"
        assert asker.run() > 0.5
        asker.close()
    [request] = peer.requests
    head = request.decode()
    assert head.startswith("GET /send/api/GetMessageStatus/%3C1.a%40direct.example%3E HTTP/1.1\r\n")
    for word in ("secret", "Content-Length", "Content-Type", "Paceline-Message-Id"):
        assert word not in head
    assert asker.times is None
    assert [a["reason"] for a in asker.store.attempts("m-1")] == ["b@x delivered"]


@pytest.mark.parametrize(
    ("answer", "rests_s"),
    [
        (_answer("404 Not Found"), 0),
        (_answer("200 OK", b"<html>"), 0),
        (_answer("200 OK", b'{"code":999,"message":"error"}'), 0),
        (_answer("429 Too Many Requests"), 60),
        (_answer("429 Too Many Requests", extra="Retry-After: 600\r\n"), 600),
        (_answer("401 Unauthorized"), 60),
        (_answer("503 Service Unavailable"), 60),
        (_answer("302 Found", extra="Location: /\r\n"), 60),
        (b"", 60),
    ],
)
def test_any_other_answer_changes_nothing_and_it_is_asked_again(
    redis_client: redis.Redis, answer: bytes, rests_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    def talk(_: Peer, it: Any) -> None:
        it.read_request()
        it.send(answer)
        it.close()

    with Peer(talk) as peer:
        asker = Asker(redis_client, peer.url)
        gate = redis_client.hgetall("{d}:gate")
        with caplog.at_level(logging.WARNING):
            assert asker.run() == pytest.approx(rests_s, abs=0.5)
        asker.close()
    assert len(caplog.records) == (rests_s > 0)
    assert asker.times == 1
    assert asker.store.attempts("m-1") == []
    census = asker.store.census()
    assert census.law["sent"] == 1
    assert census.outcomes == {}
    after = redis_client.hgetall("{d}:gate")
    assert {k: v for k, v in after.items() if k not in (b"level", b"at")} == {
        k: v for k, v in gate.items() if k not in (b"level", b"at")
    }, "an answer moved the destination"


def test_an_answer_that_does_not_come_is_given_up(redis_client: redis.Redis) -> None:
    with Peer(lambda _, talk: talk.hold()) as peer:
        asker = Asker(redis_client, peer.url, deadline_s=0.2)
        assert asker.run() == pytest.approx(60, abs=0.5)
        assert asker.times == 1
        asker.close()


def test_a_paused_destination_is_asked_nothing(redis_client: redis.Redis) -> None:
    with Peer(answers(TOLD)) as peer:
        asker = Asker(redis_client, peer.url)
        asker.store.hold("pause", why="a test")
        assert asker.run() == pytest.approx(1, abs=0.5)
        assert (peer.accepted, asker.times) == (0, 0)
        asker.store.hold("resume")
        asker.run()
        assert (len(peer.requests), asker.times) == (1, None)
        asker.close()


def test_its_answers_tell_nothing_of_the_urls(redis_client: redis.Redis) -> None:
    with Peer(answers(_answer("503 Service Unavailable"))) as peer:
        asker = Asker(redis_client, peer.url, urls=2)
        asker.run()
        assert len(peer.requests) == 1
        assert [url["failures"] for url in asker.pool.route_facts()] == [0, 0]
        asker.close()


def test_a_trouble_is_told_once_until_it_is_over(
    redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    refused = _answer("429 Too Many Requests")
    with Peer(answers(refused, refused, _answer("404 Not Found"), refused)) as peer:
        asker = Asker(redis_client, peer.url)
        told = []
        with caplog.at_level(logging.WARNING):
            for _ in range(4):
                redis_client.zadd("{d}:poll", {"m-1": 4})
                asker.run()
                told.append(len(caplog.records))
        assert told == [1, 1, 1, 2]
        asker.close()


def test_a_permit_that_is_too_old_is_drawn_again_and_asked_with_once(
    redis_client: redis.Redis,
) -> None:
    with Peer(answers(TOLD)) as peer:
        asker = Asker(redis_client, peer.url)
        late = iter((5.0, 0.0))
        elapsed_s = Clock().elapsed_s
        asker.adapter._elapsed_s = lambda: elapsed_s() + next(late)
        asker.run()
        assert (len(peer.requests), asker.times) == (1, None)
        assert asker.store.census().counters["permits"] == 2
        asker.close()


class _ClosedBetween(Errands):
    """The destination is paused between the look and the wire."""

    def draw(self, errand: Errand, size: int = 0) -> tuple[Permit, Errand]:
        self._store.hold("pause", why="a test")
        return super().draw(errand, size)


def test_paused_while_it_connects_nothing_is_written_and_no_time_is_counted(
    redis_client: redis.Redis,
) -> None:
    with Peer(answers(TOLD)) as peer:
        asker = Asker(redis_client, peer.url)
        asker.poll._errands = _ClosedBetween(asker.store, scripts.Pinned(redis_client))
        assert asker.run() == pytest.approx(1, abs=0.5)
        assert (peer.accepted, peer.requests) == (1, [])
        assert asker.times == 0
        asker.close()


def test_without_a_permit_at_hand_it_gives_its_connection_back(redis_client: redis.Redis) -> None:
    with Peer(answers(TOLD)) as peer:
        asker = Asker(redis_client, peer.url)
        redis_client.hset("{d}:gate", mapping={"level": -2000, "at": asker.store.redis_now_us()})
        assert asker.run() == pytest.approx(1, abs=0.5)
        assert (peer.requests, asker.times, asker.pool.open_connections) == ([], 0, 1)
        asker.stopping.set()
        redis_client.hset("{d}:gate", "level", 5)
        asker.run()
        assert (peer.requests, asker.times) == ([], 0), "asked while the worker stops"
        asker.close()


def test_while_redis_refuses_it_waits(
    redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with Peer(answers(TOLD)) as peer:
        asker = Asker(redis_client, peer.url)
        redis_client.delete("{d}:poll")
        redis_client.set("{d}:poll", "somebody's own")
        with caplog.at_level(logging.WARNING):
            assert asker.run() == pytest.approx(1, abs=0.5)
            assert asker.run() == pytest.approx(1, abs=0.5)
        assert len(caplog.records) == 1
        assert peer.requests == []
        redis_client.delete("{d}:poll")
        asker.close()
