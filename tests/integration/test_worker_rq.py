"""The RQ worker against a real server: faults, names, sight by RQ's own tools, cost."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue, Worker
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from paceline.embedded import EmbeddedServer
from paceline.names import LANES, Lane, queue_name
from paceline_workers.worker import PacelineWorker
from support import jobs
from support.servers import command_calls, connect, frozen
from support.wait import until

QUEUES = [queue_name("d", lane) for lane in LANES]
# What is promised after an outage, with room for a busy test machine.
BACK_WITHIN_S = 2.0


@dataclasses.dataclass
class Bench:
    """Workers in threads of this process on one server, and what their jobs saw."""

    url: str
    client: redis.Redis
    seen: list[dict[str, object]] = dataclasses.field(default_factory=list)
    ready: threading.Event = dataclasses.field(default_factory=threading.Event)
    running: list[tuple[PacelineWorker, threading.Event, threading.Thread]] = dataclasses.field(
        default_factory=list
    )

    def start(
        self,
        name: str = "w1",
        *,
        ready: Callable[[], bool] | None = None,
        allowed: frozenset[str] = jobs.ALLOWED,
        wait: bool = True,
        timeout_s: float = 5.0,
        seek: Callable[[], bool] = lambda: False,
    ) -> PacelineWorker:
        stop = threading.Event()
        worker = PacelineWorker(
            "d",
            QUEUES,
            connect=lambda: connect(self.url, timeout_s=timeout_s),
            name=name,
            ready=ready or (lambda: True),
            stop_event=stop,
            seek=seek,
            allowed_functions=allowed,
        )
        worker.pop_timeout_s = 0.2  # most of a test's time would be the wait for a stop
        thread = threading.Thread(target=worker.run, name=name)
        thread.start()
        self.running.append((worker, stop, thread))
        if wait:
            until(lambda: self.listed(name), 5, "the worker is registered")
        return worker

    def listed(self, name: str = "w1") -> bool:
        return name in [worker.name for worker in Worker.all(connection=self.client)]

    def enqueue(self, function: str = "note", lane: Lane = "any", **arguments: object) -> str:
        queue = Queue(queue_name("d", lane), connection=self.client, serializer=JSONSerializer)
        job = queue.enqueue_call(
            f"support.jobs.{function}",
            kwargs=arguments,
            timeout=-1,
            result_ttl=0,
            failure_ttl=60,
            ttl=300,
        )
        return job.id

    def stop(self) -> None:
        jobs.release.set()
        for _, stop, _ in self.running:
            stop.set()
        for worker, _, thread in self.running:
            thread.join(15)
            assert not thread.is_alive(), f"{worker.name} did not stop"
        self.running.clear()


@pytest.fixture
def bench(redis_url: str, redis_client: redis.Redis) -> Iterator[Bench]:
    yield from run_bench(redis_url, redis_client)


@pytest.fixture
def fault_bench(durable_server: EmbeddedServer) -> Iterator[Bench]:
    with connect(durable_server.url) as client:
        yield from run_bench(durable_server.url, client)


def run_bench(url: str, client: redis.Redis) -> Iterator[Bench]:
    bench = Bench(url, client)
    jobs.hook = bench.seen.append
    jobs.started.clear()
    jobs.release.clear()
    try:
        yield bench
    finally:
        bench.stop()
        jobs.hook = None


def works_again(bench: Bench, n: int) -> None:
    """A job enqueued now runs within what is promised."""
    bench.enqueue(n=n)
    until(lambda: {"n": n} in bench.seen, BACK_WITHIN_S, "a job runs after the fault")


# -- ordinary life --------------------------------------------------------------------------------


def test_high_is_popped_first(bench: Bench) -> None:
    for n in range(3):
        bench.enqueue(lane="any", n=n)
    for n in range(3):
        bench.enqueue(lane="high", n=n + 10)
    bench.start()
    until(lambda: len(bench.seen) == 6, 5, "all jobs ran")
    assert [entry["n"] for entry in bench.seen] == [10, 11, 12, 0, 1, 2]


def test_leaves_nothing_of_a_job_that_ran(bench: Bench) -> None:
    worker = bench.start()
    bench.enqueue(n=1)
    until(
        lambda: bench.client.hget(worker.key, "successful_job_count") == b"1", 5, "the job is done"
    )
    queues = [f"rq:workers:{name}".encode() for name in QUEUES]
    assert set(bench.client.keys("*")) == {
        *(b"rq:queues", b"rq:workers", b"rq:worker:w1"),
        *queues,
    }


def test_two_workers_share_the_queues(bench: Bench) -> None:
    for n in range(40):
        bench.enqueue(n=n)
    bench.start("w1")
    bench.start("w2")
    until(lambda: len(bench.seen) >= 40, 10, "all jobs ran")
    bench.stop()
    assert sorted(str(entry["n"]) for entry in bench.seen) == sorted(str(n) for n in range(40))


def test_cost_of_a_job(bench: Bench) -> None:
    """18 commands a job; RQ 3.0's SimpleWorker takes 63."""
    count = 50
    ready = threading.Event()
    worker = bench.start(ready=ready.is_set)
    for n in range(count):
        bench.enqueue(n=n)
    bench.client.config_resetstat()
    ready.set()
    until(lambda: len(bench.seen) == count, 10, "all jobs ran")
    bench.stop()
    calls = command_calls(bench.client)
    assert bench.client.hget(worker.key, "successful_job_count") == b"%d" % count
    # A heartbeat or two, a BLPOP or two without a job, and the farewell are in it.
    assert sum(calls.values()) <= 18 * count + 40, calls


def test_not_ready_pops_nothing(bench: Bench) -> None:
    ready = threading.Event()
    asked = threading.Semaphore(0)

    def is_ready() -> bool:
        asked.release()
        return ready.is_set()

    worker = bench.start(ready=is_ready)
    bench.enqueue(n=1)
    for _ in range(5):
        assert asked.acquire(timeout=5)
    assert bench.seen == []
    assert bench.client.llen("rq:queue:paceline.d") == 1
    ready.set()
    worker.nudge()
    until(lambda: bench.seen, 5, "the job runs once ready")


def test_ready_that_raises_means_no(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    broken = threading.Event()
    broken.set()

    def is_ready() -> bool:
        if broken.is_set():
            raise RuntimeError("broken")
        return True

    bench.start(ready=is_ready)
    bench.enqueue(n=1)
    until(lambda: "ready() failed" in caplog.text, 5, "the failure is logged")
    broken.clear()
    until(lambda: bench.seen, 5, "the job runs once ready() works")


def test_stop_while_blocked_in_pop(bench: Bench) -> None:
    bench.start()
    until(lambda: blocked(bench.client), 5, "the worker waits in BLPOP")
    began = time.monotonic()
    bench.stop()
    assert time.monotonic() - began < 2
    assert not bench.listed()
    assert bench.client.hexists("rq:worker:w1", "death")


def blocked(client: redis.Redis) -> bool:
    clients = client.info("clients")
    assert isinstance(clients, dict)
    return bool(clients["blocked_clients"])


def test_stop_lets_the_running_job_finish(bench: Bench) -> None:
    worker = bench.start()
    bench.enqueue("block")
    bench.enqueue(n=1)
    assert jobs.started.wait(5)
    _, stop, thread = bench.running[0]
    stop.set()
    until(lambda: blocked(bench.client) is False, 5, "nothing is popped")
    assert thread.is_alive()
    jobs.release.set()
    thread.join(5)
    assert not thread.is_alive()
    assert bench.seen == []
    assert worker.successful_job_count == 0  # RQ counts in Redis only
    assert bench.client.hget(worker.key, "successful_job_count") == b"1"


# -- jobs that misbehave --------------------------------------------------------------------------


def test_raising_job_is_survived_and_recorded(bench: Bench) -> None:
    worker = bench.start()
    failed = bench.enqueue("fail")
    bench.enqueue(n=1)
    until(lambda: bench.seen, 5, "the next job runs")
    queue = Queue(QUEUES[1], connection=bench.client, serializer=JSONSerializer)
    assert queue.failed_job_registry.get_job_ids(cleanup=False) == [failed]
    job = queue.fetch_job(failed)
    assert job is not None
    result = job.latest_result()
    assert result is not None
    assert "as it should" in str(result.exc_string)
    assert bench.client.hget(worker.key, "failed_job_count") == b"1"
    leaks = [key for key in bench.client.keys(f"*{failed}*") if bench.client.ttl(key) < 0]
    assert leaks == []


def test_function_not_allowed_is_not_run(bench: Bench) -> None:
    worker = bench.start(allowed=jobs.ALLOWED - {"support.jobs.note"})
    bench.enqueue("note", n=1)
    until(lambda: bench.client.hget(worker.key, "failed_job_count") == b"1", 5, "it is refused")
    assert bench.seen == []


@pytest.mark.parametrize("data", [pickle.dumps(("os.getpid", None, (), {})), b"{", b""])
def test_unreadable_job_is_survived(bench: Bench, data: bytes) -> None:
    bench.start()
    bench.client.hset(
        "rq:job:bad",
        mapping={"data": zlib.compress(data), "status": "queued", "origin": QUEUES[0]},
    )
    bench.client.rpush(f"rq:queue:{QUEUES[0]}", "bad")
    bench.enqueue(n=1)
    until(lambda: bench.seen, 5, "the next job runs")


def test_broken_hash_is_survived(bench: Bench) -> None:
    bench.start()
    bench.client.hset("rq:job:bad", mapping={"data": b"", "status": "nonsense"})
    bench.client.rpush(f"rq:queue:{QUEUES[0]}", "gone", "bad")
    bench.enqueue(n=1)
    until(lambda: bench.seen, 5, "the next job runs")


# -- sight by RQ's tools --------------------------------------------------------------------------


def test_seen_as_idle_and_busy(bench: Bench) -> None:
    bench.start()
    until(lambda: blocked(bench.client), 5, "the worker waits in BLPOP")
    (idle,) = Worker.all(connection=bench.client)
    assert idle.get_state() in ("idle", "started")
    assert idle.queue_names() == QUEUES
    assert idle.pid == os.getpid()
    assert idle.birth_date is not None
    assert idle.last_heartbeat is not None
    job_id = bench.enqueue("block")
    assert jobs.started.wait(5)
    (busy,) = Worker.all(connection=bench.client)
    assert busy.get_state() == "busy"
    assert busy.get_current_job_id() == job_id
    queue = Queue(QUEUES[1], connection=bench.client, serializer=JSONSerializer)
    assert queue.started_job_registry.get_job_ids(cleanup=False) == [job_id]
    jobs.release.set()
    until(
        lambda: Worker.all(connection=bench.client)[0].get_state() == "idle", 5, "it is idle again"
    )


def test_rq_info_lists_it(bench: Bench) -> None:
    bench.start()
    bench.enqueue(n=1)
    until(
        lambda: bench.client.hget("rq:worker:w1", "successful_job_count") == b"1", 5, "the job ran"
    )
    program = str(Path(sys.executable).parent / "rq")
    output = subprocess.run(
        [program, "info", "--raw", "--url", bench.url],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    line = next(line for line in output.splitlines() if line.startswith("worker w1 "))
    assert f" {os.getpid()}) idle {', '.join(QUEUES)}. jobs: 1 finished, 0 failed" in line
    assert "queue paceline.d 0, 0 executing" in output


def test_heartbeat_goes_on_while_busy(bench: Bench) -> None:
    worker = bench.start()
    bench.enqueue("block")
    assert jobs.started.wait(5)
    bench.client.flushall()
    worker._beat_now.set()  # not to wait for the next beat
    until(bench.listed, 5, "a busy worker registers again in an emptied Redis")
    assert bench.client.hget(worker.key, "state") == b"busy"
    assert 0 < bench.client.ttl(worker.key) <= 20


def test_rq_suspend_is_kept_to(bench: Bench) -> None:
    worker = bench.start()
    suspend(bench.client)
    worker._beat_now.set()
    until(
        lambda: bench.client.hget(worker.key, "state") == b"suspended", 5, "it shows as suspended"
    )
    until(lambda: not blocked(bench.client), 5, "it is out of BLPOP")
    bench.enqueue(n=1)
    resume(bench.client)
    assert bench.seen == []
    worker._beat_now.set()
    until(lambda: bench.seen, 5, "the job runs after the resume")


# -- faults of Redis ------------------------------------------------------------------------------


def test_idle_through_kill_and_restart(fault_bench: Bench, durable_server: EmbeddedServer) -> None:
    fault_bench.start()
    until(lambda: blocked(fault_bench.client), 5, "the worker waits in BLPOP")
    for n in range(3):
        durable_server.kill()
        durable_server.start()
        works_again(fault_bench, n)


def test_busy_through_kill_and_restart(fault_bench: Bench, durable_server: EmbeddedServer) -> None:
    fault_bench.start()
    fault_bench.enqueue("block")
    assert jobs.started.wait(5)
    durable_server.kill()
    jobs.release.set()  # ends while Redis is away
    durable_server.start()
    works_again(fault_bench, 1)
    until(lambda: fault_bench.client.hget("rq:worker:w1", "state") == b"idle", 5, "it is idle")


def test_registers_again_where_redis_lost_its_data(
    fault_bench: Bench, durable_server: EmbeddedServer
) -> None:
    fault_bench.start()
    durable_server.kill()
    shutil.rmtree(durable_server.data_dir / "appendonlydir")
    durable_server.start()
    assert not fault_bench.client.exists("rq:worker:w1") or fault_bench.listed()
    until(fault_bench.listed, BACK_WITHIN_S, "it is registered again")
    works_again(fault_bench, 1)


@pytest.mark.parametrize("timeout_s", [1.5, 5.0], ids=["shorter", "longer"])
def test_frozen_for_three_seconds(
    fault_bench: Bench,
    durable_server: EmbeddedServer,
    caplog: pytest.LogCaptureFixture,
    timeout_s: float,
) -> None:
    fault_bench.start(timeout_s=timeout_s)
    until(lambda: blocked(fault_bench.client), 5, "the worker waits in BLPOP")
    with frozen(durable_server):
        thaw_at = time.monotonic() + 3  # the length of the fault, not a wait for something
        until(lambda: time.monotonic() > thaw_at, 5, "three seconds")
    works_again(fault_bench, 1)
    assert ("Redis fails" in caplog.text) == (timeout_s < 3)


def test_redis_away_at_the_start(fault_bench: Bench, durable_server: EmbeddedServer) -> None:
    durable_server.kill()
    fault_bench.start(wait=False)
    durable_server.start()
    until(fault_bench.listed, BACK_WITHIN_S, "it registers once Redis is there")
    works_again(fault_bench, 1)


@pytest.mark.parametrize("fault", ["readonly", "noperm", "wrongtype"])
def test_error_answers_are_survived(
    fault_bench: Bench, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    client = fault_bench.client
    fault_bench.start()
    if fault == "readonly":
        client.replicaof("127.0.0.1", "1")
    elif fault == "noperm":
        client.acl_setuser("default", enabled=True, commands=["-blpop"])
    else:
        client.set(f"rq:queue:{QUEUES[0]}", "not a list")
    until(lambda: "dequeue: Redis fails" in caplog.text, 5, "the worker meets the error")
    if fault == "readonly":
        client.replicaof("NO", "ONE")
    elif fault == "noperm":
        client.acl_setuser("default", enabled=True, commands=["+blpop"])
    else:
        client.delete(f"rq:queue:{QUEUES[0]}")
    works_again(fault_bench, 1)
    until(lambda: "Redis is back" in caplog.text, 5, "the end of the outage is logged")


def test_full_redis_does_not_stop_jobs(
    fault_bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    ready = threading.Event()
    fault_bench.start(ready=ready.is_set)
    for n in range(3):
        fault_bench.enqueue(n=n)
    fault_bench.client.config_set("maxmemory", "1")
    ready.set()
    until(lambda: len(fault_bench.seen) == 3, 5, "jobs run while Redis is full")
    assert "Redis is full" in caplog.text
    until(lambda: not fault_bench.client.keys("rq:job:*"), 5, "and their hashes are deleted")


def test_without_a_job_it_seeks_work_itself(fault_bench: Bench) -> None:
    """As long as there is some; nothing of RQ's need be usable for that, but it must be ready."""
    sought: list[bool] = []
    asked: list[int] = []
    ready, there = threading.Event(), threading.Event()

    def is_ready() -> bool:
        asked.append(len(sought))
        # After it has found something it is not, for a while.
        return ready.is_set() and (len(sought) != 2 or asked.count(2) > 3)

    def seek() -> bool:
        sought.append(there.is_set())
        return len(sought) % 3 != 0

    fault_bench.start(ready=is_ready, seek=seek)
    fault_bench.enqueue(n=1)
    assert not sought, "it was not ready"
    ready.set()
    until(lambda: {"n": 1} in fault_bench.seen, 5, "a job comes first")
    until(lambda: len(sought) >= 3, 5, "then it seeks, until nothing is found")
    assert asked.count(2) > 3, "it did not ask whether it is ready"
    fault_bench.client.set(f"rq:queue:{QUEUES[0]}", "not a list")
    there.set()
    until(lambda: sum(sought) >= 6, 5, "and goes on although its queue cannot be read")
    fault_bench.client.delete(f"rq:queue:{QUEUES[0]}")
    works_again(fault_bench, 2)


def test_stop_while_redis_is_away(
    fault_bench: Bench, durable_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    fault_bench.start()
    durable_server.kill()
    began = time.monotonic()
    fault_bench.stop()
    assert time.monotonic() - began < 3
    assert "not deregistered" in caplog.text


# -- processes ------------------------------------------------------------------------------------


def start_process(url: str, name: str) -> subprocess.Popen[str]:
    tests = Path(__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, "-m", "support.worker_process", url, name, *QUEUES],
        cwd=tests,
        stdout=subprocess.PIPE,
        text=True,
    )


def end_process(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_same_name_after_sigkill(bench: Bench) -> None:
    def pid() -> int:
        return int(bench.client.hget("rq:worker:w1", "pid") or 0)

    first = start_process(bench.url, "w1")
    try:
        until(lambda: pid() == first.pid, 10, "the first is registered")
    finally:
        end_process(first)
    assert bench.listed()
    second = start_process(bench.url, "w1")
    try:
        until(lambda: pid() == second.pid, 10, "the second took its place")
        bench.enqueue("tally", url=bench.url, key="count")
        until(lambda: bench.client.get("count") == b"1", 5, "the second works")
        second.send_signal(signal.SIGTERM)
        output, _ = second.communicate(timeout=10)
        assert output == "stopped\n"
        assert second.returncode == 0
        assert not bench.listed()
    finally:
        end_process(second)


def test_killed_in_a_job_leaves_nothing_for_ever(bench: Bench) -> None:
    process = start_process(bench.url, "w1")
    try:
        job_id = bench.enqueue("block")
        until(lambda: bench.client.hget("rq:worker:w1", "state") == b"busy", 10, "it is busy")
    finally:
        end_process(process)
    lasting = {key for key in bench.client.keys("*") if bench.client.ttl(key) < 0}
    shared = {b"rq:queues", b"rq:workers", *(f"rq:workers:{name}".encode() for name in QUEUES)}
    # The started registry: one entry, which any worker's sweep drops once its time is past.
    registry = b"rq:wip:paceline.d"
    assert lasting == shared | {registry}
    (entry,) = cast("list[bytes]", bench.client.zrange(registry, 0, -1))
    assert entry.startswith(f"{job_id}:".encode())
    bench.client.zadd(registry, {entry: time.time() - 1})
    bench.start("w2")
    until(lambda: not bench.client.exists(registry), 5, "another worker's sweep drops it")


# -- misuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"decode_responses": True}, "decode"),
        ({"socket_timeout": 1}, "socket_timeout"),
        ({"socket_timeout": None}, "socket_timeout"),
        ({"retry": Retry(NoBackoff(), 3)}, "repeat"),
    ],
)
def test_unfit_clients_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PacelineWorker(
            "d",
            QUEUES,
            connect=lambda: redis.Redis.from_url("redis://127.0.0.1:1", **options),
            name="w",
            ready=lambda: True,
            stop_event=threading.Event(),
        )


def test_rqs_own_loop_is_refused() -> None:
    worker = PacelineWorker(
        "d",
        QUEUES,
        connect=lambda: connect("redis://127.0.0.1:1"),
        name="w",
        ready=lambda: True,
        stop_event=threading.Event(),
    )
    with pytest.raises(TypeError, match="run"):
        worker.work()
