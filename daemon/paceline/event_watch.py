"""Waiting for messages by the events of their destination: one blocked read for all waiters."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.exceptions import NoPermissionError, RedisError

from paceline import keys
from paceline.event_reader import last_entry, slice_ms
from paceline.scripts import own_connection

_PIECE = 1000
#: After a read that failed.
_REST_S = 0.25


class EventWatch:
    """Rings for each message that something was told of. Thread-safe.

    Its thread reads while somebody waits, on a connection of its own, and ends soon after.
    """

    def __init__(self, client: redis.Redis, destination: str) -> None:
        self._client, self._destination = client, destination
        self._name = keys.key(destination, "ev")
        self._lock = threading.Lock()
        self._bells: dict[str, set[threading.Event]] = {}
        self._reading = False
        #: This user may not read it: waiters are to poll.
        self.refused = False

    @contextmanager
    def bell(self, message_id: str) -> Iterator[threading.Event]:
        """A bell that is rung by whatever is told of the message from now on; look at the message
        after this, and again when it rings. Rung too when a read fails. Raises RedisError."""
        bell = threading.Event()
        with self._lock:
            self._bells.setdefault(message_id, set()).add(bell)
        try:
            self._listen()
            yield bell
        finally:
            with self._lock:
                left = self._bells[message_id]
                left.discard(bell)
                if not left:
                    del self._bells[message_id]

    @property
    def waiting(self) -> int:
        """For how many messages somebody waits."""
        with self._lock:
            return len(self._bells)

    def _listen(self) -> None:
        with self._lock:
            if self._reading or self.refused:
                return
            try:
                after = last_entry(self._client, self._destination)
            except NoPermissionError:
                self.refused = True
                return
            self._reading = True
        threading.Thread(
            target=self._read, args=(after,), name=f"events-{self._destination}", daemon=True
        ).start()

    def _read(self, after: str) -> None:
        """Reads on from an entry as long as anybody waits; what fails is tried again from there."""
        # Not one of the pool, which may be small and in use.
        connection = own_connection(self._client)
        block_ms = slice_ms(self._client)
        rest = threading.Event()
        try:
            while self._is_awaited():
                try:
                    if not connection.is_connected:
                        connection.connect()
                    connection.send_command(
                        "XREAD", "COUNT", _PIECE, "BLOCK", block_ms, "STREAMS", self._name, after
                    )
                    entries = _raw_entries(connection.read_response())
                except (RedisError, OSError) as error:
                    connection.disconnect()
                    with self._lock:
                        self.refused = isinstance(error, NoPermissionError)
                        for bells in self._bells.values():
                            _ring(bells)
                    rest.wait(_REST_S)
                    continue
                if entries:
                    after = entries[-1][0].decode()
                    with self._lock:
                        for _, fields in entries:
                            self._tell(fields)
        finally:
            connection.disconnect()

    def _is_awaited(self) -> bool:
        """Whether to read on; if not, the next waiter starts another thread."""
        with self._lock:
            self._reading = bool(self._bells) and not self.refused
            return self._reading

    def _tell(self, fields: Sequence[bytes]) -> None:
        told = dict(zip(fields[::2], fields[1::2], strict=False))
        for message_id in told.get(b"ids", b"").decode("utf-8", "replace").split():
            _ring(self._bells.get(message_id, ()))


def _ring(bells: Any) -> None:
    for bell in bells:
        bell.set()


def _raw_entries(reply: Any) -> list[Any]:
    """As the server sends them: RESP 2 a list of pairs, RESP 3 a mapping; [] for none."""
    if not reply:
        return []
    [entries] = reply.values() if isinstance(reply, dict) else [reply[0][1]]
    return list(entries)
