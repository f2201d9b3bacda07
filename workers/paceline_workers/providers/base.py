"""What a provider profile is: how a message becomes a request, how the reply is judged.

A profile is built once per worker process, from the destination's configuration with its secrets
revealed, and shared by all sender threads: it holds nothing that changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from paceline.backoff import RetryPolicy
from paceline_workers.outcome import Outcome, Reply

__all__ = ["Profile", "RenderedRequest"]


@dataclass(frozen=True, slots=True)
class RenderedRequest:
    """One HTTP request, ready for the wire but for its URL.

    Headers and body may hold credentials, so `repr` shows neither: they must not reach a log.
    """

    method: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Profile(Protocol):
    """One provider, configured. Safe to use from many threads."""

    @property
    def name(self) -> str:
        """The `provider` of the configuration: "maxmd", "http", …"""
        ...

    @property
    def policy(self) -> RetryPolicy:
        """The destination's retry policy: the provider's own, as the configuration changed it."""
        ...

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:
        """The request for one message; the same bytes every time for the same message.

        Raises PayloadError where the payload does not fit (messages that came by the enqueue
        function alone were never checked); the message is then a dead letter.
        """
        ...

    def judge(self, reply: Reply, now: float) -> Outcome:
        """What the reply means. `now`: unix seconds, to read dates in Retry-After. Never raises."""
        ...
