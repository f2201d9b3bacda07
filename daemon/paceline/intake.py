"""The words of intake: messages as the functions take them, and what those answer.

Three functions of ``enqueue.lua``, from the newest: ``paceline_enqueue_bulk`` (options once for all
that share them), ``paceline_enqueue_many``, and ``paceline_enqueue``, which every library has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from redis.exceptions import OutOfMemoryError, ResponseError

from paceline.errors import (
    Draining,
    DuplicateConflict,
    EndpointDisabled,
    InvalidMessage,
    MessageTooLarge,
    OutboxFull,
    PacelineError,
    UnknownDestination,
)
from paceline.message import Message

_json = msgspec.json.encode


_SECONDS = re.compile(r"in about (\d+) s$")
#: When to try again where the answer does not tell, in seconds.
_SOON_S, _NO_MEMORY_S = 5, 30

#: What becomes of a message: "new", "already", or the error that refused it.
Answer = Literal["new", "already"] | PacelineError
Command = tuple[str | bytes | int, ...]

#: Messages in one call of ``paceline_enqueue_many``: one fsync for all of them, and Redis serves
#: nobody else for about as many times 40 us.
TOGETHER = 50
#: The same for ``paceline_enqueue_bulk``, which takes 10 us each.
BULK = 250


def command(tag: str, messages: Sequence[Message], now: str = "") -> Command:
    """One call for at most BULK messages. ``now`` injects the clock in tests (us), or is ""."""
    if len(messages) == 1:
        return singly(tag, messages[0], now)
    arguments: list[str | bytes | int] = ["FCALL", "paceline_enqueue_bulk", 1, tag, now]
    shared = None
    for message in messages:
        its = (
            message.priority,
            message.tenant,
            message.endpoint,
            message.key,
            message.campaign,
            message.not_before,
            message.expires,
        )
        if its != shared:
            arguments.append(_json(_shared_options(message)))
            shared = its
        arguments += (message.id, message.payload)
    return tuple(arguments)


def answers(reply: Any, messages: Sequence[Message]) -> list[Answer] | None:
    """What ``command``'s reply says, one answer a message; None where the library there is older.

    Raises the reply where it is an error of the call as a whole: then some may have been accepted.
    """
    if is_missing_function(reply):
        return None
    if isinstance(reply, ResponseError):
        return [refusal(reply, message) for message in messages]
    if len(messages) == 1:
        return [_word(reply)]
    found: list[Answer] = ["new"] * len(messages)
    for number, one in zip(reply[::2], reply[1::2], strict=True):
        at = int(number)
        found[at] = answer(one, messages[at])
    return found


def together(tag: str, messages: Sequence[Message], now: str = "") -> Command:
    """The call of a library of version 2, for at most TOGETHER messages."""
    arguments: list[str | bytes | int] = ["FCALL", "paceline_enqueue_many", 1, tag]
    for message in messages:
        arguments += (message.payload, _options(message))
    return (*arguments, now) if now else tuple(arguments)


def singly(tag: str, message: Message, now: str = "") -> Command:
    """The call that every library knows."""
    call = ("FCALL", "paceline_enqueue", 1, tag, message.payload, _options(message))
    return (*call, now) if now else call


def answer(reply: Any, message: Message) -> Answer:
    """One message's reply. Raises an error that is no refusal of ours."""
    return refusal(reply, message) if isinstance(reply, ResponseError) else _word(reply)


def _word(reply: Any) -> Literal["new", "already"]:
    return "new" if reply in (b"new", "new") else "already"


def _options(message: Message) -> bytes:
    return _json({"id": message.id} | _shared_options(message))


def _shared_options(message: Message) -> dict[str, Any]:
    given: dict[str, Any] = {"priority": message.priority}
    for name in ("tenant", "endpoint", "key", "campaign", "not_before", "expires"):
        value = getattr(message, name)
        if value is not None:
            given[name] = value
    return given


def is_missing_function(reply: Any) -> bool:
    """Whether the library there is none, or an older one."""
    return isinstance(reply, ResponseError) and "unction not found" in str(reply)


def refusal(error: ResponseError, message: Message) -> PacelineError:
    """The function's error reply as ours. Raises any other as it is."""
    if isinstance(error, OutOfMemoryError):
        return OutboxFull(message.destination, "Redis has no memory left", _NO_MEMORY_S)
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
        reached, _, when = problem.partition("; ")
        seconds = _SECONDS.search(when)
        # A library of before version 6 does not say.
        return OutboxFull(message.destination, reached, int(seconds[1]) if seconds else _SOON_S)
    if code == "PLDRAINING":
        return Draining(message.destination)
    if code == "PLDISABLED":
        return EndpointDisabled(message.destination, message.endpoint or "", problem)
    raise error
