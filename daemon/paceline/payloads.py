"""What each provider profile can make a request of. Pure, so that the client can refuse at once.

The same check runs in the worker, for messages that came by the enqueue function alone. Errors
name the field by its path: `payload.recipients[2].email`.

maxmd   one message as MaxMD's API takes it, **without** the credentials around it::

            {"sender": "a@direct.example", "recipients": [{"email": "b@…", "type": "TO|CC|BCC"}],
             "subject": "…", "body": "…", "htmlBody"?: bool, "replyTo"?: "…",
             "attachmentList"?: [{"filename": "…", "contentType": "…", "content": "<base64>"}]}

        Further fields are passed through, unless they look like one of these misspelt.
http    any JSON document; its bytes are the request's body
"""

from __future__ import annotations

import binascii
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from paceline.errors import InvalidMessage, MessageTooLarge, PayloadError
from paceline.message import encode_payload

__all__ = ["PROVIDERS", "check"]

_REQUIRED = ("sender", "recipients", "subject", "body")
_OPTIONAL = ("htmlBody", "replyTo", "attachmentList")
_RECIPIENT = ("email", "type")
_RECIPIENT_TYPES = ("TO", "CC", "BCC")
_ATTACHMENT = ("filename", "contentType", "content")

# Only what no address can be: real syntax is the provider's to judge (code 2), and a display name
# around the address may hold anything but control characters.
_ADDRESS = re.compile(r"[^\x00-\x1f\x7f]*[^\x00-\x20\x7f@]@[^\x00-\x20\x7f@][^\x00-\x1f\x7f@]*")
_CONTENT_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+\s*(;.*)?")


def check(provider: str, payload: bytes, *, max_payload_bytes: int | None = None) -> None:
    """Refuse a payload that the provider's profile cannot render.

    Raises PayloadError naming the field, or MessageTooLarge where `max_payload_bytes` is given
    and exceeded. A provider without a schema of its own takes any JSON document.
    """
    if max_payload_bytes is not None and len(payload) > max_payload_bytes:
        raise MessageTooLarge("payload", len(payload), max_payload_bytes)
    try:
        encode_payload(payload)
    except InvalidMessage as error:
        raise PayloadError(error.field, error.problem, error.mend) from error
    schema = _SCHEMAS.get(provider)
    if schema is not None:
        try:
            document = msgspec.json.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            # JSON by its grammar, and yet not readable: 1e999.
            raise PayloadError("payload", str(error)) from error
        schema(document)


def _maxmd(document: Any) -> None:
    message = _object("payload", document)
    if "authentication" in message:
        raise PayloadError(
            "payload.authentication",
            "credentials do not belong in a message: secrets never enter Redis",
            "Leave it out; the worker puts in username and password of the destination",
        )
    if "message" in message and "sender" not in message:
        raise PayloadError(
            "payload.message",
            "the message is wrapped once too often",
            'Send what is inside "message"; the worker wraps it',
        )
    _keys("payload", message, _REQUIRED, _OPTIONAL)
    _address("payload.sender", message["sender"])
    recipients = _array("payload.recipients", message["recipients"])
    if not recipients:
        raise PayloadError("payload.recipients", "empty", "Name at least one recipient")
    for index, item in enumerate(recipients):
        at = f"payload.recipients[{index}]"
        if isinstance(item, str):
            raise PayloadError(
                at, "a plain string", 'Write {"email": "…", "type": "TO"} (or CC, BCC)'
            )
        recipient = _object(at, item)
        _keys(at, recipient, _RECIPIENT)
        _address(f"{at}.email", recipient["email"])
        if recipient["type"] not in _RECIPIENT_TYPES:
            raise PayloadError(f"{at}.type", "none of TO, CC, BCC", "Mind the capitals")
    _text("payload.subject", message["subject"], single_line=True)
    _text("payload.body", message["body"])
    if not isinstance(message.get("htmlBody", False), bool):
        raise PayloadError("payload.htmlBody", "not true or false")
    if "replyTo" in message:
        _address("payload.replyTo", message["replyTo"])
    for index, item in enumerate(
        _array("payload.attachmentList", message.get("attachmentList", []))
    ):
        at = f"payload.attachmentList[{index}]"
        attachment = _object(at, item)
        _keys(at, attachment, _ATTACHMENT)
        if not _text(f"{at}.filename", attachment["filename"], single_line=True):
            raise PayloadError(f"{at}.filename", "empty")
        content_type = _text(f"{at}.contentType", attachment["contentType"], single_line=True)
        if not _CONTENT_TYPE.fullmatch(content_type):
            raise PayloadError(f"{at}.contentType", "no media type", "For example application/pdf")
        _base64(f"{at}.content", attachment["content"])


def _object(at: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PayloadError(at, f"{_kind(value)} where an object is needed")
    return value


def _array(at: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise PayloadError(at, f"{_kind(value)} where an array is needed")
    return value


def _text(at: str, value: Any, *, single_line: bool = False) -> str:
    if not isinstance(value, str):
        raise PayloadError(at, f"{_kind(value)} where a string is needed")
    if single_line and ("\n" in value or "\r" in value):
        raise PayloadError(at, "holds a line break, which would forge a mail header")
    return value


def _address(at: str, value: Any) -> None:
    if not _ADDRESS.fullmatch(_text(at, value)):
        raise PayloadError(at, "no mail address")


def _base64(at: str, value: Any) -> None:
    try:
        binascii.a2b_base64(_text(at, value).encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise PayloadError(
            at,
            f"not base64 ({'a non-ASCII character' if isinstance(error, UnicodeError) else error})",
            "Standard alphabet with padding, without line breaks",
        ) from None


def _keys(
    at: str, value: Mapping[str, Any], required: Iterable[str], optional: Iterable[str] = ()
) -> None:
    known = [*required, *optional]
    # Misspelt before missing: `recipient` for `recipients` is both, and the first says more.
    for key in value:
        if key not in known:
            lowered = {name.lower(): name for name in known if name not in value}
            near = difflib.get_close_matches(key.lower(), lowered, 1, cutoff=0.85)
            if near:
                raise PayloadError(
                    f"{at}.{key}", "unknown field", f"Did you mean {lowered[near[0]]}?"
                )
    for key in required:
        if key not in value:
            raise PayloadError(f"{at}.{key}", "missing")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return "a string" if isinstance(value, str) else "a number"


_SCHEMAS: Mapping[str, Callable[[Any], None]] = MappingProxyType({"maxmd": _maxmd})

# The providers whose payloads this version knows.
PROVIDERS: tuple[str, ...] = ("maxmd", "http")
