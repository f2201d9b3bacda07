"""SparkPost's table: what each reply means, by the pair of HTTP status and error code.

Sources: the Transmissions API's reference, its list of extended error codes, and its page on
idempotency keys. Codes come as strings: `{"errors": [{"message", "code", "description"?}]}`.
"""

from __future__ import annotations

import json
from calendar import timegm
from datetime import UTC, datetime

from paceline_workers.outcome import RETRY_AFTER_CAP_S, Kind
from paceline_workers.providers.table import Row

__all__ = ["TABLE"]

_HOUR_S = 3600.0


def _to_the_hour(now: float) -> float:
    return _HOUR_S - now % _HOUR_S


def _an_hour(_: float) -> float:
    """A rolling window has no end: room comes back as what was sent a day ago leaves it. One
    request an hour finds out."""
    return _HOUR_S


def _a_day(_: float) -> float:
    return RETRY_AFTER_CAP_S


def _to_the_month(now: float) -> float:
    """No longer than a day: a plan may be changed meanwhile."""
    today = datetime.fromtimestamp(now, UTC)
    year, month = (today.year, today.month + 1) if today.month < 12 else (today.year + 1, 1)
    return min(RETRY_AFTER_CAP_S, timegm((year, month, 1, 0, 0, 0)) - now)


def _results(accepted: int, rejected: int) -> bytes:
    results = {
        "total_rejected_recipients": rejected,
        "total_accepted_recipients": accepted,
        "id": "11668787484950529",
    }
    body: dict[str, object] = {"results": results}
    if rejected:
        body["errors"] = [{"message": "transmission created, but with errors", "code": "2000"}]
        body["results"] = {"rcpt_to_errors": [{"message": "invalid", "code": "2000"}], **results}
    return json.dumps(body).encode()


def _errors(message: str, code: str = "") -> bytes:
    error = {"message": message, **({"code": code} if code else {})}
    return json.dumps({"errors": [error]}).encode()


def _row(status: int, code: str, kind: Kind, says: str, last: str = "", shown: str = "") -> Row:
    """`shown`: of a range, the code in the row's reply, where it is not the first."""
    body = _errors(says, shown or code)
    return Row(status=status, body=body, kind=kind, says=says, case=code, last=last)


def _quota(code: str, says: str, wait_s: object) -> Row:
    return Row(
        status=420,
        body=_errors(says, code),
        kind=Kind.THROTTLED,
        says=says,
        case=code,
        quota=True,
        wait_s=wait_s,  # type: ignore[arg-type]
    )


def _plain(status: int, kind: Kind, says: str) -> Row:
    return Row(status=status, body=_errors(says), kind=kind, says=says)


TABLE: tuple[Row, ...] = (
    Row(status=200, case="sent", body=_results(1, 0), kind=Kind.SENT, says="accepted"),
    Row(
        status=200,
        case="partial",
        body=_results(1, 1),
        kind=Kind.SENT,
        says="accepted but for some recipients, and SparkPost does not say which",
    ),
    Row(
        status=200,
        case="refused",
        body=_results(0, 1),
        kind=Kind.REJECTED,
        says="no recipient was accepted",
    ),
    Row(
        status=200,
        case="errors",
        body=_errors("invalid data", "1300"),
        kind=Kind.AMBIGUOUS,
        says="errors in a 200, and no results",
    ),
    Row(
        status=200,
        case="unreadable",
        body=b"<html>gateway</html>",
        kind=Kind.AMBIGUOUS,
        says="the reply cannot be read",
    ),
    # 400
    _row(400, "1200", Kind.REJECTED, "invalid parameters (1200)"),
    _row(400, "1305", Kind.REJECTED, "not UTF-8 (1305)"),
    _row(400, "1401", Kind.REJECTED, "a parameter is missing (1401)"),
    _row(400, "1502", Kind.RETRY, "out of resources, retry later (1502)"),
    _row(400, "1901", Kind.REJECTED, "the message could not be generated (1901)"),
    _row(400, "1902", Kind.REJECTED, "the message's generation was rejected (1902)"),
    _row(400, "2008", Kind.REJECTED, "the transmission is invalid (2008)"),
    _row(400, "5002", Kind.REJECTED, "no valid recipient (5002)"),
    _row(400, "7000", Kind.REJECTED, "the sending domain is blocked (7000)"),
    _row(400, "7001", Kind.REJECTED, "the sending domain is invalid (7001)"),
    _plain(400, Kind.REJECTED, "bad request"),
    # 401, 403
    *(
        _row(status, code, Kind.HELD, f"HTTP {status}, {says} ({code})")
        for status in (401, 403)
        for code, says in (
            ("1100", "permission denied"),
            ("1303", "the account is not authorized"),
            ("1304", "the user is not authorized"),
            ("1601", "no licence"),
        )
    ),
    _plain(401, Kind.HELD, "the key is not accepted"),
    _plain(403, Kind.HELD, "the key may not do this"),
    # 404, 405, 406, 415: the URL or the headers are wrong, for every message
    _row(404, "1101", Kind.HELD, "invalid URI (1101)"),
    _row(404, "1600", Kind.HELD, "resource not found (1600)"),
    _row(405, "1102", Kind.HELD, "invalid method (1102)"),
    _row(406, "1800", Kind.HELD, "a header is not acceptable (1800)"),
    _row(415, "1700", Kind.HELD, "unsupported content type (1700)"),
    _plain(404, Kind.HELD, "not found: look at the URL"),
    _plain(405, Kind.HELD, "method not allowed: look at the URL"),
    _plain(406, Kind.HELD, "not acceptable: look at the headers"),
    _plain(415, Kind.HELD, "unsupported media type: look at the headers"),
    # 409
    _row(
        409,
        "1600",
        Kind.REJECTED,
        "key conflict (1600): an earlier attempt under this key had another body. That one counts, "
        "and this one must not be sent beside it",
    ),
    _row(409, "1601", Kind.RETRY, "the first attempt under this key is in progress (1601)"),
    # 413, 420
    _plain(413, Kind.TOO_LARGE, "the request is too large"),
    _quota("2101", "hourly sending limit (2101)", _to_the_hour),
    _quota("2102", "daily sending limit, rolling (2102)", _an_hour),
    _quota("2103", "sandbox sending limit (2103)", _a_day),
    _quota("2105", "monthly sending limit (2105)", _to_the_month),
    _quota("", "a sending limit", _an_hour),
    # 422
    _row(422, "1300", Kind.REJECTED, "invalid data (1300)"),
    _row(422, "1301", Kind.REJECTED, "invalid combination of fields (1301)"),
    _row(422, "1400", Kind.REJECTED, "a field is missing (1400)"),
    _row(422, "1603", Kind.REJECTED, "a part of it was not found (1603)"),
    _row(422, "2002", Kind.REJECTED, "substitution data too large (2002)"),
    _row(422, "2004", Kind.REJECTED, "the template has no draft (2004)"),
    _row(422, "2005", Kind.REJECTED, "the template is not published (2005)"),
    _row(422, "2007", Kind.REJECTED, "the transmission's content is invalid (2007)"),
    _row(422, "3000", Kind.REJECTED, "template language (3000 to 3009)", last="3009"),
    _row(422, "3010", Kind.REJECTED, "template's MIME structure (3010 to 3039)", last="3039"),
    _row(422, "3040", Kind.REJECTED, "template's content (3040 to 3051)", "3051", "3051"),
    _plain(422, Kind.REJECTED, "it cannot be processed"),
    # 429, 5xx
    _plain(429, Kind.THROTTLED, "too many requests"),
    _row(500, "1500", Kind.AMBIGUOUS, "its database could not be written (1500)"),
    _row(500, "1501", Kind.AMBIGUOUS, "its database could not be read (1501)"),
    _row(503, "1900", Kind.UNAVAILABLE, "message generation is not available (1900)"),
    _plain(500, Kind.AMBIGUOUS, "internal error"),
    _plain(502, Kind.AMBIGUOUS, "its back end is down"),
    _plain(503, Kind.UNAVAILABLE, "not available"),
    _plain(504, Kind.AMBIGUOUS, "its back end is late"),
)
