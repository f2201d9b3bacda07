"""A worker in a process of its own: python -m support.worker_process URL NAME QUEUE..."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from paceline_workers.worker import PacelineWorker
from support import jobs
from support.servers import connect


def main() -> None:
    """Run until SIGTERM."""
    url, name, *queues = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    PacelineWorker(
        "d",
        queues,
        connect=lambda: connect(url),
        name=name,
        ready=lambda: True,
        stop_event=stop,
        allowed_functions=jobs.ALLOWED,
    ).run()
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
