"""What the provider says: request bodies judged, answer bodies made. Pure; no sockets, no clock.

A :class:`Profile` judges a complete request and returns a :class:`Verdict`; it also makes the
bodies of business errors. ``maxmd`` follows the provider's contract, ``http`` is any JSON API.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

OK = "ok"
_ADDRESS = re.compile(r"[^@\s<>(),;:\"\[\]\\]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]+\Z")


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer: HTTP status, JSON body, whether the provider acted, and a name for the record."""

    status: int
    body: bytes
    accepted: bool
    name: str = OK


class Profile(Protocol):
    """A provider's manners."""

    @property
    def name(self) -> str:
        """The profile's name."""

    @property
    def methods(self) -> frozenset[bytes]:
        """HTTP methods answered; others get 405."""

    @property
    def reads_body(self) -> bool:
        """Whether ``judge`` looks at the body (if not, the sink need not keep it)."""

    def judge(self, body: bytes, content_type: bytes, number: int, /) -> Verdict:
        """The answer to a complete request. ``number`` is the arrival's, for made-up ids."""

    def business(self, code: int) -> bytes:
        """The body of a business error in an HTTP 200."""

    def padded(self, verdict: Verdict, size: int) -> bytes:
        """The verdict's body, grown to about ``size`` bytes and still readable."""


class _Authentication(msgspec.Struct, forbid_unknown_fields=True):
    username: str
    password: str


class _Recipient(msgspec.Struct, forbid_unknown_fields=True):
    email: str
    type: Literal["TO", "CC", "BCC"]


class _Attachment(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    filename: str
    content_type: str
    content: bytes  # base64 in JSON; msgspec refuses what does not decode


class _Message(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    sender: str
    recipients: list[_Recipient]
    subject: str
    body: str
    html_body: bool = False
    reply_to: str | None = None
    attachment_list: list[_Attachment] | None = None


class _Send(msgspec.Struct, forbid_unknown_fields=True):
    authentication: _Authentication
    message: _Message


_decode_send: Callable[[bytes], _Send] = msgspec.json.Decoder(_Send).decode


def _maxmd_answer(number: int, message: str, code: int) -> bytes:
    return b'{"smtpId":"sink-%d","message":"%s","code":%d,"success":%s}' % (
        number,
        message.encode("ascii"),
        code,
        b"true" if code == 0 else b"false",
    )


@dataclass(frozen=True, slots=True)
class MaxMD:
    """The MaxMD send call. ``username`` and ``password`` None accept any that are not empty.

    Unknown fields are refused like any malformed shape: a misspelt field that a lenient
    simulator swallows would be found only at the real provider. With ``validate=False`` bodies
    are not read at all.
    """

    username: str | None = None
    password: str | None = None
    validate: bool = True
    name: str = "maxmd"
    methods: frozenset[bytes] = frozenset((b"POST",))

    @property
    def reads_body(self) -> bool:
        return self.validate

    def judge(self, body: bytes, content_type: bytes, number: int, /) -> Verdict:
        if not self.validate:
            return Verdict(200, _maxmd_answer(number, "Success", 0), True)
        if not _is_json(content_type):
            return Verdict(415, b'{"message":"Unsupported Media Type"}', False, "media_type")
        try:
            send = _decode_send(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Verdict(200, self.business(999), False, "malformed")
        given = send.authentication
        if not (
            _matches(given.username, self.username) and _matches(given.password, self.password)
        ):
            body = _maxmd_answer(number, "Authentication failed", 1)
            return Verdict(200, body, False, "authentication")
        message = send.message
        if not message.recipients:
            return Verdict(200, self.business(999), False, "malformed")
        addresses = [message.sender, *(r.email for r in message.recipients)]
        if message.reply_to:
            addresses.append(message.reply_to)
        if not all(map(_ADDRESS.match, addresses)):
            return Verdict(200, _maxmd_answer(number, "Address error", 2), False, "address")
        return Verdict(200, _maxmd_answer(number, "Success", 0), True)

    def business(self, code: int) -> bytes:
        if code == 999:  # configuration and business errors come without "success"
            return b'{"code":999,"message":"error"}'
        return _maxmd_answer(0, "Error", code).replace(b'"sink-0"', b"null")

    def padded(self, verdict: Verdict, size: int) -> bytes:
        return _padded(verdict.body, size)


@dataclass(frozen=True, slots=True)
class Http:
    """Any JSON API: a body that is JSON gets ``status`` and ``{"ok":true,"id":...}``, else 400."""

    status: int = 200
    validate: bool = True
    name: str = "http"
    methods: frozenset[bytes] = frozenset((b"POST", b"PUT", b"PATCH"))

    @property
    def reads_body(self) -> bool:
        return self.validate

    def judge(self, body: bytes, _content_type: bytes, number: int, /) -> Verdict:
        if self.validate:
            try:
                msgspec.json.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError):
                no = b'{"ok":false,"error":"the body is not JSON"}'
                return Verdict(400, no, False, "malformed")
        answer = b'{"ok":true,"id":"sink-%d"}' % number
        return Verdict(self.status, answer, 200 <= self.status < 300)

    def business(self, code: int) -> bytes:
        return b'{"ok":false,"code":%d}' % code

    def padded(self, verdict: Verdict, size: int) -> bytes:
        return _padded(verdict.body, size)


PROFILES = ("maxmd", "http")


def _padded(body: bytes, size: int) -> bytes:
    head, tail = body[:-1] + b',"note":"', b'"}'
    return head + b"x" * max(0, size - len(head) - len(tail)) + tail


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == b"application/json"


def _matches(given: str, expected: str | None) -> bool:
    return given == expected if expected is not None else bool(given)
