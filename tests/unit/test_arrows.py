"""What import-linter cannot see: names in strings, and the environment."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from paceline.cli import COMMANDS
from paceline.cli.processes import WORKER_RUNTIME
from paceline.names import JOB_FUNCTION

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "daemon").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]


def test_the_jobs_dotted_name_resolves() -> None:
    module, _, function = JOB_FUNCTION.rpartition(".")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_worker_runtime_that_the_cli_names_resolves() -> None:
    assert callable(getattr(importlib.import_module(WORKER_RUNTIME[0]), WORKER_RUNTIME[1]))


def test_every_command_resolves() -> None:
    for place in COMMANDS.values():
        assert callable(getattr(importlib.import_module(place[0]), place[1]))


def _at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Nodes that are evaluated when the module is imported."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from statement.decorator_list
            yield from statement.args.defaults
        elif isinstance(statement, ast.ClassDef):
            yield from _at_import(statement.body)
        else:
            yield from ast.walk(statement)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_reads_the_environment_at_import(path: Path) -> None:
    names = [
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in _at_import(ast.parse(path.read_text(encoding="utf-8")).body)
        if isinstance(node, (ast.Attribute, ast.Name))
    ]
    assert not {"environ", "getenv"} & set(names)
