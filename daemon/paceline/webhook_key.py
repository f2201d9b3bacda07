"""The keys that webhooks are signed with, as people write them. Pure.

Standard Webhooks 1.0, "Signature scheme": `whsec_` and the base64 of 24 to 64 random bytes.
"""

from __future__ import annotations

import base64
import binascii

__all__ = ["MEND", "webhook_key"]

_PREFIX = "whsec_"
_LEAST_BYTES, _MOST_BYTES = 24, 64

MEND = "whsec_ and the base64 of 24 to 64 random bytes: echo whsec_$(openssl rand -base64 32)"


def webhook_key(text: str) -> bytes:
    """The key itself. Raises ValueError, whose words never show any of the text."""
    if not text.startswith(_PREFIX):
        raise ValueError(f"does not begin with {_PREFIX}")
    try:
        key = base64.b64decode(text[len(_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        # Not as its cause either: a traceback may be shown.
        raise ValueError(f"is no base64 behind {_PREFIX}") from None
    if not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError(f"is a key of {len(key)} bytes, not of {_LEAST_BYTES} to {_MOST_BYTES}")
    return key
