"""An operator's hand: pause, hold, resume, drain, cancel, purge."""

from __future__ import annotations

import sys
import time
from typing import Final, Literal

import click
import redis

from paceline.cli import EXIT_FAILED, explain
from paceline.cli.common import (
    DURATION,
    json_option,
    on_terminal,
    pick_stores,
    print_json,
    progress,
    redis_option,
    who,
)
from paceline.cli.words import count_of, in_words
from paceline.message import check_id
from paceline.outbox import OutboxStore

#: Words of ``cancel.lua``, for people.
CANCEL_WORDS: Final = {
    "cancelled": "cancelled",
    "begun": "may be on the wire: not cancelled, but not tried again should this attempt fail",
    "ended": "has ended already",
    "dead": "is dead: drop it with paceline dead drop",
    "parked": "is parked: settle it with paceline parked settle",
    "unknown": "unknown: check the id; records of sent messages are kept for record_ttl_s only",
}

_PURGE_CHUNK = 500
_CANCEL_CHUNK = 500
_POLL_S = 0.25

_for_option = click.option(
    "--for", "for_s", type=DURATION, help="How long, as 90s, 10m, 2h, 1d.  [default: until resumed]"
)
_reason_option = click.option("--reason", default="", metavar="TEXT", help="Shown in status.")


@click.command(
    epilog="""\b
Examples:
  paceline pause maxmd --for 10m --reason "provider's maintenance"
  paceline resume maxmd"""
)
@click.argument("destination", metavar="DEST")
@_for_option
@_reason_option
@json_option
@redis_option
def pause(
    client: redis.Redis, destination: str, for_s: float | None, reason: str, as_json: bool
) -> int:
    """Let nothing more go out for a while, or until resumed.

    Requests on the wire end as they end; nothing new begins. Messages are still accepted.
    """
    return _close(client, destination, "pause", for_s, reason, as_json)


@click.command(
    epilog="""\b
Examples:
  paceline hold maxmd --reason "account locked, ticket 4711"
  paceline resume maxmd"""
)
@click.argument("destination", metavar="DEST")
@_for_option
@_reason_option
@json_option
@redis_option
def hold(
    client: redis.Redis, destination: str, for_s: float | None, reason: str, as_json: bool
) -> int:
    """Stop sending because of the provider, until resumed or for a while.

    Works like pause and is told apart in status: workers set the same hold by themselves when the
    provider refuses the account (401, 403, a redirect).
    """
    return _close(client, destination, "hold", for_s, reason, as_json)


def _close(
    client: redis.Redis,
    destination: str,
    how: Literal["pause", "hold"],
    for_s: float | None,
    reason: str,
    as_json: bool,
) -> int:
    store = pick_stores(client, (destination,))[0]
    word = store.hold(how, for_s=for_s, why=reason, who=who())[0]
    census = store.census()
    if as_json:
        print_json(
            {
                "destination": destination,
                "done": word,
                "for_s": for_s,
                "leased": census.law["leased"],
                "unfinished": census.unfinished,
            }
        )
        return 0
    span = "until resumed" if for_s is None else f"for {in_words(for_s)}"
    click.echo(
        f"{destination} is {word} {span}; unfinished: {count_of(census.unfinished, 'message')}; "
        f"what is on the wire is finished. End it with: paceline resume {destination}"
    )
    return 0


@click.command(epilog="\b\nExample:\n  paceline resume maxmd")
@click.argument("destination", metavar="DEST")
@json_option
@redis_option
def resume(client: redis.Redis, destination: str, as_json: bool) -> int:
    """Lift pauses, holds and drains, also the holds that the provider's answers set."""
    store = pick_stores(client, (destination,))[0]
    lifted = store.hold("resume", who=who())
    if as_json:
        print_json({"destination": destination, "lifted": lifted})
    elif lifted:
        click.echo(f"{destination} is open again; lifted: {', '.join(lifted)}")
    else:
        click.echo(f"{destination} was open: nothing to lift")
    return 0


@click.command(
    epilog="""\b
Examples:
  paceline drain maxmd --wait
  paceline resume maxmd         takes messages again"""
)
@click.argument("destination", metavar="DEST")
@click.option("--wait", is_flag=True, help="Wait until nothing is left to send.")
@click.option(
    "--timeout", "timeout_s", type=DURATION, help="Give up waiting after this; the drain stays on."
)
@_reason_option
@json_option
@redis_option
def drain(
    client: redis.Redis,
    destination: str,
    wait: bool,
    timeout_s: float | None,
    reason: str,
    as_json: bool,
) -> int:
    """Take nothing new, finish what waits.

    With --wait, Ctrl-C ends the waiting and leaves the drain on.
    """
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout is how long to wait: add --wait")
    store = pick_stores(client, (destination,))[0]
    store.hold("drain", why=f"{reason}, by {who()}" if reason else f"by {who()}", who=who())
    if not as_json:
        click.echo(
            f"{destination} is draining and takes nothing new. "
            f"End it with: paceline resume {destination}"
        )
    if wait:
        try:
            left = _wait_drained(store, timeout_s, as_json=as_json)
        except KeyboardInterrupt:
            click.echo(f"The drain of {destination} stays on.", err=True)
            raise
    else:
        left = store.census().unfinished
    if as_json:
        print_json({"destination": destination, "done": "draining", "unfinished": left})
    elif wait:
        told = f"not drained: {count_of(left, 'message')} left; the drain stays on"
        click.echo(told if left else "drained: nothing is left to send")
    else:
        click.echo(f"{count_of(left, 'message')} left to send")
    return EXIT_FAILED if wait and left else 0


def _wait_drained(store: OutboxStore, timeout_s: float | None, *, as_json: bool) -> int:
    """Returns when nothing is unfinished or the time is over; says what holds it up, once each."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    census = store.census()
    left = census.unfinished
    told = "rate"
    with progress(
        f"drain {store.destination}", left, shown=on_terminal(as_json=as_json)
    ) as advance:
        while census.unfinished and (end is None or time.monotonic() < end):
            why = explain.why_waits(census)
            if why.code not in (told, "rate", "connections", "nothing"):
                click.echo(f"waits: {why.text}", err=True)
                told = why.code
            time.sleep(_POLL_S)
            census = store.census()
            # Retries make it grow again for a moment.
            advance(max(0, left - census.unfinished))
            left = min(left, census.unfinished)
    return census.unfinished


@click.command(
    epilog="""\b
Examples:
  paceline cancel maxmd invoice-17 invoice-18
  paceline cancel maxmd --json $(cat ids.txt)"""
)
@click.argument("destination", metavar="DEST")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@json_option
@redis_option
def cancel(client: redis.Redis, destination: str, ids: tuple[str, ...], as_json: bool) -> int:
    """Cancel messages by id.

    The exit code is 1 if any could not be cancelled: each says why.
    """
    store = pick_stores(client, (destination,))[0]
    checked = [check_id(message_id) for message_id in ids]
    words: dict[str, str] = {}
    for start in range(0, len(checked), _CANCEL_CHUNK):
        piece = checked[start : start + _CANCEL_CHUNK]
        words |= dict(zip(piece, store.cancel(piece), strict=True))
    if as_json:
        print_json({"destination": destination, "messages": words})
    else:
        for message_id, word in words.items():
            click.echo(f"{message_id}: {CANCEL_WORDS.get(word, word)}")
    return 0 if all(word == "cancelled" for word in words.values()) else EXIT_FAILED


@click.command(
    epilog="""\b
Examples:
  paceline purge maxmd          asks for the name first
  paceline purge maxmd --yes"""
)
@click.argument("destination", metavar="DEST")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@redis_option
def purge(client: redis.Redis, destination: str, yes: bool, as_json: bool) -> int:
    """Drop everything that waits, ready and scheduled. It cannot be undone.

    What workers hold is finished; dead and parked messages stay.
    """
    store = pick_stores(client, (destination,))[0]
    law = store.census().law
    waiting = law["ready"] + law["scheduled"]
    if not yes:
        _ask(destination, waiting)
    dropped = 0
    with progress(f"purge {destination}", waiting, shown=on_terminal(as_json=as_json)) as advance:
        while count := store.purge(_PURGE_CHUNK):
            dropped += count
            advance(count)
    leased = store.census().law["leased"]
    if as_json:
        print_json({"destination": destination, "dropped": dropped, "leased": leased})
    else:
        click.echo(
            f"dropped {count_of(dropped, 'message')} of {destination}"
            + (f"; {leased:,} are with workers and are finished" if leased else "")
        )
    return 0


def _ask(destination: str, waiting: int) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("purge drops messages for good: confirm with --yes")
    typed = click.prompt(
        f"This drops {count_of(waiting, 'message')} of {destination} for good. "
        "Type its name to go on",
        err=True,
    )
    if typed.strip() != destination:
        raise click.UsageError(f"{typed!r} is not {destination!r}: nothing was dropped")
