"""Endpoints of a destination that has many: look at them, and act on them by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import get_args

import click
import redis

from paceline.cli import EXIT_FAILED
from paceline.cli.common import (
    Setup,
    json_option,
    pick_stores,
    print_json,
    redis_option,
    setup_options,
    who,
)
from paceline.cli.endpoint_common import FAILED, WORDS, configured, registry_of
from paceline.cli.endpoint_intake import add, import_
from paceline.cli.endpoint_words import (
    by_trouble,
    count_states,
    nearest,
    seen_table,
    seen_text,
    seen_view,
    states_text,
    unknown_endpoint,
)
from paceline.cli.words import count_of, excerpt
from paceline.endpoint_keys import EndpointKeys
from paceline.endpoint_registry import EndpointRegistry
from paceline.endpoints import State

_LISTED = 100


@click.group()
def endpoints() -> None:
    """Endpoints of a destination that has many: list, add, import, remove, enable.

    \b
    Example:
      paceline endpoints add hooks acme https://acme.example/hooks --rate 5
      paceline endpoints key hooks acme          what its owner checks signatures with
      paceline endpoints list hooks --state disabled
      paceline endpoints enable hooks acme
    """


endpoints.add_command(add)
endpoints.add_command(import_)


# -- looking ------------------------------------------------------------------------------------


@endpoints.command(
    "list",
    epilog="""\b
Examples:
  paceline endpoints list hooks
  paceline endpoints list hooks --state disabled --json | jq -r '.endpoints[].name'""",
)
@click.argument("destination", metavar="DEST")
@click.option("--state", type=click.Choice(get_args(State)), help="Only those.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"At most so many.  [default: {_LISTED}; with --json all]",
)
@json_option
@redis_option
def list_(
    client: redis.Redis, destination: str, state: State | None, limit: int | None, as_json: bool
) -> int:
    """List endpoints, those in trouble first.

    Values in the URLs' queries are left out: keys are sometimes sent there.
    """
    registry = registry_of(client, destination)
    found = sorted(registry.all(), key=by_trouble)
    counts = count_states(found)
    fitting = [seen for seen in found if state is None or seen.state == state]
    shown = fitting[: limit or (None if as_json else _LISTED)]
    if as_json:
        views = [seen_view(seen) for seen in shown]
        print_json({"destination": destination, "states": counts, "endpoints": views})
        return 0
    if shown:
        now_us = pick_stores(client, (destination,))[0].redis_now_us()
        click.echo(seen_table(shown, now_us / 1e6))
    rest = f"; {len(shown):,} shown" if len(shown) < len(found) else ""
    click.echo(f"{count_of(len(found), 'endpoint')} of {destination}: {states_text(counts)}{rest}")
    return 0


@endpoints.command(epilog="\b\nExample:\n  paceline endpoints show hooks acme")
@click.argument("destination", metavar="DEST")
@click.argument("name", metavar="NAME")
@json_option
@redis_option
def show(client: redis.Redis, destination: str, name: str, as_json: bool) -> int:
    """What is registered of one endpoint, and how it is."""
    registry = registry_of(client, destination)
    [seen] = registry.look([name])
    if seen is None:
        raise unknown_endpoint(destination, name, registry.names())
    if as_json:
        print_json({"destination": destination, **seen_view(seen)})
    else:
        now_us = pick_stores(client, (destination,))[0].redis_now_us()
        click.echo(seen_text(seen, destination, now_us / 1e6))
    return 0


@endpoints.command(epilog="\b\nExample:\n  paceline endpoints key hooks acme")
@click.argument("destination", metavar="DEST")
@click.argument("name", metavar="NAME")
@json_option
@setup_options
def key(setup: Setup, destination: str, name: str, as_json: bool) -> int:
    """Print the keys that sign an endpoint's requests, for its owner.

    One a line, the newest first: whsec_… as the libraries of Standard Webhooks take them.
    """
    with configured(setup, destination) as (its, registry):
        # A key for a name that was mistyped would fit nothing.
        if registry.find(name) is None:
            raise unknown_endpoint(destination, name, registry.names())
        texts = EndpointKeys.of(its, os.environ).texts(name)
    if as_json:
        print_json({"destination": destination, "name": name, "keys": texts})
    else:
        click.echo("\n".join(texts))
    return 0


# -- by name ------------------------------------------------------------------------------------


@endpoints.command(
    epilog="""\b
Examples:
  paceline endpoints remove hooks acme
  paceline endpoints remove hooks acme --force     though messages of it wait"""
)
@click.argument("destination", metavar="DEST")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Though messages of it wait.")
@json_option
@redis_option
def remove(
    client: redis.Redis, destination: str, names: tuple[str, ...], force: bool, as_json: bool
) -> int:
    """Remove endpoints. The exit code is 1 if any could not be: each says why.

    What waits for one that was removed by force stays until it is too old, or the endpoint is added
    again.
    """
    registry = registry_of(client, destination)

    def act(chosen: Sequence[str]) -> list[str]:
        return registry.remove(chosen, force=force, who=who())

    return _act(registry, destination, names, act, as_json)


@endpoints.command(
    epilog="""\b
Examples:
  paceline endpoints enable hooks acme
  paceline endpoints enable hooks --all-disabled"""
)
@click.argument("destination", metavar="DEST")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all-disabled", is_flag=True, help="All that are disabled.")
@json_option
@redis_option
def enable(
    client: redis.Redis,
    destination: str,
    names: tuple[str, ...],
    all_disabled: bool,
    as_json: bool,
) -> int:
    """Forget the trouble of endpoints: what waits for them is sent.

    One that fails, or waits, is tried at once. The exit code is 1 if one is unknown.
    """
    if all_disabled == bool(names):
        raise click.UsageError("name endpoints, or choose them with --all-disabled; one of the two")
    registry = registry_of(client, destination)
    if all_disabled:
        names = tuple(seen.name for seen in registry.all() if seen.state == "disabled")

    def act(chosen: Sequence[str]) -> list[str]:
        return registry.enable(chosen, who=who())

    return _act(registry, destination, names, act, as_json)


@endpoints.command(
    short_help="Send nothing to endpoints, accept nothing for them.",
    epilog='\b\nExample:\n  paceline endpoints disable hooks acme --why "they asked, ticket 4711"',
)
@click.argument("destination", metavar="DEST")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--why", default="", metavar="TEXT", help="Told to who sends to it, and shown here.")
@json_option
@redis_option
def disable(
    client: redis.Redis, destination: str, names: tuple[str, ...], why: str, as_json: bool
) -> int:
    """Send nothing to endpoints, and accept nothing for them, until they are enabled.

    What waits stays until it is too old. The exit code is 1 if one is unknown.
    """
    registry = registry_of(client, destination)
    reason = f"{excerpt(why, 150)}, by {who()}" if why.strip() else f"by {who()}"

    def act(chosen: Sequence[str]) -> list[str]:
        return registry.disable(chosen, reason, who=who())

    return _act(registry, destination, names, act, as_json)


def _act(
    registry: EndpointRegistry,
    destination: str,
    names: Sequence[str],
    act: Callable[[Sequence[str]], list[str]],
    as_json: bool,
) -> int:
    chosen = list(dict.fromkeys(names))
    words = dict(zip(chosen, act(chosen), strict=True))
    failed = any(word in FAILED for word in words.values())
    if as_json:
        print_json({"destination": destination, "endpoints": words})
        return EXIT_FAILED if failed else 0
    known = registry.names() if "unknown" in words.values() else []
    for name, word in words.items():
        near = nearest(name, known) if word == "unknown" else ""
        click.echo(f"{name}: {WORDS[word]}" + (f"; did you mean {near}?" if near else ""))
    if not words:
        click.echo(f"no endpoint of {destination} is disabled")
    return EXIT_FAILED if failed else 0
