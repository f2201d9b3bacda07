"""What ``paceline up`` keeps running is killed, and ``up`` itself, and told to stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from rampage.plan import Deed
from rampage.short import play
from rampage.together import Together

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
    with Together(tmp_path, faults="") as scene:
        done, found = play(scene, tmp_path, DEEDS)
    assert found["wrong"] == []
    assert set(found["duplicate_causes"]) <= {"lease-expired"}
    assert done[-1].code == 0
