"""A provider that is down for a while, with a long queue before it: what it cost the messages, and
how soon they went out again. On the fake clock."""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paceline.records import Live
from simulation.provider import Down
from simulation.scene import WARM_S, Scene
from simulation.stage import Place, Stage

#: Sending, before the provider goes down and after it came back.
BEFORE_S, AFTER_S = 10.0, 70.0
_SPAN_S, _FULL = 5.0, 0.95


@dataclass(frozen=True)
class Outage:
    """What became of the messages.

    most_attempts  that any one of them spent on the outage, failed connects included
    spent          attempts in all, ``hit`` messages; ``most_charged`` against the tries of any
    resumed_s      from its return until five seconds at 95% of the rate were over; None: never
    unsent         of those that met the outage, still unsent at the end
    """

    queued: int
    waiting_at_return: int
    hit: int
    spent: int
    most_attempts: int
    most_charged: int
    dead: int
    resumed_s: float | None
    unsent: int
    law: int


def least_queued(rate: float) -> int:
    """So many that there is always something to send before the outage and after it."""
    return round(rate * (WARM_S + BEFORE_S + AFTER_S)) + 200


def simulate_outage(
    seconds: float, how: Down, *, queued: int, rate: float = 100.0, seed: int = 1
) -> Outage:
    """One destination, two workers on two hosts."""
    scene = Scene(
        hosts=2, destinations=1, seed=seed, rate=rate, load="idle", queued=queued, payload_bytes=200
    )
    with tempfile.TemporaryDirectory() as folder, Stage(scene, Path(folder) / "redis") as stage:
        place = stage.places[0]
        stage.kernel.run((scene.warm_s + BEFORE_S) * 1e6)
        place.provider.go_down(how)
        stage.kernel.run(seconds * 1e6)
        place.provider.come_back()
        back_us, waiting = stage.kernel.now_us, place.store.census().unfinished
        charged = _most_charged(place)
        stage.kernel.run(AFTER_S * 1e6)
        census = place.store.census()
        return Outage(
            queued=queued,
            waiting_at_return=waiting,
            hit=len(place.failures),
            spent=place.failures.total(),
            most_attempts=max(place.failures.values(), default=0),
            most_charged=max(charged, _most_charged(place)),
            dead=census.law["dead"],
            resumed_s=_resumed_s(place.starts_us, back_us, rate),
            unsent=sum(isinstance(found, Live) for found in _heads(place)),
            law=census.difference,
        )


def _heads(place: Place) -> list[object]:
    return [found[0] for found in place.store.look(list(place.failures)) if found is not None]


def _most_charged(place: Place) -> int:
    return max((head.tries for head in _heads(place) if isinstance(head, Live)), default=0)


def _resumed_s(starts_us: Sequence[int], back_us: int, rate: float) -> float | None:
    later = starts_us[bisect_left(starts_us, back_us) :]
    need = round(_FULL * rate * _SPAN_S)
    for first, last in zip(later, later[need - 1 :], strict=False):
        if last - first <= _SPAN_S * 1e6:
            return (max(last, first + _SPAN_S * 1e6) - back_us) / 1e6
    return None
