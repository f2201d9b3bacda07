"""The sink: listening socket, state, and life cycle. Lives in one event loop and one thread."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from paceline.sink.answers import Verdict, When
from paceline.sink.connection import Connection
from paceline.sink.connections import ConnectionLog
from paceline.sink.faults import Fault, parse_faults
from paceline.sink.latency import parse_latency
from paceline.sink.limit import Limit, parse_limit
from paceline.sink.player import Player
from paceline.sink.record import ArrivalLog, RecordFile
from paceline.sink.report import Report, make_report
from paceline.sink.settings import SinkSettings

_BACKLOG = 1024
_NOTHING = Verdict(200, b"{}", False)


class Sink:
    """A provider simulator. Build it in the running event loop, ``start`` it, ``stop`` it.

    Raises SpecError (FaultSpecError, LatencySpecError, LimitSpecError) for specs that cannot be
    read or fit the profile, OSError where the record file cannot be opened.
    """

    def __init__(self, settings: SinkSettings) -> None:
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.profile = settings.make_profile()
        self.player = Player(
            settings.seed, parse_faults(settings.faults), parse_latency(settings.latency)
        )
        self.player.set_script(settings.script)
        self.check(self.player.mix.faults)
        if self.player.script is not None:
            self.check(self.player.script.faults())
        self.limit: Limit | None = parse_limit(settings.limit) if settings.limit else None
        self._record = RecordFile(settings.record, self.loop) if settings.record else None
        self.arrivals = ArrivalLog(self._record, addresses=settings.recipients)
        self.connections = ConnectionLog()
        self.live: set[Connection] = set()
        self.port = 0
        self.failure: BaseException | None = None
        self._failed: Callable[[], None] | None = None
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._reserve: socket.socket | None = None
        self._opening: asyncio.Task[None] | None = None
        self._watchers: list[tuple[Callable[[Sink], bool], asyncio.Future[None]]] = []
        self._up_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    @property
    def url(self) -> str:
        """``http://host:port``."""
        host = self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    # -- life cycle --------------------------------------------------------------------------

    async def start(self, failed: Callable[[], None] | None = None) -> None:
        """Listen. ``failed`` is called once if a callback raises later; see ``failure``.

        Raises OSError where the address cannot be had.
        """
        self._failed = failed
        self.loop.set_exception_handler(self._on_failure)
        host, port = self.settings.host, self.settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            self.port = listener.getsockname()[1]
            await self._listen(listener)
        except OSError:
            listener.close()
            raise
        if self.settings.idle_s is not None:
            self._sweep_idle(self.settings.idle_s)

    async def stop(self) -> None:
        """Stop listening, end every connection, write the record out. Raises OSError."""
        self._cancel_up()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._close_listener()
        self._close_reserve()
        for connection in list(self.live):
            connection.abort(reset=False)
        await self.wait_until(lambda sink: not sink.live)
        if self._record is not None:
            self._record.close()

    async def wait_until(self, condition: Callable[[Sink], bool]) -> None:
        """Return as soon as the condition holds; it is asked at every change, never polled."""
        if condition(self):
            return
        waiter: asyncio.Future[None] = self.loop.create_future()
        entry = (condition, waiter)
        self._watchers.append(entry)
        try:
            await waiter
        finally:
            self._watchers.remove(entry)

    def changed(self) -> None:
        """Tell those who wait that an arrival or a connection began or ended."""
        for condition, waiter in self._watchers:
            if not waiter.done() and condition(self):
                waiter.set_result(None)

    def report(self) -> Report:
        """What happened so far."""
        return make_report(
            self.arrivals,
            self.connections.all(),
            profile=self.profile.name,
            latency=self.player.latency.text,
            faults=self.player.mix.text,
            seed=self.player.seed,
        )

    def flush_record(self) -> None:
        """What has ended is in the file of arrivals, where there is one. Raises OSError."""
        if self._record is not None:
            self._record.flush()

    def reset(self) -> None:
        """Forget arrivals, closed connections, occurrences and idempotency keys; rewind the
        script."""
        self.arrivals.reset()
        self.profile.reset()
        self.connections.reset()
        self.player.rewind()

    def check(self, faults: Iterable[Fault]) -> None:
        """Raises SpecError where a fault asks for a row that the profile does not have."""
        for fault in faults:
            if fault.kind == "row":
                self.profile.row(fault.form, _NOTHING, When(0.0))

    # -- up and down ---------------------------------------------------------------------------

    @property
    def is_down(self) -> bool:
        """Whether new connections are refused."""
        return self._listener is None

    def down(self, for_s: float | None = None, *, keep_connections: bool = False) -> None:
        """Refuse new connections, for a time or until ``up``, and reset those there are.

        Connections of the control endpoint stay: over them the sink can be told to come up.
        Raises OSError where the port cannot be kept in reserve.
        """
        self._cancel_up()
        if self._listener is not None:
            # The port stays bound by a socket that does not listen: connecting is refused, and
            # nobody else is given the port meanwhile (not even a client as its own source port,
            # which would then connect to itself). SO_REUSEPORT only for the change of hands, or
            # two sinks started on one port would share its connections.
            reserve = socket.socket(self._listener.family, socket.SOCK_STREAM)
            try:
                self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                reserve.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                reserve.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                reserve.bind(self._listener.getsockname())
                reserve.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
            except OSError:
                reserve.close()
                raise
            self._reserve = reserve
            self._close_listener()
        if not keep_connections:
            for connection in list(self.live):
                if not connection.is_admin:
                    connection.abort(reset=True)
        if for_s is not None:
            self._up_timer = self.loop.call_later(for_s, self.up)

    def up(self) -> None:
        """Listen again on the same port; nothing happens where it listens already."""
        self._cancel_up()
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            reserve.listen(_BACKLOG)  # from here on the kernel accepts; the loop follows
            self._listener = reserve
            self._opening = self.loop.create_task(self._listen(reserve))

    async def _listen(self, listener: socket.socket) -> None:
        self._listener = listener
        self._server = await self.loop.create_server(
            lambda: Connection(self), sock=listener, backlog=_BACKLOG
        )

    def _close_listener(self) -> None:
        if self._opening is not None:
            self._opening.cancel()  # done long ago, unless ``down`` follows at once on ``up``
            self._opening = None
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._listener is not None:
            # The server closed it, unless it was still being set up.
            if self._listener.fileno() >= 0:
                self.loop.remove_reader(self._listener)
                self._listener.close()
            self._listener = None

    def _close_reserve(self) -> None:
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None

    def _cancel_up(self) -> None:
        if self._up_timer is not None:
            self._up_timer.cancel()
            self._up_timer = None

    def _sweep_idle(self, idle_s: float) -> None:
        before_ns = time.monotonic_ns() - round(idle_s * 1e9)
        for connection in list(self.live):
            connection.close_if_idle(before_ns)
        self._idle_timer = self.loop.call_later(max(idle_s / 10, 0.01), self._sweep_idle, idle_s)

    def _on_failure(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Evidence with a hole in it is worse than none: the first failure stops the sink.
        loop.default_exception_handler(context)
        if self.failure is None:
            error = context.get("exception")
            message = str(context.get("message"))
            self.failure = error if isinstance(error, BaseException) else RuntimeError(message)
            if self._failed is not None:
                self._failed()
