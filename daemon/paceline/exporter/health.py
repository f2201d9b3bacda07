"""What /healthz and /readyz say: alive (or restart me), ready (or look at what is around me).

Alive is the process itself: its loops run and turn. Redis away is no reason to restart anything.
Ready is that it can do its work: Redis answers, and each loop's last turn went well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from paceline.exporter.flight import Overdue
from paceline.lifecycle import Loop

#: A turn that waits for Redis ends with its time-out, of a few seconds; one that has not ended
#: after so long hangs.
_HANGS_S = 60.0
_RECENT_S = 15.0

Loops = Callable[[], Sequence[Loop[Any]] | None]


class Health:
    """``loops()`` are those that should run, None before they do and when they are to stop;
    ``ping()`` raises while Redis does not answer."""

    def __init__(
        self, loops: Loops, ping: Callable[[], object], monotonic_s: Callable[[], float]
    ) -> None:
        self._loops = loops
        self._ping = ping
        self._monotonic_s = monotonic_s

    def not_alive(self) -> list[str]:
        """Reasons to restart this process."""
        now = self._monotonic_s()
        reasons = []
        for loop in self._loops() or ():
            if not loop.alive:
                reasons.append(f"{loop.name}: its thread has ended")
            elif now - loop.turned_s > _HANGS_S:
                reasons.append(f"{loop.name}: has made no turn for {now - loop.turned_s:.0f} s")
        return reasons

    def not_ready(self) -> list[str]:
        """What keeps it from doing its work."""
        reasons = self.not_alive()
        now = self._monotonic_s()
        loops = self._loops()
        if loops is None:
            reasons.append("it is starting or stopping")
        for loop in loops or ():
            if loop.trouble:
                reasons.append(f"{loop.name}: {loop.trouble}")
            elif now - loop.turned_s > _RECENT_S:
                reasons.append(f"{loop.name}: no turn for {now - loop.turned_s:.0f} s")
        try:
            self._ping()
        except (RedisError, Overdue):
            reasons.insert(0, "Redis does not answer")
        return reasons
