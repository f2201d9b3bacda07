"""E-mail addresses, as strictly as providers take them. Pure."""

from __future__ import annotations

import re
from email.utils import getaddresses

_ADDRESS = re.compile(r"[^@\s<>(),;:\"\[\]\\]{1,64}@(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]+\Z")


def is_address(text: str) -> bool:
    """Whether it is one bare address: ``a@example.com``."""
    return _ADDRESS.match(text) is not None


def mailboxes(text: str) -> list[str] | None:
    """The bare addresses in ``A <a@example.com>, b@example.com``; None where any is malformed."""
    # The plain case first: the standard library takes 20 µs for an address.
    plain = [part.strip() for part in text.split(",")]
    if all(map(is_address, plain)):
        return plain
    found = [address for _, address in getaddresses([text])]
    return found if found and all(map(is_address, found)) else None


def code_wanted(address: str, marker: str) -> int | None:
    """What a marked address asks for: None where it is not marked, its number where it names one
    (``reject-300@…``), else 0. An empty marker marks nothing."""
    if not marker or not address.startswith(marker):
        return None
    digits = re.match(r"\d*", address[len(marker) :])
    return int(digits[0]) if digits and digits[0] else 0
