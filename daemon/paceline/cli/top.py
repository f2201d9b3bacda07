"""``paceline top``: the destinations, second by second."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import click
from rich.console import RenderableType
from rich.live import Live

from paceline.cli.common import (
    Setup,
    console,
    need_redis_url,
    pick_stores,
    redis_errors,
    setup_options,
)
from paceline.cli.frame import frame
from paceline.cli.samples import Sampler
from paceline.connect import connect
from paceline.settings import RedisSettings

#: A frozen Redis holds a frame up for no longer.
_TIMEOUT_S = 1.0


@click.command(
    epilog="""\b
Examples:
  paceline top                 all destinations, one row each
  paceline top maxmd           one in full
  paceline top --once          one frame, for a log or a pipe; figures of one second

q or Ctrl-C ends it. Where the output is no terminal, one frame is printed. Rates and latencies are
those of the last seconds; retried, ambiguous and duplicates count from the beginning."""
)
@click.argument("destinations", metavar="[DEST]...", nargs=-1)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--once", is_flag=True, help="Print one frame and end.")
@setup_options
def top(setup: Setup, destinations: tuple[str, ...], interval: float, once: bool) -> int:
    """Watch the destinations, second by second.

    While Redis does not answer, the last figures stay, marked as stale.
    """
    url = need_redis_url(setup)
    client = connect(url, name="paceline-top", timeout_s=_TIMEOUT_S, connect_timeout_s=_TIMEOUT_S)
    try:
        with redis_errors():
            client.ping()
            pick_stores(client, destinations)
        shown_url = replace(RedisSettings(), url=url).shown_url
        sampler = Sampler(client, destinations)
        if once or not sys.stdout.isatty():
            return _print_one(sampler, shown_url, interval)
        _watch(sampler, shown_url, interval)
    finally:
        client.close()
    return 0


def _print_one(sampler: Sampler, shown_url: str, interval: float) -> int:
    """Two looks, for a rate is between two. 1 where the second one failed."""
    sampler.look()
    time.sleep(interval)
    answered = sampler.look()
    console().print(_frame(sampler, shown_url, keys=False))
    return 0 if answered else 1


def _frame(sampler: Sampler, shown_url: str, *, keys: bool) -> RenderableType:
    return frame(
        sampler.samples,
        shown_url=shown_url,
        trouble=sampler.trouble,
        age_s=sampler.age_s,
        keys=keys,
    )


def _watch(sampler: Sampler, shown_url: str, interval: float) -> None:
    with _keys() as asked_to_end, Live(console=console(), screen=True, auto_refresh=False) as live:
        while True:
            began_s = time.monotonic()
            sampler.look()
            live.update(_frame(sampler, shown_url, keys=True), refresh=True)
            if asked_to_end(max(0.0, began_s + interval - time.monotonic())):
                return


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Keys one by one, unseen: yields what waits so long for a q. The terminal is put back."""
    if not sys.stdin.isatty():
        yield _sleep
        return
    source = sys.stdin.fileno()
    before = termios.tcgetattr(source)

    def asked_to_end(wait_s: float) -> bool:
        end_s = time.monotonic() + wait_s
        while select.select([source], [], [], max(0.0, end_s - time.monotonic()))[0]:
            pressed = os.read(source, 64)
            if not pressed or b"q" in pressed.lower():
                return True
        return False

    try:
        # Not raw: Ctrl-C stays an interrupt.
        tty.setcbreak(source)
        yield asked_to_end
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)


def _sleep(wait_s: float) -> bool:
    time.sleep(wait_s)
    return False
