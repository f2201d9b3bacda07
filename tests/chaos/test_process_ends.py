"""Daemon and exporter killed, told to stop, frozen, with requests on the wire: sending goes on,
nothing is lost, nothing is sent twice. What kills a worker leaves: test_worker_kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from rampage.judge import RECOVERY_S
from rampage.plan import Deed
from rampage.scene import Scene
from rampage.short import play

DEEDS = [
    Deed("kill", "daemon", 0, 0.0, 1.0),
    Deed("kill", "exporter", 0, 0.0, 0.0),
    Deed("term", "daemon", 0, 0.0, 0.0),
    Deed("term", "exporter", 0, 0.0, 0.0),
    # The only one there is, for longer than the reaper's gap.
    Deed("freeze", "daemon", 0, 2.3, 0.0),
]


@pytest.mark.long
@pytest.mark.timeout(120)
def test_nothing_is_sent_twice_when_daemon_and_exporter_end(tmp_path: Path) -> None:
    with Scene(tmp_path, daemons=1, faults="") as scene:
        done, found = play(scene, tmp_path, DEEDS)
    assert found["wrong"] == []
    assert found["duplicates"] == 0
    assert [it.code for it in done] == [None, None, 0, 0, None]
    assert max(it.recovery_s for it in done) < RECOVERY_S
    assert any(it.counts for it in done), "the kills hit nothing"
