"""The common case, decided in microseconds: a small, plain payload that is certainly right.

An app may enqueue a million messages a minute; looking at each field by hand takes a third of that
minute. These say True only of what the full check passes too (a test holds them to it), and False
of all else, right or wrong: then the full check looks, and finds the words for what is wrong.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec
from msgspec import UNSET, UnsetType

from paceline.schemas.email import PLACEHOLDER
from paceline.schemas.sparkpost import RESERVED

__all__ = ["LARGEST", "is_plain_email", "is_plain_transmission"]

#: Below the smallest limit of any part, SparkPost's 10 KB of metadata.
LARGEST = 10 * 1024

# No part of it backtracks.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`|~-]+"
_LABEL = r"[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_MAILBOX = rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+"
_is_mailbox = re.compile(_MAILBOX).fullmatch
_is_named = re.compile(rf"[A-Za-z0-9 '.-]*<{_MAILBOX}>").fullmatch
_NAME = re.compile(r"[A-Za-z](?:_?[A-Za-z0-9])*")
_is_forged = re.compile(r"[\r\n\0]").search


class _Mail(msgspec.Struct, forbid_unknown_fields=True, rename={"sender": "from"}):
    sender: str
    to: list[str]
    subject: str
    text: str | UnsetType = UNSET
    html: str | UnsetType = UNSET
    substitution: dict[str, str | int] = {}
    metadata: dict[str, str | int] = {}
    tags: list[str] = []


class _Neutral(msgspec.Struct, forbid_unknown_fields=True):
    email: _Mail


class _Mailbox(msgspec.Struct, forbid_unknown_fields=True):
    email: str
    name: str = ""


class _Recipient(msgspec.Struct, forbid_unknown_fields=True):
    address: str | _Mailbox
    substitution_data: dict[str, msgspec.Raw] | UnsetType = UNSET
    metadata: dict[str, msgspec.Raw] | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET


class _Content(msgspec.Struct, forbid_unknown_fields=True, rename={"sender": "from"}):
    sender: str | _Mailbox = ""
    subject: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    html: str | UnsetType = UNSET
    template_id: str | UnsetType = UNSET
    use_draft_template: bool | UnsetType = UNSET


class _Transmission(msgspec.Struct, forbid_unknown_fields=True):
    recipients: list[_Recipient]
    content: _Content
    options: dict[str, msgspec.Raw] | UnsetType = UNSET
    campaign_id: str = ""
    metadata: dict[str, msgspec.Raw] | UnsetType = UNSET
    substitution_data: dict[str, msgspec.Raw] | UnsetType = UNSET


_decode_neutral = msgspec.json.Decoder(_Neutral).decode
_decode_transmission = msgspec.json.Decoder(_Transmission).decode
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def is_plain_email(payload: bytes) -> bool:
    """A neutral e-mail to one recipient that every mail provider takes."""
    # What is written as an escape is looked for in vain below.
    if len(payload) > LARGEST or b"%recipient" in payload or b"\\u00" in payload:
        return False
    try:
        it = _decode_neutral(payload).email
    except _FAULTS:
        return False
    values, to = it.substitution, it.to
    if len(to) != 1 or not (_is_address(to[0]) and _is_address(it.sender)):
        return False
    if it.text is UNSET and it.html is UNSET:
        return False
    for name in values:
        if not _is_name(name):
            return False
    for name in it.metadata:
        if not _is_name(name):
            return False
    if it.tags and (len(it.tags) > 10 or "" in it.tags):
        return False
    # A control character in a JSON string can only be written with a backslash.
    if b"\\" in payload:
        lines = (it.subject, *it.tags, *values.values(), *it.metadata.values())
        if any(_is_forged(str(line)) for line in lines):
            return False
    if b"{{" in payload:
        for content in (it.subject, it.text, it.html):
            if content is UNSET or "{{" not in content:
                continue
            names = PLACEHOLDER.findall(content)
            if len(names) != content.count("{{") or not values.keys() >= set(names):
                return False
    return True


def is_plain_transmission(payload: bytes) -> bool:
    """SparkPost's own body, with its content inside or a template's id, and nothing out of the way
    in it."""
    if len(payload) > LARGEST:
        return False
    try:
        it = _decode_transmission(payload)
    except _FAULTS:
        return False
    content = it.content
    if not it.recipients or (content.template_id is UNSET and not _is_content(content)):
        return False
    for recipient in it.recipients:
        if not _is_sound(recipient.address):
            return False
    campaign = it.campaign_id
    return not _is_forged(campaign) and len(campaign) <= 64 and campaign.isascii()


def _is_content(content: _Content) -> bool:
    subject = content.subject
    return (
        subject is not UNSET
        and not _is_forged(subject)
        and not (content.text is UNSET and content.html is UNSET)
        and _is_sound(content.sender)
    )


def _is_address(text: str) -> bool:
    """So short that no part of it can be too long."""
    return len(text) <= 63 and (_is_mailbox(text) or _is_named(text)) is not None


@lru_cache(maxsize=4096)
def _is_name(name: str) -> bool:
    """Names are few, and the same in every message."""
    return len(name) <= 64 and _NAME.fullmatch(name) is not None and name.lower() not in RESERVED


def _is_sound(mailbox: str | _Mailbox) -> bool:
    if isinstance(mailbox, str):
        return _is_address(mailbox)
    return _is_address(mailbox.email) and not _is_forged(mailbox.name)
