"""From a message to its outcome, the whole way: real Redis, real worker, an unwell provider.

Where no retry is expected the assertions wait for what comes next instead of for a span of time.
"""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from paceline import campaign_desk
from paceline.sink.thread import SinkThread
from support.gatekeeper import Gatekeeper
from support.line import Line, destination
from support.peers import OK, Peer, answers
from support.proxy import ForwardProxy
from support.wait import until


def _maxmd(sink: SinkThread, more: str = "") -> object:
    return destination(f"{sink.url}/Send", "maxmd", more)


def test_sent(redis_url: str) -> None:
    with SinkThread(profile="maxmd") as sink, Line(redis_url, _maxmd(sink)) as line:
        line.send()
        status = line.wait("sent")
        assert status.provider_id
        arrival = sink.arrivals()[0]
        assert (arrival.id, arrival.accepted, len(sink.arrivals())) == ("m-1", True, 1)
        census = line.store.census()
        assert census.outcomes == {"sent:200": 1}
        assert census.counters["permits"] == 1


@pytest.mark.parametrize(
    ("fault", "said"), [("business=999", "999"), ("business=2", "address error")]
)
def test_refused_by_the_provider(redis_url: str, fault: str, said: str) -> None:
    with SinkThread(profile="maxmd", faults=fault) as sink, Line(redis_url, _maxmd(sink)) as line:
        line.send()
        status = line.wait("dead")
        last = status.history[-1]
        assert said in last["reason"]
        assert json.loads(last["response"])["code"] in (2, 999)
        assert (last["status"], len(sink.arrivals())) == (200, 1)


@pytest.mark.parametrize("fault", ["business=1", "redirect=302:location=/ok", "401", "403"])
def test_a_locked_out_destination_is_held_and_burns_nothing(redis_url: str, fault: str) -> None:
    with SinkThread(profile="maxmd", faults=fault) as sink:
        to = _maxmd(sink, "connections = 1")
        with Line(redis_url, to) as line:
            for n in range(5):
                line.send(id=f"m-{n}")
            until(lambda: line.store.census().closed(), 8, "the destination is held")
            until(lambda: line.store.census().law["ready"] == 5, 8, "all are back in their place")
            assert line.store.census().closed()[0] == "held"
            assert len(sink.arrivals()) == 1, "more than the one request that found out"
            assert [line.status(f"m-{n}").tries for n in range(5)] == [0] * 5
            sink.set_faults("")
            line.store.hold("resume")
            line.wait_done()
            accepted = [a.id for a in sink.arrivals() if a.accepted]
            assert accepted == [f"m-{n}" for n in range(5)], "not in their old order"


def test_a_proxy_that_wants_credentials_holds_the_destination(redis_url: str) -> None:
    with ForwardProxy(login="user:password") as proxy:
        through = f'connections = 1\nproxy = "{proxy.url}"'
        with Line(redis_url, destination("https://api.example/", "http", through)) as line:
            for n in range(3):
                line.send(id=f"m-{n}")
            until(lambda: line.store.census().closed(), 8, "the destination is held")
            until(lambda: line.store.census().law["ready"] == 3, 8, "all are back in their place")
            assert line.store.census().closed()[0] == "held"
            assert "407" in line.store.census().closed()[2]
            assert [line.status(f"m-{n}").tries for n in range(3)] == [0] * 3
            assert len(proxy.asked) == 1, "more than the one request that found out"


def test_large_bodies_go_out_packed_and_the_same_at_every_try(redis_url: str) -> None:
    unavailable = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
    payload = {"text": "abc " * 500}
    with Peer(answers(unavailable, OK)) as peer:
        to = destination(f"{peer.url}", "http", "gzip_from_bytes = 100")
        with Line(redis_url, to) as line:
            line.send(payload)
            line.wait("sent")
            line.send({"a": 1}, id="small")
            line.wait("sent", "small")
    first, second, small = peer.requests
    assert first == second
    head, _, body = first.partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert json.loads(gzip.decompress(body)) == payload
    assert small.endswith(b'\r\n\r\n{"a":1}')
    assert b"Content-Encoding" not in small


def test_a_crash_of_theirs_is_tried_four_times(redis_url: str) -> None:
    with SinkThread(profile="maxmd", faults="500") as sink, Line(redis_url, _maxmd(sink)) as line:
        line.send()
        status = line.wait("dead")
        assert [a["outcome"] for a in status.history] == ["ambiguous"] * 4
        assert [a["action"] for a in status.history] == ["retry"] * 3 + ["dead"]
        assert [a["attempt"] for a in status.history] == [1, 2, 3, 4]
        times = [a.mono_ns / 1e9 for a in sink.arrivals()]
        waits = [b - a for a, b in pairwise(times)]
        assert len(waits) == 3
        assert all(wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.1), strict=True))
        assert len({a.sha256 for a in sink.arrivals()}) == 1


def test_a_503_waits_uncharged(redis_url: str) -> None:
    with (
        SinkThread(profile="maxmd", script=["503", "503"]) as sink,
        Line(redis_url, _maxmd(sink)) as line,
    ):
        line.send()
        status = line.wait("scheduled")
        assert status.tries == 0
        line.wait("sent")
        times = [a.mono_ns / 1e9 for a in sink.arrivals()]
        assert len(times) == 3
        assert times[1] - times[0] >= 0.3
        assert line.store.census().counters.get("died", 0) == 0


def test_a_429_makes_the_destination_wait(redis_url: str) -> None:
    with SinkThread(profile="maxmd", script=["429:retry_after=1"], latency="30ms") as sink:
        to = _maxmd(sink, "connections = 2")
        with Line(redis_url, to) as line:
            for n in range(8):
                line.send(id=f"m-{n}")
            line.wait_done()
            arrivals = sink.arrivals()
            refused = next(a for a in arrivals if a.status == 429)
            # What was on the wire with it is through; the next starts when the provider said.
            later = [a for a in arrivals if a.mono_ns > refused.answered_ns + 5e6]
            assert len(later) >= 6
            waited_s = (later[0].mono_ns - refused.answered_ns) / 1e9
            assert 0.99 <= waited_s < 2.5
            assert len(arrivals) == 9
            assert line.store.census().counters.get("retried", 0) == 0, "an attempt was charged"


def test_silence_is_ambiguous_and_tried_with_the_same_bytes(redis_url: str) -> None:
    with SinkThread(profile="http", script=["hang", "hang"]) as sink:
        to = destination(sink.url, more="read_timeout_s = 0.3\ntotal_timeout_s = 1.0")
        with Line(redis_url, to) as line:
            line.send({"a": ["ä", 1.50]})
            status = line.wait("sent")
            assert [a["outcome"] for a in status.history][:2] == ["ambiguous"] * 2
            assert len({(a.sha256, a.id) for a in sink.arrivals()}) == 1
            assert set(line.store.census().outcomes) == {"ambiguous:timeout", "sent:200"}


def test_an_outage_is_no_attempt_at_the_wire(redis_url: str) -> None:
    """A connect that fails draws no permit; labels stay few whatever the system says. The first two
    may be the message's own fault; from the third on an outage is suspected, and costs nothing."""
    with SinkThread(profile="http") as sink, Line(redis_url, destination(sink.url)) as line:
        sink.down()
        line.send({})
        until(lambda: line.store.census().outcomes.get("retry:refused", 0) == 4, 10, "four tries")
        status = until(lambda: (s := line.status()).state == "scheduled" and s, 5, "it waits")
        assert [a["outcome"] for a in status.history] == ["retry"] * 4
        assert (status.attempts, status.tries) == (0, 2)
        census = line.store.census()
        assert census.counters.get("permits", 0) == 0
        assert census.outcomes == {"retry:refused": 4}
        assert sink.arrivals() == []


def test_a_provider_that_is_down_is_probed_and_its_messages_are_spared(redis_url: str) -> None:
    """Down under load: the breaker opens, one message at a time looks whether it is back."""
    more = "rate = 100\nconnections = 4\nprobe_after_s = 0.4"
    with (
        SinkThread(profile="http", latency="5ms") as sink,
        Line(redis_url, destination(sink.url, more=more)) as line,
    ):
        for n in range(150):
            line.send({}, id=f"m-{n}")
        until(lambda: len(sink.arrivals()) > 40, 10, "it sends")
        sink.set_faults(faults="502:100%")
        counters = until(
            lambda: (c := line.store.census().counters).get("breaker_opened") and c, 10, "it opens"
        )
        failed = counters["bad"]
        until(lambda: line.store.census().counters["bad"] >= failed + 3, 10, "it is probed")
        closed = line.store.census().closed()
        assert closed is not None
        assert closed[0] == "breaker"
        sink.set_faults(faults="")
        line.wait_done(20)
        census = line.store.census()
        assert (census.law["sent"], census.law["dead"]) == (150, 0)
        assert census.counters["breaker_closed"] >= 1
        tries = Counter(a.id for a in sink.arrivals() if a.status == 502)
        # Those of the first moment, which opened it, may have been tried before it was known.
        assert max(tries.values()) <= 2


def test_a_payload_that_cannot_be_rendered(redis_url: str) -> None:
    with SinkThread(profile="maxmd") as sink, Line(redis_url, _maxmd(sink)) as line:
        line.send_raw(b'{"sender": 7}')
        status = line.wait("dead")
        assert "payload" in status.history[-1]["reason"]
        assert sink.arrivals() == []
        assert line.store.census().counters.get("permits", 0) == 0


def test_expired_while_waiting_is_never_on_the_wire(redis_url: str) -> None:
    with SinkThread(profile="http") as sink, Line(redis_url, destination(sink.url)) as line:
        line.store.hold("pause")
        line.send({}, ttl_s=0.2)
        line.send({}, id="m-2")
        until(lambda: time.time() > line.status().expires, 2, "it is over", 0.05)
        line.store.hold("resume")
        line.wait("sent", "m-2")
        line.wait("expired")
        assert [a.id for a in sink.arrivals()] == ["m-2"]


def test_cancelled_while_leased_is_never_on_the_wire(redis_url: str) -> None:
    with (
        SinkThread(profile="http", latency="300ms") as sink,
        Line(redis_url, destination(sink.url, more="connections = 1")) as line,
    ):
        for n in range(4):
            line.send({}, id=f"m-{n}")
        line.wait("leased", "m-3")
        assert line.outbox.cancel("d", "m-3") is True
        line.wait_done()
        assert line.status("m-3").state == "cancelled"
        assert [a.id for a in sink.arrivals()] == ["m-0", "m-1", "m-2"]


def test_what_a_worker_holds_of_a_paused_campaign_is_not_on_the_wire_until_resumed(
    redis_url: str,
) -> None:
    with (
        Gatekeeper({""}) as provider,
        Line(redis_url, destination(provider.url, more="connections = 1")) as line,
    ):
        provider.go.clear()
        for n in range(4):
            line.send({}, id=f"m-{n}", campaign="spring" if n else "autumn")
        line.wait("leased", "m-3")
        campaign_desk.pause(line.store, "spring", why="", who="eve")
        provider.go.set()
        line.wait("sent", "m-0")
        until(lambda: line.outbox.campaign("d", "spring").states["paused"] == 3, 8, "all wait")
        assert set(provider.accepted) == {"m-0"}
        campaign_desk.resume(line.store, "spring", who="eve")
        line.wait_done()
        assert list(provider.accepted) == ["m-0", "m-1", "m-2", "m-3"]
        assert line.outbox.campaign("d", "spring").totals["sent"] == 3


@pytest.mark.parametrize(("style", "value"), [("bare", "m-1"), ("quoted", '"m-1"')])
def test_the_idempotency_key_is_the_id(redis_url: str, style: str, value: str) -> None:
    with Peer(answers(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", OK)) as peer:
        to = destination(peer.url, more=f'idempotency_key = "{style}"')
        with Line(redis_url, to) as line:
            line.send({"n": 1})
            line.wait("sent")
        assert len(peer.requests) == 2
        for request in peer.requests:
            assert f"\r\nIdempotency-Key: {value}\r\n".encode() in request
        assert peer.requests[0] == peer.requests[1]


# -- the gate -----------------------------------------------------------------------------------


def test_a_pause_acts_within_the_reserve(redis_url: str) -> None:
    """Permits up to 250 ms ahead are out already; after them nothing starts."""
    with SinkThread(profile="http", latency="5ms") as sink:
        to = destination(sink.url, more="rate = 40\nburst = 12\nconnections = 4\nreserve = 1")
        with Line(redis_url, to) as line:
            for n in range(120):
                line.send({}, id=f"m-{n}")
            until(lambda: len(sink.arrivals()) > 30, 10, "it sends")
            paused_ns = time.monotonic_ns()
            line.store.hold("pause")
            done_ns = time.monotonic_ns()
            until(lambda: line.store.census().law["leased"] == 0, 5, "all that was taken is back")
            late = [a for a in sink.arrivals() if a.mono_ns > done_ns]
            assert all(a.mono_ns - done_ns < 0.27e9 for a in late)
            assert done_ns - paused_ns < 1e9
            census = line.store.census()
            assert census.law["ready"] == 120 - census.law["sent"]
            line.store.hold("resume")
            line.wait_done()
            assert [line.status(f"m-{n}").state for n in range(120)] == ["sent"] * 120
            assert len(sink.arrivals()) == 120
            order = [int(a.id[2:]) for a in sink.arrivals()]
            after = order[len(order) - census.law["ready"] :]
            # Four connections: places at the wire may be swapped by as many.
            assert all(abs(a - b) < 8 for a, b in zip(after, sorted(after), strict=True))


@pytest.mark.timeout(60)
def test_without_redis_nothing_is_sent_and_then_it_goes_on(tmp_path: Path) -> None:
    from paceline.embedded import EmbeddedServer

    with (
        EmbeddedServer(tmp_path / "redis") as server,
        SinkThread(profile="http", latency="5ms") as sink,
    ):
        to = destination(sink.url, more="rate = 50\nburst = 12\nconnections = 4\nreserve = 1")
        with Line(server.url, to) as line:
            for n in range(150):
                line.send({}, id=f"m-{n}")
            until(lambda: len(sink.arrivals()) > 20, 10, "it sends")
            server.kill()
            gone_ns = time.monotonic_ns()
            until(lambda: time.monotonic_ns() - gone_ns > 1.2e9, 3, "a second without Redis", 0.1)
            late = [a for a in sink.arrivals() if a.mono_ns > gone_ns]
            assert len(late) <= 4, "more than one written permit a connection"
            assert all(a.mono_ns - gone_ns < 0.3e9 for a in late)
            server.start()

            def all_sent() -> bool:
                try:
                    return line.store.census().unfinished == 0
                except RedisError:
                    return False

            until(all_sent, 20, "all is sent", 0.1)
            assert {a.id for a in sink.arrivals()} == {f"m-{n}" for n in range(150)}
            assert len(sink.arrivals()) == 150, "sent twice"
