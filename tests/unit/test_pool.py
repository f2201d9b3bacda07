"""The pool never has more connections open than its share, whatever happens to share and peers."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline_workers.outcome import Failure
from paceline_workers.transports.connection import Connector, Link, TransportError, Wire
from paceline_workers.transports.pool import ConnectionPool, NoRoom, Retirement
from paceline_workers.transports.routes import LEAVE_AT, PROBE_FIRST_S


class Pairs(Connector):
    """Connections that are socket pairs: real sockets, both ends in hand."""

    def __init__(self) -> None:
        super().__init__("http://pair/", connect_timeout_s=1, read_timeout_s=1)
        self.refuse = False
        self.made: list[tuple[socket.socket, socket.socket]] = []
        self.most = 0
        self.lock = threading.Lock()

    def open(self) -> Wire:
        if self.refuse:
            raise TransportError(Failure("connect", "refused", True))
        ours, theirs = socket.socketpair()
        with self.lock:
            self.made.append((ours, theirs))
            self.most = max(self.most, self.open_now())
        return Wire(ours, "pair", 1)

    def open_now(self) -> int:
        return sum(ours.fileno() >= 0 for ours, _ in self.made)

    def close_all(self) -> None:
        for pair in self.made:
            for end in pair:
                end.close()


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    made = Pairs()
    yield made
    made.close_all()


def _pool(connector: Connector, limit: int) -> ConnectionPool:
    pool = ConnectionPool(
        [connector], Retirement(900, 5, 20), clock=lambda: 0.0, rand=random.Random(1).random
    )
    pool.set_limit(limit)
    return pool


WHAT = ["out"] * 4 + ["in"] * 3 + ["limit"] * 2 + ["in-broken", "peer-closes", "refused", "trim"]
STEPS = st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 5)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_open_connections_are_counted_and_never_too_many(steps: list[tuple[str, int]]) -> None:
    connector = Pairs()
    pool = _pool(connector, 3)
    held: list[Link] = []
    try:
        for what, n in steps:
            before, opened = connector.open_now(), len(connector.made)
            if what == "out":
                with suppress(NoRoom):
                    held.append(pool.checkout())
                    assert held[-1].is_quiet(), "a dead connection was handed out"
            elif what == "refused":
                connector.refuse = True
                with suppress(NoRoom, TransportError):
                    held.append(pool.checkout())
                connector.refuse = False
            elif what.startswith("in") and held:
                link = held.pop(n % len(held))
                link.requests += 1
                link.broken = what == "in-broken"
                pool.checkin(link)
            elif what == "peer-closes" and connector.made:
                connector.made[n % len(connector.made)][1].close()
            elif what == "trim":
                pool.trim()
            elif what == "limit":
                pool.set_limit(n)
            assert pool.open_connections == connector.open_now()
            assert pool.open_connections <= max(pool.limit, len(held))
            if len(connector.made) > opened:
                assert connector.open_now() <= pool.limit, "opened over the limit"
            assert connector.open_now() <= max(before, pool.limit)
    finally:
        connector.close_all()


def test_threads_and_a_share_that_changes(pairs: Pairs) -> None:
    pool = _pool(pairs, 6)
    stop = threading.Event()
    errors: list[BaseException] = []
    done = threading.Semaphore(0)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            while not stop.is_set():
                if not pool.enter(0.01):
                    continue
                try:
                    link = pool.checkout()
                    link.requests += 1
                    link.broken = rng.random() < 0.2
                    pool.checkin(link)
                except NoRoom:
                    pass
                finally:
                    pool.leave()
                done.release()
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(10)]
    for thread in threads:
        thread.start()
    rng = random.Random(7)
    for _ in range(150):
        pool.set_limit(rng.randrange(1, 7))
        for _ in range(5):
            assert done.acquire(timeout=10), "all threads stand still"
    pool.set_limit(2)
    for _ in range(20):
        assert done.acquire(timeout=10)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not errors
    assert pairs.most <= 6
    assert pool.open_connections == pairs.open_now() <= 2
    pool.close()
    assert pairs.open_now() == 0


def test_entering_is_limited_and_leaving_lets_the_next_in(pairs: Pairs) -> None:
    pool = _pool(pairs, 1)
    assert pool.enter(0)
    assert not pool.enter(0)
    entered: list[bool] = []
    waiting = threading.Thread(target=lambda: entered.append(pool.enter(10)), daemon=True)
    waiting.start()
    pool.leave()
    waiting.join(5)
    assert entered == [True]
    pool.set_limit(0)
    assert not pool.may_stay()


# -- several URLs -------------------------------------------------------------------------------


class Urls:
    """A pool over several URLs, with a clock in hand."""

    def __init__(self, count: int, limit: int) -> None:
        self.now = 1000.0
        self.connectors = [Pairs() for _ in range(count)]
        self.told: list[tuple[int, bool]] = []
        self.pool = ConnectionPool(
            list(self.connectors),
            Retirement(900, 1000, 20),
            clock=lambda: self.now,
            rand=random.Random(1).random,
            on_health=lambda number, healthy: self.told.append((number, healthy)),
        )
        self.pool.set_limit(limit)

    def open_now(self) -> int:
        return sum(connector.open_now() for connector in self.connectors)

    def numbers(self, count: int = 40) -> set[int]:
        """To which URLs so many requests go, one after another."""
        found = set()
        for _ in range(count):
            link = self.pool.checkout()
            found.add(self.number(link))
            self.pool.checkin(link, True, 0.01)
        return found

    def number(self, link: Link) -> int:
        assert link.route is not None
        return link.route.number

    def fail(self, number: int) -> None:
        """Requests to this URL are answered badly until it is left."""
        held = []
        while self.pool.route_facts()[number]["healthy"]:
            link = self.pool.checkout()
            if self.number(link) == number:
                self.pool.checkin(link, False, 0.01)
            else:
                held.append(link)
            if len(held) == self.pool.limit:
                self.pool.checkin(held.pop(0))
        for link in held:
            self.pool.checkin(link)

    def close(self) -> None:
        for connector in self.connectors:
            connector.close_all()


@pytest.fixture
def urls() -> Iterator[Callable[[int, int], Urls]]:
    made: list[Urls] = []

    def make(count: int, limit: int) -> Urls:
        made.append(Urls(count, limit))
        return made[-1]

    yield make
    for one in made:
        one.close()


MakeUrls = Callable[[int, int], Urls]

SEVERAL = st.lists(
    st.tuples(st.sampled_from([*WHAT, "in-bad", "in-bad", "in-good", "later"]), st.integers(0, 5)),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(SEVERAL)
def test_the_same_holds_over_several_urls(steps: list[tuple[str, int]]) -> None:
    one = Urls(3, 3)
    pool, held = one.pool, []
    patch = pytest.MonkeyPatch()
    patch.setattr("paceline_workers.transports.routes.LEAVE_AT", 2)  # so that some are left
    try:
        for what, n in steps:
            before = one.open_now()
            made = sum(len(it.made) for it in one.connectors)
            if what in ("out", "refused"):
                down = one.connectors[n % 3] if what == "refused" else None
                if down is not None:
                    down.refuse = True
                with suppress(NoRoom, TransportError):
                    held.append(pool.checkout())
                    assert held[-1].is_quiet(), "a dead connection was handed out"
                    assert not held[-1].is_left(), "a connection to a URL that was left"
                if down is not None:
                    down.refuse = False
            elif what.startswith("in") and held:
                link = held.pop(n % len(held))
                link.broken = what == "in-broken"
                pool.checkin(link, {"in-bad": False, "in-good": True}.get(what), 0.1 * n)
            elif what == "peer-closes":
                pairs = [pair for it in one.connectors for pair in it.made]
                if pairs:
                    pairs[n % len(pairs)][1].close()
            elif what == "trim":
                pool.trim()
            elif what == "limit":
                pool.set_limit(n)
            elif what == "later":
                one.now += 3.0 * n
            opened = sum(len(it.made) for it in one.connectors) > made
            assert pool.open_connections == one.open_now()
            assert pool.open_connections <= max(pool.limit, len(held))
            if opened:
                assert one.open_now() <= pool.limit, "opened over the limit"
            assert one.open_now() <= max(before, pool.limit)
        for link in held:
            pool.checkin(link)
        assert pool._routes is not None
        assert [route.in_flight for route in pool._routes.all] == [0, 0, 0]
    finally:
        patch.undo()
        one.close()


def test_a_url_that_was_left_keeps_no_connection(urls: MakeUrls) -> None:
    one = urls(2, 4)
    links = [one.pool.checkout() for _ in range(4)]
    assert {one.number(link) for link in links} == {0, 1}
    for link in links:
        one.pool.checkin(link, True, 0.01)
    one.fail(0)
    assert one.told == [(0, False)]
    assert one.connectors[0].open_now() == 0
    assert one.numbers() == {1}


def test_a_connection_in_use_when_its_url_is_left_is_closed_afterwards(urls: MakeUrls) -> None:
    one = urls(2, 4)
    links = [one.pool.checkout() for _ in range(4)]
    mine = next(link for link in links if one.number(link) == 0)
    for link in links:
        if link is not mine:
            one.pool.checkin(link, True, 0.01)
    one.fail(0)
    assert mine.is_left()
    one.pool.checkin(mine, True, 0.01)
    assert one.connectors[0].open_now() == 0
    assert one.pool.counts["closed:url-left"] > 0


def test_a_probe_makes_itself_room_and_brings_the_url_back(urls: MakeUrls) -> None:
    one = urls(2, 1)
    one.fail(0)
    assert one.numbers() == {1}
    one.now += PROBE_FIRST_S
    link = one.pool.checkout()
    assert one.number(link) == 0
    assert not link.is_left(), "a probe is meant to go there"
    assert one.open_now() == 1
    one.pool.checkin(link, True, 0.01)
    assert one.told == [(0, False), (0, True)]
    assert one.connectors[0].open_now() == 1, "it is used on"


def test_a_connect_that_fails_goes_to_the_other_url_at_once(urls: MakeUrls) -> None:
    one = urls(2, 3)
    one.connectors[0].refuse = True
    assert one.numbers() == {1}
    assert one.pool.route_facts()[0] == {
        "healthy": False, "latency_s": None, "requests": LEAVE_AT, "failures": LEAVE_AT,
    }  # fmt: skip
    one.connectors[1].refuse = True
    one.now += 21  # what is idle retires
    with pytest.raises(TransportError):
        one.pool.checkout()
    assert one.pool.open_connections == 0


def test_one_connection_is_not_opened_anew_for_each_request(urls: MakeUrls) -> None:
    one = urls(2, 1)
    for _ in range(100):
        one.now += 0.01
        one.pool.checkin(one.pool.checkout(), True, 0.01)
    assert one.pool.counts["opened"] <= 3


def test_connections_move_to_the_faster_url(urls: MakeUrls) -> None:
    """All threads hold a connection, as they do while they wait for permits."""
    one = urls(2, 8)
    held = [one.pool.checkout() for _ in range(8)]
    for _ in range(400):
        one.now += 0.05
        link = held.pop(0)
        one.pool.checkin(link, True, (1.0, 0.05)[one.number(link)])
        held.append(one.pool.checkout())
    assert one.connectors[1].open_now() >= 7
    assert one.pool.counts["opened"] < 8 + 4 + 8, "connections go to and fro"


def test_a_single_url_has_no_health(urls: MakeUrls) -> None:
    one = urls(1, 2)
    for _ in range(30):
        one.pool.checkin(one.pool.checkout(), False, 0.01)
    assert one.pool.route_facts() == []
    assert one.told == []
    assert one.pool.counts["opened"] == 1
