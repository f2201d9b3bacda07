"""Redis killed and restarted under load: the processes go on, what was acknowledged is sent."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from support.stack import Producer, Stack, mono_ns

KILLS = 10
RESUME_S = 5.0


@pytest.mark.timeout(240)
def test_ten_kills_of_redis_lose_no_acknowledged_message(tmp_path: Path) -> None:
    rng = random.Random(5)
    with Stack(tmp_path, rate=80.0, more="lease_s = 4.0") as stack:
        processes = [*stack.daemon_processes, *stack.worker_processes]
        producer = Producer(stack, per_s=90)
        producer.start()
        stack.send(400, "first")
        for _ in range(KILLS):
            stack.wait_arrival_after(mono_ns(), 10)
            stack.server.kill()
            before = stack.arrivals()
            if rng.random() < 0.5:
                # Dead for a moment: nothing may be sent meanwhile but what had its permit.
                stack.wait_quiet(1.0)
                assert len(stack.arrivals()) - len(before) <= stack.connections
            stack.server.start()
            back = mono_ns()
            assert stack.wait_arrival_after(back, RESUME_S) < RESUME_S
        producer.halt()
        assert producer.outages > 0, "no send met an outage: the kills hit nothing"
        stack.wait_done(60)
        assert [p.poll() for p in processes] == [None] * len(processes), "a process ended"
        stack.check_accounts()
