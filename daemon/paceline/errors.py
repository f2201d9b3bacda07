"""The one error tree of Paceline. Whatever a library raises is translated where it is called.

::

    PacelineError                  what went wrong, and `mend`: what to do about it
    ├── ConfigError                the configuration file: every problem in it, at once
    ├── ConfigMismatch             this process's configuration is not the one in Redis
    ├── EmbeddedServerError        (embedded.py) the embedded server could not be run
    ├── MissingExtra               a command needs an extra that is not installed
    ├── InvalidMessage             the message can never be accepted as it is (`field`, `problem`)
    │   ├── PayloadError           the destination's provider profile cannot render its payload
    │   └── MessageTooLarge        its payload is over the destination's limit
    ├── DuplicateConflict          this id was accepted before, with another payload
    ├── UnknownDestination         no destination of that name
    ├── UnknownMessage             no message of that id (or its record has run out)
    ├── NotPossible                the operation does not fit the state the message is in
    ├── OutboxFull                 a limit of the outbox is reached; the message was not taken
    ├── Draining                   the destination takes no new messages at the moment
    ├── EndpointDisabled           its endpoint was given up, or switched off; it was not taken
    ├── NotReplicated              it was taken; too few replicas said in time that they have it
    └── RedisUnavailable           Redis could not be reached, or not in time

`str(error)` says what and where, then how to mend it. Every class can be pickled and copied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ConfigError",
    "ConfigMismatch",
    "ConfigProblem",
    "Draining",
    "DuplicateConflict",
    "EndpointDisabled",
    "InvalidMessage",
    "MessageTooLarge",
    "MissingExtra",
    "NotPossible",
    "NotReplicated",
    "OutboxFull",
    "PacelineError",
    "PayloadError",
    "RedisUnavailable",
    "UnknownDestination",
    "UnknownMessage",
]


_MOST_SHOWN = 500


class PacelineError(Exception):
    """Base of all errors raised on purpose. `what` names the trouble, `mend` the way out of it."""

    what: str
    mend: str

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what, mend)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}. {self.mend}" if self.mend else self.what

    # Exception's own __reduce__ calls the class with `args`, which here are (what, mend): wrong
    # for children with other parameters, and multiprocessing would hang on such an error.
    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[PacelineError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


def _shown(text: str) -> str:
    """On one line, and not too long: names of fields, and words about them, may be anybody's."""
    if len(text) > _MOST_SHOWN:
        text = text[: _MOST_SHOWN - 1] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong in the configuration: the dotted key, what is wrong, how to mend it."""

    key: str
    problem: str
    mend: str = ""

    def __str__(self) -> str:
        key, problem = _shown(self.key), _shown(self.problem)
        line = f"{key}: {problem}" if key else problem
        return f"{line}. {self.mend}" if self.mend else line


class ConfigError(PacelineError):
    """The configuration cannot be used. `problems` holds all that was found, in file order."""

    problems: list[ConfigProblem]

    def __init__(self, problems: Iterable[ConfigProblem], *, source: str = "configuration") -> None:
        self.problems = list(problems)
        count = len(self.problems)
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"{source}: {count} problem{'' if count == 1 else 's'}{lines}")


class ConfigMismatch(PacelineError):
    """This process's configuration of a destination differs from the copy shared in Redis."""

    def __init__(self, destination: str, detail: str, mend: str = "") -> None:
        super().__init__(
            f"destination {destination!r} is configured differently here than in Redis: {detail}",
            mend or "Give every process the same file, or stop them all before changing it",
        )
        self.destination = destination


class MissingExtra(PacelineError):
    """`command` needs the optional dependencies of `extra`."""

    def __init__(self, extra: str, command: str) -> None:
        super().__init__(
            f"{command} needs the extra {extra!r}, which is not installed",
            f"Install it: pip install 'paceline[{extra}]'",
        )
        self.extra = extra
        self.command = command


class InvalidMessage(PacelineError):
    """The message can never be accepted as it is.

    `field` is where: an argument's name, or a path into the payload such as
    `payload.message.recipients[2].email`. `line` is the line of a JSON Lines file, counted from
    1, or None.
    """

    def __init__(
        self, field: str, problem: str, mend: str = "", *, line: int | None = None
    ) -> None:
        shown = _shown(field)
        where = shown if line is None else f"line {line}: {shown}"
        problem_shown = _shown(problem)
        super().__init__(
            f"{where}: {problem_shown}" if field else f"{where}{problem_shown}", _shown(mend)
        )
        self.field = field
        self.problem = problem
        self.line = line

    def at_line(self, line: int) -> InvalidMessage:
        """The same error, naming a line of the file it came from."""
        copy = _restore(type(self), self.args, self.__dict__)
        InvalidMessage.__init__(copy, self.field, self.problem, self.mend, line=line)
        assert isinstance(copy, InvalidMessage)
        return copy


class PayloadError(InvalidMessage):
    """The provider profile cannot make a request of this payload."""


class MessageTooLarge(InvalidMessage):
    """The payload has `size` bytes, and the destination takes at most `limit`."""

    def __init__(self, field: str, size: int, limit: int) -> None:
        super().__init__(
            field,
            f"{size:,} bytes, and this destination takes at most {limit:,}",
            "Send less, or raise max_payload_bytes of the destination",
        )
        self.size = size
        self.limit = limit


class DuplicateConflict(PacelineError):
    """The id is taken: it was accepted before, with another payload. Nothing was changed."""

    def __init__(self, destination: str, message_id: str) -> None:
        super().__init__(
            f"message {message_id!r} of {destination!r} exists already, with another payload",
            "Use a new id for a new message; the same id only to repeat the same bytes",
        )
        self.destination = destination
        self.message_id = message_id


class UnknownDestination(PacelineError):
    """No destination of that name is configured (or no daemon has published it yet)."""

    def __init__(self, destination: str, known: Iterable[str] = ()) -> None:
        names = ", ".join(sorted(known))
        super().__init__(
            f"unknown destination {destination!r}",
            f"Known: {names}"
            if names
            else "Add [destinations.…] to the configuration and start the daemon once",
        )
        self.destination = destination


class UnknownMessage(PacelineError):
    """No message of that id: never accepted, dropped, or its record has run out."""

    def __init__(self, destination: str, message_id: str) -> None:
        super().__init__(
            f"destination {destination!r} knows no message {message_id!r}",
            "Check the id; records of sent messages are kept for record_ttl_s only",
        )
        self.destination = destination
        self.message_id = message_id


class NotPossible(PacelineError):
    """The operation does not fit the state the message (or destination) is in."""

    def __init__(self, operation: str, state: str, mend: str = "") -> None:
        super().__init__(f"{operation} is not possible: {state}", mend)
        self.operation = operation
        self.state = state


class OutboxFull(PacelineError):
    """A limit of the outbox, or of its Redis, is reached. The message was not taken: send it again,
    after about `retry_after_s` seconds."""

    def __init__(self, destination: str, limit: str, retry_after_s: int = 5) -> None:
        super().__init__(
            f"the outbox of {destination!r} is full ({limit}); the message was not taken",
            f"Try again in about {retry_after_s} s, or raise the limit",
        )
        self.destination = destination
        self.limit = limit
        self.retry_after_s = retry_after_s


class Draining(PacelineError):
    """The destination is draining: it finishes what it has and takes nothing new."""

    def __init__(self, destination: str) -> None:
        super().__init__(
            f"destination {destination!r} is draining; the message was not taken",
            f"End it with: paceline resume {destination}",
        )
        self.destination = destination


class EndpointDisabled(PacelineError):
    """The message's endpoint is disabled: by an operator, or because it failed for too long or said
    that it is gone (410)."""

    def __init__(self, destination: str, endpoint: str, why: str) -> None:
        super().__init__(
            f"endpoint {endpoint!r} of {destination!r} is disabled ({why}); "
            "the message was not taken",
            f"When it is well again: paceline endpoints enable {destination} {endpoint}",
        )
        self.destination = destination
        self.endpoint = endpoint
        self.why = why


class NotReplicated(PacelineError):
    """The message **was taken** and will be sent, but of ``wanted`` replicas only ``found`` have
    said in time that they have it too: a fail-over at this moment may lose it. ``status`` as in a
    Receipt: "new", or "already"."""

    def __init__(
        self, destination: str, message_id: str, wanted: int, found: int, status: str = "new"
    ) -> None:
        super().__init__(
            f"message {message_id!r} of {destination!r} was taken, but only {found} of {wanted} "
            "replicas have said in time that they have it",
            "Send it again with the same id and payload, which is safe, until this is not raised; "
            "see that the replicas run and keep up (paceline doctor)",
        )
        self.destination = destination
        self.message_id = message_id
        self.wanted = wanted
        self.found = found
        self.status = status


class RedisUnavailable(PacelineError):
    """Redis could not be reached, or did not answer in time. The outcome may be unknown."""

    def __init__(self, detail: str, mend: str = "") -> None:
        super().__init__(
            f"Redis is not available: {detail.rstrip('.')}",
            mend
            or "Check that it runs and that the URL is right; repeating with the same id is safe",
        )
