"""Ten minutes without a provider, 30,000 messages waiting: it is charged to the destination.

On the fake clock (tests/simulation): real scripts, Scheduler, Reaper, gate and judgement of
outcomes; simulated time, connections and provider. Once for each way of being down.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import get_args

from shows.figures import Figure, at_most
from simulation.outage import least_queued, simulate_outage
from simulation.provider import Down

SECONDS = 600.0
#: 30,000 at 100/s before an outage of ten minutes.
QUEUED_PER_RATE = 0.5
MOST_ATTEMPTS, RESUMED_WITHIN_S = 1, 60.0


def run(folder: Path, seconds: float, seed: int) -> list[Figure]:
    """``seconds`` on the fake clock: of the outage."""
    # What the reaper tells of the destination is what is simulated.
    logging.getLogger("paceline").setLevel(logging.ERROR)
    found: list[Figure] = []
    for how in get_args(Down):
        found += run_one(how, seconds, seed)
    return found


def run_one(how: Down, seconds: float, seed: int, rate: float = 100.0) -> list[Figure]:
    """One way of being down; ``rate`` in requests/s."""
    queued = max(least_queued(rate), round(rate * QUEUED_PER_RATE * seconds))
    seen = simulate_outage(seconds, how, queued=queued, rate=rate, seed=seed)
    resumed_s = float("inf") if seen.resumed_s is None else seen.resumed_s
    return [
        at_most(f"{how}: attempts of one message, most", seen.most_attempts, MOST_ATTEMPTS),
        at_most(f"{how}: dead letters", seen.dead, 0),
        at_most(f"{how}: full rate again after, s", resumed_s, RESUMED_WITHIN_S),
        at_most(f"{how}: law's difference, messages", abs(seen.law), 0),
        Figure(f"{how}: attempts of all", seen.spent),
        Figure(f"{how}: tries charged to one message, most", seen.most_charged),
        Figure(f"{how}: of those it hit, unsent at the end", seen.unsent),
        Figure(f"{how}: waiting when it came back", seen.waiting_at_return),
    ]
