"""Is this machine, and the configuration file on it, fit for a worker?"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from paceline.doctor.finding import CONFIGURATION, MACHINE, Finding, destination_group
from paceline.errors import ConfigError, ConfigProblem
from paceline.secrets_ import Secret
from paceline.settings import Destination, Settings
from paceline.webhook_key import MEND, webhook_key

#: Redis connections, logs, listeners, libraries.
_OTHER_FILES = 64


def configuration(source: Path | None, settings: Settings | None) -> Iterator[Finding]:
    """That there is one, and its warnings; its problems are told by ``problems``."""
    if source is None:
        yield Finding(
            CONFIGURATION,
            "file",
            "warn",
            "no configuration file: only what Redis knows was looked at",
            "Name it with --config or PACELINE_CONFIG",
        )
    if settings is None or source is None:
        return
    names = ", ".join(settings.destinations) or "none"
    yield Finding(CONFIGURATION, "file", "ok", f"{source} is right; destinations: {names}")
    for warning in settings.warnings:
        yield Finding(CONFIGURATION, "file", "warn", warning)
    written = [
        secret.key
        for destination in settings.destinations.values()
        for name, secret in secrets_of(destination)
        if secret.source == "value" and name not in ("username", "proxy_username")
    ]
    if written and others_may_read(source):
        yield Finding(
            CONFIGURATION,
            "secrets",
            "warn",
            f"{source} holds {', '.join(written)}, and every user of this machine may read it",
            f"chmod 600 {source}",
        )


def problems(source: str, found: Iterable[ConfigProblem]) -> list[Finding]:
    """All that is wrong in the file."""
    return [
        Finding(
            CONFIGURATION,
            "file",
            "fail",
            f"{source}: {problem.key + ': ' if problem.key else ''}{problem.problem}",
            problem.mend,
        )
        for problem in found
    ]


def secrets_of(destination: Destination) -> list[tuple[str, Secret]]:
    """(what it is, where it is)."""
    found = [("username", destination.username), ("password", destination.password)]
    found += [("api_key", destination.api_key)]
    found += [("proxy_username", destination.proxy_username)]
    found += [("proxy_password", destination.proxy_password)]
    keys: list[tuple[str, Secret | None]] = [
        (f"secrets[{n}]", secret) for n, secret in enumerate(destination.secrets)
    ]
    found += keys
    found += [(f"header {name}", secret) for name, secret in destination.headers.items()]
    return [(name, secret) for name, secret in found if secret is not None]


def secrets(destination: Destination, environ: Mapping[str, str]) -> Iterator[Finding]:
    """That each can be read; none is shown or kept."""
    group = destination_group(destination.name)
    readable = []
    for name, secret in secrets_of(destination):
        try:
            value = secret.reveal(environ)
        except ConfigError as error:
            for problem in error.problems:
                text = f"{problem.key}: {problem.problem}"
                mend = "Set it where the worker starts; doctor looked in its own environment"
                yield Finding(group, "secrets", "fail", text, mend)
            continue
        if secret in destination.secrets and (wrong := _key_problem(value)):
            yield Finding(group, "secrets", "fail", f"{secret.key}: {wrong}", MEND)
            continue
        readable.append(name)
        if secret.source == "file" and others_may_read(Path(secret.ref)):
            yield Finding(
                group,
                "secrets",
                "warn",
                f"{secret.key}: every user of this machine may read {secret.ref}",
                f"chmod 600 {secret.ref}",
            )
    if readable:
        yield Finding(group, "secrets", "ok", f"readable: {', '.join(readable)}")


def _key_problem(text: str) -> str | None:
    """What is wrong with a webhook's key; None where nothing is."""
    try:
        webhook_key(text)
    except ValueError as error:
        return str(error)
    return None


def others_may_read(path: Path) -> bool:
    """Whether its mode lets everybody read it."""
    try:
        return bool(path.stat().st_mode & 0o004)
    except OSError:
        return False


def open_files(destinations: Iterable[Destination], limit: int) -> Finding:
    """A worker has a connection to the provider and one to Redis for each sender thread."""
    most = max((d.effective_connections for d in destinations), default=0)
    need = 2 * most + _OTHER_FILES
    if limit < need:
        return Finding(
            MACHINE,
            "open files",
            "fail",
            f"at most {limit:,} here, and a worker with {most:,} connections needs {need:,}",
            "ulimit -n, or LimitNOFILE in its unit; or fewer connections",
        )
    return Finding(MACHINE, "open files", "ok", f"at most {limit:,}; a worker needs {need:,}")


def open_files_limit() -> int:
    """Of this process, which a worker started from the same place would share."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else soft
