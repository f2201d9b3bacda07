"""A receiver of webhooks that are signed as Standard Webhooks 1.0 has it."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from paceline.sink.answers import Request, Rows, Verdict, When, retry_after
from paceline.sink.spec import SpecError

_ROWS = Rows(((400, 401, 403, 404, 408, 410, 413, 422, 425, 429, 500, 502, 503, 504), ()))
_ID, _AT, _SIGNATURE = b"webhook-id", b"webhook-timestamp", b"webhook-signature"
#: How old or new a timestamp may be, in seconds, as in the standard's own libraries.
TOLERANCE_S = 300


def webhook_key(secret: str | None) -> bytes | None:
    """The key in ``whsec_…``; None stands for any. Raises SpecError."""
    if secret is None:
        return None
    try:
        if not secret.startswith("whsec_"):
            raise ValueError
        return binascii.a2b_base64(secret.removeprefix("whsec_"), strict_mode=True)
    except ValueError:
        raise SpecError("the key of a webhook is whsec_ and base64") from None


@dataclass(frozen=True, slots=True)
class Webhook:
    """200 for what is signed and fresh, else 401; a request counts as one recipient.

    ``key`` None takes any signature that looks like one. With ``validate=False`` nothing is looked
    at.
    """

    key: bytes | None = field(default=None, repr=False)
    validate: bool = True
    clock: Callable[[], float] = time.time
    name: str = "webhook"
    methods: frozenset[bytes] = frozenset((b"POST",))
    headers: frozenset[bytes] = frozenset((_ID, _AT, _SIGNATURE))
    rows: tuple[str, ...] = _ROWS.names

    @property
    def reads_body(self) -> bool:
        return self.validate

    def judge(self, request: Request, /) -> Verdict:
        wrong = self._wrong(request) if self.validate else None
        if wrong is not None:
            return Verdict(401, b'{"ok":false,"error":"%s"}' % wrong.encode(), False, "signature")
        return Verdict(200, b'{"ok":true}', True, recipients=1)

    def _wrong(self, request: Request) -> str | None:
        message_id, at, signatures = (
            request.headers.get(name, b"") for name in (_ID, _AT, _SIGNATURE)
        )
        if not message_id or b"." in message_id:
            return "no webhook-id, or one with a full stop"
        if not at.isdigit() or abs(self.clock() - int(at)) > TOLERANCE_S:
            return "no webhook-timestamp, or an old one"
        given = [one[3:] for one in signatures.split(b" ") if one.startswith(b"v1,")]
        if self.key is None:
            return None if any(given) else "no webhook-signature"
        hashed = hmac.new(self.key, b".".join((message_id, at, request.body)), hashlib.sha256)
        wanted = binascii.b2a_base64(hashed.digest(), newline=False)
        if not any(hmac.compare_digest(one, wanted) for one in given):
            return "no signature of this secret"
        return None

    def row(self, name: str, _good: Verdict, when: When, /) -> Verdict:
        status, _ = _ROWS.find(self.name, name)
        return Verdict(status, b'{"ok":false}', False, name, extra=retry_after(when))

    def business(self, code: int, _good: Verdict, /) -> bytes:
        return b'{"ok":false,"code":%d}' % code

    def reset(self) -> None:
        """Nothing is remembered."""
