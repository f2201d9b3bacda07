"""What a run plays on: which processes there are, how one is put in a dead one's place, and when
all is whole again. Here each process by itself; ``together`` has them under ``paceline up``."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec
import redis.exceptions

from paceline.sink.record import Arrival
from rampage.plan import LEASE_S, Way, Whom
from support.held import batches_of
from support.stack import Stack

#: Of every kind that does not hold the destination (a redirect, a 401), which wants an operator.
#: Those after which the provider may have acted are rare: each of them may be a duplicate.
FAULTS = (
    "503:0.3%,500:0.3%,502:0.2%,504:0.1%,429:0.1%:retry_after=1,408:0.2%,425:0.1%,422:0.1%,"
    "reset_before:0.2%,reset_after:0.05%,eof_before:0.2%,eof_after:0.05%,hang:0.05%,drip:0.1%,"
    "close:0.5%,garbage=truncated:0.05%,garbage=html:0.05%,huge=1MB:0.1%,typed:0.1%,"
    "liar=500:0.05%"
)
#: The pace is fixed: a 429 that is drawn is no limit that a slower pace would keep to.
#: A message that returns to the head of the queue may be hit by one kill after another, and each is
#: charged; here the kills are ours, not its own.
MORE = f"""
pace = "fixed"
lease_s = {LEASE_S}
connect_timeout_s = 1
read_timeout_s = 2
total_timeout_s = 3
[destinations.web.retry]
first_s = 0.3
cap_s = 2
max_retries = 30
wait_503_s = [0.3, 1]
throttle_cap_s = 2
"""
_WAIT_S = 20.0


@dataclass
class Scene(Stack):
    """A stack under load. ``way`` names it in reports."""

    way: ClassVar[Way] = "apart"

    rate: float = 100.0
    connections: int = 8
    latency: str = "50-150ms"
    faults: str = FAULTS
    more: str = MORE
    daemons: int = 2
    spare_exporter: bool = False

    def _start(self) -> None:
        self._ports: dict[int, int] = {}
        self._open_record()
        super()._start()
        self.exporters = [self._start_exporter() for _ in range(1 + self.spare_exporter)]

    def _open_record(self) -> None:
        self.record = self.record_path = self.folder / "arrivals.jsonl"
        self._arrivals: list[Arrival] = []
        self._read_bytes = 0

    @property
    def outbox_url(self) -> str:
        """Redis's, for a producer."""
        return self.url_of("app")

    # -- who there is -----------------------------------------------------------------------

    def victims(self, whom: Whom) -> list[int]:
        """Process ids."""
        if whom == "redis":
            return [self.server.pid]
        return [process.pid for process in self._group(whom)]

    def _group(self, whom: Whom) -> list[subprocess.Popen[bytes]]:
        return {
            "worker": self.worker_processes,
            "daemon": self.daemon_processes,
            "exporter": self.exporters,
        }[whom]

    def workers_of(self, pid: int) -> list[str]:
        """Ids of the workers that end with this process: itself, or its children."""
        return [w.id for w in self.store.census().workers if w.facts.get("pid") == pid]

    # -- starting ---------------------------------------------------------------------------

    def start_daemon(self) -> subprocess.Popen[bytes]:
        return self._listening("daemon")

    def _start_exporter(self) -> subprocess.Popen[bytes]:
        return self._listening("exporter")

    def _listening(self, command: str) -> subprocess.Popen[bytes]:
        port = free_port()
        process = self._spawn(
            command, "paceline", command, "--config", str(self.config),
            "--listen", f"127.0.0.1:{port}",
        )  # fmt: skip
        self._ports[process.pid] = port
        return process

    def replace(self, whom: Whom, pid: int) -> int | None:
        """Waits for the end of one that was killed or told to stop, and starts another in its
        place. Returns its exit code, None where that is not known."""
        if whom == "redis":
            self.server.start()
            return None
        group = self._group(whom)
        place = next(n for n, process in enumerate(group) if process.pid == pid)
        code = group[place].wait(_WAIT_S)
        group[place] = {
            "worker": self.start_worker,
            "daemon": self.start_daemon,
            "exporter": self._start_exporter,
        }[whom]()
        return code

    # -- how it is --------------------------------------------------------------------------

    def is_whole(self) -> bool:
        """Every process runs, is registered, answers."""
        if not self.serves():
            return False
        try:
            census = self.store.census()
        except redis.exceptions.RedisError:
            return False
        # With connections or without: while requests fail there may be fewer than workers.
        live = {w.facts.get("pid") for w in census.workers if w.live}
        return len(self.victims("worker")) == self.workers and live >= set(self.victims("worker"))

    def serves(self) -> bool:
        """Daemons and exporters say that they are well."""
        processes = [*self.daemon_processes, *self.exporters]
        return all(is_well(self._ports[process.pid]) for process in processes)

    def is_free(self, workers: list[str]) -> bool:
        """Nothing is leased to any of them any more."""
        try:
            return not any(batches_of(self.store, worker) for worker in workers)
        except redis.exceptions.RedisError:
            return False

    def all_arrivals(self) -> Sequence[Arrival]:
        """The same, when the sink has written down all that have ended."""
        url = f"http://{self.sink_address}/_sink/arrivals?since={2**53}"
        with urllib.request.urlopen(url, timeout=10):
            return self.arrivals_ended()

    def arrivals_ended(self) -> Sequence[Arrival]:
        """Those that have ended by now, in the order of their end; the list only grows."""
        with self.record_path.open("rb") as file:
            file.seek(self._read_bytes)
            fresh = file.read()
        whole = fresh.rfind(b"\n") + 1
        self._read_bytes += whole
        self._arrivals += msgspec.json.Decoder(Arrival).decode_lines(fresh[:whole])
        return self._arrivals


def free_port() -> int:
    """Free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_well(port: int) -> bool:
    """Whether /healthz there says so."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        link.request("GET", "/healthz")
        return link.getresponse().status == 200
    except OSError:
        return False
    finally:
        link.close()


def send_signal(pid: int, signum: signal.Signals) -> None:
    """To one process."""
    os.kill(pid, signum)
