"""Neutral e-mails in a merged request: what they share is checked and rendered once.

The messages of a mailing are equal in all but `to`, `substitution` and `metadata`. What is left of
such a message, as the bytes that came in, is the key to what was made of the first one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple, cast

import msgspec

from paceline.errors import PayloadError
from paceline.payloads import read
from paceline.schemas.email import PLACEHOLDER, Address, Email, address

__all__ = ["NEUTRAL", "Member", "Peeler"]

#: How a neutral payload begins, but for white space that no encoder writes.
NEUTRAL = b'{"email"'

_REMEMBERED = 8
_NONE_RESERVED: frozenset[str] = frozenset()
_NONE = msgspec.Raw(b"")
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NAME = re.compile(r"[A-Za-z](?:_?[A-Za-z0-9])*")
_is_forged = re.compile(r"[\r\n\0]").search
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`|~-]+"
_LABEL = r"[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
# A JSON string that is an address and nothing else, without a doubt.
_is_plain = re.compile(
    rf'"(?=[^@]{{1,64}}@.{{1,63}}\Z){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+"'.encode()
).fullmatch
Values = dict[str, str | int]


class _Mail(msgspec.Struct, forbid_unknown_fields=True, rename={"sender": "from"}):
    sender: msgspec.Raw
    to: list[msgspec.Raw]
    cc: msgspec.Raw = _NONE
    bcc: msgspec.Raw = _NONE
    reply_to: msgspec.Raw = _NONE
    subject: msgspec.Raw = _NONE
    text: msgspec.Raw = _NONE
    html: msgspec.Raw = _NONE
    headers: msgspec.Raw = _NONE
    attachments: msgspec.Raw = _NONE
    substitution: Values = {}
    template: msgspec.Raw = _NONE
    tags: msgspec.Raw = _NONE
    metadata: Values = {}


class _Neutral(msgspec.Struct, forbid_unknown_fields=True):
    email: _Mail


_decode = msgspec.json.Decoder(_Neutral).decode


class Member(NamedTuple):
    """One message of a merged request. `tags` are those of all; values are as they came in."""

    shared: tuple[bytes, ...]
    to: Address
    values: Values
    metadata: Values
    tags: bytes


class _Known(NamedTuple):
    key: tuple[bytes, ...]
    shared: tuple[bytes, ...] | None
    names: frozenset[str]
    in_subject: frozenset[str]


class Peeler:
    """Takes neutral payloads apart for one provider.

    provider         whose checks apply
    build            what the messages share, from the first of them; None: they cannot be merged
    shared_metadata  the provider keeps one `metadata` for a request
    reserved         in lower case, what no name in `substitution` may be
    """

    def __init__(
        self,
        provider: str,
        build: Callable[[Email], tuple[bytes, ...] | None],
        *,
        shared_metadata: bool,
        reserved: frozenset[str] = frozenset(),
    ) -> None:
        self._provider = provider
        self._build = build
        self._shared_metadata = shared_metadata
        self._is_name = lru_cache(maxsize=4096)(partial(_is_name, reserved))
        self._known: tuple[_Known, ...] = ()

    def peel(self, payload: bytes) -> Member | None:
        """What the message gives; None where it goes alone. Raises PayloadError."""
        try:
            mail = _decode(payload).email
        except _FAULTS:
            return None
        if len(mail.to) != 1 or mail.cc is not _NONE or mail.bcc is not _NONE:
            return None
        key: tuple[bytes, ...] = (
            bytes(mail.sender),
            bytes(mail.subject),
            bytes(mail.text),
            bytes(mail.html),
            bytes(mail.tags),
        )
        if not (
            mail.reply_to is _NONE
            and mail.headers is _NONE
            and mail.attachments is _NONE
            and mail.template is _NONE
        ):
            key += (
                bytes(mail.reply_to),
                bytes(mail.headers),
                bytes(mail.attachments),
                bytes(mail.template),
            )
        if self._shared_metadata and mail.metadata:
            key += (b"", msgspec.json.encode(mail.metadata))
        known = next((one for one in self._known if one.key == key), None)
        if known is None:
            known = self._learn(key, payload)
        elif not self._fits(mail, known):
            # To be refused, or out of the way: with the words of the full check.
            read(self._provider, payload)
            return None
        if known.shared is None:
            return None
        try:
            to = _address(bytes(mail.to[0]))
        except _FAULTS:
            # Raw bytes were skipped over, not looked at. Of a mail like one that is known only this
            # finds out; the full check has the words for it.
            read(self._provider, payload)
            return None
        return Member(known.shared, to, mail.substitution, mail.metadata, key[4])

    def _learn(self, key: tuple[bytes, ...], payload: bytes) -> _Known:
        email = read(self._provider, payload)
        if not isinstance(email, Email):
            raise PayloadError("payload", "is no neutral e-mail")
        contents = (email.subject or "", email.text or "", email.html or "")
        known = _Known(
            key,
            self._build(email),
            frozenset(name for text in contents for name in PLACEHOLDER.findall(text)),
            frozenset(PLACEHOLDER.findall(contents[0])),
        )
        self._known = (known, *self._known[: _REMEMBERED - 1])
        return known

    def _fits(self, mail: _Mail, known: _Known) -> bool:
        """What differs from message to message is right, as the full check would find."""
        values = mail.substitution
        if not values.keys() >= known.names:
            return False
        for name, value in values.items():
            # Names are few, and the same in every message.
            if not self._is_name(name) or (isinstance(value, str) and "\0" in value):
                return False
        for name, value in mail.metadata.items():
            if not _is_name(_NONE_RESERVED, name) or (isinstance(value, str) and "\0" in value):
                return False
        for name in known.in_subject:  # noqa: SIM110 - called a million times a minute
            if _is_forged(str(values[name])):
                return False
        return True


def _is_name(reserved: frozenset[str], name: str) -> bool:
    return len(name) <= 64 and _NAME.fullmatch(name) is not None and name.lower() not in reserved


def _address(raw: bytes) -> Address:
    if _is_plain(raw):
        return Address(raw[1:-1].decode("ascii"))
    return address("payload.email.to[0]", msgspec.json.decode(raw))


def texts(values: Values) -> Mapping[str, str]:
    """The values as text, as the neutral payload means them."""
    for value in values.values():
        if value.__class__ is not str:
            break
    else:
        return cast(dict[str, str], values)
    return {name: str(value) for name, value in values.items()}
