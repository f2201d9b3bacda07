"""What a turn knows of a contestant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from paceline.bench.pacing.plan import PacingPlan
from paceline.rehearsal.processes import Part

_GRACE_S = 15.0


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a turn is played: a new folder that the contestant makes, and where it posts to."""

    folder: Path
    sink_url: str
    plan: PacingPlan


@dataclass(frozen=True, slots=True)
class Contestant:
    """Its backlog stands, and nothing is sent before ``go``. ``workers`` are the processes that
    send, which a freeze stops; ``others`` it leaves alone. ``server`` is Redis's name and version.
    """

    server: str
    go: Callable[[], object]
    workers: Sequence[Part]
    others: Sequence[Part] = field(default_factory=tuple)

    def check(self) -> None:
        """Raises PartFailed where one of its processes has ended."""
        for part in (*self.others, *self.workers):
            part.check()


@contextmanager
def stopped_at_end() -> Iterator[list[Part]]:
    """A list whose processes are ended with the block."""
    parts: list[Part] = []
    try:
        yield parts
    finally:
        for part in parts:
            part.ask_to_stop()
        for part in parts:
            part.await_end(_GRACE_S)
