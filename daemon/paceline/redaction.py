"""Fields of a payload that nobody is shown: those that `redact` of a destination names. Pure.

`redact = ["/password", "/recipients/*/email"]`: JSON pointers (RFC 6901), in which `*` is every
element of an array and every field of an object. What is below such a place is covered whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

__all__ = ["COVER", "Redaction", "pointer_problem"]

COVER = "***"
#: A shorter text would blot out half of every line, and could be guessed from what is left.
_LEAST_LETTERS = 4


def pointer_problem(pointer: str) -> str | None:
    """What is wrong with it; None where nothing is."""
    if not pointer.startswith("/"):
        return "does not begin with /"
    if any(token.replace("~0", "").replace("~1", "").count("~") for token in pointer.split("/")):
        return "has a ~ that is neither ~0 nor ~1"
    return None


class Redaction:
    """What the pointers of one destination cover."""

    def __init__(self, pointers: Sequence[str]) -> None:
        self._paths = [
            [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
            for pointer in pointers
        ]

    def __bool__(self) -> bool:
        return bool(self._paths)

    def shown(self, payload: bytes) -> bytes:
        """The payload as people may see it: byte for byte where nothing is to be covered, else
        written anew. One that cannot be read is covered whole."""
        if not self._paths:
            return payload
        try:
            document = msgspec.json.decode(payload)
            for path in self._paths:
                document = _covered(document, path)
            return msgspec.json.encode(document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.json.encode(COVER)

    def cover(self, text: str, payload: bytes | None) -> str:
        """A text that may quote the payload, without what is to be covered; covered whole where
        that is not known: the payload cannot be read, or is that of many (None)."""
        if not self._paths or not text:
            return text
        if payload is None:
            return COVER
        try:
            document = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return COVER
        found = {value for path in self._paths for value in _values(document, path)}
        for value in sorted(found, key=len, reverse=True):
            if len(value) >= _LEAST_LETTERS:
                text = text.replace(value, COVER)
        return text


def _covered(value: Any, path: Sequence[str]) -> Any:
    if not path:
        return COVER
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {
            name: _covered(one, rest) if first in ("*", name) else one
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [
            _covered(one, rest) if first in ("*", str(number)) else one
            for number, one in enumerate(value)
        ]
    return value


def _values(value: Any, path: Sequence[str]) -> Iterator[str]:
    """What stands there, and below it, in the spellings in which it may be quoted."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, one in items:
            if not path or path[0] in ("*", str(name)):
                yield from _values(one, path[1:])
    elif not path:
        if isinstance(value, str):
            yield value
            yield repr(value)[1:-1]
            yield msgspec.json.encode(value).decode()[1:-1]
        else:
            yield msgspec.json.encode(value).decode()
