"""A string of bytes as a source of choices: the same bytes make the same choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Tape:
    """Read from its front; an empty one gives zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, below: int) -> int:
        """From 0 to below - 1."""
        size = (max(1, below - 1).bit_length() + 7) // 8
        return int.from_bytes(self.take(size), "big") % below

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.number(len(options))]

    def take(self, count: int) -> bytes:
        """The next bytes, as many as there are."""
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def line(self) -> bytes:
        """Up to the next line feed, without it."""
        end = self._data.find(b"\n", self._at)
        end = len(self._data) if end < 0 else end
        found = self._data[self._at : end]
        self._at = end + 1
        return found

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))
