"""The faults a sink can play, and the short language that asks for them. Pure.

A spec is a comma-separated list of pieces ``KIND[=VALUE][:SHARE%][:option=value]...``::

    503:1%,500:1%,429:2%:retry_after=1,reset_after:0.5%,hang:0.5%:for=40s

=================  ==================  =====  ==================================================
kind               options             acted  what the client sees
=================  ==================  =====  ==================================================
``503``            retry_after, body,  no     that HTTP status (200-599; ``status=503`` also)
                   acted
``reset_before``                       no     RST as soon as the headers are in, body unread
``reset_after``    acted               yes    RST after the whole body was read
``eof_before``                         no     clean FIN as soon as the headers are in
``eof_after``      acted               yes    clean FIN after the whole body, no answer
``hang``           for                 yes    no answer (or a good one after ``for=3s``)
``drip``           every               yes    a good answer, one byte every 100 ms
``close``                              yes    a good answer, then FIN without warning
``business=999``   body, acted         no     HTTP 200 whose body says no
``garbage=html``   acted               yes    unreadable 200: html, empty, binary, or truncated
                                              (less than its Content-Length, then FIN)
``redirect=302``   location, acted     no     3xx with Location
``huge=16MB``      acted               yes    a good answer, padded to that size
``typed``          acted               yes    a good answer, every value of a wrong type
``liar=500``       acted               yes    that 5xx with the body of a good answer
``row=422/1300``   retry_after, for,   no     the provider's own error answer: HTTP status, and its
                   acted                      code; ``for`` is the wait it tells (60s)
``quota=2101``     as row              no     ``row=420/2101``
``large-batches``  as row              no     ``row=403/large-batches``
``limit-exceeded`` as row              no     ``row=429/limit-exceeded``
``ok``                                 yes    the good answer (for scripts)
=================  ==================  =====  ==================================================

``acted`` (yes or no) says whether the provider did what it was asked before it failed: a 504 may
well have been delivered. Without a share a fault is certain. Option values may be
percent-encoded (``%2C`` for a comma).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import accumulate
from urllib.parse import unquote

from paceline.sink.spec import SpecError, duration_s, share, size_bytes

_ROW = re.compile(r"\d{3}(?:/[A-Za-z0-9-]+)?\Z")
_DATE_OFFSET = re.compile(r"date[+-]\d+(?:\.\d+)?\Z")
GARBAGE = ("html", "truncated", "empty", "binary")
REDIRECTS = (301, 302, 303, 307, 308)


class FaultSpecError(SpecError):
    """A fault spec that cannot be read. Names the piece and says what is allowed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. ``acted``: did the provider do its work before it failed?

    ``code`` is the HTTP status (status, redirect, liar), the business code, or the bytes (huge).
    ``form`` is the kind of garbage, or the name of the row.
    ``retry_after`` is the header's value: seconds, an HTTP date, or ``date+N``, a date N seconds
    after the answer. ``label`` is the name used in records and counts.
    """

    kind: str
    label: str
    acted: bool
    code: int = 0
    form: str = "html"
    retry_after: str | None = None
    body: str | None = None
    location: str = "/elsewhere"
    for_s: float | None = None
    every_s: float = 0.1

    @property
    def before_body(self) -> bool:
        """Whether it strikes as soon as the headers are in."""
        return self.kind in ("reset_before", "eof_before")


@dataclass(frozen=True, slots=True)
class FaultMix:
    """Faults with their shares (fractions that sum to at most 1); the rest of arrivals are ok."""

    faults: tuple[Fault, ...] = ()
    bounds: tuple[float, ...] = ()
    text: str = ""

    def at(self, u: float) -> Fault | None:
        """The fault at the quantile ``u`` in (0, 1), or None for a good answer."""
        i = bisect_right(self.bounds, u)
        return self.faults[i] if i < len(self.faults) else None


NO_FAULTS = FaultMix()


@dataclass(frozen=True, slots=True)
class _Kind:
    acted: bool
    options: tuple[str, ...] = ()
    value: Callable[[str], dict[str, int | str]] | None = None
    default: str | None = None


def _status(text: str) -> dict[str, int | str]:
    if not (text.isdecimal() and 200 <= int(text) <= 599):
        raise SpecError(f'"{text}" is not an HTTP status from 200 to 599')
    return {"code": int(text)}


def _redirect(text: str) -> dict[str, int | str]:
    if not (text.isdecimal() and int(text) in REDIRECTS):
        raise SpecError(f'"{text}" is not one of {", ".join(map(str, REDIRECTS))}')
    return {"code": int(text)}


def _business(text: str) -> dict[str, int | str]:
    if not text.isdecimal():
        raise SpecError(f'"{text}" is not a business code (a whole number)')
    return {"code": int(text)}


def _garbage(text: str) -> dict[str, int | str]:
    if text not in GARBAGE:
        raise SpecError(f'"{text}" is not one of {", ".join(GARBAGE)}')
    return {"form": text}


def _liar(text: str) -> dict[str, int | str]:
    if not (text.isdecimal() and 500 <= int(text) <= 599):
        raise SpecError(f'"{text}" is not an HTTP status from 500 to 599')
    return {"code": int(text)}


def _row(text: str) -> dict[str, int | str]:
    if not _ROW.match(text):
        raise SpecError(f'"{text}" is not the name of a row: write STATUS or STATUS/CODE')
    return {"form": text}


def _quota(text: str) -> dict[str, int | str]:
    return _row(f"420/{text}")


def _huge(text: str) -> dict[str, int | str]:
    return {"code": size_bytes(text)}


_ROW_OPTIONS = ("retry_after", "for", "acted")
_KINDS: Mapping[str, _Kind] = {
    "ok": _Kind(acted=True),
    "status": _Kind(acted=False, options=("retry_after", "body", "acted"), value=_status),
    "reset_before": _Kind(acted=False),
    "reset_after": _Kind(acted=True, options=("acted",)),
    "eof_before": _Kind(acted=False),
    "eof_after": _Kind(acted=True, options=("acted",)),
    "hang": _Kind(acted=True, options=("for",)),
    "drip": _Kind(acted=True, options=("every",)),
    "close": _Kind(acted=True),
    "business": _Kind(acted=False, options=("body", "acted"), value=_business, default="999"),
    "garbage": _Kind(acted=True, options=("acted",), value=_garbage, default="html"),
    "redirect": _Kind(acted=False, options=("location", "acted"), value=_redirect, default="302"),
    "huge": _Kind(acted=True, options=("acted",), value=_huge, default="16MB"),
    "typed": _Kind(acted=True, options=("acted",)),
    "liar": _Kind(acted=True, options=("acted",), value=_liar, default="500"),
    "row": _Kind(acted=False, options=_ROW_OPTIONS, value=_row),
    "quota": _Kind(acted=False, options=_ROW_OPTIONS, value=_quota, default="2101"),
    "large-batches": _Kind(acted=False, options=_ROW_OPTIONS),
    "limit-exceeded": _Kind(acted=False, options=_ROW_OPTIONS),
}
# Rows by a name of their own.
_NAMED_ROWS = {
    "row": "",
    "quota": "",
    "large-batches": "403/large-batches",
    "limit-exceeded": "429/limit-exceeded",
}

ALLOWED = (
    "an HTTP status (503), reset_before, reset_after, eof_before, eof_after, hang, drip, close, "
    "business=CODE, garbage=html|truncated|empty|binary, redirect=302, huge=16MB, typed, "
    "liar=500, row=STATUS/CODE, quota=CODE, large-batches, limit-exceeded, ok"
)


def parse_fault(text: str) -> Fault:
    """Read one fault without a share, e.g. ``429:retry_after=2`` or ``ok``.

    Raises FaultSpecError.
    """
    try:
        fault, chance = _piece(text)
        if chance is not None:
            raise SpecError("a share (%) has no meaning here: this fault is certain")
    except SpecError as exc:
        raise FaultSpecError(f'fault "{text}": {exc}') from exc
    return fault


def parse_faults(text: str) -> FaultMix:
    """Read a mix, e.g. ``503:1%,reset_after:0.5%``; the empty text and ``none`` are no faults.

    Raises FaultSpecError, naming the piece and what is allowed.
    """
    text = text.strip()
    if text in ("", "none"):
        return NO_FAULTS
    faults: list[Fault] = []
    shares: list[float] = []
    pieces = text.split(",")
    for number, piece in enumerate(pieces, 1):
        try:
            fault, chance = _piece(piece.strip())
        except SpecError as exc:
            where = f"piece {number} of {len(pieces)}, " if len(pieces) > 1 else ""
            raise FaultSpecError(f'faults: {where}"{piece}": {exc}') from exc
        faults.append(fault)
        shares.append(1.0 if chance is None else chance)
    bounds = tuple(accumulate(shares))
    if bounds[-1] > 1 + 1e-9:
        raise FaultSpecError(
            f'faults "{text}": the shares sum to {bounds[-1] * 100:g}%; at most 100% is allowed '
            "(a piece without a share counts as 100%)"
        )
    return FaultMix(tuple(faults), bounds, text)


def _piece(text: str) -> tuple[Fault, float | None]:
    head, *rest = text.split(":")
    name, equals, value = head.partition("=")
    if name.isdecimal() and not equals:
        name, equals, value = "status", "=", name
    kind = _KINDS.get(name)
    if kind is None:
        raise SpecError(f'unknown kind "{name}"; allowed: {ALLOWED}')
    fields: dict[str, int | str] = {}
    if kind.value is not None:
        given = value if equals else kind.default
        if given is None:
            raise SpecError(f'"{name}" needs a value, e.g. status=503 or row=422/1300')
        fields = kind.value(given)
    elif equals:
        raise SpecError(f'"{name}" takes no value')
    chance: float | None = None
    options: dict[str, str] = {}
    for part in rest:
        key, equals, raw = part.partition("=")
        if not equals:
            if chance is not None:
                raise SpecError("two shares in one piece")
            chance = share(part)
        elif key not in kind.options:
            allowed = ", ".join(kind.options) or "none"
            raise SpecError(f'"{name}" has no option "{key}"; its options: {allowed}')
        elif key in options:
            raise SpecError(f'option "{key}" is given twice')
        else:
            options[key] = unquote(raw)
    return _build(name, kind, fields, options), chance


def _build(name: str, kind: _Kind, fields: dict[str, int | str], options: dict[str, str]) -> Fault:
    code, form = fields.get("code", 0), fields.get("form", "html")
    label = str(code) if name == "status" else name
    if name in ("business", "redirect"):
        label = f"{name}={code}"
    elif name == "garbage":
        label = f"garbage={form}"
    elif name == "liar":
        label = f"liar={code}"
    elif name in _NAMED_ROWS:
        form = _NAMED_ROWS[name] or form
        label = {"row": f"row={form}", "quota": f"quota={str(form)[4:]}"}.get(name, name)
    return Fault(
        kind="row" if name in _NAMED_ROWS else name,
        label=label,
        acted=_yes(options["acted"]) if "acted" in options else kind.acted,
        code=int(code),
        form=str(form),
        retry_after=_retry_after(options.get("retry_after")),
        body=options.get("body"),
        location=_header_value("location", options.get("location", "/elsewhere")),
        for_s=duration_s(options["for"]) if "for" in options else None,
        every_s=duration_s(options.get("every", "100ms")),
    )


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise SpecError(f'acted="{text}" is neither yes nor no')
    return text == "yes"


def _retry_after(text: str | None) -> str | None:
    if text is None or text.isdecimal() or _DATE_OFFSET.match(text):
        return text
    try:
        parsedate_to_datetime(_header_value("retry_after", text))
    except (ValueError, TypeError) as exc:
        raise SpecError(
            f'retry_after="{text}" is neither whole seconds (2), nor an HTTP date '
            "(percent-encode its comma), nor date+SECONDS"
        ) from exc
    return text


def _header_value(name: str, text: str) -> str:
    # A line break smuggled in by %0D%0A would split the answer's head.
    if not text.isascii() or not text.isprintable():
        raise SpecError(f"{name} holds a character that cannot stand in a header")
    return text
