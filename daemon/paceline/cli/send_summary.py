"""What has become of a file that is being sent. No output."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from paceline.cli.lines import Ranges, Refusal
from paceline.cli.spreading import Spread


@dataclass(slots=True)
class Summary:
    """What has become of the file so far."""

    destination: str
    id_prefix: str
    read: int = 0
    made_ids: int = 0
    accepted: int = 0
    already: int = 0
    skipped: int = 0
    refused: list[Refusal] = field(default_factory=list)
    invalid: int = 0
    conflicts: int = 0
    taken: Ranges = field(default_factory=Ranges)
    in_doubt: Ranges = field(default_factory=Ranges)
    #: Of those that were taken.
    unreplicated: Ranges = field(default_factory=Ranges)
    tried: int = 0
    stopped: str = ""
    spread: Spread | None = None
    warnings: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> int:
        """Lines that are messages which can be sent."""
        return self.read - self.invalid

    @property
    def not_tried(self) -> int:
        """Good lines that were not reached."""
        return self.good - self.tried

    def view(self, *, dry_run: bool) -> dict[str, Any]:
        """For --json."""
        return {
            "destination": self.destination,
            "dry_run": dry_run,
            "read": self.read,
            "accepted": self.accepted,
            "already": self.already,
            "refused": [refusal.view() for refusal in self.refused],
            "skipped": self.skipped,
            "not_tried": self.not_tried,
            "accepted_lines": self.taken.spans,
            "in_doubt_lines": self.in_doubt.spans,
            "unreplicated_lines": self.unreplicated.spans,
            "stopped": self.stopped or None,
            "made_ids": self.made_ids,
            "id_prefix": self.id_prefix if self.made_ids else None,
            "warnings": [{"warning": w, "messages": n} for w, n in self.warnings.items()],
            "spread": self.spread.view() if self.spread else None,
        }
