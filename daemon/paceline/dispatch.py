"""Invitations: the only place on the daemon's side that knows RQ.

An RQ job of ours is an invitation: "take up to n messages of this destination". The messages
stay in the outbox, so a lost job loses nothing and a job run twice takes two batches or none.
All that is asked of RQ is to bring the invitation to one worker, and to leave nothing behind:

* the job's hash expires with the invitation's lease, whether or not a worker ever sees it (RQ
  pops by BLPOP: a kill between pop and start leaves the job in no list, only its hash);
* job ids whose hash has expired stay in the queue's list until a worker pops and skips them.
  `purge_stale` takes them out where no worker pops for long.

An invitation costs one round trip: MULTI, SADD, 2 HSET, 3 EXPIRE, RPUSH, EXEC.
"""

from __future__ import annotations

import math

import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import as_text

from paceline.names import JOB_FUNCTION, LANES, Lane, queue_name

__all__ = ["Dispatcher"]

# A job of ours never raises; should one, RQ keeps what is known of it for a minute.
_FAILURE_TTL_S = 60
_PURGE_CHUNK = 1000


class Dispatcher:
    """Sends invitations of one destination into its RQ queues. Thread-safe as its client is."""

    def __init__(self, connection: redis.Redis, destination: str) -> None:
        """`connection`: bytes in and out, and an explicit retry policy without repeats."""
        self._connection = connection
        self._destination = destination
        # JSON, never RQ's default: unpickling what lies in Redis runs what anybody put there.
        self._queues = {
            lane: Queue(
                queue_name(destination, lane), connection=connection, serializer=JSONSerializer
            )
            for lane in LANES
        }

    def invite(self, invitation_id: str, count: int, lane: Lane, ttl_s: float) -> None:
        """Enqueue "take up to `count` messages", valid for `ttl_s` seconds.

        invitation_id: the job's id, so RQ allows letters, digits, `_` and `-` only. Repeated
        with the same id, the invitation is still taken once: the first run deletes the job.
        Raises ValueError for an id, count or ttl out of range, and redis errors as they come:
        whether the invitation exists is then unknown, and its lease settles that.
        """
        if count < 1:
            raise ValueError(f"an invitation for {count} messages")
        if ttl_s <= 0:
            raise ValueError(f"an invitation valid for {ttl_s} s")
        if lane not in self._queues:
            raise ValueError(f"no such lane: {lane!r}")
        with self._connection.pipeline(transaction=True) as pipeline:
            self._queues[lane].enqueue_call(
                JOB_FUNCTION,
                kwargs={
                    "destination": self._destination,
                    "count": count,
                    "lane": lane,
                    "invitation": invitation_id,
                },
                job_id=invitation_id,
                description=f"take up to {count} messages of {self._destination} ({lane})",
                timeout=-1,
                result_ttl=0,
                failure_ttl=_FAILURE_TTL_S,
                ttl=math.ceil(ttl_s),
                pipeline=pipeline,
            )
            pipeline.execute()

    def purge_stale(self) -> int:
        """Take ids of expired jobs out of both queues; returns how many.

        Looks at the oldest 1,000 ids of each. Safe beside workers and other schedulers: an id
        without a job is one that whoever pops it skips.
        """
        removed = 0
        for queue in self._queues.values():
            oldest = self._connection.lrange(queue.key, 0, _PURGE_CHUNK - 1)
            ids = [as_text(job_id) for job_id in oldest]
            if not ids:
                continue
            with self._connection.pipeline(transaction=False) as pipeline:
                for job_id in ids:
                    pipeline.exists(Job.key_for(job_id))
                exist = pipeline.execute()
            stale = [job_id for job_id, there in zip(ids, exist, strict=True) if not there]
            if not stale:
                continue
            with self._connection.pipeline(transaction=False) as pipeline:
                for job_id in stale:
                    pipeline.lrem(queue.key, 1, job_id)
                removed += sum(pipeline.execute())
        return removed
