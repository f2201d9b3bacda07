"""A webhook endpoint's table: what each reply means, by its status alone.

Source: Standard Webhooks 1.0, which leaves bodies to nobody: 2xx is success, redirects are not
followed, 410 is "never again", 429, 502 and 504 ask to slow down. A status that is not here is for
the general table.
"""

from __future__ import annotations

from paceline_workers.outcome import Kind
from paceline_workers.providers.table import Row

__all__ = ["ENDPOINTS", "GONE", "TABLE"]

#: Of a 410: whatever else its headers say.
GONE = "gone"


def _row(status: int, kind: Kind, says: str, case: str = "") -> Row:
    return Row(status=status, body=b"", kind=kind, says=says, case=case)


TABLE: tuple[Row, ...] = (
    _row(200, Kind.SENT, "received"),
    # For good: every message would be told so, until the new URL is configured.
    _row(301, Kind.HELD, "the endpoint has moved (301): put its new address in url"),
    _row(308, Kind.HELD, "the endpoint has moved (308): put its new address in url"),
    # For now: a log-in page, maintenance. After a 302 or 303 the answer is elsewhere, and the
    # request may have been processed here.
    _row(302, Kind.AMBIGUOUS, "redirected (302), which is not followed"),
    _row(303, Kind.AMBIGUOUS, "redirected (303), which is not followed"),
    _row(307, Kind.RETRY, "redirected (307), which is not followed"),
    # Of whom the message is, not of what it is: the next one would be refused as well.
    _row(401, Kind.HELD, "the signature or a header is not accepted (401): compare the secrets"),
    _row(403, Kind.HELD, "the endpoint lets nobody in (403)"),
    _row(410, Kind.HELD, "endpoint is gone", GONE),
    _row(413, Kind.TOO_LARGE, "the message is too large for the endpoint"),
    _row(429, Kind.THROTTLED, "too many requests"),
    _row(500, Kind.AMBIGUOUS, "the endpoint failed (500)"),
    _row(502, Kind.THROTTLED, "the endpoint is overloaded (502)"),
    _row(503, Kind.UNAVAILABLE, "the endpoint is not available (503)"),
    _row(504, Kind.THROTTLED, "the endpoint is overloaded (504)"),
)

_OWN: tuple[Row, ...] = (
    _row(301, Kind.RETRY, "the endpoint has moved (301): register its new address"),
    _row(308, Kind.RETRY, "the endpoint has moved (308): register its new address"),
    _row(401, Kind.RETRY, "the signature or a header is not accepted (401)"),
    _row(403, Kind.RETRY, "the endpoint lets nobody in (403)"),
    # Taken down by mistake, most often, and put up again.
    _row(404, Kind.RETRY, "nothing is there (404)"),
    _row(405, Kind.RETRY, "no POST is taken there (405)"),
    _row(410, Kind.REJECTED, "endpoint is gone", GONE),
)
_OWN_STATUSES = frozenset(row.status for row in _OWN)
#: Of a destination with many endpoints: what would hold it is the trouble of one, whose messages
#: are tried again as the schedule has it, and which is disabled where it does not end.
ENDPOINTS: tuple[Row, ...] = (*(row for row in TABLE if row.status not in _OWN_STATUSES), *_OWN)
