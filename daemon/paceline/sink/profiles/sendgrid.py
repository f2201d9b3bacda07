"""SendGrid's v3 Mail Send API."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from paceline.sink.addresses import code_wanted, is_address
from paceline.sink.answers import Request, Rows, Verdict, When, is_json, matches

MOST_PERSONALIZATIONS = 1000
MOST_RECIPIENTS = 1000
MOST_BODY_BYTES = 30_000_000
LIMIT_PER_S = 10_000

_ROWS = Rows(((400, 401, 403, 404, 405, 406, 413, 415, 429, 451, 500, 502, 503, 504), ()))
_MESSAGES = {
    400: "Bad Request",
    401: "The provided authorization grant is invalid, expired, or revoked",
    403: "too many bad requests",
    413: "The JSON payload you have included in your request is too large.",
    415: "unsupported media type",
    429: "too many requests",
}


class _Party(msgspec.Struct, forbid_unknown_fields=True):
    email: str
    name: str | None = None


class _Personalization(msgspec.Struct, forbid_unknown_fields=True):
    to: list[_Party]
    cc: list[_Party] = []
    bcc: list[_Party] = []
    sender: _Party | None = msgspec.field(name="from", default=None)
    subject: str | None = None
    headers: dict[str, str] | None = None
    substitutions: dict[str, str] | None = None
    dynamic_template_data: dict[str, object] | None = None
    custom_args: dict[str, str] | None = None
    send_at: int | None = None


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    value: str


class _Attachment(msgspec.Struct, forbid_unknown_fields=True):
    content: bytes  # base64 in JSON; msgspec refuses what does not decode
    filename: str
    type: str | None = None
    disposition: str | None = None
    content_id: str | None = None


class _Mail(msgspec.Struct, forbid_unknown_fields=True):
    personalizations: list[_Personalization]
    sender: _Party = msgspec.field(name="from")
    subject: str | None = None
    content: list[_Content] | None = None
    reply_to: _Party | None = None
    reply_to_list: list[_Party] | None = None
    attachments: list[_Attachment] | None = None
    template_id: str | None = None
    headers: dict[str, str] | None = None
    categories: list[str] | None = None
    custom_args: dict[str, str] | None = None
    send_at: int | None = None
    batch_id: str | None = None
    asm: dict[str, object] | None = None
    ip_pool_name: str | None = None
    mail_settings: dict[str, object] | None = None
    tracking_settings: dict[str, object] | None = None


_decode: Callable[[bytes], _Mail] = msgspec.json.Decoder(_Mail).decode


class Window:
    """How much of the limit is left in this second. Counts; it is the sink's own limit, where one
    is asked for, that turns requests away."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._second = 0
        self._used = 0

    def headers(self, left: int | None = None) -> bytes:
        """The header lines, one request more counted; ``left`` overrides what remains."""
        second = math.floor(self._clock())
        if second != self._second:
            self._second, self._used = second, 0
        self._used += 1
        remaining = max(0, LIMIT_PER_S - self._used) if left is None else left
        return (
            b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n"
            % (LIMIT_PER_S, remaining, second + 1)
        )


@dataclass(frozen=True, slots=True)
class SendGrid:
    """``POST /v3/mail/send``: 202 without a body, the id in a header.

    ``api_key`` None accepts any bearer token that is not empty. An address that begins with
    ``marker`` makes the whole call a bad request. With ``validate=False`` nothing is checked and
    recipients are counted by the bytes ``"email":``, one for the sender left out, and one for each
    ``"reply_to":``.
    """

    api_key: str | None = None
    marker: str = "reject-"
    validate: bool = True
    window: Window = field(default_factory=Window)
    name: str = "sendgrid"
    methods: frozenset[bytes] = frozenset((b"POST",))
    headers: frozenset[bytes] = frozenset((b"authorization",))
    rows: tuple[str, ...] = _ROWS.names

    @property
    def reads_body(self) -> bool:
        return True

    def judge(self, request: Request, /) -> Verdict:
        if not self.validate:
            found = request.body.count(b'"email":') - request.body.count(b'"reply_to":')
            return self._accepted(request.number, max(0, found - 1))
        if request.path.partition(b"?")[0] != b"/v3/mail/send":
            return self._refused(404, "not found", "path")
        scheme, _, token = request.headers.get(b"authorization", b"").partition(b" ")
        if scheme != b"Bearer" or not matches(token.decode("latin-1"), self.api_key):
            return self._refused(401, _MESSAGES[401], "authentication")
        if not is_json(request.content_type):
            return self._refused(415, _MESSAGES[415], "media_type")
        if len(request.body) > MOST_BODY_BYTES:
            return self._refused(413, _MESSAGES[413], "too_large")
        try:
            mail = _decode(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return self._refused(400, str(exc), "malformed")
        recipients = [party.email for block in mail.personalizations for party in _parties(block)]
        wrong = _wrong(mail, recipients, self.marker)
        if wrong is not None:
            return self._refused(400, wrong[1], "malformed", wrong[0])
        # Those of one personalization get one message: its To addresses see one another.
        exposed = sum(len(block.to) for block in mail.personalizations if len(block.to) > 1)
        good = self._accepted(request.number, len(recipients))
        return msgspec.structs.replace(good, addresses=recipients, exposed=exposed)

    def row(self, name: str, _good: Verdict, _when: When, /) -> Verdict:
        status, _ = _ROWS.find(self.name, name)
        return self._refused(status, _MESSAGES.get(status, f"HTTP {status}"), name)

    def business(self, code: int, _good: Verdict, /) -> bytes:
        return _errors(f"error {code}")

    def reset(self) -> None:
        """Nothing is remembered but the second under way."""

    def _accepted(self, number: int, recipients: int) -> Verdict:
        extra = b"X-Message-Id: sink-%d\r\n" % number + self.window.headers()
        return Verdict(202, b"", True, recipients=recipients, extra=extra)

    def _refused(self, status: int, message: str, name: str, where: str | None = None) -> Verdict:
        limits = self.window.headers(0 if status == 429 else None)
        return Verdict(status, _errors(message, where), False, name, extra=limits)


def _parties(block: _Personalization) -> list[_Party]:
    return [*block.to, *block.cc, *block.bcc]


def _wrong(mail: _Mail, recipients: list[str], marker: str) -> tuple[str, str] | None:
    """What is wrong, and in which field; None where nothing is."""
    blocks = mail.personalizations
    if not blocks:
        return "personalizations", "You must have at least one personalization."
    if len(blocks) > MOST_PERSONALIZATIONS:
        return "personalizations", (
            "The personalization block is limited to 1000 personalizations per API request. "
            f"You have provided {len(blocks)} personalizations."
        )
    if len(recipients) > MOST_RECIPIENTS:
        return "personalizations", (
            "There is a limit of 1000 total recipients (to + cc + bcc) per request."
        )
    if not is_address(mail.sender.email):
        return "from.email", "The from email does not contain a valid address."
    for number, block in enumerate(blocks):
        where = f"personalizations.{number}"
        if not block.to:
            return f"{where}.to", "The to array is required for all personalization objects"
        for party in _parties(block):
            if not is_address(party.email) or code_wanted(party.email, marker) is not None:
                return f"{where}.to.0.email", "Does not contain a valid address."
        addresses = [party.email.lower() for party in _parties(block)]
        if len(set(addresses)) < len(addresses):
            return where, (
                "Each email address in the personalization block should be unique "
                "between to, cc, and bcc."
            )
        if mail.template_id is None and not (mail.subject or block.subject):
            return "subject", "The subject is required."
    if mail.template_id is None and not mail.content:
        return "content", "The content is required unless a template is given."
    if any(not content.value for content in mail.content or ()):
        return "content.0.value", "The content value must be a string at least one character long."
    return None


def _errors(message: str, where: str | None = None) -> bytes:
    return msgspec.json.encode({"errors": [{"message": message, "field": where, "help": None}]})
