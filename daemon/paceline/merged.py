"""The members of a merged request, as ``freeze`` takes them and Redis keeps them. Pure.

A merged request is kept like a message, under an id that begins with ``+`` (``lua/merged.lua``). No
app can have made such an id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: What stands before the id of a merged request where it is spoken of like a message.
MARK = "+"
#: When the oldest and the newest member was accepted, the sum over all (unix microseconds), the
#: bytes of all payloads, marks.
_HEAD = struct.Struct(">ddddB")
_DOUBLE = struct.Struct(">d")
_SOME_EXPIRE, _SOME_TRIED = 1, 2
#: After the id: attempts and tries, the payload's SHA-1, when it was accepted.
_AFTER_ID = 4 + 20 + 8
_UNTRIED, _NEVER = bytes(4), bytes(8)


class Member(NamedTuple):
    """One message that goes into a merged request, as the worker read it.

    ``nonce`` is that under which this worker holds it. ``sha1`` the raw digest of its payload, for
    the record that stays of it. ``head`` the first 60 bytes of its string (``records.py``): copied
    where it can be, for of a hundred thousand a second none is to be decoded.
    """

    id: str
    nonce: str
    head: bytes
    sha1: bytes
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Packed:
    """The members of one request as ``freeze`` takes them. ``place`` and ``expires`` are doubles as
    a header holds them; ``members`` nonces, each with the members held under it, in order; the same
    nonce comes again where others stand between."""

    count: int
    tries: int
    place: bytes
    expires: bytes
    head: bytes
    members: list[str | bytes]


def pack(members: Sequence[Member]) -> Packed:
    """``members`` in the order of the body; at least one."""
    accepted = [it.head[32:40] for it in members]
    tried = {it.head[2:6] for it in members}
    expires = {it.head[40:48] for it in members} - {_NEVER}
    marks = (_SOME_EXPIRE if expires else 0) | (_SOME_TRIED if tried != {_UNTRIED} else 0)
    # Doubles of one sign sort as their bytes do.
    head = _HEAD.pack(
        *_DOUBLE.unpack(min(accepted)),
        *_DOUBLE.unpack(max(accepted)),
        sum(struct.unpack(f">{len(members)}d", b"".join(accepted))),
        sum(it.payload_bytes for it in members),
        marks,
    )
    return Packed(
        count=len(members),
        tries=max(int.from_bytes(two[2:], "big") for two in tried),
        place=min(it.head[24:32] for it in members),
        expires=min(expires, default=_NEVER),
        head=head,
        members=_by_nonce(members),
    )


def _by_nonce(members: Iterable[Member]) -> list[str | bytes]:
    packed: list[str | bytes] = []
    pieces: list[bytes] = []
    last: str | None = None
    for message_id, nonce, head, sha1, _ in members:
        if nonce != last:
            if last is not None:
                packed += (last, b"".join(pieces))
            last, pieces = nonce, []
        name = message_id.encode()
        pieces.append(b"%c%b%b%b%b" % (len(name), name, head[2:6], sha1, head[32:40]))
    if last is not None:
        packed += (last, b"".join(pieces))
    return packed


def is_request(message_id: str) -> bool:
    """Whether it names a merged request."""
    return message_id.startswith(MARK)


def unpack(kept: bytes) -> Iterator[str]:
    """The ids of the members of a frozen request, in their order."""
    at = _HEAD.size
    while at < len(kept):
        end = at + 1 + kept[at]
        yield kept[at + 1 : end].decode()
        at = end + _AFTER_ID
