"""`paceline health`, against processes that live, freeze and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stack import Stack
from support.wait import until


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("health")
    with Stack(folder, workers=1, more="lease_s = 2.0\n", exporter="127.0.0.1:0") as running:
        yield running


def _health(stack: Stack, *asked: str, **environ: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "paceline", "health", *asked, "--config", str(stack.config)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **environ},
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def _exporter(stack: Stack) -> str:
    return stack.metrics_url().removeprefix("http://").removesuffix("/metrics")


def test_live_processes_are_well(stack: Stack) -> None:
    worker = stack.worker_processes[0]
    assert _health(stack, "worker")[0] == 0
    code, said = _health(stack, "worker", "web", "--pid", str(worker.pid))
    assert code == 0
    assert "is live, with 10 connections" in said
    assert _health(stack, "daemon", "--address", _exporter(stack)) == (0, "ok\n")
    # Where the exporter is off, Redis is asked.
    code, said = _health(stack, "daemon", PACELINE_EXPORTER_LISTEN="off")
    assert code == 0
    assert "a daemon is live for every destination" in said


def test_what_is_not_there_is_not_well(stack: Stack) -> None:
    code, said = _health(stack, "worker", "--pid", "1")
    assert code == 1
    assert "process 1 is not registered in Redis" in said
    code, said = _health(stack, "worker", "wbe")
    assert code == 1
    assert "wbe" in said
    code, said = _health(stack, "daemon", "--address", "127.0.0.1:1")
    assert code == 1
    assert "http://127.0.0.1:1/healthz does not answer: [Errno 111] Connection refused" in said
    code, said = _health(stack, "daemon", "--address", "nowhere")
    assert code == 1
    assert "--address" in said


def test_an_answer_that_is_not_good_is_told(stack: Stack) -> None:
    code, said = _health(stack, "daemon", "--address", stack.sink_address)
    assert code == 1
    assert "answers 4" in said


def test_a_frozen_worker_is_not_well_until_it_is_back(stack: Stack) -> None:
    worker = stack.worker_processes[0]
    worker.send_signal(signal.SIGSTOP)
    try:
        until(lambda: not any(w.live for w in stack.store.census().workers), 20, "its lease lapses")
        code, said = _health(stack, "worker")
        assert code == 1
        assert "its lease lapsed" in said
    finally:
        worker.send_signal(signal.SIGCONT)
    stack.wait_live(1)
    assert _health(stack, "worker")[0] == 0


def test_redis_away_or_a_broken_configuration_is_1_and_says_so(
    stack: Stack, tmp_path: Path
) -> None:
    away = "redis://127.0.0.1:1/0"
    code, said = _health(stack, "worker", PACELINE_REDIS_URL=away)
    assert code == 1
    assert "Redis" in said
    broken = tmp_path / "paceline.toml"
    broken.write_text("[redis]\nurl = 7\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "paceline", "health", "worker", "--config", str(broken)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "redis.url" in done.stderr
