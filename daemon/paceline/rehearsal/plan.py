"""What a rehearsal is asked to do, the configuration file made of it, and a forecast. Pure.

The forecast is possible because the sink's faults are drawn from (seed, id, occurrence) and the ids
come from the seed: which message meets which fault is known before anything runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from paceline.settings import Destination
from paceline.settings_file import loads
from paceline.sink.draw import draws
from paceline.sink.faults import FaultMix, parse_faults

Plant = Literal["lost", "unexplained", "law", "excess"]

DESTINATION = "rehearsal"
USERNAME_VARIABLE = "PACELINE_REHEARSAL_USERNAME"
PASSWORD_VARIABLE = "PACELINE_REHEARSAL_PASSWORD"  # noqa: S105  # nosec B105
#: With it no message of a default run draws 503 twice: each such draw waits 30 to 60 s.
DEFAULT_SEED = 7
DEFAULT_FAULTS = "503:1%,500:1%,reset_after:0.5%,hang:0.5%"
DEFAULT_LATENCY = "20-60ms"
READ_TIMEOUT_S = 2.0
_DEEPEST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One rehearsal. ``wait_503_s`` None keeps the profile's own; ``least`` is the share of the
    rate that must be achieved; ``plants`` is what the run must find wrong."""

    messages: int = 3000
    rate: float = 100.0
    burst: int = 150
    connections: int = 10
    workers: int = 2
    seed: int = DEFAULT_SEED
    latency: str = DEFAULT_LATENCY
    faults: str = DEFAULT_FAULTS
    wait_503_s: tuple[float, float] | None = None
    within_s: float = 120.0
    least: float = 0.97
    plants: tuple[Plant, ...] = ()


def config_text(plan: Plan, redis_url: str, sink_url: str) -> str:
    """The TOML file of the run. Credentials are names of environment variables."""
    lines = [
        "[redis]",
        f"url = {json.dumps(redis_url)}",
        "",
        "[exporter]",
        'listen = "off"',
        "",
        f"[destinations.{DESTINATION}]",
        'provider = "maxmd"',
        f"url = {json.dumps(sink_url + '/message-rest/api/message/Send')}",
        f"rate = {plan.rate}",
        f"burst = {plan.burst}",
        f"connections = {plan.connections}",
        f"read_timeout_s = {READ_TIMEOUT_S}",
        f'username = {{ env = "{USERNAME_VARIABLE}" }}',
        f'password = {{ env = "{PASSWORD_VARIABLE}" }}',
    ]
    if plan.wait_503_s is not None:
        least, most = plan.wait_503_s
        lines += ["", f"[destinations.{DESTINATION}.retry]", f"wait_503_s = [{least}, {most}]"]
    return "\n".join(lines) + "\n"


def destination_of(plan: Plan) -> Destination:
    """The destination as the processes will read it. Raises ConfigError where the plan's numbers
    do not go together."""
    text = config_text(plan, "redis://127.0.0.1:6379/0", "http://127.0.0.1:1")
    return loads(text, source="rehearsal").destinations[DESTINATION]


def message_id(seed: int, number: int) -> str:
    """The id of the message of that number, counted from 0."""
    return f"r{seed}-{number:05d}"


def fault_chain(seed: int, mix: FaultMix, its_id: str) -> list[str]:
    """The faults that a message will meet, attempt by attempt, up to its first good answer."""
    chain: list[str] = []
    while len(chain) < _DEEPEST:
        fault = mix.at(draws(seed, its_id, len(chain))[0])
        if fault is None or fault.label == "ok":
            break
        chain.append(fault.label)
    return chain


def waits_twice(plan: Plan, ids: Iterable[str]) -> list[str]:
    """Messages that will draw 503 more than once: each time they wait as long as the profile says
    (MaxMD: 30 to 60 s), which alone may be longer than the run is given."""
    mix = parse_faults(plan.faults)
    return [i for i in ids if fault_chain(plan.seed, mix, i).count("503") > 1]
