"""Rights are named one by one: no more than the scripts' text asks for, and no less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paceline import scripts
from paceline.rights import ROLES, TRANSITIONS, acl_lines, hash_of

LUA = Path(scripts.__file__).parent / "lua"
ALL = [(role, role) for role in ROLES]


def test_transitions_are_what_the_scripts_call() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in LUA.glob("*.lua"))
    called = set(re.findall(r"(?:\bp?call|in_pieces)\('([A-Z]+)'", text))
    assert TRANSITIONS.split() == sorted(name.lower() for name in called)


def test_an_exporter_may_run_what_only_reads() -> None:
    files = [LUA / f"{name}.lua" for name in ("census", "inspect", "tenants")]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    [_, exporter] = acl_lines([("exporter", "exporter")], ["a"], {})
    may = set(re.findall(r"\+([a-z_|]+)", exporter))
    called = {name.lower() for name in re.findall(r"\bp?call\('([A-Z]+)'", text)}
    # Of tenants.lua what only take and release do.
    assert called - {"hset", "hdel"} <= may


def test_no_role_has_a_category_or_all_keys() -> None:
    for line in acl_lines(ALL, ["a", "b-c"], {}):
        if not line.startswith(("user admin ", "user default ")):
            assert not re.search(r"\+@|allcommands|allkeys|~\*|nopass|[ (]~\{d\}", line), line
            assert "~{a}" in line
            assert "~{b-c}" in line


def test_who_hands_over_removes_nothing_and_reaches_nothing_else() -> None:
    [_, producer] = acl_lines([("shop", "producer")], ["a"], {"shop": hash_of("x")})
    assert producer.startswith(f"user shop reset on {hash_of('x')} ~{{a}} ")
    commands = set(re.findall(r"\+([a-z|]+)", producer))
    assert not commands & {
        "eval",
        "evalsha",
        "del",
        "unlink",
        "hset",
        "zrem",
        "scan",
        "keys",
        "get*",
    }
    patterns = set(re.findall(r"~(\S+?)[ )]", producer))
    assert all(name.startswith(("{a}", "paceline:destinations")) for name in patterns)


def test_without_a_password_a_user_is_off_and_nobody_comes_in_by_default() -> None:
    first, *users = acl_lines(ALL, ["a"], {"worker": hash_of("w")})
    assert first == "user default off"
    assert [line.split()[1] for line in users if " reset on " in line] == ["worker"]


def test_a_hash_may_stand_for_the_password() -> None:
    hashed = hash_of("secret")
    assert hash_of(hashed) == hashed
    assert hash_of("#abc") != "#abc"


@pytest.mark.parametrize("name", ["default", "", "two words", "a\nuser b on nopass"])
def test_names_that_no_user_can_have(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        acl_lines([(name, "producer")], ["a"], {})
