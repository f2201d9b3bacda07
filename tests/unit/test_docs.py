"""The documents name what the code has. (The configuration page: test_configuration_page.py.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paceline.rights import acl_lines

ROOT = Path(__file__).parents[2]
LUA = ROOT / "daemon" / "paceline" / "lua"


def test_every_redis_key_that_scripts_compose_is_documented() -> None:
    page = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    used = {
        name
        for script in LUA.glob("*.lua")
        for name in re.findall(r"K\('([a-z]+):?'", script.read_text(encoding="utf-8"))
    }
    assert len(used) > 15, "the pattern finds no keys any more"
    assert [name for name in sorted(used) if f"{{d}}:{name}" not in page] == []


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} -> {target}"


@pytest.mark.parametrize("page", PAGES)
def test_no_row_of_a_table_stands_outside_of_it(page: Path) -> None:
    before = ["", *page.read_text(encoding="utf-8").splitlines(), ""]
    for last, line, following in zip(before, before[1:], before[2:], strict=False):
        if line.startswith("|") and not last.startswith("|"):
            assert following.startswith("|--"), f"{page.name}: {line[:60]}"


def test_every_test_that_the_durability_page_names_is_there() -> None:
    page = (ROOT / "docs" / "durability.md").read_text(encoding="utf-8")
    sources = {path.name: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    files = re.findall(r"`(?:tests/[a-z]+/)?(test_\w+\.py)`", page)
    assert len(files) > 8, "the pattern finds no files any more"
    assert [name for name in files if name not in sources] == []
    tests = [
        name
        for source in sources.values()
        for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)
    ]
    endings = re.findall(r"`…(\w+)`", page)
    assert len(endings) > 10, "the pattern finds no tests any more"
    assert [end for end in endings if not any(name.endswith(end) for name in tests)] == []


def test_the_page_on_chaos_names_every_test_of_it_and_which_are_long() -> None:
    page = (ROOT / "docs" / "chaos.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| [^|]+ \| `tests/chaos/(test_\w+\.py)` \| (long|in part|) ?\|$", re.M)
    told = row.findall(page)
    found = []
    for path in (ROOT / "tests" / "chaos").glob("test_*.py"):
        source = path.read_text(encoding="utf-8")
        whole = re.search(r"^pytestmark = .*mark\.long", source, re.M)
        tests, marks = (len(re.findall(p, source, re.M)) for p in (r"^def test_", r"mark\.long\b"))
        # One that is long with some of its parameters only is marked within them.
        inner = "marks=pytest.mark.long" in source
        long = whole or (marks >= tests and not inner)
        found.append((path.name, "long" if long else "in part" if marks else ""))
    assert sorted(told) == sorted(found)


def test_what_a_producer_can_write_is_what_its_rights_let_it_write() -> None:
    page = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    part = page.partition("## What a producer can write by hand")[2].partition("\n## ")[0]
    told = {
        (key, command.lower())
        for keys, commands in re.findall(r"^\| (`[^|]+) \| (`[^|]+) \|", part, re.MULTILINE)
        for key in re.findall(r"`(\S+?)`", keys)
        for command in re.findall(r"`(\S+?)`", commands)
    }
    may, apps = _rights("producer"), _rights("app")
    reads = {"get", "getrange", "strlen", "exists", "hget", "hmget", "scard", "zcard", "zscore",
             "xrange", "xlen"}  # fmt: skip
    assert len(may) > 20, "the pattern finds no rights any more"
    assert apps - may == {("cx", "zadd")}
    assert told - {("m:*", "get")} == {it for it in apps if it[1] not in reads}


def _rights(role: str) -> set[tuple[str, str]]:
    """(key, command) of a user's selectors."""
    [_, user] = acl_lines([("shop", role)], ["d"], {})
    return {
        (key, command)
        for selector in re.findall(r"\((.+?)\)", user)
        for key in re.findall(r" ~\{d\}:(\S+)", " " + selector)
        for command in re.findall(r"\+(\S+)", selector)
    }
