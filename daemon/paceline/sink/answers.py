"""What the provider says: requests in, verdicts out. Pure; no sockets.

A :class:`Profile` judges a complete :class:`Request` and returns a :class:`Verdict`; it also makes
the provider's error answers (its rows) and business errors. There is one file per provider in
``profiles/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from paceline.sink.idempotency import Hold
from paceline.sink.spec import SpecError
from paceline.sink.wire import JSON

OK = "ok"


class Request(msgspec.Struct, frozen=True, gc=False):
    """A complete request. ``number`` is the arrival's, for made-up ids; ``path`` is the target with
    its query; ``headers`` holds those the profile asked for, names in lower case; ``sha256`` is
    the hex digest of the body as it came over the wire; ``method`` is one of the profile's."""

    body: bytes
    content_type: bytes = b""
    number: int = 0
    path: bytes = b"/"
    headers: Mapping[bytes, bytes] = {}
    sha256: str = ""
    method: bytes = b"POST"


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """An answer, whether the provider acted, and a name for the record.

    ``recipients`` were accepted; ``addresses`` are theirs, where the body was read; ``exposed``
    of them see one another's addresses. ``extra`` holds header lines, each ending in CRLF.
    ``hold`` keeps the answer for the request's idempotency key, where it has one.
    """

    status: int
    body: bytes
    accepted: bool
    name: str = OK
    recipients: int = 0
    addresses: Sequence[str] = ()
    exposed: int = 0
    extra: bytes = b""
    content_type: bytes = JSON
    hold: Hold | None = None


class When(NamedTuple):
    """The time of an error answer, and how long it tells the client to wait (None: nothing)."""

    wall_s: float
    wait_s: float | None = None


class Profile(Protocol):
    """A provider's manners."""

    @property
    def name(self) -> str:
        """The profile's name."""

    @property
    def methods(self) -> frozenset[bytes]:
        """HTTP methods answered; others get 405."""

    @property
    def headers(self) -> frozenset[bytes]:
        """The request headers that ``judge`` looks at, in lower case (without Content-Type)."""

    @property
    def reads_body(self) -> bool:
        """Whether ``judge`` looks at the body (if not, the sink need not keep it)."""

    @property
    def rows(self) -> tuple[str, ...]:
        """The error answers that ``row`` makes, by name: ``429``, ``422/1300``."""

    def judge(self, request: Request, /) -> Verdict:
        """The answer to a complete request."""

    def row(self, name: str, good: Verdict, when: When, /) -> Verdict:
        """The error answer of that name, given in place of ``good``. Raises SpecError where the
        provider has no such row. Every profile has the row ``429``."""

    def business(self, code: int, good: Verdict, /) -> bytes:
        """The body of a business error in a 200, given in place of ``good``."""

    def reset(self) -> None:
        """Forget every request seen so far."""


class Rows:
    """The error answers of one provider, as lines (HTTP statuses, codes).

    Every status of a line goes with every code of it. An error may come without its code too.
    """

    def __init__(self, *lines: tuple[Sequence[int], Sequence[str]]) -> None:
        self._rows: dict[str, tuple[int, str | None]] = {}
        for statuses, codes in lines:
            for status in statuses:
                if status >= 400:
                    self._rows[f"{status}"] = (status, None)
                for code in codes:
                    self._rows[f"{status}/{code}"] = (status, code)
        self.names = tuple(self._rows)

    def find(self, provider: str, name: str) -> tuple[int, str | None]:
        """HTTP status and code. Raises SpecError."""
        try:
            return self._rows[name]
        except KeyError:
            raise SpecError(
                f'{provider} has no row "{name}"; its rows: {", ".join(self.names)}'
            ) from None


def retry_after(when: When) -> bytes:
    """The header line that says how long to wait, in whole seconds; nothing without a wait."""
    return b"" if when.wait_s is None else b"Retry-After: %d\r\n" % -(-when.wait_s // 1)


def padded(body: bytes, size: int) -> bytes:
    """A JSON body grown to about ``size`` bytes, that says the same."""
    if not body.endswith(b"}"):
        return body + b" " * (size - len(body))
    head, tail = body[:-1] + b',"note":"', b'"}'
    return head + b"x" * max(0, size - len(head) - len(tail)) + tail


def mistyped(body: bytes) -> bytes:
    """A JSON body with the same names and every value of a wrong type."""
    if not body:
        return b'["accepted"]'
    return msgspec.json.encode(_mistyped(msgspec.json.decode(body)))


def _mistyped(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _mistyped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_mistyped(item) for item in value]
    if isinstance(value, str):
        return int(value) if value.isdecimal() else [value]
    return 0 if value is None else str(value).lower()


def is_json(content_type: bytes) -> bool:
    """Whether a Content-Type says JSON, parameters aside."""
    return content_type.partition(b";")[0].strip().lower() == b"application/json"


def matches(given: str, expected: str | None) -> bool:
    """Whether a credential is the one expected; None expects any that is not empty."""
    return given == expected if expected is not None else bool(given)
