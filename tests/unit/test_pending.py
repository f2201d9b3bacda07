"""The sender's queue: order, bound, and nobody left waiting."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from paceline.answers import Leased
from paceline.records import Live
from paceline_workers.pending import PendingQueue

RANK = {"high": 0, "normal": 1, "bulk": 2}


def leased(message_id: str, priority: str = "normal") -> Leased:
    head = Live(
        state="leased", attempts=0, tries=0, nonce="n" * 16, priority=priority, cancel_asked=False,
        seq=0, at_us=0, expires_us=0, due_us=0, tenant="", campaign="", body_from=0,
    )  # fmt: skip
    return Leased(message_id, "n" * 16, head, b"{}")


@given(st.lists(st.sampled_from(sorted(RANK)), max_size=30))
def test_by_priority_and_then_in_order_of_coming(priorities: list[str]) -> None:
    queue = PendingQueue(100)
    for number, priority in enumerate(priorities):
        assert queue.put(leased(str(number), priority), 0)
    out = [queue.get(0) for _ in priorities]
    wanted = sorted(range(len(priorities)), key=lambda n: (RANK[priorities[n]], n))
    assert [int(it.id) for it in out if it] == wanted
    assert queue.get(0) is None


def test_full_for_all_but_high() -> None:
    queue = PendingQueue(2)
    assert queue.put(leased("a"), 0)
    assert queue.put(leased("b", "bulk"), 0)
    assert not queue.put(leased("c"), 0)
    assert queue.put(leased("d", "high"), 0)
    assert len(queue) == 3
    first = queue.get(0)
    assert first is not None
    assert first.id == "d"
    assert not queue.put(leased("c"), 0)


def test_drained_it_is_empty_and_has_room() -> None:
    queue = PendingQueue(2)
    queue.put(leased("a"), 0)
    queue.put(leased("b", "high"), 0)
    assert sorted(it.id for it in queue.drain()) == ["a", "b"]
    assert len(queue) == 0
    assert queue.put(leased("c"), 0)


def test_closed_nothing_goes_in_and_what_is_in_comes_out() -> None:
    queue = PendingQueue(2)
    queue.put(leased("a"), 0)
    queue.close()
    assert not queue.put(leased("b", "high"), 5)
    assert queue.get(5) is not None
    assert queue.get(5) is None


def test_whoever_waits_is_woken() -> None:
    """Each for what it waits for: a message, room, the end."""
    queue = PendingQueue(1)
    got: list[str] = []
    done = threading.Barrier(5)

    def take() -> None:
        it = queue.get(10)
        got.append(it.id if it else "")
        done.wait(10)

    takers = [threading.Thread(target=take, daemon=True) for _ in range(4)]
    for taker in takers:
        taker.start()
    assert all(queue.put(leased(str(n)), 10) for n in range(3))
    queue.close()
    done.wait(10)
    assert sorted(got) == ["", "0", "1", "2"]

    full = PendingQueue(1)
    full.put(leased("a"), 0)
    answers: list[bool] = []
    putter = threading.Thread(target=lambda: answers.append(full.put(leased("b"), 10)), daemon=True)
    putter.start()
    assert full.get(1) is not None
    putter.join(5)
    assert answers == [True]


def test_a_connection_is_lent_only_while_no_message_waits() -> None:
    queue = PendingQueue(5)
    assert queue.lend()
    queue.unlend()
    queue.put(leased("a"), 0)
    assert not queue.lend()
    queue.get(0)
    assert queue.lend()
    queue.close()
    assert not queue.lend()


def test_what_is_lent_leaves_one_connection_to_high_messages() -> None:
    queue = PendingQueue(5)
    queue.keep_for_high(1)
    assert queue.lend()
    assert not queue.lend()
    queue.put(leased("a"), 0)
    assert queue.get(0) is None
    queue.put(leased("b", "high"), 0)
    assert (found := queue.get(0))
    assert found.id == "b"
    queue.unlend()
    assert (found := queue.get(0))
    assert found.id == "a"
