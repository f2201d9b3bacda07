"""Commands written ahead of the replies to those before them, on a real Redis."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from paceline.connect import connect
from paceline.pipe import Pipe


def test_replies_come_in_the_order_of_the_commands_errors_among_them(redis_url: str) -> None:
    with connect(redis_url, timeout_s=2.0) as client, Pipe(client) as pipe:
        pipe.put(("ECHO", "a"))
        pipe.put(("HGET", "too few"))
        assert pipe.take() == b"a"
        pipe.put(("ECHO", b"c"))
        assert isinstance(pipe.take(), ResponseError)
        pipe.put(("ECHO", 4))
        assert [pipe.take(), pipe.take()] == [b"c", b"4"]


def test_a_client_without_repeats_is_told_that_the_connection_broke(
    redis_url: str, redis_client: redis.Redis
) -> None:
    def ask(pipe: Pipe, text: str) -> object:
        pipe.put(("ECHO", text))
        return pipe.take()

    with connect(redis_url, timeout_s=2.0) as client:
        with Pipe(client) as pipe:
            assert ask(pipe, "a") == b"a"
            redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with pytest.raises(RedisConnectionError):
                ask(pipe, "b")
        assert client.ping()


def test_a_repeating_client_has_all_written_again_that_is_not_answered(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with connect(redis_url, timeout_s=2.0, repeats=2) as client, Pipe(client) as pipe:
        for text in ("a", "b"):
            pipe.put(("RPUSH", "seen", text))
        assert pipe.take() == 1
        pipe.put(("RPUSH", "seen", "c"))
        assert pipe.take() == 2
        redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        pipe.put(("RPUSH", "seen", "d"))
        pipe.take()
        pipe.take()
    assert redis_client.lrange("seen", 0, -1)[:3] == [b"a", b"b", b"c"]
    assert redis_client.lrange("seen", -1, -1) == [b"d"]
