"""``Outbox.wait()`` returns soon after the settle; a thousand waiters cost no more than a thousand
blocked reads.

On a stack that is otherwise idle: one message after the other is sent and waited for; measured is
from the moment that its event was written (its ``at``, Redis's clock, the same host's) to the
return of ``wait()``, the fsync and the look at the message with it.

Then messages flow, two events each, and Redis's CPU and commands are compared over the same span:
with nobody waiting; with a thousand threads that wait in one process; with a thousand connections
that are each blocked in an XREAD of the stream, which is what waiters would do by themselves; and,
for information, with a thousand blocked on keys that nothing happens to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paceline import Outbox
from paceline.bench.cpu import redis_s
from paceline.rehearsal.measures import quantile
from shows.figures import Figure, at_most, quantiles
from shows.stage import let_pass, messages, queue
from support.stack import DESTINATION, Stack
from support.wait import until

SECONDS = 100.0
MOST_MS, WAITERS = 50.0, 1000
_WAITS, _SPAN_S = 1000, 10.0
#: Two events each: accepted, sent.
_MESSAGES_PER_S = 50.0
_SETTINGS = """
pace = "fixed"
events = { kinds = "all" }
"""


@dataclass(frozen=True, slots=True)
class Use:
    """Of Redis, a second."""

    cpu_ms: float
    commands: float
    events: float


def run(folder: Path, seconds: float, seed: int) -> list[Figure]:
    """A thousand waits, and spans of ten seconds; fewer and shorter with fewer ``seconds``."""
    part = min(1.0, seconds / SECONDS)
    with Stack(
        folder, rate=400, burst=100, connections=10, latency="10-30ms", seed=seed, more=_SETTINGS
    ) as stack:
        waited = _waits(stack, round(_WAITS * part))
        with _flow(stack):
            nobody = _use(stack, _SPAN_S * part)
            with _waiters(stack) as woken_ms:
                waiters = _use(stack, _SPAN_S * part)
            with _blocked_reads(stack, "stream"):
                reads = _use(stack, _SPAN_S * part)
            with _blocked_reads(stack, "idle"):
                idle = _use(stack, _SPAN_S * part)
        census = stack.store.census()
    return [
        at_most("settled to wait() returned, ms, p99", quantile(waited, 0.99) or 0.0, MOST_MS),
        *quantiles("settled to wait() returned, ms", waited),
        Figure("of waits", len(waited)),
        *_told("nobody waits", nobody),
        *_told(f"{WAITERS:,} waiters", waiters),
        *quantiles("all of them cancelled by one call to wait() returned, ms", woken_ms),
        *_told(f"{WAITERS:,} blocked reads of the stream", reads),
        *_told(f"{WAITERS:,} blocked reads of nothing", idle),
        at_most("CPU, waiters / blocked reads of the stream", waiters.cpu_ms / reads.cpu_ms, 1),
        at_most("commands, the same", waiters.commands / reads.commands, 1),
        at_most("law's difference, messages", abs(census.difference), 0),
    ]


def _told(what: str, use: Use) -> list[Figure]:
    return [
        Figure(f"{what}: Redis's CPU, ms/s", use.cpu_ms),
        Figure(f"{what}: Redis's commands/s", use.commands),
        Figure(f"{what}: events/s meanwhile", use.events),
    ]


def _waits(stack: Stack, count: int) -> list[float]:
    """Milliseconds from each event's ``at`` to the return of ``wait()``."""
    returned: dict[str, float] = {}
    for message in messages(count, "wait"):
        queue(stack, [message])
        stack.outbox.wait(DESTINATION, message.id, timeout_s=30)
        returned[message.id] = time.time()
    events = stack.outbox.events(DESTINATION, start="first", kinds=["sent"], block_s=0)
    return [1e3 * (returned[event.id] - event.at) for event in events]


def _use(stack: Stack, seconds: float) -> Use:
    """What Redis uses within a span that begins now."""

    def look() -> tuple[float, int, int, float]:
        commands = int(stack.client.info("stats")["total_commands_processed"])
        events = stack.store.census().counters["events"]
        return redis_s(stack.client), commands, events, time.monotonic()

    cpu_s, commands, events, began_s = look()
    let_pass(seconds)
    cpu2_s, commands2, events2, ended_s = look()
    span_s = ended_s - began_s
    return Use(
        1e3 * (cpu2_s - cpu_s) / span_s,
        (commands2 - commands) / span_s,
        (events2 - events) / span_s,
    )


@contextmanager
def _flow(stack: Stack) -> Iterator[None]:
    """Messages are sent meanwhile, one at a time."""
    halt = threading.Event()

    def flow() -> None:
        for message in messages(1_000_000, "flow"):
            queue(stack, [message])
            if halt.wait(1 / _MESSAGES_PER_S):
                return

    thread = threading.Thread(target=flow, name="flow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        halt.set()
        thread.join(10)


@contextmanager
def _waiters(stack: Stack) -> Iterator[list[float]]:
    """So many threads wait, each for a message of its own that is due in an hour; in the end one
    call cancels all. Gives a list that then holds the milliseconds until each was awake."""
    woken_ms: list[float] = []
    with Outbox.from_url(stack.server.url) as outbox:
        ids = [f"due-{number}" for number in range(WAITERS)]
        queue(stack, (Outbox.message(DESTINATION, {}, id=i, delay_s=3600) for i in ids))
        returned_s: list[float] = []

        def wait(message_id: str) -> None:
            outbox.wait(DESTINATION, message_id, 600)
            returned_s.append(time.monotonic())

        threads = [threading.Thread(target=wait, args=(i,), daemon=True) for i in ids]
        for thread in threads:
            thread.start()
        until(lambda: outbox._watch(DESTINATION).waiting == WAITERS, 60, "all wait")
        yield woken_ms
        called_s = time.monotonic()
        stack.store.cancel(ids)
        until(lambda: len(returned_s) == WAITERS, 30, "all are awake")
        woken_ms.extend(1e3 * (at_s - called_s) for at_s in returned_s)


@contextmanager
def _blocked_reads(stack: Stack, of: str) -> Iterator[None]:
    """So many connections are blocked meanwhile, in a process of their own."""
    before = _blocked(stack)
    process = stack._spawn(
        f"blocked-{of}", "shows.blocked_reads", stack.server.url, DESTINATION, of, str(WAITERS)
    )
    until(lambda: _blocked(stack) - before > WAITERS * 0.9, 60, "they are blocked")
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)
    until(lambda: _blocked(stack) < WAITERS * 0.5, 30, "they are gone")


def _blocked(stack: Stack) -> int:
    return int(stack.client.info("clients")["connected_clients"])
