"""The append-only file cut in the middle of a record: what was lost is told, and what is sent again
for it is explained."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from support.stack import Stack
from support.wait import until

LOST = 40


def _aof(stack: Stack) -> Path:
    [path] = (stack.server.data_dir / "appendonlydir").glob("*.incr.aof")
    return path


def _wait_seen(stack: Stack) -> None:
    """Until the reaper has looked at what there is now."""
    key = f"{stack.store.tag}:reap"

    def looked_at() -> float:
        return float(stack.client.hget(key, "at") or 0)

    # It reads the totals before it writes the moment: the second turn has begun after this one.
    for _ in range(2):
        before = looked_at()
        until(lambda since=before: looked_at() > since, 10, "a turn of the reaper")


def _crash_and_lose(stack: Stack, size: int) -> None:
    """Kills Redis and cuts its file some bytes into the first record past ``size``."""
    stack.server.kill()
    assert _aof(stack).stat().st_size > size + 7, "nothing was written that could be lost"
    os.truncate(_aof(stack), size + 7)
    stack.server.start()


def _lossy(folder: Path) -> Stack:
    return Stack(folder, workers=1, rate=200.0, burst=60, more="lease_s = 3.0")


@pytest.mark.timeout(120)
def test_a_lost_tail_is_told_and_what_was_sent_is_not_sent_again(tmp_path: Path) -> None:
    """Lost: forty messages, all that became of them, and so that they were sent."""
    with _lossy(tmp_path) as stack:
        stack.send(20, "kept")
        stack.wait_done(30)
        size = _aof(stack).stat().st_size
        stack.send(LOST, "lost")
        stack.wait_done(30)
        _wait_seen(stack)
        _crash_and_lose(stack, size)
        until(lambda: _counters(stack).get("lost_sent") == LOST, 15, "the worker tells it again")
        until(lambda: _counters(stack).get("lost_accepted") == LOST, 5, "the reaper notices")
        before = len(stack.arrivals())
        stack.send(LOST, "lost")  # as an app does that is not sure
        assert stack.store.census().unfinished == 0, "all of them were there already"
        assert len(stack.arrivals()) == before
        assert "at least 40 accepted messages" in stack.log_of("daemon")
        assert "of 40 more the messages too" in stack.log_of("worker")
        assert stack.check_accounts() == Counter()


@pytest.mark.long
@pytest.mark.timeout(120)
def test_what_is_sent_again_for_a_lost_tail_is_explained(tmp_path: Path) -> None:
    """Lost: forty outcomes, while who knows them is frozen, and another sends them again."""
    with _lossy(tmp_path) as stack:
        [first] = stack.worker_processes
        stack.store.hold("pause")
        stack.send(LOST, "again")
        size = _aof(stack).stat().st_size
        stack.store.hold("resume")
        stack.wait_done(30)
        _wait_seen(stack)
        first.send_signal(signal.SIGSTOP)
        _crash_and_lose(stack, size)
        stack.store.hold("resume")
        stack.start_worker()
        stack.wait_done(40)
        first.send_signal(signal.SIGCONT)
        until(lambda: _counters(stack).get("duplicates") == LOST, 15, "the first wakes and tells")
        twice = stack.check_accounts()
        assert twice == Counter({f"again-{n}": 2 for n in range(LOST)})
        for message_id in twice:
            causes = [a.get("reason") for a in stack.store.attempts(message_id)]
            assert "redis-loss" in causes, f"{message_id}: {causes}"


def _counters(stack: Stack) -> dict[str, int]:
    return dict(stack.store.census().counters)
