"""The members of a merged request, as ``freeze`` takes them and Redis keeps them. Pure.

A merged request is kept like a message, under an id that begins with ``+`` (``lua/merged.lua``). No
app can have made such an id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

#: What stands before the id of a merged request where it is spoken of like a message.
MARK = "+"
#: When the newest member was accepted, the bytes of all payloads, marks.
_HEAD = struct.Struct(">ddB")
_SHA1_BYTES, _ACCEPTED_BYTES = 20, 8


class Member(NamedTuple):
    """One message that goes into a merged request: the nonce under which this worker holds it, and
    the raw SHA-1 of its payload, for the record that stays of it."""

    id: str
    nonce: str
    sha1: bytes


def is_request(message_id: str) -> bool:
    """Whether it names a merged request."""
    return message_id.startswith(MARK)


def pack(members: Iterable[Member]) -> list[str | bytes]:
    """Nonces, each with the members held under it, in the order of the members; the same nonce
    comes again where others stand between."""
    packed: list[str | bytes] = []
    pieces: list[bytes] = []
    last: str | None = None
    for message_id, nonce, sha1 in members:
        if nonce != last:
            if last is not None:
                packed += (last, b"".join(pieces))
            last, pieces = nonce, []
        name = message_id.encode()
        pieces.append(b"%c%b%b" % (len(name), name, sha1))
    if last is not None:
        packed += (last, b"".join(pieces))
    return packed


def unpack(kept: bytes) -> Iterator[str]:
    """The ids of the members of a frozen request, in their order."""
    at = _HEAD.size
    while at < len(kept):
        end = at + 1 + kept[at]
        yield kept[at + 1 : end].decode()
        at = end + _SHA1_BYTES + _ACCEPTED_BYTES
