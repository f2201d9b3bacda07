"""Any JSON API."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from paceline.sink.answers import Request, Rows, Verdict, When, retry_after

_ROWS = Rows(
    ((400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 422, 425, 429, 500, 502, 503, 504), ())
)


@dataclass(frozen=True, slots=True)
class Http:
    """A body that is JSON gets ``status`` and ``{"ok":true,"id":...}``, else 400.

    A request counts as one recipient, whatever it holds. With ``validate=False`` bodies are not
    read.
    """

    status: int = 200
    validate: bool = True
    name: str = "http"
    methods: frozenset[bytes] = frozenset((b"POST", b"PUT", b"PATCH"))
    headers: frozenset[bytes] = frozenset()
    rows: tuple[str, ...] = _ROWS.names

    @property
    def reads_body(self) -> bool:
        return self.validate

    def judge(self, request: Request, /) -> Verdict:
        if self.validate:
            try:
                msgspec.json.decode(request.body)
            except (msgspec.DecodeError, UnicodeDecodeError):
                no = b'{"ok":false,"error":"the body is not JSON"}'
                return Verdict(400, no, False, "malformed")
        answer = b'{"ok":true,"id":"sink-%d"}' % request.number
        accepted = 200 <= self.status < 300
        return Verdict(self.status, answer, accepted, recipients=int(accepted))

    def row(self, name: str, _good: Verdict, when: When, /) -> Verdict:
        status, _ = _ROWS.find(self.name, name)
        body = b'{"ok":false,"message":"%d"}' % status
        return Verdict(status, body, False, extra=retry_after(when))

    def business(self, code: int, _good: Verdict, /) -> bytes:
        return b'{"ok":false,"code":%d}' % code

    def reset(self) -> None:
        """Nothing is remembered."""
