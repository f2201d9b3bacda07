"""Campaigns: list them, show one, pause, resume, cancel it."""

from __future__ import annotations

import sys
from typing import Any

import click
import redis

from paceline import campaign_desk as desk
from paceline.campaigns import STATES, Campaign, CampaignTotals
from paceline.cli import EXIT_FAILED
from paceline.cli.common import (
    console,
    json_option,
    on_terminal,
    pick_stores,
    print_json,
    progress,
    redis_option,
    who,
)
from paceline.cli.words import count_of, excerpt, in_words, local_time
from paceline.message import check_label
from paceline.outbox import OutboxStore


@click.group()
def campaign() -> None:
    """Campaigns: list, show, pause, resume, cancel.

    \b
    Example:
      paceline campaign list maxmd
      paceline campaign pause maxmd spring --reason "wrong subject"
    """


@campaign.command(
    "list",
    short_help="List the campaigns of a destination.",
    epilog="\b\nExample:\n  paceline campaign list maxmd",
)
@click.argument("destination", metavar="DEST")
@json_option
@redis_option
def list_(client: redis.Redis, destination: str, as_json: bool) -> int:
    """List the campaigns that have live messages, are paused, or ended not long ago."""
    found = desk.listed(pick_stores(client, (destination,))[0])
    if as_json:
        print_json({"destination": destination, "campaigns": [_totals_view(it) for it in found]})
    else:
        _print_list(destination, found)
    return 0


@campaign.command(epilog="\b\nExample:\n  paceline campaign show maxmd spring")
@click.argument("destination", metavar="DEST")
@click.argument("name", metavar="NAME")
@json_option
@redis_option
def show(client: redis.Redis, destination: str, name: str, as_json: bool) -> int:
    """Where a campaign's messages are, and when it will be done.

    Looks at each of them. The exit code is 1 where nothing is known of it.
    """
    store = pick_stores(client, (destination,))[0]
    brief = desk.totals(store, check_label("campaign", name))
    label = f"look through {name}"
    with progress(label, brief.live, shown=on_terminal(as_json=as_json)) as advance:
        found = desk.look(store, name, advance)
    if as_json:
        print_json(_view(found))
    else:
        click.echo(_text(found))
    if found.known:
        return 0
    click.echo(f"All that are known: paceline campaign list {destination}", err=True)
    return EXIT_FAILED


@campaign.command(
    epilog="""\b
Examples:
  paceline campaign pause maxmd spring --reason "wrong subject"
  paceline campaign resume maxmd spring"""
)
@click.argument("destination", metavar="DEST")
@click.argument("name", metavar="NAME")
@click.option("--reason", default="", metavar="TEXT", help="Shown with the campaign.")
@json_option
@redis_option
def pause(client: redis.Redis, destination: str, name: str, reason: str, as_json: bool) -> int:
    """Let nothing more of a campaign go out, until it is resumed.

    Requests on the wire end as they end; nothing new begins. Its messages are still accepted, and
    wait too. Ctrl-C leaves it paused: the daemon does the rest.
    """
    store, brief = _named(client, destination, name)
    with progress(f"pause {name}", brief.live, shown=on_terminal(as_json=as_json)) as advance:
        changed = desk.pause(store, name, why=reason, who=who(), advance=advance)
    return _told(store, name, "paused" if changed else "was paused already", as_json)


@campaign.command(
    short_help="Let a paused campaign go on.",
    epilog="\b\nExample:\n  paceline campaign resume maxmd spring",
)
@click.argument("destination", metavar="DEST")
@click.argument("name", metavar="NAME")
@json_option
@redis_option
def resume(client: redis.Redis, destination: str, name: str, as_json: bool) -> int:
    """Let a paused campaign go on: its messages are back at their places in the queue.

    Ctrl-C leaves it resumed: the daemon does the rest.
    """
    store, brief = _named(client, destination, name)
    with progress(f"resume {name}", brief.live, shown=on_terminal(as_json=as_json)) as advance:
        changed = desk.resume(store, name, who=who(), advance=advance)
    return _told(store, name, "resumed" if changed else "was not paused", as_json)


@campaign.command(
    epilog="""\b
Examples:
  paceline campaign cancel maxmd spring          asks for the name first
  paceline campaign cancel maxmd spring --yes"""
)
@click.argument("destination", metavar="DEST")
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@redis_option
def cancel(client: redis.Redis, destination: str, name: str, yes: bool, as_json: bool) -> int:
    """Cancel all messages of a campaign. It cannot be undone.

    Those that may be on the wire are not tried again should their attempt fail; the exit code is 1
    if there are any. Dead and parked ones stay. New ones are still accepted: pause it too, or stop
    their source.
    """
    store, brief = _named(client, destination, name)
    if not yes:
        _ask(brief)
    with progress(f"cancel {name}", brief.live, shown=on_terminal(as_json=as_json)) as advance:
        counts = desk.cancel(store, name, advance)
    if as_json:
        print_json({"destination": destination, "campaign": name, "counts": counts})
    else:
        click.echo(f"cancelled {count_of(counts['cancelled'], 'message')} of {name}")
        if counts["begun"]:
            click.echo(
                f"{counts['begun']:,} may be on the wire: not tried again should they fail",
                err=True,
            )
        for shelf, verb in (("dead", "dead drop"), ("parked", "parked settle")):
            if counts[shelf]:
                click.echo(f"{counts[shelf]:,} {shelf}: paceline {verb} {destination}", err=True)
    return EXIT_FAILED if counts["begun"] else 0


def _named(client: redis.Redis, destination: str, name: str) -> tuple[OutboxStore, CampaignTotals]:
    store = pick_stores(client, (destination,))[0]
    return store, desk.totals(store, check_label("campaign", name))


def _ask(brief: CampaignTotals) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("it cancels messages for good: confirm with --yes")
    typed = click.prompt(
        f"This cancels {count_of(brief.live, 'message')} of {brief.destination} for good. "
        "Type the campaign's name to go on",
        err=True,
    )
    if typed.strip() != brief.name:
        raise click.UsageError(f"{typed!r} is not {brief.name!r}: nothing was cancelled")


def _told(store: OutboxStore, name: str, word: str, as_json: bool) -> int:
    now = desk.totals(store, name)
    if as_json:
        print_json({"done": word, **_totals_view(now)})
    else:
        click.echo(f"{name} {word}; {count_of(now.live, 'message')} of it have not ended")
    return 0


def _totals_view(it: CampaignTotals) -> dict[str, Any]:
    """For --json; times in unix seconds."""
    pause = it.pause
    return {
        "campaign": it.name,
        "live": it.live,
        **it.totals,
        "paused": pause is not None,
        "paused_since": pause and pause.since_s,
        "paused_by": pause and pause.who,
        "paused_reason": pause and pause.why,
        "under_way": it.under_way,
    }


def _view(it: Campaign) -> dict[str, Any]:
    """For --json; ETAs in seconds, null where something must be done first."""
    return {
        "destination": it.destination,
        **_totals_view(it),
        "states": dict(it.states),
        "soonest_s": it.soonest_s,
        "latest_s": it.latest_s,
    }


def _print_list(destination: str, found: list[CampaignTotals]) -> None:
    if found:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, head in enumerate(("campaign", "came", "sent", "live", "paused")):
            table.add_column(head, justify="right" if 0 < place < 4 else "left", overflow="fold")
        for it in found:
            table.add_row(
                it.name,
                *(f"{n:,}" for n in (_came(it), it.totals["sent"], it.live)),
                _pause_words(it),
            )
        console().print(table)
    click.echo(f"{count_of(len(found), 'campaign')} of {destination}")


def _text(it: Campaign) -> str:
    if not it.known:
        return f"nothing is known of the campaign {it.name} of {it.destination}"
    ended = (f"{n:,} {word}" for word, n in list(it.totals.items())[2:] if n)
    lines = [
        f"{it.name}: {it.totals['sent']:,} of {_came(it):,} sent",
        "  live        " + ", ".join(f"{it.states[name]:,} {name}" for name in STATES),
        "  ended       " + (", ".join(ended) or "none"),
    ]
    if it.pause:
        lines.append(f"  paused      {_pause_words(it)}")
    if it.under_way:
        lines.append("  under way   the last pause or resume has not reached all of it yet")
    if it.waiting:
        lines.append(f"  done in     {_eta_words(it)}")
    return "\n".join(lines)


def _came(it: CampaignTotals) -> int:
    return it.totals["accepted"] + it.totals["moved_in"]


def _pause_words(it: CampaignTotals) -> str:
    if it.pause is None:
        return ""
    by = f" by {it.pause.who}" if it.pause.who else ""
    why = f": {excerpt(it.pause.why, 200)}" if it.pause.why else ""
    return f"since {local_time(it.pause.since_s)}{by}{why}"


def _eta_words(it: Campaign) -> str:
    if it.soonest_s is None or it.latest_s is None:
        return f"?  paceline status {it.destination} tells what must be done first"
    if round(it.latest_s) == round(it.soonest_s):
        return in_words(it.soonest_s)
    return f"{in_words(it.soonest_s)} at the soonest, {in_words(it.latest_s)} after all before it"
