"""Live progress, on stderr: a bar on a terminal, one plain line a stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click
from rich.progress import Progress

from paceline.bench.machine import Machine
from paceline.cli.runs import terminal_progress


class Teller(Protocol):
    """Who is told how far the run is."""

    def machine(self, machine: Machine) -> None:
        """On what it runs."""

    def stage(self, what: str, steps: int) -> None:
        """Something else begins, of so many steps."""

    def step(self) -> None:
        """One of them is done."""


class _Lines:
    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def machine(self, machine: Machine) -> None:
        click.echo(
            f"{machine.cpus} CPUs, {machine.model}, {machine.kernel}, {machine.python}, "
            f"{machine.server}, load {machine.load[0]:.2f}",
            err=True,
        )

    def stage(self, what: str, _: int) -> None:
        click.echo(f"{time.monotonic() - self._began_s:6.1f} s  {what}", err=True)

    def step(self) -> None:
        pass


class _Bar(_Lines):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("starting", total=None)

    def stage(self, what: str, steps: int) -> None:
        self._progress.reset(self._task, total=steps, description=what)

    def step(self) -> None:
        self._progress.advance(self._task)


@contextmanager
def telling() -> Iterator[Teller]:
    """The teller that fits stderr."""
    with terminal_progress() as progress:
        yield _Lines() if progress is None else _Bar(progress)
