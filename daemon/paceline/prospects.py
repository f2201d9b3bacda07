"""What a census says of how fast a destination sends: what closes it, who works, what the
connections carry. Pure."""

from __future__ import annotations

from paceline.census import Census
from paceline.rates import observations


def live_workers(census: Census) -> int:
    """Workers whose lease holds."""
    return sum(1 for worker in census.workers if worker.live)


def connections(census: Census) -> int:
    """Connections leased to live workers."""
    return sum(worker.slots for worker in census.workers if worker.live)


def capacity(census: Census) -> float | None:
    """Requests a second that the open connections can carry at the mean latency; None where
    nothing is known yet."""
    count = observations(census.histogram, "api")
    total_us = census.histogram.get("api:sum", 0.0)
    slots = connections(census)
    return slots * count / (total_us / 1e6) if count and total_us > 0 and slots else None


def opens_in_s(census: Census) -> float | None:
    """Seconds until no pause, hold or breaker closes it; None where an operator must resume it."""
    left_s = 0.0
    for name in ("pause", "hold"):
        until = float(census.gate.get(f"{name}_until", "0"))
        if until == -1:
            return None
        left_s = max(left_s, (until - census.now_us) / 1e6)
    return left_s


def messages_per_s(census: Census) -> float | None:
    """Messages a second that go out while it is open, at the rate in force or what the connections
    carry; None where something must be done first: no rate is known, no daemon or no worker
    runs."""
    per_s = min(census.rate, capacity(census) or census.rate)
    if not per_s or not census.daemons or not live_workers(census):
        return None
    return per_s * census.fill
