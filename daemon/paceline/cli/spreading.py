"""``paceline send --finish-by``: whether a file can be sent by then, and when each line is due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from paceline.census import Census
from paceline.cli.reckon import Reckoning, per_s
from paceline.cli.words import count_of, in_words, local_time
from paceline.plan import last_due, spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """``count`` messages evenly from ``start`` until ``until``; unix seconds."""

    count: int
    start: float
    finish_by: float

    @property
    def until(self) -> float:
        """When all are due: a little before ``finish_by``, to be sent by then."""
        return last_due(self.start, self.finish_by)

    @property
    def per_s(self) -> float:
        """Messages a second."""
        return self.count / (self.until - self.start)

    def turns(self) -> Iterator[float]:
        """When each is due, unix seconds."""
        return spread(self.count, self.start, self.finish_by)

    @property
    def text(self) -> str:
        """For people."""
        return (
            f"spread over {in_words(self.until - self.start)}, {per_s(self.per_s)}, until "
            f"{local_time(self.until)}"
        )

    def view(self) -> dict[str, Any]:
        """For --json."""
        return {
            "start": self.start,
            "until": self.until,
            "finish_by": self.finish_by,
            "per_s": self.per_s,
        }


def too_long(spread: Spread, reckoning: Reckoning, fresh: int) -> str:
    """Why ``fresh`` of the spread's messages, those that Redis does not have yet, cannot be sent by
    its end beside what waits, in words; "" when they can."""
    span_s = spread.until - spread.start
    pace = reckoning.pace
    if not fresh or fresh <= pace.fits(span_s):
        return ""
    needed = pace.needed_per_s(fresh, span_s)
    ask = "" if needed is None else f", or ask for {reckoning.ask_for(needed)}"
    beside = f" beside {pace.ahead:,} that wait" if pace.ahead else ""
    return (
        f"--finish-by leaves {in_words(span_s)}, but {count_of(fresh, 'message')}{beside} need "
        f"{in_words(pace.takes_s(fresh))} at {reckoning.why}. By then {pace.fits(span_s):,} can be "
        f"sent. Give a later time{ask}; --force spreads them all the same"
    )


def too_old(spread: Spread, census: Census) -> str:
    """Why the last of the spread would be given up before its turn, in words; "" when it is not."""
    max_age_s = float(census.config.get("max_age_us", "inf")) / 1e6
    if spread.until - spread.start < max_age_s:
        return ""
    return (
        f"the last messages would wait {in_words(spread.until - spread.start)}, but max_age_s of "
        f"{census.destination} gives a message up after {in_words(max_age_s)}. Send them in parts, "
        "or raise max_age_s"
    )
