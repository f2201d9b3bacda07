"""Redis without memory: intake refuses, all else goes on, and the backlog drains."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline import Outbox
from paceline.errors import OutboxFull
from support.stack import DESTINATION, Stack
from support.wait import until

RATE = 300.0
# Of 4 kB each, so that it is the messages that fill it.
TEXT = "x" * 4000
MEGABYTE = 1024**2


def _send(stack: Stack, prefix: str, count: int) -> tuple[int, OutboxFull | None]:
    """Sends until one is refused. Returns how many were accepted, and the refusal."""
    for number in range(count):
        payload = {"n": number, "text": TEXT}
        message = Outbox.message(DESTINATION, payload, id=f"{prefix}-{number}")
        [answer] = stack.outbox.send_many([message])
        if isinstance(answer, OutboxFull):
            return number, answer
        assert not isinstance(answer, Exception), answer
        stack.accepted[message.id] = message.payload
    return count, None


def _used(stack: Stack) -> int:
    return int(stack.client.info("memory")["used_memory"])


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_full_redis_refuses_what_is_new_and_drains(tmp_path: Path) -> None:
    with Stack(tmp_path, rate=RATE, burst=300, workers=1, latency="10-30ms") as stack:
        processes = [*stack.daemon_processes, *stack.worker_processes]
        stack.store.hold("pause")
        # Some 400 messages fit below three quarters; the daemon looks twice a second.
        early, shut_at = 0, _used(stack) + 2 * MEGABYTE
        stack.client.config_set("maxmemory", int(shut_at / 0.75))
        while _used(stack) < shut_at:
            assert _send(stack, f"m-{early}", 20) == (20, None)
            early += 20
        until(lambda: stack.store.census().intake_shut() is not None, 5, "intake is shut")
        _, refused = _send(stack, "m", 1)
        assert refused is not None
        assert "of Redis's memory is used, and intake stops at 75%" in refused.limit
        assert 5 <= refused.retry_after_s <= 60
        assert early >= 300

        # Some are in flight, the rest waits, and there is no memory at all.
        stack.store.hold("resume")
        stack.wait_arrivals(20)
        stack.client.config_set("maxmemory", MEGABYTE)
        _, refused = _send(stack, "late", 1)
        assert refused is not None
        # One that starts now is of use: nothing of a start needs memory.
        processes.append(stack.start_worker())
        stack.wait_live(2)
        stack.wait_done(30)
        assert _used(stack) > MEGABYTE, "it was not full to the end"
        assert [p.poll() for p in processes] == [None] * len(processes), "a process ended"
        stack.check_accounts()

        stack.client.config_set("maxmemory", 1024 * MEGABYTE)
        until(lambda: stack.store.census().intake_shut() is None, 5, "intake is open again")
        assert _send(stack, "again", 50) == (50, None)
        stack.wait_done(10)
        stack.check_accounts()
        assert [p.poll() for p in processes] == [None] * len(processes), "a process ended"
        logs = "".join(log.read_text("utf-8") for log in tmp_path.glob("*-daemon.log"))
        for event in ("intake_shut", "invitations_refused", "intake_open", "invitations_carried"):
            assert f'"event": "{event}"' in logs
        assert '"event": "defect"' not in logs
        assert '"event": "redis_away"' not in logs
