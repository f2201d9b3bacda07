"""What a sink is told when it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from paceline.sink.answers import PROFILES, Http, MaxMD, Profile
from paceline.sink.spec import SpecError


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Everything a sink can be told. Specs are texts; they are read when the sink is built.

    ``port`` 0 takes a free one. ``username``/``password`` None accept any that are not empty
    (maxmd); ``status`` is the good answer's (http). ``validate`` False answers without looking
    at bodies. ``idle_s`` closes connections without traffic for that long.
    """

    host: str = "127.0.0.1"
    port: int = 0
    profile: str = "maxmd"
    username: str | None = None
    password: str | None = None
    status: int = 200
    validate: bool = True
    faults: str = ""
    latency: str = ""
    seed: int = 0
    script: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    limit: str | None = None
    record: Path | None = None
    idle_s: float | None = None

    def make_profile(self) -> Profile:
        """The profile named. Raises SpecError where there is none of that name."""
        if self.profile == "maxmd":
            return MaxMD(self.username, self.password, self.validate)
        if self.profile == "http":
            return Http(self.status, self.validate)
        raise SpecError(f'profile "{self.profile}" is unknown; allowed: {", ".join(PROFILES)}')


class SinkOptions(TypedDict, total=False):
    """The fields of SinkSettings, as keywords."""

    host: str
    port: int
    profile: str
    username: str | None
    password: str | None
    status: int
    validate: bool
    faults: str
    latency: str
    seed: int
    script: Sequence[str] | Mapping[str, Sequence[str]] | None
    limit: str | None
    record: Path | None
    idle_s: float | None
