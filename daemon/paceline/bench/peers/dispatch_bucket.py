"""The bucket at dispatch: ``python -m paceline.bench.peers.dispatch_bucket REDIS RATE BURST``."""

from __future__ import annotations

import os
import sys
import threading
import time

from paceline.bench.peers.dispatch_keys import BACKLOG, RELEASED
from paceline.connect import connect
from paceline.sink.limit import Limit
from paceline.supervisor import watch_parent


def main() -> None:
    """Releases one job a token, until the backlog is empty. Raises RedisError."""
    client, bucket = connect(sys.argv[1]), Limit(float(sys.argv[2]), float(sys.argv[3]))
    stop = threading.Event()
    watch_parent(os.environ, stop)
    while not stop.is_set():
        wait_s = bucket.wait_s(time.monotonic_ns())
        if wait_s:
            stop.wait(wait_s)
        elif client.lmove(BACKLOG, RELEASED, "LEFT", "RIGHT") is None:
            return


if __name__ == "__main__":
    main()
