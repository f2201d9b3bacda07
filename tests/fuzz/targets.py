"""What reads bytes that others wrote, and what must hold whatever they are.

A target takes any bytes. It returns where all is well, and raises what nobody expects: an error
that the reader does not document, or AssertionError.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from fuzz.judges import judges
from fuzz.seeds import (
    ENDPOINTS,
    ENTRIES,
    HEADERS,
    LINES,
    PAYLOADS,
    RECORDS,
    REPLIES,
    TOMLS,
    WIRES,
)
from fuzz.tape import Tape
from paceline.cli.endpoint_file import read_endpoints
from paceline.endpoints import decode_endpoint
from paceline.errors import ConfigError, InvalidMessage
from paceline.event_batches import batches_of, cut, message_of
from paceline.events import KINDS, decode_entry
from paceline.guard import refusal
from paceline.leases import leased_of
from paceline.merged import unpack
from paceline.message import Message, encode_payload, parse_line, parse_time
from paceline.payloads import PROVIDERS, advise, check
from paceline.records import Ended, Live, decode
from paceline.settings_file import loads
from paceline.url_rules import url_problem
from paceline_workers.outcome import RETRY_AFTER_CAP_S, parse_retry_after
from paceline_workers.providers.base import as_merging
from paceline_workers.ratelimit import RESET_CAP_S, parse_rate_limit
from paceline_workers.transports.http1 import CutShort, Unreadable, read_reply, request_bytes

__all__ = ["TARGETS", "Target"]

_NOW = 1_700_000_000.0
_MOST_BODY = 4096
#: What is planted where secrets stand in a configuration.
PLANTED = "pl4nted-s3cret"


@dataclass(frozen=True, slots=True)
class Target:
    """``seeds``: where to begin; ``words``: what its readers look for."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()


def lines(data: bytes) -> None:
    """A line of a JSON Lines file: a message that would be taken, or a short InvalidMessage."""
    message, told = None, ""
    try:
        message = parse_line(data, 7, destination="d", now=_NOW)
    except InvalidMessage as error:
        told = str(error)
    _is_one_line(told)
    if message is not None:
        _is_sane(message)


def payloads(data: bytes) -> None:
    """Ready JSON: kept to the byte, or refused; and no profile finds another error for it."""
    try:
        kept = encode_payload(data)
    except InvalidMessage:
        kept = None
    assert kept is None or kept == data
    for provider in PROVIDERS:
        try:
            check(provider, data, message_id="m-1")
        except InvalidMessage as error:
            _is_one_line(str(error))
        else:
            assert kept is not None, f"{provider} takes what is no JSON"
            advise(provider, data)
    for name, profile in PROFILES.items():
        with contextlib.suppress(InvalidMessage):
            request = profile.render("m-1", data)
            request_bytes("POST", "/", "h", request.headers, request.body)
            assert kept is not None, f"{name} renders what is no JSON"
        merging = as_merging(profile)
        if merging is not None:
            with contextlib.suppress(InvalidMessage):
                portion = merging.portion(data)
                if portion is not None:
                    assert kept is not None, f"{name} merges what is no JSON"
                    body = merging.join(portion.shared, [portion.part])
                    merging.render_merged("r-1", body)


def times(data: bytes) -> None:
    """A time as text, or a number."""
    text = data.decode("utf-8", "replace")
    values: list[object] = [text, len(data)]
    with contextlib.suppress(ValueError):
        values.append(float(text))
    for value in values:
        with contextlib.suppress(InvalidMessage):
            assert 0 <= parse_time("not_before", value) <= 1e12


def records(data: bytes) -> None:
    """A message's string as Redis has it, or what another program put there: ValueError alone."""
    try:
        found = decode(data)
    except ValueError:
        found = None
    if isinstance(found, Live):
        assert found.seq == found.seq // 1
        assert found.body_from >= 60
    elif isinstance(found, Ended):
        assert len(found.payload_sha1) == 40
    nonce = data[6:22].decode("latin-1")
    leased = leased_of("m-1", nonce, data)
    assert leased is None or isinstance(found, Live)
    with contextlib.suppress(ValueError):
        list(unpack(data))


def entries(data: bytes) -> None:
    """An entry of the event stream: its events, or none; and a message can be made of them."""
    tape = Tape(data)
    fields = {}
    while line := tape.line():
        name, _, value = line.partition(b"=")
        fields[name] = value
    events = decode_entry("d", b"17-3", fields)
    told = cut(events, KINDS, 10, 1.0, _NOW)
    for batch in batches_of(events, events[0].seq - 1 if events else 0, told.ends, KINDS):
        message = message_of(batch, "d", "hook", 1_700_000_000_000_000)
        msgspec.json.decode(message.payload)


def endpoints(data: bytes) -> None:
    """A file of endpoints, and what the registry holds of one."""
    found = read_endpoints(io.BytesIO(data), _WITH_ENDPOINTS)
    assert found.read >= len(found.good)
    for endpoint in found.good.values():
        assert endpoint.url.lower().startswith(("http://", "https://"))
    for problem in found.problems:
        assert problem.number >= 1
        msgspec.json.encode(problem.view())
    decode_endpoint(data)


def urls(data: bytes) -> None:
    """A URL, and an address: never one with credentials, never one of this network."""
    text = data.decode("utf-8", "replace")
    if url_problem(text, False) is None:
        assert "@" not in text.split("://", 1)[1].split("/")[0].split("?")[0], text
    word = refusal(text)
    assert word is None or word
    if text.startswith(("127.", "10.", "169.254.", "fe80:", "::1", "192.168.")):
        assert word, text


def tomls(data: bytes) -> None:
    """A configuration file: settings, or a ConfigError that shows no secret."""
    text = data.decode("utf-8", "replace").replace("SECRET", PLANTED)
    try:
        settings = loads(text)
    except ConfigError as error:
        told = f"{error}{error!r}{error.problems!r}"
        assert PLANTED not in told or not _is_hidden(text), told
        return
    for destination in settings.destinations.values():
        shown = f"{destination!r}{destination.public()!r}{settings!r}{settings.redis.shown_url}"
        assert PLANTED not in shown or not _is_hidden(text), shown


def wires(data: bytes) -> None:
    """A peer's bytes where a reply is expected: a reply, or one of two errors; never more read than
    asked for."""
    tape = Tape(data)
    step = 1 + tape.number(255)
    stream = io.BytesIO(tape.rest())
    asked = 0

    def read(count: int) -> bytes:
        nonlocal asked
        asked += 1
        return stream.read(min(count, step))

    try:
        reply = read_reply(read, _MOST_BODY)
    except (CutShort, Unreadable):
        return
    assert 100 <= reply.status <= 999
    assert len(reply.body) <= _MOST_BODY + max(step, 1)
    assert all("\n" not in name + value for name, value in reply.headers)


def headers(data: bytes) -> None:
    """Headers that tell of limits: seconds within bounds, or nothing."""
    tape = Tape(data)
    date = tape.line().decode("latin-1")
    given: dict[str, str] = {}
    while line := tape.line():
        name, _, value = line.decode("latin-1").partition(":")
        given[name] = value
    advice = parse_rate_limit(given, _NOW, lambda: date)
    if advice is not None:
        assert 0 <= advice.reset_s <= RESET_CAP_S
        assert advice.remaining >= 0
    for value in given.values():
        wait_s = parse_retry_after(value, _NOW, date)
        assert wait_s is None or 0 <= wait_s <= RETRY_AFTER_CAP_S


def _is_sane(message: Message) -> None:
    assert encode_payload(message.payload) == message.payload
    for label in (message.tenant, message.endpoint, message.key, message.campaign):
        assert label is None or 1 <= len(label) <= 64
    for at in (message.not_before, message.expires):
        assert at is None or 0 <= at < 1e11


def _is_one_line(told: str) -> None:
    assert len(told) < 2000, "an error that quotes all it was given"
    assert told == "" or told.isprintable(), "an error that forges a line"


_SECRET_LINE = re.compile(
    r"(?:username|password|api_key|proxy_username|proxy_password|secrets|X-Key)\s*=[^=]*"
    rf"|(?:url|proxy)\s*=\s*\"[a-z]+://(?:[^/\"]*{PLANTED}@\w+[^\"]*|\w+/\w*\?\w+={PLANTED})\""
)


def _is_hidden(text: str) -> bool:
    """Whether what is planted stands only where secrets do: elsewhere, by mistake, it is no
    secret to this program."""
    lines = [line.strip() for line in text.splitlines() if PLANTED in line]
    return all(_SECRET_LINE.fullmatch(line) for line in lines)


PROFILES, _judged, _WITH_ENDPOINTS = judges()

_JSON: Sequence[bytes] = (
    b"[", b"]", b"{", b"}", b'"', b":", b",", b"null", b"true", b"1e999", b"-0", b"\\ud800", b"\\",
    b"\\u0000", b"\xff", b"1" * 400, b"9" * 5000, b"[" * 600, b'{"a":' * 600, b" ", b"\n", b"\0",
)  # fmt: skip
_OF_TOML: Sequence[bytes] = (
    b"[", b"]", b"{", b"}", b"=", b'"', b"\n", b"'''", b"true", b"inf", b"nan", b"9" * 5000,
    b"1979-05-27", b"SECRET", b'"SECRET"', b"[" * 600, b"\\u0000", b"https://u:SECRET@h/", b"0x1",
)  # fmt: skip
_OF_TIME = (b"Z", b"+24:00", b"-00:00", b"T", b".", b"9999", b"1e308", b"inf", b"nan", b"60")
_OF_RECORDS = (b"P", b"p", b"R", b"S", b"\x7f\xf0" + bytes(6), b"\xff" * 8)
_OF_URLS = (b"@", b"[", b"]", b"::", b"%25", b"0x7f", b"https://", b":99999", b"\xe2\x84\xa1")
_OF_WIRES = (
    b"\r\n", b"HTTP/1.1 ", b"Content-Length: ", b"chunked", b"gzip", b"Content-Encoding: ", b"\0",
    b"100 ", b"deflate", b"br", b"zstd",
)  # fmt: skip

TARGETS: Mapping[str, Target] = {
    "lines": Target(lines, LINES, _JSON),
    "payloads": Target(payloads, PAYLOADS, _JSON),
    "times": Target(times, [b"2026-11-30T08:00:00Z", b"1700000000", b"1e12"], _OF_TIME),
    "records": Target(records, RECORDS, _OF_RECORDS),
    "entries": Target(entries, ENTRIES, [b"=", b"\n", b"at=", b"9" * 400, b"-1", b"ids=", b"\xff"]),
    "endpoints": Target(endpoints, ENDPOINTS, [*_JSON, b"https://h/", b"\n"]),
    "urls": Target(urls, [b"https://h:8/x?y=1", b"127.0.0.1", b"::ffff:10.0.0.1"], _OF_URLS),
    "tomls": Target(tomls, TOMLS, _OF_TOML),
    "wires": Target(wires, WIRES, _OF_WIRES),
    "headers": Target(headers, HEADERS, [b";", b"=", b",", b'"', b"9" * 15, b"w=", b"q=", b"r="]),
    "judges": Target(_judged, REPLIES, _JSON),
}  # fmt: skip
