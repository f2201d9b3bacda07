"""A fake clock, and the processes that live by it: one runs at a time, in the order of time.

Code that only acts is an event (``at``, ``every``). Code that waits in its midst is a process: a
thread of its own, so that what waits may be the real code (the gate, the scheduler); the baton is
handed from thread to thread, and no two ever run at once. The same seed gives the same run.

A host may be frozen: whatever is due there happens at its thaw.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count

Act = Callable[[], object]


class _Over(BaseException):
    """The simulation ended while this process waited."""


class Process:
    """One thread that runs only while it holds the baton."""

    def __init__(self, kernel: Kernel, body: Act | None, host: int | None) -> None:
        self.host = host
        self.baton = threading.Lock()
        self.baton.acquire()
        self._kernel = kernel
        self._body = body
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.baton.acquire()
        try:
            if self._body is not None and not self._kernel.over:
                self._body()
        except _Over:
            return
        except BaseException as error:  # noqa: BLE001 - raised again by Kernel.run
            self._kernel.fail(error)
        self._kernel.hand_on(None)


class Kernel:
    """Time in microseconds since 1970, as the scripts count it."""

    def __init__(self, start_us: int) -> None:
        self.now_us = start_us
        self.over = False
        self._order = count()
        self._events: list[tuple[int, int, Act | Process, int | None]] = []
        self._frozen: dict[int, int] = {}
        self._end_us = start_us
        self._error: BaseException | None = None
        self._main = Process(self, None, None)
        self._current = self._main
        self._processes: list[Process] = []

    # -- what is to happen ------------------------------------------------------------------

    def after(self, delay_us: float, act: Act, host: int | None = None) -> None:
        """``act()`` once, on ``host``."""
        self._push(self.now_us + max(0, round(delay_us)), act, host)

    def every(self, period_us: float, act: Act, host: int | None, first_us: float) -> None:
        """``act()`` again and again, a period after it was done."""

        def repeat() -> None:
            act()
            self.after(period_us, repeat, host)

        self.after(first_us, repeat, host)

    def spawn(self, body: Act, host: int | None = None, delay_us: float = 0) -> Process:
        """A process that may wait."""
        process = Process(self, body, host)
        process.thread.start()
        self._processes.append(process)
        self._push(self.now_us + round(delay_us), process, host)
        return process

    def freeze(self, host: int, for_us: float) -> None:
        """Nothing happens on that host until then."""
        self._frozen[host] = self.now_us + round(for_us)

    def wake(self, process: Process) -> None:
        """Ends ``park``; the process goes on at this very time."""
        self._push(self.now_us, process, process.host)

    # -- what a process does ----------------------------------------------------------------

    def sleep(self, us: float) -> None:
        """The running process waits."""
        me = self._current
        self._push(self.now_us + max(0, round(us)), me, me.host)
        self.hand_on(me)

    def park(self) -> None:
        """The running process waits until somebody wakes it."""
        self.hand_on(self._current)

    @property
    def current(self) -> Process:
        return self._current

    # -- the run ----------------------------------------------------------------------------

    def run(self, for_us: float) -> None:
        """Lets so much time pass. Raises what any process raised."""
        self._end_us = self.now_us + round(for_us)
        self.hand_on(self._main)
        if self._error is not None:
            raise self._error
        self.now_us = self._end_us

    def close(self) -> None:
        """Ends all processes, wherever they wait."""
        self.over = True
        for process in self._processes:
            if process.thread.is_alive():
                process.baton.release()
                process.thread.join(10)

    def fail(self, error: BaseException) -> None:
        self._error = self._error or error

    def hand_on(self, me: Process | None) -> None:
        """Does what is due, and gives the baton to whose turn it is; returns with it (None: the
        caller's thread ends)."""
        if self.over:
            if me is None:
                return
            raise _Over
        target = self._next()
        if target is not me:
            self._current = target
            target.baton.release()
            if me is None:
                return
            me.baton.acquire()
            if self.over:
                raise _Over
        self._current = me

    def _next(self) -> Process:
        while self._error is None and self._events and self._events[0][0] <= self._end_us:
            at_us, _, what, host = heapq.heappop(self._events)
            thaw_us = self._frozen.get(host, 0) if host is not None else 0
            if thaw_us > at_us:
                self._push(thaw_us, what, host)
                continue
            self.now_us = at_us
            if isinstance(what, Process):
                return what
            try:
                what()
            except BaseException as error:  # noqa: BLE001 - raised again by run
                self.fail(error)
        return self._main

    def _push(self, at_us: int, what: Act | Process, host: int | None) -> None:
        heapq.heappush(self._events, (at_us, next(self._order), what, host))
