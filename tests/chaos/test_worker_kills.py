"""Workers killed with requests on the wire: nothing lost, every duplicate explained."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path

import pytest

from support.stack import Stack, mono_ns
from support.wait import until

KILLS = 20
# A message that returns to the head of the queue may be hit by one kill after another; each is
# charged, for a message that kills workers must be bounded. Here the kills are ours, not its own.
PATIENT = """
lease_s = 3.0
[destinations.web.retry]
max_retries = 20
"""
SEED = 20261122
RECOVERY_S = 10.0


def _connections(stack: Stack, worker: str) -> int:
    """How many of the account's connections this worker holds."""
    return next(seen.slots for seen in stack.store.census().workers if seen.id == worker)


def _kill_while_begun(stack: Stack, victim: subprocess.Popen[bytes]) -> tuple[list[str], int]:
    """SIGKILL with at least one request begun and unsettled; returns those ids, and how many
    connections the victim held."""

    def killed() -> tuple[list[str], int] | None:
        # On a slow machine the backlog may end before the victim has had a part of it.
        if stack.store.census().unfinished < 100:
            stack.send(200, f"kept-busy-{len(stack.accepted)}")
        worker = stack.worker_id(victim)
        if worker is None or not stack.begun_by(worker):
            return None
        victim.send_signal(signal.SIGSTOP)  # so that what we count is what the kill leaves
        begun, connections = stack.begun_by(worker), _connections(stack, worker)
        if begun:
            victim.kill()
            victim.wait()
        else:
            victim.send_signal(signal.SIGCONT)
        return (begun, connections) if begun else None

    found = until(killed, 20, "a request of the victim is begun and unsettled", 0.02)
    assert found is not None
    return found


@pytest.mark.long
@pytest.mark.timeout(240)
def test_twenty_kills_lose_nothing_and_explain_every_duplicate(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    with Stack(tmp_path, latency="50-150ms", more=PATIENT) as stack:
        stack.send(600)
        kills: list[tuple[list[str], int]] = []
        for kill in range(KILLS):
            if stack.store.census().unfinished < 300:
                stack.send(400, f"more-{kill}")
            place = rng.randrange(len(stack.worker_processes))
            kills.append(_kill_while_begun(stack, stack.worker_processes[place]))
            at = mono_ns()
            stack.worker_processes[place] = stack.start_worker()
            assert stack.wait_arrival_after(at, RECOVERY_S) < RECOVERY_S
            stack.wait_live(len(stack.worker_processes))
        stack.wait_done(60)
        twice = stack.check_accounts()
        for begun, connections in kills:
            assert len(begun) <= connections
            assert sum(message_id in twice for message_id in begun) <= connections
        assert sum(n - 1 for n in twice.values()) <= sum(len(begun) for begun, _ in kills)
        assert twice, "no duplicate at all: the kills hit nothing, the test proves nothing"


def test_one_worker_killed_alone_is_replaced_within_ten_seconds(tmp_path: Path) -> None:
    with Stack(tmp_path, workers=1, latency="50-150ms", more="lease_s = 3.0") as stack:
        stack.send(300)
        _kill_while_begun(stack, stack.worker_processes[0])
        at = mono_ns()
        stack.worker_processes[0] = stack.start_worker()
        assert stack.wait_arrival_after(at, RECOVERY_S) < RECOVERY_S
        stack.wait_done(30)
        stack.check_accounts()
