"""The pool never has more connections open than its share, whatever happens to share and peers."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline_workers.outcome import Failure
from paceline_workers.transports.connection import Connector, Link, TransportError, Wire
from paceline_workers.transports.pool import ConnectionPool, NoRoom, Retirement


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
