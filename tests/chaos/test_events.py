"""Every accepted message has exactly one end in the stream of events, whatever happened on its way:
faults of the provider, workers killed and frozen, messages cancelled and expired, dead letters
replayed and dropped. The stream agrees with the counters, with the outbox and with the provider.

The long run, with its figures::

    PACELINE_EVENTS_RUN=20000 python -m pytest -s tests/chaos/test_events.py
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from paceline import Outbox, shelf
from paceline.audit import DeepAudit
from paceline.census import Census
from paceline.client import Receipt
from paceline.events import ENDS, RESTS, Event
from paceline.message import Message
from paceline.records import Ended
from support.stack import DESTINATION, Stack
from support.wait import until

SEED = 20261129
MESSAGES = int(os.environ.get("PACELINE_EVENTS_RUN", "1800"))
#: Every third is a freeze, beyond the lease.
BLOWS = max(3, MESSAGES // 2000)
FAULTS = (
    "500:2%,502:1%,503:0.5%,400:1%,429:0.1%,reset_before:1%,reset_after:1%,eof_after:1%,hang:0.3%"
)
#: Few retries: some messages are to die of them.
SETTINGS = f"""
pace = "fixed"
lease_s = 2.0
read_timeout_s = 1.0
total_timeout_s = 2.0
events = {{ kinds = "all", max_count = {20 * MESSAGES} }}
[destinations.{DESTINATION}.success]
id_pointer = "/id"
[destinations.{DESTINATION}.retry]
first_s = 0.2
cap_s = 0.5
max_retries = 1
wait_503_s = [0.1, 0.3]
throttle_first_s = 0.2
"""
_UNDER_WAY = frozenset({"retried", "cancelled", "expired", "sent"}) | RESTS
_AT_REST = frozenset({"replayed", "dropped", "expired", "sent"})
#: What may follow each kind, for one message. A late `sent` of one that lies to rest is true.
FOLLOWS: Mapping[str, frozenset[str]] = {
    "": frozenset({"accepted"}),
    "accepted": _UNDER_WAY,
    "retried": _UNDER_WAY,
    "replayed": _UNDER_WAY,
    **dict.fromkeys(RESTS, _AT_REST),
    **dict.fromkeys(ENDS, frozenset()),
}


def test_every_accepted_message_has_one_end(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    began_s = time.monotonic()
    with Stack(
        tmp_path, rate=800, burst=120, connections=20, workers=2, latency="5-15ms", faults=FAULTS,
        seed=SEED, more=SETTINGS,
    ) as stack:  # fmt: skip
        for blow in range(BLOWS):
            piece = _send(stack, rng, f"b{blow}", MESSAGES // BLOWS)
            stack.store.cancel(rng.sample(piece, len(piece) // 50))
            _strike(stack, rng.randrange(2), freeze=blow % 3 == 2)
        _empty_the_shelves(stack, rng)
        _end_workers(stack)
        events = list(stack.outbox.events(DESTINATION, start="first", block_s=0))
        census = stack.store.census()
        assert census.law["accepted"] == len(stack.accepted)
        _check_ends(events, set(stack.accepted))
        _check_counters(events, census)
        _check_outbox(stack, events)
        audit = DeepAudit(stack.store).run()
        assert audit.sound, audit
        _check_provider(stack, events)
    told = Counter(event.kind for event in events)
    # Otherwise it shows nothing.
    assert told.keys() >= {
        "accepted", "retried", "sent", "rejected", "dead", "replayed", "expired", "cancelled",
        "dropped",
    }  # fmt: skip
    assert census.counters["ambiguous_reaped"] > 0
    print(  # of the long run
        f"\nseed {SEED}, {len(stack.accepted)} messages, {BLOWS} kills and freezes, "
        f"{time.monotonic() - began_s:.1f} s: {len(events)} events, {dict(told)}; "
        f"counters: {dict(census.counters)}"
    )


# -- what is done to it ---------------------------------------------------------------------


def _send(stack: Stack, rng: random.Random, prefix: str, count: int) -> list[str]:
    """Sends so many, one in ten behind the others and soon worth nothing."""

    def made(number: int) -> Message:
        late = {"priority": "bulk", "ttl_s": rng.uniform(0.5, 2.0)} if rng.random() < 0.1 else {}
        return Outbox.message(DESTINATION, {"n": number}, id=f"{prefix}-{number}", **late)

    messages = [made(number) for number in range(count)]
    answers = stack.outbox.send_many(messages)
    # On a slow machine some are worth nothing before they are handed over.
    taken = [m for m, answer in zip(messages, answers, strict=True) if isinstance(answer, Receipt)]
    assert len(taken) > 0.8 * count, answers
    stack.accepted.update({message.id: message.payload for message in taken})
    return [message.id for message in taken]


def _strike(stack: Stack, place: int, freeze: bool) -> None:
    """Kills a worker that has requests on the wire, and starts another; or freezes it until its
    lease has run out and what it had begun has ended elsewhere: its own answers come late."""
    victim = stack.worker_processes[place]

    def begun() -> list[str]:
        # On a slow machine the other may have sent all before the victim had a part of it.
        if stack.store.census().unfinished < 100:
            _send(stack, random.Random(SEED), f"more-{len(stack.accepted)}", 200)
        worker = stack.worker_id(victim)
        return stack.begun_by(worker) if worker else []

    def stopped() -> list[str]:
        if len(begun()) < 2:
            return []
        victim.send_signal(signal.SIGSTOP)  # so that what is begun stays so
        held = begun()
        if len(held) >= 2:
            return held
        victim.send_signal(signal.SIGCONT)
        return []

    held = until(stopped, 20, "the victim has begun requests", 0.002)
    if freeze:
        stack.store.cancel(held[:1])
        until(lambda: _any_ended(stack, held[1:]), 20, "what it had begun ends elsewhere", 0.02)
        victim.send_signal(signal.SIGCONT)
        return
    victim.kill()
    victim.wait()
    stack.worker_processes[place] = stack.start_worker()


def _any_ended(stack: Stack, ids: Sequence[str]) -> bool:
    """Sent, most often; but some expire, or die of it."""
    return any(it is not None and it[0].state in ENDS | RESTS for it in stack.store.look(ids))


def _empty_the_shelves(stack: Stack, rng: random.Random) -> None:
    """Dead letters: half of them go again, the rest, and those that die again, are dropped."""
    stack.wait_done(120)
    dead = [message_id for message_id, _ in shelf.ids(stack.store, "dead")]
    stack.store.replay(rng.sample(dead, len(dead) // 2))
    stack.wait_done(60)
    stack.store.drop([message_id for message_id, _ in shelf.ids(stack.store, "dead")])


def _end_workers(stack: Stack) -> None:
    """With all that they still had to say settled."""
    stack.signal_workers(signal.SIGTERM)
    for process in stack.worker_processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            pytest.fail("a worker does not end")


# -- what is true of it ---------------------------------------------------------------------


def _check_ends(events: Sequence[Event], accepted: set[str]) -> None:
    """Nothing is missing of the stream, and each message's part of it is possible and ends."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    by_id: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_id[event.id].append(event)
    assert by_id.keys() == accepted
    for message_id, its in by_id.items():
        kinds = [event.kind for event in its]
        for before, after in zip(["", *kinds], kinds, strict=False):
            assert after in FOLLOWS[before], f"{message_id}: {after} after {before}: {kinds}"
        assert sum(kind in ENDS for kind in kinds) == 1, f"{message_id}: {kinds}"
        for numbers in (
            [event.at for event in its],
            [event.attempt for event in its if event.attempt is not None],
        ):
            assert numbers == sorted(numbers), f"{message_id}: {its}"


def _check_counters(events: Sequence[Event], census: Census) -> None:
    """As the table of docs/events.md has it, and nothing lost or trimmed."""
    n, told = census.counters, Counter(event.kind for event in events)
    assert told["accepted"] == n["accepted"] + n.get("moved_in", 0)
    assert told["rejected"] + told["dead"] == n["died"]
    assert told["parked"] == n.get("stopped", 0)
    assert told["moved"] == n.get("moved_out", 0)
    for kind in ("retried", "sent", "replayed", "expired", "cancelled", "dropped"):
        assert told[kind] == n[kind], kind
    assert n["events"] == len(events)
    assert (n.get("events_lost", 0), n.get("events_trimmed", 0)) == (0, 0)
    assert census.sound, census.law
    ended = sum(census.law[kind] for kind in ("sent", "expired", "cancelled", "dropped"))
    assert ended == sum(told[kind] for kind in ENDS) == census.law["accepted"]


def _check_outbox(stack: Stack, events: Sequence[Event]) -> None:
    """Each message's own record says what its end says, with the provider's id."""
    ends = {event.id: event for event in events if event.kind in ENDS}
    ids = list(ends)
    for start in range(0, len(ids), 500):
        piece = ids[start : start + 500]
        for message_id, found in zip(piece, stack.store.look(piece), strict=True):
            assert found is not None, f"{message_id} is unknown to the outbox"
            record, end = found[0], ends[message_id]
            assert isinstance(record, Ended), message_id
            said = end.kind, end.provider_id or ""
            assert (record.state, record.provider_id) == said, message_id


def _check_provider(stack: Stack, events: Sequence[Event]) -> None:
    """What is told as sent was accepted by the sink, under an answer of 2xx."""
    took = {arrival["id"] for arrival in stack.arrivals() if arrival["accepted"]}
    sent = [event for event in events if event.kind == "sent"]
    assert {event.id for event in sent} <= took
    assert {event.status for event in sent} <= {200, 202}
    assert all(event.provider_id for event in sent)
