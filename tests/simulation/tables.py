"""Measures, and makes the tables of docs/scaling.md: ``python -m simulation --markdown``.

The price list is made from small scenes that differ in one thing; the table of shares is worked out
from it, and one large scene of the table is simulated beside it, to see whether that is right.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulation import real
from simulation.scene import Scene
from simulation.verdict import Run, simulate

#: Of one core: what is left is for bursts, retries, operators and the rewriting of the file.
FULL = 0.7
#: In the page, what stands between them is made here.
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
_US = 1e6


@dataclass(frozen=True)
class Prices:
    """Of Redis's CPU, in microseconds: a message, by the rate of its destination; an idle
    destination a second; an idle worker a second, by how many workers its destination has."""

    message: dict[float, float]
    destination: float
    worker: dict[int, float]

    def idle_worker(self, among: int) -> float:
        """Between what was measured, on a line: a heartbeat looks at every worker."""
        below, above = sorted(self.worker, key=lambda n: abs(n - among))[:2]
        slope = (self.worker[above] - self.worker[below]) / (above - below)
        return max(0.0, self.worker[below] + slope * (among - below))

    def standing(self, destinations: int, workers: int) -> float:
        """Part of a core, without a message."""
        each = self.destination + workers * self.idle_worker(workers)
        return destinations * each / _US

    def share(self, destinations: int, workers: int, rate: float) -> float:
        """Part of a core; ``workers`` and ``rate`` of each destination."""
        busy = destinations * rate * self.message[rate] / _US
        return self.standing(destinations, workers) + busy


def write_into(page: Path) -> int:
    """Puts all tables in the place of those that the page has; 1 where a promise was broken."""
    with contextlib.redirect_stdout(io.StringIO()) as made:
        broken = print_tables()
    before, mark, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"{page} has no lines {BEGIN!r} and {END!r} to put the tables between")
    text = f"{before}{mark}\n{made.getvalue().rstrip()}\n{end}{after}"
    page.write_text(text, encoding="utf-8")
    return broken


def print_tables() -> int:
    """All of them; 1 where a promise was broken."""
    runs = {
        "d": _cheapest(destinations=20, hosts=1, workers=0, load="idle"),
        1: _cheapest(destinations=20, hosts=1, load="idle"),
        10: _cheapest(destinations=4, hosts=10, load="idle"),
        100: _cheapest(destinations=1, hosts=100, load="idle"),
    }
    busy: dict[float, Run] = {
        10: _cheapest(destinations=6, hosts=2, rate=10.0, burst=20, seconds=10.0),
        30: _cheapest(destinations=4, hosts=2, rate=30.0, burst=50, seconds=10.0),
        90: _cheapest(destinations=2, hosts=2, seconds=10.0),
        1000: _cheapest(
            destinations=1, hosts=4, rate=1000.0, burst=1500, connections=100, seconds=3.0
        ),
    }
    prices = _prices(runs, busy)
    _price_list(prices, runs, busy)
    _scripts(busy[90], busy[1000])
    _shares(prices)
    check = _run(destinations=100, hosts=100, workers=2, rate=30.0, burst=50, seconds=2.0)
    _the_check(check, prices)
    promises = [
        _run(destinations=1, hosts=hosts, seconds=30.0, freezes=freezes, latency_ms=latency)
        for hosts, freezes, latency in (
            (2, 0, (20.0, 60.0)), (10, 0, (20.0, 60.0)), (100, 0, (20.0, 60.0)),
            (10, 6, (20.0, 60.0)), (2, 0, (60.0, 120.0)), (100, 0, (60.0, 120.0)),
        )
    ]  # fmt: skip
    _promises(promises)
    _real()
    return 0 if all(run.sound for run in (*runs.values(), *busy.values(), check, *promises)) else 1


def _run(**scene: object) -> Run:
    run = simulate(Scene(**scene))  # type: ignore[arg-type]
    sys.stderr.write(f"{run.scene}: {run.cost.real_s:.0f} s\n")
    return run


def _cheapest(**scene: object) -> Run:
    """Of three: what else the machine does can only make it dearer."""
    return min((_run(**scene) for _ in range(3)), key=lambda run: run.cost.cpu_s)


def _prices(runs: dict[object, Run], busy: Mapping[float, Run]) -> Prices:
    def cpu_us(run: Run) -> float:
        return run.cost.cpu_s / run.scene.seconds * _US

    destination = cpu_us(runs["d"]) / runs["d"].scene.destinations
    worker = {
        n: (cpu_us(runs[n]) / runs[n].scene.destinations - destination) / n for n in (1, 10, 100)
    }
    bare = Prices({}, destination, worker)

    def message(run: Run) -> float:
        scene = run.scene
        standing = bare.standing(scene.destinations, scene.workers_each) * _US
        return (cpu_us(run) - standing) / (run.messages / scene.seconds)

    return Prices({rate: message(run) for rate, run in busy.items()}, destination, worker)


def _price_list(prices: Prices, runs: dict[object, Run], busy: Mapping[float, Run]) -> None:
    def row(what: str, us: float, commands: float) -> tuple[str, str, str]:
        return what, f"{us:.0f}", f"{commands:.1f}"

    def per_s(run: Run) -> float:
        return run.cost.sent / run.scene.seconds

    idle = per_s(runs["d"]) / runs["d"].scene.destinations
    rows = [row("an idle destination, for each daemon, a second", prices.destination, idle)]
    for n, us in prices.worker.items():
        commands = (per_s(runs[n]) / runs[n].scene.destinations - idle) / n
        rows.append(row(f"an idle worker, one of {n} of its destination, a second", us, commands))
    for rate, run in busy.items():
        us, scene = prices.message[rate], run.scene
        standing = scene.destinations * (idle + scene.workers_each * (per_s(runs[1]) / 20 - idle))
        commands = (per_s(run) - standing) / (run.messages / scene.seconds)
        what = f"a message, in and out, at {rate}/s over {scene.connections} connections"
        rows.append(row(what, us, commands))
    _table("Price list", ("", "Redis CPU, us", "commands"), rows)


def _scripts(slow: Run, fast: Run) -> None:
    names = sorted(fast.script_us, key=lambda n: -fast.cost.commands[n] * fast.script_us[n])
    rows = []
    for name in names:
        cells = [f"`{name}`"]
        for run in (slow, fast):
            calls, us = run.cost.commands[name], run.script_us.get(name, 0.0)
            cells += [
                f"{calls / run.messages:.3f}",
                f"{us:.0f}",
                f"{calls * us / run.messages:.1f}",
            ]
        rows.append(tuple(cells))
    head = ["script"]
    for run in (slow, fast):
        head += [f"calls a message at {run.scene.rate:g}/s", "us a call", "us a message"]
    _table("Scripts", head, rows)


def _shares(prices: Prices) -> None:
    rows = []
    for destinations, workers, rate in (
        (1, 2, 90), (10, 2, 90), (10, 10, 90), (100, 2, 10), (100, 2, 30), (100, 2, 90),
        (100, 10, 90), (100, 100, 90), (1, 4, 1000), (10, 4, 1000),
    ):  # fmt: skip
        price = prices.message[rate]
        left = FULL - prices.standing(destinations, workers)
        most = f"{left / price * _US:,.0f}" if left > 0 else "none: the workers alone fill it"
        rows.append(
            (
                f"{destinations}", f"{workers}", f"{destinations * workers:,}", f"{rate}",
                f"{destinations * rate:,}", f"{prices.standing(destinations, workers):.1%}",
                f"{prices.share(destinations, workers, rate):.0%}", most,
            )
        )  # fmt: skip
    head = (
        "destinations", "workers of each", "workers", "rate of each, /s", "messages/s",
        "of a core, idle", "of a core, busy", f"messages/s at {FULL:.0%}",
    )  # fmt: skip
    _table("Shares", head, rows)


def _the_check(run: Run, prices: Prices) -> None:
    scene = run.scene
    worked_out = prices.share(scene.destinations, scene.workers_each, scene.rate)
    measured = run.cost.cpu_s / scene.seconds
    print(
        f"Simulated whole, {scene.destinations} destinations, {run.workers} workers on "
        f"{scene.hosts} hosts, {run.messages / scene.seconds:,.0f} messages/s: {measured:.0%} of a "
        f"core (worked out: {worked_out:.0%}), {run.cost.sent / scene.seconds:,.0f} commands/s, "
        f"{run.cost.bytes_in / scene.seconds / 1e6:.1f} MB/s in, "
        f"{run.cost.bytes_out / scene.seconds / 1e6:.1f} MB/s out; worst window "
        f"{max(v.margin for v in run.verdicts):+.1f}, use {run.least_use:.2%} at the least.\n"
    )


def _promises(runs: Iterable[Run]) -> None:
    rows = []
    for run in runs:
        scene, seen = run.scene, run.verdicts[0]
        latency = "–".join(f"{ms:g}" for ms in scene.latency_ms)
        rows.append(
            (
                f"{scene.hosts}", latency, f"{scene.freezes}", f"{seen.margin:+.1f}",
                f"{seen.use:.2%}", f"{seen.connections} of {seen.connections_max}",
                f"{seen.hosts}", f"{seen.largest:.0%}", "yes" if seen.law == 0 else "NO",
            )
        )  # fmt: skip
    head = (
        "hosts", "latency, ms", "freezes of 5 s", "worst window over burst + rate·w", "use of rate",
        "connections", "hosts that sent", "largest part", "law holds",
    )  # fmt: skip
    _table("Promises, 30 s", head, rows)


def _real() -> None:
    idle, full = real.idle(), real.full_speed()
    rows = [
        ("commands/s of an idle daemon, for each destination", f"{idle.daemon:.1f}"),
        ("commands/s of an idle worker", f"{idle.worker:.1f}"),
        ("of a core, for both", f"{idle.share:.2%}"),
        ("connections to Redis of an idle daemon of one destination", f"{idle.daemon_connections}"),
        ("connections to Redis of an idle worker", f"{idle.worker_connections}"),
        ("two workers, instant sink, `always`: messages/s", f"{full.per_s:,.0f}"),
        ("Redis CPU a message there, its way in apart, us", f"{full.redis_us:.0f}"),
    ]
    for fsync in ("always", "everysec"):
        for together, count in ((1, 2000), (100, 20_000), (500, 20_000)):
            per_s = real.intake(fsync, together, count)
            rows.append((f"intake of 1 kB, `{fsync}`, {together} together: /s", f"{per_s:,.0f}"))
    seconds, before, after = real.rewrite(50_000, 1000)
    rows.append(("rewriting the file of 50,000 messages of 1 kB, s", f"{seconds:.2f}"))
    rows.append(("its MB before and after", f"{before / 1e6:.0f}, {after / 1e6:.0f}"))
    _table("Real processes", ("", "measured"), rows)
    sizes = [(f"{size:,}", real.kept(size)) for size in (100, 1000, 4000, 16_000)]
    _table(
        "Bytes a message",
        ("payload", "waiting", "sent", "append-only file, in", "append-only file, out"),
        [
            (size, f"{k.waiting:,.0f}", f"{k.ended:.0f}", f"{k.aof_in:,.0f}", f"{k.aof_out:.0f}")
            for size, k in sizes
        ],
    )


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(f"### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)
