"""Mailgun's table: what each reply means, by its status and, for some, its words.

Source: Mailgun's API reference. Errors come as `{"message": "…"}`.
"""

from __future__ import annotations

import json

from paceline_workers.outcome import Kind
from paceline_workers.providers.table import Row

__all__ = ["LARGE_BATCHES", "TABLE"]

#: What a 403 says to an account that is too new for them.
LARGE_BATCHES = "large batches"


def _row(
    status: int, message: str, kind: Kind, says: str, case: str = "", most: int | None = None
) -> Row:
    return Row(
        status=status,
        body=json.dumps({"message": message}).encode(),
        kind=kind,
        says=says,
        case=case,
        most_retries=most,
        # By the peer's clock it is 20:33:01.
        headers={"Date": "Mon, 20 Dec 2021 20:33:01 GMT"} if case == "until" else {},
    )


TABLE: tuple[Row, ...] = (
    Row(
        status=200,
        case="sent",
        body=b'{"id":"<20211220.1@mail.example>","message":"Queued. Thank you."}',
        kind=Kind.SENT,
        says="queued",
    ),
    Row(
        status=200,
        case="unreadable",
        body=b"<html>gateway</html>",
        kind=Kind.AMBIGUOUS,
        says="the reply holds no id",
    ),
    _row(400, "to parameter is not a valid address", Kind.REJECTED, "bad request"),
    _row(401, "Forbidden", Kind.HELD, "the key is not accepted"),
    _row(402, "Request failed", Kind.HELD, "the account must be looked at (402)"),
    _row(403, "Forbidden", Kind.HELD, "the account may not do this"),
    _row(
        403,
        "Domain mail.example is not allowed to send large batches yet",
        Kind.TOO_LARGE,
        "the account may not send so many at once yet",
        LARGE_BATCHES,
    ),
    # Seen for domains that exist; a message must not wait for one that does not.
    _row(404, "Domain not found", Kind.RETRY, "not found, which can be temporal", most=2),
    _row(413, "Request Entity Too Large", Kind.TOO_LARGE, "the request is too large"),
    _row(
        429,
        "Domain mail.example recipient limit exceeded, "
        "try again after Mon, 20 Dec 2021 20:33:21 UTC",
        Kind.THROTTLED,
        "a limit until the time it names",
        "until",
    ),
    _row(429, "Too many requests", Kind.THROTTLED, "too many requests"),
    _row(500, "Internal Server Error", Kind.AMBIGUOUS, "internal error"),
    _row(502, "Bad Gateway", Kind.AMBIGUOUS, "its back end is down"),
    _row(503, "Service Unavailable", Kind.UNAVAILABLE, "not available"),
    _row(504, "Gateway Timeout", Kind.AMBIGUOUS, "its back end is late"),
)
