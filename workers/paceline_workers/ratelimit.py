"""What a reply tells of the peer's rate limit, in the spellings that are about. Pure.

Read in this order; the first form that can be read is taken:

=============================================  ==============================================
``RateLimit: "default";r=50;t=30``             draft-ietf-httpapi-ratelimit-headers-08 and later,
``RateLimit-Policy: "default";q=100;w=60``     a structured-field list (RFC 9651)
``RateLimit: limit=100, remaining=50,          draft -07
reset=50``
``RateLimit-Limit``, ``-Remaining``,           drafts to -06; delta seconds
``-Reset``
``X-RateLimit-Limit``, …, and                  by custom; the reset is delta seconds, or a time in
``X-Rate-Limit-Limit``, …                      unix seconds or milliseconds, or an HTTP-date
=============================================  ==============================================

All of it is advice from outside: what cannot be read is left unread, and nothing is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from paceline_workers.outcome import http_date

__all__ = ["RESET_CAP_S", "Advice", "parse_rate_limit"]

# As for Retry-After: the longest quota a provider documents is a day's.
RESET_CAP_S = 86_400.0

# Longer than any list of policies seen; reading stays cheap whatever a peer sends.
_LONGEST = 4096
_PREFIXES = ("ratelimit", "x-ratelimit", "x-rate-limit")
_LEGACY = ("ratelimit-", "x-ratelimit-", "x-rate-limit-")
# A delta of 30 years is a time in unix seconds; one of 3,000 years, in milliseconds.
_EPOCH_FROM, _EPOCH_MS_FROM, _EPOCH_MS_UPTO = 1e9, 1e11, 1e14

# RFC 9651 §4.2.4: at most 15 digits. A sign, "NaN" and "inf" are no counts of requests.
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)
_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
# A string, a byte sequence, or a token or number, as far as they must be told apart here.
_BARE = re.compile(r'"(?:[^"\\]|\\["\\])*"|:[A-Za-z0-9+/=]*:|[^\s",;=]+')
_BLANK = re.compile(r"[ \t]*")


@dataclass(frozen=True, slots=True)
class Advice:
    """What the peer said it will still take.

    limit      requests in the peer's window, None where it did not say
    remaining  requests it will take until the reset
    reset_s    seconds until the quota is full again, from 0 to RESET_CAP_S
    """

    limit: int | None
    remaining: int
    reset_s: float


def parse_rate_limit(
    headers: Mapping[str, str], now: float, date_header: Callable[[], str | None]
) -> Advice | None:
    """The most restrictive limit that the headers name; None where none can be read.

    headers      of a whole reply, names in any case
    now          unix seconds: what a reset given as a time is compared with where the reply's own
                 `Date` (`date_header()`, asked only then) cannot be read, for the peer's clock
                 may differ from ours
    """
    found: dict[str, str] = {}
    for name in headers:
        # Asked for every reply: most have none of these.
        if name[:1] in "rRxX" and (lower := name.lower()).startswith(_PREFIXES):
            found[lower] = headers[name][:_LONGEST].strip()
    if not found:
        return None
    advice = None
    if "ratelimit" in found:
        advice = _from_draft(found["ratelimit"], found.get("ratelimit-policy", ""))
    for prefix in _LEGACY:
        advice = advice or _from_three(found, prefix, now, date_header)
    return advice


def _from_draft(value: str, policy: str) -> Advice | None:
    members = list(_members(value))
    told = {name: parameters for name, parameters in members if "=" in parameters}
    if told:  # draft -07: a dictionary, its values under "="
        fields = {name: parameters["="] for name, parameters in told.items()}
        return _advice(fields.get("limit"), fields.get("remaining"), _number(fields.get("reset")))
    policies = dict(_members(policy))
    items = []
    for name, parameters in members:
        its_policy = policies.get(name, {})
        # Bytes or connections that remain are no requests.
        if its_policy.get("qu", '"requests"').strip('"') != "requests":
            continue
        reset_s = _number(parameters.get("t", its_policy.get("w")))
        advice = _advice(its_policy.get("q"), parameters.get("r"), reset_s)
        if advice is not None:
            items.append(advice)
    return min(items, key=_restriction, default=None)


def _restriction(advice: Advice) -> tuple[float, float]:
    """Smaller for what lets fewer requests through: by rate, and of none, for the longer time."""
    rate = advice.remaining / advice.reset_s if advice.reset_s else float("inf")
    return rate, -advice.reset_s


def _from_three(
    found: Mapping[str, str], prefix: str, now: float, date_header: Callable[[], str | None]
) -> Advice | None:
    reset = found.get(f"{prefix}reset")
    if reset is None:
        return None
    # "100, 100;w=60": the draft let policies follow the limit.
    limit = found.get(f"{prefix}limit", "").partition(",")[0].partition(";")[0].strip()
    reset_s = _reset_s(reset, now, date_header)
    return _advice(limit, found.get(f"{prefix}remaining"), reset_s)


def _advice(limit: str | None, remaining: str | None, reset_s: float | None) -> Advice | None:
    left = _number(remaining)
    if left is None or reset_s is None:
        return None
    most = _number(limit)
    return Advice(None if most is None else int(most), int(left), min(RESET_CAP_S, reset_s))


def _reset_s(text: str, now: float, date_header: Callable[[], str | None]) -> float | None:
    """Seconds until the reset, told apart by magnitude; a time that has passed is 0."""
    value = _number(text)
    if value is None:
        until = http_date(text, now)
    elif value < _EPOCH_FROM:
        return value
    elif value < _EPOCH_MS_FROM:
        until = value
    else:
        until = value / 1000 if value < _EPOCH_MS_UPTO else None
    if until is None:
        return None
    date = date_header()
    said = http_date(date.strip(), now) if date else None
    return max(0.0, until - (now if said is None else said))


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


def _members(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(name, parameters) of each member of a structured-field list, as far as it can be read.

    A dictionary's member has its value under the parameter "=". What follows the first fault is not
    read, and neither is the member that has it.
    """
    place = 0
    while place < len(text):
        bare = _BARE.match(text, _skip(text, place))
        if bare is None:
            return
        parameters: dict[str, str] = {}
        place = _value(text, bare.end(), "=", parameters)
        while text[place : place + 1] == ";":
            key = _KEY.match(text, _skip(text, place + 1))
            if key is None:
                return
            place = _value(text, key.end(), key[0], parameters)
        if text[place : place + 1] not in ("", ","):
            return
        place += 1
        yield bare[0].strip('"'), parameters


def _value(text: str, place: int, name: str, parameters: dict[str, str]) -> int:
    """Puts the value of "=…" at this place, where one stands, under the name. Returns the place
    after it and the blanks that follow; a lone "=" stays where it is, which is a fault."""
    value = _BARE.match(text, place + 1) if text[place : place + 1] == "=" else None
    if value is not None:
        parameters[name], place = value[0], value.end()
    return _skip(text, place)


def _skip(text: str, place: int) -> int:
    blank = _BLANK.match(text, place)
    return blank.end() if blank else place
