"""Commands that register endpoints: add, import."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import IO

import click

from paceline.cli import EXIT_FAILED
from paceline.cli.common import (
    Setup,
    json_option,
    on_terminal,
    print_json,
    progress,
    setup_options,
    who,
)
from paceline.cli.endpoint_common import FAILED, WORDS, configured
from paceline.cli.endpoint_file import EndpointFile, checked, read_endpoints
from paceline.cli.words import count_of
from paceline.endpoint_registry import EndpointRegistry

_CHUNK = 1000
_SHOWN_PROBLEMS = 100


@click.command(
    short_help="Register an endpoint, or change it whole.",
    epilog="""\b
Examples:
  paceline endpoints add hooks acme https://acme.example/hooks
  paceline endpoints add hooks bolt https://bolt.example/in --rate 5 --ordered""",
)
@click.argument("destination", metavar="DEST")
@click.argument("name", metavar="NAME")
@click.argument("url", metavar="URL")
@click.option("--in-flight", type=int, help="Requests to it at the same time, over all workers.")
@click.option("--rate", type=float, help="Requests per second; 0 for no cap.")
@click.option("--burst", type=int, help="Requests at once, of that rate.")
@click.option("--ordered", is_flag=True, help="Its messages go one after the other.")
@json_option
@setup_options
def add(
    setup: Setup,
    destination: str,
    name: str,
    url: str,
    in_flight: int | None,
    rate: float | None,
    burst: int | None,
    ordered: bool,
    as_json: bool,
) -> int:
    """Register an endpoint, or register it anew: what is not given is as for all.

    What the configuration refuses of URLs is refused here too.
    """
    given = {"in_flight": in_flight, "rate": rate, "burst": burst, "ordered": ordered or None}
    table = {"url": url, **{k: value for k, value in given.items() if value is not None}}
    with configured(setup, destination) as (its, registry):
        endpoint = checked(its, name, table, f"endpoint of {destination}")
        [word] = registry.put({name: endpoint}, who())
    if as_json:
        print_json({"destination": destination, "endpoints": {name: word}})
        return 0
    click.echo(f"{name}: {WORDS[word]}")
    if word == "new":
        click.echo(f"Its owner's key: paceline endpoints key {destination} {name}")
    return 0


@click.command(
    "import",
    epilog="""\b
Examples:
  paceline endpoints import hooks endpoints.jsonl
  paceline endpoints import hooks all.jsonl --prune --yes

\b
A line:
  {"name": "acme", "url": "https://acme.example/hooks"}
also: in_flight, rate, burst, ordered.

Exit codes: 0 all is registered; 1 some lines are bad, and the others registered; or one that was to
be removed is not, for messages of it wait.""",
)
@click.argument("destination", metavar="DEST")
@click.argument("file", type=click.File("rb"))
@click.option("--prune", is_flag=True, help="Remove the endpoints that the file does not name.")
@click.option("--yes", is_flag=True, help="Do not ask before removing.")
@json_option
@setup_options
def import_(
    setup: Setup, destination: str, file: IO[bytes], prune: bool, yes: bool, as_json: bool
) -> int:
    """Register the endpoints of a JSON Lines file.

    Of a bad line nothing is taken, the good ones are. With --prune nothing is removed while any
    line is bad: it may be the one that names it.
    """
    if yes and not prune:
        raise click.UsageError("--yes goes with --prune")
    with configured(setup, destination) as (its, registry):
        found = read_endpoints(file, its)
        surplus = sorted(set(registry.names()) - set(found.good)) if prune else []
        if found.problems:
            surplus = []
        elif surplus and not yes:
            _ask(destination, surplus, given=file is not sys.stdin.buffer)
        words = _put(registry, found, destination, as_json=as_json)
        gone = dict(zip(surplus, registry.remove(surplus, who=who()), strict=True))
    return _report_import(destination, found, words, gone, prune=prune, as_json=as_json)


def _put(
    registry: EndpointRegistry, found: EndpointFile, destination: str, *, as_json: bool
) -> list[str]:
    words: list[str] = []
    items = iter(found.good.items())
    shown = on_terminal(as_json=as_json)
    with progress(f"import {destination}", len(found.good), shown=shown) as advance:
        while piece := dict(islice(items, _CHUNK)):
            words += registry.put(piece, who())
            advance(len(piece))
    return words


def _ask(destination: str, surplus: Sequence[str], *, given: bool) -> None:
    if not given or not sys.stdin.isatty():
        raise click.UsageError(
            f"--prune would remove {count_of(len(surplus), 'endpoint')} of {destination} "
            f"({_some(surplus)}): confirm with --yes. Nothing was changed"
        )
    what = f"Remove {count_of(len(surplus), 'endpoint')} of {destination}: {_some(surplus)}"
    if not click.confirm(what, err=True):
        raise click.UsageError("Nothing was changed")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _report_import(
    destination: str,
    found: EndpointFile,
    words: Sequence[str],
    gone: Mapping[str, str],
    *,
    prune: bool,
    as_json: bool,
) -> int:
    counts = {word: words.count(word) for word in ("new", "changed", "same")}
    left = [name for name, word in gone.items() if word in FAILED]
    code = EXIT_FAILED if found.problems or left else 0
    if as_json:
        print_json(
            {
                "destination": destination,
                "read": found.read,
                **counts,
                "removed": [name for name in gone if name not in left],
                "not_removed": left,
                "problems": [problem.view() for problem in found.problems],
            }
        )
        return code
    for problem in found.problems[:_SHOWN_PROBLEMS]:
        click.echo(f"paceline: {problem.text}", err=True)
    if len(found.problems) > _SHOWN_PROBLEMS:
        rest = len(found.problems) - _SHOWN_PROBLEMS
        click.echo(f"paceline: and {rest:,} more problems (--json shows all)", err=True)
    removed = f", {len(gone) - len(left):,} removed" if prune else ""
    click.echo(
        f"{count_of(len(words), 'endpoint')} registered for {destination}: {counts['new']:,} new, "
        f"{counts['changed']:,} changed, {counts['same']:,} as before{removed}"
    )
    for name in left:
        click.echo(f"paceline: {name}: {WORDS[gone[name]]}", err=True)
    if found.problems:
        pruned = "; nothing was removed, for one of them may be meant" if prune else ""
        bad = count_of(found.bad_lines, "bad line")
        click.echo(f"paceline: {bad} of {found.read:,} left out, as told above{pruned}", err=True)
    return code
