"""Malformed enqueues in numbers (`tests/fuzz/enqueues.py`; a million of each by hand)."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import ResponseError

from fuzz.enqueues import Trial, told
from paceline import Outbox


def test_each_is_taken_or_refused_and_the_law_holds(
    redis_client: redis.Redis, redis_url: str
) -> None:
    with Outbox.from_url(redis_url) as outbox:
        trial = Trial(redis_client, outbox)
        trial.by_function(10_000, seed=1)
        trial.by_client(10_000, seed=1)
    census = trial.store.census()
    assert census.sound, census.law
    # Those of a bulk call are not told.
    assert census.law["accepted"] >= trial.answers["new"] + trial.answers["client: new"] > 1000
    codes = {
        "PLINVALID",
        "PLTOOBIG",
        "PLUNKNOWN",
        "PLCONFLICT",
        "already",
        "client: InvalidMessage",
    }
    assert codes <= trial.answers.keys()


@pytest.mark.parametrize("last", [b'{"n":1}', b"-1", b"1e999", b"9" * 400, b"inf"])
def test_a_payload_without_options_is_no_time(redis_client: redis.Redis, last: bytes) -> None:
    trial = Trial(redis_client, Outbox(redis_client))
    for name in ("paceline_enqueue", "paceline_enqueue_many"):
        with pytest.raises(ResponseError) as caught:
            redis_client.execute_command("FCALL", name, 1, "{d}", b"{}", b'{"id":"m"}', last)
        assert told(caught.value, last) == {"PLINVALID": 1}
        assert "left over" in str(caught.value)
    assert trial.store.census().law["accepted"] == 0
