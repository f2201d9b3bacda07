"""Merging: between what was taken and the sender, messages become requests.

A batch is sorted into groups (grouping.py). A group that is complete is **frozen**: its body is
built, and Redis keeps it with its members until it settles (``lua/freeze.lua``); from then on it
goes its way like a message, with an id of its own. A group that stays alone goes as the message it
is.

What may go wrong between: a member was cancelled or has expired meanwhile, then Redis names it and
the body is built without it; this process dies, then the leases run out and all of them go back to
their places. Nothing has been sent before the request is frozen.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import redis.exceptions

from paceline.answers import Leased, Taken, frozen
from paceline.clock import Clock
from paceline.errors import PayloadError
from paceline.leases import leased_of
from paceline.merged import Member, is_request
from paceline.outbox import OutboxStore, new_nonce
from paceline.records import PRIORITIES
from paceline.settings import Merge
from paceline_workers.grouping import Group, Grouping, Likeness
from paceline_workers.outage import Outage
from paceline_workers.providers.base import Merging, Portion

_HIGH = b"0"
#: Of a message's string (records.py).
_HEAD_BYTES = 60
_AS_TAKEN = (b"PR", b"PL")
_MOMENTS, _MOMENTS_AT, _NEVER_US = struct.Struct(">dddd"), 24, 4e17
#: Messages that wait for others of their kind, in full requests.
_HELD_REQUESTS = 4
_AGAIN_S = 0.2
#: Batches whose size is remembered: older ones are walked when they are frozen.
_REMEMBERED = 32

log = logging.getLogger("paceline.merger")


class Desk(Protocol):
    """What the sender does for it (sender.py)."""

    def adopt(self, nonce: str, ids: Iterable[str]) -> None:
        """These are held under ``nonce`` and not settled yet: their lease is to be renewed."""

    def release(self, nonce: str, ids: Iterable[str]) -> None:
        """These are no more."""

    def hand_over(self, leased: Leased, meanwhile: Callable[[], object]) -> bool:
        """To the threads that send, once there is room; False where the destination has closed."""

    def hand_over_now(self, leased: Leased) -> None:
        """The same, whether there is room or not."""

    def give_back(self, message_id: str, nonce: str) -> None:
        """Unsent, to its place."""

    def is_open(self) -> bool:
        """Whether what is handed over now could be sent now."""


class Merger:
    """Makes requests of messages for ``desk``. ``accept`` is called by one thread at a time."""

    def __init__(
        self,
        profile: Merging,
        merge: Merge,
        store: OutboxStore,
        desk: Desk,
        *,
        worker: str,
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self._profile = profile
        self._store = store
        self._desk = desk
        self._worker = worker
        self._clock = clock
        self._stopping = stopping
        self._groups = Grouping(
            merge.most, merge.max_bytes, merge.linger_s, _HELD_REQUESTS * merge.most
        )
        #: Members in one request, at most.
        self.most = merge.most
        self._taken: dict[str, int] = {}  # how many, of the last batches
        self._changed = threading.Condition()
        self._outage = Outage(log, "freeze")
        self._thread = threading.Thread(target=self._run, name="merger", daemon=True)

    def start(self) -> None:
        """Starts the thread that sends groups whose time has come."""
        self._thread.start()

    def wake(self) -> None:
        """The destination closed, or the worker stops: what waits goes back."""
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """The end, once ``stopping`` is set and nobody hands a batch over any more: what waits goes
        back."""
        self.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        with self._changed:
            left = self._groups.drain()
        for group in left:
            self._give_back(group)

    def __len__(self) -> int:
        """Messages that wait for others of their kind."""
        return len(self._groups)

    # -- a batch --------------------------------------------------------------------------------

    def accept(self, taken: Taken, meanwhile: Callable[[], object]) -> int:
        """Takes a batch over; returns how many messages. What belongs to complete groups is in the
        sender's queue then; the rest follows. Raises RedisError: what was not fetched is given
        back.
        """
        missing = dict.fromkeys(taken.sizes)
        self._desk.adopt(taken.nonce, missing)
        self._taken[taken.nonce] = len(missing)
        if len(self._taken) > _REMEMBERED:
            del self._taken[next(iter(self._taken))]
        # One that comes alone may be a probe of the breaker's, and nothing is gained by waiting.
        alone = len(missing) == 1
        accepted = 0
        try:
            for values in self._store.fetch_values(taken):
                for message_id, _ in values:
                    del missing[message_id]
                accepted += self._sort(values, taken.nonce, meanwhile, alone=alone)
        except BaseException:
            for message_id in missing:
                self._desk.give_back(message_id, taken.nonce)
            raise
        with self._changed:
            urgent = self._groups.due(self._clock.monotonic_s(), priority=_HIGH)
            self._changed.notify_all()
        for group in urgent:
            self._send(group, meanwhile)
        return accepted

    def _sort(
        self,
        values: Sequence[tuple[str, bytes | None]],
        nonce: str,
        meanwhile: Callable[[], object],
        *,
        alone: bool,
    ) -> int:
        """Puts what can be merged into groups; complete ones and what goes alone to the sender."""
        ready: list[Group] = []
        lone: list[tuple[str, bytes | None]] = []
        now = self._clock.monotonic_s()
        entry_of, add = self._entry, self._groups.add
        portion_of = self._profile.portion  # once: it may be replaced under way
        with self._changed:
            for message_id, value in values:
                entry = None
                if not alone and value is not None:
                    entry = entry_of(message_id, nonce, value, portion_of)
                if entry is None or value is None:
                    lone.append((message_id, value))
                    continue
                likeness, member, portion = entry
                complete = add(likeness, value, member, portion, now)
                if complete is not None:
                    ready.append(complete)
        for group in ready:
            self._send(group, meanwhile)
        sent = 0
        for message_id, value in lone:
            sent += self._send_alone(message_id, nonce, value, meanwhile)
        return len(values) - len(lone) + sent

    def _entry(
        self,
        message_id: str,
        nonce: str,
        value: bytes,
        portion_of: Callable[[bytes], Portion | None],
    ) -> tuple[Likeness, Member, Portion] | None:
        """What goes into a group; None of what goes alone: it cannot be merged, or is a request, or
        is not held as it was taken (R) or under this nonce (L)."""
        if value[:2] not in _AS_TAKEN or is_request(message_id) or len(value) < _HEAD_BYTES:
            return None
        seq, at, expires, due = _MOMENTS.unpack_from(value, _MOMENTS_AT)
        if not 0 <= seq + at + expires + due < _NEVER_US:
            return None  # no header of ours
        tenant_end = _HEAD_BYTES + value[56]
        campaign_end = tenant_end + value[57]
        payload = value[campaign_end + (value[58] << 8) + value[59] :]
        try:
            portion = portion_of(payload)
        except PayloadError:
            return None  # told where it is rendered: it is a dead letter there
        except Exception:
            # A defect of ours must not send its whole batch round for ever; alone, it ends.
            log.exception("message %s: it could not be looked at for merging", message_id)
            return None
        if portion is None:
            return None
        head = value[:_HEAD_BYTES]
        sha1 = hashlib.sha1(payload, usedforsecurity=False).digest()
        return (
            Likeness(
                value[22:23],
                value[_HEAD_BYTES:tenant_end],
                portion.shared,
                value[tenant_end:campaign_end],
            ),
            Member(message_id, nonce, head, sha1, len(payload)),
            portion,
        )

    def _send_alone(
        self, message_id: str, nonce: str, value: bytes | None, meanwhile: Callable[[], object]
    ) -> int:
        leased = leased_of(message_id, nonce, value)
        if leased is None:
            self._desk.release(nonce, [message_id])
            return 0
        if self._desk.hand_over(leased, meanwhile):
            return 1
        self._desk.give_back(message_id, nonce)
        return 0

    # -- a group --------------------------------------------------------------------------------

    def _send(self, group: Group, meanwhile: Callable[[], object]) -> None:
        """To the sender; to its place what cannot go now."""
        if len(group.members) == 1:
            [only] = group.members
            self._send_alone(only.id, only.nonce, group.first, meanwhile)
            return
        leased = self._freeze(group) if self._desk.is_open() else None
        if leased is None:
            self._give_back(group)
        elif not self._desk.hand_over(leased, meanwhile):
            self._desk.give_back(leased.id, leased.nonce)

    def _freeze(self, group: Group) -> Leased | None:
        """The request that Redis keeps from now on; None where nobody is left, Redis stays away
        until the worker stops, or refuses."""
        request_id = new_nonce()
        priority = PRIORITIES.get(group.likeness.priority, "normal")
        tenant = group.likeness.tenant.decode("latin-1")
        while group.members:
            body = self._profile.join(group.likeness.shared, group.parts)
            try:
                changed = self._store.freeze(
                    self._worker,
                    request_id,
                    body,
                    group.members,
                    priority=priority,
                    tenant=tenant,
                    campaign=group.likeness.campaign.decode("latin-1"),
                    batches=self._taken,
                )
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                # The answer may have been lost, not the call: asked again, it answers the same.
                self._outage.note(error)
                if self._stopping.wait(_AGAIN_S):
                    return None
                continue
            except redis.exceptions.RedisError as error:
                log.error("freeze: Redis refuses: %s; the messages go back", error)
                return None
            self._outage.over()
            if changed is None:
                count = len(group.members)
                self._forget(group.members)
                self._desk.adopt(request_id, [f"+{request_id}"])
                return frozen(request_id, body, priority=priority, tenant=tenant, count=count)
            self._leave_out(group, changed)
        return None

    def _leave_out(self, group: Group, changed: set[str]) -> None:
        kept = [place for place, it in enumerate(group.members) if it.id not in changed]
        self._forget([it for it in group.members if it.id in changed])
        group.parts = [group.parts[place] for place in kept]
        group.members = [group.members[place] for place in kept]

    def _forget(self, members: Iterable[Member]) -> None:
        by_nonce: dict[str, list[str]] = {}
        for member in members:
            by_nonce.setdefault(member.nonce, []).append(member.id)
        for nonce, ids in by_nonce.items():
            self._desk.release(nonce, ids)

    def _give_back(self, group: Group) -> None:
        for member in group.members:
            self._desk.give_back(member.id, member.nonce)

    # -- groups that wait -----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                now = self._clock.monotonic_s()
                due = self._groups.due(now) if self._desk.is_open() else self._groups.drain()
                if not due:
                    next_s = self._groups.next_due_s()
                    self._changed.wait(None if next_s is None else max(0.0, next_s - now))
                    continue
            for group in due:
                try:
                    self._send(group, lambda: None)
                except Exception:
                    # A defect of ours must not end the thread that all others wait for. What was
                    # held goes back when its lease runs out.
                    log.exception("merger: unexpected error; going on")
                    self._forget(group.members)

    # -- taken apart ----------------------------------------------------------------------------

    def halve(self, leased: Leased) -> None:
        """A request that the provider refused as a whole, and that is taken apart in Redis (action
        ``split``): its members go again in two requests. So a message that spoils it is alone after
        as many turns as there are halves. Raises RedisError."""
        values = self._store.fetch_members(leased.id[1:], leased.nonce)
        self._desk.adopt(leased.nonce, [message_id for message_id, _ in values])
        middle = len(values) // 2
        for half in (values[:middle], values[middle:]):
            self._send_half(half, leased.nonce)

    def _send_half(self, half: Sequence[tuple[str, bytes]], nonce: str) -> None:
        group: Group | None = None
        for message_id, value in half:
            entry = None
            if len(half) > 1:
                entry = self._entry(message_id, nonce, value, self._profile.portion)
            if entry is None:
                leased = leased_of(message_id, nonce, value)
                if leased is not None:
                    self._desk.hand_over_now(leased)
                continue
            likeness, member, portion = entry
            if group is None:
                group = Group(likeness, self._clock.monotonic_s(), value)
            group.add(member, portion)
        if group is not None:
            request = self._freeze(group)
            if request is None:
                self._give_back(group)
            else:
                self._desk.hand_over_now(request)
