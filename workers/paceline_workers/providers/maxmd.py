"""MaxMD, direct secure messaging: one message per request, credentials in the body.

::

    POST …/message-rest/api/message/Send
    {"authentication": {"username", "password"}, "message": <the message's payload>}
    → {"smtpId", "message", "code", "success"}

"Sent" takes both, `code == 0` and `success is true`: configuration and business errors come with
HTTP 200 as well, as `{"code": 999, "message": "error"}`. Codes are judged only where they are
whole numbers; whatever differs from the document is ambiguous, never sent and never lost. Source:
the provider's REST document; its retry guidance is in `paceline.backoff`.

A native payload is the message, byte for byte; a neutral one is rendered: html where there is one,
else text, with the values put in. Display names, tags and metadata have no place in the API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from paceline.backoff import RetryPolicy
from paceline.payloads import read
from paceline.schemas.email import Email, rendered
from paceline_workers.outcome import EXCERPT_BYTES, Kind, Outcome, Reply
from paceline_workers.providers import maxmd_status
from paceline_workers.providers.base import RenderedRequest
from paceline_workers.providers.table import Row, Table

__all__ = ["TABLE", "MaxMD", "Row"]


def _code(code: int, message: str, kind: Kind, says: str, smtp_id: str = "null") -> Row:
    success = "true" if kind is Kind.SENT else "false"
    body = f'{{"smtpId":{smtp_id},"message":"{message}","code":{code},"success":{success}}}'
    return Row(status=200, case=str(code), body=body.encode(), kind=kind, says=says)


def _status(status: int, kind: Kind, says: str) -> Row:
    return Row(status=status, body=b"", kind=kind, says=says)


TABLE: tuple[Row, ...] = (
    _code(0, "ok", Kind.SENT, "success", '"<1.a@direct.example>"'),
    _code(1, "login", Kind.HELD, "authentication failed"),
    _code(2, "address", Kind.REJECTED, "address error"),
    _code(3, "other", Kind.RETRY, "other error (code 3)"),
    _code(4, "other", Kind.RETRY, "other error (code 4)"),
    Row(
        status=200,
        case="999",
        body=b'{"code":999,"message":"error"}',
        kind=Kind.REJECTED,
        says="configuration or business error (code 999)",
    ),
    Row(
        status=200,
        case="unreadable",
        body=b"<html>gateway</html>",
        kind=Kind.AMBIGUOUS,
        says="the reply cannot be read",
    ),
    _status(429, Kind.THROTTLED, "HTTP 429: too many requests"),
    _status(500, Kind.AMBIGUOUS, "HTTP 500: crashed on an exception"),
    _status(502, Kind.AMBIGUOUS, "HTTP 502: back end down"),
    _status(503, Kind.UNAVAILABLE, "HTTP 503: maintenance"),
    _status(504, Kind.AMBIGUOUS, "HTTP 504: back end late"),
)
_BUSINESS = ("3", "4")


class MaxMD:
    """The profile. `username` and `password` are revealed secrets; they stay in this object.

    business_errors  what codes 3 and 4 mean: "retry", bounded by the policy, or "reject"
    """

    name = "maxmd"

    def __init__(
        self,
        *,
        username: str,
        password: str,
        policy: RetryPolicy,
        headers: Mapping[str, str] = MappingProxyType({}),
        id_header: str = "",
        max_payload_bytes: int | None = None,
        business_errors: Literal["retry", "reject"] = "retry",
        table: Sequence[Row] = TABLE,
    ) -> None:
        self.policy = policy
        credentials = msgspec.json.encode({"username": username, "password": password})
        self._before = b'{"authentication":' + credentials + b',"message":'
        self._headers = dict(headers)
        self._id_header = id_header
        self._max_payload_bytes = max_payload_bytes
        if business_errors == "reject":
            table = [
                replace(row, kind=Kind.REJECTED) if row.case in _BUSINESS else row for row in table
            ]
        self._table = Table(table)

    def __repr__(self) -> str:
        return "MaxMD()"

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:
        """The request. The payload's bytes go in as they are; the check has made sure that they are
        one JSON document, so nothing in them can end the object they are put into.

        Raises PayloadError (also MessageTooLarge) where the payload does not fit.
        """
        found = read("maxmd", payload, max_payload_bytes=self._max_payload_bytes)
        message = _message(found) if isinstance(found, Email) else payload
        headers = self._headers.copy()
        if self._id_header:
            headers[self._id_header] = message_id
        return RenderedRequest("POST", headers, b"".join((self._before, message, b"}")))

    def judge(self, reply: Reply, now: float) -> Outcome:
        """By status, and for any 2xx by the body: its status alone says nothing here."""
        body = _decoded(reply)
        if not 200 <= reply.status < 300:
            return self._table.judge(reply, "", now, taken=_is_yes(body))
        if body is None:
            return self._table.judge(reply, "unreadable", now)
        code, success = body.get("code"), body.get("success")
        if isinstance(code, bool) or not isinstance(code, int):
            return _unknown(reply, "the reply holds no code")
        if (code == 0) is not (success is True) or self._table.row(200, str(code)) is None:
            shown = "true" if success is True else "not true"
            return _unknown(reply, f"code {code} with success {shown} means nothing known")
        text = body.get("message")
        words = text if isinstance(text, str) and code != 0 else ""
        outcome = self._table.judge(reply, str(code), now, detail=words)
        if outcome.kind is not Kind.SENT:
            return outcome
        smtp_id = body.get("smtpId")
        known = isinstance(smtp_id, str | int) and not isinstance(smtp_id, bool)
        return replace(outcome, provider_id=str(smtp_id) if known and smtp_id != "" else None)

    def render_status(self, provider_id: str) -> RenderedRequest:
        """GetMessageStatus. It has no body, and so no credentials but what `headers` say."""
        headers = {k: v for k, v in self._headers.items() if k.lower() != "content-type"}
        return RenderedRequest("GET", headers, b"", sibling=maxmd_status.sibling(provider_id))

    def read_status(self, reply: Reply) -> str | None:
        """Each recipient and its status."""
        return maxmd_status.read_status(reply)


def _decoded(reply: Reply) -> dict[str, Any] | None:
    """The object in the body. Of one cut short nothing is believed: {"code":99 of 999 is no JSON,
    but bytes after the cut may say anything."""
    if reply.truncated:
        return None
    try:
        body = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _is_yes(body: dict[str, Any] | None) -> bool:
    return body is not None and body.get("code") == 0 and body.get("success") is True


def _unknown(reply: Reply, reason: str) -> Outcome:
    return Outcome(
        kind=Kind.AMBIGUOUS, reason=reason, status=reply.status, body=reply.body[:EXCERPT_BYTES]
    )


def _message(email: Email) -> bytes:
    subject, text, html = rendered(email)
    recipients = [
        {"email": one.email, "type": kind}
        for kind, addresses in (("TO", email.to), ("CC", email.cc), ("BCC", email.bcc))
        for one in addresses
    ]
    message: dict[str, Any] = {
        "sender": email.sender.email,
        "recipients": recipients,
        "subject": subject,
        "body": text if html is None else html,
        "htmlBody": html is not None,
    }
    if email.reply_to is not None:
        message["replyTo"] = email.reply_to.email
    if email.attachments:
        message["attachmentList"] = [
            {"filename": one.filename, "contentType": one.content_type, "content": one.content}
            for one in email.attachments
        ]
    return msgspec.json.encode(message)
