"""What every command needs: configuration, Redis, destinations, output, logs."""

from __future__ import annotations

import functools
import getpass
import json
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import redis
import redis.exceptions

from paceline import logs
from paceline.connect import connect
from paceline.embedded import attached_url
from paceline.errors import (
    ConfigError,
    ConfigProblem,
    PacelineError,
    RedisUnavailable,
    UnknownDestination,
)
from paceline.hidden import hide_secrets_of
from paceline.log_veil import url_password
from paceline.outbox import OutboxStore, known_destinations
from paceline.redis_url import completed
from paceline.settings import Destination, RedisSettings, Settings
from paceline.settings_file import load

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_CONFIG = "paceline.toml"
DEFAULT_DATA = ".paceline"
_REDIS_MEND = "Check that it runs, and [redis] url or PACELINE_REDIS_URL"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Setup:
    """The configuration as this command found it. ``settings`` is empty without a file."""

    settings: Settings
    source: Path | None
    data: Path

    @property
    def redis_url(self) -> str | None:
        """The Redis of the environment or file; None means the embedded server."""
        return self.settings.redis.url

    def destination(self, name: str) -> Destination:
        """Raises UnknownDestination, naming those that are configured."""
        found = self.settings.destinations.get(name)
        if found is None:
            raise UnknownDestination(name, self.settings.destinations)
        return found


def path_options(command: F) -> F:
    """Adds --config and --data, as ``config_path`` and ``data``."""
    config = click.option(
        "--config",
        "config_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Configuration file.  [default: PACELINE_CONFIG, or ./paceline.toml]",
    )
    folder = click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_DATA,
        show_default=True,
        help="Folder of the embedded server, used where no Redis URL is given.",
    )
    return config(folder(command))


def setup_options(command: F) -> F:
    """Adds --config and --data, and passes a Setup as ``setup``."""

    @path_options
    @functools.wraps(command)
    def wrapped(*args: Any, config_path: Path | None, data: Path, **kwargs: Any) -> Any:
        return command(*args, setup=read_setup(config_path, data), **kwargs)

    return wrapped  # type: ignore[return-value]


def config_path_of(path: Path | None) -> Path | None:
    """The configuration file that is meant, None where there is none."""
    named = path or (Path(p) if (p := os.environ.get("PACELINE_CONFIG")) else None)
    if named is None and Path(DEFAULT_CONFIG).exists():
        named = Path(DEFAULT_CONFIG)
    return named


def _tell(warning: str) -> None:
    click.echo(f"paceline: {warning}", err=True)


def read_setup(path: Path | None, data: Path, tell: Callable[[str], object] = _tell) -> Setup:
    """Reads the configuration; its warnings are told. Raises ConfigError."""
    named = config_path_of(path)
    settings = load(named) if named else Settings(redis=RedisSettings(), destinations={})
    for warning in settings.warnings:
        tell(f"{named}: {warning}")
    url = os.environ.get("PACELINE_REDIS_URL")
    if url:
        settings = replace(settings, redis=replace(settings.redis, url=url))
    return Setup(replace(settings, redis=complete_redis(settings.redis, named)), named, data)


def complete_redis(given: RedisSettings, source: Path | None) -> RedisSettings:
    """With login and TLS in its URL, which every client is built from. Raises ConfigError."""
    if given.url is None:
        return given
    problems: list[ConfigProblem] = []
    url = completed(
        given.url,
        problems,
        username=given.username,
        password=None if given.password is None else given.password.reveal(os.environ),
        ca_file=given.ca_file,
        cert_file=given.cert_file,
        key_file=given.key_file,
    )
    if problems:
        raise ConfigError(problems, source=str(source or "configuration"))
    return replace(given, url=url)


def need_destinations(setup: Setup) -> None:
    """Raises ConfigError where there is no destination to work for."""
    if not setup.settings.destinations:
        raise ConfigError(
            [
                ConfigProblem(
                    "destinations",
                    "none is configured",
                    "Add a [destinations.NAME] table, or name the file with --config",
                )
            ],
            source=str(setup.source or "no configuration file"),
        )


def need_redis_url(setup: Setup) -> str:
    """The URL that is configured, or of the embedded server that runs. Raises RedisUnavailable."""
    url = setup.redis_url or attached_url(setup.data)
    if url is None:
        raise RedisUnavailable(
            f"no Redis URL is given, and no embedded server runs in {setup.data}",
            "Set [redis] url or PACELINE_REDIS_URL, or start it with: paceline up",
        )
    return url


def open_client(setup: Setup, *, name: str = "paceline-cli", repeats: int = 0) -> redis.Redis:
    """A client that answered a PING. Raises RedisUnavailable, ConfigError."""
    client = connect(need_redis_url(setup), name=name, repeats=repeats)
    with redis_errors():
        client.ping()
    return client


@contextmanager
def redis_errors() -> Iterator[None]:
    """redis-py's errors as ours."""
    try:
        yield
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise RedisUnavailable(str(error), _REDIS_MEND) from error
    except redis.exceptions.RedisError as error:
        raise PacelineError(f"Redis refused: {error}", "Check its version and rights") from error


def pick_stores(client: redis.Redis, names: tuple[str, ...]) -> list[OutboxStore]:
    """The outboxes of the named destinations, or of all that this Redis knows.

    Raises UnknownDestination.
    """
    known = known_destinations(client)
    for name in names:
        if name not in known:
            raise UnknownDestination(name, known)
    return [OutboxStore(client, name) for name in (dict.fromkeys(names) or known)]


def json_option(command: F) -> F:
    """Adds --json as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C as a question, asked between two steps: ``was_asked()``. The second one interrupts.

    Raised in the middle it may fall into a destructor, where Python swallows it, or between a
    command and its answer, where it leaves a doubt for nothing.
    """
    asked = False

    def note(signum: int, _: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signum, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def start_logging(setup: Setup, *, verbose: bool = False) -> None:
    """One JSON line an event, on stderr, without the secrets that this process has in memory."""
    url = setup.redis_url
    password = url and url_password(url)
    if password:
        logs.veil().hide(password)
    hide_secrets(setup)
    logs.start(sys.stderr, logging.DEBUG if verbose else logging.INFO)


def hide_secrets(setup: Setup) -> None:
    """Those that the file itself holds are not shown in the logs from here on."""
    for destination in setup.settings.destinations.values():
        hide_secrets_of(logs.veil(), destination, {}, ("value",))


def log_as_worker(destination: Destination, worker: str, environ: Mapping[str, str]) -> None:
    """From here on the logs are this worker's, which has its destination's secrets revealed."""
    hide_secrets_of(logs.veil(), destination, environ)
    logs.identify(destination=destination.name, worker=worker)


def redis_option(command: F) -> F:
    """As ``setup_options``, but passes an open ``client``; redis-py's errors become ours."""

    @functools.wraps(command)
    def wrapped(*args: Any, setup: Setup, **kwargs: Any) -> Any:
        client = open_client(setup)
        try:
            with redis_errors():
                return command(*args, client=client, **kwargs)
        finally:
            client.close()

    return setup_options(wrapped)  # type: ignore[return-value]


class _Duration(click.ParamType[float]):
    """``90s``, ``10m``, ``2h``, ``1d``, ``1h30m`` as seconds."""

    name = "duration"
    _WHOLE = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
    _PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
    _UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # noqa: RUF012 - never changed
    _MOST_S = 3650 * 86400.0

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        if not self._WHOLE.fullmatch(text):
            self.fail(f"{text!r} is no duration. Write 90s, 10m, 2h, 1d or 1h30m", param, ctx)
        seconds = sum(float(n) * self._UNITS[unit] for n, unit in self._PART.findall(text))
        if not 0 < seconds <= self._MOST_S:
            self.fail(f"{text!r} is not between 0 and 3650d", param, ctx)
        return seconds


DURATION = _Duration()


def who() -> str:
    """user@host, recorded with what an operator does."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no name for this uid, as in many containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def on_terminal(*, as_json: bool) -> bool:
    """Whether a person watches stderr: then progress is shown there."""
    return not as_json and sys.stderr.isatty()


@contextmanager
def progress(label: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; yields what moves it on by n. ``shown`` False: nothing."""
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(label, total=max(1, total))
        yield lambda n: bar.advance(task, n)


def console() -> Console:
    """Where tables go: stdout, at the terminal's width; elsewhere wide enough not to cut."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)
