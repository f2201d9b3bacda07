"""The ledger: what was acknowledged, on record outside Redis before anything is judged.

JSON Lines, one line an answer, handed to the system before the next message goes in. The judge
reads it back from the file: nothing of the outbox has a part in it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from paceline.rehearsal.payloads import Kind


class Entry(msgspec.Struct, frozen=True, tag="acknowledged", tag_field="what"):
    """A message that was acknowledged. ``sha1`` is of its payload (as the outbox's record has it),
    ``body`` the first 16 hex digits of the SHA-256 of the request that it must become (as the sink
    has it); ``at`` is unix seconds."""

    id: str
    kind: Kind
    sha1: str
    body: str
    bytes: int
    at: float


class Refusal(msgspec.Struct, frozen=True, tag="refused", tag_field="what"):
    """A message that was refused, with the error's words."""

    id: str
    kind: Kind
    error: str
    at: float


Line = Entry | Refusal


class Ledger:
    """Writes the file. ``username`` and ``password`` are those of the requests to expect; they go
    into hashes only. Raises OSError."""

    def __init__(self, path: Path, username: str, password: str) -> None:
        self._file = path.open("xb", buffering=0)
        self._before = (
            b'{"authentication":'
            + msgspec.json.encode({"username": username, "password": password})
            + b',"message":'
        )

    def entry(self, its_id: str, kind: Kind, payload: bytes, at: float) -> Entry:
        """The line of an acknowledged message."""
        body = hashlib.sha256(self._before)
        body.update(payload)
        body.update(b"}")
        sha1 = hashlib.sha1(payload, usedforsecurity=False).hexdigest()
        return Entry(its_id, kind, sha1, body.hexdigest()[:16], len(payload), at)

    def write(self, lines: Iterable[Line]) -> None:
        """Appends. Raises OSError."""
        self._file.write(msgspec.json.Encoder().encode_lines(lines))

    def close(self) -> None:
        """Syncs and closes; a second call does nothing. Raises OSError."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def read(path: Path) -> tuple[list[Entry], list[Refusal]]:
    """What the file says. Raises OSError, msgspec.DecodeError."""
    decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
    lines = decoder.decode_lines(path.read_bytes())
    return (
        [line for line in lines if isinstance(line, Entry)],
        [line for line in lines if isinstance(line, Refusal)],
    )
