"""SparkPost, Transmissions API: one call for one message, or for thousands of recipients.

A native payload is the body, byte for byte; a neutral one is rendered. Every request carries
`Idempotency-Key`, bare: the message's id, or the request's where it is merged; so what is repeated
is the same to the byte. Replies are judged by `sparkpost_table`.

Merged, the recipients of messages that are equal in all else stand in one transmission. SparkPost
does not say which of many it rejected, so that only messages to plain addresses are merged; any
other goes alone, where a rejection is its own. Two to one address go in two requests: whether such
a call would send both is not documented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec

from paceline.backoff import RetryPolicy
from paceline.payloads import read
from paceline.schemas.email import Address, Email
from paceline.schemas.sparkpost import RESERVED
from paceline_workers.outcome import Kind, Outcome, Reply, http_date
from paceline_workers.providers.base import Portion, RenderedRequest
from paceline_workers.providers.neutral import NEUTRAL, Peeler, texts
from paceline_workers.providers.sparkpost_table import TABLE
from paceline_workers.providers.splice import Splicer
from paceline_workers.providers.table import Row, Table

__all__ = ["TABLE", "SparkPost"]

_encode = msgspec.json.encode
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`|~-]+"
_LABEL = r"[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
# What SparkPost takes without a doubt.
_is_plain = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+").fullmatch


class _Mailbox(msgspec.Struct):
    email: str


class _Recipient(msgspec.Struct):
    address: str | _Mailbox


_recipient = msgspec.json.Decoder(_Recipient).decode


class SparkPost:
    """The profile. `headers` hold the key and are revealed; `repr` does not show them."""

    name = "sparkpost"

    def __init__(
        self,
        *,
        policy: RetryPolicy,
        headers: Mapping[str, str] = MappingProxyType({}),
        id_header: str = "",
        idempotency_key: bool = True,
        max_payload_bytes: int | None = None,
        table: Sequence[Row] = TABLE,
    ) -> None:
        self.policy = policy
        self._headers = dict(headers)
        self._id_header = id_header
        own_key = any(name.lower() == "idempotency-key" for name in headers)
        self._key = idempotency_key and not own_key
        self._max_payload_bytes = max_payload_bytes
        self._table = Table(table)
        # `portion` reads the element, which is one value then.
        self._splicer = Splicer("/recipients", is_one=lambda _: True)
        self._peeler = Peeler("sparkpost", _shared, shared_metadata=False, reserved=RESERVED)

    def __repr__(self) -> str:
        return "SparkPost()"

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:
        """The request for one message. Raises PayloadError (also MessageTooLarge)."""
        found = read("sparkpost", payload, max_payload_bytes=self._max_payload_bytes)
        body = _body(found) if isinstance(found, Email) else payload
        return self.render_merged(message_id, body)

    def render_merged(self, request_id: str, body: bytes) -> RenderedRequest:
        """The request from its body; `request_id` is its key."""
        headers = self._headers.copy()
        if self._id_header:
            headers[self._id_header] = request_id
        if self._key:
            headers["Idempotency-Key"] = request_id
        return RenderedRequest("POST", headers, body)

    def portion(self, payload: bytes) -> Portion | None:
        """The recipient, and the transmission around it. None for a message to none or several
        recipients, or to an address that SparkPost might reject. Raises PayloadError."""
        if payload.startswith(NEUTRAL):
            member = self._peeler.peel(payload)
            if member is None or not _is_plain(member.to.email):
                return None
            part = _neutral_recipient(
                member.to, texts(member.values), member.tags, texts(member.metadata)
            )
            return Portion(member.shared, part, apart=member.to.email.lower().encode())
        split = self._splicer.split(payload)
        if split is None:
            return None
        around, element = split
        try:
            address = _recipient(element).address
            # What is skipped over is not looked at that closely.
            element.decode()
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        email = address if isinstance(address, str) else address.email
        if not _is_plain(email):
            return None
        return Portion(around, element, apart=email.lower().encode())

    def join(self, shared: tuple[bytes, ...], parts: Sequence[bytes]) -> bytes:
        """The transmission to all of them."""
        before, after = shared
        return b"".join((before, b",".join(parts), after))

    def judge(self, reply: Reply, now: float) -> Outcome:
        """By the pair of status and error code; a 2xx by its counts."""
        return self._judge(reply, now, None)

    def judge_merged(self, reply: Reply, now: float, count: int) -> Outcome:
        """As `judge`. Of a key conflict each member has its part: the earlier attempt may have been
        for all of them, and none may be sent in a smaller request."""
        outcome = self._judge(reply, now, count)
        if outcome.kind is Kind.REJECTED and (reply.status == 409 or reply.status < 300):
            return replace(outcome, parts=(outcome,) * count)
        return outcome

    def _judge(self, reply: Reply, now: float, count: int | None) -> Outcome:
        body = _decoded(reply)
        date = reply.header("date") if reply.status == 420 else None
        said_at = http_date(date.strip(), now) if date else None
        code, detail = _error(body)
        if reply.status >= 300:
            if _is_replayed(reply):
                detail = f"answered again, as to the first attempt under this key; {detail}"
            taken = _counted(body, count)[0] in ("sent", "partial")
            return self._table.judge(reply, code, now, detail=detail, said_at=said_at, taken=taken)
        case, transmission_id, missing = _counted(body, count)
        if case == "partial":
            detail = f"{missing} not accepted" + (f"; {detail}" if detail else "")
        outcome = self._table.judge(reply, case, now, detail=detail)
        if outcome.kind is Kind.SENT:
            return replace(outcome, provider_id=transmission_id, partial=missing)
        return outcome


def _decoded(reply: Reply) -> Any:
    if reply.truncated:
        return None
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _error(body: Any) -> tuple[str, str]:
    """(code, words) of the first error; "" where they are not there."""
    errors = body.get("errors") if isinstance(body, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return "", ""
    code = first.get("code")
    if isinstance(code, int) and not isinstance(code, bool):
        code = str(code)
    words = [text for key in ("message", "description") if isinstance(text := first.get(key), str)]
    return code if isinstance(code, str) else "", ", ".join(words)


def _counted(body: Any, count: int | None) -> tuple[str, str | None, int]:
    """(case, transmission's id, recipients not accepted) of a 2xx. `count`: recipients that were
    asked for, where that is known."""
    results = body.get("results") if isinstance(body, dict) else None
    if not isinstance(results, dict):
        return "errors" if isinstance(body, dict) and body.get("errors") else "unreadable", None, 0
    accepted = _count(results.get("total_accepted_recipients"))
    rejected = _count(results.get("total_rejected_recipients"))
    if accepted is None or rejected is None:
        return "unreadable", None, 0
    said = results.get("id")
    known = isinstance(said, str | int) and not isinstance(said, bool) and said != ""
    missing = max(rejected, 0 if count is None else count - accepted)
    if accepted == 0:
        return "refused" if rejected else "unreadable", None, 0
    return "partial" if missing else "sent", str(said) if known else None, missing


def _count(value: Any) -> int | None:
    counts = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if counts else None


def _is_replayed(reply: Reply) -> bool:
    return (reply.header("x-idempotent-replayed") or "").strip().lower() == "true"


# --- a neutral e-mail as a transmission ---


def _shared(email: Email) -> tuple[bytes, ...]:
    """What messages to one recipient each have in common: the body around the recipients."""
    return b'{"recipients":[', b'],"content":' + _encode(_content(email)) + b"}"


def _body(email: Email) -> bytes:
    before, after = _shared(email)
    every = [*email.to, *email.cc, *email.bcc]
    # To one alone SparkPost writes the header itself.
    header_to = ", ".join(map(str, email.to)) if len(every) > 1 else ""
    tags = _encode(email.tags) if email.tags else b""
    recipients = (
        _neutral_recipient(one, email.substitution, tags, email.metadata, header_to)
        for one in every
    )
    return b"".join((before, b",".join(recipients), after))


def _neutral_recipient(
    address: Address,
    values: Mapping[str, str],
    tags: bytes,
    metadata: Mapping[str, str],
    header_to: str = "",
) -> bytes:
    mailbox = {"email": address.email}
    if header_to:
        mailbox["header_to"] = header_to
    elif address.name:
        mailbox["name"] = address.name
    pieces = [b'{"address":', _encode(mailbox)]
    if values:
        pieces += (b',"substitution_data":', _encode(values))
    if tags:
        pieces += (b',"tags":', tags)
    if metadata:
        pieces += (b',"metadata":', _encode(metadata))
    pieces.append(b"}")
    return b"".join(pieces)


def _content(email: Email) -> dict[str, Any]:
    if email.template is not None:
        return {"template_id": email.template}
    sender = {"email": email.sender.email}
    if email.sender.name:
        sender["name"] = email.sender.name
    content: dict[str, Any] = {"from": sender, "subject": email.subject}
    if email.reply_to is not None:
        content["reply_to"] = str(email.reply_to)
    headers = dict(email.headers)
    if email.cc:
        headers["CC"] = ", ".join(map(str, email.cc))
    if headers:
        content["headers"] = headers
    if email.text is not None:
        content["text"] = email.text
    if email.html is not None:
        content["html"] = email.html
    for field, inline in (("attachments", False), ("inline_images", True)):
        files = [
            {"name": one.content_id or one.filename, "type": one.content_type, "data": one.content}
            for one in email.attachments
            if bool(one.content_id) is inline
        ]
        if files:
            content[field] = files
    return content
