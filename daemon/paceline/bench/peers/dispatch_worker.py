"""A worker behind a bucket at dispatch:
``python -m paceline.bench.peers.dispatch_worker REDIS URL THREADS``."""

from __future__ import annotations

import os
import sys
import threading

import redis
import requests

from paceline.bench.peers.dispatch_keys import READY, RELEASED
from paceline.connect import connect
from paceline.supervisor import watch_parent

_POP_S = 1.0
_JSON = {"Content-Type": "application/json"}


def main() -> None:
    """Posts what was released, until SIGTERM or the parent's end. Raises RedisError."""
    server, url, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    client, gone = connect(server), threading.Event()
    watch_parent(os.environ, gone)
    for _ in range(threads):
        threading.Thread(target=_post, args=(client, url), daemon=True).start()
    gone.wait()


def _post(client: redis.Redis, url: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        client.incr(READY)
        while True:
            popped = client.blpop([RELEASED], timeout=_POP_S)
            if popped is not None:
                session.post(url, data=popped[1], headers=_JSON).raise_for_status()


if __name__ == "__main__":
    main()
