"""What went on the wire and when, for whoever checks the pace from outside (docs/decisions/
permits-at-the-wire.md).

One line a request, ``mono_ns connection id``: CLOCK_MONOTONIC at the first byte, which all
processes of a machine share, in network namespaces of their own too; the number of the connection
within this process, from 1; the message's id.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from pathlib import Path

from paceline_workers.transports.adapter import GatedRequest
from paceline_workers.transports.connection import Link

log = logging.getLogger("paceline.trace")


class WireTrace:
    """Appends to ``path``. Thread-safe, and several processes may share a file.

    ``id_header`` is the header that carries a message's id. Raises OSError where the file cannot be
    opened. One that cannot be written later is given up, with an error in the log: requests are
    worth more than their trace.
    """

    def __init__(self, path: Path, id_header: str) -> None:
        self._id_header = id_header
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._numbers = itertools.count(1)
        self._number_of: dict[int, int] = {}

    def __call__(self, request: GatedRequest, link: Link) -> None:
        """To be called when the very next thing is the first byte of ``request``."""
        if self._file is None:
            return
        now_ns = time.monotonic_ns()
        if link.requests == 1:
            # By identity: another Link may come to have it, but then it begins at 1 too.
            self._number_of[id(link)] = next(self._numbers)
        message_id = request.headers.get(self._id_header, "-")
        line = f"{now_ns} {self._number_of[id(link)]} {message_id}\n"
        try:
            # One write to the system, unbuffered: whatever kills this process afterwards, a request
            # whose first byte left has its line.
            os.write(self._file, line.encode("ascii"))
        except OSError as error:
            log.error("the trace of the wire ends here: %s", error)
            self._file = None
