"""The rehearsal itself: a small one passes, each planted fault is found, and it cleans up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paceline.embedded import attached_url
from paceline.rehearsal.processes import Part, PartFailed, cpu_s
from support.wait import until

# Small and quick: the rate is asked for loosely, for the machine may be busy with other tests.
SMALL = (
    "--messages", "150", "--rate", "200", "--burst", "40", "--workers", "1", "--least", "0.2",
    "--wait-503", "1", "2", "--json",
)  # fmt: skip
QUICK = (*SMALL, "--messages", "100", "--faults", "500:2%,reset_after:2%")


def rehearse(folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "paceline", "rehearse", "--folder", str(folder), *options],
        capture_output=True,
        timeout=90,
        check=False,
        env={**os.environ, "PACELINE_REDIS_URL": "redis://127.0.0.1:1/0"},
    )
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


def failed(report: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["what"] for check in report["checks"] if not check["ok"]}


def test_a_small_rehearsal_passes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code, report = rehearse(folder, *SMALL)
    assert (code, failed(report)) == (0, {})
    figures = report["figures"]
    assert set(figures["sink"]["faults"]) >= {"503", "500", "reset_after", "hang", "address"}
    assert figures["messages"]["states"] == {"sent": 144, "dead": 4}
    assert figures["duplicates"]["by_cause"] == {"reset": 1, "timeout": 1}
    assert json.loads((folder / "report.json").read_text()) == report
    config = folder / "paceline.toml"
    assert config.stat().st_mode & 0o777 == 0o600
    assert attached_url(folder / "redis") is None


def test_a_planted_loss_is_found_and_named(tmp_path: Path) -> None:
    code, report = rehearse(tmp_path, *QUICK, "--plant", "lost")
    assert code == 1
    found = failed(report)
    assert set(found) == {"nothing lost", "conservation law"}
    assert "lost: 1 message (r7-" in found["nothing lost"]
    assert "unknown to the outbox" in found["nothing lost"]
    assert "(difference +1)" in found["conservation law"]


def test_all_else_that_is_planted_is_found_and_named(tmp_path: Path) -> None:
    planted = ("--plant", "unexplained", "--plant", "law", "--plant", "excess")
    code, report = rehearse(tmp_path, *QUICK, *planted)
    assert code == 1
    found = failed(report)
    assert set(found) == {"duplicates", "conservation law", "pace"}
    assert found["duplicates"].startswith("UNEXPLAINED: 1 message (r7-")
    assert "(difference -1)" in found["conservation law"]
    assert found["pace"].startswith("excess: ")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_everything(tmp_path: Path, signum: signal.Signals) -> None:
    log, folder = tmp_path / "stderr", tmp_path / "run"
    command = [sys.executable, "-m", "paceline", "rehearse", "--folder", str(folder)]
    command += ["--messages", "200", "--rate", "20", "--workers", "1", "--faults", ""]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, start_new_session=True)
    try:
        until(lambda: b" sending" in log.read_bytes(), 30, "the rehearsal sends")
        process.send_signal(signum)
        assert process.wait(30) == 130, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert attached_url(folder / "redis") is None
    assert not (folder / "sink.port").exists()
    assert "stopped" in (folder / "worker-1.log").read_text().splitlines()[-1]
    assert "interrupted" in log.read_text()


@pytest.mark.parametrize("command", ["rehearse", "bench"])
def test_a_folder_in_use_is_left_alone(tmp_path: Path, command: str) -> None:
    (tmp_path / "mine").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "paceline", command, "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_process_that_ends_by_itself_is_named_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('cannot go on'); sys.exit(3)"]
    part = Part("worker-1", command, os.environ, tmp_path / "log")
    assert part.await_end(30) == 3
    with pytest.raises(PartFailed, match=r"worker-1 ended with code 3\n  cannot go on"):
        part.check()


def test_one_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, threading\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "print('up', flush=True)\n"
        "threading.Event().wait()\n"
    )
    part = Part("deaf", [sys.executable, "-c", code], os.environ, tmp_path / "log")
    until(lambda: "up" in part.tail(), 30, "it runs")
    part.check()
    part.ask_to_stop()
    assert part.await_end(0.1) == -signal.SIGKILL


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_cpu_time_is_read() -> None:
    assert (cpu_s(os.getpid()) or 0) > 0
    assert cpu_s(2**22 + 1) is None
