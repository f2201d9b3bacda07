"""MaxMD: credentials in the body, business errors in an HTTP 200; and what became of a message, by
GetMessageStatus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote_to_bytes

import msgspec

from paceline.sink.addresses import is_address
from paceline.sink.answers import Request, Rows, Verdict, When, is_json, matches, retry_after

_STATUS = b"/GetMessageStatus/"
_ID = b"sink-"
#: Messages whose recipients are remembered: the last ones.
_MOST_KNOWN = 50_000
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

    ``GET …/GetMessageStatus/{smtpId}`` answers for the last messages it took, every recipient of
    them "delivered"; nothing is accepted by that. The real answer's shape is not documented.
    """

    username: str | None = None
    password: str | None = None
    validate: bool = True
    name: str = "maxmd"
    methods: frozenset[bytes] = frozenset((b"POST", b"GET"))
    headers: frozenset[bytes] = frozenset()
    rows: tuple[str, ...] = _ROWS.names
    _known: dict[int, list[str]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def reads_body(self) -> bool:
        return self.validate

    def judge(self, request: Request, /) -> Verdict:
        if request.method == b"GET":
            return self._status(request.path)
        number = request.number
        if not self.validate:
            self._remember(number, [])
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
        self._remember(number, recipients)
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
        self._known.clear()

    def _remember(self, number: int, recipients: list[str]) -> None:
        self._known[number] = recipients
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _status(self, path: bytes) -> Verdict:
        _, mark, quoted = path.partition(b"?")[0].rpartition(_STATUS)
        if not mark:
            return Verdict(405, b"", False, "method", extra=b"Allow: POST\r\n")
        smtp_id = unquote_to_bytes(quoted)
        digits = smtp_id.removeprefix(_ID)
        recipients = None
        if smtp_id != digits and digits.isdigit() and len(digits) < 18:
            recipients = self._known.get(int(digits))
        if recipients is None:
            return Verdict(404, b'{"message":"unknown smtpId"}', False, "unknown_id")
        body = {
            "smtpId": smtp_id.decode("ascii"),
            "recipients": [{"email": email, "status": "delivered"} for email in recipients],
        }
        return Verdict(200, msgspec.json.encode(body), False, "status")


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
