"""Thousands of endpoints: the limit is of requests in flight, and what is idle stays bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.proxy import Proxy
from paceline_workers.transports.adapter import GatedAdapter, GatedRequest
from paceline_workers.transports.base import NoRoom
from paceline_workers.transports.connection import (
    Connector,
    Link,
    TransportError,
    target_of,
    tls_context,
)
from paceline_workers.transports.endpoint_pool import (
    MAX_CONNECTORS,
    MAX_IDLE_EACH,
    EndpointPool,
    origin_of,
)
from paceline_workers.transports.idle import Retirement
from paceline_workers.transports.watchdog import Watchdog
from support.peers import OK, Peer, answers, make_certificate, server_context
from unit.test_pool import Pairs


class Endpoints:
    """A pool whose connections are socket pairs, with a clock in hand."""

    def __init__(self, limit: int = 2, max_idle: int = 100) -> None:
        self.now = 1000.0
        self.pairs: dict[str, Pairs] = {}
        self.made = 0
        self.pool = EndpointPool(
            self._connector, Retirement(900, 5, 20),
            clock=lambda: self.now, rand=lambda: 1.0, max_idle=max_idle,
        )  # fmt: skip
        self.pool.set_limit(limit)

    def _connector(self, url: str) -> Pairs:
        self.made += 1
        return self.pairs.setdefault(url, Pairs())

    def out(self, host: str, path: str = "/") -> Link:
        return self.pool.checkout(lambda: None, f"http://{host}{path}")

    def visit(self, *hosts: str) -> None:
        """One request to each, one after another, a second apart."""
        for host in hosts:
            self.pool.checkin(self.out(host))
            self.now += 1

    def open_to(self, host: str) -> int:
        found = self.pairs.get(origin_of(f"http://{host}/"))
        return found.open_now() if found else 0

    def open_now(self) -> int:
        return sum(pairs.open_now() for pairs in self.pairs.values())

    def close_all(self) -> None:
        for pairs in self.pairs.values():
            pairs.close_all()


@pytest.fixture
def few() -> Iterator[Endpoints]:
    made = Endpoints(max_idle=6)
    yield made
    made.close_all()


WHAT = ["out"] * 5 + ["in"] * 4 + ["limit", "in-broken", "peer-closes", "refused", "trim", "later"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 5)), max_size=60))
def test_never_more_in_flight_than_the_limit_nor_more_idle_than_the_bounds(
    steps: list[tuple[str, int]],
) -> None:
    it = Endpoints(limit=3, max_idle=6)
    held: list[Link] = []
    try:
        for what, n in steps:
            host = f"h{n // 2}"
            if what in ("out", "refused"):
                before = len(held)
                it.pool._connector(origin_of(f"http://{host}/"))
                pairs = it.pairs[origin_of(f"http://{host}/")]
                pairs.refuse = what == "refused"
                with suppress(NoRoom, TransportError):
                    held.append(it.out(host))
                    assert held[-1].is_quiet(), "a dead connection was handed out"
                    assert held[-1].wire.sock in [ours for ours, _ in pairs.made], "another host's"
                    assert len(held) <= it.pool.limit
                if before < it.pool.limit and not pairs.refuse:
                    assert len(held) == before + 1, "refused, though there was room"
                pairs.refuse = False
            elif what.startswith("in") and held:
                link = held.pop(n % len(held))
                link.requests += 1
                link.broken = what == "in-broken"
                it.pool.checkin(link)
            elif what == "peer-closes":
                made = [pair for pairs in it.pairs.values() for pair in pairs.made]
                if made:
                    made[n % len(made)][1].close()
            elif what == "trim":
                it.pool.trim()
            elif what == "limit":
                it.pool.set_limit(n)
            elif what == "later":
                it.now += 4.0 * n
            assert it.pool.open_connections == len(held)
            assert it.open_now() == len(held) + it.pool.idle_connections
            assert it.pool.idle_connections <= 6
            idle_to = [len(links) for links in it.pool._idle._to.values()]
            assert sum(idle_to) == it.pool.idle_connections
            assert all(0 < number <= MAX_IDLE_EACH for number in idle_to)
        it.pool.close()
        for link in held:
            it.pool.checkin(link)
        assert it.open_now() == it.pool.open_connections == it.pool.idle_connections == 0
    finally:
        it.close_all()


def test_one_place_keeps_the_connections_of_many_endpoints(few: Endpoints) -> None:
    few.pool.set_limit(1)
    hosts = [f"h{n}" for n in range(6)]
    few.visit(*hosts)
    assert (few.pool.open_connections, few.open_now()) == (0, 6)
    few.visit(*reversed(hosts))
    assert few.pool.counts == {"opened": 6, "reused": 6}


def test_endpoints_on_one_host_share_its_connections(few: Endpoints) -> None:
    few.pool.checkin(few.out("Same.example", "/a"))
    few.pool.checkin(few.out("same.example:80", "/b?c=1"))
    few.pool.checkin(few.out("same.example:8080", "/a"))
    assert few.pool.counts == {"opened": 2, "reused": 1}


def test_the_one_used_longest_ago_makes_room(few: Endpoints) -> None:
    few.visit("a", "b", "c", "d", "e", "f", "a", "g")
    assert [few.open_to(host) for host in "abcdefg"] == [1, 0, 1, 1, 1, 1, 1]
    few.pool.set_limit(5)
    links = [few.out("g") for _ in range(5)]
    for link in links:
        few.pool.checkin(link)
    assert few.open_to("g") == MAX_IDLE_EACH
    assert links[0].wire.sock.fileno() < 0, "not the oldest of its origin"
    assert few.pool.idle_connections == 6
    assert few.pool.counts["closed:over-limit"] == 5


def test_idle_ones_retire_by_time_and_what_waited_at_the_gate_too(few: Endpoints) -> None:
    few.visit("a", "b")
    few.now += 18.5
    few.pool.trim()
    assert [few.open_to(host) for host in "ab"] == [0, 1]
    link = few.out("b")
    assert not few.pool.outlived(link)
    few.now += 20
    assert few.pool.outlived(link)
    few.pool.checkin(link)
    assert few.open_now() == 0
    assert few.pool.counts["closed:idle"] == 1


def test_connectors_of_thousands_of_origins_do_not_pile_up() -> None:
    it = Endpoints(max_idle=0)
    for n in range(MAX_CONNECTORS + 200):
        it.visit(f"h{n}")
    assert it.open_now() == 0
    assert len(it.pool._connectors) == MAX_CONNECTORS
    made = it.made
    it.visit(f"h{MAX_CONNECTORS + 199}", "h200")
    assert it.made == made, "one that was kept is made anew"
    it.visit("h0", "h200")
    assert it.made == made + 1, "not the one asked for longest ago went"
    it.close_all()


def test_what_is_no_url_takes_no_room(few: Endpoints) -> None:
    for url in ("", "/path", "ftp://host/", "http://", "http://host:port/"):
        with pytest.raises(ValueError, match=r".+"):
            few.pool.checkout(lambda: None, url)
    assert few.pool.open_connections == 0


def test_threads_to_random_endpoints(few: Endpoints) -> None:
    few.pool.set_limit(3)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for n in range(100):
                assert few.pool.enter(10)
                try:
                    few.pool.checkin(few.out(f"h{(seed * 7 + n * 5) % 11}"))
                finally:
                    few.pool.leave()
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not errors
    assert few.pool.open_connections == 0
    assert few.open_now() == few.pool.idle_connections <= 6
    assert few.pool.counts["opened"] + few.pool.counts["reused"] == 600


# -- over real connections ----------------------------------------------------------------------


def _post(pool: EndpointPool, *urls: str) -> list[int]:
    """One request to each, through the adapter; their statuses."""
    watchdog = Watchdog(time.monotonic)
    watchdog.start()
    adapter = GatedAdapter(
        pool, watchdog,
        total_timeout_s=4.0, monotonic_s=time.monotonic, elapsed_s=time.monotonic,
    )  # fmt: skip
    try:
        with requests.Session() as session:
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            return [
                session.send(
                    GatedRequest("POST", url, {}, b"{}", time.monotonic, target=target_of(url)),
                    allow_redirects=False, proxies={},
                ).status_code
                for url in urls
            ]  # fmt: skip
    finally:
        watchdog.stop()
        pool.close()


def _real(**options: object) -> EndpointPool:
    def connector_of(url: str) -> Connector:
        return Connector(url, connect_timeout_s=2.0, read_timeout_s=2.0, **options)  # type: ignore[arg-type]

    pool = EndpointPool(connector_of, Retirement(), clock=time.monotonic, rand=lambda: 1.0)
    pool.set_limit(1)
    return pool


def _first_line(request: bytes) -> bytes:
    return request.partition(b"\r\n")[0]


def test_each_request_asks_for_its_own_path_of_its_own_host() -> None:
    with Peer(answers(OK)) as one, Peer(answers(OK)) as other:
        urls = [f"http://127.0.0.1:{peer.port}" for peer in (one, other)]
        asked = [f"{urls[0]}/a?x=1", f"{urls[1]}/", f"{urls[0]}/b c", urls[1]]
        assert _post(_real(), *asked) == [200] * 4
        assert [_first_line(it) for it in one.requests] == [
            b"POST /a?x=1 HTTP/1.1",
            b"POST /b%20c HTTP/1.1",
        ]
        assert [_first_line(it) for it in other.requests] == [b"POST / HTTP/1.1"] * 2
        assert b"Host: 127.0.0.1:%d\r\n" % other.port in other.requests[0]
        assert (one.accepted, other.accepted) == (1, 1)


def test_a_proxy_is_given_the_whole_url() -> None:
    with Peer(answers(OK)) as proxy:
        to = _real(proxy=Proxy(host=proxy.host, port=proxy.port))
        assert _post(to, "http://a.example/x/y", "http://b.example:81/z?q") == [200] * 2
        assert [_first_line(it) for it in proxy.requests] == [
            b"POST http://a.example/x/y HTTP/1.1",
            b"POST http://b.example:81/z?q HTTP/1.1",
        ]


@pytest.mark.needs("openssl")
def test_many_origins_share_one_tls_context(tmp_path: Path) -> None:
    at = make_certificate(tmp_path)
    shared = tls_context(str(at))
    with (
        Peer(answers(OK), tls=server_context(at)) as one,
        Peer(answers(OK), tls=server_context(at)) as other,
    ):
        urls = [f"https://localhost:{peer.port}/" for peer in (one, other)]
        assert _post(_real(context=shared), *urls) == [200, 200]
        with pytest.raises(TransportError, match="connect: tls"):
            _post(_real(), urls[0])
