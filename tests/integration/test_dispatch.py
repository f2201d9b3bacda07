"""Invitations in RQ: what is stored, what it costs, and that nothing stays behind."""

from __future__ import annotations

import json
import threading
import zlib
from typing import cast

import pytest
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from paceline.dispatch import Dispatcher
from paceline.names import JOB_FUNCTION, LANES, Lane, queue_name
from paceline_workers.worker import ALLOWED_FUNCTIONS, PacelineWorker
from support import jobs
from support.servers import command_calls, connect
from support.wait import until


@pytest.fixture
def dispatcher(redis_client: redis.Redis) -> Dispatcher:
    return Dispatcher(redis_client, "maxmd")


def job_hash(client: redis.Redis, job_id: str) -> dict[bytes, bytes]:
    fields = client.hgetall(f"rq:job:{job_id}")
    assert isinstance(fields, dict)
    return cast("dict[bytes, bytes]", fields)


@pytest.mark.parametrize(
    ("lane", "queue"), [("high", "paceline.maxmd.high"), ("any", "paceline.maxmd")]
)
def test_invitation_as_rq_sees_it(
    dispatcher: Dispatcher, redis_client: redis.Redis, lane: Lane, queue: str
) -> None:
    dispatcher.invite("inv-1", 250, lane, 30.2)
    assert queue_name("maxmd", lane) == queue
    job = Queue(queue, connection=redis_client, serializer=JSONSerializer).fetch_job("inv-1")
    assert job is not None
    assert (job.func_name, list(job.args)) == (JOB_FUNCTION, [])
    assert job.kwargs == {
        "destination": "maxmd",
        "count": 250,
        "lane": lane,
        "invitation": "inv-1",
    }
    assert (job.timeout, job.result_ttl, job.failure_ttl, job.ttl) == (-1, 0, 60, 31)
    assert redis_client.lrange(f"rq:queue:{queue}", 0, -1) == [b"inv-1"]


def test_payload_is_json_and_no_pickle(dispatcher: Dispatcher, redis_client: redis.Redis) -> None:
    dispatcher.invite("inv-1", 1, "any", 30)
    fields = job_hash(redis_client, "inv-1")
    data = json.loads(zlib.decompress(fields.pop(b"data")))
    assert data == [
        JOB_FUNCTION,
        None,
        [],
        {"destination": "maxmd", "count": 1, "lane": "any", "invitation": "inv-1"},
    ]
    for name, value in fields.items():
        assert value.decode().isprintable(), name  # pickles start with byte 0x80


def test_function_is_the_one_workers_allow() -> None:
    assert frozenset({JOB_FUNCTION}) == ALLOWED_FUNCTIONS


def test_cost_is_one_round_trip_of_nine_commands(
    dispatcher: Dispatcher, redis_client: redis.Redis
) -> None:
    dispatcher.invite("warm-up", 1, "any", 30)
    redis_client.config_resetstat()
    for n in range(10):
        dispatcher.invite(f"inv-{n}", 1, "any", 30)
    assert command_calls(redis_client) == {
        "multi": 10,
        "exec": 10,
        "sadd": 10,
        "hset": 20,
        "expire": 30,
        "rpush": 10,
    }


def test_unseen_invitation_expires(dispatcher: Dispatcher, redis_client: redis.Redis) -> None:
    """As after a BLPOP whose worker was killed: the id is in no list, the hash has its expiry."""
    dispatcher.invite("inv-1", 1, "any", 30)
    assert redis_client.blpop(["rq:queue:paceline.maxmd"], 1) is not None
    assert 0 < redis_client.ttl("rq:job:inv-1") <= 30
    assert redis_client.keys("*inv-1*") == [b"rq:job:inv-1"]


def test_purge_removes_only_ids_without_a_job(
    dispatcher: Dispatcher, redis_client: redis.Redis
) -> None:
    for lane in LANES:
        for n in range(3):
            dispatcher.invite(f"{lane}-{n}", 1, lane, 30)
        redis_client.delete(f"rq:job:{lane}-1")  # as its expiry does
    assert dispatcher.purge_stale() == 2
    assert dispatcher.purge_stale() == 0
    for lane in LANES:
        key = f"rq:queue:{queue_name('maxmd', lane)}"
        assert redis_client.lrange(key, 0, -1) == [f"{lane}-{n}".encode() for n in (0, 2)]


@pytest.mark.parametrize(
    ("invitation", "count", "lane", "ttl_s"),
    [
        ("inv 1", 1, "any", 30),
        ("inv-1", 0, "any", 30),
        ("inv-1", 1, "any", 0),
        ("inv-1", 1, "low", 30),
    ],
)
def test_out_of_range_is_refused(
    dispatcher: Dispatcher,
    redis_client: redis.Redis,
    invitation: str,
    count: int,
    lane: Lane,
    ttl_s: float,
) -> None:
    with pytest.raises(ValueError):
        dispatcher.invite(invitation, count, lane, ttl_s)
    assert redis_client.keys("rq:*") == []


def test_repeated_invitation_is_taken_once(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.dispatch.JOB_FUNCTION", "support.jobs.note")
    seen: list[dict[str, object]] = []
    monkeypatch.setattr(jobs, "hook", seen.append)
    dispatcher = Dispatcher(redis_client, "maxmd")
    for invitation in ("inv-1", "inv-1", "inv-2"):
        dispatcher.invite(invitation, 1, "any", 30)
    stop = threading.Event()
    worker = PacelineWorker(
        "maxmd",
        [queue_name("maxmd", lane) for lane in LANES],
        connect=lambda: connect(redis_url),
        name="w1",
        ready=lambda: True,
        stop_event=stop,
        allowed_functions=jobs.ALLOWED,
    )
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        until(lambda: len(seen) >= 2, 5, "both ran")
        until(lambda: not redis_client.llen("rq:queue:paceline.maxmd"), 5, "the queue is empty")
    finally:
        stop.set()
        thread.join(10)
    assert [entry["invitation"] for entry in seen] == ["inv-1", "inv-2"]
