"""The worker's heartbeat: alive, its share of the connections, its leases renewed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import redis.exceptions

from paceline.outbox import OutboxStore
from paceline_workers.outage import Outage
from paceline_workers.sender import Sender
from paceline_workers.totals import Totals
from paceline_workers.transports.base import Pool

#: A lease lasts at least five periods (Destination.heartbeat_s): after more it may have lapsed.
_SILENT_BEATS = 4.5

log = logging.getLogger("paceline.heartbeat")


class Heartbeat:
    """A beat each ``period_s``: ``slots`` (alive, connections), ``renew`` (leases), pool trimmed.

    ``facts()`` is what status shows of this worker; ``totals()`` its running totals by name, which
    Redis adds to the destination's. ``nudge`` is called when the share changed. ``elapsed_s`` is a
    clock that runs through suspends.
    """

    def __init__(
        self,
        store: OutboxStore,
        worker: str,
        pool: Pool,
        sender: Sender,
        facts: Callable[[], Mapping[str, Any]],
        nudge: Callable[[], None],
        *,
        period_s: float,
        elapsed_s: Callable[[], float],
        totals: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._store = store
        self._worker = worker
        self._pool = pool
        self._sender = sender
        self._facts = facts
        self._totals = Totals(totals)
        self._nudge = nudge
        self._period_s = period_s
        self._elapsed_s = elapsed_s
        self._beat_s = elapsed_s()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def take_over(self, pool: Pool, sender: Sender, meanwhile: Callable[[], object]) -> None:
        """From here on the beats are these ones'. ``meanwhile`` is called between two beats."""
        with self._lock:
            self._pool, self._sender = pool, sender
            meanwhile()

    def run_once(self) -> dict[str, int]:
        """One beat. Raises RedisError. Returns {"allowance", "renewed", "lost"}."""
        with self._lock:
            return self._beat()

    def _beat(self) -> dict[str, int]:
        self._pool.trim()
        silent = self._elapsed_s() - self._beat_s > _SILENT_BEATS * self._period_s
        if silent:
            # Frozen, or without Redis: the lease may have lapsed, and the others may have by now
            # what was granted before it. What is open stays; the rest is asked for anew.
            self._pool.set_limit(min(self._pool.limit, self._pool.open_connections))
        # All that may be opened before the answer is acted on counts as open: a share that shrinks
        # is the others' only when this worker has said, a beat later, that it keeps to it.
        claimed = max(self._pool.limit, self._pool.open_connections)
        totals = self._totals.claim()
        facts = {**self._facts(), "totals": totals}
        share = self._store.slots("beat", self._worker, claimed, facts)
        self._totals.accepted(totals)
        self._beat_s = self._elapsed_s()
        if share.allowance != self._pool.limit:
            log.info(
                "connections: %d of the account's, %d workers live",
                share.allowance,
                share.live_workers,
            )
            self._pool.set_limit(share.allowance)
            self._nudge()
        self._sender.tend(share.rate)
        nonces = self._sender.nonces_to_renew()
        lost = self._store.renew(nonces) if nonces else set()
        if lost:
            if silent:  # else they are batches whose last message was settled this moment
                log.warning(
                    "silent for too long: the leases of %d batches ran out, others have them now",
                    len(lost),
                    extra={"event": "lease_lost"},
                )
            self._sender.lost(lost)
        return {"allowance": share.allowance, "renewed": len(nonces), "lost": len(lost)}

    def _run(self) -> None:
        outage = Outage(log, "heartbeat")
        while not self._stop.wait(self._period_s):
            try:
                self.run_once()
                outage.over()
            except redis.exceptions.RedisError as error:
                outage.note(error)
            except Exception:
                # Without it all leases run out, with the messages on the wire.
                log.exception("heartbeat: unexpected error; going on")

    def stop(self) -> None:
        """Ends the thread and says farewell: slots are free at once."""
        self._stop.set()
        self._thread.join(self._period_s + 5.0)
        try:
            # What came since the last beat counts too.
            self._store.slots("leave", self._worker, 0, {"totals": self._totals.claim()})
        except redis.exceptions.RedisError as error:
            log.warning("farewell: Redis does not answer, the lease runs out instead: %s", error)
