"""A producer's user writes whatever its rights let it write, by hand: wrong headers, places of
nothing, counters, events. Nothing crashes, nobody's message waits for it, and audit names it."""

from __future__ import annotations

import json
import math
import struct
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from paceline import Outbox
from paceline.audit import DeepAudit
from paceline.connect import connect
from paceline.message import Message
from support.stack import DESTINATION, Stack
from support.wait import until

NAN, INF = math.nan, math.inf
NOW = 1.8e15
MERGING = """
api_key = "k"
merge = { most = 20, linger_s = 0.05 }
"""
EVENTS = """
[destinations.web.events]
kinds = ["accepted", "sent", "dead", "expired"]
"""

#: What no producer may do, one of each kind.
FORBIDDEN: Sequence[tuple[Any, ...]] = (
    ("DEL", "{web}:m:a"), ("UNLINK", "{web}:r:1:"), ("ZREM", "{web}:r:1:", "a"),
    ("HSET", "{web}:n", "sent", "x"), ("HSET", "{web}:cfg", "rate", "1e9"),
    ("HSET", "{web}:gate", "pause_until", "-1"), ("ZADD", "{web}:cx", "0", "a"),
    ("LPUSH", "{web}:r:1:", "x"),
    ("SET", "{web}:s", "x"), ("SET", "{web}:b:x", "x"), ("SADD", "{web}:b:x", "x"),
    ("ZADD", "{web}:batches", "0", "x"), ("ZADD", "{web}:dead", "0", "x"),
    ("ZADD", "{web}:workers", "9e18", "x"), ("RENAME", "{web}:n", "{web}:x"),
    ("SET", "{other}:m:a", "x"), ("FCALL", "paceline_enqueue", "1", "{other}", "{}", '{"id":"a"}'),
    ("RPUSH", "rq:queue:paceline:web:any", "x"), ("HSET", "rq:job:x", "data", "os.system"),
    ("EVAL", "return 1", "1", "{web}"), ("EVAL_RO", "return 1", "1", "{web}"),
    ("FUNCTION", "LOAD", "REPLACE", "x"), ("KEYS", "*"), ("SCAN", "0"), ("FLUSHALL",),
    ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("MONITOR",), ("SCRIPT", "KILL"), ("INFO",),
    ("CLIENT", "LIST"), ("ZRANGE", "{web}:r:1:", "0", "-1"), ("SMEMBERS", "{web}:facts"),
)  # fmt: skip


def _header(state: str = "R", prio: str = "1", seq: float = 1.0, at: float = NOW,
            expires: float = 0.0, due: float = 0.0, attempts: int = 0, nonce: str = "-" * 16,
            lengths: tuple[int, int, int] = (0, 0, 0), rest: bytes = b"{}") -> bytes:  # fmt: skip
    """A message's string, of what a producer makes up."""
    head = struct.pack(
        ">ccHH16scc", b"P", state.encode(), attempts, 0, nonce.encode(), prio.encode(), b"-"
    )
    return head + struct.pack(">ddddBBH", seq, at, expires, due, *lengths) + rest


#: Strings for messages that were accepted, or never were.
STRINGS: Sequence[bytes] = (
    b"", b"P", b"P" * 59, b"PR" + b"\xff" * 200, b"p", b"pS" + b"\xff" * 80, b"garbage", b"\0" * 60,
    _header(seq=NAN), _header(seq=INF), _header(seq=-INF), _header(at=NAN), _header(at=-1e300),
    _header(expires=NAN), _header(expires=1.0), _header(due=INF), _header(prio="\n"),
    _header(prio="9"), _header("L"), _header("B", attempts=65535), _header("D"), _header("K"),
    _header("Q"), _header("Z"), _header(lengths=(255, 255, 65535)), _header(at=9.9e16),
    _header(lengths=(4, 0, 0), rest=b"\xff\n:{}"),
    _header(lengths=(0, 3, 0), rest=b"\xff:\n{}"), _header(rest=b""), _header(rest=b"[" * 100_000),
    _header(rest=b'{"a": "\xff\xfe"}'), _header(rest=b"\0"), _header("W", due=NOW),
)  # fmt: skip

IDS: Sequence[bytes] = (
    b"", b"+", b"+" + b"0" * 16, b"+x", b"\xff\xfe", b"a b", b"a\r\nX-Evil: 1", b"x" * 5000, b"\0",
    b"../..", b"nobody",
)  # fmt: skip


def _mischief(prefix: str, victims: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Commands that a producer may send. ``victims``: messages that were accepted, to be spoilt."""
    m = "{web}:m:"
    for number, string in enumerate(STRINGS):
        # Spoilt while it waits; and one of each, put where messages wait by hand.
        yield "SET", m + victims[number], string
        for where in ("r:1:", "r:0:", "r:2:", "r:1:ghost", "s", "e"):
            made_up = f"{prefix}-{number}-{where.replace(':', '.')}"
            yield "SET", m + made_up, string
            yield "ZADD", "{web}:" + where, 0 if number % 2 else "-inf", made_up
    for i in IDS:
        yield "SET", m.encode() + i, _header()
        for where in ("r:0:", "r:1:", "s", "e"):
            yield "ZADD", "{web}:" + where, 1, i
            yield "ZADD", "{web}:" + where, 1, i + b"-without-a-key"
    for score in ("-inf", "inf", "0", "-1e308"):
        for prio in ("0", "1", "2", "9"):
            for tenant in (b"ghost", b"\xff", b"a:b", b"", b"x" * 300):
                yield "ZADD", "{web}:t:" + prio, score, tenant
                yield "ZADD", "{web}:el:" + prio, score, tenant
    for campaign in (b"ghost", b"\xff", b"", b"x" * 300):
        for score in ("-inf", "inf", "0"):
            yield "ZADD", "{web}:cs", score, campaign
        yield "SADD", b"{web}:c:" + campaign, *IDS
        yield "HINCRBY", b"{web}:cn:" + campaign, "sent", -(2**62)
    yield "ZADD", "{web}:eb", "inf", "ghost"
    yield "SADD", "{web}:ef:ghost", "1:ghost", "", "x", b"\xff"
    for _ in range(20):
        yield "LPUSH", "{web}:wake", b"\xff"
    fields: Sequence[tuple[Any, ...]] = (
        ("kind", "sent"), ("seq", "nan", "kind", "sent", "ids", "a", "n", "x", "at", "1"),
        ("kind", b"\xff", "ids", b"\xff", "seq", "1", "n", "1", "at", "inf"),
    )  # fmt: skip
    for some in fields:
        yield "XADD", "{web}:ev", "*", *some


def _wishes(prefix: str) -> Iterator[tuple[Any, ...]]:
    """What only an app may: to ask that something be cancelled."""
    for number in range(len(STRINGS)):
        for where in ("r.1.", "s", "e"):
            yield "ZADD", "{web}:cx", 0, f"{prefix}-{number}-{where}"
    for i in IDS:
        yield "ZADD", "{web}:cx", "-inf", i
        yield "FCALL", "paceline_cancel", 1, "{web}", i


def _counters() -> Iterator[tuple[Any, ...]]:
    top = 2**63 - 1
    yield "HINCRBY", "{web}:n", "seq", 10**15
    yield "HINCRBY", "{web}:n", b"\xff", 1
    yield "HINCRBY", "{web}:n", "net:x", -5
    # The last one more overflows.
    for name in ("sent", "retried", "events", "expired", "returned", "merged_messages"):
        yield "HINCRBY", "{web}:n", name, top - 2000
        yield "HINCRBY", "{web}:n", name, 1990


def _stack(folder: Path, *, merging: bool) -> Stack:
    about: dict[str, Any] = {"more": "lease_s = 2.0\n" + EVENTS}
    if merging:
        more = MERGING + EVENTS
        about = {"profile": "sparkpost", "path": "/api/v1/transmissions", "more": more}
    return Stack(folder, rate=2000, burst=500, workers=1, latency="1ms", exporter="127.0.0.1:0",
                 **about)  # fmt: skip


def _message(number: int, prefix: str) -> Message:
    payload = {
        "recipients": [{"address": f"u{number}@example.com"}],
        "content": {"template_id": "t"},
    }
    return Outbox.message(DESTINATION, payload, id=f"{prefix}-{number}")


def _hand_over(stack: Stack, prefix: str, count: int) -> list[str]:
    messages = [_message(n, prefix) for n in range(count)]
    answers = stack.outbox.send_many(messages)
    assert not [it for it in answers if isinstance(it, Exception)]
    return [message.id for message in messages]


def _refused(client: redis.Redis, command: tuple[Any, ...]) -> bool:
    try:
        client.execute_command(*command)  # type: ignore[no-untyped-call]
    except redis.exceptions.NoPermissionError:
        return True
    return False


def _do_all(client: redis.Redis, commands: Iterator[tuple[Any, ...]]) -> None:
    """All of them are within its rights, whatever Redis makes of them otherwise."""
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)  # type: ignore[no-untyped-call]
    replies = pipe.execute(raise_on_error=False)
    assert not [r for r in replies if isinstance(r, redis.exceptions.NoPermissionError)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "merging",
    [pytest.param(False, marks=pytest.mark.long), True],
    ids=["one-by-one", "merged"],
)
def test_what_a_producer_writes_by_hand_stops_nobody(tmp_path: Path, merging: bool) -> None:
    with _stack(tmp_path, merging=merging) as stack, connect(stack.url_of("producer")) as producer:
        allowed = [command for command in FORBIDDEN if not _refused(producer, command)]
        assert allowed == []
        stack.client.acl_log_reset()
        processes = [*stack.daemon_processes, *stack.worker_processes]
        for turn in range(2):
            # While they wait, and while others of the same batch are sent.
            if turn == 0:
                stack.store.hold("pause")
            victims = _hand_over(stack, f"victim{turn}", len(STRINGS))
            bystanders = _hand_over(stack, f"bystander{turn}", 100)
            _do_all(producer, _mischief(f"forged{turn}", victims))
            with connect(stack.url_of("app")) as app:
                _do_all(app, _wishes(f"forged{turn}"))
            stack.store.hold("resume")
            _until_sent(stack, bystanders)
        _do_all(producer, _counters())
        _until_sent(stack, _hand_over(stack, "after", 100))
        assert [p.poll() for p in processes] == [None] * len(processes)
        with urllib.request.urlopen(stack.metrics_url(), timeout=5) as reply:
            assert b'paceline_messages{destination="web"' in reply.read()
        read = stack.outbox.events(DESTINATION, start="first", block_s=0)
        assert "after-99" in {event.id for event in read if event.kind == "sent"}
        found = DeepAudit(stack.store, lambda _: None).run()
        assert {"unreadable", "no-container"} <= set(found.counts), found.counts
        assert not stack.store.census().sound
        assert _troubles(tmp_path) <= {"law_broken", "redis_loss"}


def _troubles(folder: Path) -> set[str]:
    """Events of what processes logged as errors; of none is what nobody expected."""
    lines = [
        json.loads(line)
        for log in folder.glob("*.log")
        for line in log.read_text("utf-8").splitlines()
        if line.startswith("{")
    ]
    return {line.get("event", line["message"]) for line in lines if line["level"] == "error"}


def _until_sent(stack: Stack, ids: Sequence[str]) -> None:
    def left() -> list[str]:
        states = stack.store.look(ids)
        return [i for i, it in zip(ids, states, strict=True) if it is None or it[0].state != "sent"]

    until(lambda: not left(), 20, "the others are sent", 0.1)
