"""The exporter as a part of a process: pages, their sources, and an address that may be taken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from paceline.exporter.collector import Collector
from paceline.exporter.flight import Flight
from paceline.exporter.health import Health, Loops
from paceline.exporter.reading import read
from paceline.exporter.server import TEXT, AddressTaken, MetricsServer, Page
from paceline.listen import Listen

#: Longer than a scrape may wait for Redis: the client's own time-outs are shorter.
DEADLINE_S = 1.9
_AGAIN_S = 2.0

log = logging.getLogger("paceline.exporter")


class Exporter:
    """Serves the metrics of the Redis of ``client``, which is the exporter's own: with time-outs
    of a second, and never repeating a command.

    ``insist`` says what to do where the address is taken: True, ``start`` raises AddressTaken;
    False, it is told in the log and tried again until it is free, and whatever else the process
    does goes on meanwhile.
    """

    def __init__(self, client: redis.Redis, listen: Listen, *, insist: bool) -> None:
        self._client = client
        self._listen = listen
        self._insist = insist
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(Collector(Flight(lambda: read(client), DEADLINE_S).ask))
        self._ping: Flight[Any] = Flight(client.ping, DEADLINE_S)
        self._server: MetricsServer | None = None
        self._stopping = threading.Event()
        self._waiting: threading.Thread | None = None

    @property
    def address(self) -> Listen | None:
        """Where it listens; None while it does not."""
        return self._server.address if self._server else None

    def start(self, loops: Loops = tuple) -> None:
        """Begins to answer. Raises AddressTaken."""
        health = Health(loops, self._ping.ask, time.monotonic)
        self._pages: dict[str, Callable[[], Page]] = {
            "/metrics": self._metrics,
            "/healthz": lambda: _verdict(health.not_alive()),
            "/readyz": lambda: _verdict(health.not_ready()),
        }
        try:
            self._serve()
        except AddressTaken as error:
            if self._insist:
                raise
            log.warning("%s; until it is free nobody sees the metrics of this process", error)
            self._waiting = threading.Thread(target=self._wait, name="listen", daemon=True)
            self._waiting.start()

    def stop(self) -> None:
        """Answers no more."""
        self._stopping.set()
        if self._waiting is not None:
            self._waiting.join()
        if self._server is not None:
            self._server.stop()
        self._client.close()

    def _serve(self) -> None:
        self._server = MetricsServer(self._listen, self._pages)
        self._server.start()
        log.info("metrics on http://%s/metrics", self._server.address)
        if not self._server.address.is_loopback:
            log.info("other machines can read them: they hold no payloads and no secrets")

    def _wait(self) -> None:
        while not self._stopping.wait(_AGAIN_S):
            try:
                self._serve()
            except AddressTaken:
                log.debug("%s is still taken", self._listen)  # told aloud at the start
                continue
            return

    def _metrics(self) -> Page:
        # Not OpenMetrics, whatever the client accepts: there a counter's family is named without
        # "_total", and paceline_messages would be two families.
        return 200, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry)


def _verdict(reasons: list[str]) -> Page:
    if not reasons:
        return 200, TEXT, b"ok\n"
    return 503, TEXT, "".join(f"{reason}\n" for reason in reasons).encode()
