"""A worker tells its crowd of connections that do not open."""

from __future__ import annotations

import logging
import socket
import sys
import time
from contextlib import ExitStack

import pytest

from paceline.cli import explain
from paceline_workers.crowd import Crowd
from paceline_workers.runtime import WorkerRuntime
from support.line import Line, destination
from support.wait import until


def _crowded(runtime: WorkerRuntime) -> None:
    pool = runtime.engine.pool
    runtime.engine.sender._queue.watch_tenants(Crowd(time.monotonic, lambda: pool.limit))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses")
def test_an_endpoint_whose_host_answers_nothing_is_suspect_before_it_has_a_connection(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(2):  # fills its queue: who comes now is not answered
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        url = "http://{}:{}/".format(*listener.getsockname())
        to = destination(
            url,
            more="connect_timeout_s = 1.5\n",
            tables="[destinations.d.retry]\nfirst_s = 60\ncap_s = 60\n",
        )
        with Line(redis_url, to, change=_crowded) as line:
            line.send({}, tenant="acme")

            def told() -> list[str]:
                workers = line.store.census().workers
                return [it for worker in workers for it in explain.route_words(worker)]

            until(told, 8.0, "it is told", 0.02)
            assert told() == [
                "1 endpoint SLOW, whose requests hang, with a quarter of the connections between "
                "them: acme"
            ]
    events = [getattr(it, "event", "") for it in caplog.records]
    assert events.count("endpoints_slow") == 1
