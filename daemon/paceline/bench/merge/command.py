"""``paceline bench merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paceline.bench.merge.plan import MergePlan
from paceline.bench.merge.report import as_markdown, as_text
from paceline.bench.merge.run import bench_merge as run_bench
from paceline.bench.progress import telling
from paceline.bench.work_folder import work_folder
from paceline.cli.common import print_json, redis_errors
from paceline.cli.runs import sigterm_interrupts

_DEFAULT = MergePlan()

_EPILOG = """\b
Examples:
  paceline bench merge                                 all of it
  paceline bench merge --messages 100000 --pairs 1
  paceline bench merge --json > merge.json
"""


@click.command(short_help="Millions a minute: intake, drain, and Redis's floor.", epilog=_EPILOG)
@click.option(
    "--messages",
    type=click.IntRange(100, 5_000_000),
    default=_DEFAULT.messages,
    show_default=True,
    help="Messages in each measurement.",
)
@click.option(
    "--pairs",
    type=click.IntRange(1, 100),
    default=_DEFAULT.pairs,
    show_default=True,
    help="Turns of all three.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 16),
    default=_DEFAULT.workers,
    show_default=True,
    help="Worker processes that drain.",
)
@click.option(
    "--most",
    type=click.IntRange(2, 10_000),
    default=_DEFAULT.most,
    show_default=True,
    help="Messages in one request, at most, where they are merged.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run here, and keep it; must be new or empty.  [default: a temporary folder]",
)
@click.option("--check", is_flag=True, help="Exit with 1 when a bar is missed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, raw numbers with it.")
@click.option("--markdown", is_flag=True, help="Print Markdown tables.")
def merge(folder: Path | None, check: bool, as_json: bool, markdown: bool, **asked: Any) -> int:
    """How many messages a minute go in and out on this machine, and what Redis allows of it.

    Three measurements of the same messages, under appendfsync always: intake by one producer; the
    floor, the bare commands that messages cost Redis on their way out, from a loop that does
    nothing else; and the drain, the whole system from the outbox to the sink, which counts
    recipients. The ratio of drain and floor is what Paceline leaves of what Redis allows.

    Leave the machine alone meanwhile: load and stolen CPU time are in the report.
    """
    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    plan = MergePlan(**asked)
    with work_folder(folder) as here, sigterm_interrupts(), telling() as tell, redis_errors():
        report = run_bench(plan, here, tell)
    if as_json:
        print_json(report.as_dict())
    else:
        click.echo(as_markdown(report) if markdown else as_text(report), nl=False)
    return 1 if check and report.missed else 0
