"""Messages into the outbox, as fast as they go; each answer into the ledger before the next.

Most go through the client, pipelined. Those that no profile can render go by the function alone, as
a program in another language would send them: the client would refuse them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import redis

from paceline.client import PIPELINE, Outbox, Receipt
from paceline.errors import PacelineError
from paceline.keys import tag
from paceline.message import Message
from paceline.rehearsal.ledger import Ledger, Line, Refusal
from paceline.rehearsal.payloads import Draft
from paceline.rehearsal.plan import DESTINATION


@dataclass(frozen=True, slots=True)
class Taken:
    """What the intake came to."""

    acknowledged: int
    refused: int
    bytes: int
    seconds: float


def send_all(
    drafts: Iterable[Draft],
    outbox: Outbox,
    raw: redis.Redis,
    ledger: Ledger,
    after_piece: Callable[[], None],
) -> Taken:
    """Sends all. ``after_piece`` is called about every hundred messages. Raises RedisUnavailable,
    RedisError, OSError."""
    began_s = time.monotonic()
    acknowledged = refused = size = 0
    for piece in _pieces(drafts):
        lines = _send(piece, outbox, raw, ledger)
        ledger.write(lines)
        for line in lines:
            if isinstance(line, Refusal):
                refused += 1
            else:
                acknowledged += 1
                size += line.bytes
        after_piece()
    return Taken(acknowledged, refused, size, time.monotonic() - began_s)


def _send(piece: list[Draft], outbox: Outbox, raw: redis.Redis, ledger: Ledger) -> list[Line]:
    answers: dict[str, Receipt | PacelineError] = {}
    messages: list[Message] = []
    for draft in piece:
        if draft.kind == "unrenderable":
            _send_raw(draft, raw)
            answers[draft.id] = Receipt(draft.id, "new")
        else:
            messages.append(
                outbox.message(
                    DESTINATION,
                    draft.payload,
                    id=draft.id,
                    priority=draft.priority,
                    tenant=draft.tenant,
                )
            )
    for message, answer in zip(messages, outbox.send_many(messages), strict=True):
        answers[message.id] = answer
    now = time.time()
    lines: list[Line] = []
    for draft in piece:
        answer = answers[draft.id]
        if isinstance(answer, Receipt):
            lines.append(ledger.entry(draft.id, draft.kind, draft.payload, now))
        else:
            lines.append(Refusal(draft.id, draft.kind, str(answer), now))
    return lines


def _send_raw(draft: Draft, raw: redis.Redis) -> None:
    options = json.dumps({"id": draft.id, "priority": draft.priority})
    # Raises ResponseError where it is refused: the payload is no part of what the function checks.
    raw.execute_command(  # type: ignore[no-untyped-call]
        "FCALL", "paceline_enqueue", 1, tag(DESTINATION), draft.payload, options
    )


def _pieces(drafts: Iterable[Draft]) -> Iterator[list[Draft]]:
    source = iter(drafts)
    while piece := list(islice(source, PIPELINE)):
        yield piece
