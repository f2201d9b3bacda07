"""What watches whose requests hang, as the sender's queue asks it: tenancy.py where tenants share a
provider, crowd.py where each message goes to an endpoint of its own. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class News(NamedTuple):
    """A line for the log: ``bad`` is a warning, else good news. ``event`` and ``cause`` go with it
    as fields."""

    event: str
    cause: str
    text: str
    bad: bool


class Watch(Protocol):
    """Whose messages may go. Not thread-safe: the queue asks it under its lock.

    ``tenant`` is as messages name it; ``key`` tells the requests that are out from each other.
    """

    shared: bool

    def seen(self, tenant: str, /) -> None:
        """A message of it came."""

    def may(self, tenant: str, /) -> bool:
        """Whether it may have one more out."""

    def changes(self) -> int:
        """A number that stays while nobody that might not go may go now: what was set aside is not
        looked through again meanwhile."""

    def is_late(self, tenant: str, /) -> bool:
        """Whether what it has waiting may go back to the outbox, where it stands in others' way."""

    def facts(self) -> dict[str, Any]:
        """What status shows of those that hang; {} where none does."""

    def news(self) -> list[News]:
        """What has changed since the last call, for the log."""

    # -- the way of a request: took, (connects, connected), began, done -------------------------

    def took(self, tenant: str, /) -> None:
        """One of its messages is out of the queue, on its way to a connection."""

    def connects(self, tenant: str, key: int, /) -> None:
        """A connection is opened for it now."""

    def connected(self, tenant: str, key: int, /) -> None:
        """It is open; the request waits for a permit."""

    def began(self, tenant: str, key: int, /) -> None:
        """Its request is written now."""

    def done(self, tenant: str, key: int, /) -> None:
        """It is off its connection: answered, failed, or never begun."""
