"""A request's body as a form: urlencoded, or multipart where it has files. Pure.

The same fields give the same bytes, always: a multipart boundary is made from what it parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote_plus

__all__ = ["FORM", "Field", "File", "boundary_of", "escaped", "multipart", "piece", "urlencoded"]

FORM = "application/x-www-form-urlencoded"

Field = tuple[str, str]


class File(NamedTuple):
    """A file of a form: the field's name, its own name, media type and bytes."""

    field: str
    filename: str
    content_type: str
    content: bytes


def escaped(text: str) -> str:
    """One name or value of an urlencoded form."""
    return quote_plus(text, safe="")


def urlencoded(fields: Iterable[Field]) -> bytes:
    """The fields, in their order."""
    return "&".join(f"{escaped(name)}={escaped(value)}" for name, value in fields).encode("ascii")


def piece(field: Field | File) -> bytes:
    """One part of a multipart body, without the boundary (RFC 7578)."""
    if isinstance(field, File):
        head = (
            f'Content-Disposition: form-data; name="{_quoted(field.field)}"; '
            f'filename="{_quoted(field.filename)}"\r\nContent-Type: {field.content_type}\r\n\r\n'
        )
        return head.encode() + field.content
    name, value = field
    return f'Content-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}'.encode()


def multipart(pieces: Sequence[bytes]) -> bytes:
    """The body. Its boundary is a hash of the parts, so that none of them can hold it."""
    digest = hashlib.sha256()
    for one in pieces:
        digest.update(b"%d:" % len(one))
        digest.update(one)
    boundary = b"--paceline-" + digest.hexdigest()[:40].encode("ascii")
    lines: list[bytes] = []
    for one in pieces:
        lines += (boundary, b"\r\n", one, b"\r\n")
    lines += (boundary, b"--\r\n")
    return b"".join(lines)


def boundary_of(body: bytes) -> str | None:
    """The boundary of a multipart body made here; None for an urlencoded one."""
    if not body.startswith(b"--paceline-"):
        return None
    return body[2 : body.index(b"\r\n")].decode("ascii")


def _quoted(text: str) -> str:
    """As browsers write it: a quote would end the value, a line break the header."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
