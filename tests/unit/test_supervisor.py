"""The supervisor: what ends is started again, what stops stops in order, and nobody is left."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paceline import supervisor as module
from paceline.supervisor import PARENT_VARIABLE, Child, Supervisor, watch_parent
from support.wait import until

#: Notes its start and its orderly end in a file of its name.
LIFE = """
import pathlib, signal, sys, time
at = pathlib.Path(sys.argv[1])
def note(word):
    with (at.parent / "all").open("a") as f: f.write(f"{at.name} {word}\\n")
def end(*_):
    note("end"); sys.exit(0)
signal.signal(signal.SIGTERM, end)
note("start")
while True: time.sleep(0.01)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


@pytest.fixture
def run() -> Iterator[Callable[..., Supervisor]]:
    made: list[tuple[Supervisor, threading.Thread]] = []

    def start(*groups: list[Child]) -> Supervisor:
        one = Supervisor(groups, os.environ)
        thread = threading.Thread(target=one.run, daemon=True)
        thread.start()
        made.append((one, thread))
        return one

    yield start
    for one, thread in made:
        one.stopping.set()
        thread.join(20)
        assert not thread.is_alive()
        assert [c.name for c in one.children if c.process and c.process.poll() is None] == []


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    monkeypatch.setattr(module, "_FIRST_S", 0.05)


def _child(folder: Path, name: str) -> Child:
    return Child(name, [sys.executable, "-c", LIFE, str(folder / name)], 5.0, wait_s=0.05)


def _words(folder: Path) -> list[str]:
    at = folder / "all"
    return at.read_text().splitlines() if at.exists() else []


def test_started_last_group_first_and_stopped_first_group_first(
    tmp_path: Path, run: Callable[..., Supervisor]
) -> None:
    one = run([_child(tmp_path, "w1"), _child(tmp_path, "w2")], [_child(tmp_path, "d")])
    until(lambda: len(_words(tmp_path)) == 3, 10, "all are up")
    one.stopping.set()
    until(lambda: len(_words(tmp_path)) == 6, 10, "all have ended")
    ends = [word.split()[0] for word in _words(tmp_path)[3:]]
    assert sorted(ends[:2]) == ["w1", "w2"]
    assert ends[2] == "d"


def test_a_killed_child_is_started_again(tmp_path: Path, run: Callable[..., Supervisor]) -> None:
    child = _child(tmp_path, "w")
    run([child])
    until(lambda: _words(tmp_path) == ["w start"], 10, "it is up")
    assert child.process is not None
    first = child.process.pid
    child.process.kill()
    until(lambda: _words(tmp_path) == ["w start"] * 2, 10, "it is up again")
    assert child.restarts == 1
    assert child.process is not None
    assert child.process.pid != first


def test_a_child_that_keeps_ending_is_started_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    child = Child("c", [sys.executable, "-c", "raise SystemExit(3)"], 1.0, wait_s=1.0)
    one = Supervisor([[child]], os.environ)
    one._start(child)
    waits = []
    for _ in range(5):
        assert child.process is not None
        child.process.wait()
        assert one.run_once() == 0
        waits.append(child.again_s - now[0])
        now[0] = child.again_s - 0.001
        assert one.run_once() == 0
        now[0] = child.again_s
        assert one.run_once() == 1
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert child.process is not None
    child.process.wait()


def test_one_that_cannot_be_started_takes_nobody_with_it(
    tmp_path: Path, run: Callable[..., Supervisor]
) -> None:
    missing = Child("x", [str(tmp_path / "no-such-program")], 1.0, wait_s=0.05)
    child = _child(tmp_path, "w")
    one = run([child], [missing])
    until(lambda: _words(tmp_path) == ["w start"], 10, "the other is up")
    assert child.process is not None
    child.process.kill()
    until(lambda: _words(tmp_path) == ["w start"] * 2, 10, "and kept up")
    assert missing.process is None
    assert not one.stopping.is_set()


def test_a_deaf_child_is_killed_when_its_grace_is_over(
    run: Callable[..., Supervisor],
) -> None:
    child = Child("deaf", [sys.executable, "-c", DEAF], 0.3)
    one = run([child])
    until(lambda: child.process is not None, 5, "it is up")
    process = child.process
    assert process is not None
    one.stopping.set()
    until(lambda: process.poll() is not None, 10, "it is gone")
    # SIGTERM where it came before it had begun to ignore it.
    assert process.returncode in (-signal.SIGKILL, -signal.SIGTERM)


def test_whoever_has_no_supervisor_is_not_stopped() -> None:
    stop = threading.Event()
    before = threading.active_count()
    watch_parent({}, stop)
    assert threading.active_count() == before


def test_whoever_lost_its_supervisor_stops() -> None:
    stop = threading.Event()
    watch_parent({PARENT_VARIABLE: "1" + str(os.getppid())}, stop)
    assert stop.wait(3)
    kept = threading.Event()
    watch_parent({PARENT_VARIABLE: str(os.getppid())}, kept)
    assert not kept.wait(1.2)
    kept.set()


def test_children_know_their_supervisor(tmp_path: Path, run: Callable[..., Supervisor]) -> None:
    at = tmp_path / "seen"
    code = f"import os, time; open({str(at)!r}, 'w').write(os.environ[{PARENT_VARIABLE!r}] + ' ' + str(os.getppid())); time.sleep(60)"  # noqa: E501
    run([Child("c", [sys.executable, "-c", code], 0.1)])
    until(lambda: at.exists() and at.read_text(), 10, "it told")
    assert at.read_text() == f"{os.getpid()} {os.getpid()}"
