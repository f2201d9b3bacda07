"""One HTTP/1.1 exchange on a connected socket: the request written at once, one reply read.

Replies are parsed by llhttp (httptools): http.client takes the end of the stream for the end of the
head, any interim response but 100 for the reply, and ten times as long. Requests are put together
here, for what goes out must be one write, and nothing may be written before the whole request is
known to be well-formed.

Rules are of RFC 9110 and 9112: interim responses (9110, 15.2), where a body ends (9112, 6.3),
persistence (9112, 9.3).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httptools
import urllib3
import urllib3.exceptions

#: A provider's head is small. More than this, or more fields, is not read to its end.
HEAD_BYTES = 64 * 1024
HEAD_FIELDS = 100
_READ_BYTES = 64 * 1024
#: A body up to this size is copied, to leave with its head in one write: one system call, and one
#: segment where it fits. A larger one is not worth the copy.
_ONE_WRITE_BYTES = 64 * 1024

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Unreadable(Exception):
    """What came is not HTTP/1, or not to be decoded."""


class CutShort(Exception):
    """The stream ended before the reply did."""


@dataclass(slots=True)
class RawReply:
    """One final response. ``extra``: bytes came after it. ``ends_itself``: the body says where it
    ends; one that ends with its connection may have been cut unseen."""

    status: int
    reason: str
    headers: list[tuple[str, str]] = field(repr=False)
    body: bytes = field(repr=False)
    keeps_alive: bool
    ends_itself: bool


def request_bytes(
    method: str, target: str, host: str, headers: Mapping[str, str], body: bytes
) -> list[bytes]:
    """The request, in as many pieces as it is to be written. Raises ValueError for what HTTP cannot
    say: it would end the head early, or forge a field."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity"]
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {name!r} cannot be sent: a character that HTTP forbids")
        lines.append(f"{name}: {value}")
    # A GET has none, and needs not say so (RFC 9110, 8.6).
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return [head + body] if len(body) <= _ONE_WRITE_BYTES else [head, body]


def read_reply(read: Callable[[int], bytes], most_bytes: int) -> RawReply:
    """Reads up to the end of the final response, or a little over ``most_bytes`` of its body.

    ``read(n)`` gives up to n bytes, b"" at the end of the stream. Raises what it raises, CutShort,
    Unreadable.
    """
    reading = _Reading(most_bytes)
    while not reading.done:
        data = read(_READ_BYTES)
        if data:
            reading.feed(data)
        else:
            reading.end_of_stream()
    return reading.reply()


class _Reading:
    """llhttp's callbacks, for one response after any number of interim ones."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._parser = httptools.HttpResponseParser(self)
        # RFC 9112, 2.2: a recipient may take a lone LF for the end of a line. Some servers send it.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self.done = False
        self._extra = self._cut = self._upgraded = False
        self._headed = self._chunked = False
        self._head_bytes = 0
        self._reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._status = 0
        self._length: bytes | None = None
        self._version = "1.1"
        self._connection = b""

    # -- what llhttp calls ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A response begins; after the final one, one that nobody asked for."""
        if self.done:
            self._extra = True
            return
        self._headed = self._chunked = False
        self._headers, self._length, self._connection = [], None, b""
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, perhaps in pieces."""
        if not self.done:
            self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head, or of the trailer."""
        if self.done or self._headed:
            return
        self._headers.append((name, value))
        if len(self._headers) > HEAD_FIELDS:
            raise Unreadable(f"more than {HEAD_FIELDS} header fields")
        lowered = name.lower()
        if lowered == b"content-length":
            self._length = value
        elif lowered == b"connection":
            self._connection += b"," + value.lower()
        elif lowered == b"transfer-encoding":
            self._chunked = b"chunked" in value.lower()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if not self.done:
            self._headed = True
            self._status = self._parser.get_status_code()
            self._version = self._parser.get_http_version()
            if self._version not in ("1.1", "1.0"):
                raise Unreadable(f"HTTP version {self._version}")

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if not self.done:
            self._body.append(data)
            self._body_bytes += len(data)

    def on_message_complete(self) -> None:
        """The response is whole: the final one, or an interim one."""
        if self._status == 101:  # what follows is another protocol
            self._upgraded = True
        self.done = self.done or self._status >= 200 or self._upgraded

    # -- what the stream says ---------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes as they came. Raises Unreadable."""
        if not self._headed:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.done:
                inner = error.__context__
                raise Unreadable(str(inner if isinstance(inner, Unreadable) else error)) from error
            self._extra = True
        if self.done:
            return
        if not self._headed and self._head_bytes > HEAD_BYTES:
            raise Unreadable(f"no end of the head within {HEAD_BYTES} bytes")
        if self._body_bytes > self._most_bytes:
            self.done = self._cut = True

    def end_of_stream(self) -> None:
        """The peer closed. Raises CutShort where that does not end the body."""
        if not self._headed or self._status < 200 or self._chunked or self._length is not None:
            raise CutShort("the connection ended within the reply")
        self.done = True

    def reply(self) -> RawReply:
        """The response. Raises Unreadable where its body cannot be unpacked."""
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self._headers]
        body = b"".join(self._body)
        packed = next((v for n, v in headers if n.lower() == "content-encoding"), "identity")
        if packed.lower() != "identity" and body:
            body = _unpacked(body, packed, self._most_bytes + 1)
        return RawReply(
            status=self._status,
            reason=self._reason.decode("latin-1"),
            headers=headers,
            body=body,
            keeps_alive=self._keeps_alive(),
            ends_itself=self._chunked or self._length is not None,
        )

    def _keeps_alive(self) -> bool:
        if self._extra or self._cut or self._upgraded or b"close" in self._connection:
            return False
        if self._version == "1.0" and b"keep-alive" not in self._connection:
            return False
        if self._status in (204, 304):
            # A body that must not be there, and may yet come.
            return self._status == 304 or (self._length in (None, b"0") and not self._chunked)
        return self._length is not None or self._chunked


def _unpacked(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """We ask for no encoding; a peer that packs all the same is understood."""
    packed = urllib3.HTTPResponse(
        body=io.BytesIO(body), headers={"content-encoding": encoding}, preload_content=False
    )
    try:
        return packed.read(most_bytes)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unreadable(f"content-encoding {encoding!r}: {error}") from error
