"""The whole of Paceline as real processes: Redis, sink, daemon, workers; and a ledger beside it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paceline import Outbox
from paceline.connect import connect
from paceline.durable import Durable
from paceline.embedded import EmbeddedServer, attached_url
from paceline.errors import NotReplicated, PacelineError
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.rights import ROLES
from support.rights import Guarded
from support.wait import until

DESTINATION = "web"
LOOPBACK = "127.0.0.1"


@dataclass
class Stack:
    """Started by ``with``; every process it started is gone afterwards."""

    folder: Path
    rate: float = 100.0
    burst: int = 150
    connections: int = 10
    workers: int = 2
    daemons: int = 1
    latency: str = "20-60ms"
    faults: str = ""
    seed: int = 7
    more: str = ""
    #: The sink's profile, which the provider is named after, and what its URL ends in.
    profile: str = "http"
    path: str = "/messages"
    up: bool = False
    #: A file that the sink writes each arrival into when it has ended.
    record: Path | None = None
    #: Where the daemons' metrics are; "127.0.0.1:0": on any port, see ``metrics_url``.
    exporter: str = "off"
    worker_module: Sequence[str] = ("paceline", "worker", DESTINATION)
    #: Where Redis and the sink are for workers and daemons; Redis is on loopback as well.
    host: str = LOOPBACK
    #: A Redis of others, such as one behind Sentinels; "" for one of its own: ``server``.
    redis_url: str = ""
    #: Its users, and the servers that it may lead to.
    its_rights: tuple[Guarded, Sequence[EmbeddedServer]] | None = None
    #: With ``up``: the folder of the embedded server, which is its own then.
    data: Path | None = None
    server: EmbeddedServer = field(init=False)
    guarded: Guarded | None = field(init=False, default=None)
    _guarded_servers: Sequence[EmbeddedServer] = field(init=False, default=())
    accepted: dict[str, bytes] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._exits = ExitStack()
        try:
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            self._show_logs()
            self._exits.close()
            return
        try:
            self._check_rights()
        finally:
            self._exits.close()

    def _start(self) -> None:
        self.url = self.redis_url
        if self.its_rights is not None:
            self.guarded, self._guarded_servers = self.its_rights
        if not self.url and self.data is None:
            others = re.findall(r"^\[destinations\.([a-z0-9_-]+)", self.more, re.MULTILINE)
            self.guarded = Guarded(self.folder / "rights", sorted({DESTINATION, *others}))
            self.server = EmbeddedServer(
                self.folder / "redis",
                appendfsync="always",
                extra={**_listening(self.host), **self.guarded.options},
            )
            self.url = self.server.start()
            self._exits.callback(self.server.stop)
            self._guarded_servers = [self.server]
        self.sink = self._start_sink()
        self.config = self.folder / "paceline.toml"
        self.config.write_text(self._toml(), encoding="utf-8")
        if self.data is not None:
            self.daemon_processes, self.worker_processes = [self._start_up()], []
            self.url = until(lambda: self.data and attached_url(self.data), 15, "the server") or ""
        self.client = connect(self.url)
        self.store = OutboxStore(self.client, DESTINATION)
        self.outbox = Outbox.from_url(self.url_of("app"))
        self._exits.callback(self.outbox.close)
        if self.up and self.data is None:
            self.daemon_processes, self.worker_processes = [self._start_up()], []
        elif not self.up:
            self.daemon_processes = [self.start_daemon() for _ in range(self.daemons)]
        until(lambda: self.store.census().config, 15, "the daemon publishes its configuration")
        if not self.up:
            self.worker_processes = [self.start_worker() for _ in range(self.workers)]
        self.wait_live(min(self.workers, self.connections))

    def url_of(self, role: str) -> str:
        """Redis's, for the user of this role. ``url`` is the tests' own, who may do all. (One user
        for all where Redis is not the stack's own.)"""
        return self.guarded.url(self.url, role) if self.guarded else self.url

    def _check_rights(self) -> None:
        """Asserts that nobody was refused anything that he is not allowed."""
        for server in self._guarded_servers:
            refused = self.guarded.refused(server.url) if self.guarded and server.alive else []
            assert not refused, refused
        for log in self.folder.glob("*.log"):
            assert b"no permissions" not in log.read_bytes(), log

    def _toml(self) -> str:
        url = f'url = "{self.url.replace(LOOPBACK, self.host)}"' if self.url else ""
        return f"""
[redis]
{url}
[exporter]
listen = "{self.exporter}"
[destinations.{DESTINATION}]
provider = "{self.profile}"
url = "http://{self.sink_address}{self.path}"
rate = {self.rate}
burst = {self.burst}
connections = {self.connections}
{self.more}
"""

    # -- processes --------------------------------------------------------------------------

    def _spawn(
        self, name: str, *command: str, prefix: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        self._count = getattr(self, "_count", 0) + 1
        role = "scheduler" if name == "daemon" else name
        redis_url = (
            {"PACELINE_REDIS_URL": self.url_of(role).replace(LOOPBACK, self.host)}
            if role in ROLES and self.guarded
            else {}
        )
        log = (self.folder / f"{self._count:02}-{name}.log").open("wb")
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", *command],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": _python_path(), **redis_url},
        )
        log.close()
        self._exits.callback(_end, process)
        return process

    def _start_sink(self) -> subprocess.Popen[bytes]:
        at = self.folder / "sink.port"
        extra = ["--faults", self.faults] if self.faults else []
        extra += ["--recipients"] if self.profile != "http" else []
        extra += ["--record", str(self.record)] if self.record else []
        process = self._spawn(
            "sink", "paceline.sink", "--profile", self.profile, "--latency", self.latency,
            "--seed", str(self.seed), "--host", self.host, "--port", "0", "--port-file", str(at),
            *extra,
        )  # fmt: skip
        until(at.exists, 10, "the sink listens")
        self.sink_address = at.read_text().strip()
        return process

    def start_daemon(self) -> subprocess.Popen[bytes]:
        return self._spawn("daemon", "paceline", "daemon", "--config", str(self.config))

    def _start_up(self) -> subprocess.Popen[bytes]:
        config = ["--config", str(self.config)]
        if self.data is not None:
            config += ["--data", str(self.data)]
        return self._spawn("up", "paceline", "up", "--workers", str(self.workers), *config)

    def metrics_url(self) -> str:
        """``http://127.0.0.1:PORT/metrics`` of the daemon started last."""

        def told() -> str:
            logs = sorted([*self.folder.glob("*-daemon.log"), *self.folder.glob("*-up.log")])
            found = re.findall(r"metrics on (http://[^\s\"]+)", logs[-1].read_text("utf-8"))
            return found[-1] if found else ""

        return until(told, 15, "the exporter says where it listens")

    def log_of(self, name: str) -> str:
        """What processes of that name have logged."""
        return "".join(p.read_text("utf-8") for p in sorted(self.folder.glob(f"*-{name}.log")))

    def start_worker(self) -> subprocess.Popen[bytes]:
        return self._spawn("worker", *self.worker_module, "--config", str(self.config))

    def wait_live(self, count: int) -> None:
        until(
            lambda: sum(w.live and w.slots > 0 for w in self.store.census().workers) >= count,
            20,
            f"{count} live workers with connections",
        )

    def worker_id(self, process: subprocess.Popen[bytes]) -> str | None:
        """The id under which a worker process registered."""
        for seen in self.store.census().workers:
            if seen.facts.get("pid") == process.pid:
                return seen.id
        return None

    def begun_by(self, worker: str) -> list[str]:
        """Ids that this worker has begun and not settled, by the outbox's own account."""
        held = [
            member.decode()
            for nonce in self.client.zrange("{web}:batches", 0, -1)
            if self.client.hget(b"{web}:bm:" + nonce, "worker") == worker.encode()
            for member in self.client.smembers(b"{web}:b:" + nonce)
        ]
        found = self.store.look(held) if held else []
        return [
            message_id
            for message_id, it in zip(held, found, strict=True)
            if it is not None and it[0].state == "begun" and it[3] == worker
        ]

    def signal_workers(self, signum: signal.Signals) -> None:
        for process in self.worker_processes:
            process.send_signal(signum)

    # -- messages ---------------------------------------------------------------------------

    def send(self, count: int, prefix: str = "m") -> list[str]:
        """Sends and records in the ledger what was acknowledged; returns the ids."""
        messages = [_message(f"{prefix}-{n}") for n in range(count)]
        self.outbox.send_many(messages)
        self.accepted.update({m.id: m.payload for m in messages})
        return [m.id for m in messages]

    def wait_done(self, timeout_s: float) -> None:
        until(lambda: self.store.census().unfinished == 0, timeout_s, "nothing is unfinished", 0.1)

    # -- what the sink saw ------------------------------------------------------------------

    def arrivals(self) -> list[dict[str, Any]]:
        """All arrivals, by time."""
        with urllib.request.urlopen(f"http://{self.sink_address}/_sink/arrivals") as reply:
            found = [json.loads(line) for line in reply.read().splitlines()]
        return sorted(found, key=lambda a: int(a["mono_ns"]))

    def report(self) -> dict[str, Any]:
        """The sink's account."""
        with urllib.request.urlopen(f"http://{self.sink_address}/_sink/report") as reply:
            found: dict[str, Any] = json.load(reply)
        return found

    def arrival_count(self) -> int:
        return len(self.arrivals())

    def wait_arrivals(self, count: int, timeout_s: float = 60.0) -> None:
        until(lambda: self.arrival_count() >= count, timeout_s, f"{count} arrivals", 0.1)

    def wait_quiet(self, span_s: float) -> None:
        """Until the sink saw nothing new for so long."""
        last = [self.arrival_count(), time.monotonic()]

        def quiet() -> bool:
            now, count = time.monotonic(), self.arrival_count()
            if count != last[0]:
                last[:] = [count, now]
            return now - last[1] >= span_s

        until(quiet, span_s + 20, "the sink is quiet", 0.05)

    def wait_arrival_after(self, mono_ns: int, timeout_s: float) -> float:
        """Seconds from ``mono_ns`` (CLOCK_MONOTONIC) to the next arrival."""

        def next_one() -> int:
            later = [a["mono_ns"] for a in self.arrivals()[-200:] if a["mono_ns"] > mono_ns]
            return min(later, default=0)

        return (until(next_one, timeout_s, "the sink sees the next request", 0.05) - mono_ns) / 1e9

    # -- accounts ---------------------------------------------------------------------------

    def check_accounts(self) -> Counter[str]:
        """Asserts that every acknowledged message was sent and arrived, that nothing else did,
        that the law holds, and that every duplicate has an ambiguous attempt on record.

        Returns the ids that the sink accepted more than once, with their counts.
        """
        census = self.store.census()
        assert census.sound, census.law
        arrived = Counter(a["id"] for a in self.arrivals() if a["accepted"])
        missing = set(self.accepted) - set(arrived)
        assert not missing, f"acknowledged, never accepted by the sink: {sorted(missing)[:10]}"
        assert set(arrived) == set(self.accepted), "the sink accepted messages nobody sent"
        ids = list(self.accepted)
        for start in range(0, len(ids), 500):
            piece = ids[start : start + 500]
            for message_id, found in zip(piece, self.store.look(piece), strict=True):
                assert found is not None, f"{message_id} is unknown to the outbox"
                assert found[0].state == "sent", f"{message_id} is {found[0].state}"
        twice = Counter({i: n for i, n in arrived.items() if n > 1})
        for message_id in twice:
            outcomes = [a["outcome"] for a in self.store.attempts(message_id)]
            assert "ambiguous" in outcomes, f"{message_id}: duplicate unexplained: {outcomes}"
        return twice

    def _show_logs(self) -> None:
        for log in sorted(self.folder.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-12:]
            sys.stderr.write(f"--- {log.name}\n" + "\n".join(lines) + "\n")


class Producer(threading.Thread):
    """Sends one message after another, repeating those whose acknowledgement was lost, until told
    to stop: what it holds in ``accepted`` was acknowledged."""

    def __init__(
        self, stack: Stack, per_s: float, prefix: str = "p", durable: Durable = "server"
    ) -> None:
        super().__init__(name="producer", daemon=True)
        self._stack = stack
        self._pause_s = 1 / per_s
        self._prefix = prefix
        self._durable: Durable = durable
        self._halt = threading.Event()
        self.outages = 0

    def run(self) -> None:
        number = 0
        with Outbox.from_url(self._stack.url_of("producer"), timeout_s=2.0) as outbox:
            while not self._halt.wait(self._pause_s):
                message = _message(f"{self._prefix}-{number}")
                try:
                    answer = outbox.send_many([message], durable=self._durable)[0]
                except PacelineError:
                    self.outages += 1
                    continue
                if isinstance(answer, NotReplicated):  # accepted, and to be sent again
                    self.outages += 1
                    continue
                if isinstance(answer, PacelineError):
                    raise answer
                self._stack.accepted[message.id] = message.payload
                number += 1
            # The last one may have been accepted without our hearing of it.
            self._settle_last(outbox, number)

    def _settle_last(self, outbox: Outbox, number: int) -> None:
        message = _message(f"{self._prefix}-{number}")
        outbox.send_many([message])
        self._stack.accepted[message.id] = message.payload

    def halt(self) -> None:
        """Ends it, with its last message acknowledged."""
        self._halt.set()
        self.join(20)
        assert not self.is_alive()


def mono_ns() -> int:
    """The clock of the sink's ``mono_ns``."""
    return time.monotonic_ns()


def _message(message_id: str) -> Message:
    return Outbox.message(DESTINATION, {"id": message_id, "text": "Grüße " * 20}, id=message_id)


def _listening(host: str) -> dict[str, str]:
    """Options of Redis."""
    if host == LOOPBACK:
        return {}
    return {"bind": f"{LOOPBACK} {host}", "protected-mode": "no"}


def _python_path() -> str:
    """The tests, and what the caller has put before the installed package."""
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, before)])


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
