"""What a message's key in Redis holds, decoded: the live string, or the record after the end.

The layouts are those of ``lua/lib.lua``. Times are unix microseconds. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import msgspec

State = Literal[
    "ready", "scheduled", "leased", "begun", "dead", "parked", "merged", "sent", "cancelled",
    "expired", "dropped", "moved", "split",
]  # fmt: skip

STATES: dict[bytes, State] = {
    b"R": "ready", b"W": "scheduled", b"L": "leased", b"B": "begun", b"D": "dead", b"K": "parked",
}  # fmt: skip
ENDS: dict[bytes, State] = {
    b"S": "sent", b"C": "cancelled", b"X": "expired", b"T": "dropped", b"M": "moved", b"Z": "split",
}  # fmt: skip
#: Of one in a merged request ``inspect`` tells the request's state, in small letters.
_IN_REQUEST: dict[bytes, State] = {
    b"r": "ready", b"w": "scheduled", b"l": "leased", b"b": "begun", b"Q": "merged",
}  # fmt: skip
PRIORITIES = {b"0": "high", b"1": "normal", b"2": "bulk"}

_HEADER = struct.Struct(">ccHH16sccddddBBH")
_RECORD = struct.Struct(">cc16sd20s")
# No header of ours has such a place or moment, and what is not finite is no number for anybody.
_NEVER_US = 1e17


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """A message that has not ended. ``seq`` is its place; ``due_us`` and ``expires_us`` are 0 where
    there is none; ``attempts`` counts requests begun, ``tries`` those charged.

    ``in_request``: it is one of a merged request, whose id is ``nonce``, and ``state`` is that
    request's ("merged" where only the message itself was read)."""

    state: State
    attempts: int
    tries: int
    nonce: str
    priority: str
    cancel_asked: bool
    seq: int
    at_us: int
    expires_us: int
    due_us: int
    tenant: str
    campaign: str
    body_from: int
    in_request: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The record of a message that has ended here: how, when, and the provider's id if it was sent;
    of one that was moved, the destination that has it now."""

    state: State
    nonce: str
    at_us: int
    payload_sha1: str
    provider_id: str


def decode(value: bytes) -> Live | Ended:
    """Decodes a message's string or its record. Raises ValueError when it is neither."""
    try:
        return _decode(value)
    except OverflowError as error:
        # An infinity where a time or a place is due: no script has written that.
        raise ValueError("neither a message nor a record") from error


def _decode(value: bytes) -> Live | Ended:
    if value[:1] == b"p" and len(value) >= _RECORD.size and value[1:2] in ENDS:
        _, state, nonce, at, sha = _RECORD.unpack_from(value)
        if not 0 <= at < _NEVER_US:
            raise ValueError("a record of no time")
        return Ended(
            state=ENDS[state],
            nonce=nonce.decode("latin-1"),
            at_us=int(at),
            payload_sha1=sha.hex(),
            provider_id=value[_RECORD.size :].decode("utf-8", "replace"),
        )
    merged = value[1:2] in _IN_REQUEST
    if value[:1] != b"P" or len(value) < _HEADER.size or not (merged or value[1:2] in STATES):
        raise ValueError("neither a message nor a record")
    (_, state, attempts, tries, nonce, priority, flag, seq, at, expires, due, tenant_len,
     campaign_len, other_len) = _HEADER.unpack_from(value)  # fmt: skip
    if not all(0 <= number < _NEVER_US for number in (seq, at, expires, due)):
        raise ValueError("a message of no place or time")
    tenant_end = _HEADER.size + tenant_len
    campaign_end = tenant_end + campaign_len
    return Live(
        state=_IN_REQUEST[state] if merged else STATES[state],
        attempts=attempts,
        tries=tries,
        nonce=nonce.decode("latin-1"),
        priority=PRIORITIES.get(priority, "normal"),
        cancel_asked=flag == b"c",
        seq=int(seq),
        at_us=int(at),
        expires_us=int(expires),
        due_us=int(due),
        tenant=value[_HEADER.size : tenant_end].decode("latin-1"),
        campaign=value[tenant_end:campaign_end].decode("latin-1"),
        body_from=campaign_end + other_len,
        in_request=merged,
    )
