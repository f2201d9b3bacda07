"""Whether a process still lives by the configuration that is in force in Redis."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from paceline.config_digest import digest
from paceline.errors import ConfigMismatch
from paceline.outbox import OutboxStore
from paceline.settings import Destination
from paceline.shared_config import mismatch

#: Processes that are reloaded together are not reloaded at the same instant.
GRACE_S = 3.0
_REMIND_S = 300.0


class Standing:
    """Tells once in the log, and again every five minutes. One thread."""

    def __init__(self, log: logging.Logger, monotonic_s: Callable[[], float]) -> None:
        self._log = log
        self._monotonic_s = monotonic_s
        self._since_s: float | None = None
        self._told_s: float | None = None

    def look(self, store: OutboxStore, destination: Destination) -> bool:
        """True while another configuration than this one is in force. Raises RedisError."""
        theirs, in_force = store.config_in_force()
        # An empty Redis is the daemon's to fill again.
        if theirs in ("", digest(destination)):
            self.good(destination.name)
            return False
        self.bad(mismatch(destination, json.loads(in_force)))
        return True

    def bad(self, error: ConfigMismatch) -> None:
        """Another one is in force."""
        now = self._monotonic_s()
        if self._since_s is None:
            self._since_s = now
        due_s = self._since_s + GRACE_S if self._told_s is None else self._told_s + _REMIND_S
        if now >= due_s:
            self._told_s = now
            extra = {"event": "config_stale", "destination": error.destination}
            self._log.warning("%s", error, extra=extra)

    def good(self, destination: str) -> None:
        """This one is."""
        if self._told_s is not None:
            self._log.info(
                "this process lives by the configuration in force again",
                extra={"event": "config_in_force", "destination": destination},
            )
        self._since_s = self._told_s = None
