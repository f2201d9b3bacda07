"""A sink inside another process, for tests: its own thread, its own event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar, Unpack

from paceline.sink import control
from paceline.sink.record import Arrival
from paceline.sink.report import Report
from paceline.sink.server import Sink
from paceline.sink.settings import SinkOptions, SinkSettings

T = TypeVar("T")


class SinkThread:
    """A running sink::

        with SinkThread(profile="maxmd", faults="503:1%", seed=7) as sink:
            ...  # POST to sink.url
            assert [a.id for a in sink.arrivals()] == ["id-1"]

    Takes the fields of SinkSettings as keywords. Every method may be called from any thread.
    Entering raises SpecError or OSError where the sink cannot start; leaving raises what broke
    inside it, if anything did.
    """

    def __init__(self, **options: Unpack[SinkOptions]) -> None:
        self._settings = SinkSettings(**options)
        self._started: Future[Sink] = Future()
        self._thread = threading.Thread(target=self._run, name="paceline-sink", daemon=True)
        self._stop: asyncio.Event
        self._failure: BaseException | None = None

    def __enter__(self) -> SinkThread:
        self._thread.start()
        self._sink = self._started.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._failure is None:
            return
        if error is None:
            raise self._failure
        error.add_note(f"the sink itself had failed before: {self._failure!r}")

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return self._sink.url

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for raw sockets."""
        return self._settings.host, self._sink.port

    def stop(self) -> None:
        """Stop it and wait; a second call does nothing. What it saw can still be read."""
        if self._thread.is_alive():
            self._sink.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def arrivals(self) -> list[Arrival]:
        """Every arrival so far, the open ones as they stand, by time of arrival."""
        return self._call(lambda sink: sink.arrivals.all())

    def report(self) -> Report:
        """The report so far."""
        return self._call(lambda sink: sink.report())

    def set_faults(
        self,
        faults: str | None = None,
        *,
        latency: str | None = None,
        seed: int | None = None,
        script: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        next: tuple[int, str] | None = None,
        limit: str | None = None,
    ) -> None:
        """Change what is played, all or nothing; None leaves a thing as it is.

        ``""`` means no faults, no latency, no limit; ``script=[]`` no script; ``next=(5,
        "429:retry_after=2")`` a fault for the next five arrivals. Raises SpecError.
        """
        change = control.Change()
        if faults is not None:
            change.faults = faults
        if latency is not None:
            change.latency = latency
        if seed is not None:
            change.seed = seed
        if script is not None:
            change.script = (
                {name: list(track) for name, track in script.items()}
                if isinstance(script, Mapping)
                else list(script)
            )
        if next is not None:
            change.next = control.Next(*next)
        if limit is not None:
            change.limit = limit
        self._call(lambda sink: control.apply(sink, change))

    def down(self, for_s: float | None = None, *, keep_connections: bool = False) -> None:
        """Refuse connections, for a time or until ``up``; reset those there are."""
        self._call(lambda sink: sink.down(for_s, keep_connections=keep_connections))

    def up(self) -> None:
        """Accept connections again on the same port."""
        self._call(lambda sink: sink.up())

    def reset(self) -> None:
        """Forget what was seen; see Sink.reset."""
        self._call(lambda sink: sink.reset())

    def wait_ended(self, count: int, timeout_s: float = 10.0) -> list[Arrival]:
        """All arrivals, as soon as ``count`` have ended. Raises TimeoutError."""
        return self._wait(lambda sink: len(sink.arrivals.ended) >= count, timeout_s)

    def wait_begun(self, count: int, timeout_s: float = 10.0) -> list[Arrival]:
        """All arrivals, as soon as the headers of ``count`` are in. Raises TimeoutError."""
        return self._wait(lambda sink: sink.arrivals.begun >= count, timeout_s)

    def wait_closed(self, timeout_s: float = 10.0) -> list[Arrival]:
        """All arrivals, as soon as no connection is open. Raises TimeoutError."""
        return self._wait(lambda sink: not sink.live, timeout_s)

    # -- the other thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as exc:  # noqa: BLE001  handed to the thread that waits
            self._failure = exc
            if not self._started.done():
                self._started.set_exception(exc)

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        sink = Sink(self._settings)
        await sink.start(self._stop.set)
        self._started.set_result(sink)
        await self._stop.wait()
        await sink.stop()
        if sink.failure is not None:
            raise sink.failure

    def _call(self, what: Callable[[Sink], T]) -> T:
        if not self._thread.is_alive():  # stopped: nobody else touches it any more
            return what(self._sink)

        async def there() -> T:
            return what(self._sink)

        return self._there(there(), None)

    def _wait(self, condition: Callable[[Sink], bool], timeout_s: float) -> list[Arrival]:
        if not self._thread.is_alive():
            if not condition(self._sink):
                raise TimeoutError("the sink is stopped: nothing more can happen")
            return self._sink.arrivals.all()

        async def there() -> list[Arrival]:
            async with asyncio.timeout(timeout_s):
                await self._sink.wait_until(condition)
            return self._sink.arrivals.all()

        return self._there(there(), timeout_s + 10)

    def _there(self, job: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._sink.loop).result(timeout_s)
