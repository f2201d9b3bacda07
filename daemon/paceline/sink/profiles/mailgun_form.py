"""The form of a Mailgun message: its fields, its limits, its recipients. Pure.

Source: the provider's reference and the texts of its errors. Two things are stricter here on
purpose: fields it does not know are refused, not ignored, and so are recipient variables for
somebody who is no recipient: a misspelt one would be found by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from paceline.sink.addresses import code_wanted, mailboxes
from paceline.sink.forms import Field

MOST_RECIPIENTS = 1000
MOST_OPTIONS_BYTES = 16_000
MOST_MESSAGE_BYTES = 25_000_000
_PLAIN = frozenset(
    (
        "from", "to", "cc", "bcc", "subject", "text", "html", "amp-html", "attachment", "inline",
        "template", "message", "recipient-variables",
    )
)  # fmt: skip
_FILES = frozenset(("attachment", "inline", "message"))
_ONCE = frozenset(
    ("subject", "text", "html", "amp-html", "template", "message", "recipient-variables")
)
_OPTIONS = frozenset(
    (
        "o:tag", "o:dkim", "o:secondary-dkim", "o:secondary-dkim-public", "o:deliverytime",
        "o:deliverytime-optimize-period", "o:time-zone-localize", "o:testmode", "o:tracking",
        "o:tracking-clicks", "o:tracking-opens", "o:require-tls", "o:skip-verification",
        "o:sending-ip", "o:sending-ip-pool", "o:tracking-pixel-location-top", "o:archive-to",
        "o:suppress-headers", "t:version", "t:text", "t:variables",
    )
)  # fmt: skip


class Refusal(Exception):
    """The whole call is refused: HTTP status, a name for the record, the message."""

    def __init__(self, message: str, status: int = 400, name: str = "malformed") -> None:
        super().__init__(message)
        self.status = status
        self.name = name


class Envelope(NamedTuple):
    """Who gets it, and how many of them see one another's addresses."""

    recipients: list[str]
    exposed: int


def read_message(form: Sequence[Field], marker: str) -> Envelope:
    """Judge the fields of ``/messages``. Raises Refusal."""
    given = _grouped(form)
    envelope = _envelope(given, marker)
    _addresses(given, "from", "")
    _wanted(given, "subject")
    if any("\r" in text or "\n" in text for text in given["subject"]):
        raise Refusal("subject holds a line break")
    if not any(name in given for name in ("text", "html", "amp-html", "template")):
        raise Refusal(
            "Need at least one of 'text', 'html', 'amp-html' or 'template' parameters specified"
        )
    if "template" in given and "html" in given:
        raise Refusal("Only one parameters 'html' or 'template' is allowed")
    return envelope


def read_mime(form: Sequence[Field], marker: str) -> Envelope:
    """Judge the fields of ``/messages.mime``. Raises Refusal."""
    given = _grouped(form)
    envelope = _envelope(given, marker)
    message = next((field for field in form if field.name == "message"), None)
    if message is None:
        raise Refusal("message parameter is missing")
    if message.filename is None:
        raise Refusal("'message' parameter is not a file")
    head = message.value.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    if not any(line.lower().startswith(b"from:") for line in head.split(b"\n")):
        raise Refusal("the MIME message has no From header")
    return envelope


def _grouped(form: Sequence[Field]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    size = options = 0
    for name, value, filename in form:
        size += len(value)
        if (filename is not None) and name not in _FILES:
            raise Refusal(f"'{name}' parameter is a file")
        try:
            text = "" if name in _FILES else value.decode()
        except UnicodeDecodeError as exc:
            raise Refusal(f"'{name}' parameter is not UTF-8") from exc
        if name not in _PLAIN:
            _check_option(name, text)
            options += len(name.encode()) + len(value)
        given.setdefault(name, []).append(text)
    if size > MOST_MESSAGE_BYTES:
        raise Refusal("Message exceeds the maximum size of 25 MB", 413, "too_large")
    if options > MOST_OPTIONS_BYTES:
        raise Refusal(
            "Send options (parameters starting with o:, h:, or v:) are limited to 16 kB total"
        )
    for name in _ONCE.intersection(given):
        if len(given[name]) > 1:
            raise Refusal(f"'{name}' parameter is given {len(given[name])} times")
    return given


def _check_option(name: str, text: str) -> None:
    kind, _, rest = name.partition(":")
    if kind not in ("o", "h", "v", "t") or not rest:
        raise Refusal(f"'{name}' is no parameter of this call")
    if kind in ("o", "t") and name not in _OPTIONS:
        raise Refusal(f"'{name}' is no option")
    if kind == "h":
        if not rest.isascii():
            raise Refusal(f"Header name must be pure ASCII: {rest}")
        if any(sign in f"{rest}{text}" for sign in "\r\n\0"):
            raise Refusal(f"header {rest!a} holds a line break")
    if name == "t:variables":
        _object(text, name)


def _envelope(given: dict[str, list[str]], marker: str) -> Envelope:
    to = _addresses(given, "to", marker)
    others = [
        address
        for name in ("cc", "bcc")
        if name in given
        for address in _addresses(given, name, marker)
    ]
    recipients = to + others
    if len(recipients) > MOST_RECIPIENTS:
        raise Refusal(f"Too many recipients; max is {MOST_RECIPIENTS}", name="too_many")
    if "recipient-variables" not in given:
        return Envelope(recipients, len(to) if len(to) > 1 else 0)
    variables = _object(given["recipient-variables"][0], "recipient-variables")
    known = frozenset(recipients)
    for address, values in variables.items():
        if not isinstance(values, dict):
            raise Refusal(f"recipient-variables of {address} are no object")
        if address not in known:
            raise Refusal(f"recipient-variables names {address}, which is no recipient")
    return Envelope(recipients, 0)


def _addresses(given: dict[str, list[str]], name: str, marker: str) -> list[str]:
    _wanted(given, name)
    found: list[str] = []
    for text in given[name]:
        boxes = mailboxes(text)
        if boxes is None or any(code_wanted(box, marker) is not None for box in boxes):
            raise Refusal(
                f"{name} parameter is not a valid address. please check documentation",
                name="address",
            )
        found += boxes
    return found


def _wanted(given: dict[str, list[str]], name: str) -> None:
    if name not in given:
        raise Refusal(f"{name} parameter is missing")


def _object(text: str, name: str) -> dict[str, object]:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise Refusal(f"{name} is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise Refusal(f"{name} is no JSON object")
    return value
