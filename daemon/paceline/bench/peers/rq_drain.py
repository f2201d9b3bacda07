"""RQ's worker: ``python -m paceline.bench.peers.rq_drain REDIS COUNT``."""

from __future__ import annotations

import sys

import redis
from rq import Queue, SimpleWorker

from paceline.bench.meter import Meter

# Imported here, not with the first job: what a worker imports is no message's cost.
from paceline.bench.peers import rq_job  # noqa: F401


def main() -> None:
    """Drains the queue in this process: the worker that forks a job would pay for COUNT forks."""
    client = redis.Redis.from_url(sys.argv[1])
    worker = SimpleWorker([Queue(connection=client)], connection=client)
    with Meter(int(sys.argv[2])):
        # A line of log a job, RQ's default, would be a good part of its cost.
        worker.work(burst=True, logging_level="WARNING")


if __name__ == "__main__":
    main()
