"""Decides, for each arrival, which fault is played and how long the answer takes. No clock.

Asked in this order: an order from the control endpoint ("the next 5"), the script, the random
mix. How often an id was seen is counted here, for draws and for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paceline.sink.draw import draws
from paceline.sink.faults import Fault, FaultMix
from paceline.sink.latency import Latency
from paceline.sink.script import Script

Entries = Sequence[str] | Mapping[str, Sequence[str]]


class Player:
    """The faults in force. Its attributes may be changed between arrivals."""

    def __init__(self, seed: int, mix: FaultMix, latency: Latency) -> None:
        self.seed = seed
        self.mix = mix
        self.latency = latency
        self.script: Script | None = None
        self.next_fault: Fault | None = None
        self.next_count = 0
        self._entries: Entries | None = None
        self._seen: dict[str, int] = {}

    def set_script(self, entries: Entries | None) -> None:
        """Play a script from its beginning; None for none. Raises FaultSpecError."""
        self.script = None if entries is None else Script(entries)
        self._entries = entries

    def set_next(self, count: int, fault: Fault) -> None:
        """Play ``fault`` to the next ``count`` arrivals, before anything else."""
        self.next_count, self.next_fault = count, fault

    def rewind(self) -> None:
        """Forget which ids were seen, and play the script from its beginning."""
        self._seen.clear()
        self.set_script(self._entries)

    def decide(self, message_id: str | None, number: int) -> tuple[Fault | None, float]:
        """The fault (None: a good answer) and the latency in seconds of one arrival."""
        if message_id is None:
            occurrence = number
        else:
            occurrence = self._seen.get(message_id, 0)
            self._seen[message_id] = occurrence + 1
        mix, latency = self.mix, self.latency
        if mix.faults or latency.random:
            u, v = draws(self.seed, message_id, occurrence)
        else:  # spare the hash
            u = v = 0.5
        return self._ordered(message_id) or mix.at(u), latency.at(v)

    def _ordered(self, message_id: str | None) -> Fault | None:
        if self.next_count > 0:
            self.next_count -= 1
            return self.next_fault
        return self.script.play(message_id) if self.script is not None else None
