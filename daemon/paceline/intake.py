"""The words of intake: a message's options as the function takes them, and what it answers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from redis.exceptions import OutOfMemoryError, ResponseError

from paceline.errors import (
    Draining,
    DuplicateConflict,
    InvalidMessage,
    MessageTooLarge,
    OutboxFull,
    PacelineError,
    UnknownDestination,
)
from paceline.message import Message


def word(reply: Any) -> Literal["new", "already"]:
    """A reply without an error."""
    return "new" if reply in (b"new", "new") else "already"


def options(message: Message) -> bytes:
    """The options of ``paceline_enqueue``, as JSON."""
    given: dict[str, Any] = {"id": message.id, "priority": message.priority}
    for name in ("tenant", "campaign", "not_before", "expires"):
        value = getattr(message, name)
        if value is not None:
            given[name] = value
    return msgspec.json.encode(given)


def is_missing_function(reply: Any) -> bool:
    """Whether the library there is none, or an older one."""
    return isinstance(reply, ResponseError) and "unction not found" in str(reply)


def refusal(error: ResponseError, message: Message) -> PacelineError:
    """The function's error reply as ours. Raises any other as it is."""
    if isinstance(error, OutOfMemoryError):
        return OutboxFull(message.destination, "Redis has no memory left")
    code, _, text = str(error).partition(" ")
    field, _, problem = text.partition(": ")
    if code == "PLINVALID":
        return InvalidMessage(field.removeprefix("options."), problem)
    if code == "PLTOOBIG":
        limit = int(text.split("over the ")[1].split(" ")[0])
        return MessageTooLarge("payload", len(message.payload), limit)
    if code == "PLUNKNOWN":
        return UnknownDestination(message.destination)
    if code == "PLCONFLICT":
        return DuplicateConflict(message.destination, message.id)
    if code == "PLFULL":
        return OutboxFull(message.destination, problem.partition(";")[0])
    if code == "PLDRAINING":
        return Draining(message.destination)
    raise error
