"""What a worker and the scripts say to each other about leased messages, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import msgspec

from paceline.answers import Leased, Permit, Settlement
from paceline.records import Live, decode

__all__ = ["is_held", "leased_of", "permit_of", "settle_arguments"]

Argument = str | bytes | int | float


def is_held(value: bytes | None, nonce: str) -> TypeGuard[bytes]:
    """Whether a message's string says that it is held under ``nonce``."""
    return value is not None and value[:2] in (b"PL", b"PB") and value[6:22] == nonce.encode()


def leased_of(message_id: str, nonce: str, value: bytes | None) -> Leased | None:
    """What was fetched as the message it is; None where it is not held under ``nonce`` (any more),
    as far as its string tells: one that was taken unread says ready still, and ``begin`` knows."""
    try:
        head = decode(value or b"")
    except ValueError:
        # Gone since it was taken, or overwritten by another program: `audit --deep` tells.
        return None
    if not isinstance(head, Live) or head.in_request or value is None:
        return None
    if head.nonce != nonce and head.state != "ready":
        return None
    return Leased(message_id, nonce, head, value[head.body_from :])


def permit_of(reply: Sequence[Any]) -> Permit:
    """Decodes the reply of ``begin.lua`` to one ask."""
    verdict = _text(reply[0])
    if verdict == "go":
        return Permit("go", int(reply[1]) / 1e6, begun_us=int(reply[2]), attempt=int(reply[3]))
    if verdict == "wait":
        return Permit("wait", int(reply[1]) / 1e6)
    if verdict == "closed":
        left = int(reply[2])
        return Permit(
            "closed",
            None if left < 0 else left / 1e6,
            what=_text(reply[1]),
            why=_text(reply[3]),
        )
    return Permit("gone", what=_text(reply[1]))


def settle_arguments(settlements: Sequence[Settlement]) -> list[Argument]:
    """The arguments of ``settle.lua``, after the time."""
    arguments: list[Argument] = []
    for s in settlements:
        arguments += (
            s.id, s.nonce, s.action, 1 if s.charge else 0, _us(s.delay_s), s.why,
            b"" if s.record is None else msgspec.json.encode(s.record), s.provider_id, s.sha1,
            "" if s.latency_s is None else _us(s.latency_s), s.label, s.begun_us or "", s.health,
            "" if s.advised_s is None else _us(s.advised_s),
        )  # fmt: skip
    return arguments


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
