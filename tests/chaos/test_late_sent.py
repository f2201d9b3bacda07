"""A worker frozen past its lease, and woken: its late ``sent`` is true and wins, though its
messages are others' again; no counter is wrong."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from paceline.audit import DeepAudit
from support.held import begun_by
from support.stack import Stack
from support.wait import until

#: What was reaped waits for its retry for longer than the test runs.
MORE = """
lease_s = 2.0
[destinations.web.retry]
first_s = 120
cap_s = 120
"""


@pytest.mark.timeout(60)
def test_a_late_sent_wins_over_the_retry(tmp_path: Path) -> None:
    with Stack(tmp_path, latency="150-200ms", connections=4, workers=1, more=MORE) as stack:
        [worker] = stack.worker_processes
        name = stack.worker_id(worker)
        assert name is not None
        stack.send(60)

        def frozen() -> list[str]:
            if len(begun_by(stack.store, name)) < 2:
                return []
            worker.send_signal(signal.SIGSTOP)
            begun = begun_by(stack.store, name)
            # Stopped between permit and write it would ask again, be refused, and send nothing.
            if begun and {a["id"] for a in stack.arrivals()}.issuperset(begun):
                return begun
            worker.send_signal(signal.SIGCONT)
            return []

        begun = until(frozen, 10, "the worker has begun requests")

        def reaped() -> bool:
            return stack.store.census().counters.get("ambiguous_reaped", 0) >= len(begun)

        until(reaped, 10, "what it had begun is reaped", 0.05)
        found = stack.store.look(begun)
        assert {it[0].state for it in found if it} == {"scheduled"}
        worker.send_signal(signal.SIGCONT)
        stack.wait_done(20)
        census = stack.store.census()
        assert stack.check_accounts() == {}
        assert census.counters["late_sent"] == len(begun)
        assert census.counters["ambiguous_reaped"] == len(begun)
        assert (census.law["sent"], census.law["accepted"]) == (60, 60)
        assert stack.arrival_count() == 60
        assert DeepAudit(stack.store).run().sound
