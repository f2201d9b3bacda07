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
from paceline.endpoints import decode_endpoint, lane_of
from paceline.errors import PayloadError
from paceline.url_rules import url_problem
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
        more. Raises RedisError where it is not known, and Redis is away; PayloadError where what is
        registered is no endpoint."""
        name, _ = lane_of(tenant)
        now = self._now_s()
        with self._lock:
            known = self._known.get(name)
        if known is not None and now - known[0] < FRESH_S:
            return known[1]
        try:
            record = self._registry.record(name)
        except RedisError:
            if known is None:
                raise
            # What it was a while ago: begin will ask Redis anyhow.
            return known[1]
        address = None if record is None else _address(name, record)
        with self._lock:
            self._known[name] = (now, address)
            self._known.move_to_end(name)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return address


def _address(name: str, record: bytes) -> Address:
    """Raises PayloadError: whoever wrote there by hand, no operator's command."""
    found = decode_endpoint(record)
    if found is None:
        problem = "cannot be read"
    elif wrong := url_problem(found.url, allow_plain_http=True):
        problem = f"has a URL that {wrong[0]}"
    else:
        return Address(name, found.url, target_of(found.url))
    raise PayloadError(
        "endpoint",
        f"what is registered of {name} {problem}",
        "Register it again (paceline endpoints add), and replay this message",
    )
