"""What apps import: push messages, ask what became of them.

    from paceline import Outbox

    outbox = Outbox.from_url("redis://127.0.0.1:6379/0")
    receipt = outbox.send("maxmd", {"sender": …, "recipients": […], …})

``send`` returns when Redis has accepted the message (with ``appendfsync always``: when it is on
disk; with ``durable="replica"``: when a replica has it too). A message that cannot be sent is
refused at once, with an error that names the field. Sending the same id and payload again is safe
and changes nothing.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

import msgspec
import redis
import redis.exceptions

from paceline import campaign_desk, payloads, wishes
from paceline.campaigns import Campaign
from paceline.connect import connect
from paceline.durable import Durable, replica_timeout_of, replicas_of
from paceline.errors import (
    NotPossible,
    NotReplicated,
    PacelineError,
    RedisUnavailable,
    UnknownDestination,
    UnknownMessage,
)
from paceline.event_reader import GroupReader, position_of, read_alone
from paceline.event_watch import EventWatch
from paceline.events import ENDS, RESTS, Event
from paceline.intake import BULK, is_missing_function
from paceline.message import Message, build, check_id, check_label, check_name
from paceline.message_status import Status, status_of
from paceline.outbox import OutboxStore, known_destinations
from paceline.pipe import Pipe
from paceline.translated import translated, translating

__all__ = ["Campaign", "Event", "Outbox", "Receipt", "Status"]

#: Messages in one command: one fsync of Redis covers them all.
PIPELINE = BULK
#: Pieces written while the replies to others are still to be read.
AHEAD = 1
PIPELINE_BYTES = 1024 * 1024
_OPTIONS_TTL_S = 10.0
_POLL_FIRST_S, _POLL_MOST_S = 0.01, 0.25
#: How often one that is woken by events looks all the same.
_LOOK_AGAIN_S = 5.0
# Waiters that look at once: a thousand may be woken by one event, and a pool holds a hundred
# connections (redis-py 8).
_LOOKERS = 8


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """An accepted message. ``status`` is "new", or "already": the same was accepted before.

    ``warnings``: what the provider would rather have otherwise, such as a smaller message.
    """

    id: str
    status: Literal["new", "already"]
    warnings: tuple[str, ...] = ()


class Outbox:
    """The producers' side of Paceline. Thread-safe.

    ``client`` must hand out bytes, and have two connections for each thread that sends many.
    ``from_url`` builds one that repeats an enqueue whose answer was lost: the id makes that safe.
    ``replica_timeout_s``: how long replicas are waited for where ``durable`` says so; by default,
    and at most, two fifths of the client's time-out.
    """

    def __init__(self, client: redis.Redis, *, replica_timeout_s: float | None = None) -> None:
        self._client = client
        self._replica_timeout_s = replica_timeout_of(client, replica_timeout_s)
        self._stores: dict[str, OutboxStore] = {}
        self._watches: dict[str, EventWatch] = {}
        self._lock = threading.Lock()
        self._looks = threading.BoundedSemaphore(_LOOKERS)
        self._options: dict[str, tuple[float, str, int | None]] = {}

    @classmethod
    def from_url(
        cls, url: str, *, timeout_s: float = 5.0, replica_timeout_s: float | None = None
    ) -> Self:
        """``redis://``, ``rediss://``, ``unix://`` or ``sentinel+redis://``. Connects at first use.

        Raises ConfigError for a URL that cannot be read.
        """
        client = connect(url, name="paceline-client", timeout_s=timeout_s, repeats=3)
        return cls(client, replica_timeout_s=replica_timeout_s)

    def send(
        self,
        destination: str,
        payload: object,
        *,
        id: str | None = None,
        priority: Literal["high", "normal", "bulk"] = "normal",
        tenant: str | None = None,
        endpoint: str | None = None,
        key: str | None = None,
        campaign: str | None = None,
        not_before: float | str | datetime | None = None,
        expires: float | str | datetime | None = None,
        delay_s: float | None = None,
        ttl_s: float | None = None,
        durable: Durable = "server",
    ) -> Receipt:
        """Hands one message over. ``payload``: anything that JSON can say, or ready JSON as bytes.

        Times are unix seconds, RFC 3339 text or aware datetimes. ``durable="replica"`` returns when
        a replica has it too, a number when so many have. Raises InvalidMessage (and its kinds
        PayloadError, MessageTooLarge), UnknownDestination, DuplicateConflict, OutboxFull, Draining,
        EndpointDisabled: then it was not accepted; NotReplicated: it was, and replicas did not say
        in time that they have it; RedisUnavailable: it may have been. Repeating is safe.
        OutboxFull says in ``retry_after_s`` when to try again.
        """
        message = build(
            destination,
            payload,
            now=time.time(),
            id=id,
            priority=priority,
            tenant=tenant,
            endpoint=endpoint,
            key=key,
            campaign=campaign,
            not_before=not_before,
            expires=expires,
            delay_s=delay_s,
            ttl_s=ttl_s,
        )
        answer = self.send_many([message], durable=durable)[0]
        if isinstance(answer, PacelineError):
            raise answer
        return answer

    def send_many(
        self, messages: Iterable[Message], *, durable: Durable = "server"
    ) -> list[Receipt | PacelineError]:
        """Hands many over: for each, in order, its Receipt or the error that refused it.

        Build messages with ``message()``. A refused one does not hinder the others. Raises
        RedisUnavailable when Redis went away, PacelineError when it refuses more than messages
        (the user's rights, say): some may have been accepted, so repeat the whole call, with the
        same messages. What ``messages`` itself raises comes out when all before it is handed over.
        ``durable`` as for ``send``: NotReplicated then stands for a message that was accepted.
        """
        return list(self.send_stream(messages, durable=durable))

    def send_stream(
        self, messages: Iterable[Message], *, durable: Durable = "server"
    ) -> Iterator[Receipt | PacelineError]:
        """As ``send_many``, for more messages than memory holds: answers come one by one, in order,
        and only a few pieces of PIPELINE messages are held at a time.

        A piece is written when it is full or ``messages`` ends; while Redis works on one, the next
        is made. So ``messages`` is read ahead of the answers, and who leaves the loop early, or is
        told RedisUnavailable, does not know what became of up to AHEAD + 2 pieces after the last
        answer: repeat from there on, with the same messages.
        """
        replicas = replicas_of(durable)
        with Pipe(self._client) as pipe:
            try:
                yield from self._stream(pipe, messages, replicas)
            except RedisUnavailable:
                raise
            except PacelineError:
                # Who asks next what became of the others must not be told before it has happened.
                with translated():
                    pipe.drain()
                raise

    def _stream(
        self, pipe: Pipe, messages: Iterable[Message], replicas: int
    ) -> Iterator[Receipt | PacelineError]:
        under_way: deque[_Piece] = deque()
        for piece in _pieces(messages):
            if isinstance(piece, Exception):
                while under_way:
                    yield from self._answers(pipe, under_way.popleft())
                raise piece
            under_way.append(self._put(pipe, piece, replicas))
            if len(under_way) > AHEAD:
                yield from self._answers(pipe, under_way.popleft())
        while under_way:
            yield from self._answers(pipe, under_way.popleft())

    @staticmethod
    def message(destination: str, payload: object, **options: Any) -> Message:
        """A checked message for ``send_many``; arguments and errors as for ``send``."""
        return build(destination, payload, now=time.time(), **options)

    def status(self, destination: str, message_id: str) -> Status:
        """What became of a message. Raises UnknownMessage, UnknownDestination, RedisUnavailable."""
        return self._status(destination, message_id, history=True)

    def wait(self, destination: str, message_id: str, timeout_s: float | None = None) -> Status:
        """Blocks until the message has ended, is dead or parked. Raises TimeoutError, and as
        ``status``.

        Where the destination writes events it wakes with the event; all waiters of a destination
        share one blocked read. Else, and where the events that would tell are not all written, it
        polls.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with translated(), self._looks:
            kinds = self._store(destination).event_kinds()
        if not kinds:
            return self._wait(destination, message_id, end, None, _POLL_MOST_S)
        watch = self._watch(destination)
        with translated(), watch.bell(check_id(message_id)) as bell:
            most_s = _LOOK_AGAIN_S if kinds >= ENDS | RESTS else _POLL_MOST_S
            return self._wait(destination, message_id, end, (watch, bell), most_s)

    def _wait(
        self,
        destination: str,
        message_id: str,
        end: float | None,
        watched: tuple[EventWatch, threading.Event] | None,
        most_s: float,
    ) -> Status:
        """Looks, again whenever the bell rings, and from time to time, at longest every ``most_s``
        (an event may have been lost)."""
        pause = most_s if watched and most_s > _POLL_MOST_S else _POLL_FIRST_S
        while True:
            with self._looks:
                status = self._status(destination, message_id, history=False)
                if status.final or status.state in ("dead", "parked"):
                    return self._status(destination, message_id, history=True)
            if watched and watched[0].refused:
                watched, pause, most_s = None, _POLL_FIRST_S, _POLL_MOST_S
            left = pause if end is None else end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"message {message_id!r} is still {status.state}")
            if watched:
                watched[1].wait(min(pause, left))
                watched[1].clear()
            else:
                time.sleep(min(pause, left))
            pause = min(pause * 1.5, most_s)

    def events(
        self,
        destination: str,
        group: str | None = None,
        *,
        consumer: str | None = None,
        start: str | None = None,
        kinds: Collection[str] | None = None,
        block_s: float | None = None,
        claim_after_s: float = 60.0,
    ) -> Iterator[Event]:
        """What happens to the destination's messages, one event after the other, in their order.

        Without ``group`` everything from ``start`` on: ``"now"`` (as of this call; the default),
        ``"first"`` (all that is kept) or the ``entry`` of an event (what comes after it).

        With ``group`` its share: consumers of one group divide the events among them. A new group
        begins at ``start`` (here ``"first"`` is the default). An event is acknowledged when the
        next is asked for, so each is handled at least once: leave the loop without asking, or die,
        and it is given again, to this ``consumer`` at once, to another after ``claim_after_s``.
        ``consumer`` is a name of its own for each (by default host and process). Only whole entries
        are acknowledged: of many messages that have one in common, all come again.

        ``kinds``: these only. Ends when for ``block_s`` seconds nothing came (0: when all that is
        there was read); never, where it is None. One thread an iterator. Raises UnknownDestination,
        NotPossible where events are off, InvalidMessage for a wrong ``start``, RedisUnavailable.
        """
        store = self._store(destination)
        with translated():
            if not store.event_kinds():
                raise NotPossible(
                    "reading events",
                    f"destination {destination} writes none",
                    f'Configure [destinations.{destination}.events] kinds = "all"',
                )
            if group is None:
                after = position_of(self._client, destination, start or "now")
                return translating(read_alone(self._client, destination, after, block_s, kinds))
            name = consumer or f"{socket.gethostname()}-{os.getpid()}"
            reader = GroupReader(self._client, destination, group, name, claim_after_s)
            reader.create(position_of(self._client, destination, start or "first"))
        return translating(reader.read(block_s, kinds))

    def cancel(self, destination: str, message_id: str, *, timeout_s: float = 2.0) -> bool:
        """True: it will not be sent. False: it has begun and may be on the wire; it is not tried
        again should this attempt fail. Raises UnknownMessage, NotPossible when it has ended, is
        dead or parked; UnknownDestination, RedisUnavailable.

        For a user of the role ``app`` a daemon does it, in some milliseconds. Where none answers
        within ``timeout_s``, TimeoutError: it stays asked for, and is done when one runs.
        """
        store = self._store(destination)
        try:
            with translated():
                word = wishes.cancel(store, check_id(message_id), timeout_s)
        except UnknownDestination:
            raise UnknownDestination(destination, self.destinations()) from None
        if word == "unknown":
            raise UnknownMessage(destination, message_id)
        if word in ("ended", "dead", "parked"):
            found = self.status(destination, message_id)
            mend = "Drop it instead" if word in ("dead", "parked") else ""
            if found.state == "moved":
                mend = f"Cancel it in {found.provider_id}, which has it now"
            raise NotPossible("cancel", f"message {message_id!r} is {found.state}", mend)
        return word == "cancelled"

    def campaign(self, destination: str, name: str) -> Campaign:
        """Where a campaign's messages are, what became of the others, and when it will be done.
        Looks at each live message, some 50,000 a second. Of one that nothing is known of
        (``known``) all figures are 0. Raises InvalidMessage for what cannot be a name,
        UnknownDestination, RedisUnavailable."""
        store = self._known_store(destination)
        with translated():
            return campaign_desk.look(store, check_label("campaign", name))

    def cancel_campaign(self, destination: str, name: str) -> dict[str, int]:
        """Cancels all of its messages that have not begun. How many by word: ``cancelled``; and of
        those that are left ``begun`` (may be on the wire; not tried again), ``dead``, ``parked``.
        Raises as ``campaign``; may be repeated, after RedisUnavailable too."""
        store = self._known_store(destination)
        with translated():
            return campaign_desk.cancel(store, check_label("campaign", name))

    def destinations(self) -> list[str]:
        """The names of all destinations known here."""
        with translated():
            return known_destinations(self._client)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- within -----------------------------------------------------------------------------

    def _put(self, pipe: Pipe, messages: Sequence[Message], replicas: int) -> _Piece:
        """Checks a piece and writes what is good of it, one command a destination."""
        piece = _Piece([None] * len(messages), [], {}, replicas)
        good: dict[str, list[int]] = {}
        for place, message in enumerate(messages):
            try:
                provider, limit = self._profile_of(message.destination)
                payloads.check(
                    provider, message.payload, max_payload_bytes=limit, message_id=message.id
                )
                if advice := payloads.advise(provider, message.payload):
                    piece.warnings[place] = advice
            except RedisUnavailable:
                raise
            except PacelineError as error:
                piece.answers[place] = error
            else:
                good.setdefault(message.destination, []).append(place)
        for destination, places in good.items():
            store, its = self._store(destination), [messages[place] for place in places]
            fence = store.fence_commands(replicas, self._replica_timeout_s) if replicas else ()
            with translated():
                pipe.put(store.enqueue_command(its), *fence)
            piece.calls.append((store, places, its))
        return piece

    @staticmethod
    def _answers(pipe: Pipe, piece: _Piece) -> Iterator[Receipt | PacelineError]:
        """Reads the replies to a piece; the answers are in the order of its messages."""
        answers, warnings = piece.answers, piece.warnings
        for store, places, messages in piece.calls:
            with translated():
                reply, *fence = pipe.take() if piece.replicas else [pipe.take()]
                words = store.enqueue_answers(reply, messages)
                # What was handed over only after the library had been loaded came behind the fence.
                behind = is_missing_function(reply)
                found = store.fenced(fence) if fence and not behind else 0
            for place, message, word in zip(places, messages, words, strict=True):
                if not isinstance(word, str):
                    answers[place] = word
                elif found < piece.replicas:
                    answers[place] = NotReplicated(
                        message.destination, message.id, piece.replicas, found, word
                    )
                else:
                    answers[place] = Receipt(message.id, word, warnings.get(place, ()))
        return (answer for answer in answers if answer is not None)

    def _profile_of(self, destination: str) -> tuple[str, int | None]:
        """(provider, payload limit) of a destination, from its shared configuration; looked up
        again every few seconds, for daemons may be restarted with another."""
        now = time.monotonic()
        known = self._options.get(destination)
        if known is None or now - known[0] > _OPTIONS_TTL_S:
            with translated():
                provider, limit = self._store(destination).intake_rules()
            if provider is None:
                raise UnknownDestination(destination, self.destinations())
            known = (now, provider, limit)
            self._options[destination] = known
        return known[1], known[2]

    def _watch(self, destination: str) -> EventWatch:
        with self._lock:
            watch = self._watches.get(destination)
            if watch is None:
                watch = self._watches[destination] = EventWatch(self._client, destination)
            return watch

    def _store(self, destination: str) -> OutboxStore:
        store = self._stores.get(destination)
        if store is None:
            store = self._stores[destination] = OutboxStore(self._client, check_name(destination))
        return store

    def _known_store(self, destination: str) -> OutboxStore:
        store = self._store(destination)
        with translated():
            if store.intake_rules()[0] is None:
                raise UnknownDestination(destination, self.destinations())
        return store

    def _status(self, destination: str, message_id: str, *, history: bool) -> Status:
        store = self._store(destination)
        with translated():
            found = status_of(store, check_id(message_id), history=history)
            if found is None:
                if store.intake_rules()[0] is None:
                    raise UnknownDestination(destination, self.destinations())
                raise UnknownMessage(destination, message_id)
        return found


@dataclass(frozen=True, slots=True)
class _Piece:
    """``answers`` by place, None where not known yet; ``calls`` under way: whose, places, what;
    ``warnings`` by place, where there are any; ``replicas`` that are to have it, 0 for none."""

    answers: list[Receipt | PacelineError | None]
    calls: list[tuple[OutboxStore, list[int], list[Message]]]
    warnings: dict[int, tuple[str, ...]]
    replicas: int


def _pieces(messages: Iterable[Message]) -> Iterator[list[Message] | Exception]:
    """Pieces of at most PIPELINE messages and about PIPELINE_BYTES. What ``messages`` raises comes
    last: the answers that are due by then must not be lost."""
    part: list[Message] = []
    size = 0
    try:
        for message in messages:
            if part and size + len(message.payload) > PIPELINE_BYTES:
                yield part
                part, size = [], 0
            part.append(message)
            size += len(message.payload)
            if len(part) == PIPELINE:
                yield part
                part, size = [], 0
    except Exception as error:  # noqa: BLE001 - raised by who asked for the pieces
        if part:
            yield part
        yield error
        return
    if part:
        yield part
