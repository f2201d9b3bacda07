"""The outbox: the only code, with its scripts, that writes Paceline's Redis keys.

``audit.py`` and ``shelf.py`` read them too, in bulk, beside it.

The way of a message (docs/states.md draws it)::

    enqueue -> ready | scheduled
    promote    scheduled, due -> ready
    release    an invitation: "some worker, take up to n"
    take       ready -> leased, under a nonce
    begin      the gate: one permit drawn, the message marked begun
    settle     leased -> sent | scheduled | dead | parked | back to its place
    reap       lease run out: begun -> ambiguous, not begun -> back to its place

One script a transition (``lua/``); this file gives them names, types and errors. Nothing here
repeats a command: each method says whether its caller may. Redis errors pass through as redis-py
raises them; refusals of the scripts become PacelineError.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from paceline import intake, keys, merged, scripts
from paceline.answers import (
    Invitation,
    Leased,
    Permit,
    RateInForce,
    Released,
    Settlement,
    Share,
    Taken,
)
from paceline.census import END_TERMS, IN_TERMS, Census, decode_census
from paceline.errors import PacelineError, UnknownDestination
from paceline.event_batches import Forwarding, forwarding_of
from paceline.events import kinds_in_force
from paceline.leases import is_held, leased_of, permit_of, settle_arguments
from paceline.message import Message
from paceline.names import INVITATION_LEASE_S, Lane
from paceline.records import Ended, Live, decode

#: Payloads are fetched in pieces of at most this many bytes, so that one reply stays small.
FETCH_BYTES = 4 * 1024 * 1024
FOREVER = -1
#: Messages in one reply, and what one is taken to have where nothing is known.
_MOST_IN_PIECE, _UNKNOWN_BYTES = 1000, 8192
PRIORITY_DIGITS = {"high": "0", "normal": "1", "bulk": "2"}


class OutboxStore:
    """All transitions of one destination.

    ``client`` must hand out bytes and not repeat commands. ``now_us`` injects the scripts' clock
    in tests; None means Redis TIME.
    """

    def __init__(
        self,
        client: redis.Redis,
        destination: str,
        now_us: Callable[[], int] | None = None,
    ) -> None:
        self.client = client
        self.destination = destination
        self.tag = keys.tag(destination)
        self._message_key = keys.message(destination, "")
        self._now_us = now_us

    def clock_text(self) -> str:
        """The time that scripts are given: "" for Redis's own."""
        return "" if self._now_us is None else str(self._now_us())

    def _run(self, name: str, *arguments: scripts.Argument) -> Any:
        return scripts.run(self.client, name, self.tag, (self.clock_text(), *arguments))

    # -- intake -----------------------------------------------------------------------------

    def enqueue(self, message: Message) -> Literal["new", "already"]:
        """new -> ready or scheduled. May be repeated with the same message. Raises InvalidMessage,
        MessageTooLarge, UnknownDestination, DuplicateConflict, OutboxFull, Draining."""
        reply = self.enqueue_many([message])[0]
        if isinstance(reply, PacelineError):
            raise reply
        return reply

    def enqueue_many(self, messages: Sequence[Message]) -> list[intake.Answer]:
        """One answer a message, in order. A refused one is its error, and does not hinder the
        others. May be repeated. Raises RedisError when the call as a whole failed: then some may
        have been accepted."""
        found: list[intake.Answer] = []
        for at in range(0, len(messages), intake.BULK):
            piece = messages[at : at + intake.BULK]
            [reply] = self._send([self.enqueue_command(piece)])
            found += self.enqueue_answers(reply, piece)
        return found

    def enqueue_command(self, messages: Sequence[Message]) -> intake.Command:
        """The command that hands over at most BULK messages, for who sends it himself."""
        return intake.command(self.tag, messages, self.clock_text())

    def enqueue_answers(self, reply: Any, messages: Sequence[Message]) -> list[intake.Answer]:
        """What that command's reply says, as ``enqueue_many``. Where the library there is missing
        or older, ours is loaded, and the messages are handed over here."""
        found = intake.answers(reply, messages)
        return self._enqueue_anyhow(messages) if found is None else found

    def fence_commands(self, replicas: int, timeout_s: float) -> tuple[intake.Command, ...]:
        """To be sent behind ``enqueue_command`` in one write, on one connection: their replies tell
        whether the replicas have it (``is_fenced``).

        WAIT speaks of what its own connection wrote last, and answers for one that wrote nothing as
        if all were there. An enqueue that is repeated may write nothing: so a write of ours goes
        before it.
        """
        count = ("HINCRBY", self._key("n"), "fences", 1)
        return count, ("WAIT", replicas, round(timeout_s * 1e3))

    @staticmethod
    def fenced(replies: Sequence[Any]) -> int:
        """How many replicas have what was written before these replies; 0 where nobody can tell.
        Raises WAIT's own error."""
        counted, waited = replies
        if isinstance(waited, ResponseError):
            raise waited
        return 0 if isinstance(counted, ResponseError) else int(waited)

    def _enqueue_anyhow(self, messages: Sequence[Message]) -> list[intake.Answer]:
        refused: ResponseError | None = None
        try:
            scripts.load_library(self.client)
        except ResponseError as error:  # not allowed: who may, the daemon, has not done it yet
            refused = error
        [reply] = self._send([self.enqueue_command(messages)])
        found = intake.answers(reply, messages)
        if found is not None:
            return found
        replies = self._send_together(messages) or self._send(
            [intake.singly(self.tag, message, self.clock_text()) for message in messages]
        )
        if refused is not None and any(intake.is_missing_function(reply) for reply in replies):
            raise refused
        return [intake.answer(r, message) for r, message in zip(replies, messages, strict=True)]

    def _send_together(self, messages: Sequence[Message]) -> list[Any]:
        """By the function of the library before ours; empty where there is none."""
        most = intake.TOGETHER
        pieces = [messages[at : at + most] for at in range(0, len(messages), most)]
        replies = self._send(
            [intake.together(self.tag, piece, self.clock_text()) for piece in pieces]
        )
        if any(intake.is_missing_function(reply) for reply in replies):
            return []
        found: list[Any] = []
        for reply, piece in zip(replies, pieces, strict=True):
            found += [reply] * len(piece) if isinstance(reply, ResponseError) else reply
        return found

    def _send(self, commands: Sequence[intake.Command]) -> list[Any]:
        """In one write; error replies are in their places."""
        pipe: Any = self.client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        replies: list[Any] = pipe.execute(raise_on_error=False)
        return replies

    def daemon_left(self, daemon: str) -> None:
        """A daemon ended in order: it counts as live no more. May be repeated."""
        self.client.zrem(self._key("daemons"), daemon)

    # -- the scheduler's side ---------------------------------------------------------------

    def release(self, lane: Lane, largest: int, lease_s: float, invitation: str = "") -> Released:
        """One invitation into the window. Repeated with the same id it releases once."""
        count, why, retry_us = self._run("release", lane, invitation, largest, _us(lease_s))
        return Released(int(count), _text(why), int(retry_us) / 1e6)

    def promote(self, most: int = 500) -> tuple[int, float | None]:
        """scheduled, due -> ready. Returns (promoted, seconds until the next is due or None)."""
        count, next_us = self._run("promote", most)
        return int(count), None if int(next_us) < 0 else int(next_us) / 1e6

    def expire(self, most: int = 500) -> int:
        """Ready or scheduled with an expiry that has come -> expired. Returns how many."""
        return int(self._run("expire", most))

    def sweep(self, most: int = 5) -> int:
        """The records of merged requests whose window is over go, of so many requests at most.
        Returns how many records went."""
        return int(self._run("sweep", most))

    def press(
        self,
        word: Literal["open", "shut", "keep"],
        holds_s: float,
        retry_s: int,
        why: str,
        limits: tuple[int, int, int, int] | None,
    ) -> bool:
        """What intake is to go by: whether Redis has memory (see ``lua/press.lua``), and the limits
        of all destinations together: (messages, bytes, messages of the others, bytes of the
        others). Returns whether intake is shut now."""
        in_all = "" if limits is None else " ".join(map(str, limits))
        return bool(self._run("press", word, _us(holds_s), retry_s, why, in_all))

    def reap(self, run_id: str, daemon: str, most: int = 500) -> tuple[str, int, int]:
        """("terms", batches given a full term, 0) or ("reaped", back to place, ambiguous)."""
        reply = self._run("reap", run_id, daemon, most)
        numbers = [int(n) for n in reply[1:]] + [0]
        return _text(reply[0]), numbers[0], numbers[1]

    def totals(self) -> tuple[int, int]:
        """(accepted, sent) from the beginning: they never fall, unless Redis loses data."""
        values: Any = self.client.hmget(self._key("n"), ["accepted", "sent"])
        return int(values[0] or 0), int(values[1] or 0)

    def lose(self, run_id: str, accepted: int, sent: int) -> tuple[int, int]:
        """Redis has less than these totals, which were seen before. Counts what is missing, once
        for each run of Redis; returns (accepted, sent) forgotten, at least."""
        reply = self._run("loss", run_id, accepted, sent)
        return int(reply[0]), int(reply[1])

    def wait_for_work(self, timeout_s: float) -> bool:
        """Blocks until an idle destination got a message, or the time is over."""
        return (
            self.client.blpop([keys.key(self.destination, "wake")], timeout=timeout_s) is not None
        )

    # -- the fall-back -----------------------------------------------------------------------

    def lean(
        self, to: str, seen: int, wanted: int, apart_s: float, *, loud: bool
    ) -> tuple[int, bool]:
        """The share of the flow that goes to ``to``, in points of 100: from the one seen to the one
        wanted, where ``apart_s`` have passed since the last change. ``loud`` notes that there is
        trouble now. Returns (share in force, whether it was changed here)."""
        share, changed = self._run("lean", to, seen, wanted, _us(apart_s), int(loud))
        return int(share), bool(changed)

    def move(self, to: str, most: int = 100) -> tuple[int, str]:
        """ready -> ready in ``to``, by the share. May be repeated. Returns (how many moved, why no
        more: a word of ``lua/move.lua``)."""
        moved, why = scripts.run(
            self.client, "move", self.tag, (self.clock_text(), most), (keys.tag(to),)
        )
        return int(moved), _text(why)

    # -- the forwarding of events -----------------------------------------------------------

    def forward_look(self) -> Forwarding:
        """How far the forwarding of events is."""
        return forwarding_of(self._run("forward", "look"))

    def forward_plan(self, cursor: int, by: str, ends: Sequence[int], gap: int) -> Forwarding:
        """Plans batches that end there, where the cursor is still the one seen and nothing is
        planned; ``gap``: how many up to the first end had been trimmed away. Returns how it stands
        now, which may be another's plan."""
        text = " ".join(map(str, ends))
        return forwarding_of(self._run("forward", "plan", cursor, by, text, gap))

    def forward_done(self, cursor: int, upto: int, entry: str, missed: int) -> Forwarding:
        """The planned batches up to that end are enqueued; nothing where the cursor is not the one
        seen any more. ``entry`` holds the last of them; ``missed`` had been trimmed away."""
        return forwarding_of(self._run("forward", "done", cursor, upto, entry, missed))

    # -- the worker's side ------------------------------------------------------------------

    def unanswered(self, age_s: float) -> Invitation | None:
        """An invitation that was released at least so long ago, and nobody has answered."""
        reply = self._run("unanswered", _us(age_s), _us(INVITATION_LEASE_S))
        if not reply:
            return None
        lane: Lane = "high" if _text(reply[1]) == "high" else "any"
        return Invitation(_text(reply[0]), lane, int(reply[2]))

    def take(self, worker: str, nonce: str, count: int, lane: Lane, invitation: str = "") -> Taken:
        """ready -> leased. Repeated with the same nonce it returns the same batch."""
        reply = self._run("take", worker, nonce, count, lane, invitation)
        status = _text(reply[0])
        if status == "unread":
            return Taken("batch", nonce, dict.fromkeys([_text(i) for i in reply[1:]], 0))
        if status == "closed":
            status = _text(reply[1])
        sizes = {}
        if status == "batch":
            sizes = {_text(i): int(n) for i, n in zip(reply[1::2], reply[2::2], strict=True)}
        return Taken(status, nonce, sizes)

    def fetch(self, taken: Taken) -> Iterator[Leased]:
        """The payloads of a batch, in order, at most FETCH_BYTES in one reply. A message that left
        the batch meanwhile is passed over."""
        for values in self.fetch_values(taken):
            for message_id, value in values:
                leased = leased_of(message_id, taken.nonce, value)
                if leased is not None:
                    yield leased

    def fetch_values(self, taken: Taken) -> Iterator[Sequence[tuple[str, bytes | None]]]:
        """The strings of a batch as they are in Redis, piece by piece, in order (``leased_of``)."""
        ids = list(taken.sizes)
        # Where sizes are not known, what was seen tells how many are safe to ask for.
        largest = max(max(taken.sizes.values(), default=0), _UNKNOWN_BYTES)
        at = 0
        while at < len(ids):
            upto, size = at, 0
            while upto < len(ids) and upto - at < _MOST_IN_PIECE:
                # A merged request is large, and a reply with one of them is enough.
                known = FETCH_BYTES if merged.is_request(ids[upto]) else largest
                size += taken.sizes[ids[upto]] or known
                if size > FETCH_BYTES and upto > at:
                    break
                upto += 1
            piece = ids[at:upto]
            values: list[Any] = self.client.mget([self._message_key + i for i in piece])
            largest = max(largest, max((len(v) for v in values if v), default=0))
            yield list(zip(piece, values, strict=True))
            at = upto

    def freeze(
        self,
        worker: str,
        request_id: str,
        body: bytes,
        members: Sequence[merged.Member],
        *,
        priority: str,
        tenant: str = "",
        campaign: str = "",
        batches: Mapping[str, int] = MappingProxyType({}),
    ) -> set[str] | None:
        """Messages that this worker holds -> one merged request, held by it under a lease of its
        own, whose nonce is its id (16 characters). ``body`` is kept until it settles. All members
        are of one ``priority``, ``tenant`` and ``campaign``. ``batches``: how many were taken under
        each nonce, where that is known: a batch that goes in whole costs less. May be repeated.

        Returns None, or the ids that are not this worker's any more: then nothing was frozen.
        """
        packed = merged.pack(members, batches)
        reply = self._run(
            "freeze", worker, request_id, body, PRIORITY_DIGITS[priority], tenant, packed.tries,
            packed.place, packed.expires, packed.count, packed.head,
            int(packed.held), campaign, *packed.members,
        )  # fmt: skip
        return None if _text(reply[0]) == "frozen" else {_text(i) for i in reply[1:]}

    def members(self, request_id: str) -> list[str]:
        """The ids in a merged request, in the order of its body; for a while after it was taken
        apart too. [] where there is none."""
        kept: Any = self.client.get(self._key(f"qm:{request_id}"))
        return list(merged.unpack(kept)) if kept else []

    def fetch_members(self, request_id: str, nonce: str) -> list[tuple[str, bytes]]:
        """The strings of those of a merged request that was taken apart, as they are held under
        ``nonce`` now."""
        ids = self.members(request_id)
        pieces = self.fetch_values(Taken("batch", nonce, dict.fromkeys(ids, 0)))
        return [(i, value) for piece in pieces for i, value in piece if is_held(value, nonce)]

    def begin(self, gate: scripts.Pinned, message_id: str, nonce: str, size: int = 0) -> Permit:
        """The gate at the wire, for a request of ``size`` bytes. May be repeated: a permit more is
        drawn, nothing else."""
        _, permits = self.turn(gate, [], [(message_id, nonce, size)])
        if isinstance(permits, ResponseError):
            raise permits
        return permits[0]

    def turn(
        self,
        gate: scripts.Pinned,
        settlements: Sequence[Settlement],
        asks: Sequence[tuple[str, str, int]],
    ) -> tuple[list[str] | ResponseError, list[Permit] | ResponseError]:
        """``settle``, and then ``begin`` for each (id, nonce, bytes of the request), in one round
        trip.

        May be repeated, as each of them may. Either may be refused without the other. Raises
        ConnectionError and TimeoutError: then either may have been carried out.
        """
        run_id = gate.ready()
        calls: list[tuple[str, list[scripts.Argument]]] = []
        if settlements:
            calls.append(("settle", [self.clock_text(), *settle_arguments(settlements)]))
        if asks:
            flat = [part for ask in asks for part in ask]
            calls.append(("begin", [self.clock_text(), run_id, *flat]))
        replies = scripts.run_together(gate, self.tag, calls)
        words: list[str] | ResponseError = []
        permits: list[Permit] | ResponseError = []
        if settlements:
            reply = replies[0]
            words = reply if isinstance(reply, ResponseError) else [_text(word) for word in reply]
        if asks:
            reply = replies[-1]
            permits = (
                reply if isinstance(reply, ResponseError) else [permit_of(one) for one in reply]
            )
        return words, permits

    def settle(self, settlements: Sequence[Settlement]) -> list[str]:
        """leased -> where each outcome says. May be repeated: then nothing moves. One word each:
        ok, repeat, late, won, duplicate, gone, recalled."""
        return [_text(word) for word in self._run("settle", *settle_arguments(settlements))]

    def renew(self, nonces: Sequence[str]) -> set[str]:
        """Extends the leases of these batches; returns those that are no longer leased."""
        return {_text(nonce) for nonce in self._run("renew", *nonces)}

    def slots(
        self,
        op: Literal["beat", "leave", "bury"],
        worker: str,
        open_connections: int = 0,
        facts: Mapping[str, Any] | None = None,
    ) -> Share:
        """A worker's heartbeat or farewell, and its share of the connections."""
        mine, live, bucket, rate = self._run(
            "slots", op, worker, open_connections, json.dumps(facts or {})
        )
        return Share(int(mine), int(live), int(bucket), float(rate))

    def bury_lapsed(self, worker: str) -> bool:
        """Buries a worker that has been silent; False where it lives again."""
        return bool(self._run("slots", "bury_lapsed", worker, 0, "{}"))

    # -- operators --------------------------------------------------------------------------

    def cancel(self, ids: Sequence[str]) -> list[str]:
        """cancelled, begun (flagged), ended, dead, parked or unknown, one an id."""
        return self._words("cancel", ids)

    def ask_to_cancel(self, message_id: str) -> str:
        """As ``cancel``, one id, by the function, for users who may not run scripts. Besides
        "already", where it was cancelled before, and "asked", where a daemon will do it: ask again.
        May be repeated. Raises UnknownDestination."""
        caller: scripts.Caller = self.client
        call = ("FCALL", "paceline_cancel", 1, self.tag, message_id, self.clock_text())
        try:
            return _text(caller.execute_command(*call))
        except ResponseError as error:
            if str(error).startswith("PLUNKNOWN "):
                raise UnknownDestination(self.destination) from error
            if not intake.is_missing_function(error):
                raise
        try:
            scripts.load_library(self.client)
        except (NoPermissionError, OutOfMemoryError):
            # An older daemon's library, or a Redis too full for ours: who may do without it may.
            return self.cancel([message_id])[0]
        return _text(caller.execute_command(*call))

    def replay(self, ids: Sequence[str]) -> list[str]:
        """Dead or parked -> ready: ready, expired, not-dead or unknown, one an id."""
        return self._words("replay", ids)

    def drop(self, ids: Sequence[str]) -> list[str]:
        """Dead or parked -> dropped: dropped, not-dead or unknown, one an id."""
        return self._words("drop", ids)

    def attest(self, ids: Sequence[str]) -> list[str]:
        """Parked -> sent: sent, not-parked or unknown, one an id."""
        return self._words("attest", ids)

    def pause_campaign(self, campaign: str, *, why: str = "", who: str = "") -> tuple[bool, int]:
        """Nothing new of it begins from now on; what waits follows in steps (``walk_campaigns``).
        Returns (whether it was not paused before, live messages)."""
        return self._hand_on(campaign, "pause", why, who)

    def resume_campaign(self, campaign: str, *, who: str = "") -> tuple[bool, int]:
        """What waits returns to its places, in steps (``walk_campaigns``). Returns (whether it was
        paused, live messages)."""
        return self._hand_on(campaign, "resume", "", who)

    def _hand_on(self, campaign: str, op: str, why: str, who: str) -> tuple[bool, int]:
        changed, live = self._run("campaign", op, campaign, why, who)
        return bool(changed), int(live)

    def walk_campaigns(self, most: int = 200) -> tuple[int, int]:
        """One step of what pausing and resuming began; the scheduler does the same. Returns
        (messages looked at, campaigns that are still under way)."""
        looked, left = self._run("campaign", "walk", most)
        return int(looked), int(left)

    def cancel_of_campaign(self, campaign: str, ids: Sequence[str]) -> list[str]:
        """As ``cancel``, those of the campaign; "other" for one that is not of it."""
        return [_text(word) for word in self._run("cancel_campaign", campaign, *ids)] if ids else []

    def survey(self, campaign: str, ids: Sequence[str]) -> dict[str, int]:
        """How many of these messages of a campaign are in which state (``lua/survey.lua``)."""
        flat = scripts.run(self.client, "survey", self.tag, (campaign, *ids))
        return {_text(name): int(n) for name, n in zip(flat[::2], flat[1::2], strict=True)}

    def is_held_back(self, message_id: str) -> bool:
        """Whether a scheduled message waits with its campaign, which is paused."""
        return self.client.zscore(self._key("s"), message_id) == math.inf

    def _words(self, script: str, ids: Sequence[str]) -> list[str]:
        return [_text(word) for word in self._run(script, *ids)] if ids else []

    def purge(self, most: int = 500) -> int:
        """Ready and scheduled -> dropped, up to ``most``. Returns how many."""
        return int(self._run("purge", most))

    def hold(
        self,
        op: Literal["pause", "hold", "drain", "resume"],
        *,
        for_s: float | None = None,
        why: str = "",
        who: str = "",
    ) -> list[str]:
        """An operator's hand on the gate; ``for_s`` None means until resumed."""
        until = FOREVER if for_s is None else self.redis_now_us() + _us(for_s)
        return [_text(word) for word in self._run("hold", op, until, why, who)]

    def set_rate(self, rate: float | None, *, why: str = "", who: str = "") -> RateInForce:
        """Sets the rate live, requests/s; None: back to the configured one."""
        text = "" if rate is None else repr(float(rate))
        configured, now, pace = (_text(part) for part in self._run("rate", text, why, who))
        return RateInForce(float(configured), float(now), float(pace) if pace else None)

    def hands(self) -> list[dict[str, Any]]:
        """What operators did, newest first: the last hundred."""
        return [json.loads(item) for item in self.client.lrange(self._key("hand"), 0, -1)]

    def publish_config(
        self, digest: str, public: Mapping[str, Any], numbers: Mapping[str, int | float | str],
        *, force: bool = False, keep: bool = False,
    ) -> tuple[str, int, str]:  # fmt: skip
        """("published" | "same" | "differs", version, JSON in force where it differs).

        ``force``: in any case. ``keep``: only where there is none.
        """
        flat = [item for pair in numbers.items() for item in pair]
        mode = "keep" if keep else int(force)
        reply = self._run("config", digest, json.dumps(public), mode, *flat)
        scripts.run(self.client, "announce", keys.DESTINATIONS, [self.destination])
        return _text(reply[0]), int(reply[1]), _text(reply[2]) if len(reply) > 2 else ""

    def config_in_force(self) -> tuple[str, str]:
        """(digest, JSON) of the shared configuration; ("", "") where there is none."""
        digest, public = self.client.hmget(self._key("cfg"), "digest", "json")
        return ("", "") if digest is None else (_text(digest), _text(public))

    def intake_rules(self) -> tuple[str | None, int | None]:
        """(provider, largest payload in bytes) as configured; (None, None) where it is not."""
        public, limit = self.client.hmget(self._key("cfg"), "json", "max_payload")
        if public is None or limit is None:
            return None, None
        return str(json.loads(public)["provider"]), int(limit)

    def redacted(self) -> tuple[str, ...]:
        """The pointers to fields of payloads that nobody is shown."""
        _, public = self.config_in_force()
        return tuple(json.loads(public).get("redact", ())) if public else ()

    def event_kinds(self) -> frozenset[str]:
        """The kinds of events that are written; none where they are off. Raises UnknownDestination
        where the destination is not configured."""
        digest, numbers = self.client.hmget(self._key("cfg"), "digest", "events")
        if digest is None:
            raise UnknownDestination(self.destination, known_destinations(self.client))
        return kinds_in_force(_text(numbers or b""))

    # -- looking ----------------------------------------------------------------------------

    def redis_now_us(self) -> int:
        """The scripts' clock."""
        if self._now_us is not None:
            return self._now_us()
        seconds, micros = self.client.time()
        return int(seconds) * 1_000_000 + int(micros)

    def census(self) -> Census:
        """Everything countable, at one instant."""
        return decode_census(self.destination, self._run("census"))

    def look(self, ids: Sequence[str]) -> list[tuple[Live | Ended, int, bool, str] | None]:
        """For each id: (its head, payload bytes, in its container, worker holding it), or None."""
        replies = scripts.run_reading(self.client, "inspect", self.tag, list(ids))
        found: list[tuple[Live | Ended, int, bool, str] | None] = []
        for reply in replies:
            if isinstance(reply, (bytes, str)):
                found.append(None)
            elif len(reply) == 1:
                found.append((decode(reply[0]), 0, True, ""))
            else:
                found.append((decode(reply[0]), int(reply[1]), int(reply[2]) == 1, _text(reply[3])))
        return found

    def payload(self, message_id: str) -> bytes | None:
        """The payload of a live message, as it came in."""
        value: Any = self.client.get(keys.message(self.destination, message_id))
        head = decode(value) if value else None
        return value[head.body_from :] if isinstance(head, Live) else None

    def attempts(self, message_id: str) -> list[dict[str, Any]]:
        """The last ten attempts on record, oldest first."""
        found = self.client.lrange(keys.attempts(self.destination, message_id), 0, -1)
        return [json.loads(item) for item in found]

    def all_ids(self) -> Iterator[str]:
        """Every id with a message or record, in no order; one added meanwhile may be missed."""
        prefix = keys.message(self.destination, "")
        pattern = prefix.replace("[", "\\[") + "*"
        for name in self.client.scan_iter(match=pattern, count=1000):
            yield _text(name)[len(prefix) :]

    def _key(self, name: str) -> str:
        return keys.key(self.destination, name)


def new_nonce() -> str:
    """A batch's fencing token: 64 random bits, 16 characters. Only equality is ever asked of it."""
    return secrets.token_hex(8)


def known_destinations(client: redis.Redis) -> list[str]:
    """The names of all destinations ever published on this Redis."""
    return sorted(_text(name) for name in client.smembers(keys.DESTINATIONS))


def held_by_all(client: redis.Redis) -> dict[str, tuple[int, int]]:
    """Of each destination of this Redis: how many messages have not ended, and their bytes; (0, 0)
    where somebody overwrote its counters. Raises RedisError."""
    names = known_destinations(client)
    pipe: Any = client.pipeline(transaction=False)
    for name in names:
        pipe.hmget(keys.key(name, "n"), *IN_TERMS, *END_TERMS, "bytes")
    found = {}
    for name, values in zip(names, pipe.execute(raise_on_error=False), strict=True):
        if isinstance(values, NoPermissionError):
            raise values
        if isinstance(values, ResponseError):
            values = []
        n = [int(v) if v and v.lstrip(b"-").isdigit() else 0 for v in values] or [0] * 8
        ins = len(IN_TERMS)
        found[name] = (sum(n[:ins]) - sum(n[ins:-1]), n[-1])
    return found


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
