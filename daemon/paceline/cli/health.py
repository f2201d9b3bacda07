"""``paceline health``: what a supervisor asks every few seconds. Exit code 0 or 1, one line why.

Light on purpose: one script call a destination for workers, one HTTP request for the daemon. Any
trouble is 1, also a wrong configuration: container engines know no other "unhealthy".
"""

from __future__ import annotations

import functools
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import click
import redis

from paceline.census import WorkerSeen
from paceline.cli.common import Setup, redis_errors, setup_options
from paceline.connect import connect
from paceline.embedded import attached_url
from paceline.errors import PacelineError, RedisUnavailable, UnknownDestination
from paceline.host import machine
from paceline.listen import MEND as LISTEN_MEND
from paceline.listen import Listen, parse_listen
from paceline.outbox import OutboxStore

F = TypeVar("F", bound=Callable[..., Any])

EXIT_UNWELL = 1
#: Supervisors give a check some seconds: a dead Redis must be told within them.
_TIMEOUT_S = 2.0
#: A few hundred bytes are expected; more is not our exporter's.
_MOST_BYTES = 4096


def _one_line(command: F) -> F:
    """Prints what the check says, or what stopped it, and makes the exit code of it."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> int:
        try:
            click.echo(command(*args, **kwargs))
        except PacelineError as error:
            click.echo(f"paceline health: {error}", err=True)
            return EXIT_UNWELL
        return 0

    return wrapped  # type: ignore[return-value]


@click.group(
    epilog="""\b
Examples:
  paceline health daemon
  paceline health worker maxmd"""
)
def health() -> None:
    """Whether this machine's worker or daemon is well: exit code 0 or 1, and why."""


@health.command(
    short_help="Whether a worker of this machine is live.",
    epilog="""\b
Examples:
  paceline health worker               any worker of this machine or container
  paceline health worker maxmd         one of this destination
  paceline health worker --pid 4711    that process""",
)
@click.argument("destination", required=False)
@click.option("--pid", type=click.IntRange(1), help="The process that must be the worker.")
@_one_line
@setup_options
def worker(setup: Setup, destination: str | None, pid: int | None) -> str:
    """Whether a worker of this machine (or container) has a live lease in Redis."""
    configured = setup.settings.destinations
    if destination is not None and destination not in configured:
        raise UnknownDestination(destination, configured)
    client = _client(setup)
    try:
        with redis_errors():
            seen = [
                worker
                for name in ([destination] if destination else configured)
                for worker in OutboxStore(client, name).census().workers
            ]
    finally:
        client.close()
    return judge_workers(seen, pid=pid, space=machine(), host=socket.gethostname())


def judge_workers(seen: Iterable[WorkerSeen], *, pid: int | None, space: str, host: str) -> str:
    """What is well about the workers of this machine. Raises PacelineError where nothing is.

    ``space`` names this machine's process ids, "" where the platform does not tell; then the
    ``host`` name decides.
    """
    ours = [w for w in seen if _is_here(w, space, host) and pid in (None, w.facts.get("pid"))]
    live = [w for w in ours if w.live]
    if live:
        return f"{live[0].id} is live, with {live[0].slots} connections"
    which = f"process {pid}" if pid is not None else f"a worker on {host}"
    if ours:
        late = min(-w.lease_left_s for w in ours)
        raise PacelineError(
            f"{which} is registered, but its lease lapsed {late:.0f} s ago: it is frozen, starved "
            "or cut off from Redis",
            "Look at its logs; restart it if it does not come back",
        )
    raise PacelineError(f"{which} is not registered in Redis", "Look at its logs")


def _is_here(worker: WorkerSeen, space: str, host: str) -> bool:
    if space:
        return worker.facts.get("machine") == space
    return worker.facts.get("host") == host


@health.command(
    short_help="Whether the daemon of this machine is well.",
    epilog="""\b
Examples:
  paceline health daemon
  paceline health daemon --address 127.0.0.1:9108""",
)
@click.option(
    "--address",
    envvar="PACELINE_EXPORTER_LISTEN",
    metavar="HOST:PORT|off",
    help="Of its exporter.  [env: PACELINE_EXPORTER_LISTEN]  [default: [exporter] listen]",
)
@_one_line
@setup_options
def daemon(setup: Setup, address: str | None) -> str:
    """Whether the daemon's loops run, as its exporter on this machine says.

    Where the exporter is switched off, whether any daemon is live in Redis.
    """
    where = _given(address) if address else setup.settings.exporter.listen
    return ask(f"http://{reached_at(where)}/healthz") if where else _live_daemons(setup)


def _given(address: str) -> Listen | None:
    try:
        return parse_listen(address)
    except ValueError as error:
        raise PacelineError(f"--address: {error}", LISTEN_MEND) from error


def reached_at(where: Listen) -> Listen:
    """Where a listener of this machine is reached: "all addresses" is none to connect to."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nosec B104
    return replace(where, host=loopback.get(where.host, where.host))


def ask(url: str) -> str:
    """The first line of a good answer. Raises PacelineError for any other."""
    # A proxy of the environment is not for what runs on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as reply:
            return _first_line(reply.read(_MOST_BYTES)) or "ok"
    except urllib.error.HTTPError as error:
        said = _first_line(error.read(_MOST_BYTES)) or error.reason
        raise PacelineError(f"{url} answers {error.code}: {said}", "Look at its logs") from error
    except OSError as error:
        why = getattr(error, "reason", error)
        raise PacelineError(
            f"{url} does not answer: {why}", "Is the daemon running, with this configuration?"
        ) from error


def _first_line(body: bytes) -> str:
    return body.decode("utf-8", "replace").strip().partition("\n")[0]


def _live_daemons(setup: Setup) -> str:
    client = _client(setup)
    try:
        with redis_errors():
            found = {
                d: OutboxStore(client, d).census().daemons for d in setup.settings.destinations
            }
    finally:
        client.close()
    lacking = [name for name, count in found.items() if not count]
    if lacking or not found:
        names = ", ".join(lacking) or "any destination"
        raise PacelineError(f"no daemon is live for {names}", "Start it: paceline daemon")
    return "the exporter is off; in Redis a daemon is live for every destination"


def _client(setup: Setup) -> redis.Redis:
    url = setup.redis_url or attached_url(setup.data)
    if url is None:
        raise RedisUnavailable(
            f"no Redis URL is given, and no embedded server runs in {setup.data}",
            "Set [redis] url or PACELINE_REDIS_URL",
        )
    return connect(url, name="paceline-health", timeout_s=_TIMEOUT_S, connect_timeout_s=_TIMEOUT_S)
