"""BullMQ's packages, installed by npm at first use."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

from paceline.errors import PacelineError

#: BullMQ takes its Redis client as a package of its own.
PACKAGES = ("bullmq@6.7.0", "ioredis@5.11.1")
_LONGEST_S = 180.0


class Unavailable(PacelineError):
    """A contestant cannot take part here; says why."""


def install(folder: Path) -> None:
    """``folder/node_modules`` holds the packages then; nothing is done where it does already.

    Raises Unavailable where node, npm or the registry is missing, and OSError.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    done, wanted = folder / "installed", "\n".join(PACKAGES)
    with (folder / "lock").open("w") as lock:
        # Two installs into one folder at once break each other; a broken one must not look done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text("utf-8") != wanted:
            done.unlink(missing_ok=True)
            _npm_install(folder)
            done.write_text(wanted, encoding="utf-8")


def _npm_install(folder: Path) -> None:
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund"]
    command += ["--ignore-scripts", "--prefer-offline", *PACKAGES]
    try:
        ended = subprocess.run(  # noqa: S603 - our own command line
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"npm install did not end within {_LONGEST_S:.0f} s") from error
    if ended.returncode:
        lines = ended.stderr.decode("utf-8", "replace").splitlines()
        words = next((line for line in lines if line.startswith("npm error")), "it wrote nothing")
        raise Unavailable(f"npm install ended with code {ended.returncode}: {words}")
