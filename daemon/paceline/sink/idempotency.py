"""Idempotency keys, as a provider keeps them: the first answer, for a day.

A key is held from the moment the provider acts, and is in progress until its answer has been given
(or the connection is gone: the provider finished all the same). What the provider refused leaves no
key behind, so that the request may be made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

KEPT_S = 24 * 3600.0


class Hold:
    """One key: its request's digest, the first answer's status and body, whether it is done."""

    __slots__ = ("_key", "_keys", "at_s", "body", "digest", "done", "status")

    def __init__(self, keys: Keys, key: Hashable, digest: str, status: int, body: bytes) -> None:
        self._keys = keys
        self._key = key
        self.digest = digest
        self.status = status
        self.body = body
        self.done = False
        self.at_s = 0.0

    def begin(self) -> None:
        """The provider acts: from now on the key is known."""
        self._keys.put(self._key, self)

    def end(self) -> None:
        """The request is over."""
        self.done = True


class Keys:
    """All keys. ``clock`` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept_s: float = KEPT_S) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._holds: dict[Hashable, Hold] = {}

    def find(self, key: Hashable) -> Hold | None:
        """What is known of a key, unless it is too old."""
        self._forget_old()
        return self._holds.get(key)

    def hold(self, key: Hashable, digest: str, status: int, body: bytes) -> Hold:
        """A key that may be put in force by ``begin``."""
        return Hold(self, key, digest, status, body)

    def put(self, key: Hashable, hold: Hold) -> None:
        """Keep it from now on."""
        hold.at_s = self._clock()
        self._holds[key] = hold

    def clear(self) -> None:
        """Forget all."""
        self._holds.clear()

    def _forget_old(self) -> None:
        # In order of their beginning: the oldest stand in front.
        oldest_s = self._clock() - self._kept_s
        while self._holds:
            key = next(iter(self._holds))
            if self._holds[key].at_s > oldest_s:
                return
            del self._holds[key]
