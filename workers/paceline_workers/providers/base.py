"""What a provider profile is: how a message becomes a request, how the reply is judged.

A profile is built once per worker process, from the destination's configuration with its secrets
revealed, and shared by all sender threads: it holds nothing that changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, cast

from paceline.backoff import RetryPolicy
from paceline_workers.outcome import Outcome, Reply

__all__ = [
    "Addressing",
    "Merging",
    "Polling",
    "Portion",
    "Profile",
    "RenderedRequest",
    "as_addressing",
    "as_merging",
    "as_polling",
]


@dataclass(frozen=True, slots=True)
class RenderedRequest:
    """One HTTP request, ready for the wire but for its URL.

    Headers and body may hold credentials, so `repr` shows neither: they must not reach a log.
    `suffix` is put behind the path of the destination's URL, before any query: "" but where a
    provider has a second endpoint below the first (Mailgun's `/messages.mime`); `sibling` takes the
    place of its last segment, for one beside the first (MaxMD's `GetMessageStatus`).
    """

    method: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    suffix: str = ""
    sibling: str = ""


class Portion(NamedTuple):
    """What one message gives to a merged request. Messages of equal `shared` may share one.

    shared  everything but the recipient, hashable: raw JSON of content, options, …
    part    ready bytes of its own element: joined, never parsed again
    apart   b"", or a key: two messages of one key must not be in one request (Mailgun knows the
            members of a request by their addresses)
    """

    shared: tuple[bytes, ...]
    part: bytes
    apart: bytes = b""


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
        """The request for one message; the same bytes every time for the same message (of a
        webhook, the body's: its signature is of the attempt).

        Raises PayloadError where the payload does not fit (messages that came by the enqueue
        function alone were never checked); the message is then a dead letter.
        """
        ...

    def judge(self, reply: Reply, now: float) -> Outcome:
        """What the reply means. `now`: unix seconds, to read dates in Retry-After. Never raises."""
        ...


class Merging(Protocol):
    """What a profile has beside Profile where many messages can go in one request.

    How many at most, and how many bytes, is the destination's `merge`. A message that goes alone
    is rendered by `render`, with its own id as the idempotency key.
    """

    def portion(self, payload: bytes) -> Portion | None:
        """What the message gives to a merged request; None where it must go alone.

        Called for each of millions of messages. Raises PayloadError.
        """
        ...

    def join(self, shared: tuple[bytes, ...], parts: Sequence[bytes]) -> bytes:
        """The frozen body of one request for all of them, in their order; no credentials in it."""
        ...

    def render_merged(self, request_id: str, body: bytes) -> RenderedRequest:
        """The request from its frozen body: the same bytes every time. `request_id` is its
        idempotency key, where the provider's API has one."""
        ...

    def judge_merged(self, reply: Reply, now: float, count: int) -> Outcome:
        """As `judge`, for a request of `count` members. Never raises.

        REJECTED without `parts` is of the request as a whole: one member may be to blame, and in
        smaller requests the others may be taken. With `parts` each member's fate is known.
        """
        ...


def as_merging(profile: Profile) -> Merging | None:
    """The same profile as one that can put many messages in one request; None where it cannot."""
    return cast(Merging, profile) if hasattr(profile, "render_merged") else None


class Polling(Protocol):
    """What a profile has beside Profile where the provider can be asked what became of a message
    that it took."""

    def render_status(self, provider_id: str) -> RenderedRequest:
        """The question. No secret is in it but in the headers."""
        ...

    def read_status(self, reply: Reply) -> str | None:
        """What the answer to it says, in one line of at most 300 characters; None where it says
        nothing that can be read. Never raises."""
        ...


def as_polling(profile: Profile) -> Polling | None:
    """The same profile as one whose provider can be asked; None where it cannot."""
    return cast(Polling, profile) if hasattr(profile, "render_status") else None


class Addressing(Protocol):
    """What a profile has beside Profile where messages go to many endpoints."""

    def render_to(self, endpoint: str, message_id: str, payload: bytes) -> RenderedRequest:
        """As `render`, for the endpoint of this name. Raises PayloadError."""
        ...


def as_addressing(profile: Profile) -> Addressing | None:
    """The same profile as one whose messages go to many endpoints; None where they do not."""
    return cast(Addressing, profile) if hasattr(profile, "render_to") else None
