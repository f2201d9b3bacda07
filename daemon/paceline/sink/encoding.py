"""Request bodies that come compressed. Pure."""

from __future__ import annotations

import zlib

MOST_BYTES = 300_000_000


class EncodingError(ValueError):
    """A body that cannot be unpacked. Says why."""


def decoded(body: bytes, encoding: bytes) -> bytes:
    """The body as it was before ``Content-Encoding``. Raises EncodingError."""
    name = encoding.strip().lower()
    if name == b"identity":
        return body
    if name != b"gzip":
        raise EncodingError(f"Content-Encoding {encoding!r} is not understood")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(body, MOST_BYTES)
    except zlib.error as exc:
        raise EncodingError(f"the body is not gzip: {exc}") from exc
    if not unpacker.eof or unpacker.unused_data:
        raise EncodingError("the gzip body is cut short, too long, or more than one")
    return plain
