"""Commands that run: up, daemon, scheduler, exporter, worker."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import redis
import redis.exceptions

from paceline.allocator import use_one_arena
from paceline.cli.common import (
    Setup,
    hide_secrets,
    log_as_worker,
    need_destinations,
    redis_errors,
    setup_options,
    start_logging,
)
from paceline.cli.hangup import Hangup
from paceline.connect import connect
from paceline.embedded import EmbeddedServer, EmbeddedServerError, attached_url
from paceline.errors import ConfigError, ConfigProblem, RedisUnavailable, UnknownDestination
from paceline.exporter.server import AddressTaken, MetricsServer
from paceline.listen import MEND as LISTEN_MEND
from paceline.listen import Listen, parse_listen
from paceline.reloading import check_destination
from paceline.service import DaemonService, Part
from paceline.settings import Destination
from paceline.supervisor import PARENT_VARIABLE, Child, Supervisor, watch_parent

if TYPE_CHECKING:
    from paceline.exporter.service import Exporter

F = TypeVar("F", bound=Callable[..., Any])

#: By name: this package does not import the workers'.
WORKER_RUNTIME = ("paceline_workers.runtime", "WorkerRuntime")

_DAEMON_GRACE_S = 15.0
_LOOK_S, _AGAIN_S, _ORPHANS_S = 0.5, 5.0, 5.0

log = logging.getLogger("paceline.up")


def _verbose(command: F) -> F:
    return click.option("-v", "--verbose", is_flag=True, help="Log more.")(command)


def _wait_option(command: F) -> F:
    return click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(min=0),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait at the start for Redis.",
    )(command)


def _listen_option(command: F) -> F:
    return click.option(
        "--listen",
        envvar="PACELINE_EXPORTER_LISTEN",
        metavar="HOST:PORT|off",
        help="Where the metrics are.  [env: PACELINE_EXPORTER_LISTEN]  "
        "[default: [exporter] listen, or 127.0.0.1:9108]",
    )(command)


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Worker processes for each destination.",
)
@_listen_option
@_verbose
@setup_options
def up(setup: Setup, workers: int, listen: str | None, verbose: bool) -> int:
    """Run everything on this machine: daemon, workers, and Redis if none is configured.

    Ctrl-C or SIGTERM stops in order: workers finish what is on the wire, then the daemon, then the
    embedded server. A process that ends is started again. SIGHUP: configuration and secrets are
    read again, by all of them.
    """
    start_logging(setup, verbose=verbose)
    need_destinations(setup)
    where = _where(setup, listen)
    if where is not None and where.named:
        # Here and not in the daemon, which would end and be started again for ever.
        _await_address(where)
    server = None
    url = setup.redis_url
    if url is None:
        server = EmbeddedServer(setup.data, appendfsync=setup.settings.redis.appendfsync)
        url = server.start()
    base = [sys.executable, "-m", "paceline"]
    config = ["--config", str(setup.source)]
    groups = [
        [
            Child(
                f"worker {name} {number + 1}",
                [*base, "worker", name, *config],
                _stop_s(destination) + 5.0,
                about=name,
            )
            for name, destination in setup.settings.destinations.items()
            for number in range(workers)
        ],
        [Child("daemon", [*base, "daemon", *config, *_passed_on(where)], _DAEMON_GRACE_S)],
    ]
    supervisor = Supervisor(groups, {**os.environ, "PACELINE_REDIS_URL": url})
    _on_signals(supervisor.stopping.set)
    hangup = Hangup(setup, supervisor.stopping.set)
    hangup.serve(lambda fresh: _pass_on(setup, fresh, supervisor))
    try:
        if server is not None:
            _keep_alive(server, supervisor.stopping)
        supervisor.run()
    finally:
        if server is not None:
            server.stop()
    return 0


def _await_address(where: Listen) -> None:
    """Of an ``up`` that was killed the daemon lives on for a moment, and listens. Raises
    AddressTaken."""
    end = time.monotonic() + _ORPHANS_S
    while True:
        try:
            MetricsServer(where, {}).stop()
            return
        except AddressTaken:
            if time.monotonic() > end:
                raise
        time.sleep(_LOOK_S)


def _pass_on(setup: Setup, fresh: Setup, supervisor: Supervisor) -> str:
    """Children read the file themselves; one that is of no use is refused here, once."""
    before, now = setup.settings.destinations, fresh.settings.destinations
    if before.keys() != now.keys():
        names = ", ".join(sorted(before.keys() ^ now.keys()))
        mend = "Take it back, or restart: workers are started for each destination at the start"
        why = f"{names}: came or went, which needs a restart"
        raise ConfigError([ConfigProblem("destinations", why, mend)], source=str(fresh.source))
    for name, destination in now.items():
        check_destination(before[name], destination)
    for child in supervisor.children:
        if child.about:
            child.grace_s = _stop_s(now[child.about]) + 5.0
    return f"passed on to {supervisor.send(signal.SIGHUP)} processes"


def _keep_alive(server: EmbeddedServer, stopping: threading.Event) -> None:
    """Starts the embedded server again, on its port and data, whenever it has ended: a thread."""

    def keep() -> None:
        while not stopping.wait(_LOOK_S):
            if server.alive:
                continue
            log.warning(
                "the embedded server has ended: starting it again", extra={"event": "redis_away"}
            )
            try:
                server.start()
            except (EmbeddedServerError, OSError) as error:  # a full disk, say
                log.error("%s", error)
                stopping.wait(_AGAIN_S)

    threading.Thread(target=keep, name="embedded", daemon=True).start()


def _stop_s(destination: Destination) -> float:
    return destination.connect_timeout_s + destination.total_timeout_s + 10.0


@click.command(
    epilog="""\b
Examples:
  paceline daemon --config paceline.toml
  paceline daemon --listen 0.0.0.0:9108    metrics for Prometheus on another machine
  paceline daemon --listen off             none; paceline exporter runs elsewhere

It answers http://127.0.0.1:9108/metrics, /healthz and /readyz. Where the address was named and is
taken, the exit code is 2; where it is the default and taken, it is tried again until it is free."""
)
@_listen_option
@_wait_option
@_verbose
@setup_options
def daemon(setup: Setup, listen: str | None, wait_s: float, verbose: bool) -> int:
    """Run scheduler, reaper and exporter of all destinations.

    Several daemons may run at once. SIGHUP: the configuration is read again.
    """
    where = _where(setup, listen)
    # Under a supervisor sending must not end, now or at the next start, for the metrics' sake.
    insist = where is not None and where.named and PARENT_VARIABLE not in os.environ
    return _serve(setup, ("scheduler", "reaper"), wait_s, verbose, where, insist=insist)


@click.command(
    epilog="""\b
Examples:
  paceline exporter --config paceline.toml
  PACELINE_REDIS_URL=redis://10.0.0.5/0 paceline exporter --listen 0.0.0.0:9108

It answers /metrics, /healthz and /readyz, and shows every destination that this Redis knows. It
needs no Redis to start. Where the address is taken, the exit code is 2."""
)
@_listen_option
@_verbose
@setup_options
def exporter(setup: Setup, listen: str | None, verbose: bool) -> int:
    """Serve the metrics alone, for Prometheus.

    The daemon serves them too: this is for a machine on which none runs.
    """
    start_logging(setup, verbose=verbose)
    where = _where(setup, listen)
    if where is None:
        raise click.UsageError("nothing to do: the exporter is off ([exporter] listen, --listen)")
    service = _exporter(setup, where, insist=True)
    stopping = threading.Event()
    _on_signals(stopping.set)
    Hangup(setup, stopping.set).serve(lambda _: "nothing that the exporter lives by can change")
    watch_parent(os.environ, stopping)
    service.start()
    stopping.wait()
    service.stop()
    return 0


def _where(setup: Setup, text: str | None) -> Listen | None:
    """Where the metrics are to be; None for nowhere. Raises ConfigError."""
    if text is None:
        return setup.settings.exporter.listen
    try:
        return parse_listen(text)
    except ValueError as error:
        raise ConfigError(
            [ConfigProblem("--listen", str(error), LISTEN_MEND)], source="command line"
        ) from error


def _passed_on(where: Listen | None) -> list[str]:
    """The option for a child, which must not read another file or environment than we did."""
    if where is not None and not where.named:
        return []
    return ["--listen", "off" if where is None else str(where)]


def _exporter(setup: Setup, where: Listen, *, insist: bool) -> Exporter:
    # Not at import: a worker is started by this module too, and needs none of it.
    from paceline.exporter.service import Exporter

    # A client of its own, with short time-outs: a scrape of a Redis that is away must end soon.
    client = connect(_url(setup), name="paceline-exporter", timeout_s=1.0, connect_timeout_s=0.8)
    return Exporter(client, where, insist=insist)


@click.command()
@_wait_option
@_verbose
@setup_options
def scheduler(setup: Setup, wait_s: float, verbose: bool) -> int:
    """Run the scheduler alone, of all destinations; a daemon must run elsewhere, for the reaper."""
    return _serve(setup, ("scheduler",), wait_s, verbose)


def _serve(
    setup: Setup,
    parts: tuple[Part, ...],
    wait_s: float,
    verbose: bool,
    where: Listen | None = None,
    *,
    insist: bool = False,
) -> int:
    start_logging(setup, verbose=verbose)
    need_destinations(setup)
    client = connect(_url(setup), name="paceline-daemon")
    metrics = None if where is None else _exporter(setup, where, insist=insist)
    settings = setup.settings
    service = DaemonService(
        client, list(settings.destinations.values()), parts, metrics, settings.redis.limits
    )
    service.expose()
    _on_signals(service.stopping.set)
    hangup = Hangup(setup, service.stopping.set)
    watch_parent(os.environ, service.stopping)
    _until_redis(client, wait_s, service.stopping)
    if not service.stopping.is_set():
        with redis_errors():
            service.start()
        hangup.serve(lambda fresh: _reload_service(fresh, service))
        service.stopping.wait()
    service.stop()
    client.close()
    return 0


def _reload_service(fresh: Setup, service: DaemonService) -> str:
    need_destinations(fresh)
    hide_secrets(fresh)
    settings = fresh.settings
    return service.reload(list(settings.destinations.values()), settings.redis.limits)


@click.command()
@click.argument("destination", required=False)
@click.option("--name", help="Name of this worker, unique among live ones.  [default: made up]")
@click.option(
    "--trace-wire",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Append a line for each request as its first byte leaves: CLOCK_MONOTONIC in ns, "
    "connection, id.",
)
@_wait_option
@_verbose
@setup_options
def worker(
    setup: Setup,
    destination: str | None,
    name: str | None,
    trace_wire: Path | None,
    wait_s: float,
    verbose: bool,
) -> int:
    """Run one worker process for DESTINATION (which may be left out where there is only one).

    SIGTERM: takes no more, finishes what is on the wire, gives the rest back untouched. SIGHUP:
    reads configuration and secrets again.
    """
    use_one_arena(os.environ)
    start_logging(setup, verbose=verbose)
    need_destinations(setup)
    chosen = _the_destination(setup, destination)
    runtime_class = getattr(importlib.import_module(WORKER_RUNTIME[0]), WORKER_RUNTIME[1])
    url = _url(setup)
    runtime = runtime_class(chosen, url, os.environ, name=name, trace_wire=trace_wire)
    log_as_worker(chosen, runtime.name, os.environ)
    _on_signals(runtime.stop)

    def reload(fresh: Setup) -> str:
        found = fresh.destination(chosen.name)
        log_as_worker(found, runtime.name, os.environ)
        return str(runtime.reload(found))

    Hangup(setup, runtime.stop).serve(reload)
    watch_parent(os.environ, runtime.stopping)
    client = connect(url, name="paceline-worker-start")
    _until_redis(client, wait_s, runtime.stopping)
    client.close()
    if runtime.stopping.is_set():
        return 0
    with redis_errors():
        return 1 if runtime.run() else 0


def _the_destination(setup: Setup, name: str | None) -> Destination:
    names = list(setup.settings.destinations)
    if name is None:
        if len(names) != 1:
            raise click.UsageError(
                f"name the destination: this configuration has {', '.join(names)}"
            )
        name = names[0]
    if name not in names:
        raise UnknownDestination(name, names)
    return setup.destination(name)


def _url(setup: Setup) -> str:
    url = setup.redis_url or attached_url(setup.data)
    if url is None:
        raise RedisUnavailable(
            f"no Redis URL is given, and no embedded server runs in {setup.data}",
            "Set [redis] url or PACELINE_REDIS_URL, or run: paceline up",
        )
    return url


def _until_redis(client: redis.Redis, wait_s: float, stopping: threading.Event) -> None:
    """Returns when Redis answers. Raises RedisUnavailable when it did not within ``wait_s``."""
    end = time.monotonic() + wait_s
    while not stopping.is_set():
        try:
            client.ping()
            return
        except redis.exceptions.RedisError as error:
            if time.monotonic() >= end:
                raise RedisUnavailable(str(error)) from error
            stopping.wait(0.25)


def _on_signals(stop: Callable[[], None]) -> None:
    """SIGTERM and SIGINT ask for an orderly stop; the second one ends at once."""

    def handle(signum: int, _: object) -> None:
        signal.signal(signum, signal.SIG_DFL)
        # Not here: an Event cannot be set by a handler that interrupted its own thread's wait.
        threading.Thread(target=stop, name="stop", daemon=True).start()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
