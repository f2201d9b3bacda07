"""What is kept of every arrival: in memory, and as JSON Lines in a file outside Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

FLUSH_AFTER_S = 0.1
FLUSH_AT_BYTES = 1 << 18


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """One request as the sink saw it; also one line of the record file. Compact: no GC header.

    ``mono_ns`` (CLOCK_MONOTONIC, comparable within one machine) and ``wall_ns`` are of its first
    byte. ``id`` is the message id, or null. ``conn`` is the connection's number and ``peer`` its
    far end. ``bytes`` is the length of the body read. ``fault`` is the fault played, or "ok", or
    why the profile refused ("malformed", "authentication", "address", "media_type", ...) or
    answered otherwise than plainly ("partly_rejected", "replayed", "key_conflict"), or "limit",
    "method", "encoding", "bad_http", "incomplete" (it never ended), "unanswered" (the connection
    ended while it stood behind another request). ``status`` and ``answered_ns`` are null where no
    whole answer was given. ``sha256`` is the first 16 hex digits of the body's. ``accepted``: did
    the provider act? ``recipients`` is how many it accepted then, ``exposed`` how many of them see
    one another's addresses, ``key`` the idempotency key without quotes, ``method`` the HTTP method
    ("" where the request was cut off before it was known).
    """

    seq: int
    mono_ns: int
    wall_ns: int
    id: str | None
    conn: int
    peer: str
    path: str
    bytes: int
    fault: str
    status: int | None
    sha256: str
    answered_ns: int | None
    accepted: bool
    recipients: int = 0
    exposed: int = 0
    key: str | None = None
    method: str = "POST"


class Open(Protocol):
    """An arrival under way."""

    seq: int
    epoch: int
    addresses: Sequence[str]

    def over(self) -> None:
        """Nothing more happens to it."""

    def arrival(self) -> Arrival:
        """It as it stands now."""


class RecordFile:
    """Appends arrivals to a file as JSON Lines, buffered; nothing waits longer than 0.1 s.

    Raises OSError when the file cannot be opened; a write that fails later raises in the event
    loop, whose handler stops the sink: evidence must not end silently.
    """

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._file = path.open("ab", buffering=0)
        self._loop = loop
        self._buffer = bytearray()
        self._encoder = msgspec.json.Encoder()
        self._timer: asyncio.TimerHandle | None = None

    def write(self, arrival: Arrival) -> None:
        """Take one arrival into the buffer. Raises OSError."""
        self._buffer += self._encoder.encode(arrival)
        self._buffer += b"\n"
        if len(self._buffer) >= FLUSH_AT_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        """Hand all that is buffered to the operating system. Raises OSError."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with memoryview(self._buffer) as view:
            written = 0
            while written < len(view):
                written += self._file.write(view[written:])
        self._buffer.clear()

    def close(self) -> None:
        """Flush and close. Raises OSError."""
        try:
            self.flush()
        finally:
            self._file.close()


class ArrivalLog:
    """All arrivals since the last reset: those ended, in order of their end, and those open.

    ``addresses`` counts how often each recipient was accepted, where that is asked for.
    """

    def __init__(self, record: RecordFile | None = None, *, addresses: bool = False) -> None:
        self.addresses: Counter[str] | None = Counter() if addresses else None
        self.ended: list[Arrival] = []
        self.open: dict[int, Open] = {}
        self.faults: Counter[str] = Counter()
        self.begun = 0
        self.accepted = 0
        self._epoch = 0
        self._record = record

    def begin(self, exchange: Open) -> None:
        """Number an arrival, and hold it as open."""
        exchange.seq = self.begun
        exchange.epoch = self._epoch
        self.open[self.begun] = exchange
        self.begun += 1

    def end(self, exchange: Open) -> None:
        """Keep what became of it. One that began before the last reset is forgotten."""
        exchange.over()
        if exchange.epoch != self._epoch:
            return
        del self.open[exchange.seq]
        arrival = exchange.arrival()
        self.ended.append(arrival)
        self.faults[arrival.fault] += 1
        self.accepted += arrival.accepted
        if self.addresses is not None:
            self.addresses.update(exchange.addresses)
        if self._record is not None:
            self._record.write(arrival)

    def all(self) -> list[Arrival]:
        """Every arrival, the open ones as they stand, sorted by time of arrival."""
        now = self.ended + [exchange.arrival() for exchange in self.open.values()]
        now.sort(key=lambda arrival: (arrival.mono_ns, arrival.seq))
        return now

    def reset(self) -> None:
        """Forget all, and number from 0. What is in the record file stays."""
        self._epoch += 1
        self.ended.clear()
        self.open.clear()
        self.faults.clear()
        if self.addresses is not None:
            self.addresses.clear()
        self.begun = self.accepted = 0
