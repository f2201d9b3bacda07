"""Commands on one connection, the next written before the replies to the last ones are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Self

import redis
from redis.exceptions import ResponseError


class Pipe:
    """``put`` writes a command and does not wait; ``take`` returns the reply of the oldest put.

    Only for commands that may be repeated: where the connection breaks or a time-out runs out, all
    that are not answered are written again in their order, as often as the client's retry policy
    says. Commands put together are answered together: none of them is written again without the
    others, and all their replies are of one and the same connection. Raises
    redis.exceptions.ConnectionError and TimeoutError when that does not help: each command without
    a reply may have been carried out or not. One thread at a time; ``with`` gives the connection
    back.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._connection: Any = None
        self._waiting: deque[tuple[Sequence[bytes], int]] = deque()
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is None:
            return
        if self._waiting:  # the next to have it must not read their replies
            self._connection.disconnect()
        self._pool.release(self._connection)
        self._connection = None

    def put(self, command: Sequence[str | bytes | int], *more: Sequence[str | bytes | int]) -> None:
        """Writes one command, and ``more`` with it; connects at the first."""
        if self._connection is None:
            self._connection = self._pool.get_connection()
        one = self._connection
        packed = one.pack_commands([command, *more]) if more else one.pack_command(*command)
        self._waiting.append((packed, 1 + len(more)))
        self._connection.retry.call_with_retry(self._write, self._broke)

    def take(self) -> Any:
        """The reply, a list of them where several were put together; one that is an error is
        returned too."""
        reply = self._connection.retry.call_with_retry(self._read, self._broke)
        self._waiting.popleft()
        self._written -= 1
        return reply

    def drain(self) -> None:
        """Waits until all that was put has been carried out; the replies are lost."""
        while self._waiting:
            self.take()

    def _write(self) -> None:
        while self._written < len(self._waiting):
            packed, _ = self._waiting[self._written]
            self._connection.send_packed_command(packed, check_health=False)
            self._written += 1

    def _read(self) -> Any:
        self._write()
        replies = [self._read_one() for _ in range(self._waiting[0][1])]
        return replies if len(replies) > 1 else replies[0]

    def _read_one(self) -> Any:
        try:
            return self._connection.read_response()
        except ResponseError as error:
            return error

    def _broke(self, _: Exception) -> None:
        self._connection.disconnect()
        self._written = 0
