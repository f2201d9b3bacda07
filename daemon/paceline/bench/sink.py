"""The one sink of a run, a process of its own: no latency, no faults; and what it saw."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Self

from paceline.bench.child import BenchFailed
from paceline.rehearsal.processes import Part
from paceline.rehearsal.sink_client import SinkClient
from paceline.supervisor import PARENT_VARIABLE

_READY_S, _LOOK_S, _GRACE_S = 30.0, 0.05, 10.0
PATH = "/messages"


class BenchSink:
    """Started by ``with``; ``profile`` is the sink's, ``path`` where that takes messages. Raises
    PartFailed, OSError."""

    def __init__(self, folder: Path, profile: str = "http", path: str = PATH) -> None:
        self._folder = folder
        self._profile = profile
        self._path = path

    def __enter__(self) -> Self:
        port_file = self._folder / "sink.port"
        command = [sys.executable, "-m", "paceline.sink", "--profile", self._profile, "--lean"]
        command += ["--port", "0", "--port-file", str(port_file)]
        environ = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        self._part = Part("sink", command, environ, self._folder / "sink.log")
        try:
            end_s = time.monotonic() + _READY_S
            while not port_file.exists():
                self._part.check()
                if time.monotonic() > end_s:
                    raise BenchFailed(f"the sink did not listen in {_READY_S:.0f} s")
                time.sleep(_LOOK_S)
            self.client = SinkClient(port_file.read_text("utf-8").strip())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._part.ask_to_stop()
        self._part.await_end(_GRACE_S)

    @property
    def url(self) -> str:
        """Where messages are posted."""
        return self.client.url + self._path

    def forget(self) -> None:
        """Nothing has arrived yet."""
        self.client.reset()

    def accepted(self, whose: str, count: int) -> int:
        """How many arrived since ``forget``. Raises BenchFailed unless ``count`` were accepted, no
        message twice: figures of messages that were not sent are worth nothing."""
        report = self.client.report()
        twice = len(report["duplicates"])
        if report["accepted"] != count or report["arrivals"] != count or twice:
            raise BenchFailed(
                f"{whose} sent {count:,} messages by its own account, but the sink accepted "
                f"{report['accepted']:,} of {report['arrivals']:,} requests, {twice:,} ids twice"
            )
        return count
