"""Daemon and exporter killed, told to stop, frozen, with requests on the wire: sending goes on,
nothing is lost, nothing is sent twice. What kills a worker leaves: test_worker_kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from rampage.deeds import Deeds, settled
from rampage.intake import Ledger, Producer
from rampage.judge import RECOVERY_S, judge
from rampage.plan import Deed
from rampage.scene import Scene
from support.wait import until

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
    path = tmp_path / "ledger.jsonl"
    with Scene(tmp_path, daemons=1, faults="") as scene:
        ledger = Ledger(path)
        producer = Producer(scene.outbox_url, ledger, 60.0, "m")
        producer.start()
        hands = Deeds(scene, ledger, "m")
        done = [hands.do(deed) for deed in DEEDS]
        producer.halt()
        until(lambda: settled(scene), 30, "nothing is unfinished", 0.05)
        found = judge(scene, path, done)
    assert found["wrong"] == []
    assert found["duplicates"] == 0
    assert [it.code for it in done] == [None, None, 0, 0, None]
    assert max(it.recovery_s for it in done) < RECOVERY_S
    assert any(it.counts for it in done), "the kills hit nothing"
