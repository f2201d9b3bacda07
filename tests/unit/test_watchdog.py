"""The watchdog's decisions, with a clock of our own."""

from __future__ import annotations

import socket

from paceline_workers.transports.watchdog import Watchdog


def test_only_what_is_overdue_is_shut_down_and_only_while_guarded() -> None:
    now = [10.0]
    watchdog = Watchdog(lambda: now[0])
    pairs = [socket.socketpair() for _ in range(3)]
    try:
        overdue, later, released = (
            watchdog.guard(ours, deadline)
            for (ours, _), deadline in zip(pairs, (11.0, 20.0, 11.0), strict=True)
        )
        assert watchdog.check() == 0
        watchdog.release(released)
        now[0] = 11.0
        assert watchdog.check() == 1
        assert (overdue.fired, later.fired, released.fired) == (True, False, False)
        assert pairs[0][1].recv(1) == b""
        for _, theirs in pairs[1:]:
            theirs.send(b"x")
        assert [ours.recv(1) for ours, _ in pairs[1:]] == [b"x", b"x"]
        assert watchdog.check() == 0, "it fires once"
        watchdog.release(overdue)
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def test_a_socket_that_is_closed_already_does_not_end_the_watch() -> None:
    watchdog = Watchdog(lambda: 5.0)
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    other, far = socket.socketpair()
    try:
        watchdog.guard(ours, 1.0)
        watchdog.guard(other, 1.0)
        assert watchdog.check() == 2
        assert far.recv(1) == b""
    finally:
        other.close()
        far.close()


def test_it_stops_while_nothing_is_guarded() -> None:
    watchdog = Watchdog(lambda: 0.0)
    watchdog.start()
    watchdog.stop()
