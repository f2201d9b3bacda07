"""The pooled transport without the rest of a worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from paceline_workers.outcome import Failure
from paceline_workers.transports.adapter import GatedAdapter, GatedRequest
from paceline_workers.transports.connection import Connector, TransportError
from paceline_workers.transports.pool import ConnectionPool, Retirement
from paceline_workers.transports.watchdog import Watchdog


class Rig:
    """Pool, watchdog, adapter and session as a worker has them; the gate lets everything pass."""

    def __init__(
        self,
        *urls: str,
        limit: int = 2,
        read_s: float = 2.0,
        total_s: float = 4.0,
        connect_s: float = 1.0,
        retirement: Retirement | None = None,
        clock: Callable[[], float] = time.monotonic,
        elapsed_s: Callable[[], float] = time.monotonic,
        connector: type[Connector] = Connector,
        **options: Any,
    ) -> None:
        self.url = urls[0]
        self.connectors = [
            connector(url, connect_timeout_s=connect_s, read_timeout_s=read_s, **options)
            for url in urls
        ]
        self.pool = ConnectionPool(
            self.connectors, retirement or Retirement(), clock=clock, rand=lambda: 1.0
        )
        self.pool.set_limit(limit)
        self.watchdog = Watchdog(time.monotonic)
        self.watchdog.start()
        self.adapter = GatedAdapter(
            self.pool,
            self.watchdog,
            total_timeout_s=total_s,
            monotonic_s=time.monotonic,
            elapsed_s=elapsed_s,
        )
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.mount("http://", self.adapter)
        self.session.mount("https://", self.adapter)
        self.gates = 0
        self.request: GatedRequest

    def gate(self) -> float:
        self.gates += 1
        return time.monotonic()

    def post(
        self, body: bytes = b"{}", gate: Callable[[], float] | None = None
    ) -> requests.Response:
        headers = {
            "User-Agent": "test",
            "Content-Type": "application/json",
            "Paceline-Message-Id": "m-1",
        }
        self.request = GatedRequest("POST", self.url, headers, body, gate or self.gate)
        return self.session.send(self.request, allow_redirects=False)

    def failure(self, body: bytes = b"{}") -> Failure:
        with pytest.raises(TransportError) as caught:
            self.post(body)
        assert self.pool.open_connections == 0, "a failed connection is still counted or kept"
        return caught.value.failure

    def close(self) -> None:
        self.pool.close()
        self.watchdog.stop()
