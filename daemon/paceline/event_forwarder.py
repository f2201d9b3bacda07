"""Hands a destination's events on to the app's own URL, as messages of another destination.

Any number of them may run, and any may be killed at any point: a batch is planned in Redis
(``lua/forward.lua``) before it is enqueued, under an id that follows from the plan, so that it is
accepted once. The order is plan, enqueue, done; a plan that nobody carries on with is anybody's.

Nothing of what becomes of these messages is handed on in turn: the configuration has no way of
saying so (``settings_deliver.py``).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from paceline.errors import DuplicateConflict, PacelineError
from paceline.event_batches import Batch, Forwarding, batches_of, cut, message_of
from paceline.event_reader import page
from paceline.events import KINDS, Event
from paceline.outbox import OutboxStore
from paceline.settings import Events

__all__ = ["EventForwarder", "Forwarded"]

#: Events looked at in one turn; entries read at once: at first, when little is known of them, and
#: at most.
_MOST, _FIRST_PAGE, _LAST_PAGE = 5000, 10, 1000
#: How soon to look again: when all is handed on, when another forwarder is at it, when the other
#: destination takes nothing.
_IDLE_S, _OTHER_S, _REFUSED_S = 0.25, 0.25, 1.0
#: A plan that stands so long is anybody's: whoever made it may be dead.
_PATIENCE_S = 2.0
_REMIND_S = 300.0

log = logging.getLogger("paceline.forwarder")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What one turn did: events handed on, messages they went in, events that had been trimmed away
    before; and in how many seconds the next turn is wanted."""

    events: int = 0
    messages: int = 0
    missed: int = 0
    next_s: float = _IDLE_S


class EventForwarder:
    """One destination's forwarder to ``other``, on the same Redis. ``settings`` say which events
    go, and how many together; ``name`` tells forwarders apart."""

    def __init__(
        self,
        store: OutboxStore,
        other: OutboxStore,
        settings: Events,
        *,
        name: str = "",
        patience_s: float = _PATIENCE_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._other = other
        self._kinds: Collection[str] = frozenset(settings.deliver_kinds or KINDS)
        self._size = settings.deliver_batch
        self._linger_s = settings.deliver_linger_s
        self._name = name or secrets.token_hex(8)
        self._patience_us = patience_s * 1e6
        self._trouble = _Trouble(store.destination, other.destination, monotonic_s)

    def run_once(self) -> Forwarded:
        """One turn. Raises RedisError."""
        state = self._store.forward_look()
        if state.ends:
            if state.by != self._name and state.now_us - state.at_us < self._patience_us:
                return Forwarded(next_s=_OTHER_S)
            events, _ = self._read(state, state.ends[-1])
            return self._carry_out(state, events)
        if state.total <= state.cursor:
            return Forwarded(next_s=self._idle_s)
        return self._plan(state)

    @property
    def _idle_s(self) -> float:
        return min(_IDLE_S, max(0.01, self._linger_s / 2))

    def _plan(self, state: Forwarding) -> Forwarded:
        events, more = self._read(state, state.total)
        now_s = state.now_us / 1e6
        found = cut(events, self._kinds, self._size, self._linger_s, now_s, more=more)
        # None is left of all that were told.
        ends = found.ends if events else (state.total,)
        due_s = self._idle_s if found.due_s is None else min(_IDLE_S, found.due_s)
        if not ends:
            return Forwarded(next_s=due_s)
        [first] = batches_of(events, state.cursor, ends[:1], self._kinds)
        state = self._store.forward_plan(state.cursor, self._name, ends, first.missed)
        if state.by != self._name or state.ends != ends:
            return Forwarded(next_s=_OTHER_S)
        return self._carry_out(state, events, due_s)

    def _read(self, state: Forwarding, upto: int) -> tuple[list[Event], bool]:
        """The events after the cursor up to a number, about ``_MOST`` of them where no plan says
        how many; and whether there are more."""
        events, more = self._read_from(state.entry or "-", state, upto)
        if not events and state.entry:
            # The stream is another one than that in which the entry was.
            events, more = self._read_from("-", state, upto)
        return events, more

    def _read_from(self, start: str, state: Forwarding, upto: int) -> tuple[list[Event], bool]:
        events: list[Event] = []
        last = state.cursor
        place: str | None = start
        count = _FIRST_PAGE
        while place is not None:
            found, place = page(self._store.client, self._store.destination, place, count)
            # A number beyond what was told when we looked is for another turn, or somebody's joke.
            known = [event for event in found if event.seq <= state.total]
            for event in known:
                if last < event.seq <= upto:
                    events.append(event)
                    last = event.seq
            if known and known[-1].seq >= upto:
                place = None
            elif not state.ends and len(events) >= _MOST:
                break  # but a plan is read to its end, by whatever measure it was made
            # An entry holds one event, or a thousand.
            count = max(_FIRST_PAGE, min(_LAST_PAGE, _MOST * count // max(1, len(found))))
        if state.ends:
            return events, False
        return events[:_MOST], place is not None or len(events) > _MOST

    def _carry_out(
        self, state: Forwarding, events: Sequence[Event], next_s: float = 0.0
    ) -> Forwarded:
        batches = list(batches_of(events, state.cursor, state.ends, self._kinds))
        to = self._other.destination
        messages = [
            message_of(batch, self._store.destination, to, state.at_us)
            for batch in batches
            if not batch.silent
        ]
        answers = iter(self._other.enqueue_many(messages))
        done: list[Batch] = []
        missed, refused = 0, None
        for batch in batches:
            answer = "already" if batch.silent else next(answers)
            if isinstance(answer, DuplicateConflict):
                # It was enqueued before something of it was trimmed away.
                missed += state.gap if not done else 0
            elif isinstance(answer, PacelineError):
                refused = answer
                break
            else:
                missed += batch.missed
            done.append(batch)
        if done:
            last = done[-1]
            self._store.forward_done(state.cursor, last.upto, last.entry, missed)
        if missed:
            self._trouble.missed(missed)
        if refused is None:
            self._trouble.good()
        else:
            self._trouble.bad(refused)
            next_s = _REFUSED_S
        told = [batch for batch in done if not batch.silent]
        return Forwarded(sum(len(b.events) for b in told), len(told), missed, next_s)


class _Trouble:
    """Tells once in the log that the other destination takes nothing, and again every five
    minutes."""

    def __init__(self, source: str, to: str, monotonic_s: Callable[[], float]) -> None:
        self._source, self._to = source, to
        self._now_s = monotonic_s
        self._cause = ""
        self._told_s = 0.0

    def bad(self, error: PacelineError) -> None:
        """It was refused."""
        cause = type(error).__name__
        if cause == self._cause and self._now_s() - self._told_s < _REMIND_S:
            return
        self._cause, self._told_s = cause, self._now_s()
        log.warning(
            "%s: its events wait, for %s takes none: %s",
            self._source,
            self._to,
            error,
            extra=self._about("forward_refused", cause),
        )

    def good(self) -> None:
        """It was taken."""
        if self._cause:
            log.info(
                "%s: its events go to %s again",
                self._source,
                self._to,
                extra=self._about("forward_back", self._cause),
            )
        self._cause = ""

    def missed(self, count: int) -> None:
        """So many were gone before their turn came."""
        log.warning(
            "%s: %d events were trimmed away before %s could be told of them; raise "
            "events.max_count, or see what holds %s up",
            self._source,
            count,
            self._to,
            self._to,
            extra=self._about("forward_missed", "trimmed"),
        )

    def _about(self, event: str, cause: str) -> dict[str, str]:
        return {"event": event, "cause": cause, "destination": self._source}
