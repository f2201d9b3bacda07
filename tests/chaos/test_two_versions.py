"""Two versions at once: the one before the last change of the scripts' interface, from the
history, beside this one. Older workers and newer ones share an outbox; nothing is lost."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from paceline.audit import DeepAudit
from support.held import begun_by
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


def test_an_older_worker_beside_newer_processes(tmp_path: Path, older: str) -> None:
    with Stack(tmp_path, rate=80, workers=1, latency="50-150ms", more=MORE) as stack:
        producer = Producer(stack, per_s=50)
        producer.start()
        old = stack._spawn(
            "worker", *stack.worker_module, "--config", str(stack.config),
            prefix=("env", f"PYTHONPATH={older}"),
        )  # fmt: skip
        name = until(lambda: stack.worker_id(old), 15, "the older worker is registered")
        until(lambda: begun_by(stack.store, name), 15, "the older worker sends")
        stack.wait_arrivals(stack.arrival_count() + 100)
        producer.halt()
        stack.wait_done(30)
        assert stack.check_accounts() == {}
        assert DeepAudit(stack.store).run().sound
        assert old.poll() is None
