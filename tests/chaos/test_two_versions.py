"""Two versions: the one before the function library's last change, from the history, and this one.
The upgrade that docs/operations.md describes, and the way back, under load lose and repeat nothing;
a worker of the older version that is started beside the newer processes is refused, and says why.
"""

from __future__ import annotations

import signal
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from paceline.audit import DeepAudit
from support.stack import Producer, Stack
from support.wait import until

ROOT = Path(__file__).parents[2]
_SCRIPTS = "daemon/paceline/scripts.py"

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
    """PYTHONPATH of the version before the function library's present one."""
    changes = _git("log", "--format=%H", "-G^LIBRARY_VERSION =", "--", _SCRIPTS).splitlines()
    before = _git("rev-parse", "--verify", "--quiet", f"{changes[0]}^") if changes else ""
    if not before:
        pytest.skip("needs the history: this clone is shallow, or no repository")
    folder = tmp_path_factory.mktemp("older")
    archive = folder / "sources.tar"
    _git("archive", "--output", str(archive), before, "daemon", "workers")
    with tarfile.open(archive) as sources:
        sources.extractall(folder, filter="data")
    return f"{folder / 'daemon'}:{folder / 'workers'}"


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

    def change(self, path: str) -> None:
        """As docs/operations.md has it: workers, daemon; daemon, workers."""
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


def test_upgraded_under_load_and_taken_back(tmp_path: Path, older: str) -> None:
    with Versions(tmp_path, rate=80, latency="50-150ms", more=MORE, path=older) as stack:
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
