"""A destination's keys in Redis, read raw and put in the shape of `support.model.Model.snapshot`.

Every key that starts with the destination's tag is read; one of an unknown name fails the test, so
that a transition which leaves something lying about is found.
"""

from __future__ import annotations

import json
from typing import Any

import redis

from paceline import keys
from paceline.records import Ended, Live, decode
from support import model

TEXTS = {"run", "hold_kind", "res", "probe", "bad_tenant", "draining"}
NOT_COMPARED = {"pause_why", "pause_who", "hold_why", "hold_who", "hold_since", "breaker_why"}
ALWAYS_FINE = {"h", "o", "n", "gate", "cfg", "reap", "facts", "invn", "wake", "hand"}


def snapshot(client: redis.Redis, destination: str) -> dict[str, Any]:
    """All of one destination, as the model shows it."""
    raw = _read_all(client, keys.tag(destination) + ":")
    names = {n: {i.decode(): v for i, v in raw.get(n, {}).items()} for n in ("gate", "reap", "h")}
    found: dict[str, Any] = {
        "messages": {}, "ended": {}, "told": {}, "attempts": {}, "ready": {}, "batches": {},
        "rings": [_scored(raw, f"t:{p}") for p in (0, 1, 2)],
        "scheduled": _scored(raw, "s"),
        "expiries": _scored(raw, "e"),
        "dead": _scored(raw, "dead"),
        "parked": _scored(raw, "parked"),
        "workers": dict(_scored(raw, "workers")),
        "daemons": dict(_scored(raw, "daemons")),
        "slots": _numbers(raw, "slots"),
        "seen": (int(names["reap"]["at"]), names["reap"]["run"].decode())
        if names["reap"]
        else None,
        "gate": {n: v.decode() if n in TEXTS else float(v) for n, v in names["gate"].items()
                 if n not in NOT_COMPARED},
        "counters": {n: v for n, v in _numbers(raw, "n").items() if v},
        "outcomes": _numbers(raw, "o"),
        "histogram": {n: float(v) for n, v in names["h"].items() if float(v)},
        "wakes": len(raw.get("wake", [])),
    }  # fmt: skip
    deadlines = dict(_scored(raw, "batches"))
    invited = dict(_scored(raw, "inv"))
    lanes = {i.decode(): n.decode().split(":") for i, n in raw.get("invn", {}).items()}
    assert set(invited) == set(lanes), "an invitation without its size, or a size without it"
    found["invitations"] = {
        i: model.Invitation(lanes[i][0], int(lanes[i][1]), int(until))
        for i, until in invited.items()
    }
    facts = set(_texts(raw.get("facts", {})))
    assert facts == set(found["slots"]), "facts of a worker that has no slots, or none of one"
    for name, value in raw.items():
        kind, _, rest = name.partition(":")
        if kind == "m":
            _message(found, rest, value)
        elif kind == "a":
            found["attempts"][rest] = [json.loads(item) for item in value]
        elif kind == "r":
            priority, _, tenant = rest.partition(":")
            found["ready"][int(priority), tenant] = [i for i, _ in _scored(raw, name)]
        elif kind == "b":
            about = raw[f"bm:{rest}"]
            found["batches"][rest] = model.Batch(
                about[b"worker"].decode(), about[b"lane"].decode(), int(deadlines.pop(rest)),
                set(_texts(value)),
            )  # fmt: skip
        elif kind == "bm":
            assert f"b:{rest}" in raw, f"left behind: {name}"
        elif kind == "dup":
            assert client.pttl(f"{keys.tag(destination)}:{name}") > 0, f"stays for ever: {name}"
        else:
            known = ALWAYS_FINE | {
                "s", "e", "dead", "parked", "workers", "daemons", "slots", "inv", "batches", "t",
                "q", "qm", "qs", "late", "gone", "poll", "c", "cn", "cs", "cp", "cw", "cx",
            }  # fmt: skip
            assert kind in known, f"an unknown key: {name}"
    assert not deadlines, f"batches without members: {deadlines}"
    for message_id, end in found["ended"].items():
        told = set(_texts(raw.get(f"dup:{message_id}", ())))
        told |= {end.nonce} if end.state == "sent" else set()
        if told:
            found["told"][message_id] = told
    return found


def _message(found: dict[str, Any], message_id: str, value: bytes) -> None:
    head = decode(value)
    if isinstance(head, Ended):
        found["ended"][message_id] = model.Ended(
            head.state, head.nonce, head.at_us, head.payload_sha1, head.provider_id
        )
        return
    assert isinstance(head, Live)
    found["messages"][message_id] = model.Held(
        message_id, value[head.body_from :], model.PRIORITIES.index(head.priority), head.tenant,
        head.seq, head.at_us, head.expires_us, head.due_us, head.state, head.attempts, head.tries,
        head.nonce, head.cancel_asked,
    )  # fmt: skip


def _read_all(client: redis.Redis, prefix: str) -> dict[str, Any]:
    names = sorted(client.keys(prefix + "*"))
    pipe = client.pipeline(transaction=True)
    for name in names:
        pipe.type(name)
    kinds = pipe.execute()
    for name, kind in zip(names, kinds, strict=True):
        if kind == b"string":
            pipe.get(name)
        elif kind == b"hash":
            pipe.hgetall(name)
        elif kind == b"zset":
            pipe.zrange(name, 0, -1, withscores=True)
        elif kind == b"set":
            pipe.smembers(name)
        else:
            pipe.lrange(name, 0, -1)
    return {
        name.decode().removeprefix(prefix): value
        for name, value in zip(names, pipe.execute(), strict=True)
    }


def _scored(raw: dict[str, Any], name: str) -> list[tuple[str, float]]:
    return [(member.decode(), score) for member, score in raw.get(name, [])]


def _numbers(raw: dict[str, Any], name: str) -> dict[str, int]:
    return {field.decode(): int(value) for field, value in raw.get(name, {}).items()}


def _texts(values: Any) -> list[str]:
    return [value.decode() for value in values]
