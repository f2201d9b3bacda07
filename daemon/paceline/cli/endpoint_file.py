"""Endpoints as an operator gives them: one by its options, or many in a JSON Lines file.

A line: ``{"name": "acme", "url": "https://…", "in_flight"?, "rate"?, "burst"?, "ordered"?}``.
No output, no Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import msgspec

from paceline.endpoints import Endpoint, endpoint_from
from paceline.errors import ConfigError, ConfigProblem
from paceline.guard import parse_networks
from paceline.settings import Destination
from paceline.settings_guard import guarded_url_problem

_LONGEST = 64 * 1024
_EXAMPLE = 'A line is one JSON object: {"name": "acme", "url": "https://acme.example/hooks"}'


def checked(destination: Destination, name: str, table: Any, source: str) -> Endpoint:
    """An endpoint that this destination would send to. Raises ConfigError with all that is wrong;
    ``source`` says where it came from.

    A host that is a name is judged when it is connected to; a numeric address is told here.
    """
    problems: list[ConfigProblem] = []
    endpoint = None
    try:
        endpoint = endpoint_from(
            name, table, allow_plain_http=destination.allow_plain_http, source=source
        )
    except ConfigError as error:
        problems += error.problems
    url = table.get("url") if isinstance(table, dict) else None
    if destination.guard != "off" and isinstance(url, str):
        problem = guarded_url_problem(url, parse_networks(destination.guard_allow))
        if problem is not None:
            at = "?" if any(it.key == "name" for it in problems) else name
            problems.append(ConfigProblem(f"{at}.url", *problem))
    if problems or endpoint is None:
        raise ConfigError(problems, source=source)
    return endpoint


@dataclass(frozen=True, slots=True)
class LineProblem:
    """What is wrong with one line, which counts from 1. ``name``: of its endpoint, as far as it has
    one."""

    number: int
    name: str | None
    problem: ConfigProblem

    @property
    def text(self) -> str:
        """One line for people."""
        return f"line {self.number}: {self.problem}"

    def view(self) -> dict[str, Any]:
        """For --json."""
        at = self.problem
        found = {"field": at.key, "problem": at.problem, "mend": at.mend}
        return {"line": self.number, "name": self.name, **found}


@dataclass(slots=True)
class EndpointFile:
    """What a file holds: ``good`` by name, and what is wrong with the other lines."""

    read: int = 0
    good: dict[str, Endpoint] = field(default_factory=dict)
    problems: list[LineProblem] = field(default_factory=list)

    @property
    def bad_lines(self) -> int:
        """Lines of which nothing is taken."""
        return len({problem.number for problem in self.problems})


def read_endpoints(source: IO[bytes], destination: Destination) -> EndpointFile:
    """Reads all of it. A line with anything wrong, or with a name that an earlier line has, is bad
    as a whole."""
    found = EndpointFile()
    lines: dict[str, int] = {}
    for number, raw in _lines(source):
        name = None
        found.read += 1
        try:
            table = _table(raw)
            name = table.pop("name", None)
            if not isinstance(name, str):
                raise _wrong("name", "missing" if name is None else "is no text", _EXAMPLE)
            if name in lines:
                raise _wrong("name", f"{name!r} is also on line {lines[name]}", "Leave one of them")
            lines[name] = number
            found.good[name] = checked(destination, name, table, f"line {number}")
        except ConfigError as error:
            found.problems += [LineProblem(number, name, it) for it in error.problems]
    return found


def _lines(source: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Those that are not blank, with their numbers; None in the place of one that is too long."""
    number = 0
    while raw := source.readline(_LONGEST):
        number += 1
        line: bytes | None = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        while len(raw) == _LONGEST and not raw.endswith(b"\n"):
            line, raw = None, source.readline(_LONGEST)
        if line is None or line.strip():
            yield number, line


def _table(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise _wrong("", f"longer than {_LONGEST:,} bytes", _EXAMPLE)
    try:
        table = msgspec.json.decode(line)
    except RecursionError:
        raise _wrong("", "nested too deep", _EXAMPLE) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = str(error).removeprefix("JSON is malformed: ")
        raise _wrong("", f"not JSON: {why}", _EXAMPLE) from None
    if not isinstance(table, dict):
        raise _wrong("", "no JSON object", _EXAMPLE)
    return table


def _wrong(where: str, problem: str, mend: str) -> ConfigError:
    return ConfigError([ConfigProblem(where, problem, mend)], source="line")
