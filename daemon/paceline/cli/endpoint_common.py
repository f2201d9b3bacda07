"""What the commands of endpoints have in common: the destination, its registry, and their words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis

from paceline.cli.common import Setup, open_client, pick_stores, redis_errors
from paceline.endpoint_registry import EndpointRegistry
from paceline.errors import ConfigError, ConfigProblem, PacelineError
from paceline.settings import Destination

#: Words of ``endpoint.lua``, for people.
WORDS: Final = {
    "new": "new",
    "changed": "changed",
    "same": "as it was",
    "removed": "removed",
    "waits": "not removed, for messages of it wait: with --force it is, and they wait until they "
    "are too old or it is added again",
    "enabled": "enabled: what waits is sent",
    "well": "was in no trouble",
    "disabled": "disabled: nothing is sent to it, and nothing accepted for it",
    "already": "was disabled already",
    "unknown": "unknown",
}
FAILED: Final = frozenset({"waits", "unknown"})


def registry_of(client: redis.Redis, destination: str) -> EndpointRegistry:
    """Raises UnknownDestination, and PacelineError where it has no endpoints."""
    registry = EndpointRegistry(pick_stores(client, (destination,))[0])
    if not registry.exists():
        raise PacelineError(
            f"destination {destination!r} has no endpoints",
            f"Configure [destinations.{destination}.endpoints], and start or reload the daemon",
        )
    return registry


@contextmanager
def configured(setup: Setup, destination: str) -> Iterator[tuple[Destination, EndpointRegistry]]:
    """The destination as the configuration file has it, which decides what URLs may be and holds
    the keys; and its registry. Raises ConfigError, UnknownDestination, RedisUnavailable."""
    if setup.source is None:
        raise ConfigError(
            [ConfigProblem("", "it says which URLs may be, and has the keys", "Name it: --config")],
            source="no configuration file",
        )
    its = setup.destination(destination)
    if its.endpoints is None:
        at = f"destinations.{destination}.endpoints"
        problem = ConfigProblem(at, "missing: it has no endpoints", f"Add the table [{at}]")
        raise ConfigError([problem], source=str(setup.source))
    client = open_client(setup)
    try:
        with redis_errors():
            yield its, registry_of(client, destination)
    finally:
        client.close()
