"""What the logs tell of outcomes: those that somebody may want to act on, or ask about.

A message's outcome is on record in Redis in full (``paceline show``). A log line carries ids and
the class of what happened, never the provider's words: they may quote the message.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from paceline.answers import Settlement

log = logging.getLogger("paceline.outcome")

#: Action of a settlement -> (event, level, what it says).
_TOLD: Mapping[str, tuple[str, int, str]] = {
    "dead": ("dead_letter", logging.WARNING, "message %s is a dead letter: %s"),
    "parked": ("parked", logging.WARNING, "message %s is parked, its fate unknown: %s"),
    "retry": ("retry", logging.INFO, "message %s is tried again in %.3g s: %s"),
    "unavailable": ("retry", logging.INFO, "message %s is tried again in %.3g s: %s"),
    "throttled": ("closed", logging.WARNING, "the provider refuses the rate (message %s): %s"),
    "quota": ("closed", logging.WARNING, "a quota of the provider is used up (message %s): %s"),
    "held": ("closed", logging.ERROR, "the destination is held (message %s): %s"),
}
_TIMED = ("retry", "unavailable")


def tell(destination: str, settlement: Settlement) -> None:
    """Logs an outcome that Redis has accepted; of ``sent`` and ``back`` nothing."""
    told = _TOLD.get(settlement.action)
    if told is None:
        return
    event, level, text = told
    record = settlement.record or {}
    kind, _, cause = settlement.label.partition(":")
    ambiguous = record.get("outcome") == "ambiguous"
    if ambiguous and event == "retry":
        event, level, text = (
            "ambiguous", logging.WARNING, "message %s may have been sent; again in %.3g s: %s",
        )  # fmt: skip
    why = _why(kind, cause, record)
    if _is_certificate(cause, record):
        event, level = "certificate", logging.ERROR
        why = f"the provider's certificate is not accepted; paceline doctor {destination} says why"
    arguments: tuple[Any, ...] = (settlement.id, why)
    if settlement.action in _TIMED:
        arguments = (settlement.id, settlement.delay_s, why)
    log.log(
        level,
        text,
        *arguments,
        extra={
            "event": event,
            "destination": destination,
            "worker": record.get("worker"),
            "message_id": settlement.id,
            "attempt": record.get("attempt"),
            "cause": cause or kind or settlement.action,
            "status": record.get("status"),
        },
    )


def _why(kind: str, cause: str, record: Mapping[str, Any]) -> str:
    """In words of ours alone: with a status, ``reason`` may hold what the provider answered."""
    if record.get("status") is not None:
        return f"{kind}, HTTP {record['status']}"
    return f"{kind}, {cause}" if cause else kind


def _is_certificate(cause: str, record: Mapping[str, Any]) -> bool:
    # A failed handshake has no reply, so the reason is the TLS library's.
    return cause == "tls" and "certificate" in str(record.get("reason", "")).lower()
