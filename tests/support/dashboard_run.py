"""A run worth a picture, and the picture: the dashboard drawn from it.

    PYTHONPATH=tests python -m support.dashboard_run docs/dashboard.svg

Six minutes: a backlog of ten thousand goes out at 90 a second; the provider is out for a while,
answers 503 and 500 after that, and recovers. Rules and rate are those that an operator has.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.prometheus import Prometheus
from support.watched import DEPLOY, Watched, watched

ROWS = ("Is all well?", "Backlog", "Rate", "Latency", "Outcomes", "Connections and the network")
#: (seconds from the start, what the sink is told)
SCRIPT: tuple[tuple[float, dict[str, object]], ...] = (
    (0, {"faults": "500:0.5%,503:0.5%,reset_after:0.2%"}),
    (90, {"down": "30s"}),
    (123, {"faults": "500:15%,503:10%,422:0.5%", "latency": "lognormal:150ms:0.6"}),
    (170, {"faults": "500:0.5%,503:0.5%,reset_after:0.2%", "latency": "lognormal:45ms:0.5"}),
)
SECONDS = 330.0
MESSAGES, LATER = 16_000, 6_000


def main() -> None:
    """Runs, and writes the picture to the path given."""
    target = Path(sys.argv[1])
    stack = {
        "rate": 90.0,
        "workers": 2,
        "latency": "lognormal:45ms:0.5",
        "more": "max_messages = 40000",
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        watched(Path(folder), lambda rules: rules, "2s", **stack) as run,
    ):
        run.stack.client.config_set("latency-monitor-threshold", "1")
        _play(run)
        target.write_text(_draw(run.prometheus), encoding="utf-8")


def _play(run: Watched) -> None:
    started = time.monotonic()
    run.stack.send(MESSAGES)
    for at, change in SCRIPT:
        time.sleep(max(0.0, started + at - time.monotonic()))
        run.play(**change)
    run.stack.send(LATER, "later")
    time.sleep(max(0.0, started + SECONDS - time.monotonic()))


def _draw(prometheus: Prometheus) -> str:
    rows = [part for row in ROWS for part in ("--row", row)]
    command = [
        sys.executable, str(DEPLOY / "grafana" / "preview.py"), "--prometheus", prometheus.url,
        "--minutes", str(SECONDS / 60), "--rate-interval", "10s", *rows,
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


if __name__ == "__main__":
    main()
