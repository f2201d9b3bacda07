"""What a check found, and what that makes of the whole. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]

REDIS, CONFIGURATION, MACHINE = "redis", "configuration", "this machine"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at (``group`` and ``check``), how it is, and how to mend it."""

    group: str
    check: str
    level: Level
    text: str
    mend: str = ""

    def view(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def destination_group(name: str) -> str:
    """The group of a destination's findings."""
    return f"destination {name}"


def healthy(findings: Iterable[Finding], *, strict: bool = False) -> bool:
    """Whether nothing is wrong; with ``strict`` whether nothing is doubtful either."""
    bad = ("fail", "warn") if strict else ("fail",)
    return not any(finding.level in bad for finding in findings)
