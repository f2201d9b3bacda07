"""Workers killed and frozen with merged requests on the wire: each goes again whole, with the bytes
and the key it had, so the provider accepts every recipient once. Nothing is lost, nothing sent
twice."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from paceline import Outbox
from paceline.audit import DeepAudit
from support.stack import DESTINATION, Stack
from support.wait import until

SEED = 20261128
MESSAGES, KILLS, FREEZES = 6000, 4, 2
MERGED = """
api_key = "k"
lease_s = 3.0
merge = { most = 40, linger_s = 0.05 }
[destinations.web.retry]
first_s = 0.2
max_retries = 20
"""


def _merged_begun(stack: Stack) -> list[str]:
    """Merged requests on the wire."""
    requests = [name.decode() for name in stack.client.hkeys("{web}:q")]
    found = stack.store.look(requests) if requests else []
    return [i for i, it in zip(requests, found, strict=True) if it and it[0].state == "begun"]


def _reaped(stack: Stack) -> int:
    return stack.store.census().counters.get("ambiguous_reaped", 0)


def _await_more_reaped(stack: Stack, before: int) -> None:
    until(lambda: _reaped(stack) > before, 15, "what it had begun is reaped", 0.05)


@pytest.mark.timeout(150)
def test_killed_and_frozen_with_requests_of_forty_on_the_wire(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    with Stack(
        tmp_path, rate=40, burst=60, connections=6, workers=2, latency="100-300ms",
        profile="sparkpost", path="/api/v1/transmissions", more=MERGED,
    ) as stack:  # fmt: skip
        messages = [
            Outbox.message(
                DESTINATION,
                {
                    "recipients": [{"address": f"u{n}@example.com"}],
                    "content": {"template_id": "t"},
                },
                id=f"m-{n}",
            )
            for n in range(MESSAGES)
        ]
        assert not [it for it in stack.outbox.send_many(messages) if isinstance(it, Exception)]
        hit = 0
        for number in range(KILLS + FREEZES):
            until(lambda: _merged_begun(stack), 20, "merged requests are on the wire", 0.005)
            victim = stack.worker_processes[rng.randrange(2)]
            if number % 3 == 2:
                # Past its lease: its requests go by the other, and its own answers come late.
                victim.send_signal(signal.SIGSTOP)
                _await_more_reaped(stack, hit)
                hit = _reaped(stack)
                victim.send_signal(signal.SIGCONT)
                continue
            victim.kill()
            victim.wait()
            stack.worker_processes[stack.worker_processes.index(victim)] = stack.start_worker()
        stack.wait_done(60)
        census = stack.store.census()
        assert (census.law["sent"], census.law["accepted"]) == (MESSAGES, MESSAGES)
        assert census.sound
        assert DeepAudit(stack.store).run().sound
        assert census.counters["ambiguous_reaped"] > 0
        report = stack.report()
        assert report["recipients"] == MESSAGES
        assert report["repeated_recipients"] == {}
        # Seen again, and known again.
        keys = [a["key"] for a in stack.arrivals()]
        again = [key for key in keys if keys.count(key) > 1]
        assert again, "no request was tried twice: nothing was shown"
        bodies = {(a["key"], a["sha256"]) for a in stack.arrivals() if a["key"] in again}
        assert len(bodies) == len(set(again))
