"""RQ's producer: ``python -m paceline.bench.peers.rq_enqueue REDIS URL COUNT``."""

from __future__ import annotations

import sys

import redis
from rq import Queue

from paceline.bench.body import payload
from paceline.bench.meter import Meter
from paceline.bench.peers.rq_job import post


def main() -> None:
    """Enqueues one job a message, one by one, as RQ's documentation shows it."""
    server, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    client = redis.Redis.from_url(server)
    queue = Queue(connection=client)
    client.ping()
    with Meter(count):
        for number in range(count):
            queue.enqueue(post, url, payload(number))


if __name__ == "__main__":
    main()
