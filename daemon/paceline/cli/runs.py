"""What the commands need that run many processes for a while: a folder, and an orderly end."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


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
