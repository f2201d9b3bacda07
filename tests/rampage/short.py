"""A few given deeds under load, for tests of one kind of fault; judged as the random run is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rampage.deeds import Deeds, Done, settled
from rampage.intake import Ledger, Producer
from rampage.judge import judge
from rampage.plan import Deed
from rampage.scene import Scene
from support.wait import until

PER_S = 60.0


def play(scene: Scene, folder: Path, deeds: Sequence[Deed]) -> tuple[list[Done], dict[str, Any]]:
    """Each when the run has recovered from the one before. What they were, and what came of all."""
    path = folder / "ledger.jsonl"
    ledger = Ledger(path)
    producer = Producer(scene.outbox_url, ledger, PER_S, "m")
    producer.start()
    hands = Deeds(scene, ledger, "m")
    done = [hands.do(deed) for deed in deeds]
    producer.halt()
    until(lambda: settled(scene), 30, "nothing is unfinished", 0.05)
    return done, judge(scene, path, done)
