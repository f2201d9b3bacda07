"""Requests that carry no message: asking the provider what became of those that were sent.

They are the destination's requests all the same, so each draws a permit (``lua/errand.lua``), on a
connection that is up, like a message. Which messages are asked about, and when, is in Redis: any
number of workers may ask, each message is one's at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from paceline.answers import Permit
from paceline.leases import permit_of
from paceline.outbox import OutboxStore
from paceline.scripts import Argument, Pinned, run


class Errand(msgspec.Struct, frozen=True):
    """One message that was sent, to be asked about by ``provider_id``. ``mark`` is whose turn it
    is: with each permit there is another."""

    id: str
    mark: str
    provider_id: str


class Errands:
    """What is to be asked of one destination's provider. One thread at a time; over ``pinned``, for
    a permit must not come from a Redis that has restarted unseen. Raises RedisError."""

    def __init__(self, store: OutboxStore, pinned: Pinned) -> None:
        self._store = store
        self._pinned = pinned

    def look(self) -> Errand | None:
        """One that is due; None where there is none, or the destination is closed."""
        verdict, *rest = self._ask("look")
        if verdict != b"due":
            return None
        message_id, mark, provider_id = (part.decode("utf-8", "replace") for part in rest)
        return Errand(message_id, mark, provider_id)

    def draw(self, errand: Errand, size: int = 0) -> tuple[Permit, Errand]:
        """The gate, for a request of ``size`` bytes; and the errand as it is the caller's with that
        permit: for five minutes nobody else gets it. "gone": another has it."""
        reply = self._ask("draw", errand.id, errand.mark, size)
        if reply[0] == b"go":
            permit = Permit("go", int(reply[1]) / 1e6, begun_us=int(reply[2]))
            return permit, Errand(errand.id, reply[3].decode(), errand.provider_id)
        return permit_of(reply), errand

    def note(self, errand: Errand, record: Mapping[str, Any]) -> bool:
        """What was learnt, onto the message's attempts; it is not asked about again. False where
        the message has been forgotten meanwhile."""
        return bool(self._ask("note", errand.id, msgspec.json.encode(record))[0] == b"noted")

    def _ask(self, op: str, *arguments: Argument) -> Any:
        run_id = self._pinned.ready()
        head = (self._store.clock_text(), run_id, op)
        return run(self._pinned, "errand", self._store.tag, (*head, *arguments))
