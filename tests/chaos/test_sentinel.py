"""The master lost, and another made by Sentinel: what a replica had acknowledged is not lost, and
sending goes on within ten seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.rights import Guarded
from support.sentinels import Sentinels
from support.servers import connect, freeze, thaw
from support.stack import DESTINATION, Producer, Stack, mono_ns
from support.wait import until

RESUME_S = 10.0


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_fail_over_loses_nothing_that_a_replica_had(tmp_path: Path, how: str) -> None:
    users = Guarded(tmp_path / "rights", [DESTINATION])
    with (
        Sentinels(tmp_path, users.options) as redis,
        Stack(
            tmp_path, rate=80.0, redis_url=redis.url, its_rights=(users, redis.servers),
            more="lease_s = 5.0",
        ) as stack,
    ):  # fmt: skip
        processes = [*stack.daemon_processes, *stack.worker_processes]
        producer = Producer(stack, per_s=60, durable="replica")
        producer.start()
        stack.wait_arrivals(100)
        old = redis.master()
        if how == "killed":
            old.kill()
        else:
            freeze(old)
        lost = mono_ns()
        until(lambda: redis.master() is not old, 20, "another master")
        promoted = mono_ns()
        took_s = stack.wait_arrival_after(promoted, RESUME_S) + (promoted - lost) / 1e9
        assert took_s < RESUME_S
        # The old one is back, and takes nothing from anybody that the new one does not have.
        if how == "killed":
            old.start()
        else:
            thaw(old)
        with connect(old.url) as client:
            until(lambda: client.info("replication")["role"] == "slave", 20, "it follows")
        redis.wait_replicas(redis.master(), 2)
        stack.wait_arrival_after(mono_ns(), RESUME_S)
        producer.halt()
        assert producer.outages > 0, "no send met the fail-over"
        stack.wait_done(60)
        assert [p.poll() for p in processes] == [None] * len(processes), "a process ended"
        twice = stack.check_accounts()
        assert len(twice) <= stack.connections
