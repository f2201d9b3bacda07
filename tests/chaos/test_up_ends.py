"""What ``paceline up`` keeps running is killed, and ``up`` itself, and told to stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from rampage.deeds import Deeds, settled
from rampage.intake import Ledger, Producer
from rampage.judge import judge
from rampage.plan import Deed
from rampage.together import Together
from support.wait import until

DEEDS = [
    Deed("kill", "redis", 0, 0.0, 0.0),
    Deed("kill", "worker", 0, 0.0, 0.0),
    Deed("kill", "daemon", 0, 0.0, 0.0),
    Deed("term", "redis", 0, 0.0, 0.0),
    Deed("kill", "up", 0, 0.0, 0.0),
    Deed("term", "up", 0, 0.0, 0.0),
]


@pytest.mark.long
def test_up_keeps_all_running_and_is_started_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Together(tmp_path, faults="") as scene:
        ledger = Ledger(path)
        producer = Producer(scene.outbox_url, ledger, 60.0, "m")
        producer.start()
        hands = Deeds(scene, ledger, "m")
        done = [hands.do(deed) for deed in DEEDS]
        producer.halt()
        until(lambda: settled(scene), 30, "nothing is unfinished", 0.05)
        found = judge(scene, path, done)
    assert found["wrong"] == []
    assert set(found["duplicate_causes"]) <= {"lease-expired"}
    assert done[-1].code == 0
