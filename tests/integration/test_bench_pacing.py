"""The bench of the pace, a short one: its contestants' real processes, judged by the sink."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paceline.embedded import attached_url

CACHE = Path(__file__).resolve().parents[2] / ".run" / "bench-bullmq"


def run(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "paceline", "bench", "pacing", "--json", *options],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        # Whatever the caller's Redis is, it is none of the bench's.
        env={**os.environ, "PACELINE_REDIS_URL": "redis://127.0.0.1:1/0", **environ},
    )


def pacing(*options: str) -> dict[str, Any]:
    done = run(*options)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def excess(turn: dict[str, Any]) -> dict[float, float]:
    return {window["window_s"]: window["excess"] for window in turn["windows"]}


@pytest.mark.long
def test_paceline_keeps_its_pace_through_a_freeze(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    report = pacing(
        *("--only", "paceline", "--only", "frozen", "--rate", "200", "--burst", "40"),
        *("--seconds", "2", "--folder", str(folder)),
    )
    (turn,) = report["turns"]
    assert (turn["contestant"], turn["scene"]) == ("paceline", "frozen")
    assert excess(turn) == {0.1: 0, 1.0: 0, 5.0: 0}
    counts = turn["counts"]
    assert (len(counts), sum(counts)) == (20, turn["requests"])
    # Frozen for half a second from 0.75 s, or a little later on a busy machine.
    assert sum(counts[:7]) > 0
    assert sum(counts[10:12]) == 0
    assert sum(counts[13:]) > 0
    assert report["machine"]["server"].startswith(("Valkey", "Redis"))
    assert report["skipped"] == {}
    assert attached_url(folder / "frozen-1-paceline" / "redis") is None


def test_a_bucket_at_dispatch_lets_go_at_once_what_waited_for_frozen_workers() -> None:
    report = pacing(
        *("--only", "dispatch", "--only", "frozen", "--rate", "200", "--burst", "2"),
        *("--seconds", "2"),
    )
    (turn,) = report["turns"]
    assert excess(turn)[0.1] > 0


@pytest.mark.long
@pytest.mark.needs("node", "npm")
def test_bullmq_takes_part() -> None:
    done = run(
        *("--only", "bullmq", "--only", "steady", "--rate", "50", "--burst", "2"),
        *("--seconds", "2", "--cache", str(CACHE)),
    )
    if "npm install ended" in done.stderr and os.environ.get("PACELINE_REQUIRE_ALL") != "1":
        pytest.skip("needs the npm registry")
    assert done.returncode == 0, done.stderr
    (turn,) = json.loads(done.stdout)["turns"]
    assert turn["requests"] > 0
    # Its limiter is in force: without it, the backlog of 258 would be gone at once.
    assert turn["windows"][1]["most"] <= 3 * 50


def test_a_bench_of_nobody_says_who_is_missing(tmp_path: Path) -> None:
    done = run("--only", "bullmq", "--cache", str(tmp_path / "cache"), PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody can take part; bullmq: node is not installed" in done.stderr
