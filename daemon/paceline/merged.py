"""The members of a merged request, as ``freeze`` takes them and Redis keeps them. Pure.

A merged request is kept like a message, under an id that begins with ``+`` (``lua/merged.lua``). No
app can have made such an id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

#: What stands before the id of a merged request where it is spoken of like a message.
MARK = "+"
#: When the oldest and the newest member was accepted, the sum over all (unix microseconds), the
#: bytes of all payloads, marks.
_HEAD = struct.Struct(">ddddB")
_DOUBLE = struct.Struct(">d")
_SOME_EXPIRE, _SOME_TRIED = 1, 2
#: After the id: the payload's SHA-1, when it was accepted.
_AFTER_ID = 20 + 8
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
    a header holds them; ``held`` whether headers say who holds them; ``members`` nonces, each with
    the size of its batch where all of it goes in (else 0) and the members held under it, in order;
    the same nonce comes again where others stand between."""

    count: int
    tries: int
    place: bytes
    expires: bytes
    head: bytes
    held: bool
    members: list[str | bytes | int]


def pack(members: Sequence[Member], batches: Mapping[str, int]) -> Packed:
    """``members`` in the order of the body; at least one. ``batches``: how many were taken under
    each nonce, as far as that is known."""
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
        held=any(it.head[1:2] != b"R" for it in members),
        members=_by_nonce(members, batches),
    )


def _by_nonce(members: Iterable[Member], batches: Mapping[str, int]) -> list[str | bytes | int]:
    packed: list[str | bytes | int] = []
    for nonce, group in groupby(members, itemgetter(1)):
        pieces = [
            b"%c%b%b%b" % (len(name), name.encode(), sha1, head[32:40])
            for name, _, head, sha1, _ in group
        ]
        # One that had lost a message before is not what was taken: it is walked.
        whole = len(pieces) == batches.get(nonce)
        packed += (nonce, len(pieces) if whole else 0, b"".join(pieces))
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
