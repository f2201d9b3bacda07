"""Dead letters and parked messages: list them, send them again, settle them, drop them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, Final, TypeVar

import click
import redis

from paceline import shelf as shelves
from paceline.cli import EXIT_FAILED
from paceline.cli.common import (
    console,
    json_option,
    on_terminal,
    pick_stores,
    print_json,
    progress,
    redis_option,
)
from paceline.cli.words import count_of, excerpt, in_words, local_time
from paceline.message import check_id
from paceline.outbox import OutboxStore
from paceline.shelf import Shelf, Shelved

F = TypeVar("F", bound=Callable[..., Any])

_CHUNK = 500
_LISTED = 50
_SHOWN_FAILURES = 20

#: Words of ``replay.lua``, ``drop.lua`` and ``attest.lua``, and ours, for people.
WORDS: Final = {
    "ready": "ready to be sent again",
    "expired": "not sent: its expiry had come, it ended as expired",
    "dropped": "dropped",
    "sent": "settled as sent",
    "not-dead": "is not dead",
    "not-parked": "is not parked",
    "unknown": "unknown: check the id",
}
_DONE: Final = frozenset({"ready", "dropped", "sent"})


def _selection(verb: str) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in (
            click.option("--limit", type=click.IntRange(1), help=f"{verb} at most so many."),
            click.option(
                "--reason",
                metavar="GLOB",
                help="Only those whose reason fits: '*code 2*', '503', 'connect*'.",
            ),
            click.option("--all", "every", is_flag=True, help=f"{verb} all."),
            click.argument("ids", metavar="[ID]...", nargs=-1),
            click.argument("destination", metavar="DEST"),
        ):
            command = option(command)
        return command

    return add


@click.group()
def dead() -> None:
    """Dead letters: list, replay, drop.

    \b
    Example:
      paceline dead list maxmd --reason 'code 2'
      paceline dead replay maxmd --all --reason 'connect*'
    """


@click.group()
def parked() -> None:
    """Messages of unknown fate: list, settle.

    The provider may have sent them: the connection broke after the request was written, and sending
    again might make a duplicate. Look at the provider's side, then decide.

    \b
    Example:
      paceline parked list maxmd
      paceline parked settle maxmd invoice-17 --as sent
    """


def _list_command(group: click.Group, shelf: Shelf, what: str) -> None:
    @group.command(
        "list",
        help=f"List {what}, with reasons.\n\nLongest there first, with the provider's last words.",
        epilog=f"\b\nExample:\n  paceline {shelf} list maxmd --limit 10 --reason '*timeout*'",
    )
    @click.argument("destination", metavar="DEST")
    @click.option(
        "--limit",
        type=click.IntRange(1),
        default=_LISTED,
        show_default=True,
        help="At most so many.",
    )
    @click.option("--reason", metavar="GLOB", help="Only those whose reason fits.")
    @json_option
    @redis_option
    def command(
        client: redis.Redis, destination: str, limit: int, reason: str | None, as_json: bool
    ) -> int:
        store = pick_stores(client, (destination,))[0]
        standing = shelves.ids(store, shelf)
        fitting = (
            entry
            for entry in shelves.read(store, shelf, standing)
            if reason is None or shelves.matches(entry, reason)
        )
        found = list(islice(fitting, limit))
        if as_json:
            messages = [{**asdict(entry), "reason": entry.reason} for entry in found]
            print_json({"destination": destination, "total": len(standing), "messages": messages})
        else:
            _print_list(destination, what, found, len(standing), store.redis_now_us() / 1e6)
        return 0


_list_command(dead, "dead", "dead letters")
_list_command(parked, "parked", "parked messages")


def _print_list(
    destination: str, what: str, found: Sequence[Shelved], total: int, now_s: float
) -> None:
    if found:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("id", "since", "age", "attempts", "reason", "last response"):
            table.add_column(name, overflow="fold", no_wrap=name in ("since", "age"))
        for entry in found:
            response = str((entry.last or {}).get("response") or "")
            table.add_row(
                entry.id,
                local_time(entry.since_s),
                in_words(max(0.0, now_s - entry.since_s)),
                str(entry.attempts),
                # Text: a provider's words may hold what rich would take for markup.
                Text(excerpt(entry.reason, 200)),
                Text(excerpt(response, 120)),
            )
        console().print(table)
    click.echo(f"{len(found):,} of {total:,} {what} of {destination}")


@dead.command(
    epilog="""\b
Examples:
  paceline dead replay maxmd invoice-17
  paceline dead replay maxmd --all --reason 'connect*'"""
)
@_selection("Replay")
@json_option
@redis_option
def replay(
    client: redis.Redis,
    destination: str,
    ids: tuple[str, ...],
    every: bool,
    limit: int | None,
    reason: str | None,
    as_json: bool,
) -> int:
    """Send dead letters again.

    As if new: tries at 0, at the end of the queue; their attempts stay on record. The exit code is
    1 if any could not be.
    """
    store = pick_stores(client, (destination,))[0]
    chosen = _choose(store, "dead", ids, every, limit, reason)
    return _act(store, "dead", chosen, store.replay, "replay", as_json)


@dead.command(
    epilog="""\b
Examples:
  paceline dead drop maxmd invoice-17
  paceline dead drop maxmd --all --reason 'code 2'"""
)
@_selection("Drop")
@json_option
@redis_option
def drop(
    client: redis.Redis,
    destination: str,
    ids: tuple[str, ...],
    every: bool,
    limit: int | None,
    reason: str | None,
    as_json: bool,
) -> int:
    """Give dead letters up, for good. They are accounted for as dropped."""
    store = pick_stores(client, (destination,))[0]
    chosen = _choose(store, "dead", ids, every, limit, reason)
    return _act(store, "dead", chosen, store.drop, "drop", as_json)


@parked.command(
    epilog="""\b
Examples:
  paceline parked settle maxmd invoice-17 --as sent     the provider did send it
  paceline parked settle maxmd --all --as retry         send them (again)"""
)
@_selection("Settle")
@click.option(
    "--as",
    "fate",
    type=click.Choice(["sent", "retry", "drop"]),
    required=True,
    help="sent: it was delivered; retry: send it again; drop: give it up.",
)
@json_option
@redis_option
def settle(
    client: redis.Redis,
    destination: str,
    ids: tuple[str, ...],
    every: bool,
    limit: int | None,
    reason: str | None,
    fate: str,
    as_json: bool,
) -> int:
    """Decide what became of parked messages."""
    store = pick_stores(client, (destination,))[0]
    act = {"sent": store.attest, "retry": store.replay, "drop": store.drop}[fate]
    chosen = _choose(store, "parked", ids, every, limit, reason)
    return _act(store, "parked", chosen, act, f"settle as {fate}", as_json)


def _choose(
    store: OutboxStore,
    shelf: Shelf,
    ids: tuple[str, ...],
    every: bool,
    limit: int | None,
    reason: str | None,
) -> list[str]:
    """The ids to act on: those named, or all that fit. Raises UsageError, InvalidMessage."""
    if ids:
        if every or limit is not None or reason is not None:
            raise click.UsageError("name ids, or choose by --all, --reason and --limit; not both")
        return [check_id(message_id) for message_id in dict.fromkeys(ids)]
    if not every and reason is None:
        raise click.UsageError("name ids, or choose with --all or --reason GLOB")
    standing = shelves.ids(store, shelf)
    if reason is None:
        return [message_id for message_id, _ in standing[:limit]]
    fitting = (e.id for e in shelves.read(store, shelf, standing) if shelves.matches(e, reason))
    return list(islice(fitting, limit))


def _act(
    store: OutboxStore,
    shelf: Shelf,
    chosen: Sequence[str],
    act: Callable[[Sequence[str]], list[str]],
    verb: str,
    as_json: bool,
) -> int:
    """In chunks; one word an id. Only what stands on ``shelf`` is touched."""
    words: dict[str, str] = {}
    label = f"{verb} {store.destination}"
    with progress(label, len(chosen), shown=on_terminal(as_json=as_json)) as advance:
        for start in range(0, len(chosen), _CHUNK):
            piece = chosen[start : start + _CHUNK]
            words |= _act_on(store, shelf, piece, act)
            advance(len(piece))
    failed = {message_id: word for message_id, word in words.items() if word not in _DONE}
    counts = Counter(words.values())
    if as_json:
        print_json({"destination": store.destination, "counts": counts, "failed": failed})
        return EXIT_FAILED if failed else 0
    for word, count in sorted(counts.items()):
        click.echo(f"{count_of(count, 'message')}: {WORDS.get(word, word)}")
    for message_id, word in islice(failed.items(), _SHOWN_FAILURES):
        click.echo(f"{message_id}: {WORDS.get(word, word)}", err=True)
    if not words:
        click.echo(f"nothing to {verb}: none fits")
    return EXIT_FAILED if failed else 0


def _act_on(
    store: OutboxStore,
    shelf: Shelf,
    piece: Sequence[str],
    act: Callable[[Sequence[str]], list[str]],
) -> dict[str, str]:
    # The scripts take dead and parked alike; who says "dead" must not touch a parked one.
    words = {}
    standing = []
    for message_id, found in zip(piece, store.look(piece), strict=True):
        if found is None:
            words[message_id] = "unknown"
        elif found[0].state != shelf:
            words[message_id] = f"not-{shelf}"
        else:
            standing.append(message_id)
    return words | dict(zip(standing, act(standing), strict=True))
