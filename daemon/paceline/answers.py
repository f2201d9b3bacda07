"""What the transitions of the outbox take and answer, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from paceline.merged import MARK, is_request
from paceline.names import Health, Lane
from paceline.records import Live

Action = Literal[
    "sent", "retry", "unavailable", "dead", "parked", "back", "throttled", "quota", "held", "split",
    "opened",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Released:
    """``count`` messages invited, or 0 and ``why``; ``retry_s`` hints when to ask again."""

    count: int
    why: str
    retry_s: float


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation that stands unanswered: to take up to ``count`` messages of ``lane``."""

    id: str
    lane: Lane
    count: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What ``take`` answered: ``status`` is batch, stale, not-live or the name of what closes the
    destination; ``sizes`` maps each id, in order of sending, to its bytes in Redis."""

    status: str
    nonce: str
    sizes: Mapping[str, int]


class Leased(msgspec.Struct, frozen=True):
    """One taken message with its payload, as the worker holds it; or a merged request (``+<id>``)
    with its frozen body."""

    id: str
    nonce: str
    head: Live
    payload: bytes

    @property
    def request_id(self) -> str | None:
        """The id of a merged request, None of a message."""
        return self.id[1:] if is_request(self.id) else None

    @property
    def count(self) -> int:
        """How many messages it stands for."""
        # A merged request has no campaign: its number of members stands there.
        return int(self.head.campaign) if is_request(self.id) else 1


def frozen(
    request_id: str, body: bytes, *, priority: str, tenant: str, count: int, tries: int = 0
) -> Leased:
    """A merged request that has just been frozen, held under its own id."""
    head = Live(
        state="leased", attempts=0, tries=tries, nonce=request_id, priority=priority,
        cancel_asked=False, seq=0, at_us=0, expires_us=0, due_us=0, tenant=tenant,
        campaign=str(count), body_from=0,
    )  # fmt: skip
    return Leased(MARK + request_id, request_id, head, body)


class Permit(msgspec.Struct, frozen=True):
    """What ``begin`` answered.

    verdict   go (write after ``wait_s``), wait (ask again after ``wait_s``), closed (``what`` for
              ``wait_s``, or None: for ever), gone (``what``: fenced, cancelled, expired)
    """

    verdict: Literal["go", "wait", "closed", "gone"]
    wait_s: float | None = 0.0
    what: str = ""
    why: str = ""
    begun_us: int = 0
    attempt: int = 0


#: ``why`` of an outcome that Redis has accepted once, and may have lost since.
TOLD_AGAIN: Final = "redis-loss"


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """One message's outcome, as ``settle`` takes it. ``record`` is the attempt as it is shown to
    people (JSON-able, no secrets); ``sha1`` the raw digest of the payload, for the record;
    ``advised_s`` how long, by a RateLimit header, nothing is left."""

    id: str
    nonce: str
    action: Action
    charge: bool = False
    delay_s: float = 0.0
    why: str = ""
    record: Mapping[str, Any] | None = None
    provider_id: str = ""
    sha1: bytes = b""
    latency_s: float | None = None
    label: str = ""
    begun_us: int = 0
    health: Health = ""
    advised_s: float | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A worker's share of the account's connections, as of this heartbeat; ``rate`` is the whole
    destination's, requests/s."""

    allowance: int
    live_workers: int
    bucket: int
    rate: float


@dataclass(frozen=True, slots=True)
class RateInForce:
    """Requests/s: as configured, as it is now, and what the provider's answers allow of it (None:
    all)."""

    configured: float
    ceiling: float
    pace: float | None
