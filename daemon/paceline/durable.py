"""``durable``: who has a message when it is said to be accepted (docs/durability.md)."""

from __future__ import annotations

from typing import Literal

import redis

__all__ = ["Durable", "replica_timeout_of", "replicas_of"]

#: Of the socket's time-out, which must not run out first.
_REPLICA_SHARE = 0.4
_REPLICA_TIMEOUT_S = 2.0

#: "server": as durable as the server's own settings. "replica": one replica has it too; a number:
#: so many.
Durable = Literal["server", "replica"] | int


def replicas_of(durable: Durable) -> int:
    """How many replicas are to have it. Raises ValueError."""
    if durable == "server":
        return 0
    if durable == "replica":
        return 1
    if isinstance(durable, bool) or not isinstance(durable, int) or durable < 0:
        raise ValueError(f'durable is "server", "replica" or a number of replicas, not {durable!r}')
    return durable


def replica_timeout_of(client: redis.Redis, asked_s: float | None) -> float:
    """How long they are waited for, in seconds: what is asked, and never so long that the client's
    own time-out runs out first. Raises ValueError."""
    socket_s = client.connection_pool.connection_kwargs.get("socket_timeout")
    most_s = socket_s * _REPLICA_SHARE if socket_s else None
    if asked_s is None:
        return most_s or _REPLICA_TIMEOUT_S
    if asked_s <= 0:
        raise ValueError("replica_timeout_s must be above 0: WAIT 0 would wait for ever")
    return asked_s if most_s is None else min(asked_s, most_s)
