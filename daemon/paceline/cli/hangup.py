"""SIGHUP: the configuration file is read again, and the process goes on by it.

What cannot be used (a file that is broken, a key that needs a restart, a secret that is missing) is
refused with one line in the log, and everything goes on as before.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

import redis.exceptions

from paceline.cli.common import Setup, read_setup
from paceline.errors import PacelineError
from paceline.reloading import check_settings

log = logging.getLogger("paceline.reload")

Apply = Callable[[Setup], str]


class Hangup:
    """What one process does on SIGHUP; from the main thread's first moment on, for the signal ends
    a process that has no handler. One that comes before ``serve`` is kept for it.

    ``stop`` is called instead where the terminal that it was started from has gone.
    """

    def __init__(self, setup: Setup, stop: Callable[[], object]) -> None:
        self._setup = setup
        self._stop = stop
        self._apply: Apply | None = None
        self._came = False
        self._lock = threading.Lock()
        # `nohup` asks to outlive the terminal.
        outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._terminal = not outlives and _has_terminal()
        signal.signal(signal.SIGHUP, self._handle)
        # A supervisor keeps it from us until there is a handler.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def serve(self, apply: Apply) -> None:
        """``apply(setup)`` goes on by a configuration that was read again, and returns what
        changed; it raises PacelineError or RedisError where it goes on as before instead."""
        with self._lock:
            self._apply = apply
            if self._came:
                self._start()

    def _handle(self, _signum: int, _frame: object) -> None:
        # On a thread: what takes locks must not interrupt a thread that may hold them.
        self._start()

    def _start(self) -> None:
        threading.Thread(target=self._answer, name="reload", daemon=True).start()

    def _answer(self) -> None:
        if self._terminal and not _has_terminal():
            log.info("the terminal has gone: stopping", extra={"event": "stopping"})
            self._stop()
            return
        with self._lock:
            if self._apply is None:
                self._came = True
                return
            self._reload(self._apply)

    def _reload(self, apply: Apply) -> None:
        try:
            fresh = read_setup(self._setup.source, self._setup.data, log.warning)
            check_settings(self._setup.settings, fresh.settings)
            said = apply(fresh)
        except (PacelineError, redis.exceptions.RedisError) as error:
            log.error(
                "not reloaded, everything goes on as before: %s",
                " ".join(str(error).split()),
                extra={"event": "reload_refused"},
            )
        except Exception:
            log.exception("not reloaded, everything goes on as before", extra={"event": "defect"})
        else:
            self._setup = fresh
            log.info("reloaded: %s", said, extra={"event": "reloaded"})


def _has_terminal() -> bool:
    """Whether there is a controlling terminal, and somebody holds its other end."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
