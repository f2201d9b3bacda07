"""Workers, daemon and `paceline up` as processes: signals, outages, shares, nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paceline.embedded import EmbeddedServer, attached_url
from support.proc import thread_heaps
from support.servers import frozen
from support.stack import Stack
from support.wait import until

pytestmark = pytest.mark.timeout(90)


def _connections(stack: Stack) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://{stack.sink_address}/_sink/connections") as reply:
        return [json.loads(line) for line in reply.read().splitlines()]


def _open_connections(stack: Stack) -> int:
    return sum(c["closed_ns"] is None and c["requests"] > 0 for c in _connections(stack))


def _most_open(stack: Stack) -> int:
    """The most that were open at once; of two at the same instant the close counts first."""
    steps = []
    for it in _connections(stack):
        if it["requests"]:
            steps.append((it["opened_ns"], 1))
            steps.append((it["closed_ns"] or 2**62, -1))
    now = most = 0
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


def _set_faults(stack: Stack, **change: Any) -> None:
    request = urllib.request.Request(
        f"http://{stack.sink_address}/_sink/faults",
        json.dumps(change).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()


# -- stopping -----------------------------------------------------------------------------------


def test_a_drain_finishes_the_wire_and_gives_back_the_rest(tmp_path: Path) -> None:
    with Stack(tmp_path, workers=1, latency="400-500ms") as stack:
        ids = stack.send(120)
        stack.wait_arrivals(10)
        seen = subprocess.run(
            [sys.executable, "-m", "rq.cli", "info", "--raw", "-W", "-u", stack.server.url],
            capture_output=True,
            text=True,
            timeout=20,
        )
        worker = stack.worker_id(stack.worker_processes[0])
        assert worker is not None
        assert worker in seen.stdout, seen
        began = time.monotonic()
        stack.worker_processes[0].terminate()
        assert stack.worker_processes[0].wait(10) == 0
        assert time.monotonic() - began < 4
        census = stack.store.census()
        assert census.workers == [], "its slots are not free"
        assert census.law["leased"] == 0
        assert census.counters.get("reaped", 0) == 0
        arrived = [a for a in stack.arrivals() if a["accepted"]]
        assert census.law["sent"] == len(arrived), "not all of the wire was finished"
        found = [it[0] for it in stack.store.look(ids) if it is not None]
        assert {it.tries for it in found if it.state == "ready"} == {0}  # type: ignore[union-attr]
        # And a new one sends them in their old order, each once.
        _set_faults(stack, latency="1ms")
        stack.worker_processes[0] = stack.start_worker()
        stack.wait_done(20)
        assert stack.check_accounts() == {}
        order = [int(a["id"][2:]) for a in stack.arrivals()]
        assert all(abs(place - n) < 20 for place, n in enumerate(order))


def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    with Stack(tmp_path, workers=1, faults="hang", more="lease_s = 2.0") as stack:
        stack.send(5)
        stack.wait_arrivals(5)
        worker = stack.worker_processes[0]
        name = stack.worker_id(worker)
        worker.terminate()
        listed = lambda: stack.client.sismember("rq:workers", f"rq:worker:{name}")  # noqa: E731
        until(lambda: not listed(), 10, "it is draining")
        assert worker.poll() is None, "it did not wait for the wire"
        worker.terminate()
        assert worker.wait(2) == -signal.SIGTERM
        # Buried, and what it had begun is ambiguous, by its lease.
        until(lambda: stack.store.census().workers == [], 6, "it is buried")
        until(lambda: stack.store.census().counters.get("ambiguous_reaped") == 5, 8, "reaped")


# -- shares -------------------------------------------------------------------------------------


def test_ten_connections_whatever_the_number_of_workers(tmp_path: Path) -> None:
    with Stack(tmp_path, rate=400.0, burst=400, latency="20-60ms", more="lease_s = 2.0") as stack:
        stack.send(1700)
        stack.wait_arrivals(200)
        third = stack.start_worker()
        stack.worker_processes.append(third)
        stack.wait_live(3)
        seen = stack.arrival_count()
        stack.wait_arrivals(seen + 200)
        third.terminate()
        assert third.wait(10) == 0
        stack.worker_processes.pop()
        shares = lambda: sorted(w.slots for w in stack.store.census().workers)  # noqa: E731
        until(lambda: shares() == [5, 5], 10, "the two have it all again")
        seen = stack.arrival_count()
        stack.wait_arrivals(seen + 200)
        assert _most_open(stack) <= 10
        # An allocator's arena for each thread would hold what its largest answer ever took.
        assert [thread_heaps(it.pid) for it in stack.worker_processes] == [0, 0]

        # One freezes: it may hold permits, so for each of its connections the bucket is smaller.
        victim = stack.worker_processes[0]
        name = stack.worker_id(victim)
        before = int(stack.store.census().gate["k"])
        assert before == 390
        victim.send_signal(signal.SIGSTOP)

        def lapsed() -> bool:
            census = stack.store.census()
            frozen_one = next(w for w in census.workers if w.id == name)
            return not frozen_one.live and shares() == [5, 10] and int(census.gate["k"]) == 385

        until(lapsed, 10, "its connections are the other's, and accounted for")
        # Killed, it is known dead, and owes nothing.
        victim.kill()
        victim.wait()
        until(lambda: len(stack.store.census().workers) == 1, 6, "it is buried")
        until(lambda: int(stack.store.census().gate["k"]) == 390, 5, "the bucket is whole")
        stack.wait_done(30)
        stack.check_accounts()


# -- Redis --------------------------------------------------------------------------------------


def test_a_redis_that_stands_still_for_three_seconds(tmp_path: Path) -> None:
    with Stack(tmp_path, more="lease_s = 2.0") as stack:
        processes = [*stack.daemon_processes, *stack.worker_processes]
        stack.send(400)
        stack.wait_arrivals(150)
        with frozen(stack.server):
            time.sleep(3)  # the freeze itself: a span is what is tested
        stack.wait_done(30)
        assert [p.poll() for p in processes] == [None] * 3, "a process ended"
        assert stack.check_accounts() == {}, "a message went out twice"


def _paceline(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "paceline", *arguments]


def _toml(folder: Path, url: str, redis: str | None, rate: float = 90.0) -> Path:
    at = folder / f"paceline-{rate:g}.toml"
    head = f'[redis]\nurl = "{redis}"\n' if redis else ""
    lines = (f'url = "{url}"', f"rate = {rate}", 'provider = "http"', "lease_s = 2.0")
    at.write_text(head + "\n".join(("[destinations.web]", *lines, "")))
    return at


@contextmanager
def _process(log: Path, *command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_a_worker_waits_for_redis(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "redis")
    server.start()
    url = server.url
    server.stop()
    config = _toml(tmp_path, "http://127.0.0.1:9/", url)
    log = tmp_path / "worker.log"
    with _process(log, *_paceline("worker", "--config", str(config), "--wait", "20")) as worker:
        hasty = subprocess.run(
            _paceline("worker", "--config", str(config), "--wait", "0.2"),
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        assert hasty.returncode == 3
        assert "Redis is not available" in hasty.stderr
        assert "Traceback" not in hasty.stderr
        assert worker.poll() is None
        server.start()
        try:
            until(lambda: "started" in log.read_text(), 10, "it works")
            # One that is configured otherwise is refused, and told where they differ.
            otherwise = _toml(tmp_path, "http://127.0.0.1:9/", url, 70)
            other = subprocess.run(
                _paceline("worker", "--config", str(otherwise)),
                capture_output=True, text=True, timeout=20,
            )  # fmt: skip
            assert other.returncode in (1, 2)
            assert "rate is 90.0 there, 70.0 here" in other.stderr
            assert "Traceback" not in other.stderr
            misnamed = subprocess.run(
                _paceline("worker", "--config", str(config), "--name", "a b"),
                capture_output=True, text=True, timeout=20,
            )  # fmt: skip
            assert misnamed.returncode == 2
            assert "cannot name a worker" in misnamed.stderr
            worker.terminate()
            assert worker.wait(10) == 0
        finally:
            server.stop()


# -- paceline up --------------------------------------------------------------------------------


def _family(parent: int) -> dict[int, str]:
    """All living descendants, by pid."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for at in Path("/proc").iterdir():
        if not at.name.isdigit():
            continue
        try:
            fields = (at / "stat").read_text().rpartition(")")[2].split()
            names[int(at.name)] = (at / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if fields[0] not in "ZX":
            parents[int(at.name)] = int(fields[1])
    found = {parent}
    while more := {p for p, its in parents.items() if its in found} - found:
        found |= more
    return {pid: names[pid] for pid in found - {parent} if pid in parents}


def _alive(pids: dict[int, str]) -> dict[int, str]:
    def lives(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    return {pid: name for pid, name in pids.items() if lives(pid)}


def _up(tmp_path: Path, config: Path) -> list[str]:
    return _paceline(
        "up", "--workers", "2", "--config", str(config), "--data", str(tmp_path / "data")
    )


def _whole(up: subprocess.Popen[bytes]) -> dict[int, str]:
    """Two workers, the daemon, the embedded server: as soon as they are there."""

    def there() -> dict[int, str] | None:
        family = _family(up.pid)
        workers = sum(" worker web" in name for name in family.values())
        others = [any(w in n for n in family.values()) for w in (" daemon", "valkey-server")]
        return family if workers == 2 and all(others) else None

    return until(there, 20, "all are up", 0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_up_restarts_the_killed_and_stops_all(tmp_path: Path) -> None:
    config = _toml(tmp_path, "http://127.0.0.1:9/", None)
    log = tmp_path / "up.log"
    with _process(log, *_up(tmp_path, config), cwd=tmp_path) as up:
        family = _whole(up)
        until(lambda: log.read_text().count("popping from") == 2, 10, "both workers work")
        victim = next(pid for pid, name in family.items() if " worker web" in name)
        os.kill(victim, signal.SIGKILL)
        until(lambda: log.read_text().count("popping from") == 3, 10, "it is replaced")
        later = _whole(up)
        assert victim not in later
        url = attached_url(tmp_path / "data")
        server = next(pid for pid, name in later.items() if "valkey-server" in name)
        os.kill(server, signal.SIGKILL)
        until(lambda: server not in _whole(up), 10, "the embedded server is replaced")
        until(lambda: attached_url(tmp_path / "data") == url, 10, "it serves where it served")
        up.terminate()
        assert up.wait(20) == 0
        assert _alive({**family, **later}) == {}
        assert "starting it again" in log.read_text()
        text = log.read_text()
        assert text.count("stopped") >= 2
        assert attached_url(tmp_path / "data") is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_killed_up_leaves_nobody(tmp_path: Path) -> None:
    config = _toml(tmp_path, "http://127.0.0.1:9/", None)
    log = tmp_path / "up.log"
    with _process(log, *_up(tmp_path, config), cwd=tmp_path) as up:
        family = _whole(up)
        until(lambda: log.read_text().count("popping from") == 2, 10, "both workers work")
        up.kill()
        up.wait()
        killed = time.monotonic()
        until(lambda: log.read_text().count("supervisor is gone") == 3, 3, "the children notice")
        assert time.monotonic() - killed < 2.5
        until(lambda: not _alive(family), 12, "all are gone", 0.05)
