"""Names that daemon and workers agree on: RQ's queues and entry point, Redis client names, what a
result says. Pure."""

from __future__ import annotations

from typing import Literal

Lane = Literal["high", "any"]

#: What a result says of the destination (``lua/health.lua``): g good, u a 503, o an outage (no
#: connection, 502, 504, time-out), b another bad answer (500), "" nothing.
Health = Literal["g", "u", "o", "b", ""]

#: In the order in which workers pop them.
LANES: tuple[Lane, ...] = ("high", "any")

#: The job's function, by name: the daemon must not import the workers. A test resolves it.
JOB_FUNCTION = "paceline_workers.jobs.take_batch"


#: How long an invitation may stand unanswered, before its place is free again.
INVITATION_LEASE_S = 10.0


def queue_name(destination: str, lane: Lane) -> str:
    """RQ queue of a lane: "high" brings high-priority messages only, "any" whatever is next.

    Raises ValueError for another lane.
    """
    if lane == "high":
        return f"paceline.{destination}.high"
    if lane == "any":
        return f"paceline.{destination}"
    raise ValueError(f"no such lane: {lane!r}")


def client_name(worker: str) -> str:
    """The name under which a worker's Redis connections are listed (CLIENT LIST)."""
    return f"paceline-worker-{worker}"
