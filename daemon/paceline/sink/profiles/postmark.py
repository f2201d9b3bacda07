"""Postmark's Email API: single and in batches, with a result for every item inside a 200."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from paceline.sink.addresses import code_wanted, mailboxes
from paceline.sink.answers import Request, Rows, Verdict, When, is_json, matches

MOST_MESSAGES = 500
MOST_RECIPIENTS = 50
MOST_BODY_BYTES = 50_000_000

_ITEM_CODES = ("300", "400", "401", "405", "406", "412", "413")
_ROWS = Rows(
    # Refused item by item, inside a 200.
    ((200,), _ITEM_CODES),
    ((401,), ("10",)),
    ((404, 405, 413), ()),
    ((415,), ("409",)),
    ((422,), (*_ITEM_CODES, "402", "403", "409", "410", "411")),
    ((429,), ("429",)),
    ((500, 502, 504), ()),
    ((503,), ("100",)),
)
_MESSAGES = {
    10: "Bad or missing Server API token.",
    100: "The Postmark API is offline for maintenance.",
    300: "Invalid email request",
    400: "The 'From' address you supplied is not a Sender Signature on your account.",
    401: "The 'From' address you supplied is not a confirmed Sender Signature.",
    402: "Received invalid JSON input.",
    403: "Invalid JSON for this endpoint.",
    405: "You ran out of credits.",
    406: (
        "You tried to send to recipient(s) that have been marked as inactive. Found inactive "
        "addresses: {}. Inactive recipients are ones that have generated a hard bounce, a spam "
        "complaint, or a manual suppression."
    ),
    409: "Your HTTP request does not have the Content-Type header set to application/json.",
    410: "You're trying to send more than 500 messages in one batch.",
    411: "Forbidden attachment type.",
    412: "Your account is pending approval.",
    413: "Your account may not send.",
    429: "Rate limit exceeded.",
}


class _Header(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    name: str
    value: str


class _Attachment(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    name: str
    content: bytes  # base64 in JSON; msgspec refuses what does not decode
    content_type: str
    content_id: str | None = msgspec.field(name="ContentID", default=None)


class _Message(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    sender: str = msgspec.field(name="From", default="")
    to: str = ""
    cc: str = ""
    bcc: str = ""
    subject: str = ""
    text_body: str = ""
    html_body: str = ""
    reply_to: str = ""
    tag: str | None = None
    headers: list[_Header] = []
    attachments: list[_Attachment] = []
    metadata: dict[str, str] = {}
    message_stream: str | None = None
    track_opens: bool | None = None
    track_links: str | None = None


_decode_one: Callable[[bytes], _Message] = msgspec.json.Decoder(_Message).decode
_decode_batch: Callable[[bytes], list[_Message]] = msgspec.json.Decoder(list[_Message]).decode


@dataclass(frozen=True, slots=True)
class Postmark:
    """``POST /email`` and ``/email/batch``. ``api_key`` None accepts any server token.

    A message with an address that begins with ``marker`` is refused: with ErrorCode 406 (inactive),
    or with the number that follows the marker (``reject-300@…``). In a batch the others are
    accepted. With ``validate=False`` nothing is checked, every message counts as one recipient,
    and messages are counted by the bytes ``"To":``.
    """

    api_key: str | None = None
    marker: str = "reject-"
    validate: bool = True
    name: str = "postmark"
    methods: frozenset[bytes] = frozenset((b"POST",))
    headers: frozenset[bytes] = frozenset((b"x-postmark-server-token",))
    rows: tuple[str, ...] = _ROWS.names

    @property
    def reads_body(self) -> bool:
        return True

    def judge(self, request: Request, /) -> Verdict:
        path = request.path.partition(b"?")[0]
        batch = path == b"/email/batch"
        if not self.validate:
            count = request.body.count(b'"To":')
            items = b",".join(_good(request.number, n, "") for n in range(count))
            body = b"[%s]" % items if batch else items
            return Verdict(200, body, True, recipients=count)
        if not batch and path != b"/email":
            return Verdict(404, b'{"Message":"not found"}', False, "path")
        token = request.headers.get(b"x-postmark-server-token", b"").decode("latin-1")
        if not matches(token, self.api_key):
            return _refused(401, 10, "authentication")
        if not is_json(request.content_type):
            return _refused(415, 409, "media_type")
        if len(request.body) > MOST_BODY_BYTES:
            return _refused(413, None, "too_large")
        try:
            messages = _decode_batch(request.body) if batch else [_decode_one(request.body)]
        except msgspec.ValidationError as exc:
            return _refused(422, 403, "malformed", str(exc))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _refused(422, 402, "malformed")
        if len(messages) > MOST_MESSAGES:
            return _refused(422, 410, "too_many")
        return self._judge(messages, request.number, batch)

    def row(self, name: str, good: Verdict, _when: When, /) -> Verdict:
        status, code = _ROWS.find(self.name, name)
        if status == 200 and code is not None:
            return Verdict(200, self.business(int(code), good), False)
        return _refused(status, int(code) if code is not None else None, name)

    def business(self, code: int, good: Verdict, /) -> bytes:
        refused = _bad(code, "")
        if not good.body.startswith(b"["):
            return refused
        return b"[%s]" % b",".join([refused] * len(msgspec.json.decode(good.body)))

    def reset(self) -> None:
        """Nothing is remembered."""

    def _judge(self, messages: list[_Message], number: int, batch: bool) -> Verdict:
        items: list[bytes] = []
        accepted: list[str] = []
        exposed = 0
        for n, message in enumerate(messages):
            try:
                to, others = _recipients(message, self.marker)
            except _Refused as exc:
                items.append(_bad(exc.code, str(exc)))
                continue
            items.append(_good(number, n, message.to))
            accepted += to + others
            exposed += len(to) if len(to) > 1 else 0
        refused = len(messages) - sum(b'"ErrorCode":0' in item for item in items)
        body = b"[%s]" % b",".join(items) if batch else items[0]
        status = 422 if refused and not batch else 200
        name = "ok" if not refused else "partly_rejected" if accepted else "rejected"
        return Verdict(
            status,
            body,
            bool(accepted),
            name,
            recipients=len(accepted),
            addresses=accepted,
            exposed=exposed,
        )


class _Refused(Exception):
    """One message is refused, with an ErrorCode."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code


def _recipients(message: _Message, marker: str) -> tuple[list[str], list[str]]:
    """The addresses in To, and those in Cc and Bcc. Raises _Refused."""
    if not message.sender or mailboxes(message.sender) is None:
        raise _Refused(300, "Invalid 'From' address.")
    if not message.to:
        raise _Refused(300, "Zero recipients specified")
    groups: list[list[str]] = []
    for name, text in (("To", message.to), ("Cc", message.cc), ("Bcc", message.bcc)):
        boxes = mailboxes(text) if text else []
        if boxes is None:
            raise _Refused(300, f"Error parsing '{name}': Illegal email address.")
        groups.append(boxes)
    to, others = groups[0], groups[1] + groups[2]
    if len(to) + len(others) > MOST_RECIPIENTS:
        raise _Refused(300, "Maximum of 50 recipients allowed per email message.")
    for address in to + others:
        code = code_wanted(address, marker)
        if code is not None:
            raise _Refused(code or 406, _MESSAGES[406].format(address) if not code else "")
    if not message.text_body and not message.html_body:
        raise _Refused(300, "Provide either email TextBody or HtmlBody or both.")
    for header in message.headers:
        if any(sign in header.name + header.value for sign in "\r\n\0"):
            raise _Refused(300, "Invalid header.")
    return to, others


def _good(number: int, item: int, to: str) -> bytes:
    return msgspec.json.encode(
        {
            "To": to,
            "SubmittedAt": "2021-12-20T20:33:21.0000000Z",
            "MessageID": f"5eed0000-0000-4000-{item:04x}-{number:012x}",
            "ErrorCode": 0,
            "Message": "OK",
        }
    )


def _bad(code: int, message: str) -> bytes:
    text = message or _MESSAGES.get(code, f"error {code}").replace("{}", "unknown")
    return msgspec.json.encode({"ErrorCode": code, "Message": text})


def _refused(status: int, code: int | None, name: str, message: str = "") -> Verdict:
    if code is None:
        return Verdict(status, b'{"Message":"HTTP %d"}' % status, False, name)
    return Verdict(status, _bad(code, message), False, name)
