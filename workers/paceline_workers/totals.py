"""This process's running totals, on their way into Redis's, each event counted once.

A beat carries the totals so far, and what Redis is known to have counted of them; the script adds
the difference to what it remembers of this process, or, where it remembers nothing (it buried us,
or came back empty), to what we know it counted. So a beat whose answer was lost counts once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any


class Totals:
    """``read()`` gives the totals since the process began, by name."""

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        self._read = read
        # A worker's name may come again, with another process's totals.
        self._process = secrets.token_hex(8)
        self._counted: dict[str, int] = {}

    def claim(self) -> dict[str, Any]:
        """What a beat carries."""
        return {"process": self._process, "now": dict(self._read()), "counted": self._counted}

    def accepted(self, claim: Mapping[str, Any]) -> None:
        """Redis answered the beat that carried ``claim``."""
        self._counted = claim["now"]
