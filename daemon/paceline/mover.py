"""Moves messages of a destination in trouble to the one it falls back to (`fallback.py` decides).

Any number of them may run: the share is changed, and the messages that it allows are counted,
inside the scripts, so that two together neither lean twice nor move more than one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from paceline.fallback import Decision, Policy, Watch, decide, lean_of, look_at
from paceline.outbox import OutboxStore

log = logging.getLogger("paceline.mover")

#: Messages in one call: Redis serves nobody else meanwhile.
_MOST = 100


@dataclass(frozen=True, slots=True)
class Moved:
    """What one turn did: messages moved, the share in force (points of 100), and why not more
    (a word of ``lua/move.lua``; "" where nothing leans)."""

    count: int
    share: int
    why: str


class Mover:
    """One destination's mover. ``other`` is what it falls back to, on the same Redis."""

    def __init__(
        self, store: OutboxStore, other: OutboxStore, policy: Policy | None = None
    ) -> None:
        policy = policy or Policy()
        self._store = store
        self._other = other
        self._policy = policy
        self._own, self._others = Watch(policy), Watch(policy)

    def run_once(self) -> Moved:
        """One turn. Raises RedisError."""
        census = self._store.census()
        self._own.see(look_at(census))
        self._others.see(look_at(self._other.census()))
        lean = lean_of(census.gate, self._other.destination)
        decision = decide(lean, self._own, self._others, census.now_us / 1e6)
        share = lean.share
        if decision.share != share or (share and decision.loud):
            share, changed = self._store.lean(
                self._other.destination,
                lean.share,
                decision.share,
                self._policy.apart_s,
                loud=decision.loud,
            )
            if changed:
                self._tell(lean.share, decision)
        if not share:
            return Moved(0, 0, "")
        return self._move(share)

    def _move(self, share: int) -> Moved:
        total = 0
        while True:
            count, why = self._store.move(self._other.destination, _MOST)
            total += count
            if not count or why != "moved":
                return Moved(total, share, why)

    def _tell(self, before: int, decision: Decision) -> None:
        name, other = self._store.destination, self._other.destination
        level = logging.WARNING if decision.share > before else logging.INFO
        log.log(
            level,
            "%s: %d%% of its flow goes to %s now, %d%% before: %s",
            name,
            decision.share,
            other,
            before,
            decision.why,
            extra={"event": "fallback", "destination": name},
        )
