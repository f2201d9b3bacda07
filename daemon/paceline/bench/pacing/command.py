"""``paceline bench pacing``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paceline.bench.pacing.plan import CONTESTANTS, SCENES, PacingPlan
from paceline.bench.pacing.report import as_markdown, as_text
from paceline.bench.pacing.run import bench_pacing as run_bench
from paceline.bench.progress import telling
from paceline.bench.work_folder import work_folder
from paceline.cli.common import print_json, redis_errors
from paceline.cli.runs import sigterm_interrupts

_DEFAULT = PacingPlan()

_EPILOG = """\b
Examples:
  paceline bench pacing                                all of it
  paceline bench pacing --only paceline --only frozen
  paceline bench pacing --rate 500 --burst 1000 --no-node
  paceline bench pacing --pairs 5 --json > pacing.json
"""


@click.command(short_help="How well the pace is kept, beside others.", epilog=_EPILOG)
@click.option(
    "--rate",
    type=click.FloatRange(1, 5000),
    default=_DEFAULT.rate,
    show_default=True,
    help="Requests per second that are agreed.",
)
@click.option(
    "--burst",
    type=click.IntRange(2, 20_000),
    default=_DEFAULT.burst,
    show_default=True,
    help="Requests that may come at once.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 3600),
    default=_DEFAULT.seconds,
    show_default=True,
    help="Length of a turn, after its first burst.",
)
@click.option(
    "--pairs",
    type=click.IntRange(1, 100),
    default=_DEFAULT.pairs,
    show_default=True,
    help="Turns of each contestant in each scene, interleaved.",
)
@click.option(
    "--only",
    type=click.Choice([*CONTESTANTS, *SCENES]),
    multiple=True,
    help="Only this contestant or scene; may be repeated.",
)
@click.option("--node/--no-node", default=True, help="With BullMQ, which needs node and npm.")
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep BullMQ's packages here for the next time.  [default: in the run's folder]",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run here, and keep it; must be new or empty.  [default: a temporary folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, raw numbers with it.")
@click.option("--markdown", is_flag=True, help="Print Markdown tables.")
def pacing(
    folder: Path | None, cache: Path | None, as_json: bool, markdown: bool, **asked: Any
) -> None:
    """How well the agreed pace is kept at the wire, beside others, on this machine.

    In turn, each with a backlog, two workers of five connections and a server of its own: Paceline
    (paceline), a token bucket that releases jobs to worker threads (dispatch), and BullMQ's limiter
    (bullmq). Once undisturbed (steady), once with all workers stopped for 5 s in the middle, or a
    quarter of a shorter turn (frozen). The sink judges all by when requests reach it.

    Leave the machine alone meanwhile: load and stolen CPU time are in the report.
    """
    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    plan = PacingPlan(**asked)
    if not plan.contestants:
        raise click.UsageError("--only bullmq needs Node: leave --no-node out")
    with work_folder(folder) as here:
        packages = (cache or here / "node").absolute()
        with sigterm_interrupts(), telling() as tell, redis_errors():
            report = run_bench(plan, here, packages, tell)
    if as_json:
        print_json(report.as_dict())
    else:
        click.echo(as_markdown(report) if markdown else as_text(report), nl=False)
