"""Peers and producer as processes of their own, run to their end."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import msgspec

from paceline.errors import PacelineError
from paceline.supervisor import PARENT_VARIABLE

_LONGEST_S = 900.0
_TAIL_LINES = 15


class BenchFailed(PacelineError):
    """A part of the bench failed, or did not do what it says: there are no figures."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a child told of its loop."""

    count: int
    wall_s: float
    cpu_s: float


_decode = msgspec.json.Decoder(Told).decode


def run_child(module: str, *arguments: object) -> Told:
    """Runs ``python -m paceline.bench.MODULE``. Raises BenchFailed with its last words."""
    name = f"paceline.bench.{module}"
    command = [sys.executable, "-m", name, *map(str, arguments)]
    try:
        done = subprocess.run(  # noqa: S603 - our own command line
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LONGEST_S,
            env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchFailed(f"{name} did not end within {_LONGEST_S:.0f} s") from error
    try:
        told = _decode(done.stdout)
    except msgspec.MsgspecError:
        told = None
    if done.returncode or told is None:
        lines = done.stderr.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        words = "".join(f"\n  {line}" for line in lines) or "; it wrote nothing"
        raise BenchFailed(f"{name} ended with code {done.returncode}{words}")
    return told
