"""A request under way, from its first byte to the end of its answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol

from paceline.sink.answers import Verdict
from paceline.sink.faults import Fault
from paceline.sink.idempotency import Hold
from paceline.sink.record import Arrival

INCOMPLETE = "incomplete"
UNANSWERED = "unanswered"
_NO_ANSWER = Verdict(0, b"", False)

_paths: dict[bytes, str] = {}


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Exchange:
    """Mutable, owned by one connection; it ends as an Arrival."""

    __slots__ = (
        "_body", "_chunks", "_hash", "accepted", "addresses", "admin", "answer", "answered_ns",
        "conn", "content_encoding", "content_type", "epoch", "expects", "exposed", "fault",
        "headers", "hold", "idempotency_key", "keep_alive", "latency_s", "message_id", "method",
        "mono_ns", "peer", "played", "recipients", "seq", "size", "status", "url", "wait_s",
        "wall_ns",
    )  # fmt: skip

    def __init__(self, mono_ns: int, wall_ns: int, conn: int, peer: str) -> None:
        self.mono_ns = mono_ns
        self.wall_ns = wall_ns
        self.conn = conn
        self.peer = peer
        self.seq = -1
        self.epoch = -1
        self.url = b""
        self.method = b""
        self.message_id: str | None = None
        self.idempotency_key: str | None = None
        self.content_type = b""
        self.content_encoding = b""
        self.headers: dict[bytes, bytes] = {}
        self.expects = False
        self.admin = False
        self.keep_alive = True
        self.size = 0
        self.wait_s = 0.0
        self.latency_s = 0.0
        self.fault: Fault | None = None
        self.played = INCOMPLETE
        self.answer = _NO_ANSWER
        self.status: int | None = None
        self.answered_ns: int | None = None
        self.accepted = False
        self.recipients = 0
        self.addresses: Sequence[str] = ()
        self.exposed = 0
        self.hold: Hold | None = None
        self._body = b""
        self._chunks: list[bytes] | None = None
        self._hash: _Hash | None = None

    def add_body(self, chunk: bytes, keep: bool) -> None:
        """Take a piece of the body: into the hash always, into memory where it will be read."""
        self.size += len(chunk)
        if self._hash is None:
            self._hash = sha256(chunk, usedforsecurity=False)
            if keep:
                self._body = chunk
            return
        self._hash.update(chunk)
        if keep:
            if self._chunks is None:
                self._chunks = [self._body]
            self._chunks.append(chunk)

    def take_body(self) -> bytes:
        """The whole body, given once: a slow answer must not hold megabytes."""
        body = self._body if self._chunks is None else b"".join(self._chunks)
        self._body, self._chunks = b"", None
        return body

    def act(self, done: Verdict) -> None:
        """The provider does its work, as the verdict says."""
        self.accepted = True
        self.recipients = done.recipients
        self.addresses = done.addresses
        self.exposed = done.exposed
        if done.hold is not None:
            self.hold = done.hold
            done.hold.begin()

    def over(self) -> None:
        """Nothing more happens to it."""
        if self.hold is not None:
            self.hold.end()

    def digest(self) -> str:
        """The sha256 of the body so far, as it came over the wire."""
        digest = self._hash if self._hash is not None else sha256(usedforsecurity=False)
        return digest.hexdigest()

    def arrival(self) -> Arrival:
        """This exchange as it stands."""
        return Arrival(
            self.seq,
            self.mono_ns,
            self.wall_ns,
            self.message_id if self.message_id is not None else self.idempotency_key,
            self.conn,
            self.peer,
            _path(self.url),
            self.size,
            self.played,
            self.status,
            self.digest()[:16],
            self.answered_ns,
            self.accepted,
            self.recipients,
            self.exposed,
            self.idempotency_key,
            sys.intern(self.method.decode("latin-1")),
        )


def _path(url: bytes) -> str:
    # Millions of arrivals come for the same few paths; one string serves them all. Bounded,
    # for a client may put an id into each.
    path = _paths.get(url)
    if path is None:
        path = url.decode("latin-1")
        if len(_paths) < 1000:
            _paths[url] = path
    return path
