"""Durable, paced sending: apps push messages into Redis, Paceline delivers them.

``from paceline import Outbox`` is what apps need; it pulls in redis and the codec, nothing else.
"""

from typing import TYPE_CHECKING

from paceline.version import __version__

if TYPE_CHECKING:
    from paceline.client import Campaign, Event, Outbox, Receipt, Status
    from paceline.errors import PacelineError

__all__ = ["Campaign", "Event", "Outbox", "PacelineError", "Receipt", "Status", "__version__"]


def __getattr__(name: str) -> object:
    # Late, so that importing a pure module of the package does not import redis.
    if name in ("Campaign", "Event", "Outbox", "Receipt", "Status"):
        from paceline import client

        return getattr(client, name)
    if name == "PacelineError":
        from paceline.errors import PacelineError

        return PacelineError
    raise AttributeError(f"module 'paceline' has no attribute {name!r}")
