"""Messages out of a JSON Lines file: read piecemeal, checked as strictly as Redis will. No output.

Nothing here holds the file: a line is bounded by the destination's largest payload, and of earlier
lines only a number for each id is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Any

import msgspec

from paceline import payloads
from paceline.cli.words import in_words
from paceline.errors import InvalidMessage, MessageTooLarge
from paceline.message import Message, check_id, parse_line

#: What a line may have beside its payload: id, labels, times, white space.
_BESIDE_PAYLOAD = 64 * 1024
#: Ids remembered to find two lines with one id before anything is sent; beyond, Redis tells.
_REMEMBERED = 2_000_000
_LINE_BITS = 40


@dataclass(frozen=True, slots=True)
class Rules:
    """What this destination takes, and how ids are made for lines without one.

    ``finish_by``, unix seconds, where all are to be sent by then. ``endpoint`` and ``key``: of
    lines that have none of their own.
    """

    destination: str
    provider: str
    max_payload_bytes: int
    id_prefix: str
    finish_by: float | None = None
    endpoint: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that was not accepted, and why."""

    number: int
    id: str | None
    field: str
    problem: str
    mend: str

    def view(self) -> dict[str, Any]:
        """For --json."""
        return {
            "line": self.number,
            "id": self.id,
            "field": self.field,
            "problem": self.problem,
            "mend": self.mend,
        }

    @property
    def text(self) -> str:
        """One line for people."""
        where = f"line {self.number}: {self.field}: " if self.field else f"line {self.number}: "
        return where + self.problem + (f". {self.mend}" if self.mend else "")


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is a message. ``end`` is how far the file was read; ``warnings`` what the
    provider would rather have otherwise."""

    number: int
    message: Message
    made_id: bool
    end: int
    warnings: tuple[str, ...] = ()

    def in_turn(self, turn: float) -> Line:
        """The line, not to be sent before its turn (unix seconds), nor before its own time."""
        at = max(turn, self.message.not_before or 0.0)
        return replace(self, message=msgspec.structs.replace(self.message, not_before=at))


@dataclass(slots=True)
class Lines:
    """Iterates over the messages of a file from its beginning; bad lines come as their Refusal.

    ``now`` is unix seconds. Two passes over one file give the same, but for what expired meanwhile.
    """

    source: IO[bytes]
    rules: Rules
    now: float
    _ids: dict[int, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Line | Refusal]:
        self.source.seek(0)
        most = self.rules.max_payload_bytes + _BESIDE_PAYLOAD
        number = end = 0
        while raw := self.source.readline(most):
            number += 1
            end += len(raw)
            if len(raw) == most and not raw.endswith(b"\n"):
                size = len(raw) + self._skip_rest(most)
                end += size - len(raw)
                yield self._refusal(
                    number, None, MessageTooLarge("payload", size, self.rules.max_payload_bytes)
                )
                continue
            read = self._read(raw, number, end)
            if read is not None:
                yield read

    def _skip_rest(self, most: int) -> int:
        skipped = 0
        while piece := self.source.readline(most):
            skipped += len(piece)
            if piece.endswith(b"\n"):
                break
        return skipped

    def _read(self, raw: bytes, number: int, end: int) -> Line | Refusal | None:
        message: Message | None = None
        rules = self.rules
        try:
            message = parse_line(
                raw,
                number,
                destination=rules.destination,
                now=self.now,
                endpoint=rules.endpoint,
                key=rules.key,
            )
            if message is None:
                return None
            made = not _has_id(raw)
            if made:
                message = msgspec.structs.replace(message, id=f"{rules.id_prefix}-{number}")
            payloads.check(
                rules.provider,
                message.payload,
                max_payload_bytes=rules.max_payload_bytes,
                message_id=message.id,
            )
            self._check_times(message)
            if not made:
                self._check_twice(message, number)
        except InvalidMessage as error:
            return self._refusal(number, message.id if message else _id_of(raw), error)
        return Line(number, message, made, end, payloads.advise(rules.provider, message.payload))

    def _check_times(self, message: Message) -> None:
        # As enqueue.lua, which refuses it: a list sent late is better stopped than lost silently.
        if message.expires is not None and message.expires <= self.now:
            raise InvalidMessage(
                "expires",
                f"already past, by {self.now - message.expires:.0f} s",
                "Write a later time, or leave the line out",
            )
        end = self.rules.finish_by
        if end is None:
            return
        if message.not_before is not None and message.not_before > end:
            raise InvalidMessage(
                "not_before",
                f"after --finish-by, by {in_words(message.not_before - end)}",
                "Write an earlier time, or send the line without --finish-by",
            )
        # Its turn depends on how many lines there are: any before the end may come too late for it.
        if message.expires is not None and message.expires < end:
            raise InvalidMessage(
                "expires",
                f"before --finish-by, by {in_words(end - message.expires)}: it might expire before "
                "its turn",
                "Write a later time, or send the line without --finish-by",
            )

    def _check_twice(self, message: Message, number: int) -> None:
        key = _number_of(message.id.encode())
        digest = _number_of(message.payload)
        known = self._ids.get(key)
        if known is None:
            if len(self._ids) < _REMEMBERED:
                self._ids[key] = digest << _LINE_BITS | number
        elif known >> _LINE_BITS != digest:
            raise InvalidMessage(
                "id",
                f"{message.id!r} is also on line {known & (1 << _LINE_BITS) - 1}, "
                "with another payload",
                "Use a new id for a new message",
            )

    @staticmethod
    def _refusal(number: int, message_id: str | None, error: InvalidMessage) -> Refusal:
        mend = error.mend or (
            'A line is one JSON object: {"payload": {…}, "id": "…"}'
            if error.field == "line"
            else "paceline send --help shows what a line may hold"
        )
        return Refusal(number, message_id, error.field, error.problem, mend)


def check_prefix(prefix: str) -> str:
    """Returns ``prefix`` if ids can be made with it. Raises InvalidMessage."""
    check_id(f"{prefix}-{10**12}")
    return prefix


@dataclass(slots=True)
class Ranges:
    """Line numbers as ``1–300, 302–400``: of messages that follow one another in the file."""

    spans: list[list[int]] = field(default_factory=list)
    count: int = 0
    _last: int = -1
    _place: int = 0

    def add(self, number: int, place: int) -> None:
        """``place`` counts the messages: blank lines between two do not part them."""
        if self.spans and place == self._place + 1:
            self.spans[-1][1] = number
        else:
            self.spans.append([number, number])
        self._place = place
        self.count += 1

    def __str__(self) -> str:
        shown = [f"{a}" if a == b else f"{a}–{b}" for a, b in self.spans[:10]]
        more = f" and {len(self.spans) - 10} more ranges" if len(self.spans) > 10 else ""
        return ", ".join(shown) + more


class _IdOnly(msgspec.Struct):
    id: Any = None


_ID_ONLY = msgspec.json.Decoder(_IdOnly)


def _id_of(raw: bytes) -> str | None:
    try:
        found = _ID_ONLY.decode(raw.removeprefix(b"\xef\xbb\xbf")).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _has_id(raw: bytes) -> bool:
    return _id_of(raw) is not None


def _number_of(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())
