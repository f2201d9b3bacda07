"""Reply or failure in, outcome out: judged by whether the provider **may have acted**.

Two steps, both pure:

1. `judge_failure` and `judge_status` (or a provider's profile) say what happened: an `Outcome`.
   Its kind answers one question first: can the request have been processed?
2. `dispose` says what becomes of the message: a `Disposition`, from the outcome, the attempts
   charged so far and the retry policy.

The wrong answer is never free: "not processed" said too early sends a message twice, said too late
loses its chance to be sent again without harm. So everything unproven is ambiguous.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from paceline.backoff import RetryPolicy, delay_s, throttle_delay_s, unavailable_delay_s
from paceline.names import Health

__all__ = [
    "EXCERPT_BYTES",
    "GUARDED",
    "PROXY_AUTH",
    "RETRY_AFTER_CAP_S",
    "STATUSES",
    "Action",
    "Disposition",
    "Failure",
    "Kind",
    "Outcome",
    "Phase",
    "Reply",
    "dispose",
    "http_date",
    "judge_failure",
    "judge_status",
    "parse_retry_after",
    "status_kind",
]

# Of a reply's body, this much goes on record with the attempt.
EXCERPT_BYTES = 2048

# A peer that says "in ten years", by mistake or malice, must not stop a destination for ten years.
# A day is the longest wait a provider documents (a rolling 24 h quota).
RETRY_AFTER_CAP_S = 86_400.0


class Kind(StrEnum):
    """What an attempt came to.

    SENT         the provider said yes
    RETRY        provably not processed: another try cannot make a duplicate
    AMBIGUOUS    it may have been processed
    REJECTED     the provider refuses this message, and would again
    TOO_LARGE    refused for its size, not processed: a merged request is split, a lone message is
                 a dead letter
    THROTTLED    the destination is to wait; this request was not processed
    UNAVAILABLE  a 503 without Retry-After: the message waits, uncharged
    HELD         the destination is misconfigured or locked out: a person must look
    """

    SENT = "sent"
    RETRY = "retry"
    AMBIGUOUS = "ambiguous"
    REJECTED = "rejected"
    TOO_LARGE = "too_large"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP response: its final status, headers (any case), body, and whether the body is
    cut (by our cap, or by a connection that ended early)."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    truncated: bool = False

    def header(self, name: str) -> str | None:
        """The header's value, whatever the case of its name; None where it is missing."""
        # Looked up for failures only: a scan there is cheaper than a copy for every reply.
        wanted = name.lower()
        return next((v for k, v in self.headers.items() if k.lower() == wanted), None)


Phase = Literal["connect", "write", "read"]

#: The cause where a proxy opens no tunnel for want of credentials (407).
PROXY_AUTH = "proxy-auth"
#: The cause where the destination's guard lets none of the addresses through.
GUARDED = "guarded"


@dataclass(frozen=True, slots=True)
class Failure:
    """There was no whole response.

    phase       "connect": not a byte of the request was given to the system (DNS, TCP, TLS, or a
                kept connection found dead before the write); "write"; "read"
    cause       "dns", "refused", "connect-timeout", "tls", "reset", "eof", "timeout", "deadline",
                "unreadable", "proxy", "guarded", …: goes into the reason
    unreceived  the peer's system provably got nothing. Believed for a clean "eof" only: after a
                reset the counters prove nothing (seen: 700 bytes read by the peer, counter 0), and
                after a time-out the bytes may still be on their way
    detail      the library's own words, for the record
    """

    phase: Phase
    cause: str
    unreceived: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one attempt came to.

    reason         one line for people
    status         HTTP status, None where there was no response
    provider_id    the provider's own id of the message
    retry_after_s  seconds, a minimum the peer asked for; None where it asked for none
    body           the reply's first EXCERPT_BYTES
    outage         it speaks of the destination's health, not of this message: connection failures,
                   502, 503, 504, time-outs. Free of charge while the destination is suspect
    quota          throttled by a quota: the wait is long
    parts          of a merged request, what became of each member, in their order; empty where
                   `kind` holds for all of them
    partial        of a request's recipients, how many were not accepted where the provider does not
                   say which; the others were
    unheard        nobody at the provider was asked: it says nothing of its health
    most_retries   fewer charged retries than the policy allows, None for the policy's own
    """

    kind: Kind
    reason: str
    status: int | None = None
    provider_id: str | None = None
    retry_after_s: float | None = None
    body: bytes = field(default=b"", repr=False)
    outage: bool = False
    quota: bool = False
    parts: tuple[Outcome, ...] = ()
    partial: int = 0
    unheard: bool = False
    most_retries: int | None = None

    @property
    def health(self) -> Health:
        """What it says of the destination (``lua/health.lua``). A refusal of this message comes
        from a provider that works; one of the rate or the account is judged by its action."""
        if self.unheard:
            return ""
        if self.kind is Kind.UNAVAILABLE:
            return "u"
        if self.kind in (Kind.SENT, Kind.REJECTED, Kind.TOO_LARGE):
            return "g"
        if self.kind in (Kind.THROTTLED, Kind.HELD):
            return ""
        return "o" if self.outage else "b"


Action = Literal["sent", "retry", "dead", "parked", "throttled", "quota", "held", "unavailable"]


@dataclass(frozen=True, slots=True)
class Disposition:
    """What becomes of the message.

    action   "sent"; "retry" after delay_s; "dead"; "parked"; "throttled": back to its place, and
             the **destination** waits delay_s; "quota": the same, for long; "held": back to its
             place, and the destination is held; "unavailable": the message waits delay_s
    charge   whether the attempt counts against max_retries
    delay_s  seconds, 0 where nothing waits
    """

    action: Action
    charge: bool
    delay_s: float
    reason: str


# The general table (docs/providers.md): exact statuses first, then classes.
STATUSES: Mapping[str, Kind] = MappingProxyType(
    {
        "401": Kind.HELD,
        "403": Kind.HELD,
        "407": Kind.HELD,  # the proxy's own 401
        "408": Kind.RETRY,  # RFC 9110 §15.5.9: no complete request was received
        "413": Kind.TOO_LARGE,
        "420": Kind.THROTTLED,  # quota
        "425": Kind.RETRY,  # RFC 8470 §5.2: not processed
        "429": Kind.THROTTLED,
        "503": Kind.UNAVAILABLE,
        "2xx": Kind.SENT,
        "3xx": Kind.HELD,  # never followed: a redirected POST becomes a GET that answers 200
        "4xx": Kind.REJECTED,
        "5xx": Kind.AMBIGUOUS,
    }
)
_OUTAGES = frozenset({502, 503, 504})
# With these a Retry-After is no more than a hint beside a trouble that time does not mend.
_HELD_REGARDLESS = frozenset({401, 407})


def status_kind(status: int, table: Mapping[str, Kind] = STATUSES) -> Kind | None:
    """The table's answer: the exact status ("429") before its class ("4xx"); None for neither."""
    return table.get(str(status)) or table.get(f"{status // 100}xx")


def judge_failure(failure: Failure) -> Outcome:
    """No whole response: not processed where that is certain, otherwise ambiguous.

    A proxy that asks for credentials holds the destination, as a 407 in answer to a request does:
    it will say the same to every message, and time does not mend it.

    What the guard refuses is a dead letter: another try would be the same attempt to get where
    nobody may. The provider was not asked, so it is no outage of its, and no sign of its health.
    """
    proven = failure.phase == "connect" or (failure.unreceived and failure.cause == "eof")
    reason = failure.cause if failure.phase == "connect" else f"{failure.cause} on {failure.phase}"
    if proven and failure.phase != "connect":
        reason += ", provably unreceived"
    if failure.detail:
        reason += f": {failure.detail}"
    if failure.cause == PROXY_AUTH:
        return Outcome(kind=Kind.HELD, reason=reason)
    if failure.cause == GUARDED:
        return Outcome(kind=Kind.REJECTED, reason=reason, unheard=True)
    return Outcome(
        kind=Kind.RETRY if proven else Kind.AMBIGUOUS,
        reason=reason,
        # Garbage came from something that is up.
        outage=failure.cause != "unreadable",
    )


def judge_status(reply: Reply, now: float) -> Outcome:
    """The general table, by status and Retry-After alone. `now`: unix seconds.

    Where the peer names a time: a 4xx or 503 is THROTTLED (it did not act, and says when it
    will), but 401 and 407 stay HELD, and 408 and 425 stay RETRY with that time as a minimum. Other
    5xx stay AMBIGUOUS, with that time as a minimum.
    """
    status = reply.status
    kind = status_kind(status)
    retry_after_s = None
    if status >= 400:
        retry_after_s = parse_retry_after(reply.header("retry-after"), now, reply.header("date"))
    if kind is None:
        return _outcome(reply, Kind.AMBIGUOUS, f"HTTP {status}, which is no final status")
    names_time = retry_after_s is not None and status not in _HELD_REGARDLESS
    # RFC 9110 §15.5.14: a 413 with Retry-After is temporary.
    if names_time and kind in (Kind.REJECTED, Kind.TOO_LARGE, Kind.UNAVAILABLE, Kind.HELD):
        kind = Kind.THROTTLED
    return _outcome(reply, kind, f"HTTP {status}", retry_after_s=retry_after_s)


def _outcome(
    reply: Reply, kind: Kind, reason: str, *, retry_after_s: float | None = None
) -> Outcome:
    return Outcome(
        kind=kind,
        reason=reason,
        status=reply.status,
        retry_after_s=retry_after_s,
        body=reply.body[:EXCERPT_BYTES],
        outage=reply.status in _OUTAGES,
        quota=reply.status == 420,
    )


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
# RFC 9110 §5.6.7. The day's name adds nothing and is often wrong.
_DATES = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (
        rf"[a-z]{{3}}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_CLOCK} GMT",  # IMF-fixdate
        rf"[a-z]{{6,9}}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_CLOCK} GMT",  # RFC 850
        rf"[a-z]{{3}} {_MONTH} (?P<day>\d\d| \d) {_CLOCK} (?P<year>\d{{4}})",  # asctime
    )
)


def parse_retry_after(value: str | None, now: float, date_header: str | None) -> float | None:
    """Seconds to wait at least, by RFC 9110 §10.2.3; None where the header is missing or malformed.

    `value` is delay-seconds or an HTTP-date in any of its three formats. A date is compared with
    the reply's own `Date` where that can be read (the peer's clock may differ from ours), else
    with `now` in unix seconds. Past dates are 0; all is capped at RETRY_AFTER_CAP_S.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # int() refuses numbers of more than 4,300 digits.
        return RETRY_AFTER_CAP_S if len(value) > 9 else min(RETRY_AFTER_CAP_S, float(value))
    until = http_date(value, now)
    if until is None:
        return None
    said = http_date(date_header.strip(), now) if date_header else None
    return min(RETRY_AFTER_CAP_S, max(0.0, until - (now if said is None else said)))


def http_date(text: str, now: float) -> float | None:
    """Unix seconds of an HTTP-date in any of its three formats (RFC 9110 §5.6.7); None for another
    text. `now`, in unix seconds, tells the century of a year of two digits."""
    match = next((found for pattern in _DATES if (found := pattern.fullmatch(text))), None)
    if match is None:
        return None
    month = _MONTHS.index(match["month"].lower()) + 1
    day, year = int(match["day"]), int(match["year"])
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    # Second 60 is a leap second. A day such as 30 February runs over into March: harmless here.
    if not (1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60 and year > 0):
        return None
    if len(match["year"]) == 2:
        # RFC 9110 §5.6.7: more than 50 years ahead means the past century.
        this_year = 1970 + int(now / 31_556_952)
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100
    return float(timegm((year, month, day, hour, minute, second)))


def dispose(
    outcome: Outcome,
    tries: int,
    policy: RetryPolicy,
    rand: float,
    *,
    suspect: bool = False,
    throttles: int = 0,
) -> Disposition:
    """What becomes of the message.

    tries      attempts charged to it **before** this one; with max_retries = 3 the fourth charged
               failure (tries = 3) is the last
    rand       uniform in [0, 1), for the jitter
    suspect    the destination's breaker is open or suspects an outage: outcomes that are outages
               cost the message nothing (it is bounded by its age)
    throttles  throttled replies of the destination in a row before this one

    THROTTLED, UNAVAILABLE and HELD never cost an attempt. A Retry-After is a minimum. Of a merged
    request this is asked for each member, with its part of the outcome where there is one.
    """
    kind, reason = outcome.kind, outcome.reason
    least_s = outcome.retry_after_s or 0.0
    if kind is Kind.SENT:
        return Disposition("sent", True, 0.0, reason)
    if kind in (Kind.REJECTED, Kind.TOO_LARGE):
        return Disposition("dead", True, 0.0, reason)
    if kind is Kind.HELD:
        return Disposition("held", False, 0.0, reason)
    if kind is Kind.THROTTLED:
        # "Retry-After: 0", or a date just past, beside a 429 would otherwise be a tight loop.
        if least_s < policy.throttle_first_s:
            least_s = throttle_delay_s(policy, throttles, rand)
        return Disposition("quota" if outcome.quota else "throttled", False, least_s, reason)
    if kind is Kind.UNAVAILABLE:
        wait_s = max(least_s, unavailable_delay_s(policy, rand))
        return Disposition("unavailable", False, wait_s, reason)
    charge = not (suspect and outcome.outage)
    if kind is Kind.AMBIGUOUS and policy.on_ambiguous == "park":
        return Disposition("parked", charge, 0.0, f"{reason}; it may have been sent")
    most = policy.max_retries
    if outcome.most_retries is not None:
        most = min(most, outcome.most_retries)
    if charge and tries >= most:
        last = "; it may have been sent" if kind is Kind.AMBIGUOUS else ""
        # The delay is for the script, which knows of an outage that is not this message's fault.
        return Disposition(
            "dead",
            True,
            max(least_s, delay_s(policy, tries, rand)),
            f"{reason}{last}; out of tries ({tries + 1} attempts)",
        )
    return Disposition("retry", charge, max(least_s, delay_s(policy, tries, rand)), reason)
