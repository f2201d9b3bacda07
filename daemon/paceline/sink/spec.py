"""Values shared by the sink's little languages: durations, shares, sizes. Pure.

Every parser raises :class:`SpecError` with a sentence that names the offending text and what
would be allowed; callers prefix it with where it stood.
"""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m)\Z")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(B|kB|KB|MB)\Z")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_BYTES = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1_000_000}


class SpecError(ValueError):
    """A text in one of the sink's little languages cannot be read."""


def duration_s(text: str) -> float:
    """Seconds in ``250us``, ``20ms``, ``1.5s`` or ``2m``. A unit is required.

    Raises SpecError.
    """
    found = _DURATION.match(text.strip())
    if found is None:
        raise SpecError(f'"{text}" is not a duration; write e.g. 250us, 20ms, 1.5s or 2m')
    return float(found[1]) * _SECONDS[found[2]]


def share(text: str) -> float:
    """The fraction in ``1%`` or ``0.5%``, between 0 and 1. Raises SpecError."""
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError as exc:
        raise SpecError(f'"{text}" is not a share; write e.g. 1% or 0.5%') from exc
    if not text.endswith("%") or not 0 <= value <= 1:
        raise SpecError(f'"{text}" is not a share; write 0% to 100%')
    return value


def size_bytes(text: str) -> int:
    """Bytes in ``512B``, ``64kB`` or ``16MB`` (decimal). Raises SpecError."""
    found = _SIZE.match(text.strip())
    if found is None:
        raise SpecError(f'"{text}" is not a size; write e.g. 512B, 64kB or 16MB')
    return round(float(found[1]) * _BYTES[found[2]])
