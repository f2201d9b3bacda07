"""MaxMD: credentials in the body, business errors in an HTTP 200."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from paceline.sink.addresses import is_address
from paceline.sink.answers import Request, Rows, Verdict, When, is_json, matches, retry_after

_ROWS = Rows(((200,), ("1", "2", "3", "4", "999")), ((429, 500, 502, 503, 504), ()))


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


@dataclass(frozen=True, slots=True)
class MaxMD:
    """The MaxMD send call. ``username`` and ``password`` None accept any that are not empty.

    Unknown fields are refused like any malformed shape: a misspelt field that a lenient
    simulator swallows would be found only at the real provider. With ``validate=False`` bodies
    are not read at all, and each counts as one recipient.
    """

    username: str | None = None
    password: str | None = None
    validate: bool = True
    name: str = "maxmd"
    methods: frozenset[bytes] = frozenset((b"POST",))
    headers: frozenset[bytes] = frozenset()
    rows: tuple[str, ...] = _ROWS.names

    @property
    def reads_body(self) -> bool:
        return self.validate

    def judge(self, request: Request, /) -> Verdict:
        number = request.number
        if not self.validate:
            return Verdict(200, _answer(number, "Success", 0), True, recipients=1)
        if not is_json(request.content_type):
            return Verdict(415, b'{"message":"Unsupported Media Type"}', False, "media_type")
        try:
            send = _decode_send(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Verdict(200, _business(999), False, "malformed")
        given = send.authentication
        if not (matches(given.username, self.username) and matches(given.password, self.password)):
            body = _answer(number, "Authentication failed", 1)
            return Verdict(200, body, False, "authentication")
        message = send.message
        if not message.recipients:
            return Verdict(200, _business(999), False, "malformed")
        recipients = [recipient.email for recipient in message.recipients]
        others = [message.sender, message.reply_to] if message.reply_to else [message.sender]
        if not all(map(is_address, recipients)) or not all(map(is_address, others)):
            return Verdict(200, _answer(number, "Address error", 2), False, "address")
        success = _answer(number, "Success", 0)
        return Verdict(200, success, True, recipients=len(recipients), addresses=recipients)

    def row(self, name: str, _good: Verdict, when: When, /) -> Verdict:
        status, code = _ROWS.find(self.name, name)
        if code is not None:
            return Verdict(status, _business(int(code)), False)
        return Verdict(status, b'{"message":"%d"}' % status, False, extra=retry_after(when))

    def business(self, code: int, _good: Verdict, /) -> bytes:
        return _business(code)

    def reset(self) -> None:
        """Nothing is remembered."""


def _answer(number: int, message: str, code: int) -> bytes:
    return b'{"smtpId":"sink-%d","message":"%s","code":%d,"success":%s}' % (
        number,
        message.encode("ascii"),
        code,
        b"true" if code == 0 else b"false",
    )


def _business(code: int) -> bytes:
    if code == 999:  # configuration and business errors come without "success"
        return b'{"code":999,"message":"error"}'
    return _answer(0, "Error", code).replace(b'"sink-0"', b"null")
