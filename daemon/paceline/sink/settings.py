"""What a sink is told when it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from paceline.sink.answers import Profile
from paceline.sink.profiles import (
    PROFILES,
    Http,
    Mailgun,
    MaxMD,
    Postmark,
    SendGrid,
    SparkPost,
    Webhook,
    webhook_key,
)
from paceline.sink.spec import SpecError


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Everything a sink can be told. Specs are texts; they are read when the sink is built.

    ``port`` 0 takes a free one. ``username``/``password`` None accept any that are not empty
    (maxmd), and so does ``api_key`` (the mail services; of webhook it is the secret that must have
    signed). ``status`` is the good answer's (http). Mail addresses that begin with ``reject`` are
    refused (the mail services). ``recipients`` keeps count of every address accepted. ``validate``
    False answers without checking anything; each profile says how it counts recipients then.
    ``idle_s`` closes connections without traffic for that long.
    """

    host: str = "127.0.0.1"
    port: int = 0
    profile: str = "maxmd"
    username: str | None = None
    password: str | None = None
    api_key: str | None = None
    reject: str = "reject-"
    recipients: bool = False
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
        """The profile named. Raises SpecError where there is none of that name, or where what is
        asked of it cannot be had."""
        if self.recipients and not self.validate:
            raise SpecError("addresses are not read in a lean sink: leave out recipients or lean")
        if self.profile == "maxmd":
            return MaxMD(self.username, self.password, self.validate)
        if self.profile == "http":
            return Http(self.status, self.validate)
        if self.profile == "webhook":
            return Webhook(webhook_key(self.api_key), self.validate)
        service = _SERVICES.get(self.profile)
        if service is not None:
            return service(self.api_key, self.reject, self.validate)
        raise SpecError(f'profile "{self.profile}" is unknown; allowed: {", ".join(PROFILES)}')


_SERVICES: dict[str, Callable[[str | None, str, bool], Profile]] = {
    "sparkpost": SparkPost,
    "mailgun": Mailgun,
    "sendgrid": SendGrid,
    "postmark": Postmark,
}


class SinkOptions(TypedDict, total=False):
    """The fields of SinkSettings, as keywords."""

    host: str
    port: int
    profile: str
    username: str | None
    password: str | None
    api_key: str | None
    reject: str
    recipients: bool
    status: int
    validate: bool
    faults: str
    latency: str
    seed: int
    script: Sequence[str] | Mapping[str, Sequence[str]] | None
    limit: str | None
    record: Path | None
    idle_s: float | None
