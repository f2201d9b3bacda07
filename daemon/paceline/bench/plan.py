"""What a bench is asked to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Fsync = Literal["always", "everysec"]

NAIVE, RQ = "naive", "rq"
#: Contestant -> its workers, for those that are Paceline.
WORKERS: Mapping[str, int] = MappingProxyType({"paceline-1": 1, "paceline-2": 2})
CONTESTANTS = (NAIVE, RQ, *WORKERS)
#: Who stands for Paceline where one figure is enough: memory, latency, events, backlog.
STANDARD = "paceline-2"
#: The same with all delivery events on, in the section that compares both.
EVENTS = "paceline-2-events"
SECTIONS = ("memory", "latency", "events", "backlog")

#: Pacing must not bind: what is compared is what a message costs.
RATE, BURST, CONNECTIONS = 50_000, 20_000, 10
#: A few messages for each contestant first: connections open, scripts load.
WARM_UP = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One bench. ``only`` names contestants and sections; ``sends`` are the latency section's;
    ``fill`` is how many messages memory is measured with; ``backlog`` 0 leaves that section out."""

    pairs: int = 7
    messages: int = 4000
    backlog: int = 500_000
    sends: int = 200
    fill: int = 20_000
    fsync: tuple[Fsync, ...] = ("always", "everysec")
    only: tuple[str, ...] = ()
    seed: int = 7

    @property
    def contestants(self) -> tuple[str, ...]:
        """Those that run side by side."""
        return tuple(name for name in CONTESTANTS if self.wants(name))

    def messages_of(self, contestant: str) -> int:
        """Messages in a contestant's turn. RQ alone takes that long that it gets a quarter."""
        return max(10, self.messages // 4) if contestant == RQ else self.messages

    def wants(self, name: str) -> bool:
        """Whether a contestant or section is asked for."""
        return name in self.only if self.only else name != "backlog" or self.backlog > 0
