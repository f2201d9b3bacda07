"""Standard Webhooks 1.0: what makes a request provably ours, and fresh. Pure.

Signed is `{id}.{timestamp}.{body}`, with HMAC-SHA256 under each key. While a key is replaced there
are several: a receiver takes a request for true by any one signature that it can verify.

Source: standard-webhooks/spec/standard-webhooks.md, "Verifying webhook authenticity".
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Sequence

__all__ = ["Signer"]


class Signer:
    """The keys of one endpoint, the newest first. `repr` does not show them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("a webhook needs a key to be signed with")
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"Signer({len(self._keys)} keys)"

    def headers(self, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
        """The three headers. `at_s`: unix seconds of this attempt; `body`: as it goes on the wire.

        No full stop may be in the id (`payloads.check` sees to it): it would be open where it ends
        and the time begins, so that one request's signature might be another's.
        """
        signed = f"{message_id}.{at_s}.".encode() + body
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": " ".join([_signature(key, signed) for key in self._keys]),
        }


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + b64encode(hmac.digest(key, signed, "sha256")).decode("ascii")
