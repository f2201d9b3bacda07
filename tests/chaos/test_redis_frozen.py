"""Redis frozen for longer than a lease: nobody takes another's work, nothing is sent twice."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from support.servers import frozen
from support.stack import Producer, Stack, mono_ns

pytestmark = pytest.mark.long


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("lease_s", "freeze_s"), [(2.5, 8.0), (15.0, 60.0)])
def test_a_frozen_redis_costs_no_duplicate(tmp_path: Path, lease_s: float, freeze_s: float) -> None:
    with Stack(tmp_path, rate=80.0, more=f"lease_s = {lease_s}") as stack:
        processes = [*stack.daemon_processes, *stack.worker_processes]
        producer = Producer(stack, per_s=70)
        producer.start()
        stack.send(300, "first")
        stack.wait_arrivals(50)
        with frozen(stack.server):
            before = len(stack.arrivals())
            time.sleep(freeze_s)  # the freeze itself: a span is what is tested
            # What had its permit.
            assert len(stack.arrivals()) - before <= stack.connections
        back = mono_ns()
        assert stack.wait_arrival_after(back, 10) < 10
        producer.halt()
        stack.wait_done(60)
        assert [p.poll() for p in processes] == [None] * len(processes), "a process ended"
        assert stack.check_accounts() == Counter()
        counters = stack.store.census().counters
        assert (counters.get("reaped", 0), counters.get("late_sent", 0)) == (0, 0)
