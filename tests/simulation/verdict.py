"""Judges a run: every window, the use of the rate, connections, the law. All on the fake clock."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from paceline.sink.windows import worst_window
from simulation.meter import Cost
from simulation.scene import Scene
from simulation.stage import START_US, Place, Stage

_SCRIPTS_S = 1.0


@dataclass(frozen=True)
class Verdict:
    """One destination.

    margin  requests over burst + rate * w in the worst window of any length; above 0 is a breach
    use     requests started, of rate * T, after the warm-up; what was only saved up before it and
            spent in it does not count
    hosts   how many hosts sent, and the largest one's part of what was sent
    """

    name: str
    started: int
    margin: float
    use: float
    connections: int
    connections_max: int
    granted: int
    law: int
    hosts: int
    largest: float
    words: Counter[str]
    takes: Counter[str]
    lost_batches: int

    @property
    def sound(self) -> bool:
        """Window, connections and law, whatever the load was."""
        return (
            self.margin <= 0
            and self.connections <= self.connections_max
            and self.granted <= self.connections_max
            and self.law == 0
        )


@dataclass(frozen=True)
class Run:
    """What a scene came to; ``cost`` is that of all after the warm-up, ``script_us`` what one call
    of each script takes Redis."""

    scene: Scene
    verdicts: list[Verdict]
    cost: Cost
    script_us: dict[str, float]
    messages: int
    workers: int
    frozen: int

    @property
    def sound(self) -> bool:
        """All destinations."""
        return all(v.sound for v in self.verdicts)

    @property
    def least_use(self) -> float:
        """Of the destination that used least of its rate."""
        return min(v.use for v in self.verdicts)


def simulate(scene: Scene) -> Run:
    """Runs the scene for its warm-up and its seconds."""
    with tempfile.TemporaryDirectory() as folder, Stage(scene, Path(folder) / "redis") as stage:
        stage.kernel.run(scene.warm_s * 1e6)
        stage.meter.start()
        before = _sent(stage)
        saved = {place.to.name: _level(place) for place in stage.places}
        stage.kernel.run(scene.seconds * 1e6)
        cost, messages = stage.meter.stop(), _sent(stage) - before
        verdicts = [_judge(scene, place, saved[place.to.name]) for place in stage.places]
        script_us = stage.meter.durations(lambda: stage.kernel.run(_SCRIPTS_S * 1e6))
        return Run(scene, verdicts, cost, script_us, messages, len(stage.workers), stage.frozen)


def _sent(stage: Stage) -> int:
    return sum(len(place.starts_us) for place in stage.places)


def _level(place: Place) -> float:
    """The permits in the bucket now."""
    gate = place.store.census().gate
    since_us = place.stage.kernel.now_us - float(gate.get("at", place.stage.kernel.now_us))
    filled = float(gate.get("level", 0)) + since_us * place.to.rate / 1e6
    return min(float(gate["k"]), filled)


def _judge(scene: Scene, place: Place, saved: float) -> Verdict:
    starts = place.starts_us
    assert all(a <= b for a, b in itertools.pairwise(starts))
    from_us = START_US + scene.warm_s * 1e6
    census = place.store.census()
    spent = max(0.0, saved - _level(place))
    by_host = place.starts_by_host.values()
    return Verdict(
        place.to.name,
        len(starts),
        worst_window([us * 1000 for us in starts], scene.rate, scene.burst).margin,
        (sum(us >= from_us for us in starts) - spent) / (scene.rate * scene.seconds),
        place.most_connections,
        place.to.effective_connections,
        sum(worker.slots for worker in census.workers),
        census.difference,
        len(by_host),
        max(by_host, default=0) / max(1, len(starts)),
        place.words,
        place.takes,
        place.lost_batches,
    )
