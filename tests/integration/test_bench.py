"""The bench itself: a tiny one, of everything; what its sink vouches for; and how it ends early."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from paceline.bench.child import BenchFailed, run_child
from paceline.bench.plan import EVENTS, STANDARD
from paceline.bench.sink import BenchSink
from paceline.embedded import attached_url
from support.wait import until

TINY = ("--pairs", "1", "--messages", "50", "--fsync", "always")
#: Whatever the caller's Redis is, it is none of the bench's.
ELSEWHERE = {"PACELINE_REDIS_URL": "redis://127.0.0.1:1/0"}


def bench(*options: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "paceline", "bench", "--json", *options],
        capture_output=True,
        timeout=150,
        check=False,
        env={**os.environ, **ELSEWHERE},
    )
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout), done.stderr.decode()


def by_name(report: dict[str, Any], fsync: str = "always") -> dict[str, dict[str, Any]]:
    return {f["name"]: f for f in report["figures"] if f["fsync"] == fsync}


def test_a_tiny_one_of_all_contestants(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code, report, told = bench(
        *TINY,
        *("--only", "naive", "--only", "rq", "--only", "paceline-1", "--only", "paceline-2"),
        *("--folder", str(folder), "--check"),
    )
    assert code == (1 if report["missed"] else 0)
    assert set(report) == {
        "format", "machine", "plan", "runs", "memory", "latency", "events", "backlog", "figures",
        "missed", "elapsed_s",
    }  # fmt: skip
    assert report["format"] == 1
    assert report["machine"]["server"].startswith(("Valkey", "Redis"))
    assert 0 <= report["machine"]["stolen"] <= 1
    turns = Counter(run["contestant"] for run in report["runs"])
    assert turns == dict.fromkeys(("naive", "rq", "paceline-1", "paceline-2"), 1)
    for run in report["runs"]:
        parts = {
            "naive": {"loop"},
            "rq": {"producer", "workers"},
        }.get(run["contestant"], {"producer", "daemon", "workers"})
        assert run["accepted"] == run["messages"] == (12 if run["contestant"] == "rq" else 50)
        assert set(run["cpu_s"]) == parts
        assert all(seconds > 0 for seconds in run["cpu_s"].values())
        assert (run["redis_cpu_s"] > 0) is (run["contestant"] != "naive")
        assert (run["intake_s"] is None) is (run["contestant"] == "naive")
        assert run["per_s"] > 0
    found = by_name(report)
    assert found["intake rate, paceline-2 / rq"]["bar"] == "≥ 10"
    cost = {run["contestant"]: run["cpu_ms"] for run in report["runs"]}
    ratio = found["CPU a message, paceline-1 / naive"]
    assert ratio["median"] == pytest.approx(cost["paceline-1"] / cost["naive"])
    assert "always: 1 pairs of 50" in told
    assert f"kept: {folder}" in told
    assert attached_url(folder / "always" / "redis") is None


@pytest.mark.long
def test_a_tiny_one_of_the_other_sections() -> None:
    code, report, _ = bench(
        *TINY,
        *("--only", "memory", "--only", "latency", "--only", "events", "--only", "backlog"),
        *("--fill", "300", "--sends", "4", "--backlog", "200"),
    )
    assert code == 0
    assert report["runs"] == []
    (memory,) = report["memory"]
    assert (memory["messages"], memory["payload"]) == (300, 1000)
    assert 0 < memory["overhead"] < 2000
    (latency,) = report["latency"]
    assert len(latency["ms"]) == 4
    assert all(ms < 60_000 for ms in latency["ms"])
    assert sorted(one["standing"] for one in report["backlog"]) == [100, 200]
    for one in report["backlog"]:
        assert one["sent"] >= 50
        assert one["drain_cpu_s"] > 0
        assert one["redis_cpu_s"] > 0
    with_events, without = report["events"]
    assert (with_events["contestant"], without["contestant"]) == (EVENTS, STANDARD)
    assert with_events["accepted"] == without["accepted"] == 50
    found = by_name(report)
    assert found["CPU a message with Redis's, with events / without"]["bar"] == "≤ 1.1"
    assert found["the same, 200 / 100"]["bar"] == "≤ 1.1"
    assert found["idle latency, p99 of 4"]["bar"] == "≤ 25"
    assert found["memory beyond the payload, 300 waiting"]["bar"] == "≤ 350"


def test_a_contestant_that_did_not_send_what_it_says_is_found_out(tmp_path: Path) -> None:
    with BenchSink(tmp_path) as sink:
        assert run_child("peers.naive", sink.url, 3).count == 3
        assert sink.accepted("naive", 3) == 3
        with pytest.raises(BenchFailed, match=r"naive sent 4 messages .* accepted 3 of 3"):
            sink.accepted("naive", 4)
        sink.forget()
        for _ in range(2):
            _post(sink.url, "the-same")
        with pytest.raises(BenchFailed, match="1 ids twice"):
            sink.accepted("paceline-1", 2)
        sink.forget()
        assert sink.accepted("nobody", 0) == 0


def test_a_peer_that_fails_is_named_with_its_last_words() -> None:
    with pytest.raises(BenchFailed, match=r"peers\.naive ended with code 1\n") as raised:
        run_child("peers.naive", "http://127.0.0.1:1/none", 1)
    assert "Connection refused" in str(raised.value)


def test_an_interrupt_stops_everything(tmp_path: Path) -> None:
    log, folder = tmp_path / "stderr", tmp_path / "run"
    command = [sys.executable, "-m", "paceline", "bench", "--folder", str(folder)]
    command += ["--only", "latency", "--fsync", "always", "--sends", "10000"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, start_new_session=True)
    try:
        until(lambda: b"latency of" in log.read_bytes(), 30, "the bench measures")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert attached_url(folder / "always" / "redis") is None
    assert not (folder / "sink.port").exists()
    words = (folder / "always" / "paceline-2-worker-1.log").read_text().splitlines()
    assert "stopped" in words[-1]


def _post(url: str, message_id: str) -> None:
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.netloc, timeout=10)
    link.request("POST", parts.path, b"{}", {"Paceline-Message-Id": message_id})
    link.getresponse().read()
    link.close()
