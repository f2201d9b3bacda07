"""The network between a worker and the rest: cut, losing all in one direction, slow. The others go
on; nothing is lost, every duplicate is explained, and the worker goes on when its link is back."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from conformance.network import Networks, networks
from paceline.audit import DeepAudit
from support.held import begun_by
from support.links import Trouble, troubled
from support.stack import Producer, Stack, mono_ns
from support.wait import until

LEASE_S = 3.0
MORE = f"""
lease_s = {LEASE_S}
allow_plain_http = true
connect_timeout_s = 1
read_timeout_s = 2
total_timeout_s = 3
[destinations.web.retry]
first_s = 0.2
max_retries = 30
"""

pytestmark = [pytest.mark.long, pytest.mark.timeout(150)]


@dataclass
class Apart(Stack):
    """Each worker in a network of its own."""

    networks: Networks | None = None

    def start_worker(self) -> subprocess.Popen[bytes]:
        assert self.networks is not None
        place = self._places = getattr(self, "_places", -1) + 1
        return self._spawn(
            "worker", *self.worker_module, "--config", str(self.config),
            prefix=self.networks.within(place),
        )  # fmt: skip


@pytest.mark.parametrize("trouble", get_args(Trouble))
def test_one_workers_link(tmp_path: Path, trouble: Trouble) -> None:
    with networks(2) as made:
        if made is None:
            pytest.skip("needs network namespaces, which this machine does not permit")
        with Apart(
            tmp_path, rate=80, connections=6, latency="50-150ms", more=MORE, host=made.host,
            networks=made,
        ) as stack:  # fmt: skip
            processes = list(stack.worker_processes)
            producer = Producer(stack, per_s=50)
            producer.start()
            name = until(lambda: stack.worker_id(processes[0]), 10, "the worker is registered")
            until(lambda: begun_by(stack.store, name), 10, "it has requests on the wire")
            with troubled(made, 0, trouble):
                at = mono_ns()
                if trouble == "slow":
                    # Enough for heartbeats and some requests, not for a share of the rate.
                    stack.wait_arrivals(stack.arrival_count() + 250)
                else:
                    until(lambda: _lapsed(stack, name), LEASE_S + 10, "its lease has run out", 0.1)
                    assert stack.wait_arrival_after(mono_ns(), 5) < 5
                assert stack.wait_arrival_after(at, 10) < 10
            until(lambda: not _lapsed(stack, name), 20, "it is back", 0.1)
            until(lambda: begun_by(stack.store, name), 20, "it sends again")
            producer.halt()
            stack.wait_done(60)
            stack.check_accounts()
            assert DeepAudit(stack.store).run().sound
            assert [process.poll() for process in processes] == [None, None]


def _lapsed(stack: Stack, name: str) -> bool:
    return not any(seen.id == name and seen.live for seen in stack.store.census().workers)
