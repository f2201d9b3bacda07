"""The reaper: takes back what workers hold no more, and tells the dead from the silent.

A worker whose lease lapsed may be frozen with a permit in hand; the slots script keeps its
connections accounted for until it is back or known dead. Known dead is: its process ran on this
machine and is gone; or its Redis connections are closed although the Redis is the same (the kernel
closes a dead process's sockets, a frozen one's stay open).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from paceline.census import Census, WorkerSeen
from paceline.changes import Changes
from paceline.host import is_known_dead
from paceline.names import client_name
from paceline.outbox import OutboxStore
from paceline.scripts import Pinned

log = logging.getLogger("paceline.reaper")

_BURY_EVERY = 4
#: In one turn, each of a few thousand records: more than two million a minute leave.
_MOST_SWEEPS = 8
#: A worker of another host that died together with Redis can be told from a frozen one by nothing.
#: After so long it is taken for dead: should it wake all the same, its permits are stale, and it
#: draws them again before it writes.
_FORGOTTEN_S = 900.0


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one turn did: leases given a full term (after a gap), messages taken back, ambiguous
    ones, workers buried."""

    terms: int
    back: int
    ambiguous: int
    buried: int


class Reaper:
    """One destination's reaper; several may run. ``daemon`` names this process."""

    def __init__(
        self,
        store: OutboxStore,
        pinned: Pinned,
        daemon: str,
        *,
        dead_here: Callable[[Mapping[str, Any]], bool] = is_known_dead,
    ) -> None:
        self._store = store
        self._pinned = pinned
        self._daemon = daemon
        self._dead_here = dead_here
        self._turn = 0
        self._changes = Changes()
        self._seen: tuple[int, int] | None = None

    def run_once(self) -> Reaped:
        """One turn. Raises RedisError."""
        run_id = self._pinned.current_run_id()
        self._look_for_loss(run_id)
        word, first, ambiguous = self._store.reap(run_id, self._daemon)
        buried = 0
        self._sweep()
        if self._turn % _BURY_EVERY == 0:
            census = self._store.census()
            self._tell_changes(census)
            buried = self._bury(census, run_id)
        self._turn += 1
        if ambiguous:
            log.warning(
                "leases ran out; messages begun: %d, which may have been sent",
                ambiguous,
                extra=self._about("ambiguous", "lease-expired"),
            )
        terms = word == "terms"
        return Reaped(first if terms else 0, 0 if terms else first, ambiguous, buried)

    def _look_for_loss(self, run_id: str) -> None:
        totals, seen = self._store.totals(), self._seen
        if seen is not None and (totals[0] < seen[0] or totals[1] < seen[1]):
            accepted, sent = self._store.lose(run_id, *seen)
            log.error(
                "Redis has lost data: at least %d accepted messages and %d outcomes that it had "
                "are gone; docs/durability.md tells what to do",
                accepted,
                sent,
                extra=self._about("redis_loss"),
            )
        self._seen = totals

    def _sweep(self) -> None:
        for _ in range(_MOST_SWEEPS):
            if not self._store.sweep():
                return

    def _bury(self, census: Census, run_id: str) -> int:
        dead = [w for w in census.workers if self._dead_here(w.facts)]
        for worker in dead:
            self._store.slots("bury", worker.id)
        lapsed = [w for w in census.workers if not w.live and w not in dead]
        if lapsed:
            connected = self._connected_names()
            gone = (w for w in lapsed if _is_gone(w, run_id, connected))
            # It may have come back while we looked.
            dead += [w for w in gone if self._store.bury_lapsed(w.id)]
        for worker in dead:
            log.warning(
                "worker %s is dead: its connections are free",
                worker.id,
                extra={**self._about("worker_dead"), "worker": worker.id},
            )
        return len(dead)

    def _tell_changes(self, census: Census) -> None:
        for change in self._changes.since_last(census):
            log.log(change.level, "%s", change.text, extra=self._about(change.event, change.cause))

    def _about(self, event: str, cause: str | None = None) -> dict[str, str | None]:
        return {"event": event, "cause": cause, "destination": self._store.destination}

    def _connected_names(self) -> set[str]:
        clients: Any = self._store.client.client_list()
        return {client["name"] for client in clients}


def _is_gone(worker: WorkerSeen, run_id: str, connected: set[str]) -> bool:
    if worker.lease_left_s < -_FORGOTTEN_S:
        return True
    return worker.facts.get("run_id") == run_id and client_name(worker.id) not in connected
