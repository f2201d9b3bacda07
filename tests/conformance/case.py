"""What is tried: the account's numbers, and how ill it is treated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run on the wire.

    ``seconds``      of sending that are judged
    ``freezes`` ...  how many of each mischief are spread over them, see mischief.py
    ``faults``       of the sink, in its own language
    ``warm_s``       of sending before them: until all workers send, and the bucket's first filling
                     is spent
    ``least_use``    of the rate that must be used; None: it is not judged
    ``gated``        False: the control run, whose workers wait for no permit
    """

    rate: float
    burst: int
    connections: int
    seconds: float
    seed: int
    workers: int = 4
    daemons: int = 2
    warm_s: float = 3.0
    latency: str = "5-25ms"
    faults: str = "500:2%,reset_after:0.5%"
    freezes: int = 0
    kills: int = 0
    restarts: int = 0
    pauses: int = 0
    least_use: float | None = None
    gated: bool = True

    @property
    def name(self) -> str:
        """For people."""
        kind = "use" if self.least_use is not None else "windows"
        return (
            f"{kind} {self.rate:g}/s burst {self.burst} connections {self.connections} "
            f"latency {self.latency}{'' if self.gated else ' UNGATED'}"
        )


ACCOUNTS = ((12, 10), (150, 10), (5, 3))
RATES = (1.0, 10.0, 100.0, 1000.0)
_LATENCY_OF = {3: "1-4ms", 10: "2-8ms"}


def hostile(rate: float, burst: int, connections: int, seconds: float, seed: int) -> Case:
    """Everything at once. Redis is restarted once in ten seconds, workers die more often, and
    something is frozen or paused nearly always."""
    return Case(
        rate=rate,
        burst=burst,
        connections=connections,
        seconds=seconds,
        seed=seed,
        latency=_LATENCY_OF[connections],
        freezes=max(3, round(seconds)),
        kills=max(1, round(seconds / 5)),
        restarts=max(1, round(seconds / 10)),
        pauses=max(1, round(seconds / 8)),
    )


def matrix(seed: int, seconds: float, rates: tuple[float, ...] = RATES) -> list[Case]:
    """Every account at every rate."""
    return [hostile(rate, b, c, seconds, seed) for b, c in ACCOUNTS for rate in rates]


def uses(seed: int, seconds: float, rates: tuple[float, ...] = RATES) -> list[Case]:
    """A backlog, no mischief, and connections enough: 1.2 * rate * latency at the least, and where
    a turn at Redis is not small beside the latency, for that too. The rate must be used."""
    calm: dict[str, Any] = {"burst": 150, "seconds": seconds, "seed": seed, "faults": ""}
    tried = [
        Case(rate=100.0, connections=10, latency="50ms", least_use=0.99, **calm),
        Case(rate=100.0, connections=64, latency="500ms", least_use=0.99, **calm),
        Case(rate=1000.0, connections=100, latency="50ms", least_use=0.97, **calm | {"burst": 200}),
    ]
    return [case for case in tried if case.rate in rates]
