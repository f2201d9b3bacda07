"""Waiting for messages by the events of their destination: one blocked read for all waiters."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from paceline import keys
from paceline.event_reader import entries_of, last_entry, slice_ms

_PIECE = 1000


class EventWatch:
    """Rings for each message that something was told of. Thread-safe.

    Its thread reads while somebody waits, and ends soon after.
    """

    def __init__(self, client: redis.Redis, destination: str) -> None:
        self._client, self._destination = client, destination
        self._name = keys.key(destination, "ev")
        self._lock = threading.Lock()
        self._bells: dict[str, set[threading.Event]] = {}
        self._reading = False
        #: Redis does not let us read it: waiters are to poll.
        self.refused = False

    @contextmanager
    def bell(self, message_id: str) -> Iterator[threading.Event]:
        """A bell that is rung by whatever is told of the message from now on. Look at the message
        after this, and again when it rings. Rung also when reading fails: then ``listen``."""
        bell = threading.Event()
        with self._lock:
            self._bells.setdefault(message_id, set()).add(bell)
        try:
            self.listen()
            yield bell
        finally:
            with self._lock:
                left = self._bells[message_id]
                left.discard(bell)
                if not left:
                    del self._bells[message_id]

    def listen(self) -> None:
        """Sees to it that somebody reads. Raises RedisError."""
        with self._lock:
            if self._reading or self.refused:
                return
            after = last_entry(self._client, self._destination)
            self._reading = True
        threading.Thread(
            target=self._read, args=(after,), name=f"events-{self._destination}", daemon=True
        ).start()

    def _read(self, after: str) -> None:
        block_ms = slice_ms(self._client)
        try:
            while True:
                reply: Any = self._client.xread({self._name: after}, count=_PIECE, block=block_ms)
                entries = entries_of(reply)
                with self._lock:
                    if entries:
                        after = entries[-1][0].decode()
                        self._ring(fields for _, fields in entries)
                    if not self._bells:
                        self._reading = False
                        return
        except RedisError as error:
            with self._lock:
                self.refused = isinstance(error, ResponseError)
                self._reading = False
                for bells in self._bells.values():
                    for bell in bells:
                        bell.set()

    def _ring(self, told: Iterable[Mapping[bytes, bytes]]) -> None:
        for fields in told:
            for message_id in fields.get(b"ids", b"").decode("utf-8", "replace").split():
                for bell in self._bells.get(message_id, ()):
                    bell.set()
