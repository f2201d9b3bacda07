"""HTTP answers as bytes. Pure, but for the cached Date header, whose time is an argument."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
_date: tuple[int, bytes] = (-1, b"")


def http_date(wall_s: float) -> str:
    """``Wed, 21 Oct 2015 07:28:00 GMT`` of a wall time in seconds."""
    return formatdate(wall_s, usegmt=True)


def _date_header(wall_s: int) -> bytes:
    # One formatting per second: it costs more than all else in an answer. A race between two
    # sinks in two threads only formats twice.
    global _date
    second, text = _date
    if second != wall_s:
        text = http_date(wall_s).encode("ascii")
        _date = (wall_s, text)
    return text


def response(
    status: int,
    body: bytes,
    wall_ns: int,
    *,
    keep_alive: bool = True,
    content_type: bytes = JSON,
    extra: bytes = b"",
    length: int | None = None,
) -> bytes:
    """A whole answer. ``extra`` holds more header lines, each ending in CRLF; ``length``
    overrides the true Content-Length."""
    # 204 and 304 have no body by definition; one sent all the same would be read as the
    # beginning of the next answer.
    if status in (204, 304):
        body, length_line = b"", b""
    else:
        length_line = b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return b"HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\n%s%s%s\r\n%s" % (
        status,
        _REASONS.get(status, b"Unknown"),
        _date_header(wall_ns // 1_000_000_000),
        content_type,
        length_line,
        b"" if keep_alive else b"Connection: close\r\n",
        extra,
        body,
    )


def retry_after_value(spec: str, wall_ns: int) -> str:
    """The header's value: ``date+N`` becomes the HTTP date N seconds from now, others stand."""
    if spec.startswith("date"):
        return http_date(wall_ns / 1e9 + float(spec[4:]))
    return spec
