"""The documents name what the code has. (The configuration page: test_configuration_page.py.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} -> {target}"
