"""``paceline rehearse``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from paceline.cli.common import redis_errors
from paceline.cli.runs import empty_folder, sigterm_interrupts
from paceline.rehearsal import plan as plans
from paceline.rehearsal.plan import Plan, destination_of
from paceline.rehearsal.progress import telling
from paceline.rehearsal.report import as_text
from paceline.rehearsal.run import rehearse as run_rehearsal
from paceline.sink.faults import parse_faults
from paceline.sink.latency import parse_latency
from paceline.sink.spec import SpecError

_Callback = Callable[[click.Context, click.Parameter, str], str]
_DEFAULT = Plan()


def _checked(parse: Callable[[str], object]) -> _Callback:
    def check(ctx: click.Context, param: click.Parameter, value: str) -> str:
        try:
            parse(value)
        except SpecError as error:
            raise click.BadParameter(str(error), ctx, param) from error
        return value

    return check


@click.command(short_help="Prove the main job on this machine, with faults, and report.")
@click.option("--messages", type=click.IntRange(20, 99_999), default=3000, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=100_000),
    default=100.0,
    show_default=True,
    help="Requests per second.",
)
@click.option("--burst", type=click.IntRange(min=2), default=150, show_default=True)
@click.option("--connections", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option(
    "--seed",
    type=int,
    default=plans.DEFAULT_SEED,
    show_default=True,
    help="Of messages, faults and latencies.",
)
@click.option(
    "--latency",
    callback=_checked(parse_latency),
    default=plans.DEFAULT_LATENCY,
    show_default=True,
    help="The sink's; see paceline sink --help.",
)
@click.option(
    "--faults",
    callback=_checked(parse_faults),
    default=plans.DEFAULT_FAULTS,
    show_default=True,
    help="The sink's; see paceline sink --help.",
)
@click.option(
    "--wait-503",
    "wait_503_s",
    type=(click.FloatRange(min=0), click.FloatRange(min=0)),
    metavar="LEAST MOST",
    help="Seconds a message waits after a 503.  [default: the profile's, 30 to 60]",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run here, and keep it; must be new or empty.  [default: a temporary folder]",
)
@click.option("--keep", is_flag=True, help="Keep the temporary folder, also of a passed run.")
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=1),
    default=_DEFAULT.within_s,
    show_default=True,
    metavar="SECONDS",
    help="Fail when it takes longer.",
)
@click.option(
    "--least",
    type=click.FloatRange(0, 1),
    default=_DEFAULT.least,
    show_default=True,
    help="Share of the rate that must be achieved while messages are ready.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--plant",
    "plants",
    type=click.Choice(["lost", "unexplained", "law", "excess"]),
    multiple=True,
    hidden=True,
)
def rehearse(folder: Path | None, keep: bool, as_json: bool, **asked: Any) -> int:
    """Prove the main job on real parts on this machine, with faults, and report.

    Starts Redis (every write on disk before its answer), a daemon, workers and a provider
    simulator, each a process of its own; sends messages while the simulator fails as asked; then
    compares what was acknowledged with what the simulator accepted and what the outbox says.

    Exit code 0 only if all of it adds up. What a failed run leaves is kept, and named.
    """
    asked_plan = Plan(**asked)
    destination_of(asked_plan)
    here = empty_folder(folder, "paceline-rehearsal-")
    keep = keep or folder is not None
    passed = False
    try:
        with sigterm_interrupts(), telling(asked_plan.messages) as tell, redis_errors():
            report = run_rehearsal(asked_plan, here, tell)
        passed = report.passed
    finally:
        if passed and not keep:
            shutil.rmtree(here)
        else:
            click.echo(f"kept: {here}", err=True)
    if as_json:
        click.echo(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        click.echo(as_text(report), nl=False)
    return 0 if passed else 1
