"""``paceline bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from paceline.bench.merge.command import merge
from paceline.bench.pacing.command import pacing
from paceline.bench.plan import CONTESTANTS, SECTIONS, Plan
from paceline.bench.progress import telling
from paceline.bench.report import as_markdown, as_text
from paceline.bench.run import bench as run_bench
from paceline.bench.work_folder import work_folder
from paceline.cli.common import print_json, redis_errors
from paceline.cli.runs import sigterm_interrupts

_DEFAULT = Plan()
_POLICIES = {"always": ("always",), "everysec": ("everysec",), "both": ("always", "everysec")}

_EPILOG = """\b
Examples:
  paceline bench                                 all of it
  paceline bench --pairs 3 --fsync always --only naive --only paceline-2
  paceline bench --only backlog --backlog 100000
  paceline bench --only events --fsync always    what delivery events cost
  paceline bench --markdown > figures.md
  paceline bench pacing                          how well the pace is kept
  paceline bench merge                           millions a minute, in and out
"""


@click.group(
    short_help="What a message costs, beside others.", epilog=_EPILOG, invoke_without_command=True
)
@click.option(
    "--pairs",
    type=click.IntRange(1, 100),
    default=_DEFAULT.pairs,
    show_default=True,
    help="Turns of each contestant.",
)
@click.option(
    "--messages",
    type=click.IntRange(10, 200_000),
    default=_DEFAULT.messages,
    show_default=True,
    help="Messages in each turn; RQ alone gets a quarter.",
)
@click.option(
    "--backlog",
    type=click.IntRange(0, 5_000_000),
    default=_DEFAULT.backlog,
    show_default=True,
    help="Messages standing behind; 0 leaves that section out.",
)
@click.option(
    "--sends",
    type=click.IntRange(1, 10_000),
    default=_DEFAULT.sends,
    show_default=True,
    help="Single sends whose latency is measured.",
)
@click.option(
    "--fill",
    type=click.IntRange(100, 1_000_000),
    default=_DEFAULT.fill,
    show_default=True,
    help="Messages that memory is measured with.",
)
@click.option(
    "--fsync",
    type=click.Choice(list(_POLICIES)),
    default="both",
    show_default=True,
    help="Redis's appendfsync.",
)
@click.option(
    "--only",
    type=click.Choice([*CONTESTANTS, *SECTIONS]),
    multiple=True,
    help="Only this contestant or section; may be repeated.",
)
@click.option("--seed", type=int, default=_DEFAULT.seed, show_default=True, help="Of the gaps.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run here, and keep it; must be new or empty.  [default: a temporary folder]",
)
@click.option("--check", is_flag=True, help="Exit with 1 when a bar is missed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, raw numbers with it.")
@click.option("--markdown", is_flag=True, help="Print Markdown tables.")
@click.pass_context
def bench(
    context: click.Context,
    /,
    folder: Path | None,
    check: bool,
    as_json: bool,
    markdown: bool,
    fsync: str,
    **asked: Any,
) -> int:
    """What a message costs, beside a naive loop and RQ alone, on this machine.

    One sink without latency or faults, and in turn on it: a one-thread requests loop, RQ's
    SimpleWorker with one job a message, Paceline with one worker and with two. Then: memory of a
    waiting message, latency of a single one, the cost with delivery events, and with a backlog
    standing behind. Raw numbers are printed, and beside each figure its bar, where it has one.

    Leave the machine alone meanwhile: load and stolen CPU time are in the report.
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return 0
    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    if "backlog" in asked["only"] and not asked["backlog"]:
        raise click.UsageError("--only backlog needs a --backlog above 0")
    plan = Plan(fsync=_POLICIES[fsync], **asked)  # type: ignore[arg-type]
    with work_folder(folder) as here, sigterm_interrupts(), telling() as tell, redis_errors():
        report = run_bench(plan, here, tell)
    if as_json:
        print_json(report.as_dict())
    else:
        click.echo(as_markdown(report) if markdown else as_text(report), nl=False)
    return 1 if check and report.missed else 0


def _refuse_options(context: click.Context) -> None:
    """An option before the subcommand's name would be dropped without a word."""
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = "--" + {"as_json": "json"}.get(name, name)
            raise click.UsageError(f"{option} belongs behind {context.invoked_subcommand}")


bench.add_command(merge)
bench.add_command(pacing)
