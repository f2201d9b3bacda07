"""Runs a floor through mischief drawn from a seed, and judges every window of it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import redis

from conformance.floor import Account, Floor, Worker
from paceline.sink.windows import worst_window

_DEEDS = [*["freeze"] * 3, *["trap"] * 2, *["quiet"] * 2, "all", "lapse", "kill", "restart"]
#: Lua counts in doubles, and a wait is rounded up to a whole microsecond: a window of starts may be
#: a microsecond too short.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Outcome:
    """margin   requests over burst + rate * w in the worst window into which no step of a clock and
             no loss of the bucket falls; above 0 is a breach
    whole    the same in the worst window of all, less what those may add
    use      of the rate
    largest_slice   permits drawn in one call
    """

    margin: float
    whole: float
    use: float
    started: int
    largest_slice: int
    deeds: Counter[str]

    @property
    def kept(self) -> bool:
        """No window over."""
        return self.margin <= 0 and self.whole <= 0


def account_of(
    rate: float, burst: int, connections: int, busy: float, *, reserve: int = 0
) -> Account:
    """A provider that keeps a connection busy for that part of the time in which the rate lets each
    send once; leases last longer than the bucket takes to fill."""
    turn_us = connections / rate * 1e6
    return Account(
        rate=rate,
        burst=burst,
        connections=connections,
        reserve=reserve,
        latency_us=max(1, int(turn_us * busy)),
        round_trip_us=max(1, min(1000, int(turn_us * 0.02))),
        lease_us=int(1.5 * (burst + connections) / rate * 1e6),
    )


def run(
    client: redis.Redis, account: Account, seed: int, *, permits: int, deeds: int,
    steps: bool = False, workers: int = 4, sabotage: bool = False,
) -> Outcome:  # fmt: skip
    """About ``permits`` permits' time, with so many deeds in it; ``steps``: of the clock too.
    ``sabotage``: the bucket is as large as the burst, as if no connection could hold a permit."""
    rng = Random(f"{seed} {account}")
    floor = Floor(client, account, rng, workers)
    span_us = round(permits / account.rate * 1e6)
    # Scaled to the run, so that leases lapse in a short one too.
    lease_us = account.lease_us
    done = Counter[str]()
    for at_us in sorted(rng.randrange(span_us) for _ in range(deeds)):
        floor.at(at_us, lambda: _do(floor, rng, lease_us, steps, done))
    if sabotage:
        _enlarge(floor, span_us)
    floor.run(span_us)
    return _judge(floor, span_us, done)


def given_up(client: redis.Redis, account: Account) -> Outcome:
    """One deed alone: a worker frozen for longer than its lease, then all of them."""
    floor = Floor(client, account, Random(1), 4)
    begin_us = 2 * _fill_us(floor)
    floor.at(begin_us, lambda: _give_up(floor, floor.workers[0]))
    span_us = begin_us + 2 * account.lease_us + 3 * _fill_us(floor)
    floor.run(span_us)
    return _judge(floor, span_us, Counter({"lapse": 1}))


def _do(floor: Floor, rng: Random, lease_us: int, steps: bool, done: Counter[str]) -> None:
    deed = rng.choice(_DEEDS)
    if steps and rng.random() < 0.3:
        deed = rng.choice(["forward", "back", "lose"])
    done[deed] += 1
    # As long as permits stay fresh, or longer than leases last.
    span_us = round(rng.choice((0.9e5, rng.uniform(0.2, 1.0) * lease_us, 1.8 * lease_us)))
    victim = rng.randrange(len(floor.workers))
    if deed == "freeze":
        floor.freeze(floor.workers[victim], span_us)
    elif deed == "all":
        for worker in floor.workers:
            floor.freeze(worker, span_us)
    elif deed == "trap":
        _trap(floor)
    elif deed == "lapse":
        _give_up(floor, floor.workers[victim])
    elif deed == "kill":
        floor.kill(victim, known=rng.random() < 0.5)
    elif deed == "quiet":
        floor.be_quiet(round(rng.uniform(0.2, 1.5) * _fill_us(floor)))
    elif deed == "restart":
        floor.restart()
    elif deed == "lose":
        floor.lose_bucket()
    else:
        by_us = rng.choice((1_000, 50_000, 3_600_000_000))
        floor.step_clock(by_us if deed == "forward" else -by_us)


def _trap(floor: Floor) -> None:
    """The worst there is: every connection has its permit, and wakes to a full bucket."""
    for worker in floor.workers:
        floor.freeze(worker, _fill_us(floor), behind=1.0)


def _give_up(floor: Floor, worker: Worker) -> None:
    """One whose connections the others have by then wakes together with them."""
    lapse_us = 2 * floor.account.lease_us
    floor.freeze(worker, lapse_us + _fill_us(floor), behind=1.0)
    floor.at(floor.real_us + lapse_us, lambda: _trap(floor))


def _fill_us(floor: Floor) -> int:
    """In which the bucket fills, all debts included."""
    account = floor.account
    return round((account.burst + account.connections) / account.rate * 1e6)


def _enlarge(floor: Floor, span_us: int) -> None:
    client = floor.store.client
    client.hset("{d}:gate", "k", floor.account.burst)
    step_us = max(1, floor.account.lease_us // 100)
    if floor.real_us + step_us < span_us:
        floor.at(floor.real_us + step_us, lambda: _enlarge(floor, span_us))


def _judge(floor: Floor, span_us: int, done: Counter[str]) -> Outcome:
    account = floor.account
    tolerance = _TOLERANCE + account.rate / 1e6
    starts = floor.starts_us

    def margin(from_us: int, to_us: int) -> float:
        piece = starts[bisect_left(starts, from_us) : bisect_left(starts, to_us)]
        times = [us * 1000 for us in piece]
        return worst_window(times, account.rate, account.burst).margin - tolerance

    edges = [0, *floor.breaks_us, span_us + 1]
    return Outcome(
        margin=max(margin(a, b) for a, b in pairwise(edges)),
        whole=margin(0, span_us + 1) - floor.extra,
        use=len(starts) / (account.rate * span_us / 1e6),
        started=len(starts),
        largest_slice=floor.largest_slice,
        deeds=done,
    )
