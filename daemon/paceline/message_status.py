"""What is known of a message, as apps and operators are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paceline.merged import MARK
from paceline.outbox import OutboxStore
from paceline.records import Ended, Live

__all__ = ["Status", "status_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is known of a message.

    ``state``     ready, scheduled, leased, begun, dead, parked, sent, cancelled, expired, dropped,
                  moved: final here, ``provider_id`` names the destination that has it now
    ``attempts``  requests begun; ``history`` the last ten with their outcomes (empty for a message
                  sent at the first attempt)
    ``paused``    it waits with its campaign, which is paused; ``due`` is None then
    ``request``   the merged request that it is in now, whose state is its own then; the requests
                  it was in are in ``history``
    ``tenant``    of a destination with many endpoints "acme", or "acme/key": where it goes, and
                  what it is in order with
    Times are unix seconds; ``due`` is when a scheduled one is next tried.
    """

    id: str
    destination: str
    state: str
    final: bool
    accepted_at: float | None = None
    ended_at: float | None = None
    due: float | None = None
    expires: float | None = None
    priority: str | None = None
    tenant: str | None = None
    campaign: str | None = None
    tries: int = 0
    attempts: int = 0
    payload_bytes: int = 0
    provider_id: str | None = None
    worker: str | None = None
    cancel_asked: bool = False
    request: str | None = None
    paused: bool = False
    history: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def status_of(store: OutboxStore, message_id: str, *, history: bool) -> Status | None:
    """None where it is unknown. Without ``history`` its attempts are not read. Redis errors pass
    through as redis-py raises them."""
    found = store.look([message_id])[0]
    if found is None:
        return None
    head, size, _, worker = found
    attempts = _history(store, message_id, head) if history else ()
    if isinstance(head, Ended):
        return Status(
            id=message_id,
            destination=store.destination,
            state=head.state,
            final=True,
            ended_at=head.at_us / 1e6,
            provider_id=head.provider_id or None,
            history=attempts,
        )
    paused = _is_paused(store, message_id, head)
    return _live_status(store.destination, message_id, head, size, worker, attempts, paused)


def _history(
    store: OutboxStore, message_id: str, head: Live | Ended
) -> Sequence[Mapping[str, Any]]:
    """Its own attempts, and those of the merged request that it is in, or was in when it ended."""
    own = store.attempts(message_id)
    if isinstance(head, Ended) or head.in_request:
        own = sorted(own + store.attempts(MARK + head.nonce), key=_when)
    return own


def _is_paused(store: OutboxStore, message_id: str, head: Live) -> bool:
    if head.state != "scheduled" or not head.campaign:
        return False
    return not head.in_request and store.is_held_back(message_id)


def _when(attempt: Mapping[str, Any]) -> int:
    return int(attempt.get("at_us") or 0)


def _live_status(
    destination: str,
    message_id: str,
    head: Live,
    size: int,
    worker: str,
    attempts: Sequence[Mapping[str, Any]],
    paused: bool,
) -> Status:
    return Status(
        id=message_id,
        destination=destination,
        state=head.state,
        final=False,
        accepted_at=head.at_us / 1e6,
        due=head.due_us / 1e6 if head.state == "scheduled" and not paused else None,
        expires=head.expires_us / 1e6 if head.expires_us else None,
        priority=head.priority,
        tenant=head.tenant or None,
        campaign=head.campaign or None,
        tries=head.tries,
        attempts=head.attempts,
        payload_bytes=size,
        worker=worker or None,
        cancel_asked=head.cancel_asked,
        request=head.nonce if head.in_request else None,
        paused=paused,
        history=attempts,
    )
