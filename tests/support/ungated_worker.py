"""A worker whose gate is disabled, for control runs: it obeys fencing, but waits for no permit."""

from __future__ import annotations

import sys

from paceline.answers import Leased, Permit
from paceline.clock import Clock
from paceline_workers.gate import CalledOff, WireGate


def _at_once(self: WireGate, leased: Leased, size: int = 0) -> tuple[Permit, float]:
    permit = self._say(leased, size)
    if permit is None or permit.verdict in ("gone", "closed"):
        raise CalledOff("gone" if permit is None else permit.verdict, "", None)
    return permit, Clock().elapsed_s()


if __name__ == "__main__":
    WireGate.await_permit = _at_once  # type: ignore[method-assign]
    from paceline.__main__ import main

    sys.argv[0] = "paceline"
    sys.exit(main())
