"""What an app asks for: one message, frozen; changing it means copying it.

Payloads are JSON, kept as **the bytes that came in**. They are checked, never re-encoded: a
re-encoded document is another document (`[]` for `{}`, integers over 2⁵³, escapes), and "the same
message" means the same hash of the same bytes. Only objects that are no JSON yet are encoded, once.

Times are unix seconds. Functions that need to know the time take it as `now`.
Everything here raises `InvalidMessage`, naming the field, and nothing else.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import time
from datetime import datetime
from typing import Any, Literal, TypeGuard

import msgspec

from paceline.errors import InvalidMessage

__all__ = [
    "MAX_DEPTH",
    "PRIORITIES",
    "Message",
    "Priority",
    "build",
    "check_id",
    "check_label",
    "check_name",
    "encode_payload",
    "new_id",
    "parse_line",
    "parse_time",
]

Priority = Literal["high", "normal", "bulk"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "bulk")

# Parsers nest by recursion, and how deep each can go depends on who calls it. A fixed limit makes
# what the client takes the same as what a worker, ten calls deeper, can read again.
MAX_DEPTH = 100

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Year 5138. Larger numbers are milliseconds: the commonest mistake with unix times.
_LATEST_S = 1e11
# RFC 3339 §5.6: the offset is required; without it a time means another moment on each machine.
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _CROCKFORD for b in _CROCKFORD)


# gc=False: no field can be part of a cycle, and who makes a million need not pay for the search.
class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing an app wants sent.

    id           unique in its destination, `[A-Za-z0-9._-]{1,128}`; the same id repeats the same
                 message
    destination  name of a configured destination
    payload      JSON, the bytes as they came in
    priority     "high", "normal" or "bulk"
    tenant       on whose behalf; the destination is shared fairly between tenants
    endpoint     of a destination with many endpoints: the registered one that it goes to
    key          what is to arrive there in order: messages of one key go one after the other
    campaign     a label to pause, cancel or count by
    not_before   unix seconds; not sent before
    expires      unix seconds; not sent from then on, but accounted as expired
    """

    id: str
    destination: str
    payload: bytes
    priority: Priority = "normal"
    tenant: str | None = None
    endpoint: str | None = None
    key: str | None = None
    campaign: str | None = None
    not_before: float | None = None
    expires: float | None = None


def new_id(now_ns: int | None = None, rand: bytes | None = None) -> str:
    """A fresh id: 26 characters that sort by time, in the form of a ULID.

    48 bits of unix milliseconds, 12 bits of the millisecond's fraction (a quarter microsecond),
    68 random bits, in Crockford's base 32. `now_ns` is unix nanoseconds and `rand` nine random
    bytes; left out, both come from the system.
    """
    ns = time.time_ns() if now_ns is None else now_ns
    random_bits = int.from_bytes(os.urandom(9) if rand is None else rand[:9].rjust(9, b"\0")) >> 4
    millis, fraction = divmod(ns, 1_000_000)
    value = (millis & (1 << 48) - 1) << 80 | (fraction << 12) // 1_000_000 << 68 | random_bits
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


def check_id(value: str) -> str:
    """Return `value` if it can be a message's id, `[A-Za-z0-9._-]{1,128}`: safe as a header."""
    return _matching("id", value, _ID, "1 to 128 of A-Z a-z 0-9 . _ -")


def check_name(value: str) -> str:
    """Return `value` if it can name a destination, `[a-z0-9][a-z0-9_-]{0,62}`."""
    return _matching(
        "destination", value, _NAME, "1 to 63 of a-z 0-9 _ - beginning with a letter or digit"
    )


def check_label(field: str, value: str) -> str:
    """Return `value` if it can be a tenant, endpoint, key or campaign (`field`):
    `[A-Za-z0-9._-]{1,64}`."""
    return _matching(field, value, _LABEL, "1 to 64 of A-Z a-z 0-9 . _ -")


def encode_payload(obj: object) -> bytes:
    """The payload's bytes.

    `bytes` and `str` are taken as ready JSON: checked, and kept to the last byte. Any other object
    is encoded (dicts, lists, numbers, dataclasses, msgspec structs, datetimes, UUIDs, …; bytes
    inside it become base64). Raises InvalidMessage for what JSON cannot hold: NaN, infinities,
    lone surrogates, unknown types, and nesting deeper than MAX_DEPTH.
    """
    if isinstance(obj, str):
        try:
            ready = obj.encode("utf-8")
        except UnicodeEncodeError:
            raise _surrogate() from None
        return _checked(ready)
    if isinstance(obj, bytes | bytearray | memoryview | msgspec.Raw):
        return _checked(bytes(obj))
    try:
        encoded = msgspec.json.encode(obj)
    except UnicodeEncodeError:
        raise _surrogate() from None
    except RecursionError:
        raise _too_deep() from None
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InvalidMessage(
            "payload", str(error), "Convert it to plain dicts, lists, strings and numbers first"
        ) from error
    if _depth_over(encoded, MAX_DEPTH):
        raise _too_deep()
    # The encoder writes NaN and infinities as null without a word. Looking for them costs a walk,
    # so only documents that hold a null are walked.
    if b"null" in encoded:
        path = _not_finite(msgspec.to_builtins(obj), "payload")
        if path:
            raise InvalidMessage(
                path, "NaN or an infinity, which JSON cannot hold", "Send null or leave it out"
            )
    return encoded


def parse_time(field: str, value: object) -> float:
    """Unix seconds from unix seconds, an RFC 3339 string with an offset, or an aware datetime."""
    if isinstance(value, str):
        if not _RFC3339.fullmatch(value):
            raise InvalidMessage(
                field,
                f"{_shown(value)} is no RFC 3339 time with an offset",
                "Write 2026-11-30T08:00:00Z, 2026-11-30T09:00:00+01:00, or unix seconds",
            )
        try:
            # Python 3.11 reads no lower-case t and z. A leap second (":60") is no datetime.
            value = datetime.fromisoformat(value.upper())
        except ValueError as error:
            raise InvalidMessage(field, f"{_shown(value)} is no time: {error}") from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidMessage(
                field, "a datetime without a time zone", "Use datetime.now(timezone.utc)"
            )
        try:
            value = value.timestamp()
        except (OverflowError, ValueError) as error:
            raise InvalidMessage(field, f"is no time: {error}") from None
    seconds = _number(field, value)
    if seconds >= _LATEST_S:
        raise InvalidMessage(field, f"{seconds:.0f} looks like milliseconds", "Write unix seconds")
    return seconds


def build(
    destination: str,
    payload: object,
    *,
    now: float,
    id: str | None = None,
    priority: str = "normal",
    tenant: str | None = None,
    endpoint: str | None = None,
    key: str | None = None,
    campaign: str | None = None,
    not_before: float | str | datetime | None = None,
    expires: float | str | datetime | None = None,
    delay_s: float | None = None,
    ttl_s: float | None = None,
) -> Message:
    """A checked Message. `payload` as for `encode_payload`, times as for `parse_time`.

    `delay_s` and `ttl_s` are not_before and expires counted from `now` (unix seconds), and exclude
    them. Without `id` a fresh one is made. One that has expired already is refused at enqueue,
    by Redis's clock.
    """
    start = _moment("not_before", not_before, "delay_s", delay_s, now)
    end = _moment("expires", expires, "ttl_s", ttl_s, now)
    if start is not None and end is not None and end <= start:
        raise InvalidMessage(
            "expires" if ttl_s is None else "ttl_s",
            "it would expire before it may be sent",
            "The time counts from now, not from not_before",
        )
    if not _is_priority(priority):
        names = ", ".join(PRIORITIES)
        raise InvalidMessage("priority", f"{_shown(priority)} is none of {names}")
    if key is not None and endpoint is None:
        raise InvalidMessage("key", "given without endpoint", "It orders what one endpoint gets")
    if endpoint is not None and tenant is not None:
        raise InvalidMessage("tenant", "given together with endpoint", "Give one of them")
    return Message(
        id=new_id() if id is None else check_id(id),
        destination=check_name(destination),
        payload=encode_payload(payload),
        priority=priority,
        tenant=None if tenant is None else check_label("tenant", tenant),
        endpoint=None if endpoint is None else check_label("endpoint", endpoint),
        key=None if key is None else check_label("key", key),
        campaign=None if campaign is None else check_label("campaign", campaign),
        not_before=start,
        expires=end,
    )


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line of a JSON Lines file. The payload stays as the bytes of the line."""

    payload: msgspec.Raw
    id: str | None = None
    priority: str = "normal"
    tenant: str | None = None
    endpoint: str | None = None
    key: str | None = None
    campaign: str | None = None
    not_before: float | str | None = None
    expires: float | str | None = None
    delay_s: float | None = None
    ttl_s: float | None = None


_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LINE = msgspec.json.Decoder(_Line)
_RAW = msgspec.json.Decoder(msgspec.Raw)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_AT = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)


def parse_line(
    line: bytes,
    number: int,
    *,
    destination: str,
    now: float,
    endpoint: str | None = None,
    key: str | None = None,
) -> Message | None:
    """The message of one line of a JSON Lines file, or None for a blank line.

    `{"payload": …, "id"?, "priority"?, "tenant"?, "endpoint"?, "key"?, "campaign"?, "not_before"?,
    "expires"?, "delay_s"?, "ttl_s"?}`; the payload's bytes stay as they are in the line. `number`
    counts from 1 and is in the error. `now` is unix seconds. `endpoint` and `key` are those of
    lines that have none of their own. A byte order mark on the first line is skipped.
    """
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    if not line.strip():
        return None
    try:
        fields = _decode_line(line)
        return build(
            destination,
            fields.payload,
            now=now,
            id=fields.id,
            priority=fields.priority,
            tenant=fields.tenant,
            endpoint=endpoint if fields.endpoint is None else fields.endpoint,
            key=key if fields.key is None else fields.key,
            campaign=fields.campaign,
            not_before=fields.not_before,
            expires=fields.expires,
            delay_s=fields.delay_s,
            ttl_s=fields.ttl_s,
        )
    except InvalidMessage as error:
        raise error.at_line(number) from None


def _decode_line(line: bytes) -> _Line:
    try:
        return _LINE.decode(line)
    except msgspec.ValidationError as error:
        text = str(error)
        if unknown := _UNKNOWN.match(text):
            key = unknown[1]
            near = difflib.get_close_matches(key[:64], _Line.__struct_fields__, 1)
            mend = (
                f"Did you mean {near[0]}?"
                if near
                else "Keys: " + ", ".join(_Line.__struct_fields__)
            )
            raise InvalidMessage(key, "unknown key", mend) from None
        if "missing required field `payload`" in text:
            raise InvalidMessage(
                "payload", "missing", 'A line is {"payload": {…}, "id": "…"}'
            ) from None
        at = _AT.match(text)
        raise InvalidMessage(at[2] if at else "line", at[1] if at else text) from None
    except UnicodeDecodeError as error:
        raise InvalidMessage("line", f"not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise _too_deep() from None
    except msgspec.DecodeError as error:
        if _only_surrogates_wrong(line):
            raise _surrogate() from None
        raise InvalidMessage("line", _why_malformed(error)) from None


def _checked(ready: bytes) -> bytes:
    """`ready` itself, if it is one JSON document in UTF-8 that every JSON parser can read."""
    try:
        # The skipping decoder below does not look at the bytes inside strings.
        ready.decode("utf-8")
        _RAW.decode(ready)
    except UnicodeDecodeError as error:
        raise InvalidMessage("payload", f"not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise _too_deep() from None
    except msgspec.DecodeError as error:
        if _only_surrogates_wrong(ready):
            raise _surrogate() from None
        raise InvalidMessage(
            "payload",
            _why_malformed(error) if ready.strip() else "empty",
            "Text and bytes are taken as ready JSON; pass other values as objects",
        ) from None
    if _depth_over(ready, MAX_DEPTH):
        raise _too_deep()
    return ready


def _only_surrogates_wrong(document: bytes) -> bool:
    """Whether it is JSON but for lone surrogates (RFC 8259 §8.2 leaves those to chance). The
    decoder's own words for them, "truncated", would send people looking in the wrong place."""
    mended = re.sub(rb"(?<!\\)((?:\\\\)*)\\u[dD][89a-fA-F][0-9a-fA-F]{2}", rb"\1\\u0041", document)
    try:
        _RAW.decode(mended)
    except (msgspec.DecodeError, RecursionError):
        return False
    return mended != document


def _why_malformed(error: Exception) -> str:
    return "not JSON: " + str(error).removeprefix("JSON is malformed: ")


def _depth_over(document: bytes, limit: int) -> bool:
    """Whether valid JSON nests deeper than `limit`. Almost always answered by two counts."""
    if document.count(b"[") + document.count(b"{") <= limit:
        return False
    left = _STRINGS.sub(b"", document).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(limit):
        if not left:
            return False
        # The innermost of all, everywhere at once: a walk takes a second for a megabyte of them.
        left = left.replace(b"[]", b"")
    return left != b""


def _not_finite(value: Any, path: str) -> str | None:
    """The path of the first NaN or infinity in plain objects, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if isinstance(value, dict):
        children = ((child, f"{path}.{key}") for key, child in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        children = ((child, f"{path}[{index}]") for index, child in enumerate(value))
    else:
        return None
    return next((found for child, at in children if (found := _not_finite(child, at))), None)


def _moment(
    field: str, at: object, relative_field: str, seconds: object, now: float
) -> float | None:
    if seconds is None:
        return None if at is None else parse_time(field, at)
    if at is not None:
        raise InvalidMessage(relative_field, f"given together with {field}", "Give one of them")
    return parse_time(relative_field, now + _number(relative_field, seconds))


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidMessage(field, f"{_shown(value)} is no number of seconds")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds) or seconds < 0:
        raise InvalidMessage(field, f"{_shown(value)} is no number of seconds from 0 up")
    return seconds


def _matching(field: str, value: object, pattern: re.Pattern[str], allowed: str) -> str:
    # The parameters say str, but apps are not all type-checked, and lines of a file never are.
    if not isinstance(value, str):
        raise InvalidMessage(field, f"{_shown(value)} is no text")
    if not pattern.fullmatch(value):
        raise InvalidMessage(field, f"{_shown(value)} is not allowed", f"Use {allowed}")
    return value


def _is_priority(value: object) -> TypeGuard[Priority]:
    return isinstance(value, str) and value in PRIORITIES


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _surrogate() -> InvalidMessage:
    return InvalidMessage(
        "payload",
        "holds half of a surrogate pair, which is no character",
        "It often comes of cutting text inside an emoji: cut between characters",
    )


def _too_deep() -> InvalidMessage:
    return InvalidMessage("payload", f"nested deeper than {MAX_DEPTH} levels")
