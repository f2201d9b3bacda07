"""Who used the processors meanwhile: where a rate is not reached, whether there was any left."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from paceline.bench.cpu import used_s
from support.stack import Stack


def look(stack: Stack) -> dict[str, float]:
    """CPU seconds so far by role, of ``others``, and of no one (``idle``); and when."""
    roles = {
        "workers": used_s(process.pid for process in stack.worker_processes),
        "daemons": used_s(process.pid for process in stack.daemon_processes),
        "Redis": used_s([stack.server.pid]),
        "sink": used_s([stack.sink.pid]),
    }
    fields = Path("/proc/stat").read_text("ascii").split(maxsplit=9)[1:9]
    user, nice, system, idle, waiting, *rest = (int(it) / os.sysconf("SC_CLK_TCK") for it in fields)
    busy = user + nice + system + sum(rest)
    return {
        **roles,
        "others": busy - sum(roles.values()),
        "idle": idle + waiting,
        "at_s": time.monotonic(),
    }


def cores(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Processors used by each between two looks."""
    span_s = after["at_s"] - before["at_s"]
    return {who: (after[who] - before[who]) / span_s for who in after if who != "at_s"}
