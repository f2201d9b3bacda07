"""The command ``events``: what happens to a destination's messages, as it is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import get_args

import click
import msgspec
import redis

from paceline.cli.common import DURATION, interrupts, json_option, pick_stores, redis_option
from paceline.cli.words import excerpt, in_words, local_time
from paceline.client import Outbox
from paceline.errors import InvalidMessage
from paceline.event_reader import position_of
from paceline.events import Event, EventKind

#: How soon Ctrl-C is seen while nothing happens.
_LOOK_S = 0.25
#: Of a text that others wrote.
_MOST = 500


@click.command(
    epilog="""\b
Examples:
  paceline events maxmd                          all that is kept
  paceline events maxmd --from 10m --kind dead   dead letters of the last ten minutes
  paceline events maxmd --follow --json | jq .   from now on, one JSON document a line

Ctrl-C ends it. Events are off unless [destinations.DEST.events] is configured."""
)
@click.argument("destination", metavar="DEST")
@click.option("--follow", "-f", is_flag=True, help="Go on, with what happens from now on.")
@click.option(
    "--from",
    "start",
    metavar="PLACE",
    help="first, now, so long ago (10m), or the entry after which to begin.  "
    "[default: first; with --follow now]",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(get_args(EventKind)),
    multiple=True,
    help="Only these; may be given several times.",
)
@json_option
@redis_option
def events(
    client: redis.Redis,
    destination: str,
    follow: bool,
    start: str | None,
    kinds: tuple[str, ...],
    as_json: bool,
) -> int:
    """What happens to the messages of a destination, one line an event."""
    now_us = pick_stores(client, (destination,))[0].redis_now_us()
    text = start or ("now" if follow else "first")
    try:
        after = position_of(client, destination, _place(text, now_us))
    except (InvalidMessage, click.BadParameter) as error:
        raise click.BadParameter(
            f"{text!r} is no place in the stream. Give first, now, so long ago (10m), or an entry",
            param_hint="'--from'",
        ) from error
    outbox = Outbox(client)
    try:
        with interrupts() as was_asked:
            for event in _told(outbox, destination, after, follow, was_asked):
                if not kinds or event.kind in kinds:
                    click.echo(msgspec.json.encode(event) if as_json else event_text(event))
    except BrokenPipeError:
        # `| head` has seen enough. Nothing more may be written, or Python complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _told(
    outbox: Outbox, destination: str, after: str, follow: bool, was_asked: Callable[[], bool]
) -> Iterator[Event]:
    while True:
        for event in outbox.events(destination, start=after, block_s=_LOOK_S if follow else 0):
            if was_asked():
                return
            after = event.entry
            yield event
        if not follow or was_asked():
            return


def _place(text: str, now_us: int) -> str:
    """As ``position_of`` takes it: a span is so long ago."""
    if text[-1:] not in "smhd":
        return text
    ago_s = DURATION.convert(text, None, None)
    return str(max(0, round(now_us / 1e3 - 1e3 * ago_s)))


def event_text(event: Event) -> str:
    """One line for people. Whoever may write to the stream may write anything into it."""
    parts = [local_time(event.at), f"{excerpt(event.kind, 40):<9}", excerpt(event.id, _MOST)]
    if event.status is not None:
        parts.append(str(event.status))
    if event.latency_s is not None:
        parts.append(f"in {in_words(event.latency_s)}")
    if event.attempt is not None:
        parts.append(f"attempt {event.attempt}")
    if event.provider_id is not None:
        word = "to" if event.kind == "moved" else "as"
        parts.append(f"{word} {excerpt(event.provider_id, _MOST)}")
    if event.request is not None:
        parts.append(f"in request {excerpt(event.request, _MOST)}")
    if event.reason is not None:
        parts.append(f"({excerpt(event.reason, _MOST)})")
    return "  ".join(parts)
