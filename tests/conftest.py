"""Fixtures of the whole suite. Imports stay light: a pure unit test must not pay for redis."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import redis

    from paceline.embedded import EmbeddedServer


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`needs(program)`: skip where it is missing, fail under PACELINE_REQUIRE_ALL=1."""
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            if shutil.which(program) is not None:
                continue
            if os.environ.get("PACELINE_REQUIRE_ALL") == "1":
                pytest.fail(f"needs {program}, which is missing", pytrace=False)
            pytest.skip(f"needs {program}")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server for this (xdist) process, appendfsync everysec. Do not kill or freeze it."""
    from paceline.embedded import EmbeddedServer

    with EmbeddedServer(tmp_path_factory.mktemp("redis"), appendfsync="everysec") as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedServer) -> str:
    """URL of the shared server, emptied: no data, no functions or scripts, default settings."""
    from support.servers import connect

    with connect(redis_server.url) as client:
        client.flushall()
        client.function_flush()
        client.script_flush()
        client.config_set("maxmemory", "0")
        client.config_resetstat()
    return redis_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the emptied shared server: bytes in and out, never repeats a command."""
    from support.servers import connect

    with connect(redis_url) as client:
        yield client


@pytest.fixture
def durable_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """This test's own server, appendfsync always: kill, restart, freeze it at will."""
    from paceline.embedded import EmbeddedServer

    with EmbeddedServer(tmp_path_factory.mktemp("durable")) as server:
        yield server
