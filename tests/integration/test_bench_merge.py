"""``paceline bench merge``: a tiny one, from the producer to the sink."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from paceline.bench.child import BenchFailed, run_child
from paceline.bench.merge.command import merge
from paceline.embedded import attached_url
from support.published import published


def test_a_tiny_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    asked = ("--messages", "300", "--pairs", "1", "--workers", "1", "--folder", str(folder))
    done = CliRunner().invoke(merge, ["--json", *asked], standalone_mode=False)
    assert done.return_value == 0, done.output
    report = json.loads(done.stdout)
    assert set(report) == {
        "format", "machine", "plan", "turns", "figures", "missed", "elapsed_s"
    }  # fmt: skip
    [turn] = report["turns"]
    assert (turn["messages"], turn["drain"]["recipients"]) == (300, 300)
    assert 1 <= turn["drain"]["requests"] <= 300
    for what in ("intake", "floor", "drain"):
        assert turn[what]["wall_s"] > 0
        assert turn[what]["redis_cpu_s"] > 0
        assert turn[f"{what}_per_min"] > 0
    assert turn["ratio"] == pytest.approx(turn["drain_per_min"] / turn["floor_per_min"])
    assert len(turn["drain"]["peaks"]) == (1 if sys.platform == "linux" else 0)
    for server in ("bare-1", "drain-1"):
        assert attached_url(folder / server / "redis") is None


@pytest.mark.parametrize("how", ["merged", "plain"])
def test_a_floor_that_misses_messages_is_no_figure(
    redis_url: str, redis_client: redis.Redis, how: str
) -> None:
    published(redis_client, "mailing")
    with pytest.raises(BenchFailed, match="10 messages were to be taken: batch, 0 taken"):
        run_child("merge.floor", redis_url, "mailing", 10, 500, how)
