"""What each provider profile can make a request of. Pure, so that the client can refuse at once.

The same check runs in the worker, for messages that came by the enqueue function alone. Errors
name the field by its path: `payload.recipients[2].email`.

The mail providers (maxmd, sparkpost, mailgun) take the provider's own body, which is passed
through, or the neutral `{"email": {…}}` of `schemas/email.py`, which all of them render. http and
webhook take any JSON document; its bytes are the request's body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from paceline.errors import InvalidMessage, MessageTooLarge, PayloadError
from paceline.message import encode_payload
from paceline.schemas import mailgun, maxmd, sparkpost
from paceline.schemas.email import Email, is_neutral, parse
from paceline.schemas.quick import is_plain_email, is_plain_transmission

__all__ = ["PROVIDERS", "advise", "check", "read"]


@dataclass(frozen=True, slots=True)
class _Schema:
    """native, neutral: raise PayloadError for what the provider cannot take; sizes: by the bytes;
    advised_bytes: the provider asks for smaller ones"""

    native: Callable[[Any], None]
    neutral: Callable[[Email], None]
    sizes: Callable[[bytes], None] | None = None
    advised_bytes: int | None = None
    advice: str = ""


_SCHEMAS: Mapping[str, _Schema] = MappingProxyType(
    {
        "maxmd": _Schema(
            maxmd.check_native,
            maxmd.check_neutral,
            advised_bytes=1024**2,
            advice="over 1 MB: MaxMD asks for less; compress attachments, leave out unused fields",
        ),
        "sparkpost": _Schema(
            sparkpost.check_native,
            sparkpost.check_neutral,
            sparkpost.check_sizes,
            sparkpost.ADVISED_BYTES,
            "over 100 KB: SparkPost advises smaller messages; link to images and files instead",
        ),
        "mailgun": _Schema(mailgun.check_native, mailgun.check_neutral, mailgun.check_sizes),
    }
)

_NEUTRAL = b'{"email"'

# The providers whose payloads this version knows.
PROVIDERS: tuple[str, ...] = ("maxmd", "sparkpost", "mailgun", "webhook", "http")


def check(
    provider: str,
    payload: bytes,
    *,
    max_payload_bytes: int | None = None,
    message_id: str = "",
) -> None:
    """Refuse a payload that the provider's profile cannot render, under this id.

    Raises PayloadError naming the field, or MessageTooLarge where `max_payload_bytes` is given
    and exceeded. A provider without a schema of its own takes any JSON document.
    """
    _checked(payload, max_payload_bytes)
    if provider == "webhook" and "." in message_id:
        # Standard Webhooks 1.0, "Signature scheme": it would be open where the id ends.
        raise PayloadError(
            "id",
            "holds a full stop, which stands between the parts of what is signed",
            "Give it one of letters, digits, - and _",
        )
    schema = _SCHEMAS.get(provider)
    if schema is not None and not _is_plain(provider, payload):
        _read(schema, payload)


def read(
    provider: str, payload: bytes, *, max_payload_bytes: int | None = None
) -> Email | Mapping[str, Any]:
    """As `check`, for a mail provider: the neutral e-mail, or the provider's own body, decoded."""
    _checked(payload, max_payload_bytes)
    return _read(_SCHEMAS[provider], payload)


def advise(provider: str, payload: bytes) -> tuple[str, ...]:
    """What the provider would rather have otherwise; the message is sent all the same. One line
    for each kind of trouble, the same for every message that has it."""
    schema = _SCHEMAS.get(provider)
    if schema is None or schema.advised_bytes is None or len(payload) <= schema.advised_bytes:
        return ()
    return (schema.advice,)


def _is_plain(provider: str, payload: bytes) -> bool:
    if payload.startswith(_NEUTRAL):
        return is_plain_email(payload)
    return provider == "sparkpost" and is_plain_transmission(payload)


def _checked(payload: bytes, max_payload_bytes: int | None) -> None:
    if max_payload_bytes is not None and len(payload) > max_payload_bytes:
        raise MessageTooLarge("payload", len(payload), max_payload_bytes)
    try:
        encode_payload(payload)
    except InvalidMessage as error:
        raise PayloadError(error.field, error.problem, error.mend) from error


def _read(schema: _Schema, payload: bytes) -> Email | Mapping[str, Any]:
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        # JSON by its grammar, and yet not readable: 1e999.
        raise PayloadError("payload", str(error)) from error
    if is_neutral(document):
        email = parse(document)
        schema.neutral(email)
        if schema.sizes is not None:
            schema.sizes(payload)
        return email
    schema.native(document)
    if schema.sizes is not None:
        schema.sizes(payload)
    native: Mapping[str, Any] = document
    return native
