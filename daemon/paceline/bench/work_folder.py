"""The folder that a bench runs in: removed when it ends well, unless the caller named it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from paceline.cli.runs import empty_folder


@contextmanager
def work_folder(named: Path | None) -> Iterator[Path]:
    """An empty folder; where it is kept, stderr tells. Raises click.BadParameter, OSError."""
    here = empty_folder(named, "paceline-bench-")
    failed = False
    try:
        yield here
    except Exception:
        failed = True
        raise
    finally:
        if named is None and not failed:
            shutil.rmtree(here)
        else:
            click.echo(f"kept: {here}", err=True)
