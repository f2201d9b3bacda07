"""What the commands need that run many processes for a while: a folder, and an orderly end."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def empty_folder(named: Path | None, prefix: str) -> Path:
    """An empty folder for this user's eyes only, by its absolute path. Raises click.BadParameter
    where the one named is in use."""
    if named is None:
        return Path(tempfile.mkdtemp(prefix=prefix))
    named.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(named.iterdir()):
        raise click.BadParameter(f"{named} is not empty; name a new folder", param_hint="--folder")
    return named.absolute()


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does: everything is stopped in order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def terminal_progress() -> Iterator[Progress | None]:
    """One bar on stderr, gone when it ends; None where stderr is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress
