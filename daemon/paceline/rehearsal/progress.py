"""Live progress, on stderr: bars on a terminal, one plain line every five seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click
from rich.progress import Progress

from paceline.census import Census
from paceline.cli.runs import terminal_progress

LINE_EVERY_S = 5.0


class Teller(Protocol):
    """Who is told how far the run is."""

    def stage(self, what: str) -> None:
        """Something else begins."""

    def looked(self, census: Census) -> None:
        """The outbox, as it is now."""


class _Lines:
    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._next_s = self._began_s + LINE_EVERY_S

    def stage(self, what: str) -> None:
        self._say(what)

    def looked(self, census: Census) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s += LINE_EVERY_S
            self._say(_state(census))

    def _say(self, text: str) -> None:
        click.echo(f"{time.monotonic() - self._began_s:6.1f} s  {text}", err=True)


class _Bars:
    def __init__(self, progress: Progress, messages: int) -> None:
        self._progress = progress
        self._done = progress.add_task("starting", total=messages)

    def stage(self, what: str) -> None:
        self._progress.update(self._done, description=what)

    def looked(self, census: Census) -> None:
        law = census.law
        ended = law["sent"] + law["dead"] + law["parked"]
        self._progress.update(self._done, completed=ended, description=_state(census))


def _state(census: Census) -> str:
    law = census.law
    closed = census.closed()
    text = ", ".join(
        f"{term} {law[term]:,}" for term in ("sent", "dead", "ready", "leased", "scheduled")
    )
    due_us = census.sizes.get("next_due_us", -1)
    if law["scheduled"] and not law["ready"] and due_us >= 0:
        text += f" (next retry in {due_us / 1e6:.0f} s)"
    return text + (f"; {closed[0]}: {closed[2]}" if closed else "")


@contextmanager
def telling(messages: int) -> Iterator[Teller]:
    """The teller that fits stderr."""
    with terminal_progress() as progress:
        yield _Lines() if progress is None else _Bars(progress, messages)
