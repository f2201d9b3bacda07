"""Carries out one deed and times the recovery.

Recovered is a run when all of this is true again, counted from the signal:

    whole   every process runs: workers are registered with connections, daemons and exporters
            answer that they are well
    freed   nothing is leased any more to the worker that was killed (or to all of ``up``'s): its
            messages are others' again
    sends   a message handed over after the signal has reached the provider
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.exceptions

from paceline.sink.record import Arrival
from rampage.intake import Ledger, hand_over, message
from rampage.plan import Deed
from rampage.scene import Scene, send_signal
from support.held import begun_by
from support.wait import until

#: After this the run itself is given up.
GIVE_UP_S = 45.0
_POLL_S = 0.02
#: More than arrive while a run recovers.
_LATELY = 5000


@dataclass
class Done:
    """What was done, and what came of it. ``at_s`` is seconds since the run's start, ``in_flight``
    how many requests were on the wire (of a killed worker: how many of its messages had begun),
    ``connections`` how many the killed workers held. ``recovery_s`` is the longest of ``parts``."""

    deed: str
    way: str
    at_s: float
    kill: bool
    in_flight: int = 0
    connections: int = 0
    recovery_s: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    code: int | None = None

    @property
    def counts(self) -> bool:
        """Whether it was a kill with something in flight."""
        return self.kill and self.in_flight > 0


class Deeds:
    """Carries them out, one after the other, on one scene."""

    def __init__(self, scene: Scene, ledger: Ledger, prefix: str) -> None:
        self._scene, self._ledger, self._prefix = scene, ledger, prefix
        self._began_s = time.monotonic()
        self._probes = 0

    def do(self, deed: Deed) -> Done:
        """Returns when it has recovered. Raises AssertionError where it does not."""
        time.sleep(deed.rest_s)
        scene = self._scene
        pids = until(lambda: scene.victims(deed.whom), 20, f"there is a {deed.whom}")
        pid = pids[deed.which % len(pids)]
        done = Done(str(deed), scene.way, time.monotonic() - self._began_s, deed.how == "kill")
        workers: list[str] = []
        if deed.how == "freeze":
            send_signal(pid, signal.SIGSTOP)
            time.sleep(deed.for_s)
            at_ns = time.monotonic_ns()
            send_signal(pid, signal.SIGCONT)
        elif deed.how == "term":
            at_ns = time.monotonic_ns()
            send_signal(pid, signal.SIGTERM)
            done.code = scene.replace(deed.whom, pid)
            if deed.whom == "up":
                at_ns = time.monotonic_ns()  # its stop is an orderly one, and may take its time
        else:
            workers, done.in_flight, done.connections = self._stop_before_kill(deed, pid)
            at_ns = time.monotonic_ns()
            send_signal(pid, signal.SIGKILL)
            scene.replace(deed.whom, pid)
        self._await_recovery(done, at_ns, pid, workers)
        if done.kill and deed.whom != "worker":
            done.in_flight = open_at(scene.arrivals_ended()[-_LATELY:], at_ns)
        return done

    def _stop_before_kill(self, deed: Deed, pid: int) -> tuple[list[str], int, int]:
        """The workers that will die, how many of their messages have begun, and how many
        connections they hold. A worker is stopped first, at a moment when it has begun one, so
        that what is counted is what the kill leaves."""
        scene = self._scene
        if deed.whom not in ("worker", "up"):
            return [], 0, 0
        workers = until(lambda: scene.workers_of(pid), 20, "the victim is registered")
        slots = sum(w.slots for w in scene.store.census().workers if w.id in workers)
        if deed.whom == "up":
            return workers, 0, slots

        def stopped() -> list[str]:
            if not begun_by(scene.store, workers[0]):
                return []
            send_signal(pid, signal.SIGSTOP)
            begun = begun_by(scene.store, workers[0])
            if not begun:
                send_signal(pid, signal.SIGCONT)
            return begun

        return workers, len(until(stopped, 20, "the victim has begun a request")), slots

    def _await_recovery(self, done: Done, at_ns: int, pid: int, workers: list[str]) -> None:
        probe = f"{self._prefix}-probe-{self._probes}"
        self._probes += 1
        before = len(self._scene.arrivals_ended())
        hand_over(self._scene.outbox, [message(probe, "high")], self._ledger, GIVE_UP_S)
        parts = done.parts

        def recovered() -> bool:
            if "sends" not in parts:
                times = [a.mono_ns for a in self._scene.arrivals_ended()[before:] if a.id == probe]
                if times:
                    parts["sends"] = (min(times) - at_ns) / 1e9
            if "freed" not in parts and self._scene.is_free(workers):
                parts["freed"] = (time.monotonic_ns() - at_ns) / 1e9
            if "whole" not in parts and self._scene.is_whole():
                parts["whole"] = (time.monotonic_ns() - at_ns) / 1e9
            return len(parts) == 3

        try:
            until(recovered, GIVE_UP_S, f"recovered from: {done.deed} (pid {pid})", _POLL_S)
        except AssertionError as error:
            raise AssertionError(f"{error}; what is: {parts}") from error
        if not workers:
            del parts["freed"]
        done.recovery_s = max(parts.values())


def open_at(arrivals: Sequence[Arrival], at_ns: int) -> int:
    """How many requests the provider had begun to read and not answered at that moment."""
    return sum(
        a.mono_ns < at_ns and a.answered_ns is not None and a.answered_ns > at_ns for a in arrivals
    )


def settled(scene: Scene) -> bool:
    """Nothing is unfinished."""
    try:
        return scene.store.census().unfinished == 0
    except redis.exceptions.RedisError:
        return False


def as_data(done: Done) -> dict[str, Any]:
    """One entry of the report."""
    return {
        "deed": done.deed,
        "way": done.way,
        "at_s": round(done.at_s, 2),
        "counts": done.counts,
        "in_flight": done.in_flight,
        "connections": done.connections,
        "recovery_s": round(done.recovery_s, 3),
        "parts": {name: round(seconds, 3) for name, seconds in done.parts.items()},
        "code": done.code,
    }
