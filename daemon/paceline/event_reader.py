"""Reading a destination's events: one after the other, or shared by a group of consumers.

A read blocks for a slice of at most a second, so that the client's own time-out never ends it.
Errors of Redis pass through as redis-py raises them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from typing import Any, Final

import redis
from redis.exceptions import ResponseError

from paceline import keys
from paceline.errors import InvalidMessage
from paceline.events import Event, decode_entry

#: Entries in one reply.
PIECE: Final = 100
_SLICE_S: Final = 1.0
_ENTRY = re.compile(r"\d{1,20}(-\d{1,20})?", re.ASCII)


def slice_ms(client: redis.Redis) -> int:
    """For how long one read may block."""
    timeout_s = client.connection_pool.connection_kwargs.get("socket_timeout")
    return max(1, round(1e3 * min(_SLICE_S, (timeout_s or 60.0) / 2)))


def last_entry(client: redis.Redis, destination: str) -> str:
    """The last entry ever written; what comes later comes after it."""
    try:
        about: Any = client.xinfo_stream(keys.key(destination, "ev"))
    except ResponseError as error:
        if "no such key" not in str(error):
            raise
        return "0-0"
    found = about["last-generated-id"]
    return found.decode() if isinstance(found, bytes) else str(found)


def position_of(client: redis.Redis, destination: str, start: str) -> str:
    """``first``, ``now`` or an entry, as the entry after which reading begins.

    Raises InvalidMessage for anything else.
    """
    if start == "first":
        return "0-0"
    if start == "now":
        return last_entry(client, destination)
    if not _ENTRY.fullmatch(start):
        raise InvalidMessage(
            "start", f"{start!r} is no place in the stream", 'Give "first", "now" or an entry'
        )
    return start


class _Patience:
    """How long a reader that finds nothing waits for more."""

    def __init__(self, block_s: float | None, most_ms: int) -> None:
        self._block_s, self._most_ms = block_s, most_ms
        self._end = 0.0
        self.renew()

    def renew(self) -> None:
        """Something came."""
        if self._block_s is not None:
            self._end = time.monotonic() + self._block_s

    def block_ms(self) -> int | None:
        """For the next read; None: it is not to wait. (To Redis 0 means for ever.)"""
        if self._block_s is None:
            return self._most_ms
        left_ms = round(1e3 * (self._end - time.monotonic()))
        return min(self._most_ms, left_ms) if left_ms > 0 else None


def page(
    client: redis.Redis, destination: str, start: str, count: int
) -> tuple[list[Event], str | None]:
    """The events of ``count`` entries from ``start`` on (``-``: the first), and where to go on;
    None: there are no more."""
    found: Any = client.xrange(keys.key(destination, "ev"), start, "+", count=count)
    events = [
        event for entry, fields in found for event in _chosen(destination, entry, fields, None)
    ]
    return events, "(" + found[-1][0].decode() if len(found) == count else None


def read_alone(
    client: redis.Redis,
    destination: str,
    after: str,
    block_s: float | None,
    kinds: Collection[str] | None,
) -> Iterator[Event]:
    """All events after an entry; ends when for ``block_s`` nothing came (None: never)."""
    name = keys.key(destination, "ev")
    patience = _Patience(block_s, slice_ms(client))
    while True:
        block_ms = patience.block_ms()
        entries = entries_of(client.xread({name: after}, count=PIECE, block=block_ms))
        for entry, fields in entries:
            after = entry.decode()
            yield from _chosen(destination, entry, fields, kinds)
        if entries:
            patience.renew()
        elif block_ms is None:
            return


class GroupReader:
    """One consumer of a group. ``claim_after_s``: what another consumer has not acknowledged so
    long is taken over from it."""

    def __init__(
        self, client: redis.Redis, destination: str, group: str, consumer: str, claim_after_s: float
    ) -> None:
        self._client, self._destination = client, destination
        self._name = keys.key(destination, "ev")
        self._group, self._consumer = group, consumer
        self._claim_after_s = claim_after_s

    def create(self, after: str) -> None:
        """Sees to it that the group is there; a new one begins after this entry."""
        try:
            self._client.xgroup_create(self._name, self._group, after, mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def read(self, block_s: float | None, kinds: Collection[str] | None) -> Iterator[Event]:
        """Its share of the events; an entry is acknowledged when all in it are done with: when the
        caller asks for what comes after. Ends as ``read_alone``."""
        patience = _Patience(block_s, slice_ms(self._client))
        claimed_at = -self._claim_after_s
        own = True  # first what it was given before and never acknowledged
        while True:
            if not own and time.monotonic() - claimed_at >= self._claim_after_s / 2:
                claimed_at = time.monotonic()
                own = self._claim()
            block_ms = None if own else patience.block_ms()
            entries = self._next("0" if own else ">", block_ms)
            read_at = time.monotonic()
            late = False
            for entry, fields in entries:
                # Held for long, the rest may be another's by now: look again, which also says that
                # this consumer is alive.
                late = time.monotonic() - read_at > self._claim_after_s / 3
                if late:
                    break
                yield from _chosen(self._destination, entry, fields, kinds)
                self._client.xack(self._name, self._group, entry)
            if entries:
                own = own or late
                patience.renew()
            elif own:
                own = False
            elif block_ms is None:
                return

    def _next(self, place: str, block_ms: int | None) -> list[tuple[bytes, Any]]:
        try:
            reply = self._client.xreadgroup(
                self._group, self._consumer, {self._name: place}, count=PIECE, block=block_ms
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            # Events were turned off and on again: a new stream.
            self.create("0")
            return []
        return entries_of(reply)

    def _claim(self) -> bool:
        """Takes over what others left. Whether there was any."""
        try:
            reply: Any = self._client.xautoclaim(
                self._name, self._group, self._consumer, round(1e3 * self._claim_after_s),
                start_id="0-0", count=PIECE, justid=True,
            )  # fmt: skip
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            return False
        return bool(reply)


def entries_of(reply: Any) -> list[tuple[bytes, Any]]:
    """Of the one stream that was asked for: RESP 2 gives a list of pairs, RESP 3 a mapping."""
    if not reply:
        return []
    if isinstance(reply, dict):
        [pieces] = reply.values()
        return [entry for piece in pieces for entry in piece]
    found: list[tuple[bytes, Any]] = reply[0][1]
    return found


def _chosen(
    destination: str, entry: bytes, fields: Any, kinds: Collection[str] | None
) -> Iterator[Event]:
    # One that was trimmed away while it was held has no fields.
    for event in decode_entry(destination, entry, fields or {}):
        if kinds is None or event.kind in kinds:
            yield event
