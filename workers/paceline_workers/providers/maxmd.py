"""MaxMD, direct secure messaging: one message per request, credentials in the body.

::

    POST …/message-rest/api/message/Send
    {"authentication": {"username", "password"}, "message": <the message's payload>}
    → {"smtpId", "message", "code", "success"}

"Sent" takes both, `code == 0` and `success is true`: configuration and business errors come with
HTTP 200 as well, as `{"code": 999, "message": "error"}`. Codes are judged only where they are
whole numbers; whatever differs from the document is ambiguous, never sent and never lost. Source:
the provider's REST document; its retry guidance is in `paceline.backoff`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import msgspec

from paceline.backoff import RetryPolicy
from paceline.payloads import check
from paceline_workers.outcome import EXCERPT_BYTES, Kind, Outcome, Reply, judge_status
from paceline_workers.providers.base import RenderedRequest

__all__ = ["TABLE", "MaxMD", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the provider's table: a reply as it comes, and what it means."""

    status: int
    body: bytes
    kind: Kind
    says: str


TABLE: tuple[Row, ...] = (
    Row(
        200,
        b'{"smtpId":"<1.a@direct.example>","message":"ok","code":0,"success":true}',
        Kind.SENT,
        "success",
    ),
    Row(
        200,
        b'{"smtpId":null,"message":"login","code":1,"success":false}',
        Kind.HELD,
        "authentication failed",
    ),
    Row(
        200,
        b'{"smtpId":null,"message":"address","code":2,"success":false}',
        Kind.REJECTED,
        "address error",
    ),
    Row(
        200,
        b'{"smtpId":null,"message":"other","code":3,"success":false}',
        Kind.RETRY,
        "other error (code 3)",
    ),
    Row(
        200,
        b'{"smtpId":null,"message":"other","code":4,"success":false}',
        Kind.RETRY,
        "other error (code 4)",
    ),
    Row(
        200,
        b'{"code":999,"message":"error"}',
        Kind.REJECTED,
        "configuration or business error (code 999)",
    ),
    Row(200, b"<html>gateway</html>", Kind.AMBIGUOUS, "the reply cannot be read"),
    Row(429, b"", Kind.THROTTLED, "HTTP 429"),
    Row(500, b"", Kind.AMBIGUOUS, "HTTP 500: crashed on an exception"),
    Row(502, b"", Kind.AMBIGUOUS, "HTTP 502: back end down"),
    Row(503, b"", Kind.UNAVAILABLE, "HTTP 503: maintenance"),
    Row(504, b"", Kind.AMBIGUOUS, "HTTP 504: back end late"),
)

# The codes that are judged alone, without a look at `success`.
_CODES: Mapping[int, Row] = MappingProxyType(
    {
        msgspec.json.decode(row.body)["code"]: row
        for row in TABLE
        if row.status == 200 and row.kind not in (Kind.SENT, Kind.AMBIGUOUS)
    }
)
_STATUSES: Mapping[int, Row] = MappingProxyType(
    {row.status: row for row in TABLE if row.status != 200}
)


class MaxMD:
    """The profile. `username` and `password` are revealed secrets; they stay in this object."""

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
    ) -> None:
        self.policy = policy
        credentials = msgspec.json.encode({"username": username, "password": password})
        self._before = b'{"authentication":' + credentials + b',"message":'
        self._headers = dict(headers)
        self._id_header = id_header
        self._max_payload_bytes = max_payload_bytes

    def __repr__(self) -> str:
        return "MaxMD()"

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:
        """The request. The payload's bytes go in as they are; `check` has made sure that they are
        one JSON document, so nothing in them can end the object they are put into.

        Raises PayloadError (also MessageTooLarge) where the payload does not fit.
        """
        check("maxmd", payload, max_payload_bytes=self._max_payload_bytes)
        headers = self._headers.copy()
        if self._id_header:
            headers[self._id_header] = message_id
        return RenderedRequest("POST", headers, b"".join((self._before, payload, b"}")))

    def judge(self, reply: Reply, now: float) -> Outcome:
        """By status, and for any 2xx by the body: its status alone says nothing here."""
        general = judge_status(reply, now)
        if not 200 <= reply.status < 300:
            row = _STATUSES.get(reply.status)
            if row is not None and general.kind is row.kind:
                return replace(general, reason=row.says)
            return general
        kind, reason, smtp_id = _judge_body(reply)
        return Outcome(
            kind=kind,
            reason=reason,
            status=reply.status,
            provider_id=smtp_id,
            body=reply.body[:EXCERPT_BYTES],
        )


def _judge_body(reply: Reply) -> tuple[Kind, str, str | None]:
    try:
        # A body cut short can still end where a number does: {"code":99 of 999 is no JSON, but
        # bytes after the cut may say anything.
        body: Any = None if reply.truncated else msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return Kind.AMBIGUOUS, "the reply cannot be read", None
    code, success = body.get("code"), body.get("success")
    if isinstance(code, bool) or not isinstance(code, int):
        return Kind.AMBIGUOUS, "the reply holds no code", None
    if code == 0 and success is True:
        smtp_id = body.get("smtpId")
        known = isinstance(smtp_id, str | int) and not isinstance(smtp_id, bool)
        return Kind.SENT, "success", str(smtp_id) if known and smtp_id != "" else None
    row = _CODES.get(code)
    if row is None or success is True:
        shown = "true" if success is True else "not true"
        return Kind.AMBIGUOUS, f"code {code} with success {shown} means nothing known", None
    text = body.get("message")
    said = f": {text[:200]}" if isinstance(text, str) and text else ""
    return row.kind, row.says + said, None
