"""``paceline up``: one process that keeps the others running.

Children are processes of their own (a crash or a kill of one touches no other). One that ends is
started again, after a second at first, doubling to ten while it keeps ending early. On stop they
are asked in the order given, each group awaited before the next: workers finish what is on the wire
while daemon and Redis still serve them.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

log = logging.getLogger("paceline.up")

#: Whatever was killed how often before, recovery stays below ten seconds.
_FIRST_S, _MOST_S, _WELL_AFTER_S = 1.0, 5.0, 10.0
_LOOK_S = 0.1

#: A child whose parent's pid is no longer this one stops by itself (see ``watch_parent``).
PARENT_VARIABLE = "PACELINE_PARENT"


@dataclass(slots=True)
class Child:
    """One process to keep running; ``grace_s`` is how long its stop may take, ``about`` the
    destination it works for, "" for all."""

    name: str
    command: Sequence[str]
    grace_s: float
    about: str = ""
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    again_s: float = 0.0
    wait_s: float = _FIRST_S
    restarts: int = field(default=0)


class Supervisor:
    """Keeps groups of children running. ``groups`` are stopped in order."""

    def __init__(self, groups: Sequence[Sequence[Child]], environ: Mapping[str, str]) -> None:
        self._groups = groups
        self._environ = {**environ, PARENT_VARIABLE: str(os.getpid())}
        self.stopping = threading.Event()

    @property
    def children(self) -> list[Child]:
        """All of them."""
        return [child for group in self._groups for child in group]

    def run(self) -> None:
        """Starts all, the last group first, and keeps them until ``stopping`` is set."""
        try:
            for group in reversed(self._groups):
                for child in group:
                    self._start(child)
            while not self.stopping.wait(_LOOK_S):
                self.run_once()
        finally:
            self._stop_all()

    def run_once(self) -> int:
        """Starts again what has ended and waited long enough. Returns how many were started."""
        now = time.monotonic()
        started = 0
        for child in self.children:
            process = child.process
            if process is not None and process.poll() is not None:
                if now - child.started_s > _WELL_AFTER_S:
                    child.wait_s = _FIRST_S
                log.warning(
                    "%s ended with code %s; again in %.0f s",
                    child.name,
                    process.returncode,
                    child.wait_s,
                    extra={"event": "ended", "cause": child.name},
                )
                child.process, child.again_s = None, now + child.wait_s
                child.wait_s = min(child.wait_s * 2, _MOST_S)
            elif process is None and now >= child.again_s:
                child.restarts += 1
                self._start(child)
                started += 1
        return started

    def send(self, signum: signal.Signals) -> int:
        """Sends it to all that run; returns to how many."""
        running = [c.process for c in self.children if c.process and c.process.poll() is None]
        for process in running:
            process.send_signal(signum)
        return len(running)

    def _start(self, child: Child) -> None:
        child.started_s = time.monotonic()
        # It would end by a SIGHUP that comes before it has a handler; so it gets it afterwards.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            # Its own session: Ctrl-C in the terminal reaches only us, and we stop them in order.
            child.process = subprocess.Popen(  # noqa: S603 - our own command line
                child.command, env=self._environ, start_new_session=True, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            # No memory, no process id left: the others run on.
            child.again_s = child.started_s + child.wait_s
            log.error(
                "%s cannot be started: %s; again in %.0f s",
                child.name,
                error,
                child.wait_s,
                extra={"event": "ended", "cause": child.name},
            )
            child.wait_s = min(child.wait_s * 2, _MOST_S)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        log.info(
            "%s started, pid %d",
            child.name,
            child.process.pid,
            extra={"event": "started", "cause": child.name},
        )

    def _stop_all(self) -> None:
        for group in self._groups:
            running = [c for c in group if c.process is not None and c.process.poll() is None]
            for child in running:
                assert child.process is not None
                child.process.send_signal(signal.SIGTERM)
            for child in running:
                self._await_end(child)

    def _await_end(self, child: Child) -> None:
        assert child.process is not None
        try:
            child.process.wait(child.grace_s)
        except subprocess.TimeoutExpired:
            log.warning(
                "%s did not stop in %.0f s: killed",
                child.name,
                child.grace_s,
                extra={"event": "ended", "cause": child.name},
            )
            child.process.kill()
            child.process.wait()


def watch_parent(environ: Mapping[str, str], stop: threading.Event) -> None:
    """Sets ``stop`` when the supervisor named in the environment is gone: a thread, once a second.

    Where no supervisor is named it does nothing.
    """
    named = environ.get(PARENT_VARIABLE)
    if not named:
        return

    def watch() -> None:
        while not stop.wait(1.0):
            if str(os.getppid()) != named:
                log.warning("the supervisor is gone: stopping")
                stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()
