"""The keys of the bucket at dispatch: what waits for a token, what has got one, threads ready."""

from __future__ import annotations

BACKLOG, RELEASED, READY = "backlog", "released", "ready"
