"""The highest number of connections open at once."""

from __future__ import annotations

from paceline.sink.connections import ConnectionLog, max_open


def test_a_replacement_at_the_same_instant_is_no_overlap() -> None:
    log = ConnectionLog()
    first = log.opened("a", 0)
    log.closed(first, 10)
    log.opened("b", 10)
    assert max_open(log.all()) == 1
    log.opened("c", 11)
    assert max_open(log.all()) == 2


def test_the_first_end_counts_and_a_reset_keeps_the_open() -> None:
    log = ConnectionLog()
    first, second = log.opened("a", 0), log.opened("b", 1)
    log.closed(first, 5)
    log.closed(first, 9)
    assert (first.closed_ns, log.open_now) == (5, 1)
    second.requests = 3
    log.reset()
    assert [(record.number, record.requests) for record in log.all()] == [(1, 0)]
