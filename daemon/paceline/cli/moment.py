"""A moment as people give it: ``09:00``, an ISO 8601 date-time, or a span from now. Pure but for
the local time zone."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from typing import Any

import click

from paceline.cli.common import DURATION
from paceline.cli.words import in_words

_CLOCK = re.compile(r"(\d\d?):(\d\d)(?::(\d\d))?", re.ASCII)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*", re.ASCII)
_MEND = (
    "Write 09:00 (the next one, local time), 2026-11-30T09:00 or 2026-11-30T09:00+01:00, or a span "
    "from now: 2h"
)


def parse_moment(text: str, now: float) -> float:
    """Unix seconds of ``text``, always after ``now`` (unix seconds).

    ``HH:MM[:SS]`` is the next such moment of local time; a date-time without an offset is local
    too; ``2h`` or ``in 2h`` counts from now. Raises ValueError, in words for people.
    """
    text = text.strip()
    try:
        moment = _read(text, now)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is no time. {_MEND}") from None
    if moment <= now:
        raise ValueError(f"{text!r} is past, by {in_words(now - moment)}. Write a later time")
    return moment


def _read(text: str, now: float) -> float:
    if clock := _CLOCK.fullmatch(text):
        hour, minute, second = (int(part or 0) for part in clock.groups())
        today = datetime.fromtimestamp(now).replace(
            hour=hour, minute=minute, second=second, microsecond=0
        )
        # A day of local time, not 24 hours: the clock may be changed tonight.
        moment = today.timestamp()
        return moment if moment > now else (today + timedelta(days=1)).timestamp()
    if _DATE_TIME.fullmatch(text):
        return datetime.fromisoformat(text.upper()).timestamp()
    try:
        return now + DURATION.convert(text.removeprefix("in ").strip(), None, None)
    except click.BadParameter as error:
        raise ValueError(error.message) from None


class _Moment(click.ParamType[float]):
    """As ``parse_moment``, in unix seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_moment(str(value), time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


MOMENT = _Moment()
