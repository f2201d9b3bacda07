"""The command: see the package."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conformance.case import ACCOUNTS, RATES, Case, hostile, matrix, uses
from conformance.field import play
from conformance.hands import account_of, run
from conformance.verdict import judge
from paceline.embedded import EmbeddedServer
from support.servers import connect

USE_SECONDS = 60.0
SCRIPT_RATES = (100.0, 1000.0, 5000.0)
SCRIPT_RUNS = 20


def main() -> int:
    """Runs the cases and prints them as they end. 1 where the promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, default=1)
    add("--rate", type=float, action="append", help="only this one; may be repeated")
    add("--seconds", type=float, default=30.0, help="of each case with mischief")
    add("--burst", type=int, help="with --connections: this account alone")
    add("--connections", type=int)
    add("--only", choices=("scripts", "windows", "use"), help="one part of it")
    add("--use-seconds", type=float, default=USE_SECONDS, help="of each case without")
    add("--json", action="store_true", help="one line a case")
    given = parser.parse_args()
    if (given.burst is None) != (given.connections is None):
        parser.error("--burst and --connections go together")
    kept = given.only in ("windows", "use") or _scripts(given)
    for case in _cases(given):
        evidence = play(case)
        verdict = judge(evidence)
        kept = kept and verdict.kept
        print(json.dumps(verdict.as_dict()) if given.json else verdict, flush=True)
        if not verdict.kept:
            print(*evidence.deeds, *evidence.unexplained[:5], sep="\n", file=sys.stderr)
    return 0 if kept else 1


def _scripts(given: argparse.Namespace) -> bool:
    """The scripts alone, on a fake clock, where the wire would be the limit."""
    kept = True
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer(Path(folder), appendfsync="everysec") as server,
        connect(server.url) as client,
    ):
        for rate in given.rate or SCRIPT_RATES:
            for burst, connections in ACCOUNTS:
                found = [
                    run(client, account_of(rate, burst, connections, busy), given.seed + n,
                        permits=1000, deeds=12, steps=n % 2 == 1)
                    for n in range(SCRIPT_RUNS)
                    for busy in (0.02, 0.5)
                ]  # fmt: skip
                worst = max(found, key=lambda it: it.margin)
                sound = all(it.kept for it in found)
                kept = kept and sound
                line = {
                    "name": f"scripts {rate:g}/s burst {burst} connections {connections}",
                    "seed": given.seed,
                    "runs": len(found),
                    "started": sum(it.started for it in found),
                    "trace": worst.margin,
                    "largest_slice": max(it.largest_slice for it in found),
                    "kept": sound,
                }
                print(json.dumps(line) if given.json else _told(line), flush=True)
    return kept


def _told(line: dict[str, Any]) -> str:
    return (
        f"{'ok  ' if line['kept'] else 'FAIL'} {line['name']}, seed {line['seed']}: worst window "
        f"{line['trace']:+.2f} in {line['runs']} runs, {line['started']} started, up to "
        f"{line['largest_slice']} permits in one call"
    )


def _cases(given: argparse.Namespace) -> Iterator[Case]:
    rates = tuple(given.rate or RATES)
    if given.only in (None, "windows"):
        if given.burst is not None:
            for rate in rates:
                yield hostile(rate, given.burst, given.connections, given.seconds, given.seed)
        else:
            yield from matrix(given.seed, given.seconds, rates)
    if given.only in (None, "use") and given.burst is None:
        yield from uses(given.seed, given.use_seconds, rates)


if __name__ == "__main__":
    sys.exit(main())
