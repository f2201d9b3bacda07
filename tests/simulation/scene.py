"""What is simulated: so many hosts, destinations, workers; rates, latencies; from when to when."""

from __future__ import annotations

from dataclasses import dataclass

from paceline.settings import Destination
from support.published import destination

WARM_S = 6.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """``workers`` of each destination, dealt to the hosts in turn; None: one on every host.

    rate, burst, connections   of each destination
    latency_ms                 least and most of the provider's, evenly spread
    round_trip_ms              between hosts and Redis
    load                       "backlog": always enough waits; "idle": nothing more comes
    queued                     messages that wait from the beginning
    quiet_s                    after the warm-up, nothing is sent for so long: the buckets fill
    freezes                    how many times some host freezes for five seconds, at the worst
                               moment: a thread has looked at its permit and is about to write
    daemons                    each with all destinations; exporters: read all every 15 s
    """

    hosts: int = 10
    destinations: int = 3
    workers: int | None = None
    seconds: float = 20.0
    seed: int = 1
    rate: float = 90.0
    burst: int = 150
    connections: int = 10
    latency_ms: tuple[float, float] = (20.0, 60.0)
    round_trip_ms: float = 0.5
    payload_bytes: int = 1000
    load: str = "backlog"
    queued: int = 0
    quiet_s: float = 0.0
    freezes: int = 0
    daemons: int = 1
    exporters: int = 1

    @property
    def warm_s(self) -> float:
        """Until all have registered, connections are shared out, buckets are as they shall be."""
        return WARM_S + self.quiet_s

    @property
    def workers_each(self) -> int:
        """Workers of one destination."""
        return self.hosts if self.workers is None else self.workers

    def destination(self, number: int) -> Destination:
        """The configuration of one of them."""
        more = f"rate = {self.rate}\nburst = {self.burst}\nconnections = {self.connections}"
        return destination(f"d{number}", more=more)
