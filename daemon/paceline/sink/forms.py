"""HTML forms as request bodies: url-encoded and multipart. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

URLENCODED = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data"
_BOUNDARY = re.compile(rb';\s*boundary="?([^";]{1,70})"?', re.IGNORECASE)
_NAME = re.compile(r';\s*name="((?:[^"\\]|\\.)*)"')
_FILENAME = re.compile(r';\s*filename="((?:[^"\\]|\\.)*)"')
_FILENAME_CODED = re.compile(r";\s*filename\*=utf-8''([^;]*)", re.IGNORECASE)


class FormError(ValueError):
    """A body that is no form. Says why."""


class Field(NamedTuple):
    """One field; ``filename`` is None unless it is a file."""

    name: str
    value: bytes
    filename: str | None = None


def fields(body: bytes, content_type: bytes) -> list[Field]:
    """The fields in their order. Raises FormError."""
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == URLENCODED:
        return _urlencoded(body)
    if kind == MULTIPART:
        return _multipart(body, content_type)
    raise FormError(f"{kind.decode('latin-1') or 'no Content-Type'} is not a form")


def _urlencoded(body: bytes) -> list[Field]:
    if not body:
        return []
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict"
        )
    except ValueError as exc:
        raise FormError(f"not url-encoded: {exc}") from exc
    return [Field(name, value.encode()) for name, value in pairs]


def _multipart(body: bytes, content_type: bytes) -> list[Field]:
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise FormError("multipart without a boundary")
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + found[1])
    if not parts or not parts.pop().startswith(b"--"):
        raise FormError("multipart without its closing boundary")
    return [_part(part) for part in parts]


def _part(part: bytes) -> Field:
    head, gap, value = part.partition(b"\r\n\r\n")
    if not gap or not head.startswith(b"\r\n"):
        raise FormError("a part without headers")
    for line in head.decode("utf-8", "replace").split("\r\n"):
        header, _, text = line.partition(":")
        if header.strip().lower() == "content-disposition":
            name = _NAME.search(text)
            if name is None:
                break
            return Field(_unescaped(name[1]), value, _filename(text))
    raise FormError("a part without a name")


def _filename(text: str) -> str | None:
    coded = _FILENAME_CODED.search(text)
    if coded is not None:
        return unquote(coded[1])
    plain = _FILENAME.search(text)
    return _unescaped(plain[1]) if plain is not None else None


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
