"""The keys of the configuration file: name, type, bounds, default, and how to mend a wrong value.

Each value is converted on its own (by msgspec), so that one wrong key hides no other. Problems are
collected in a list and given with their dotted key; a key with a problem counts as left out.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from paceline import listen
from paceline.errors import ConfigProblem
from paceline.events import EventKind

__all__ = [
    "BODY",
    "DESTINATION",
    "ENDPOINTS",
    "EVENTS",
    "EXPORTER",
    "ITEMS",
    "MERGE",
    "ONLY",
    "PROVIDERS",
    "REDIS",
    "RETRY",
    "RULE",
    "SUCCESS",
    "TENANT",
    "Key",
    "read_table",
    "unknown_key",
]


@dataclass(frozen=True, slots=True)
class Key:
    """type: as msgspec converts it (Any: checked elsewhere); mend: what a right value looks like"""

    type: Any
    mend: str


_Seconds = Annotated[float, Meta(gt=0, le=31_622_400)]
_NotNegative = Annotated[float, Meta(ge=0, le=31_622_400)]
# Redis keeps no string over 512 MB.
_PayloadBytes = Annotated[int, Meta(ge=1, le=512 * 1024**2)]
_AnyCount = Annotated[int, Meta(ge=0, le=2**53)]
_Count = Annotated[int, Meta(ge=1, le=2**53)]
_Status = Annotated[str, Meta(pattern=r"^[1-5]([0-9][0-9]|xx)\Z")]
# RFC 9110 §5.6.2.
_Token = Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")]
_Pointer = Annotated[str, Meta(pattern=r"^(/([^~]|~[01])*)?\Z")]

_SECONDS = "A number of seconds above 0, for example 30"
_BYTES = "A whole number of bytes from 1 up"
_POINTER = 'A JSON pointer (RFC 6901), for example "/result/id"'

REDIS: Mapping[str, Key] = {
    "url": Key(str, 'For example "redis://127.0.0.1:6379/0"; leave it out for the embedded server'),
    "username": Key(str, 'For example "worker": users are made by paceline acl'),
    "password": Key(Any, ""),
    "ca_file": Key(str, "Path of a PEM file"),
    "cert_file": Key(str, "Path of a PEM file"),
    "key_file": Key(str, "Path of a PEM file"),
    "appendfsync": Key(Literal["always", "everysec"], '"always" or "everysec"'),
    "max_messages": Key(_AnyCount, "A whole number, 0 for no limit"),
    "max_bytes": Key(_AnyCount, "A whole number of bytes, 0 for no limit"),
    "memory_share": Key(
        Annotated[float, Meta(gt=0, le=1)], "A share of maxmemory above 0, up to 1; such as 0.75"
    ),
}

EXPORTER: Mapping[str, Key] = {
    "listen": Key(str, listen.MEND),
}

DESTINATION: Mapping[str, Key] = {
    "provider": Key(str, '"maxmd", "sparkpost", "mailgun", "webhook" or "http"'),
    "url": Key(str | Annotated[list[str], Meta(min_length=1)], "A URL, or a list of URLs"),
    "rate": Key(Annotated[float, Meta(gt=0, le=1e6)], "Requests per second above 0, such as 90"),
    "burst": Key(
        Annotated[int, Meta(ge=2, le=10**7)],
        "A whole number from 2 up: one connection and one permit are the least",
    ),
    "connections": Key(Annotated[int, Meta(ge=1, le=10_000)], "A whole number from 1 to 10,000"),
    "reserve": Key(Annotated[int, Meta(ge=0, le=10**7)], "A whole number of permits from 0 up"),
    "pace": Key(
        Literal["adaptive", "fixed"],
        '"adaptive" (the rate is a ceiling) or "fixed" (it is kept to)',
    ),
    "probe_after_s": Key(_Seconds, _SECONDS),
    "bytes_per_s": Key(
        Annotated[int, Meta(ge=0, le=2**53)], "Bytes of requests per second, 0 for no cap"
    ),
    "fallback": Key(str, "The name of another destination of this file"),
    "tenants": Key(Any, ""),
    "connect_timeout_s": Key(_Seconds, _SECONDS),
    "read_timeout_s": Key(_Seconds, _SECONDS),
    "total_timeout_s": Key(_Seconds, _SECONDS),
    "lease_s": Key(_Seconds, _SECONDS),
    "max_payload_bytes": Key(_PayloadBytes, "Bytes, from 1 to 536870912 (512 MiB)"),
    "max_messages": Key(_Count, "A whole number from 1 up"),
    "max_bytes": Key(_Count, _BYTES),
    "max_age_s": Key(_Seconds, _SECONDS),
    "record_ttl_s": Key(_Seconds, _SECONDS),
    "connection_idle_s": Key(_Seconds, _SECONDS),
    "connection_max_age_s": Key(_Seconds, _SECONDS),
    "connection_max_requests": Key(_Count, "A whole number from 1 up"),
    "username": Key(Any, ""),
    "password": Key(Any, ""),
    "headers": Key(Any, ""),
    "retry": Key(Any, ""),
    "id_header": Key(str, 'A header\'s name, or "" for none'),
    "allow_plain_http": Key(bool, "true or false"),
    "ca_file": Key(str, "Path of a PEM file"),
    "proxy": Key(str, 'For example "http://proxy.example:3128"'),
    "proxy_username": Key(Any, ""),
    "proxy_password": Key(Any, ""),
    "guard": Key(Literal["off", "public"], '"public" (no address of a private network) or "off"'),
    "redact": Key(list[str], 'JSON pointers such as ["/password", "/recipients/*/email"]'),
    "guard_allow": Key(list[str], 'A list such as ["10.1.0.0/16", "127.0.0.1", "::1"]'),
    "gzip_from_bytes": Key(
        Annotated[int, Meta(ge=0, le=2**53)], "Bytes, such as 100000; 0 for never"
    ),
    "method": Key(Literal["POST", "PUT", "PATCH", "DELETE"], "POST, PUT, PATCH or DELETE"),
    "body": Key(Literal["json", "form"], '"json" or "form"'),
    "success": Key(Any, ""),
    "outcomes": Key(Any, ""),
    "idempotency_key": Key(Literal["bare", "quoted", "off"], '"bare", "quoted" or "off"'),
    "rules": Key(Any, ""),
    "items": Key(Any, ""),
    "business_errors": Key(Literal["retry", "reject"], '"retry" or "reject"'),
    "poll_status_after_s": Key(_NotNegative, "A number of seconds such as 300, 0 for never"),
    "api_key": Key(Any, ""),
    "secrets": Key(Any, ""),
    "subaccount": Key(Annotated[int, Meta(ge=0, le=2**53)], "The sub-account's number"),
    "merge": Key(Any, ""),
    "events": Key(Any, ""),
    "endpoints": Key(Any, ""),
}

PROVIDERS = ("maxmd", "sparkpost", "mailgun", "webhook", "http")
_NOT_WEBHOOK = ("maxmd", "sparkpost", "mailgun", "http")
# Keys that mean something for these providers only; any other key does for all of them.
ONLY: Mapping[str, tuple[str, ...]] = {
    "username": ("maxmd", "http"),
    "password": ("maxmd", "http"),
    "api_key": ("sparkpost", "mailgun"),
    "secrets": ("webhook",),
    "endpoints": ("webhook",),
    # The id is signed, so its header is the standard's; and so are the body's bytes as they arrive.
    "id_header": _NOT_WEBHOOK,
    "gzip_from_bytes": _NOT_WEBHOOK,
    "subaccount": ("sparkpost",),
    "merge": ("sparkpost", "mailgun", "http"),
    "method": ("http",),
    "body": ("http",),
    "success": ("http",),
    "outcomes": ("http",),
    "rules": ("http",),
    "items": ("http",),
    "business_errors": ("maxmd",),
    "poll_status_after_s": ("maxmd",),
    "idempotency_key": ("sparkpost", "http"),
}

MERGE: Mapping[str, Key] = {
    "most": Key(Annotated[int, Meta(ge=1, le=10_000)], "Messages in one request, 1 for no merging"),
    "max_bytes": Key(
        Annotated[int, Meta(ge=1, le=50_000_000)], "Bytes of one request, up to 50000000 (50 MB)"
    ),
    "linger_s": Key(_Seconds, "A number of seconds above 0, for example 0.2"),
    "on_ambiguous": Key(Literal["retry", "park"], '"retry" or "park"'),
    "array": Key(
        _Pointer, 'A JSON pointer to an array of the payload such as "/personalizations", or ""'
    ),
}

ENDPOINTS: Mapping[str, Key] = {
    "in_flight": Key(Annotated[int, Meta(ge=1, le=10_000)], "A whole number from 1 to 10,000"),
    "rate": Key(
        Annotated[float, Meta(ge=0, le=1e6)], "Requests per second, such as 5; 0 for no cap"
    ),
    "burst": Key(Annotated[int, Meta(ge=1, le=10**7)], "A whole number from 1 to 10,000,000"),
    "disable_after_s": Key(_Seconds, _SECONDS),
    "secrets_dir": Key(Annotated[str, Meta(min_length=1)], "Path of a folder"),
}

EVENTS: Mapping[str, Key] = {
    "kinds": Key(
        Literal["all"] | list[EventKind], '"all", or a list of: ' + ", ".join(get_args(EventKind))
    ),
    "max_count": Key(_Count, "A whole number from 1 up"),
    "max_age_s": Key(_Seconds, _SECONDS),
    "deliver_to": Key(str, "The name of another destination of this file, of provider webhook"),
    "deliver_kinds": Key(
        Literal["all"] | Annotated[list[EventKind], Meta(min_length=1)],
        '"all", or a list of those that are written',
    ),
    "deliver_batch": Key(
        Annotated[int, Meta(ge=1, le=1000)], "Events in one message, from 1 to 1000"
    ),
    "deliver_linger_s": Key(_Seconds, "A number of seconds above 0, for example 1"),
}

RETRY: Mapping[str, Key] = {
    "first_s": Key(_Seconds, _SECONDS),
    "factor": Key(Annotated[float, Meta(ge=1, le=100)], "A number from 1 up, for example 2"),
    "cap_s": Key(_Seconds, _SECONDS),
    "max_retries": Key(
        Annotated[int, Meta(ge=0, le=1000)], "Retries after the first attempt, 0 to 1000"
    ),
    "jitter": Key(Annotated[float, Meta(ge=0, le=1)], "A number from 0 to 1"),
    "wait_503_s": Key(tuple[_NotNegative, _NotNegative], "Two numbers of seconds: [30, 60]"),
    "throttle_first_s": Key(_Seconds, _SECONDS),
    "throttle_cap_s": Key(_Seconds, _SECONDS),
    "on_ambiguous": Key(Literal["retry", "park"], '"retry" or "park"'),
}

TENANT: Mapping[str, Key] = {
    "weight": Key(Annotated[float, Meta(gt=0, le=1e6)], "A number above 0, such as 2"),
    "rate": Key(
        Annotated[float, Meta(ge=0, le=1e6)], "Messages per second, such as 10; 0 for no cap"
    ),
    "burst": Key(Annotated[int, Meta(ge=1, le=10**7)], "A whole number from 1 to 10,000,000"),
}

SUCCESS: Mapping[str, Key] = {
    "statuses": Key(
        Annotated[list[_Status], Meta(min_length=1)], 'A list such as ["2xx"] or ["200", "202"]'
    ),
    "body": Key(Any, ""),
    "id_pointer": Key(_Pointer, _POINTER),
    "id_header": Key(_Token, 'A header\'s name, for example "X-Message-Id"'),
}
RULE: Mapping[str, Key] = {
    "status": Key(_Status, 'Write "403" or "4xx"'),
    "text": Key(
        Annotated[str, Meta(min_length=1)], 'Words of the body, for example "too many requests"'
    ),
    "pointer": Key(_Pointer, _POINTER),
    "equals": Key(Any, 'What must be there, for example "UNREGISTERED"'),
    "outcome": Key(
        Literal["sent", "retry", "rejected", "throttled", "held", "ambiguous", "too_large"],
        "sent, retry, rejected, throttled, held, ambiguous or too_large",
    ),
}
ITEMS: Mapping[str, Key] = {
    "pointer": Key(_Pointer, 'A JSON pointer to an array in the reply, "" for the whole of it'),
    "success": Key(Any, ""),
    "id_pointer": Key(_Pointer, _POINTER),
    "code_pointer": Key(_Pointer, _POINTER),
    "outcomes": Key(Any, ""),
}
BODY: Mapping[str, Key] = {
    "pointer": Key(_Pointer, _POINTER),
    "equals": Key(
        str | int | float | bool, 'The value that means success, for example "ok", 0 or true'
    ),
}


def read_table(
    table: Any,
    keys: Mapping[str, Key],
    at: str,
    problems: list[ConfigProblem],
    required: Iterable[str] = (),
) -> dict[str, Any]:
    """The table's values, converted; `problems` grows by what is wrong with them.

    at        dotted key of the table, for the reports
    required  keys that must be there
    """
    if not isinstance(table, dict):
        problems.append(ConfigProblem(at, f"{_kind(table)} where a table is needed", f"[{at}]"))
        return {}
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = keys.get(name)
        if key is None:
            problems.append(unknown_key(f"{at}.{name}", name, keys))
            continue
        # msgspec's bounds let infinities through where only one side is bounded, and speak of
        # "float <= 1e6" where "no number" is meant.
        if _not_finite(value):
            problems.append(ConfigProblem(f"{at}.{name}", "is not a finite number", key.mend))
            continue
        if key.type is Any:
            values[name] = value
            continue
        try:
            values[name] = msgspec.convert(value, key.type)
        except msgspec.ValidationError as error:
            problem = _plainly(str(error), value)
            problems.append(ConfigProblem(f"{at}.{name}", problem, key.mend))
    problems.extend(
        ConfigProblem(f"{at}.{name}", "missing", keys[name].mend)
        for name in required
        if name not in table
    )
    return values


def unknown_key(at: str, name: str, known: Iterable[str]) -> ConfigProblem:
    """The report of a key that means nothing, with the nearest that does."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    mend = f"Did you mean {near[0]}?" if near else "Known here: " + ", ".join(names)
    return ConfigProblem(at, "unknown key", mend)


def _not_finite(value: Any) -> bool:
    if isinstance(value, list):
        return any(_not_finite(item) for item in value)
    return isinstance(value, float) and not math.isfinite(value)


def _plainly(message: str, value: Any) -> str:
    """What is wrong, in one phrase. Only simple values are shown: a list where one URL belongs
    may hold a password."""
    shown = repr(value) if not isinstance(value, bool) else str(value).lower()
    if isinstance(value, list | dict) or len(shown) > 60:
        shown = "the value"
    # A regular expression helps nobody who has just got it wrong; `mend` shows a right value.
    reason = "" if "matching regex" in message else f" ({message[:1].lower()}{message[1:]})"
    return f"{shown} is not right{reason}"


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"the value {value!r}"
