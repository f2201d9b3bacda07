"""The command: see the package."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from shows import endpoints, events, figures, high, outage, steady, tenants, unknown_limit
from shows.figures import Figure


class Show(NamedTuple):
    """``run(folder, seconds, seed)``; ``seconds`` is its full length."""

    run: Callable[[Path, float, int], list[Figure]]
    seconds: float


SHOWS = {
    "steady": Show(steady.run, steady.SECONDS),
    "unknown-limit": Show(unknown_limit.run, unknown_limit.SECONDS),
    "high": Show(high.run, high.SECONDS),
    "high-slow": Show(high.run_slow, high.SECONDS),
    "tenants": Show(tenants.run, tenants.SECONDS),
    "outage": Show(outage.run, outage.SECONDS),
    "endpoints": Show(endpoints.run, endpoints.SECONDS),
    "events": Show(events.run, events.SECONDS),
}


def main() -> int:
    """Runs one show, or all, and prints what it measured. 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="python -m shows", description=__doc__)
    parser.add_argument("show", choices=(*SHOWS, "all"))
    parser.add_argument("--seconds", type=float, help="how long, instead of its full length")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object a show")
    given = parser.parse_args()
    met = True
    for name in SHOWS if given.show == "all" else (given.show,):
        seconds = given.seconds or SHOWS[name].seconds
        with tempfile.TemporaryDirectory() as folder:
            found = SHOWS[name].run(Path(folder), seconds, given.seed)
        met = met and figures.all_met(found)
        if given.json:
            print(json.dumps(figures.as_data(name, seconds, given.seed, found)), flush=True)
        else:
            print(figures.as_text(name, found), flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
