"""Two versions. One of the same layout, which knows a key more and has a newer function library,
takes over process by process, under load, and so back: side by side they lose and repeat nothing.

The one before the layout's last change, from the history: the upgrade that stops all first
(docs/operations.md), and the way back, the same. Started beside the newer processes it is refused,
and says why."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from paceline.audit import DeepAudit
from paceline.embedded import EmbeddedServer
from paceline.scripts import LIBRARY_VERSION
from support.stack import Producer, Stack
from support.wait import until

ROOT = Path(__file__).parents[2]
_DIGEST = "daemon/paceline/config_digest.py"

MORE = """
lease_s = 4.0
[destinations.web.retry]
max_retries = 20
"""

pytestmark = [pytest.mark.long, pytest.mark.timeout(150)]


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH of the version before the present layout."""
    changes = _git("log", "--format=%H", "-G^LAYOUT =", "--", _DIGEST).splitlines()
    before = _git("rev-parse", "--verify", "--quiet", f"{changes[0]}^") if changes else ""
    if not before:
        pytest.skip("needs the history: this clone is shallow, or no repository")
    folder = tmp_path_factory.mktemp("older")
    archive = folder / "sources.tar"
    _git("archive", "--output", str(archive), before, "daemon", "workers")
    with tarfile.open(archive) as sources:
        sources.extractall(folder, filter="data")
    return f"{folder / 'daemon'}:{folder / 'workers'}"


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH of a version to come, whose layout is this one's: what it adds is not used."""
    folder = tmp_path_factory.mktemp("newer")
    for part in ("daemon", "workers"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    package = folder / "daemon" / "paceline"
    for name in ("scripts.py", "lua/enqueue.lua"):
        version = f"VERSION = {LIBRARY_VERSION}"
        _edit(package / name, version, f"VERSION = {LIBRARY_VERSION + 1}")
    _edit(package / "settings.py", '"redact": list(self.redact),', '"novel": 1, "redact": [],')
    _edit(package / "shared_config.py", '"pace": destination', '"novel": 1, "pace": destination')
    for script in package.glob("lua/*.lua"):
        script.write_text(script.read_text("utf-8") + "\n-- Its hash is another one.\n", "utf-8")
    return f"{folder / 'daemon'}:{folder / 'workers'}"


def _edit(path: Path, before: str, after: str) -> None:
    text = path.read_text("utf-8")
    assert text.count(before) == 1, f"{path.name} has no single {before!r} any more"
    path.write_text(text.replace(before, after), "utf-8")


@dataclass
class Versions(Stack):
    """Daemons and workers are of the version that ``path`` (PYTHONPATH) has, "" for this one."""

    path: str = ""

    def _spawn(
        self, name: str, *command: str, prefix: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        if self.path and name in ("daemon", "worker"):
            prefix = ("env", f"PYTHONPATH={self.path}")
        return super()._spawn(name, *command, prefix=prefix)

    def roll(self, path: str) -> None:
        """One after another, each new one beside all that there are; the daemon first."""
        self.path = path
        started = [self.start_daemon(), *(self.start_worker() for _ in range(self.workers))]
        self.wait_live(2 * self.workers)
        self.wait_arrivals(self.arrival_count() + 120)
        for process in (*self.daemon_processes, *self.worker_processes):
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            self.wait_arrivals(self.arrival_count() + 30)
        assert all(process.poll() is None for process in started)
        self.daemon_processes, self.worker_processes = started[:1], started[1:]

    def change(self, path: str) -> None:
        """All stopped: workers, daemon; then daemon, workers."""
        for processes in (self.worker_processes, self.daemon_processes):
            for process in processes:
                process.send_signal(signal.SIGTERM)
            assert [process.wait(20) for process in processes] == [0] * len(processes)
        self.path = path
        self.daemon_processes = [self.start_daemon()]
        until(self._published, 20, "the daemon has made its configuration the shared one")
        self.worker_processes = [self.start_worker() for _ in range(self.workers)]
        self.wait_live(self.workers)
        self.wait_arrivals(self.arrival_count() + 120)

    def _published(self) -> bool:
        """The older daemon does not sign off, and counts as live for 5 s: the next one is refused
        meanwhile, and started again, as a supervisor does."""
        if self.daemon_processes[0].poll() is not None:
            self.daemon_processes = [self.start_daemon()]
        logs = sorted(self.folder.glob("*-daemon.log"))
        return "reaper of web started" in logs[-1].read_text("utf-8")


def test_rolled_process_by_process_and_back(tmp_path: Path, newer: str) -> None:
    with Versions(tmp_path, rate=80, latency="50-150ms", more=MORE) as stack:
        producer = Producer(stack, per_s=50)
        producer.start()
        stack.wait_arrivals(100)
        for path in (newer, "", newer):
            stack.roll(path)
            # A number that its scripts read has been added to those in force.
            assert stack.client.hget("{web}:cfg", "novel") == b"1"
        assert "configured differently" not in stack.log_of("daemon") + stack.log_of("worker")
        producer.halt()
        stack.wait_done(30)
        assert stack.check_accounts() == {}
        assert DeepAudit(stack.store).run().sound


def test_upgraded_under_load_and_taken_back(tmp_path: Path, older: str) -> None:
    # One user for all: those of deploy/acl are this version's, whose functions need less.
    with EmbeddedServer(tmp_path / "redis") as server, Versions(
        tmp_path, rate=80, latency="50-150ms", more=MORE, redis_url=server.url, path=older
    ) as stack:  # fmt: skip
        producer = Producer(stack, per_s=50)
        producer.start()
        stack.wait_arrivals(100)
        stack.change("")
        assert not _starts(stack, older), "processes of two versions live by one outbox"
        stack.change(older)
        producer.halt()
        stack.wait_done(30)
        assert stack.check_accounts() == {}
        assert DeepAudit(stack.store).run().sound


def _starts(stack: Versions, path: str) -> bool:
    """Whether a worker of that version works beside the others. One that does not says why."""
    stack.path, before = path, stack.path
    worker = stack.start_worker()
    stack.path = before
    until(lambda: worker.poll() is not None or stack.worker_id(worker), 15, "it starts or ends")
    if worker.poll() is None:
        return True
    log = max(stack.folder.glob("*-worker.log")).read_text("utf-8")
    assert "is configured differently here than in Redis" in log
    return False
