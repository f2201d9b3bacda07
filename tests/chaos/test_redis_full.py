"""Redis without memory: intake refuses, all else goes on, and the backlog drains."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.stack import Stack


@pytest.mark.timeout(120)
def test_a_full_redis_drains(tmp_path: Path) -> None:
    with Stack(tmp_path, rate=300.0, burst=300, workers=1) as stack:
        stack.store.hold("pause")
        stack.send(900)
        stack.client.config_set("maxmemory", 1)
        stack.store.hold("resume")
        stack.wait_done(20)
        stack.check_accounts()
