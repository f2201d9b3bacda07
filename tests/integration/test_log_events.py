"""What the processes log in a day's trouble: each event that matters, each counted, and nothing
that is secret or somebody's message."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from paceline.connect import connect
from support.cli import Cli
from support.stack import DESTINATION, Stack
from support.wait import until

PASSWORD = "hunter2x/with%signs"
HEADER = "key-of-the-api-0815"
REDIS_PASSWORD = "s3cret-of-redis"

LOGIN = f"""
username = "ann"
password = {{ env = "WEB_PASSWORD" }}
lease_s = 2
[destinations.{DESTINATION}.headers]
X-Api-Key = "{HEADER}"
[destinations.{DESTINATION}.retry]
first_s = 0.1
cap_s = 0.2
"""


class Guarded(Stack):
    """A stack whose Redis wants a login."""

    def admit(self) -> None:
        """Lets its processes in: a Redis without an ACL file forgets its users when it ends."""
        with connect(self.server.url) as client:
            client.acl_setuser(
                "app", enabled=True, passwords=["+" + REDIS_PASSWORD], keys=["*"],
                channels=["*"], categories=["+@all"],
            )  # fmt: skip

    def _toml(self) -> str:
        self.admit()
        return super()._toml().replace("redis://", f"redis://app:{REDIS_PASSWORD}@")


def lines(stack: Stack, name: str) -> list[dict[str, Any]]:
    """All lines of all processes of that name so far; each must be JSON."""
    texts = [log.read_text("utf-8") for log in sorted(stack.folder.glob(f"*-{name}.log"))]
    # The last line may be half written.
    return [json.loads(line) for text in texts for line in text.splitlines(keepends=True)
            if line.endswith("\n")]  # fmt: skip


def count(found: list[dict[str, Any]], event: str) -> int:
    return sum(line.get("repeated", 1) for line in found if line.get("event") == event)


def wait_event(stack: Stack, name: str, event: str, **fields: str) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        wanted = {"event": event, **fields}.items()
        return next((line for line in lines(stack, name) if wanted <= line.items()), None)

    found = until(there, 20, f"{name} logs {event} {fields}", 0.05)
    assert found is not None
    return found


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.mark.timeout(120)
def test_a_day_of_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_PASSWORD", PASSWORD)
    with Guarded(
        tmp_path, workers=1, rate=400.0, latency="1-5ms", faults="500:20%,400:10%", more=LOGIN
    ) as stack:
        stack.send(300)
        stack.wait_done(40)

        stack.store.hold("pause", why="their maintenance")
        closed = wait_event(stack, "daemon", "closed", cause="paused")
        assert "their maintenance" in closed["message"]
        stack.store.hold("resume")
        wait_event(stack, "daemon", "opened", cause="paused", destination=DESTINATION)

        stack.server.kill()
        wait_event(stack, "worker", "redis_away")
        wait_event(stack, "daemon", "redis_away")
        stack.server.start()
        stack.admit()
        wait_event(stack, "worker", "redis_back")
        wait_event(stack, "daemon", "redis_back")

        # What was held back goes out at the end: all that was counted was told.
        stop(stack.worker_processes[0])
        told = lines(stack, "worker")
        counters = stack.store.census().counters
        assert count(told, "dead_letter") == counters["died"] > 10
        assert count(told, "retry") + count(told, "ambiguous") == counters["retried"] > 20
        assert len([line for line in told if line.get("event") == "dead_letter"]) < 15
        letter = next(line for line in told if line.get("event") == "dead_letter")
        assert letter["destination"] == DESTINATION
        assert (letter["cause"], letter["status"]) in (("400", 400), ("500", 500))
        assert letter["message_id"] in stack.accepted
        assert letter["attempt"] >= 1
        started = next(line for line in told if line.get("event") == "started")
        assert {line.get("worker") for line in told if line.get("event") == "dead_letter"} == {
            started["worker"]
        }
        assert count(told, "stopped") == 1

        stack.send(5, "later")
        wait_event(stack, "daemon", "no_worker", destination=DESTINATION)
        second = stack.start_worker()
        wait_event(stack, "daemon", "worker_back")
        stack.wait_done(20)
        worker = stack.worker_id(second)
        freeze_with_messages(stack, second)
        wait_event(stack, "worker", "lease_lost")
        stack.wait_done(20)
        second.kill()
        second.wait()
        wait_event(stack, "daemon", "worker_dead", worker=str(worker))

        other = tmp_path / "other.toml"
        other.write_text(stack.config.read_text().replace("rate = 400", "rate = 300"))
        mismatch = Cli(None, tmp_path)("daemon", "--config", str(other))
        assert mismatch.code == 1
        [line] = [json.loads(text) for text in mismatch.err.splitlines()]
        assert line["event"] == "config_mismatch"
        assert "rate is 400.0 there, 300.0 here" in line["message"]

        stop(stack.daemon_processes[0])
        assert count(lines(stack, "daemon"), "stopped") == 1
        check_secrets(stack, mismatch.err)


def freeze_with_messages(stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    """Until its lease has run out, and others were given what it held."""
    stack.send(300, "frozen")
    until(lambda: stack.store.census().law["leased"], 10, "it has taken some", 0.001)
    before = stack.store.census().counters.get("reaped", 0)
    worker.send_signal(signal.SIGSTOP)
    until(lambda: stack.store.census().counters.get("reaped", 0) > before, 20, "they are reaped")
    worker.send_signal(signal.SIGCONT)


def check_secrets(stack: Stack, more: str) -> None:
    texts = more + "".join(
        log.read_text("utf-8") for kind in ("worker", "daemon")
        for log in stack.folder.glob(f"*-{kind}.log")
    )  # fmt: skip
    assert len(texts) > 2000
    pair = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, HEADER, REDIS_PASSWORD, pair, "Grüße", "\\u00fc"):
        assert secret not in texts, secret
    assert DESTINATION in texts
