"""What a careless app may hand to the client."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

_MARK = "PAYL04D"
_LONG = "k" * 100_000


def _nested(depth: int) -> Any:
    value: Any = _MARK
    for _ in range(depth):
        value = [value]
    return value


_LOOP: list[Any] = [_MARK]
_LOOP.append(_LOOP)
_PAYLOADS: tuple[Any, ...] = (
    {"a": _MARK}, [], None, 5, True, "{}", b"{}", b"", "", b"\xff", "\ud800",
    {"a": "\ud800" + _MARK}, float("nan"), {"a": [float("inf"), None]}, 10**400, {"n": 10**5000},
    _nested(90), _nested(101), _nested(5000), _LOOP, {1: 2}, {(1, 2): 3}, {None: 1}, object(),
    {"a": object()}, {_LONG: 1}, b'{"a":1,"a":2}', b"[" * 5000, b'"\\ud800"', b"{}{}", b" ", b"\0",
    bytearray(b"[1]"), memoryview(b"[1]"), {"x": "y" * 6000}, datetime(2026, 1, 1, tzinfo=UTC),
    {"s": {1, 2}}, b"1e999", {"a": b"\xff"}, lambda: None, type, "x" * 20, f'{{"m": "{_MARK}"}}',
)  # fmt: skip
_TEXTS: tuple[Any, ...] = (
    "a", "", "A.b", "a b", "a/b", "\0", "\ud800", "é", "x" * 200, _LONG, 5, b"a", ["a"], {}, "a\n",
    "high", "bulk", "HIGH", True, float("nan"),
)  # fmt: skip
_TIMES: tuple[Any, ...] = (
    0, 5.5, -1, 1e11, 1e400, float("nan"), 10**400, True, "now", "", b"5", "2026-11-30T08:00:00Z",
    "2026-11-30T08:00:00", "9999-12-31T23:59:59+00:00", datetime(2026, 1, 1),
    datetime(1, 1, 1, tzinfo=UTC), [], _LONG, datetime.max.replace(tzinfo=UTC),
    "2026-13-45T99:99:99Z",
)  # fmt: skip
_OPTIONS = (
    ("id", _TEXTS), ("priority", _TEXTS), ("tenant", _TEXTS), ("endpoint", _TEXTS), ("key", _TEXTS),
    ("campaign", _TEXTS), ("not_before", _TIMES), ("expires", _TIMES), ("delay_s", _TIMES),
    ("ttl_s", _TIMES),
)  # fmt: skip
_NAMES = (*("d",) * 12, "nobody", "", "D", "d\n", "{d}", "x" * 100, "\ud800")


def objects(seed: int) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Destination, payload, options; without end."""
    draw = random.Random(seed)
    number = 0
    while True:
        number += 1
        options: dict[str, Any] = {"id": f"c-{number}"}
        for _ in range(draw.choice((0, 0, 1, 1, 2))):
            name, values = draw.choice(_OPTIONS)
            options[name] = draw.choice(values)
        payload = {"n": number, "m": _MARK} if draw.random() < 0.4 else draw.choice(_PAYLOADS)
        yield draw.choice(_NAMES), payload, options
