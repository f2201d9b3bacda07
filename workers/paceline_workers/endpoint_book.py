"""Where each endpoint of a destination is, as its registry in Redis says.

A message names its endpoint; its address is read as late as it can be, so a change holds for what
waits already, within ``FRESH_S``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from redis.exceptions import RedisError

from paceline.endpoint_registry import EndpointRegistry
from paceline.endpoints import lane_of
from paceline_workers.transports.connection import target_of

__all__ = ["Address", "EndpointBook"]

FRESH_S = 0.1
_MOST_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint: its name, its URL, and the path and query that are asked for there."""

    name: str
    url: str
    target: str


class EndpointBook:
    """Thread-safe. ``now_s``: monotonic seconds."""

    def __init__(self, registry: EndpointRegistry, now_s: Callable[[], float]) -> None:
        self._registry = registry
        self._now_s = now_s
        self._lock = Lock()
        self._known: OrderedDict[str, tuple[float, Address | None]] = OrderedDict()

    def find(self, tenant: str) -> Address | None:
        """Of what stands in the place of a message's tenant; None where it is not registered any
        more. Raises RedisError where it is not known, and Redis is away."""
        name, _ = lane_of(tenant)
        now = self._now_s()
        with self._lock:
            known = self._known.get(name)
        if known is not None and now - known[0] < FRESH_S:
            return known[1]
        try:
            found = self._registry.find(name)
        except RedisError:
            if known is None:
                raise
            # What it was a while ago: begin will ask Redis anyhow.
            return known[1]
        address = None if found is None else Address(name, found.url, target_of(found.url))
        with self._lock:
            self._known[name] = (now, address)
            self._known.move_to_end(name)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return address
