"""Which process is known dead: never one that lives, whatever cannot be seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paceline import host
from support.wait import until

pytestmark = pytest.mark.skipif(not host.machine(), reason="needs /proc")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def _facts(pid: int) -> dict[str, object]:
    return {**host.identity(), "pid": pid, "started": host.started(pid)}


def test_the_living_the_stopped_and_the_dead(child: subprocess.Popen[bytes]) -> None:
    facts = _facts(child.pid)
    assert facts["started"]
    assert not host.is_known_dead(facts)
    child.send_signal(signal.SIGSTOP)
    assert not host.is_known_dead(facts), "frozen is not dead: it may hold a permit"
    child.kill()
    # First a zombie, for its parent has not asked for it yet: it writes nothing more.
    until(lambda: host.is_known_dead(facts), 5, "the zombie is dead")
    child.wait()
    assert host.is_known_dead(facts)


def test_a_pid_that_came_again_is_another_process(child: subprocess.Popen[bytes]) -> None:
    assert host.is_known_dead({**_facts(child.pid), "started": "1"})


@pytest.mark.parametrize(
    "change",
    [{"machine": "elsewhere/b/c"}, {"machine": ""}, {"started": ""}, {"pid": 0}, {"pid": "x"},
     {"pid": None}, {"pid": -1}],
)  # fmt: skip
def test_nobody_is_judged_by_facts_that_do_not_tell(
    child: subprocess.Popen[bytes], change: dict[str, object]
) -> None:
    facts = _facts(child.pid)
    child.kill()
    child.wait()
    assert not host.is_known_dead({**facts, **change})
    assert not host.is_known_dead({})


def test_a_process_that_proc_hides_is_not_dead(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """/proc mounted with hidepid shows no process of other users."""
    facts = _facts(child.pid)
    real = Path

    def hidden(path: str) -> Path:
        return tmp_path / "nothing" if path.startswith("/proc/") else real(path)

    monkeypatch.setattr(host, "Path", hidden)
    assert host.started(child.pid) == ""
    assert not host.is_known_dead(facts)
    child.kill()
    child.wait()
    assert host.is_known_dead(facts)


def test_identity_is_that_of_this_process() -> None:
    mine = host.identity()
    assert mine["pid"] == os.getpid()
    assert not host.is_known_dead(mine)
    assert host.memory_bytes() > 1_000_000
