"""Node's own Redis client, the package `redis`, for tests that need it."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / ".run" / "node-redis"


def redis_package() -> Path:
    """A folder with the package in its node_modules, installed once, by whichever test process
    comes first."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    done = _FOLDER / "installed"
    with (_FOLDER / "lock").open("w") as lock:
        # Two installs into one folder at once break each other; a broken one must not look done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(_FOLDER), "redis@5"],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip
            done.touch()
    return _FOLDER
