"""``paceline plan``: when a large mailing must start, and what cannot be done."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import click
import redis

from paceline.cli import EXIT_FAILED
from paceline.cli.common import DURATION, json_option, pick_stores, print_json, redis_option
from paceline.cli.moment import MOMENT
from paceline.cli.reckon import Reckoning, per_s, reckon, room
from paceline.cli.words import calendar_time, count_of, in_words
from paceline.errors import UnknownDestination
from paceline.plan import round_up

_MARGIN_S = 30 * 60.0


@click.command(
    epilog="""\b
Examples:
  paceline plan maxmd --count 500000 --by 09:00      when to start at the latest
  paceline plan maxmd --count 500000                 when it is done, started now
  paceline plan maxmd --by 2026-11-30T09:00+01:00    how many can be sent until then

One message is reckoned as one request, at the rate or at what the connections carry at the
provider's latency, whichever is less; what waits already goes first. The margin is for retries and
for what is not foreseen. Exit code 0: it can be done; 1: it cannot."""
)
@click.argument("destination", metavar="DEST")
@click.option("--count", type=click.IntRange(1), metavar="N", help="How many messages.")
@click.option(
    "--by",
    "by",
    type=MOMENT,
    metavar="TIME",
    help="When all must be sent: 09:00 (the next, local time), an ISO 8601 date-time, or 2h.",
)
@click.option(
    "--margin",
    "margin_s",
    type=DURATION,
    default=_MARGIN_S,
    metavar="DURATION",
    help="Start so much earlier than needed.  [default: 30m]",
)
@json_option
@redis_option
def plan(
    client: redis.Redis,
    destination: str,
    count: int | None,
    by: float | None,
    margin_s: float,
    as_json: bool,
) -> int:
    """When a large mailing must start, or when it is done."""
    if count is None and by is None:
        raise click.UsageError("Give --count N, --by TIME, or both")
    try:
        store = pick_stores(client, (destination,))[0]
    except UnknownDestination as error:
        # Exit code 1 would say that the mailing cannot be done.
        raise click.BadParameter(str(error), param_hint="DEST") from error
    census = store.census()
    now = time.time()
    made = Plan(
        destination=destination,
        count=count,
        by=by,
        now=now,
        margin_s=margin_s,
        reckoning=reckon(census, None if by is None else by - now),
        room=room(census),
    )
    if as_json:
        print_json(made.view())
    else:
        click.echo(made.text())
    return 0 if made.feasible else EXIT_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``count`` messages, sent by ``by``: one of them may be None, and is then what is asked for.

    ``by`` and ``now`` are unix seconds; ``room`` is how many the outbox takes just now.
    """

    destination: str
    count: int | None
    by: float | None
    now: float
    margin_s: float
    reckoning: Reckoning
    room: int | None

    @property
    def span_s(self) -> float | None:
        """From now to ``by``."""
        return None if self.by is None else self.by - self.now

    @property
    def fits(self) -> int | None:
        """How many more can be sent by ``by``."""
        return None if self.span_s is None else self.reckoning.pace.fits(self.span_s)

    @property
    def takes_s(self) -> float | None:
        """From now until all are sent, when they are handed over now."""
        return None if self.count is None else self.reckoning.pace.takes_s(self.count)

    @property
    def feasible(self) -> bool:
        """Whether it can be done, margin or not."""
        return self.fits is None or self.fits >= (self.count or 1)

    @property
    def latest_s(self) -> float | None:
        """From now to the last moment at which it can start; below 0 where that has passed."""
        if self.count is None or self.span_s is None:
            return None
        return self.reckoning.pace.latest_start_s(self.count, self.span_s)

    @property
    def needed_per_s(self) -> float | None:
        """The rate that does it when it starts now."""
        if self.count is None or self.span_s is None:
            return None
        return self.reckoning.pace.needed_per_s(self.count, self.span_s)

    @property
    def notes(self) -> list[str]:
        """What the plan rests on, where it may be otherwise."""
        notes = list(self.reckoning.notes)
        if self.count is not None and self.room is not None and self.count > self.room:
            notes.append(
                f"the outbox has room for {count_of(self.room, 'message')} now: hand them over in "
                "parts, or raise max_messages"
            )
        return notes

    def view(self) -> dict[str, Any]:
        """For --json: seconds, unix seconds, messages a second; null where it was not asked for or
        cannot be."""
        latest_s = self.latest_s
        pace = self.reckoning.pace
        return {
            "destination": self.destination,
            "feasible": self.feasible,
            "count": self.count,
            "by": self.by,
            "now": self.now,
            "margin_s": self.margin_s,
            "per_s": pace.per_s,
            "binds": self.reckoning.binds,
            "rate": self.reckoning.rate,
            "connections_per_s": self.reckoning.able,
            "ahead": pace.ahead,
            "closed_s": pace.closed_s,
            "takes_s": self.takes_s,
            "done_at": None if self.takes_s is None else self.now + self.takes_s,
            "fits": self.fits,
            "latest_start": None if latest_s is None else self.now + latest_s,
            "start_by": None
            if latest_s is None or not self.feasible
            else self.now + max(0.0, latest_s - self.margin_s),
            "needed_per_s": self.needed_per_s,
            "room": self.room,
            "notes": self.notes,
        }

    def text(self) -> str:
        """For people."""
        if self.takes_s is None:
            lines = self._how_many()
        elif self.by is None:
            lines = self._when_done(self.takes_s)
        elif self.feasible:
            lines = self._when_to_start()
        else:
            lines = self._cannot(self.takes_s)
        lines += [("note", note) for note in self.notes]
        head, *rest = lines
        return "\n".join([f"{self.destination}: {head[1]}", *(f"  {a:<11} {b}" for a, b in rest)])

    def _how_many(self) -> list[tuple[str, str]]:
        assert self.fits is not None
        assert self.span_s is not None
        early = self.reckoning.pace.fits(self.span_s - self.margin_s)
        messages = count_of(self.fits, "message")
        return [
            ("", f"{messages} more can be sent by {self._moment(self.span_s)}"),
            *self._pace(),
            ("with margin", f"{early:,}, done {in_words(self.margin_s)} before that"),
        ]

    def _when_done(self, takes_s: float) -> list[tuple[str, str]]:
        return [
            ("", f"{self._messages}, started now, are sent by {self._moment(takes_s)}"),
            *self._pace(),
            ("with margin", f"by {self._moment(takes_s + self.margin_s)}"),
        ]

    def _when_to_start(self) -> list[tuple[str, str]]:
        assert self.count is not None
        assert self.span_s is not None
        assert self.latest_s is not None
        assert self.needed_per_s is not None
        early_s = self.latest_s - self.margin_s
        if round(early_s) >= 0:
            start = f"by {self._moment(max(0.0, early_s))}, with {in_words(self.margin_s)} to spare"
        else:
            start = (
                f"now: {in_words(self.latest_s)} to spare, less than the margin of "
                f"{in_words(self.margin_s)}"
            )
        return [
            ("", f"{self._messages} can be sent by {self._moment(self.span_s)}"),
            ("start", start),
            ("takes", in_words(self.count / self.reckoning.pace.per_s)),
            *self._pace(),
            ("enough", f"{per_s(round_up(self.needed_per_s))}, when it starts now"),
        ]

    def _cannot(self, takes_s: float) -> list[tuple[str, str]]:
        assert self.span_s is not None
        needed = self.needed_per_s
        lines = [
            ("", f"{self._messages} cannot be sent by {self._moment(self.span_s)}: "
             f"they take {in_words(takes_s)}"),
            *self._pace(),
            ("at most", f"{count_of(self.fits or 0, 'message')} can be sent by then"),
        ]  # fmt: skip
        if needed is not None:
            lines.append(("ask for", self.reckoning.ask_for(needed)))
        return [*lines, ("or by", f"{self._moment(takes_s)}, started now")]

    def _pace(self) -> list[tuple[str, str]]:
        pace = self.reckoning.pace
        lines = [("pace", self.reckoning.why)]
        if pace.ahead:
            waits = "waits already and goes" if pace.ahead == 1 else "wait already and go"
            span = in_words(pace.ahead / pace.per_s)
            lines.append(("backlog", f"{count_of(pace.ahead, 'message')} {waits} first: {span}"))
        return lines

    @property
    def _messages(self) -> str:
        assert self.count is not None
        return count_of(self.count, "message")

    def _moment(self, from_now_s: float) -> str:
        span = f"in {in_words(from_now_s)}"
        date = calendar_time(self.now + from_now_s)
        return f"{date} ({span})" if date else span  # none after the year 9999
