"""What sends in a worker process: profile, pool, adapter, sender threads, and what takes for it.

All of it is made from one version of the destination's configuration. Redis, RQ and the heartbeat
are the runtime's, and outlive it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from ssl import SSLContext
from typing import Any

from paceline.answers import Settlement
from paceline.clock import Clock
from paceline.endpoint_registry import EndpointRegistry
from paceline.errands import Errands
from paceline.errors import ConfigError, ConfigProblem
from paceline.guard import guard_of
from paceline.names import Lane
from paceline.outbox import OutboxStore
from paceline.proxy import proxy_of
from paceline.scripts import Pinned
from paceline.settings import Destination
from paceline_workers.covering import Covering
from paceline_workers.crowd import Crowd
from paceline_workers.delivery import Delivery, Route
from paceline_workers.endpoint_book import EndpointBook
from paceline_workers.exchange import Exchange
from paceline_workers.gate import WireGate
from paceline_workers.live_profile import LiveProfile
from paceline_workers.merger import Merger
from paceline_workers.pending import PendingQueue
from paceline_workers.providers.base import Profile, as_merging, as_polling
from paceline_workers.providers.registry import build
from paceline_workers.recall import Recall
from paceline_workers.recipe import recipe_of
from paceline_workers.sender import QUEUE_S, Sender
from paceline_workers.settler import Settler
from paceline_workers.status_poll import DEADLINE_S, StatusPoll
from paceline_workers.taker import BatchTaker
from paceline_workers.tenancy import Tenancy
from paceline_workers.trace import WireTrace
from paceline_workers.transports.adapter import GatedAdapter
from paceline_workers.transports.connection import Connector, tls_context
from paceline_workers.transports.endpoint_pool import EndpointPool
from paceline_workers.transports.network import Network, WatchedConnector
from paceline_workers.transports.pool import ConnectionPool, Retirement
from paceline_workers.transports.watchdog import Watchdog

_LOOK_S = 0.02

log = logging.getLogger("paceline.worker")


class Engine:
    """Sends the messages of one destination until it is stopped.

    ``environ`` is where secrets named by the configuration are found; ``worker`` the name under
    which messages are taken; ``recall`` what this process has told Redis, which outlives it.
    ``stopping`` ends it: set it, then call ``stop``. Raises ConfigError (a secret is missing, or
    ca_file cannot be used) when built. Threads are started by ``start``.
    """

    def __init__(
        self,
        destination: Destination,
        environ: Mapping[str, str],
        store: OutboxStore,
        *,
        worker: str,
        clock: Clock,
        recall: Recall,
        trace: WireTrace | None = None,
    ) -> None:
        self.destination = destination
        self.stopping = threading.Event()
        self._store = store
        self._worker = worker
        self._clock = clock
        self._trace = trace
        self.profile = LiveProfile(build(destination, environ, clock.wall_s))
        self._environ = environ
        self._covering = Covering(destination, environ)
        self._proxy = proxy_of(destination, environ)
        self.recipe = recipe_of(destination, environ)
        self._watchdog = Watchdog(clock.monotonic_s)
        #: Where each message goes, where the destination has many endpoints.
        self._book: EndpointBook | None = None
        if destination.endpoints is not None:
            self._book = EndpointBook(EndpointRegistry(store), clock.monotonic_s)
        self._network = Network(certificates=self._book is None)
        # Without the values in their queries: keys are sometimes sent there.
        self._shown_urls: list[str] = destination.public()["urls"]
        self.recall = recall
        self.pool = self._make_pool()
        self.sender = self._make_sender()
        self._taker = BatchTaker(store, worker, self.sender, clock=clock, stopping=self.stopping)

    @property
    def grace_s(self) -> float:
        """How long a stop may take: a request just begun runs to its total deadline."""
        return self.destination.connect_timeout_s + self.destination.total_timeout_s + 5.0

    def start(self) -> None:
        """Starts the threads. Nothing is sent before the pool has a limit."""
        self._watchdog.start()
        self.sender.start()

    def replace_profile(self, destination: Destination, profile: Profile) -> None:
        """From the next request on; ``destination`` differs in nothing that the rest is made of."""
        self.destination = destination
        self._covering.add(destination, self._environ)
        self.profile.replace(profile)

    def await_quiet(self, giving_up: threading.Event) -> None:
        """Once ``stopping`` is set: returns when nothing is on the wire and Redis knows all that
        became of it, however long Redis is away; or when ``giving_up`` is set."""
        while not giving_up.is_set():
            counts = self.sender.counts()
            if not counts["in_flight"] and not counts["unsettled"]:
                return
            giving_up.wait(_LOOK_S)

    def stop(self) -> int:
        """Finishes what is on the wire, gives the rest back, settles all of it.

        Call it once ``stopping`` is set and nobody takes any more; ``close`` follows. Returns how
        many outcomes could not be settled.
        """
        return self.sender.stop(self.grace_s)

    def close(self) -> None:
        """Ends what guards the requests; the last step."""
        self._watchdog.stop()

    def take_batch(self, count: int, lane: Lane, invitation: str) -> int:
        """Carries an invitation out, see BatchTaker."""
        return self._taker.take_batch(count, lane, invitation)

    def take_unanswered(self) -> bool:
        """Answers an invitation that no job brought, see BatchTaker."""
        return self._taker.take_unanswered()

    # -- what the heartbeat asks ------------------------------------------------------------

    def facts(self) -> Mapping[str, Any]:
        """What status shows of it."""
        return {
            "connections": self.pool.open_connections,
            **self._network.facts(),
            **self.sender.counts(),
            **self._route_facts(),
        }

    def _route_facts(self) -> Mapping[str, Any]:
        """``routes``: each URL as this process finds it; nothing where there is only one."""
        found = self.pool.route_facts()
        if not found:
            return {}
        shown = zip(self._shown_urls, found, strict=True)
        return {"routes": [{"url": url, **facts} for url, facts in shown]}

    def totals(self) -> Mapping[str, int]:
        """Its running totals, by name."""
        self._network.look()
        return {**self.pool.counts, "retransmits": self._network.retransmits}

    # -- wiring -----------------------------------------------------------------------------

    def _make_pool(self) -> ConnectionPool | EndpointPool:
        d = self.destination
        retirement = Retirement(
            d.connection_max_age_s, d.connection_max_requests, d.connection_idle_s
        )
        try:
            connector_of = self._connectors(tls_context(d.ca_file))
        except OSError as error:  # SSLError is one: a file without a certificate
            key = f"destinations.{d.name}.ca_file"
            why = f"{d.ca_file} cannot be used: {error.strerror or error}"
            raise ConfigError(
                [ConfigProblem(key, why, "Name a readable PEM file")],
                source=f"destination {d.name}",
            ) from error
        if self._book is not None:
            return EndpointPool(
                connector_of, retirement, clock=self._clock.monotonic_s, rand=random.random
            )
        return ConnectionPool(
            [connector_of(url) for url in d.urls],
            retirement,
            clock=self._clock.monotonic_s,
            rand=random.random,
            on_health=self._tell_health,
        )

    def _connectors(self, context: SSLContext) -> Callable[[str], Connector]:
        d, guard = self.destination, guard_of(self.destination)
        return lambda url: WatchedConnector(
            self._network,
            url,
            connect_timeout_s=d.connect_timeout_s,
            read_timeout_s=d.read_timeout_s,
            context=context,
            proxy=self._proxy,
            guard=guard,
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

    def _make_adapter(self, total_timeout_s: float) -> GatedAdapter:
        return GatedAdapter(
            self.pool,
            self._watchdog,
            total_timeout_s=total_timeout_s,
            monotonic_s=self._clock.monotonic_s,
            elapsed_s=self._clock.elapsed_s,
            trace=self._trace,
        )

    def _make_sender(self) -> Sender:
        d = self.destination
        adapter = self._make_adapter(d.total_timeout_s)
        exchange = Exchange(
            self._store, Pinned(self._store.client), self._clock.elapsed_s, self.recall
        )

        def make_delivery(settler: Settler) -> Delivery:
            return Delivery(
                self.profile,
                Route(d.urls[0] if d.urls else "", d.id_header, d.gzip_from_bytes),
                adapter,
                WireGate(exchange, settler, self._clock, self.stopping),
                worker=self._worker,
                clock=self._clock,
                rand=random.random,
                on_ambiguous=d.merge.on_ambiguous,
                book=self._book,
                cover=self._covering,
            )

        def settler_of(settled: Callable[[Sequence[Settlement]], None]) -> Settler:
            return Settler(self._store, settled, self.recall)

        return Sender(
            d.effective_connections,
            PendingQueue(max(1, ceil(d.rate * QUEUE_S))),
            self.pool,
            make_delivery,
            settler_of,
            clock=self._clock,
            total_timeout_s=d.total_timeout_s,
            stopping=self.stopping,
            merger_of=self._merger_of(),
            members=self._store.members,
            errand=self._make_poll(),
            watch_of=Tenancy if self._book is None else Crowd,
            apart=self._book is not None,
        )

    def _make_poll(self) -> StatusPoll | None:
        """What asks the provider about messages that were sent; None where it is not wanted."""
        d, profile = self.destination, as_polling(self.profile)
        if d.poll_status_after_s <= 0 or profile is None:
            return None
        return StatusPoll(
            profile,
            self._shown_urls[0],
            self._make_adapter(min(d.total_timeout_s, DEADLINE_S)),
            Errands(self._store, Pinned(self._store.client)),
            clock=self._clock,
            stopping=self.stopping,
        )

    def _merger_of(self) -> Callable[[Sender], Merger] | None:
        """How to make what puts many messages in one request; None where each goes alone."""
        profile, merge = as_merging(self.profile), self.destination.merge
        if merge.most < 2 or profile is None:
            return None
        return lambda sender: Merger(
            profile,
            merge,
            self._store,
            sender,
            worker=self._worker,
            clock=self._clock,
            stopping=self.stopping,
        )
