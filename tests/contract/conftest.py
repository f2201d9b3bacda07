"""What the contract tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis


@pytest.fixture(scope="module")
def redis_session(redis_server: Any) -> Iterator[redis.Redis]:
    """One client for all examples; each empties the server itself."""
    from support.servers import connect

    with connect(redis_server.url) as client:
        client.function_flush()
        client.config_set("maxmemory", "0")
        yield client
