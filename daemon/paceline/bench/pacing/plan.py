"""What a bench of the pace is asked to do. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

PACELINE, DISPATCH, BULLMQ = "paceline", "dispatch", "bullmq"
CONTESTANTS = (PACELINE, DISPATCH, BULLMQ)
STEADY, FROZEN = "steady", "frozen"
SCENES = (STEADY, FROZEN)

#: The same for all: two workers with five connections each.
WORKERS, EACH = 2, 5
#: The windows that are judged, seconds.
WINDOWS_S = (0.1, 1.0, 5.0)

_LEAD_LEAST_S = 0.5
_FREEZE_MOST_S, _FREEZE_PART = 5.0, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingPlan:
    """``rate`` in requests/s and ``burst`` in requests are what each contestant is given and judged
    by; ``seconds`` is the span that counts of each turn; ``only`` names contestants and scenes;
    ``node`` False leaves out those that need Node."""

    rate: float = 100.0
    burst: int = 150
    seconds: int = 20
    pairs: int = 1
    only: tuple[str, ...] = ()
    node: bool = True

    @property
    def contestants(self) -> tuple[str, ...]:
        """Those that take turns."""
        return tuple(name for name in self._named(CONTESTANTS) if self.node or name != BULLMQ)

    @property
    def scenes(self) -> tuple[str, ...]:
        """Those that are played."""
        return self._named(SCENES)

    def _named(self, all_of_them: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in all_of_them if name in self.only) or all_of_them

    @property
    def lead_s(self) -> float:
        """From the first request to the span that counts: by then the first burst is spent, also by
        who sends it at the rate."""
        return _LEAD_LEAST_S + self.burst / self.rate

    @property
    def freeze_s(self) -> float:
        """How long the workers are frozen, in the middle of the span."""
        return min(_FREEZE_MOST_S, self.seconds / _FREEZE_PART)

    @property
    def messages(self) -> int:
        """A backlog that nobody can empty: twice what the allowance lets through."""
        return math.ceil(2 * (self.burst + self.rate * (self.lead_s + self.seconds)))
