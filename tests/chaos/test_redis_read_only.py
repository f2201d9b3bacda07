"""Redis made a replica under load, for longer than a lease, and a master again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from support.stack import Producer, Stack, mono_ns
from support.wait import until

LEASE_S = 2.0


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_redis_that_takes_no_writes_for_longer_than_a_lease(tmp_path: Path) -> None:
    with Stack(tmp_path, rate=80.0, more=f"lease_s = {LEASE_S}") as stack:
        processes = [*stack.daemon_processes, *stack.worker_processes]
        producer = Producer(stack, per_s=60)
        producer.start()
        stack.send(200, "first")
        stack.wait_arrival_after(mono_ns(), 10)

        # Of a master that is not there: it keeps its data, serves reads, and refuses writes.
        stack.client.replicaof("127.0.0.1", "1")
        before = len(stack.arrivals())
        until(lambda: producer.outages > 0, 10, "a producer is refused")
        stack.wait_quiet(LEASE_S + 0.5)
        # What had its permit, and is told when Redis takes it.
        assert len(stack.arrivals()) - before <= stack.connections
        stack.client.replicaof("NO", "ONE")
        back = mono_ns()

        assert stack.wait_arrival_after(back, 10) < 10
        producer.halt()
        stack.wait_done(60)
        assert [p.poll() for p in processes] == [None] * len(processes), "a process ended"
        assert stack.check_accounts() == Counter()
        counters = stack.store.census().counters
        assert (counters.get("reaped", 0), counters.get("late_sent", 0)) == (0, 0)
