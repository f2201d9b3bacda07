"""The last few looks at each destination, for ``top``: figures, rates, and how old they are."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import redis
import redis.exceptions

from paceline.census import Census
from paceline.log_veil import redact
from paceline.outbox import OutboxStore, known_destinations
from paceline.rates import Rates, between

#: Rates are taken over so many looks: over one they jump about.
LOOKS = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """One destination as last seen."""

    census: Census
    rates: Rates | None


class Sampler:
    """Looks at the named destinations, or at all that Redis knows at the time."""

    def __init__(
        self,
        client: redis.Redis,
        names: tuple[str, ...],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._names = names
        self._now_s = monotonic_s
        self._seen: dict[str, deque[Census]] = {}
        self._seen_s: float | None = None
        self.trouble = ""

    def look(self) -> bool:
        """One look. False, with ``trouble`` set, where Redis did not answer: what was seen last
        stays."""
        try:
            names = self._names or tuple(known_destinations(self._client))
            found = [OutboxStore(self._client, name).census() for name in names]
        except redis.exceptions.RedisError as error:
            self.trouble = redact(str(error)) or type(error).__name__
            return False
        self.trouble, self._seen_s = "", self._now_s()
        kept = {c.destination: self._seen.get(c.destination, deque(maxlen=LOOKS)) for c in found}
        for census in found:
            kept[census.destination].append(census)
        self._seen = kept
        return True

    @property
    def age_s(self) -> float:
        """How old the figures are."""
        return 0.0 if self._seen_s is None else self._now_s() - self._seen_s

    @property
    def samples(self) -> list[Sample]:
        """All destinations, as last seen."""
        return [Sample(seen[-1], between(seen[0], seen[-1])) for seen in self._seen.values()]
