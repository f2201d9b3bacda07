"""One element out of a JSON body's array, and the body around it: what merging is made of.

`{"recipients": [R], "content": C}` is `{"recipients": [` + R + `], "content": C}`. Messages whose
bytes around R are equal may share one body, with their Rs joined by commas; nothing is parsed
again, and every field stays, known or not. A mailing's messages differ in R only, so the bytes
around the last few are remembered: the next message is compared with them, and only its R is read.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

__all__ = ["Splice", "Splicer"]

Splice = tuple[tuple[bytes, bytes], bytes]

# Mailings under way at once.
_REMEMBERED = 8
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_one = msgspec.json.Decoder(msgspec.Raw).decode
_BLANK = b" \t\n\r"


class Splicer:
    """Takes bodies apart at one array, given by its JSON pointer ("/recipients").

    What is remembered is no state: another thread's memory gives the same answers. ``is_one`` tells
    whether bytes are one JSON value; who reads the element anyway finds that out alone.
    """

    def __init__(self, pointer: str, *, is_one: Callable[[bytes], bool] | None = None) -> None:
        self._path = [
            token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]
        ]
        self._is_one = is_one or _is_one
        self._around: tuple[tuple[bytes, bytes], ...] = ()

    def split(self, body: bytes) -> Splice | None:
        """((before, after), the element); None where the array is not there or has not just one.

        The element is one JSON value, and with it the body is JSON.
        """
        for around in self._around:
            before, after = around
            if body.startswith(before) and body.endswith(after):
                element = body[len(before) : len(body) - len(after)]
                # Between the two may also stand "R, R", or nothing, where they overlap.
                if element and self._is_one(element):
                    return around, element
        return self._look(body)

    def _look(self, body: bytes) -> Splice | None:
        try:
            body.decode()
            found = _items(self._raw(body))
        except _FAULTS:
            return None
        if len(found) != 1:
            return None
        element = bytes(found[0])
        at = body.find(element)
        while at >= 0:
            before, after = body[:at], body[at + len(element) :]
            if self._is_place(before, after):
                around = (before, after)
                self._around = (around, *self._around[: _REMEMBERED - 1])
                return around, element
            at = body.find(element, at + 1)
        return None

    def _is_place(self, before: bytes, after: bytes) -> bool:
        """Whether what stands between the two is the array's only element, and not the same bytes
        elsewhere."""
        if not (before.rstrip(_BLANK).endswith(b"[") and after.lstrip(_BLANK).startswith(b"]")):
            return False
        try:
            marked = _items(self._raw(b"".join((before, b'"\\u0000"', after))))
        except _FAULTS:
            return False
        return [bytes(item) for item in marked] == [b'"\\u0000"']

    def _raw(self, body: bytes) -> bytes:
        for name in self._path:
            body = bytes(_fields(body).get(name, b"null"))
        return body


def _is_one(element: bytes) -> bool:
    try:
        _one(element)
        # What is skipped over is not looked at that closely.
        element.decode()
    except _FAULTS:
        return False
    return True
