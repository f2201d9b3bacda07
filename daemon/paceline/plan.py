"""When a large mailing must start, how long it takes, and how it is spread over a time. Pure.

Reckoned as one request a message. The bucket's burst is left out, for it is worth seconds; retries
are left out too: the margin that a plan is given is for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

#: How long before its end a spread has its last message due: for the scheduler to see it, and the
#: request to be answered.
_LEAD_MOST_S = 60.0
_LEAD_SHARE = 0.02
#: Half a millionth of a message: 100 s at 0.07/s are seven, not 6.999….
_ROUNDING = 5e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a destination sends by, from now on.

    ``per_s``     messages a second, over 0
    ``ahead``     messages that wait already: they go first
    ``closed_s``  seconds until any may go out
    """

    per_s: float
    ahead: int = 0
    closed_s: float = 0.0

    def takes_s(self, count: int) -> float:
        """Seconds from now until ``count`` more are sent, when they are handed over now."""
        return self.closed_s + (self.ahead + count) / self.per_s

    def fits(self, span_s: float) -> int:
        """How many more can be sent within ``span_s`` from now."""
        sent = max(0.0, span_s - self.closed_s) * self.per_s
        return max(0, math.floor(sent + _ROUNDING) - self.ahead)

    def latest_start_s(self, count: int, span_s: float) -> float:
        """Seconds from now by when ``count`` messages must be handed over to be sent within
        ``span_s`` from now; below 0 where it is too late for that.

        What waits goes out meanwhile, but never later than it would before them.
        """
        if count > self.fits(span_s):
            return span_s - self.takes_s(count)
        return span_s - count / self.per_s

    def needed_per_s(self, count: int, span_s: float) -> float | None:
        """The rate, in messages a second, that sends what waits and ``count`` more within
        ``span_s`` from now; None where nothing goes out in that time at any rate."""
        open_s = span_s - self.closed_s
        return (self.ahead + count) / open_s if open_s > 0 else None


def last_due(start_s: float, finish_s: float) -> float:
    """When the last message of a spread from ``start_s`` is due, to be sent by ``finish_s``: a
    fiftieth of the time before, at most a minute. Unix seconds."""
    return finish_s - min(_LEAD_MOST_S, _LEAD_SHARE * max(0.0, finish_s - start_s))


def spread(count: int, start_s: float, finish_s: float) -> Iterator[float]:
    """``not_before`` for each of ``count`` messages, evenly from ``start_s`` to ``last_due``: the
    first at once, the last one place before the end. Unix seconds."""
    until_s = last_due(start_s, finish_s)
    for place in range(count):
        yield start_s + place / count * (until_s - start_s)


def round_up(per_s: float) -> float:
    """A rate to ask for, over 0, to three digits: never less than ``per_s``."""
    scale = 10.0 ** max(0, 2 - math.floor(math.log10(per_s)))
    return math.ceil(per_s * scale - _ROUNDING) / scale
