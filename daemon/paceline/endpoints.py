"""An endpoint of a destination that has many: what is registered of it, and what is known. Pure.

Only operators register endpoints: a message names one, and never says where it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from paceline.errors import ConfigError, ConfigProblem
from paceline.settings_tables import Key, read_table
from paceline.url_rules import url_problem

__all__ = [
    "Endpoint",
    "EndpointSeen",
    "State",
    "Turn",
    "decode_endpoint",
    "endpoint_from",
    "lane_of",
]

#: well; failing: its last request failed; waiting: nothing is sent to it until a moment; disabled.
State = Literal["well", "failing", "waiting", "disabled"]

#: A name is a file's name too, in secrets_dir.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")

_KEYS: Mapping[str, Key] = {
    "url": Key(str, 'For example "https://acme.example/hooks"'),
    "in_flight": Key(Annotated[int, Meta(ge=1, le=10_000)], "A whole number from 1 to 10,000"),
    "rate": Key(
        Annotated[float, Meta(ge=0, le=1e6)], "Requests per second, such as 5; 0 for no cap"
    ),
    "burst": Key(Annotated[int, Meta(ge=1, le=10**7)], "A whole number from 1 to 10,000,000"),
    "ordered": Key(bool, "true or false"),
}


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is registered of one. None: as the destination has it for all.

    in_flight    requests to it at the same time, over all workers
    rate, burst  requests per second, 0 for no cap; and at once
    ordered      its messages go one after the other, in the order in which they came
    """

    url: str
    in_flight: int | None = None
    rate: float | None = None
    burst: int | None = None
    ordered: bool = False

    def encode(self) -> bytes:
        """As it is in Redis."""
        return msgspec.json.encode(self)


class EndpointSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as it is now.

    failures    in a row, up to the last; since: when the first of them was (unix seconds)
    until       when something is sent to it again at the earliest (unix seconds)
    why         the last failure, or why it is disabled
    waiting     messages ready for it that have no key; leased: held by workers
    """

    name: str
    endpoint: Endpoint
    state: State = "well"
    failures: int = 0
    since: float | None = None
    until: float | None = None
    why: str = ""
    waiting: int = 0
    leased: int = 0


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """How the order of a lane stands: whether a message of it is held by a worker, and when the
    first is tried again (unix seconds; it may be over)."""

    under_way: bool
    until: float | None


_DECODER = msgspec.json.Decoder(Endpoint)


def decode_endpoint(json: bytes | None) -> Endpoint | None:
    """What the registry holds; None where there is nothing, or nothing of ours."""
    if json is None:
        return None
    try:
        return _DECODER.decode(json)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def endpoint_from(
    name: str, table: Any, *, allow_plain_http: bool = False, source: str = "endpoint"
) -> Endpoint:
    """A checked endpoint: `table` has its `url`, and may have in_flight, rate, burst and ordered.

    Raises ConfigError with all that is wrong; `source` says where it came from.
    """
    problems: list[ConfigProblem] = []
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        mend = "Use 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter, digit or _"
        problems.append(ConfigProblem("name", f"{name!r} cannot name an endpoint", mend))
        name = "?"
    values = read_table(table, _KEYS, name, problems, required=("url",))
    if "url" in values:
        problem = url_problem(values["url"], allow_plain_http)
        if problem is not None:
            problems.append(ConfigProblem(f"{name}.url", *problem))
    if "burst" in values and "rate" not in values:
        problems.append(
            ConfigProblem(f"{name}.burst", "means nothing without rate", "Give a rate as well")
        )
    if problems:
        raise ConfigError(problems, source=source)
    return Endpoint(**values)


def lane_of(tenant: str) -> tuple[str, str | None]:
    """The endpoint and the key of a message, of what stands in the place of its tenant."""
    name, slash, key = tenant.partition("/")
    return name, key if slash else None
