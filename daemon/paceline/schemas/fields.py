"""Pieces of a payload, checked. Each raises PayloadError with the field's path, `at`."""

from __future__ import annotations

import binascii
import difflib
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from paceline.errors import PayloadError

__all__ = [
    "array",
    "base64",
    "content_type",
    "header_name",
    "keys",
    "kind",
    "line",
    "loose_address",
    "object_",
    "path",
    "size",
    "text",
]

# Only what no address can be: real syntax is the provider's to judge, and a display name around
# the address may hold anything but control characters.
_ADDRESS = re.compile(r"[^\x00-\x1f\x7f]*[^\x00-\x20\x7f@]@[^\x00-\x20\x7f@][^\x00-\x1f\x7f@]*")
_CONTENT_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+\s*(;.*)?")
# RFC 5322 §3.6.8: printable ASCII without the colon.
_HEADER_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]+")
_FORGING = re.compile(r"[\r\n\0]")
# Looking for what was meant takes long for long names, and for many: who misspells does it soon.
_LONGEST_NAME = 64
_MOST_STRANGERS = 20


def object_(at: str, value: Any) -> dict[str, Any]:
    """The object, or PayloadError."""
    if not isinstance(value, dict):
        raise PayloadError(at, f"{kind(value)} where an object is needed")
    return value


def array(at: str, value: Any) -> list[Any]:
    """The array, or PayloadError."""
    if not isinstance(value, list):
        raise PayloadError(at, f"{kind(value)} where an array is needed")
    return value


def text(at: str, value: Any) -> str:
    """Any string, of many lines too."""
    if not isinstance(value, str):
        raise PayloadError(at, f"{kind(value)} where a string is needed")
    return value


def line(at: str, value: Any) -> str:
    """A string that goes into a mail header: no CR, LF or NUL."""
    if _FORGING.search(text(at, value)):
        raise PayloadError(
            at,
            "holds a NUL character"
            if "\n" not in value and "\r" not in value
            else "holds a line break, which would forge a mail header",
        )
    return str(value)


def loose_address(at: str, value: Any) -> str:
    """An address in whatever form the provider takes."""
    if not _ADDRESS.fullmatch(text(at, value)):
        raise PayloadError(at, "no mail address")
    return str(value)


def header_name(at: str, value: Any) -> str:
    """The name of a mail header."""
    if not _HEADER_NAME.fullmatch(line(at, value)):
        raise PayloadError(at, "is no header's name", "Printable ASCII without spaces and colons")
    return str(value)


def content_type(at: str, value: Any) -> str:
    """A media type."""
    if not _CONTENT_TYPE.fullmatch(line(at, value)):
        raise PayloadError(at, "no media type", "For example application/pdf")
    return str(value)


def base64(at: str, value: Any) -> bytes:
    """What a base64 string holds."""
    try:
        return binascii.a2b_base64(text(at, value).encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise PayloadError(
            at,
            f"not base64 ({'a non-ASCII character' if isinstance(error, UnicodeError) else error})",
            "Standard alphabet with padding, without line breaks",
        ) from None


def path(at: str, key: str) -> str:
    """The path of a field whose name came in: it stands in errors and records."""
    shown = key if key.isprintable() else repr(key)[1:-1]
    return f"{at}.{shown}" if len(shown) <= 80 else f"{at}.{shown[:79]}…"


def size(at: str, bytes_: int, most: int, says: str) -> None:
    """Refuses more than `most` bytes; `says`: whose limit it is."""
    if bytes_ > most:
        raise PayloadError(at, f"{bytes_:,} bytes, over the {most:,} {says}")


def keys(
    at: str,
    value: Mapping[str, Any],
    required: Iterable[str],
    optional: Iterable[str] = (),
    *,
    strict: bool = False,
) -> None:
    """The fields that must be there, and none misspelt; `strict`: and no others."""
    known = [*required, *optional]
    # Misspelt before missing: `recipient` for `recipients` is both, and the first says more.
    for key in islice((key for key in value if key not in known), _MOST_STRANGERS):
        lowered = {name.lower(): name for name in known if name not in value}
        near = difflib.get_close_matches(key[:_LONGEST_NAME].lower(), lowered, 1, cutoff=0.85)
        if near:
            raise PayloadError(path(at, key), "unknown field", f"Did you mean {lowered[near[0]]}?")
        if strict:
            raise PayloadError(path(at, key), "unknown field", "Known: " + ", ".join(known))
    for key in required:
        if key not in value:
            raise PayloadError(f"{at}.{key}", "missing")


def kind(value: Any) -> str:
    """What stands there instead, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return "a string" if isinstance(value, str) else "a number"
