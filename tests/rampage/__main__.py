"""The command: see the package."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rampage import report as reports
from rampage.deeds import Deeds, Done, as_data, settled
from rampage.intake import Ledger, Producer
from rampage.judge import judge
from rampage.plan import deeds
from rampage.scene import Scene
from rampage.together import Together
from support.wait import until

PER_S = 60.0
#: What of the kills is on processes by themselves; the rest is under ``paceline up``.
APART = 0.6
_DRAIN_S = 120.0


def main() -> int:
    """1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m rampage", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    run = what.add_parser("run", help="one run")
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--kills", type=int, default=50, help="with something in flight")
    run.add_argument("--minutes", type=float, default=math.inf, help="or until then")
    run.add_argument("--report", type=Path, help="where to write the JSON")
    run.add_argument("--only", choices=("apart", "up"), help="one way of running")
    total = what.add_parser("total", help="sums reports")
    total.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if given.what == "total":
        found = reports.total(json.loads(path.read_text()) for path in given.files)
        print(json.dumps(found, indent=1))
    else:
        found = _run(given)
        if given.report:
            given.report.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(reports.line(found), file=sys.stderr, flush=True)
    for words in found["wrong"]:
        print(f"  {words}", file=sys.stderr)
    return 1 if found["wrong"] else 0


def _run(given: argparse.Namespace) -> dict[str, Any]:
    began_s = time.monotonic()
    apart = round(given.kills * APART)
    parts = {"apart": (Scene, apart, APART), "up": (Together, given.kills - apart, 1.0)}
    if given.only:
        parts = {given.only: (parts[given.only][0], given.kills, 1.0)}
    scenes, done = [], []
    for _, (kind, kills, share) in parts.items():
        until_s = began_s + given.minutes * 60 * share
        figures, its = play(kind, given.seed, kills, until_s)
        scenes.append(figures)
        done += its
    return reports.report(given.seed, time.monotonic() - began_s, scenes, done)


def play(
    kind: type[Scene], seed: int, kills: int, until_s: float
) -> tuple[dict[str, Any], list[Any]]:
    """One scene, until so many kills counted or the time (monotonic) has come."""
    done: list[Done] = []
    with tempfile.TemporaryDirectory() as folder, kind(Path(folder), seed=seed) as scene:
        path = Path(folder) / "ledger.jsonl"
        ledger = Ledger(path)
        producer = Producer(scene.outbox_url, ledger, PER_S, f"s{seed}")
        producer.start()
        hands = Deeds(scene, ledger, f"s{seed}")
        for deed in deeds(seed, scene.way):
            if sum(it.counts for it in done) >= kills or time.monotonic() > until_s:
                break
            done.append(hands.do(deed))
            _tell(done[-1], sum(it.counts for it in done), kills)
            if producer.failure is not None:
                break
        producer.halt()
        until(lambda: settled(scene), _DRAIN_S, "nothing is unfinished", 0.1)
        ledger.close()
        return judge(scene, path, done), [as_data(it) for it in done]


def _tell(done: Done, count: int, kills: int) -> None:
    mark = f"{count:>3}/{kills}" if done.counts else "   -  "
    print(
        f"{mark} {done.way:5} {done.at_s:6.1f} s {done.deed:30} {done.in_flight} in flight, "
        f"recovered in {done.recovery_s:.2f} s",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
