"""One case on the wire: processes, a backlog of mixed priorities, mischief, two recorders."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from conformance.case import Case
from conformance.cpu import cores, look
from conformance.evidence import Evidence, collect
from conformance.mischief import LEASE_S, Mischief, plan
from conformance.network import Networks, networks
from paceline import Outbox
from support.stack import DESTINATION, LOOPBACK, Stack
from support.wait import until

_UNGATED = ("support.ungated_worker", "worker", DESTINATION)
#: Kills and faults are ours: no message may run out of tries by them.
_PATIENT = f"""
lease_s = {LEASE_S}
allow_plain_http = true
[destinations.{DESTINATION}.retry]
max_retries = 50
first_s = 0.2
cap_s = 2.0
"""
_STOP_S = 30.0


@dataclass
class Field(Stack):
    """A stack whose workers record what they write, each in a network of its own if there are any.

    ``traces``: the folder of their records, a file a process.
    """

    networks: Networks | None = None
    traces: Path = field(init=False)

    def _start(self) -> None:
        self.traces = self.folder / "traces"
        self.traces.mkdir()
        self._started = 0
        super()._start()

    def start_worker(self) -> subprocess.Popen[bytes]:
        place, self._started = self._started, self._started + 1
        return self._spawn(
            "worker", *self.worker_module, "--config", str(self.config),
            "--trace-wire", str(self.traces / f"{place:03}"),
            prefix=() if self.networks is None else self.networks.within(place),
        )  # fmt: skip

    def send_mixed(self, count: int, rng: Random) -> None:
        """A backlog: one in ten high, two in ten bulk."""
        levels = rng.choices(("high", "normal", "bulk"), (1, 7, 2), k=count)
        self.outbox.send_many(
            Outbox.message(DESTINATION, {"n": n}, id=f"m-{n}", priority=level)
            for n, level in enumerate(levels)
        )

    def trace_bytes(self) -> int:
        """How much was recorded so far."""
        return sum(path.stat().st_size for path in self.traces.iterdir())

    def stop_workers(self) -> None:
        """What is on the wire is finished first."""
        for process in self.worker_processes:
            process.terminate()
        for process in self.worker_processes:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def play(case: Case, folder: Path | None = None) -> Evidence:
    """Runs a case; ``folder`` keeps the logs (a temporary one where it is None)."""
    with tempfile.TemporaryDirectory() as temporary, networks(case.workers) as found:
        where = folder or Path(temporary)
        with Field(
            where, rate=case.rate, burst=case.burst, connections=case.connections,
            workers=case.workers, daemons=case.daemons, latency=case.latency, faults=case.faults,
            seed=case.seed, more=_PATIENT, host=LOOPBACK if found is None else found.host,
            worker_module=Stack.worker_module if case.gated else _UNGATED, networks=found,
        ) as stack:  # fmt: skip
            return _play(case, stack)


def _play(case: Case, stack: Field) -> Evidence:
    wanted = round(case.rate * (case.seconds + case.warm_s) * 1.1) + 2 * case.burst
    stack.send_mixed(wanted, Random(case.seed))
    until(lambda: stack.trace_bytes() > 0, 20, "the first request starts")
    calm = threading.Event()
    calm.wait(case.warm_s)
    mischief = Mischief(stack, plan(case))
    before = look(stack)
    mischief.start()
    calm.wait(case.seconds)  # a span of sending is what is judged
    mischief.finish()
    # Those of the dead are not told any more.
    used = {} if case.kills or case.restarts else cores(before, look(stack))
    left = stack.store.census().unfinished
    stack.stop_workers()
    return collect(
        case, stack.traces, stack.arrivals(), mischief,
        backlog=left, law=stack.store.census().law, sound=stack.store.census().sound,
        apart=stack.networks is not None, cores=used,
    )  # fmt: skip
