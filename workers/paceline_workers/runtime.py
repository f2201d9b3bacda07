"""The wiring of one worker process: one destination, one pool, many batches.

Start: configuration confirmed in Redis → first heartbeat (a share of the connections) → sender
threads → RQ. Stop (SIGTERM): nothing more is taken, what is on the wire is finished, the rest goes
back untouched, all outcomes are settled, and only then the heartbeat ends and the slots are given
back. The second signal ends the process at once; leases do the rest.
"""

from __future__ import annotations

import logging
import os
import random
import re
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import redis
import redis.exceptions

from paceline.answers import Settlement, Taken
from paceline.clock import Clock
from paceline.connect import connect
from paceline.errors import ConfigError, ConfigProblem
from paceline.host import identity, memory_bytes
from paceline.names import LANES, Lane, client_name, queue_name
from paceline.outbox import OutboxStore, new_nonce
from paceline.scripts import Pinned
from paceline.settings import Destination
from paceline.shared_config import publish
from paceline.version import __version__
from paceline_workers import jobs
from paceline_workers.delivery import Delivery, Route
from paceline_workers.exchange import Exchange
from paceline_workers.gate import WireGate
from paceline_workers.heartbeat import Heartbeat
from paceline_workers.outage import Outage
from paceline_workers.pending import PendingQueue
from paceline_workers.providers.registry import build
from paceline_workers.sender import QUEUE_S, Sender
from paceline_workers.settler import Settler
from paceline_workers.trace import WireTrace
from paceline_workers.transports.adapter import GatedAdapter
from paceline_workers.transports.connection import Connector
from paceline_workers.transports.network import Network, WatchedConnector
from paceline_workers.transports.pool import ConnectionPool, Retirement
from paceline_workers.transports.watchdog import Watchdog
from paceline_workers.worker import PacelineWorker

#: How often high messages are looked for while a batch is being handed to the sender.
HIGH_EVERY_S = 0.04
_TAKE_AGAIN_S = 0.2
#: It becomes part of Redis keys and of the names in CLIENT LIST, which take no blanks.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = logging.getLogger("paceline.worker")


class WorkerRuntime:
    """One worker process of one destination.

    ``environ`` is where secrets named by the configuration are found. ``name`` is unique among
    live workers. ``trace_wire`` is a file for the moments at which requests start, see trace.py.
    Raises ConfigError (a secret is missing, a name or that file cannot be used) when built.
    """

    def __init__(
        self,
        destination: Destination,
        redis_url: str,
        environ: Mapping[str, str],
        *,
        name: str | None = None,
        clock: Clock | None = None,
        trace_wire: Path | None = None,
    ) -> None:
        if name is not None and not _NAME.fullmatch(name):
            raise ConfigError(
                [
                    ConfigProblem(
                        "--name",
                        f"{name!r} cannot name a worker",
                        "Use 1 to 128 letters, digits, dots, dashes and underscores",
                    )
                ],
                source="command line",
            )
        self.destination = destination
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.stopping = threading.Event()
        self._clock = clock or Clock()
        self._trace = _open_trace(trace_wire, destination.id_header)
        self._profile = build(destination, environ)
        label = client_name(self.name)
        self._client = connect(redis_url, name=label)
        self.store = OutboxStore(self._client, destination.name)
        self._facts_pin = Pinned(self._client)
        self._outage = Outage(log, "take")
        self._high_again_s = 0.0
        self._watchdog = Watchdog(self._clock.monotonic_s)
        self._network = Network()
        # Without the values in their queries: keys are sometimes sent there.
        self._shown_urls: list[str] = destination.public()["urls"]
        self._pool = self._make_pool()
        self._sender = self._make_sender()
        self._rq = PacelineWorker(
            destination.name,
            [queue_name(destination.name, lane) for lane in LANES],
            connect=lambda: connect(redis_url, name=label),
            name=self.name,
            ready=self._sender.is_open,
            stop_event=self.stopping,
        )
        self._heartbeat = Heartbeat(
            self.store,
            self.name,
            self._pool,
            self._sender,
            self._facts,
            self._rq.nudge,
            period_s=destination.heartbeat_s,
            elapsed_s=self._clock.elapsed_s,
            totals=self._totals,
        )

    @property
    def grace_s(self) -> float:
        """How long a stop may take: a request just begun runs to its total deadline."""
        return self.destination.connect_timeout_s + self.destination.total_timeout_s + 5.0

    def run(self) -> int:
        """Works until ``stop`` is called. Returns how many outcomes could not be settled.

        Raises ConfigMismatch and RedisError at the start; later outages of Redis are outlived.
        """
        publish(self.store, self.destination)
        self._heartbeat.run_once()
        jobs.install(self.destination.name, self)
        self._watchdog.start()
        self._sender.start()
        self._heartbeat.start()
        log.info(
            "worker %s of %s started",
            self.name,
            self.destination.name,
            extra={"event": "started", "worker": self.name},
        )
        try:
            self._rq.run()
        finally:
            self.stopping.set()
            lost = self._sender.stop(self.grace_s)
            jobs.uninstall(self.destination.name)
            self._heartbeat.stop()
            self._watchdog.stop()
            if lost:
                log.error("stopped with %d outcomes unsettled: their leases run out", lost)
            log.info(
                "worker %s stopped", self.name, extra={"event": "stopped", "worker": self.name}
            )
        return lost

    def stop(self) -> None:
        """Asks ``run`` to end. May be called from a signal handler: on a thread of its own, for
        an Event cannot be set by a handler that interrupted its own thread waiting for it."""

        def ask() -> None:
            self.stopping.set()
            self._rq.nudge()

        threading.Thread(target=ask, name="stop", daemon=True).start()

    # -- the job ----------------------------------------------------------------------------

    def take_batch(self, count: int, lane: Lane, invitation: str) -> int:
        """Carries an invitation out: takes up to ``count`` messages and hands them to the sender.

        That may last, for the sender takes them as it sends them. Invitations to high messages wait
        in RQ meanwhile; so high ones are looked for here, uninvited, while it lasts.

        Never raises for Redis: an invitation that fails loses nothing (what was taken without our
        knowing comes back when its lease runs out)."""
        if lane == "high":
            return self._carry_out(count, lane, invitation, lambda: None)
        return self._carry_out(count, lane, invitation, self._take_high)

    def _take_high(self) -> None:
        now = self._clock.monotonic_s()
        if now < self._high_again_s:
            return
        self._high_again_s = now + HIGH_EVERY_S
        room = self._sender.room_for_high()
        if room:
            self._carry_out(room, "high", "", lambda: None)

    def _carry_out(
        self, count: int, lane: Lane, invitation: str, meanwhile: Callable[[], object]
    ) -> int:
        taken = self._take(count, lane, invitation)
        if taken is None or taken.status != "batch" or not taken.sizes:
            return 0
        try:
            return self._sender.accept(taken.nonce, taken.sizes, self.store.fetch(taken), meanwhile)
        except redis.exceptions.RedisError as error:
            log.warning("fetch: Redis went away: %s; what was not fetched is given back", error)
            return 0

    def _take(self, count: int, lane: Lane, invitation: str) -> Taken | None:
        nonce = new_nonce()
        while True:
            try:
                taken = self.store.take(self.name, nonce, count, lane, invitation)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                # The answer may have been lost, not the call: the same nonce gets the same batch,
                # and if nobody asked again it would wait for its lease to run out.
                self._outage.note(error)
            except redis.exceptions.RedisError as error:
                log.warning("take: Redis refuses: %s", error)
                return None
            else:
                self._outage.over()
                return taken
            if self.stopping.wait(_TAKE_AGAIN_S):
                return None

    # -- wiring -----------------------------------------------------------------------------

    def _make_pool(self) -> ConnectionPool:
        d = self.destination
        connectors: list[Connector] = [
            WatchedConnector(
                self._network,
                url,
                connect_timeout_s=d.connect_timeout_s,
                read_timeout_s=d.read_timeout_s,
                ca_file=d.ca_file,
            )
            for url in d.urls
        ]
        retirement = Retirement(
            d.connection_max_age_s, d.connection_max_requests, d.connection_idle_s
        )
        return ConnectionPool(
            connectors,
            retirement,
            clock=self._clock.monotonic_s,
            rand=random.random,
            on_health=self._tell_health,
        )

    def _tell_health(self, number: int, healthy: bool) -> None:
        url = self._shown_urls[number]
        if healthy:
            log.info("%s answers again: used again", url, extra={"event": "url_back", "cause": url})
        else:
            log.warning(
                "%s fails: left to the destination's other URLs, and probed now and then",
                url,
                extra={"event": "url_left", "cause": url},
            )

    def _make_sender(self) -> Sender:
        d = self.destination
        adapter = GatedAdapter(
            self._pool,
            self._watchdog,
            total_timeout_s=d.total_timeout_s,
            monotonic_s=self._clock.monotonic_s,
            elapsed_s=self._clock.elapsed_s,
            trace=self._trace,
        )

        exchange = Exchange(self.store, Pinned(self._client), self._clock.elapsed_s)

        def make_delivery(settler: Settler) -> Delivery:
            return Delivery(
                self._profile,
                Route(d.urls[0], d.id_header),
                adapter,
                WireGate(exchange, settler, self._clock, self.stopping),
                worker=self.name,
                clock=self._clock,
                rand=random.random,
            )

        def settler_of(settled: Callable[[Sequence[Settlement]], None]) -> Settler:
            return Settler(self.store, settled)

        return Sender(
            d.effective_connections,
            PendingQueue(max(1, ceil(d.rate * QUEUE_S))),
            self._pool,
            make_delivery,
            settler_of,
            clock=self._clock,
            total_timeout_s=d.total_timeout_s,
            stopping=self.stopping,
        )

    def _facts(self) -> Mapping[str, Any]:
        return {
            **identity(),
            "version": __version__,
            "run_id": self._facts_pin.current_run_id(),
            "memory_bytes": memory_bytes(),
            "connections": self._pool.open_connections,
            **self._network.facts(),
            **self._sender.counts(),
            **self._route_facts(),
        }

    def _route_facts(self) -> Mapping[str, Any]:
        """``routes``: each URL as this process finds it; nothing where there is only one."""
        found = self._pool.route_facts()
        if not found:
            return {}
        shown = zip(self._shown_urls, found, strict=True)
        return {"routes": [{"url": url, **facts} for url, facts in shown]}

    def _totals(self) -> Mapping[str, int]:
        self._network.look()
        return {**self._pool.counts, "retransmits": self._network.retransmits}


def _open_trace(path: Path | None, id_header: str) -> WireTrace | None:
    if path is None:
        return None
    try:
        return WireTrace(path, id_header)
    except OSError as error:
        raise ConfigError(
            [
                ConfigProblem(
                    "--trace-wire",
                    f"cannot open {path}: {error.strerror}",
                    "Give a file in a folder that can be written",
                )
            ],
            source="command line",
        ) from error
