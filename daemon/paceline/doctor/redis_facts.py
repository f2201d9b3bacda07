"""What is known of a Redis, and may be judged. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """Of one Redis; what could not be learnt is None, and ``refused`` names the commands that its
    rights (or its host) do not allow.

    trouble    why it could not be asked at all, "" where it answered
    info       INFO
    config     CONFIG GET of what matters
    ahead_s    Redis's clock less this machine's
    pings_s    round trips
    library    version of the function library, 0 where it is not loaded
    lacking    what the user of the URL may not do but Paceline does, as "COMMAND on key"
    aof_dir    the append-only file's folder, where it is on this machine
    """

    url: str
    trouble: str = ""
    mend: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, str] | None = None
    ahead_s: float | None = None
    pings_s: tuple[float, ...] = ()
    library: int | None = None
    user: str | None = None
    lacking: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    aof_dir: str | None = None
    disk_free_bytes: int | None = None
    disk_bytes: int | None = None

    @property
    def answered(self) -> bool:
        """Whether it could be asked."""
        return not self.trouble

    @property
    def appendfsync(self) -> str | None:
        """The policy, None where it could not be read."""
        return None if self.config is None else self.config.get("appendfsync")
