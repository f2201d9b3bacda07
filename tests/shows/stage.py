"""The stack that the shows run on, with nginx for a provider where its limit is the referee."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from paceline import Outbox
from paceline.message import Message
from support.nginx import Nginx
from support.stack import DESTINATION, Stack

_PAYLOAD = {"text": "Grüße " * 20}


@dataclass
class NginxStack(Stack):
    """A stack whose provider is an nginx with this limit, (requests/s, burst)."""

    limit: tuple[float, int] = (100.0, 150)
    nginx: Nginx = field(init=False)

    def _start_sink(self) -> subprocess.Popen[bytes]:
        self.nginx = self._exits.enter_context(Nginx(self.folder, *self.limit))
        self.sink_address = self.nginx.address
        return self.nginx.process


def queue(stack: Stack, messages: Iterable[Message]) -> None:
    """Hands them over; all must be taken in."""
    answers = stack.outbox.send_many(messages)
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    if refused:
        raise refused[0]


def messages(count: int, prefix: str, **options: str) -> Iterator[Message]:
    """``prefix-0``, ``prefix-1``, ... of a small payload, with these options (priority, tenant)."""
    for number in range(count):
        yield Outbox.message(DESTINATION, _PAYLOAD, id=f"{prefix}-{number}", **options)


def kill_and_restart_worker(stack: Stack) -> None:
    """SIGKILL for the one that has run longest, and another in its place."""
    victim = stack.worker_processes.pop(0)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    stack.worker_processes.append(stack.start_worker())


def watch_fsync(stack: Stack) -> None:
    """From now on Redis notes how long its disk takes."""
    stack.client.config_set("latency-monitor-threshold", "1")
    stack.client.latency_reset()


def slowest_fsync_ms(stack: Stack) -> float:
    """Since ``watch_fsync``, by Redis's own account: nothing is accepted, taken or begun meanwhile,
    and ours is not the only program that uses the disk. TMPDIR=/dev/shm leaves it out."""
    events: Any = stack.client.latency_latest()
    return float(max((most for name, _, _, most, *_ in events if b"fsync" in name), default=0))


def let_pass(seconds: float) -> None:
    """Lets a span pass that is itself what is measured."""
    time.sleep(max(0.0, seconds))
