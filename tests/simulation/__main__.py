"""The command: see the package."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from pathlib import Path

from simulation.scene import Scene
from simulation.verdict import Run, simulate


def main() -> int:
    """Runs one scene and prints it, or all tables. 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    add = parser.add_argument
    add("--markdown", action="store_true", help="measure and print the tables of docs/scaling.md")
    add("--into", type=Path, help="with --markdown: the page whose tables are to be replaced")
    add("--hosts", type=int, default=10)
    add("--destinations", type=int, default=3)
    add("--workers", type=int, help="of each destination; default: one on every host")
    add("--seconds", type=float, default=20.0, help="of the fake clock")
    add("--seed", type=int, default=1)
    add("--rate", type=float, default=90.0, help="of each destination, requests/s")
    add("--burst", type=int, default=150)
    add("--connections", type=int, default=10)
    add("--latency-ms", type=_span, default=(20.0, 60.0), metavar="LEAST-MOST")
    add("--round-trip-ms", type=float, default=0.5, help="to Redis")
    add("--load", choices=("backlog", "idle"), default="backlog")
    add("--queued", type=int, default=0, help="messages that wait from the beginning")
    add("--quiet-s", type=float, default=0.0, help="before the first message")
    add("--freezes", type=int, default=0, help="of some host, for 5 s each")
    add("--daemons", type=int, default=1)
    add("--exporters", type=int, default=1)
    given = vars(parser.parse_args())
    markdown, page = given.pop("markdown"), given.pop("into")
    # What the reaper tells of each destination is not what is looked for here.
    logging.getLogger("paceline").setLevel(logging.ERROR)
    if markdown:
        from simulation.tables import print_tables, write_into

        return write_into(page) if page else print_tables()
    run = simulate(Scene(**given))
    show(run)
    return 0 if run.sound else 1


def show(run: Run) -> None:
    """Everything, for people."""
    scene, cost = run.scene, run.cost
    print(scene)
    words, takes = Counter[str](), Counter[str]()
    for v in run.verdicts:
        words.update(v.words)
        takes.update(v.takes)
    worst = max(run.verdicts, key=lambda v: v.margin)
    print(f"workers {run.workers}, requests {run.messages} in {scene.seconds:g} s")
    print(f"worst window: {worst.margin:+.2f} of burst + rate * w ({worst.name})")
    print(f"use of the rate: {run.least_use:.2%} at the least")
    print(f"connections: {max(v.connections for v in run.verdicts)} open, ", end="")
    print(f"{max(v.granted for v in run.verdicts)} granted, ", end="")
    print(f"{run.verdicts[0].connections_max} of the account")
    print(f"hosts that sent: {min(v.hosts for v in run.verdicts)} at the least, ", end="")
    print(f"the largest part {max(v.largest for v in run.verdicts):.1%}")
    print(f"law: {'holds' if not any(v.law for v in run.verdicts) else 'BROKEN'}")
    print(f"outcomes {dict(words)}\ntakes {dict(takes)}")
    print(f"Redis: {cost.cpu_s / scene.seconds:.1%} of a core, ", end="")
    print(f"{cost.sent / scene.seconds:.0f} commands/s, ", end="")
    print(f"{cost.bytes_in / scene.seconds / 1e3:.0f} kB/s in, ", end="")
    print(f"{cost.bytes_out / scene.seconds / 1e3:.0f} kB/s out; took {cost.real_s:.1f} s")
    for name, calls in cost.commands.most_common():
        us = run.script_us.get(name)
        shown = "" if us is None else f", {us:.0f} us each, {us * calls / scene.seconds / 1e6:.2%}"
        print(f"  {name}: {calls / scene.seconds:.1f}/s{shown}")


def _span(text: str) -> tuple[float, float]:
    least, _, most = text.partition("-")
    return float(least), float(most or least)


if __name__ == "__main__":
    sys.exit(main())
