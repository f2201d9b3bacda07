"""Webhooks to 5,000 endpoints, 1% hanging and 1% down, beside the same with all of them well.

Messages come evenly, to each endpoint in turn, at a part of the rate. What a healthy endpoint sees
is the time from a message's acceptance to its first byte there. An endpoint that hangs takes the
request and never answers; one that is down refuses the connection. The two are run in turn, in
pairs, and compared pair by pair: what else the machine does changes from run to run.
"""

from __future__ import annotations

import base64
import contextlib
import random
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from paceline.endpoint_registry import EndpointRegistry
from paceline.endpoints import Endpoint
from paceline.rehearsal.measures import quantile
from shows.figures import Figure, at_least, at_most
from shows.stage import let_pass
from support.stack import DESTINATION, Stack
from support.wait import until

ENDPOINTS = 5_000
BAD_ONE_IN = 100
SECONDS = 20.0
PAIRS = 3
RATE, BURST, LOAD = 100.0, 200, 0.6
MOST_TIMES = 1.2
#: How long an endpoint has for its answer.
READ_TIMEOUT_S = 15


@dataclass
class Hooks(Stack):
    """A stack whose destination has endpoints."""

    rate: float = RATE
    burst: int = BURST
    profile: str = "webhook"
    hanging: Hanging = field(init=False)

    def _toml(self) -> str:
        secret = self.folder / "secret"
        secret.write_text("whsec_" + base64.b64encode(b"k" * 32).decode())
        return f"""
[redis]
url = "{self.server.url}"
[exporter]
listen = "off"
[destinations.{DESTINATION}]
provider = "webhook"
rate = {self.rate}
burst = {self.burst}
secrets = [{{ file = "{secret}" }}]
guard_allow = ["127.0.0.1"]
read_timeout_s = {READ_TIMEOUT_S}
[destinations.{DESTINATION}.endpoints]
"""


class Hanging:
    """Takes connections and requests, and never answers."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port = self._listener.getsockname()[1]
        self._taken: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._taken.append(self._listener.accept()[0])

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for sock in self._taken:
            sock.close()


def run(folder: Path, seconds: float, seed: int) -> list[Figure]:
    """``seconds``: for how long messages come, in each run."""
    names = [f"e{number}" for number in range(ENDPOINTS)]
    rand = random.Random(seed)
    rand.shuffle(names)
    each = ENDPOINTS // BAD_ONE_IN
    bad = {"hanging": names[:each], "down": names[each : 2 * each]}
    healthy = frozenset(names[2 * each :])
    pairs: list[tuple[_Run, _Run]] = []
    for number in range(PAIRS):
        runs = []
        for word, them in (("well", {}), ("ill", bad)):
            place = folder / f"{word}{number}"
            place.mkdir()
            runs.append(_one_run(place, seconds, seed + number, names, them, healthy))
        pairs.append((runs[0], runs[1]))
    waits = [(one.waits_s, other.waits_s) for one, other in pairs]
    return [*_judge(waits), *pairs[-1][1].figures]


@dataclass
class _Run:
    waits_s: list[float]
    figures: list[Figure]


def _one_run(
    folder: Path,
    seconds: float,
    seed: int,
    names: Sequence[str],
    bad: Mapping[str, Sequence[str]],
    healthy: frozenset[str],
) -> _Run:
    with Hanging() as hanging, Hooks(folder, latency="20-60ms", seed=seed) as stack:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nobody = closed.getsockname()[1]
        ports = dict.fromkeys(bad.get("hanging", ()), hanging.port)
        ports |= dict.fromkeys(bad.get("down", ()), nobody)
        registry = EndpointRegistry(stack.store)
        sink = stack.sink_address
        registry.put(
            {
                name: Endpoint(
                    url=f"http://127.0.0.1:{ports[name]}/{name}"
                    if name in ports
                    else f"http://{sink}/{name}"
                )
                for name in names
            }
        )
        # All of the bad ones at once, before the first that is measured.
        for name in ports:
            stack.outbox.send(DESTINATION, {}, id=f"{name}-first", endpoint=name)
        sent_ns = _send(stack, names, seconds, seed)
        wanted = {message_id for message_id in sent_ns if message_id.split("-")[0] in healthy}
        until(
            lambda: len({a["id"] for a in stack.arrivals()} & wanted) == len(wanted),
            seconds + 120,
            "the healthy ones have got theirs",
            1.0,
        )
        waits_s = [
            (arrival["mono_ns"] - sent_ns[arrival["id"]]) / 1e9
            for arrival in _first(stack.arrivals())
            if arrival["id"] in wanted
        ]
        census = stack.store.census()
        states = [seen.state for seen in registry.all() if seen.name in ports]
    return _Run(
        waits_s,
        [
            at_least("healthy messages that arrived, of all", len(waits_s) / len(wanted), 1.0),
            at_most("law's difference, messages", abs(census.difference), 0),
            Figure("bad endpoints", len(ports)),
            Figure("of these known to be in trouble", sum(state != "well" for state in states)),
            Figure("requests in flight at the end", _in_flight(census.workers)),
            Figure("messages retried", census.counters.get("retried", 0)),
        ],
    )


def _send(stack: Stack, names: Sequence[str], seconds: float, seed: int) -> dict[str, int]:
    """Evenly, each message at its own moment; when each was accepted."""
    order = list(names)
    random.Random(seed + 1).shuffle(order)
    accepted: dict[str, int] = {}
    began = time.monotonic()
    for number in range(round(seconds * RATE * LOAD)):
        let_pass(began + number / (RATE * LOAD) - time.monotonic())
        name = order[number % len(order)]
        message_id = f"{name}-{number}"
        stack.outbox.send(DESTINATION, {"n": number}, id=message_id, endpoint=name)
        accepted[message_id] = time.monotonic_ns()
    return accepted


def _judge(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[Figure]:
    found: list[Figure] = []
    for part, word in ((0.5, "median"), (0.9, "p90"), (0.99, "p99")):
        each = [tuple((quantile(waits, part) or 0.0) * 1e3 for waits in pair) for pair in pairs]
        ratios = sorted(other / one for one, other in each)
        shown = ", ".join(f"{one:.0f}/{other:.0f}" for one, other in each)
        found += [
            at_most(
                f"wait beside the bad ones over that alone, {word}",
                ratios[len(ratios) // 2],
                MOST_TIMES,
            ),
            Figure(f"the same, {word}, from to", f"{ratios[0]:.2f} to {ratios[-1]:.2f}"),
            Figure(f"waits alone/beside, {word}, ms", shown),
        ]
    return found


def _first(arrivals: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    seen: dict[str, Mapping[str, Any]] = {}
    for arrival in arrivals:
        seen.setdefault(arrival["id"], arrival)
    return list(seen.values())


def _in_flight(workers: Sequence[Any]) -> int:
    return sum(int(worker.facts.get("in_flight", 0)) for worker in workers)
