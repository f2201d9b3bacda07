"""What is done to a running system, at moments drawn from a seed.

freeze   SIGSTOP to one worker, or to all; short ones, after which permits in hand are still
         good, and long ones, after which leases have lapsed
kill     SIGKILL to a worker, which is replaced
restart  of Redis: SIGKILL, started again on its data
pause    by an operator, for so long that the bucket is full afterwards
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import redis.exceptions

from conformance.case import Case
from support.stack import Stack

#: The least lease there is, so that freezes outlast it.
LEASE_S = 2.0
SHORT_S = (0.02, 0.13)
LONG_S = (0.3, LEASE_S + 1.0)
_ALL = -1

Kind = Literal["freeze", "kill", "restart", "pause"]


class Deed(NamedTuple):
    """At ``at_s`` of the run, to worker number ``victim`` (or all), for ``for_s``."""

    at_s: float
    kind: Kind
    victim: int
    for_s: float

    def __str__(self) -> str:
        whom = "all" if self.victim == _ALL else str(self.victim)
        return f"{self.at_s:.2f} s {self.kind} {whom} for {self.for_s:.3f} s"


def plan(case: Case) -> list[Deed]:
    """All deeds of a case, by time: the same for the same seed."""
    rng = random.Random(f"{case.seed} {case.rate} {case.burst} {case.connections}")
    deeds = []
    for kind, count in (
        ("freeze", case.freezes),
        ("kill", case.kills),
        ("restart", case.restarts),
        ("pause", case.pauses),
    ):
        for _ in range(count):
            at_s = rng.uniform(0.05, 0.9) * case.seconds
            victim = rng.randrange(case.workers)
            for_s = 0.0
            if kind == "freeze":
                if rng.random() < 0.2:
                    victim = _ALL
                for_s = rng.uniform(*(SHORT_S if rng.random() < 0.6 else LONG_S))
            elif kind == "pause":
                fill_s = (case.burst - case.connections) / case.rate
                for_s = min(2.0, fill_s + rng.uniform(0.1, 0.4))
            deeds.append(Deed(at_s, kind, victim, for_s))  # type: ignore[arg-type]
    return sorted(deeds)


@dataclass
class _Thaw:
    at_s: float
    process: Any


class Mischief(threading.Thread):
    """Carries a plan out, from ``began_s`` (monotonic) on. ``done`` is what was, for the failure's
    text; ``counts`` by kind."""

    def __init__(self, stack: Stack, deeds: list[Deed]) -> None:
        super().__init__(name="mischief", daemon=True)
        self._stack = stack
        self._left = list(deeds)
        self.began_s = time.monotonic()
        self._thaws: list[_Thaw] = []
        self._halt = threading.Event()
        self.done: list[str] = []
        self.counts: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits
            self.failure = error
        finally:
            self._thaw(float("inf"))

    def _run(self) -> None:
        self.began_s = time.monotonic()
        while self._left or self._thaws:
            next_s = min([*(d.at_s for d in self._left[:1]), *(t.at_s for t in self._thaws)])
            if self._halt.wait(max(0.0, self.began_s + next_s - time.monotonic())):
                return
            self._thaw(next_s)
            if self._left and self._left[0].at_s <= next_s:
                self._do(self._left.pop(0))

    def _do(self, deed: Deed) -> None:
        workers = self._stack.worker_processes
        if deed.kind == "freeze":
            victims = workers if deed.victim == _ALL else [workers[deed.victim]]
            for process in victims:
                process.send_signal(signal.SIGSTOP)
                self._thaws.append(_Thaw(deed.at_s + deed.for_s, process))
            self._thaws.sort(key=lambda thaw: thaw.at_s)
        elif deed.kind == "kill":
            victim = workers[deed.victim]
            victim.kill()
            victim.wait()
            workers[deed.victim] = self._stack.start_worker()
        elif deed.kind == "restart":
            self._stack.server.kill()
            self._stack.server.start()
        else:
            try:
                self._stack.store.hold("pause", for_s=deed.for_s, why="conformance")
            except redis.exceptions.RedisError:
                return
        self.done.append(str(deed))
        self.counts[deed.kind] += 1

    def _thaw(self, until_s: float) -> None:
        # The process of that time, dead or alive: its replacement was never frozen by this deed.
        while self._thaws and self._thaws[0].at_s <= until_s:
            self._thaws.pop(0).process.send_signal(signal.SIGCONT)

    def finish(self) -> None:
        """Returns when nothing is frozen any more. Raises what went wrong on the way."""
        self._halt.set()
        self.join(60)
        assert not self.is_alive(), "mischief does not end"
        if self.failure is not None:
            raise self.failure
