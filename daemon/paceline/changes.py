"""What changed about a destination between two looks, as far as somebody should hear of it. Pure.

Told by the reaper, which looks every two seconds: a pause by an operator, a hold by a worker on
another host, the last worker gone. A closing shorter than that may go unseen here; the worker whose
request met it tells of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from paceline.census import Census


@dataclass(frozen=True, slots=True)
class Change:
    """One event for the logs."""

    event: str
    level: int
    cause: str
    text: str


class Changes:
    """Remembers the last look. What already stands at the first one is told too, if it is bad."""

    def __init__(self) -> None:
        self._closed = ""
        self._unserved = False
        self._sound = True

    def since_last(self, census: Census) -> Iterator[Change]:
        """The changes since the last look."""
        name = census.destination
        yield from self._closing(census)
        unserved = census.unfinished > 0 and not any(worker.live for worker in census.workers)
        if unserved != self._unserved:
            self._unserved = unserved
            if unserved:
                text = f"{name}: {census.unfinished} messages wait and no worker lives"
                yield Change("no_worker", logging.WARNING, "no-worker", text)
            else:
                yield Change("worker_back", logging.INFO, "no-worker", f"{name}: served again")
        if census.sound != self._sound:
            self._sound = census.sound
            if census.sound:
                yield Change("law_sound", logging.INFO, "law", f"{name}: all accounted for again")
            else:
                text = (
                    f"{name}: {census.difference} messages are not accounted for; "
                    f"look: paceline audit {name} --deep"
                )
                yield Change("law_broken", logging.ERROR, "law", text)

    def _closing(self, census: Census) -> Iterator[Change]:
        closed = census.closed()
        what = closed[0] if closed else ""
        if what == self._closed:
            return
        before, self._closed = self._closed, what
        if closed is None:
            yield Change("opened", logging.INFO, before, f"{census.destination}: open again")
            return
        what, left_s, why = closed
        if what != "paused":
            # An outcome closed it: after the colon comes what the provider said, which may quote
            # a message. `paceline status` shows it all.
            why = why.partition(": ")[0]
        left = "until resumed" if left_s is None else f"for {left_s:.3g} s"
        level = logging.ERROR if what == "held" else logging.WARNING
        text = f"{census.destination}: {what} {left}" + (f": {why}" if why else "")
        yield Change("closed", level, what, text)
