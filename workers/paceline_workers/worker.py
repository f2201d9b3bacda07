"""The RQ side of a worker process: pops invitations and runs them, for as long as it is let.

RQ's in-process worker is made for scripts under a supervisor. Its `work()` ends on any Redis
error outside the dequeue and then says farewell to the Redis that is away; a worker killed and
restarted is refused by its own surviving key; it installs signal handlers, a pub/sub thread
that dies on a time-out, and clean-ups that requeue jobs. A daemon's differs:

* `run()` returns only when asked to. Whatever Redis answers, or does not, it tries again, at
  most a second apart, and is back within two seconds of Redis;
* what RQ's tools show (`rq info`, `Worker.all()`) is kept by a **heartbeat thread**, which
  registers the worker anew at each beat: this repairs a Redis that lost its data, and a job may
  wait for room in the sender as long as it must. Farewell is its last act, awaited for a bounded
  time. A worker's key lives for 20 s past a beat, so dead ones vanish from view;
* a job of ours is an invitation and worth nothing by itself, so the bookkeeping that lets RQ
  requeue or time out a job is left away, and what remains to be seen of a killed one expires.
  A job costs 18 commands in 4 round trips (RQ's SimpleWorker: 63 commands);
* only functions named beforehand are run: a JSON job names any importable function, and who may
  write to Redis should not thereby run `os.system` here.

Life of a job: BLPOP → fetch the hash → show as busy, started → the function → gone, idle. Under
a full Redis (OOM) the bookkeeping is skipped with one warning, and jobs go on: they make room.

A full Redis also lets no job be put into a queue. So where none comes for a second, or RQ's keys
are unusable, the worker **seeks** work by itself, and goes on so while it finds some.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn

import redis
import redis.exceptions
from redis.client import Pipeline
from rq import worker_registration
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.timeouts import BaseDeathPenalty
from rq.utils import as_text, current_timestamp, now, utcformat
from rq.worker import SimpleWorker, WorkerStatus

__all__ = ["ALLOWED_FUNCTIONS", "PacelineWorker"]

ALLOWED_FUNCTIONS = frozenset({"paceline_workers.jobs.take_batch"})

_WORKER_TTL_S = 20
_HEARTBEAT_S = 5.0
_NOT_READY_POLL_S = 0.1
_RETRY_MIN_S = 0.1
_RETRY_MAX_S = 1.0
_REMIND_S = 30.0
# After something was found without a job, jobs are awaited for so long only, for this time.
_SEEK_AGAIN_S = 0.1
_SEEKING_S = 2.0
# What a killed worker leaves: its job's hash goes first, so that a clean-up that finds the
# execution in the started registry (`rq info` runs one) has nothing to move among the failed.
_JOB_TTL_S = 240
_EXECUTION_TTL_S = 300
_FAILURE_TTL_S = 60
_SWEEP_S = 600.0
# Where the caller gave none, since redis-py 8.
_REDIS_PY_TIMEOUT_S = 5.0


class _NoDeathPenalty(BaseDeathPenalty):
    """RQ's time limits are SIGALRM, which is for main threads, and jobs of ours have none."""

    def setup_death_penalty(self) -> None:
        """No alarm."""

    def cancel_death_penalty(self) -> None:
        """No alarm."""


class PacelineWorker(SimpleWorker):
    """Runs the invitations of one destination until it is asked to stop.

    destination: for logs; the queues say what is popped.
    queues: RQ queue names, the first is emptied first.
    connect: builds a client for this worker alone: bytes in and out, retries off, a
        `socket_timeout` over 1 s (BLPOP waits that long) and below some 10 s (a half-open
        connection is noticed by it), a `socket_connect_timeout` of at most 2 s. Called once,
        at construction; Redis need not be up.
    name: unique among live workers. A registration left by a killed one is taken over.
    ready: asked before every pop; while it returns False nothing is popped. It is asked again
        every 100 ms, or at once after `nudge()`.
    seek: asked when no job came; finds work that no job brought, does it, and returns whether there
        was any. May raise RedisError.
    stop_event: set it, and `run` returns after the job that is running; `nudge()` hastens it.
    allowed_functions: dotted names of the functions that jobs may run.
    farewell_s: how long to wait for the deregistration at the end.

    Raises ValueError for a client that cannot work.
    """

    death_penalty_class = _NoDeathPenalty
    # BLPOP's, hence also how long a stop may take to be seen.
    pop_timeout_s = 1.0

    def __init__(
        self,
        destination: str,
        queues: Sequence[str],
        *,
        connect: Callable[[], redis.Redis],
        name: str,
        ready: Callable[[], bool],
        stop_event: threading.Event,
        seek: Callable[[], bool] = lambda: False,
        allowed_functions: frozenset[str] = ALLOWED_FUNCTIONS,
        farewell_s: float = 3.0,
    ) -> None:
        connection = connect()
        _check_client(connection, self.pop_timeout_s)
        # prepare_for_work would talk to Redis, which may be away just now.
        super().__init__(
            list(queues),
            name=name,
            connection=connection,
            worker_ttl=_WORKER_TTL_S,
            default_result_ttl=0,
            serializer=JSONSerializer,
            prepare_for_work=False,
        )
        self.log = logging.getLogger("paceline.worker")
        self.hostname = socket.gethostname()
        self.pid = os.getpid()
        self.destination = destination
        self._ready = ready
        self._seek = seek
        self._found_at = -_SEEKING_S
        self._stop_event = stop_event
        self._allowed_functions = allowed_functions
        self._farewell_s = farewell_s
        self._nudged = threading.Event()
        self._suspended = False
        self._beat_now = threading.Event()
        self._closing = threading.Event()
        self._registered = threading.Event()
        self._full_warned = False
        self._last_sweep = -_SWEEP_S

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        """Leaves the client as the caller built it; RQ raises its time-outs to minutes."""
        return connection

    # -- the loop -----------------------------------------------------------------------------

    def run(self) -> None:
        """Pop and run until `stop_event` is set. Call it once, from any thread.

        Ends within a second of the event and of the end of the running job; while Redis is
        frozen, within the client's `socket_timeout`.
        """
        heart = threading.Thread(target=self._beat, name=f"rq-heartbeat-{self.name}", daemon=True)
        heart.start()
        self.log.info("worker %s: popping from %s", self.name, ", ".join(self.queue_names()))
        try:
            self._loop()
        finally:
            self._closing.set()
            self._beat_now.set()
            heart.join(self._farewell_s)
            if heart.is_alive():
                self.log.warning(
                    "worker %s: not deregistered within %g s; its key expires in %d s",
                    self.name,
                    self._farewell_s,
                    _WORKER_TTL_S,
                )
            else:
                self.connection.close()
            self.log.info("worker %s: stopped", self.name)

    def nudge(self) -> None:
        """Ask `ready` and the stop event again now, if the worker waits for being ready."""
        self._nudged.set()

    def work(self, *_args: Any, **_options: Any) -> NoReturn:
        """RQ's loop, which is unfit here: see the module. Raises TypeError: call `run`."""
        raise TypeError("a PacelineWorker is run by run(), not by work()")

    def _loop(self) -> None:
        outage = _Outage(self.log, f"worker {self.name}: dequeue")
        while not self._stop_event.is_set():
            self._nudged.clear()
            try:
                if not self._registered.is_set():
                    self.register_birth()
                if self._suspended or not self._is_ready():
                    self._nudged.wait(_NOT_READY_POLL_S)
                    continue
                popped = self._pop()
                if outage.over():
                    self._beat_now.set()
                if popped is not None:
                    self.execute_job(*popped)
                else:
                    self._find_work()
            except redis.exceptions.RedisError as error:
                # All of them: away, frozen, loading, read-only after a fail-over, no permission.
                # The connection may be to the wrong server by now, hence new ones.
                self._settle_down()
                delay_s = outage.delay_s(error)
                # Only RQ's own keys may be unusable.
                if not (isinstance(error, redis.exceptions.ResponseError) and self._finds_work()):
                    self._stop_event.wait(delay_s)
                self.connection.connection_pool.disconnect(inuse_connections=False)
            except Exception:  # a daemon does not end over one bad job
                self._settle_down()
                self.log.exception("worker %s: unexpected error; going on", self.name)
                self._stop_event.wait(_RETRY_MAX_S)

    def _settle_down(self) -> None:
        """The job that failed half-way, if one did, is over."""
        self.executions.clear()
        self._state = WorkerStatus.IDLE

    def _is_ready(self) -> bool:
        try:
            return self._ready()
        except Exception:
            self.log.exception("worker %s: ready() failed: taken as no", self.name)
            return False

    def _pop(self) -> tuple[Job, Queue] | None:
        """The next job whose hash is still there; None after a second without one.

        BLPOP even on a single queue, where RQ would move the id to an intermediate list: that
        is never emptied after a kill, and a lost invitation costs nothing.
        """
        seeking = time.monotonic() - self._found_at < _SEEKING_S
        timeout_s = min(_SEEK_AGAIN_S, self.pop_timeout_s) if seeking else self.pop_timeout_s
        popped = self.connection.blpop(self.queue_keys(), timeout_s)
        if popped is None:
            return None
        key, job_id = map(as_text, popped)
        try:
            job = Job.fetch(job_id, connection=self.connection, serializer=self.serializer)
        except NoSuchJobError:
            self.log.debug("worker %s: invitation %s had expired", self.name, job_id)
            return None
        return job, next(queue for queue in self.queues if queue.key == key)

    def _find_work(self) -> bool:
        """Does work that no job brought, as long as there is some; whether there was. Raises
        RedisError."""
        found = False
        while not self._stop_event.is_set() and self._is_ready() and self._seek():
            found = True
            self._found_at = time.monotonic()
        return found

    def _finds_work(self) -> bool:
        try:
            return not self._suspended and self._find_work()
        except redis.exceptions.RedisError as error:
            self.log.debug("worker %s: nor without a job: %r", self.name, error)
            return False

    # -- one job ------------------------------------------------------------------------------

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one job, shown as busy meanwhile. What the job raises is logged and recorded.

        Raises RedisError: the job may have run or not.
        """
        execution = self._show_start(job)
        try:
            refusal = self._refusal(job)
            if refusal is not None:
                raise PermissionError(refusal)
            job.perform()
        except Exception as error:
            self.log.exception("worker %s: job %s raised", self.name, job.id)
            self._show_failure(job, queue, execution, error)
        else:
            self._show_success(job, execution)

    def _refusal(self, job: Job) -> str | None:
        if job.func_name not in self._allowed_functions:
            return f"not a function that may be run here: {job.func_name!r}"
        return None

    def _show_start(self, job: Job) -> Execution:
        job.worker_name = self.name
        job.started_at = now()
        self._state = WorkerStatus.BUSY
        with self.connection.pipeline(transaction=False) as pipeline:
            execution = Execution.create(job, _EXECUTION_TTL_S, pipeline, worker_name=self.name)
            self.executions[execution.id] = execution
            pipeline.hset(self.key, "state", WorkerStatus.BUSY)
            pipeline.hset(
                job.key,
                mapping={
                    "status": JobStatus.STARTED,
                    "started_at": utcformat(job.started_at),
                    "worker_name": self.name,
                },
            )
            # Not persisted for the run's time, as RQ does: a kill would leave it for ever.
            pipeline.expire(job.key, _JOB_TTL_S)
            self._execute(pipeline)
        return execution

    def _show_success(self, job: Job, execution: Execution) -> None:
        job.ended_at = now()
        self.executions.pop(execution.id, None)
        self._state = WorkerStatus.IDLE
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.delete(job.key, execution.key, job.execution_registry.key)
            pipeline.zrem(job.started_job_registry.key, execution.composite_key)
            pipeline.srem(self.executions_key, execution.composite_key)
            pipeline.hset(self.key, "state", WorkerStatus.IDLE)
            self.increment_successful_job_count(pipeline)
            self.increment_total_working_time(_working_time(job), pipeline)
            self._execute(pipeline)

    def _show_failure(self, job: Job, queue: Queue, execution: Execution, error: Exception) -> None:
        """RQ's own record of a failure, for a minute: the job with its trace, and a count."""
        job.ended_at = now()
        job.failure_ttl = _FAILURE_TTL_S
        job.retries_left = None  # an invitation is not retried: its lease ends, another is sent
        trace = "".join(traceback.format_exception(error))
        self.handle_job_failure(job, queue, exc_string=trace, execution=execution)
        self._state = WorkerStatus.IDLE
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.hset(self.key, "state", WorkerStatus.IDLE)
            self._execute(pipeline)

    def _execute(self, pipeline: Pipeline) -> list[Any]:
        """Execute bookkeeping; a full Redis refuses some of it, and that must not stop jobs.

        Raises any other error that was answered.
        """
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        full = False
        for answer in answers:
            if isinstance(answer, redis.exceptions.OutOfMemoryError):
                full = True
                if not self._full_warned:
                    self._full_warned = True
                    self.log.warning(
                        "worker %s: Redis is full (%s): jobs go on, unseen by RQ's tools",
                        self.name,
                        answer,
                    )
            elif isinstance(answer, Exception):
                raise answer
        self._full_warned = full
        return answers

    # -- being seen ---------------------------------------------------------------------------

    def register_birth(self) -> None:
        """Register, in place of a worker of this name that was killed. Raises RedisError."""
        pid, host, death = self.connection.hmget(self.key, "pid", "hostname", "death")
        if pid is not None and death is None:
            self.log.info(
                "worker %s: takes the place of process %s on %s, which did not deregister",
                *(self.name, as_text(pid), as_text(host or b"?")),
            )
        self._set_ip_address(self.connection)
        self.birth_date = now()
        self._state = WorkerStatus.STARTED
        self.connection.delete(self.key, self.executions_key)
        self._register()
        self._registered.set()

    def _register(self) -> None:
        """One heartbeat: the whole registration once more, whatever Redis has kept of it."""
        self.last_heartbeat = now()
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.hset(self.key, mapping=self.serialize())
            # The loop's thread owns the state: only where it was lost, it is written here.
            pipeline.hsetnx(self.key, "state", self._state)
            worker_registration.register(self, pipeline)
            pipeline.expire(self.key, _WORKER_TTL_S)
            pipeline.expire(self.executions_key, _WORKER_TTL_S)
            if time.monotonic() - self._last_sweep > _SWEEP_S:
                self._last_sweep = time.monotonic()
                self._sweep(pipeline)
            pipeline.exists(WORKERS_SUSPENDED)
            suspended = self._execute(pipeline)[-1]
        self._note_suspension(bool(suspended))

    def _sweep(self, pipeline: Pipeline) -> None:
        """Drop what is past its time from RQ's registries, which only a clean-up empties.

        Not RQ's clean-up: that fetches and requeues jobs, and two at once do it twice.
        """
        for queue in self.queues:
            for registry in (queue.started_job_registry, queue.failed_job_registry):
                pipeline.zremrangebyscore(registry.key, 0, current_timestamp())

    def _note_suspension(self, suspended: bool) -> None:
        """`rq suspend` is kept to, as of the next heartbeat."""
        if suspended != self._suspended:
            self._suspended = suspended
            self.log.warning(
                "worker %s: %s", self.name, "suspended by `rq suspend`" if suspended else "resumed"
            )
            self.set_state(WorkerStatus.SUSPENDED if suspended else WorkerStatus.IDLE)

    def _beat(self) -> None:
        """The heartbeat thread, to the farewell at the end."""
        outage = _Outage(self.log, f"worker {self.name}: heartbeat")
        while not self._closing.is_set():
            delay_s = _HEARTBEAT_S
            try:
                if self._registered.is_set():
                    self._register()
                    outage.over()
            except redis.exceptions.RedisError as error:
                delay_s = outage.delay_s(error)
            except Exception:  # must outlive its own errors, as the loop does
                self.log.exception("worker %s: heartbeat failed; going on", self.name)
            self._beat_now.wait(delay_s)
            self._beat_now.clear()
        if not self._registered.is_set():
            return
        try:
            self.register_death()  # type: ignore[no-untyped-call]
        except redis.exceptions.RedisError as error:
            self.log.warning("worker %s: not deregistered: %r", self.name, error)


class _Outage:
    """Delays between tries while Redis fails, and one log line at either end of it."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._began_at: float | None = None
        self._logged_at = 0.0
        self._delay_s = _RETRY_MIN_S

    def delay_s(self, error: redis.exceptions.RedisError) -> float:
        """Note one more failure; seconds to wait before the next try."""
        now_s = time.monotonic()
        if self._began_at is None:
            self._began_at = now_s
            self._delay_s = _RETRY_MIN_S
        else:
            self._delay_s = min(self._delay_s * 2, _RETRY_MAX_S)
        if self._began_at == now_s or now_s - self._logged_at > _REMIND_S:
            self._logged_at = now_s
            self._log.warning(
                "%s: Redis fails, trying on: %r",
                self._what,
                error,
                extra={"event": "redis_away", "cause": type(error).__name__},
            )
        return self._delay_s

    def over(self) -> bool:
        """Note a success; True when it ends an outage."""
        if self._began_at is None:
            return False
        self._log.warning(
            "%s: Redis is back after %.1f s",
            self._what,
            time.monotonic() - self._began_at,
            extra={"event": "redis_back"},
        )
        self._began_at = None
        return True


def _working_time(job: Job) -> timedelta:
    assert job.started_at is not None
    assert job.ended_at is not None
    return job.ended_at - job.started_at


def _check_client(client: redis.Redis, pop_timeout_s: float) -> None:
    """Raises ValueError where the caller's client would break what the worker promises."""
    options = client.connection_pool.connection_kwargs
    if options.get("decode_responses"):
        raise ValueError("a worker's client must not decode responses: RQ reads bytes")
    timeout_s = options.get("socket_timeout", _REDIS_PY_TIMEOUT_S)
    if timeout_s is None or timeout_s <= pop_timeout_s:
        raise ValueError(
            f"a worker's client needs a socket_timeout over {pop_timeout_s:g} s, not {timeout_s}:"
            " without one a connection that died silently is never noticed"
        )
    retry = client.get_retry()
    if retry is not None and retry.get_retries() > 0:
        raise ValueError("a worker's client must not repeat commands: retry=Retry(NoBackoff(), 0)")
