"""What the tests of commands share: an outbox with one destination, and the command line on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from paceline.outbox import OutboxStore
from support.cli import Cli, open_outbox


@pytest.fixture
def store(redis_client: redis.Redis) -> OutboxStore:
    return open_outbox(redis_client)


@pytest.fixture
def cli(redis_url: str, tmp_path: Path) -> Cli:
    return Cli(redis_url, tmp_path)
