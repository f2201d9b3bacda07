"""Mailgun's Messages API."""

from __future__ import annotations

import base64
import binascii
import re
import time
from dataclasses import dataclass

import msgspec

from paceline.sink.answers import Request, Rows, Verdict, When, matches
from paceline.sink.forms import URLENCODED, FormError, fields
from paceline.sink.profiles.mailgun_form import Refusal, read_message, read_mime

_PATH = re.compile(rb"/v3/([A-Za-z0-9.-]+)/messages(\.mime)?\Z")
_RECIPIENTS = (b"to=", b"cc=", b"bcc=")

_ROWS = Rows(
    ((400, 401, 402, 404, 413, 420, 500, 502, 503, 504), ()),
    ((403,), ("large-batches",)),
    ((429,), ("limit-exceeded", "too-many-requests")),
)
_MESSAGES = {
    400: "'from' parameter is not a valid address. please check documentation",
    402: "Payment required. Please check your billing status",
    403: "Domain is not allowed to send. Please contact support",
    404: "Domain not found",
    413: "Message exceeds the maximum size",
    420: "Domain is not allowed to send: recipient limit exceeded",
    500: "Internal Server Error",
}
_LARGE_BATCHES = "Your account is not allowed to send large batches yet"
_LIMITED_S = 60.0


@dataclass(frozen=True, slots=True)
class Mailgun:
    """``POST /v3/DOMAIN/messages`` and ``/messages.mime``, url-encoded or multipart.

    ``api_key`` None accepts any key that is not empty, as the password of ``api``. An address that
    begins with ``marker`` is as bad as a malformed one: the whole call is refused. Several To
    addresses without ``recipient-variables`` see one another: they are counted as exposed.

    With ``validate=False`` nothing is checked and recipients are counted by the at-signs in the
    fields ``to``, ``cc`` and ``bcc``.
    """

    api_key: str | None = None
    marker: str = "reject-"
    validate: bool = True
    name: str = "mailgun"
    methods: frozenset[bytes] = frozenset((b"POST",))
    headers: frozenset[bytes] = frozenset((b"authorization",))
    rows: tuple[str, ...] = _ROWS.names

    @property
    def reads_body(self) -> bool:
        return True

    def judge(self, request: Request, /) -> Verdict:
        target = _PATH.match(request.path.partition(b"?")[0])
        if not self.validate:
            domain = target[1] if target is not None else b"sink"
            return _queued(request.number, domain, _count(request))
        if target is None:
            return Verdict(404, b"404 page not found\n", False, "path", content_type=b"text/plain")
        if not self._knows(request.headers.get(b"authorization", b"")):
            return Verdict(401, b"Forbidden", False, "authentication", content_type=b"text/plain")
        try:
            form = fields(request.body, request.content_type)
            read = read_mime if target[2] else read_message
            envelope = read(form, self.marker)
        except FormError as exc:
            return _refused(400, str(exc), "malformed")
        except Refusal as exc:
            return _refused(exc.status, str(exc), exc.name)
        recipients = envelope.recipients
        good = _queued(request.number, target[1], len(recipients))
        return msgspec.structs.replace(good, addresses=recipients, exposed=envelope.exposed)

    def row(self, name: str, _good: Verdict, when: When, /) -> Verdict:
        status, code = _ROWS.find(self.name, name)
        if status == 401:
            return Verdict(401, b"Forbidden", False, name, content_type=b"text/plain")
        if code == "too-many-requests":
            return _refused(429, "Too many requests", name)
        if status == 429:
            # No Retry-After: the time stands in the text.
            wait_s = _LIMITED_S if when.wait_s is None else when.wait_s
            again = time.gmtime(-(-(when.wall_s + wait_s) // 1))
            text = time.strftime("%a, %d %b %Y %H:%M:%S UTC", again)
            what = "Domain sink.example: sending limit exceeded"
            return _refused(429, f"{what}, try again after {text}", name)
        if code == "large-batches":
            return _refused(status, _LARGE_BATCHES, name)
        return _refused(status, _MESSAGES.get(status, f"HTTP {status}"), name)

    def business(self, code: int, _good: Verdict, /) -> bytes:
        # What it says to requests it does not understand, with a 200.
        return b'{"message":"Mailgun Magnificent API %d"}' % code

    def reset(self) -> None:
        """Nothing is remembered."""

    def _knows(self, authorization: bytes) -> bool:
        scheme, _, coded = authorization.partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            user, _, key = base64.b64decode(coded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return user == "api" and matches(key, self.api_key)


def _queued(number: int, domain: bytes, recipients: int) -> Verdict:
    body = b'{"id":"<20211220203321.%d.5EED@%s>","message":"Queued. Thank you."}'
    return Verdict(200, body % (number, domain), True, recipients=recipients)


def _refused(status: int, message: str, name: str) -> Verdict:
    return Verdict(status, msgspec.json.encode({"message": message}), False, name)


def _count(request: Request) -> int:
    if request.content_type.partition(b";")[0].strip().lower() == URLENCODED:
        parts = [part for part in request.body.split(b"&") if part.startswith(_RECIPIENTS)]
        return sum(part.count(b"%40") + part.count(b"@") for part in parts)
    try:
        form = fields(request.body, request.content_type)
    except FormError:
        return 0
    return sum(field.value.count(b"@") for field in form if field.name in ("to", "cc", "bcc"))
