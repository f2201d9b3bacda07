"""A child's own figures: wall and CPU time around its loop, printed as one JSON line."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import Self


class Meter:
    """``with Meter(count):`` around what is measured; start-up and imports stay outside."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._wall = self._cpu = 0.0

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        wall_s, cpu_s = time.perf_counter() - self._wall, time.process_time() - self._cpu
        if kind is None:
            figures = {"count": self._count, "wall_s": wall_s, "cpu_s": cpu_s}
            sys.stdout.write(json.dumps(figures) + "\n")
