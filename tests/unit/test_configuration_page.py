"""docs/configuration.md against the code: every key, its type and bounds, and every default.

What proves a default is the loader: a file that writes all defaults of the page out means the same
as one that leaves them all out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import pytest
from msgspec import Meta

from paceline.errors import ConfigError
from paceline.settings import ItemsRule, ReplyRule, Settings
from paceline.settings_file import loads
from paceline.settings_tables import (
    DESTINATION,
    ENDPOINTS,
    EVENTS,
    EXPORTER,
    ITEMS,
    MERGE,
    ONLY,
    PROVIDERS,
    REDIS,
    RETRY,
    RULE,
    SUCCESS,
    TENANT,
    Key,
)

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
TABLES: Mapping[str, Mapping[str, Key]] = {
    "redis": REDIS,
    "exporter": EXPORTER,
    "destinations.NAME": DESTINATION,
    "destinations.NAME.retry": RETRY,
    "destinations.NAME.tenants.TENANT": TENANT,
    "destinations.NAME.success": SUCCESS,
    "destinations.NAME.merge": MERGE,
    "destinations.NAME.events": EVENTS,
    "destinations.NAME.endpoints": ENDPOINTS,
    "destinations.NAME.rules.RULE": RULE,
    "destinations.NAME.items": ITEMS,
}
# What a table that is not there by default cannot be without.
BESIDE = {
    "destinations.NAME.events": {"kinds": '"all"'},
    "destinations.NAME.rules.RULE": {"status": '"403"', "outcome": '"retry"'},
    "destinations.NAME.items": {"pointer": '""', "success": '{ pointer = "/c", equals = 0 }'},
}
REQUIRED = {
    "maxmd": {"url": '"https://a.example/"', "username": '"u"', "password": '"p"'},
    "sparkpost": {"url": '"https://a.example/"', "api_key": '"k"'},
    "mailgun": {"url": '"https://a.example/"', "api_key": '"k"'},
    "webhook": {"url": '"https://a.example/"', "secrets": '[{ env = "A" }]'},
    "http": {"url": '"https://a.example/"'},
}
# Providers of which the page gives a default, also before there are any.
NAMED = sorted({*PROVIDERS, "webhook"})
LONGEST_S = 31_622_400


class Row(NamedTuple):
    table: str
    key: str
    type: str
    default: str

    def literal(self, provider: str) -> str | None:
        """The default as TOML, None where there is none to write."""
        for value, only in re.findall(rf"`([^`]+)`(?: ({'|'.join(NAMED)}))?", self.default):
            if only in ("", provider):
                return str(value)
        return None

    def means_something(self, provider: str) -> bool:
        """Whether the key may be written for this provider."""
        own_table = self.table.removeprefix("destinations.NAME.").partition(".")[0]
        if (self.table, self.key) == ("destinations.NAME.merge", "array"):
            return provider == "http"
        return provider in ONLY.get(own_table, ONLY.get(self.key, PROVIDERS))

    @property
    def provider(self) -> str:
        """One for which the key means something, without others beside it."""
        if self.table.endswith(".merge") and self.key != "array":
            return "sparkpost"
        return next(name for name in reversed(PROVIDERS) if self.means_something(name))


def _rows() -> list[Row]:
    found, table = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"## (?:\[(.+)\]|.+)", line):
            table = heading[1] or ""
        elif table and (cells := re.fullmatch(r"\| `(\w+)` \| (.+?) \| (.+?) \| .*\|", line)):
            found.append(Row(table, cells[1], cells[2], cells[3]))
    return found


ROWS = _rows()
#: With that table a destination is another one: it has no URL, and other defaults.
APART = "destinations.NAME.endpoints"
USUAL = [row for row in ROWS if row.table != APART]


def _name(row: Row) -> str:
    return f"{row.table}.{row.key}"


def _toml(provider: str, values: Mapping[tuple[str, str], str]) -> str:
    """A file with these values (by table and key) and what is required."""
    lines: dict[str, dict[str, str]] = {
        "destinations.NAME": {"provider": f'"{provider}"', **REQUIRED[provider]},
    }
    if ("destinations.NAME", "tenants") not in values:
        # A tenant of which nothing is said.
        lines["destinations.NAME.tenants.TENANT"] = {}
    for (table, key), value in values.items():
        lines.setdefault(table, dict(BESIDE.get(table, {})))[key] = value
    text = ""
    for table in sorted(lines):
        text += f"[{table.replace('NAME', 'd')}]\n"
        text += "".join(f"{key} = {value}\n" for key, value in lines[table].items())
    return text


def _load(provider: str, values: Mapping[tuple[str, str], str]) -> tuple[Any, ...]:
    settings: Settings = loads(_toml(provider, values))
    # A listener that was named is not the default one, even at the same address.
    return settings.redis, str(settings.exporter.listen), settings.destinations["d"]


def test_the_page_has_every_key_once() -> None:
    assert {row.table for row in ROWS} == set(TABLES)
    for table, keys in TABLES.items():
        assert sorted(row.key for row in ROWS if row.table == table) == sorted(keys), table


@pytest.mark.parametrize("provider", REQUIRED)
def test_writing_every_default_out_changes_nothing(provider: str) -> None:
    written = {
        (row.table, row.key): value
        for row in USUAL
        if row.means_something(provider) and (value := row.literal(provider)) is not None
    }
    assert len(written) > 25, "the pattern finds no defaults any more"
    assert _load(provider, written) == _load(provider, {})


@pytest.mark.parametrize("row", [r for r in USUAL if r.literal(r.provider)], ids=_name)
def test_a_documented_key_is_heard(row: Row) -> None:
    """Or the test above would prove nothing: another value must make a difference."""
    provider = row.provider
    value = tomllib.loads(f"v = {row.literal(provider)}")["v"]
    try:
        changed: Any = _load(provider, {(row.table, row.key): _other(value)})
    except ConfigError as error:
        # One that is refused is heard, too.
        changed = [p.key for p in error.problems if p.key.split(".")[-1].startswith(row.key)]
    assert changed
    assert changed != _load(provider, {})


@pytest.mark.parametrize("row", [r for r in USUAL if not r.literal(r.provider)], ids=_name)
def test_a_key_without_a_written_default(row: Row) -> None:
    assert row.default in ("required", "none", "below"), "no TOML value, and no word we know"
    if row.default == "below":
        assert any(table.startswith(f"{row.table}.{row.key}") for table in TABLES)
    elif row.default == "required":
        beside = {(row.table, key): value for key, value in BESIDE.get(row.table, {}).items()}
        lines = _toml(row.provider, beside).splitlines()
        without = "\n".join(line for line in lines if not line.startswith(f"{row.key} ="))
        with pytest.raises(ConfigError) as caught:
            loads(without)
        assert [(p.key, p.problem) for p in caught.value.problems] == [
            (f"{row.table.replace('NAME', 'd')}.{row.key}", "missing")
        ]
    else:
        redis, _, destination = _load("http", {})
        owner = {
            "redis": redis,
            "destinations.NAME.success": destination.success,
            "destinations.NAME.merge": destination.merge,
            "destinations.NAME.events": destination.events,
            "destinations.NAME.rules.RULE": ReplyRule(status="403", outcome="retry"),
            "destinations.NAME.items": ItemsRule(pointer="", success="", equals=0),
        }
        attribute = "pointer" if row.key == "body" else row.key
        assert not getattr(owner.get(row.table, destination), attribute)


def _hooks(values: Mapping[str, str], **keys: str) -> Any:
    text = '[destinations.d]\nprovider = "webhook"\nsecrets = [{ env = "A" }]\n'
    text += "".join(f"{key} = {value}\n" for key, value in keys.items())
    text += "[destinations.d.endpoints]\n"
    text += "".join(f"{key} = {value}\n" for key, value in values.items())
    return loads(text).destinations["d"]


def test_the_defaults_of_endpoints_are_as_documented() -> None:
    rows = {row.key: row.literal("webhook") for row in ROWS if row.table == APART}
    written = {key: value for key, value in rows.items() if value is not None}
    assert _hooks(written) == _hooks({}) == _hooks({}, pace='"fixed"', connections="100")
    assert _hooks({}).endpoints.secrets_dir is None
    for key, value in written.items():
        assert _hooks({key: f"{value}1"}) != _hooks({}), key


@pytest.mark.parametrize(
    ("key", "value"),
    [("url", '"https://a.example/"'), ("pace", '"adaptive"'), ("tenants", "{ a = {} }")],
)
def test_what_means_nothing_beside_endpoints_is_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _hooks({}, **{key: value})
    assert [p.key for p in caught.value.problems] == [f"destinations.d.{key}"]


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_the_type_is_as_documented(row: Row) -> None:
    kind = TABLES[row.table][row.key].type
    if kind is not Any:
        assert row.type == _words(kind, row.key)
        return
    assert row.type in ("table", "secret", "list of secrets", "value")
    if row.type == "list of secrets":
        two = {(row.table, row.key): '[{ env = "B" }, { env = "A" }]'}
        assert _load(row.provider, two) != _load(row.provider, {})
        return
    if row.type == "secret":
        secret = {(row.table, row.key): '{ env = "X" }'}
        if row.key in ("username", "password", "proxy_username", "proxy_password"):
            secret[row.table, _beside(row.key)] = '"x"'
        if row.key.startswith("proxy_"):
            secret[row.table, "proxy"] = '"http://proxy.example:3128"'
        assert _load(row.provider, secret) != _load(row.provider, {})
    else:
        with pytest.raises(ConfigError) as caught:
            _load("http", {(row.table, row.key): "7" if row.type == "table" else "[7]"})
        assert row.key in str(caught.value)


def _beside(key: str) -> str:
    prefix, _, key = key.rpartition("_")
    other = "password" if key == "username" else "username"
    return f"{prefix}_{other}" if prefix else other


def _words(kind: Any, key: str) -> str:
    """The page's words for a type, as msgspec reads it."""
    inner, meta = kind, Meta()
    if get_origin(kind) is Annotated:
        inner, meta = get_args(kind)[:2]
    if get_origin(inner) in (Union, UnionType):
        return ", or ".join(_words(part, key) for part in get_args(inner))
    if get_origin(inner) is Literal:
        return ", ".join(f'`"{value}"`' for value in get_args(inner))
    if get_origin(inner) is list:
        return f"list of {_words(get_args(inner)[0], key)}"
    if get_origin(inner) is tuple:
        assert [_bounds(part) for part in get_args(inner)] == [(0, None, LONGEST_S)] * 2
        return "two seconds, or 0"
    if key.endswith("_s") and not key.endswith("_per_s"):
        assert inner is float
        assert _bounds(kind) in ((None, 0, LONGEST_S), (0, None, LONGEST_S))
        return "seconds" if meta.gt == 0 else "seconds, or 0"
    if inner in (str, bool):
        return {str: "text", bool: "`true`, `false`"}[inner]
    least = f" above {meta.gt:,}, to" if meta.gt is not None else f", {meta.ge:,} to"
    number = {int: "whole number", float: "number"}[inner]
    if meta.le == 2**53:  # as large as a script's numbers may be
        return f"{number} from {meta.ge:,}"
    return f"{number}{least} {meta.le:,.0f}"


def _bounds(kind: Any) -> tuple[Any, Any, Any]:
    meta = get_args(kind)[1]
    return meta.ge, meta.gt, meta.le


def _other(value: Any) -> str:
    """Some other value of the same type, as TOML."""
    if isinstance(value, bool):
        return str(not value).lower()
    if value == []:
        return '["sent"]'
    if isinstance(value, list):
        return str([*value[:-1], _changed(value[-1])]).replace("'", '"')
    return f'"{value}x"' if isinstance(value, str) else str(_changed(value))


def _changed(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("2", "3")
    return value + 1 if isinstance(value, int) else value / 2
