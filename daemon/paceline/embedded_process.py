"""The process of the embedded server: forked, locked, recorded, kept (see ``embedded.py``)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = ["EXIT_LOCKED", "SHIM", "Keeper", "Record", "read_record", "try_lock"]

logger = logging.getLogger("paceline.embedded")

EXIT_LOCKED = 75

# argv: the parent's pid, the data folder, the port, then the server's command. Order matters:
# the death signal first; then the look at getppid(), for a parent that died before the option
# was set would never be signalled; the lock; and the record, so that there is no moment in which
# a server runs that a later start could not find. 1 is PR_SET_PDEATHSIG.
SHIM = f"""
import ctypes, fcntl, json, os, signal, sys
parent, folder, port, command = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
if sys.platform == "linux":
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(1, int(signal.SIGTERM), 0, 0, 0) != 0:
        sys.exit("prctl(PR_SET_PDEATHSIG): " + os.strerror(ctypes.get_errno()))
if os.getppid() != parent:
    sys.exit("the parent died before the server started")
lock = os.open(os.path.join(folder, "server.lock"), os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit({EXIT_LOCKED})
os.set_inheritable(lock, True)
record = os.path.join(folder, "server.json")
with open(record + ".new", "w") as file:
    json.dump({{"pid": os.getpid(), "port": port}}, file)
os.replace(record + ".new", record)
os.execv(command[0], command)
"""


class Record(NamedTuple):
    """What `server.json` says of the server that serves, or last served, this folder."""

    pid: int
    port: int  # 0: unix socket only


class Keeper(threading.Thread):
    """The thread that forks a server and lives as long as it: see the module on its death."""

    def __init__(self, command: list[str], log: BinaryIO) -> None:
        """Start `command` with its output in `log`. Raises what Popen raised."""
        super().__init__(name="paceline-embedded", daemon=True)
        self.ended = threading.Event()
        self.code: int | None = None
        self._command = command
        self._log = log
        self._forked = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: BaseException | None = None
        self.start()
        self._forked.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def run(self) -> None:
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own binary and options
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except BaseException as error:  # noqa: BLE001 - raised again by the starting thread
            self._failure = error
            return
        finally:
            self._forked.set()
        self.code = self._process.wait()
        self.ended.set()
        logger.info("embedded server, pid %d, ended with code %d", self.pid, self.code)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.ended.wait()


def read_record(data_dir: Path) -> Record | None:
    try:
        fields = json.loads((data_dir / "server.json").read_bytes())
        return Record(int(fields["pid"]), int(fields["port"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s/server.json is unreadable: %r", data_dir, error)
        return None


def try_lock(path: Path, how: Callable[[BinaryIO, int], object]) -> BinaryIO | None:
    """The file, locked for us until it is closed; None while another holds it."""
    file = path.open("ab")
    try:
        how(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    return file
