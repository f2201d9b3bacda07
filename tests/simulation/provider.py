"""The provider of one destination: how long it takes, what it answers, and that it may be down.

What it does is judged as a worker judges it, by the real functions.
"""

from __future__ import annotations

import random
from typing import Literal

from paceline_workers.outcome import Failure, Outcome, Reply, judge_failure, judge_status
from simulation.kernel import Kernel

#: What clients see while it is down: no connection; a gateway that answers 502 for it; no answer.
Down = Literal["refused", "502", "hang"]
_GATEWAY_MS = (5.0, 20.0)


class Provider:
    """``latency_ms``: least and most of a good answer's, evenly spread; ``timeout_s``: after which
    the client gives up."""

    def __init__(
        self, kernel: Kernel, rand: random.Random, latency_ms: tuple[float, float], timeout_s: float
    ) -> None:
        self._kernel = kernel
        self._rand = rand
        self._latency_ms = latency_ms
        self._timeout_us = timeout_s * 1e6
        self._down: Down | None = None
        #: Rises when it drops all connections.
        self.epoch = 0

    def go_down(self, how: Down) -> None:
        """From now on."""
        self._down = how
        if how == "refused":
            self.epoch += 1

    def come_back(self) -> None:
        """As before."""
        self._down = None

    def connects(self) -> Outcome | None:
        """None where it accepts a connection."""
        if self._down == "refused":
            return judge_failure(Failure("connect", "refused"))
        return None

    def answer(self) -> Outcome:
        """Takes a request that was just written; waits, as the caller's thread does."""
        epoch, down = self.epoch, self._down
        if down == "hang":
            self._kernel.sleep(self._timeout_us)
            return judge_failure(Failure("read", "timeout"))
        self._kernel.sleep(self._rand.uniform(*(_GATEWAY_MS if down else self._latency_ms)) * 1e3)
        if self.epoch != epoch:
            return judge_failure(Failure("read", "reset"))
        status = 502 if down else 200
        return judge_status(Reply(status, {}, b""), self._kernel.now_us / 1e6)
