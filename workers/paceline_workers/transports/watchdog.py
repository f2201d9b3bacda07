"""The total deadline of a request: a thread that shuts its socket down.

A socket's time-out is per read, so a peer that drips a byte now and then holds a request for ever.
Shutting the socket down wakes the reading thread with an end of file.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

_PERIOD_S = 0.05


@dataclass(slots=True, eq=False)
class Guarded:
    """One request under guard; ``fired`` when its deadline has passed."""

    sock: socket.socket
    deadline_s: float
    fired: bool = False


class Watchdog:
    """Shuts down sockets whose deadline (of ``clock``) has passed, at most 50 ms late."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._guarded: set[Guarded] = set()
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._awake = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; sockets under guard are left as they are."""
        self._stop.set()
        self._some.set()
        self._thread.join()

    def guard(self, sock: socket.socket, deadline_s: float) -> Guarded:
        """Puts a socket under guard until ``release``."""
        guarded = Guarded(sock, deadline_s)
        with self._lock:
            self._guarded.add(guarded)
            if not self._awake:
                self._awake = True
                self._some.set()
        return guarded

    def release(self, guarded: Guarded) -> None:
        """Ends the guard. After it the socket is not touched any more."""
        with self._lock:
            self._guarded.discard(guarded)

    def check(self) -> int:
        """One look: shuts down what is overdue. Returns how many."""
        now = self._clock()
        fired = 0
        with self._lock:
            for guarded in [g for g in self._guarded if now >= g.deadline_s]:
                self._guarded.discard(guarded)
                guarded.fired = True
                fired += 1
                try:
                    # Not SSLSocket.shutdown: that takes the TLS layer off first, under the very
                    # thread that may be writing: what it writes next would go out in clear.
                    socket.socket.shutdown(guarded.sock, socket.SHUT_RDWR)
                except OSError:
                    # Closed or reset by the peer in this very moment: its reader knows already.
                    continue
        return fired

    def _run(self) -> None:
        while not self._stop.is_set():
            self._some.wait()
            self.check()
            self._stop.wait(_PERIOD_S)
            with self._lock:
                # Put to sleep here, not by every release: to wake a thread for each request costs.
                if not self._guarded and not self._stop.is_set():
                    self._awake = False
                    self._some.clear()
