"""``paceline acl``: users for Redis's ACL file."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from paceline.cli.common import Setup, need_destinations, setup_options
from paceline.errors import ConfigError, ConfigProblem, UnknownDestination
from paceline.rights import ROLES, acl_lines, hash_of

_PASSWORD_BYTES = 32


@click.command(
    epilog="""\b
Examples:
  paceline acl --passwords secrets --make > users.acl    all roles, for all destinations
  paceline acl --role producer --destination partner --user shop --passwords secrets --make

Without --passwords all users are off. The lines go into the file that `aclfile` of Redis names; the
first shuts out the default user, who needs no password. Redis takes no file that names a user
twice: leave that line out where it stands already. A process logs in by its URL, best by
PACELINE_REDIS_URL, as redis://worker:PASSWORD@host:6379/0, or by username and password in [redis].
docs/threat-model.md tells what each may do."""
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(list(ROLES)),
    help="Only these; may be repeated.  [default: all]",
)
@click.option(
    "--destination",
    "names",
    multiple=True,
    metavar="DEST",
    help="Rights on these only; may be repeated.  [default: all that are configured]",
)
@click.option("--user", metavar="NAME", help="Another name than that of the (one) role.")
@click.option(
    "--passwords",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of a file for each user, named after it: its password, or # and its SHA-256.",
)
@click.option("--make", is_flag=True, help="Make up passwords that the folder lacks (mode 600).")
@setup_options
def acl(
    setup: Setup,
    roles: tuple[str, ...],
    names: tuple[str, ...],
    user: str | None,
    folder: Path | None,
    make: bool,
) -> int:
    """Print users for Redis's ACL file, each with the least rights."""
    need_destinations(setup)
    configured = setup.settings.destinations
    for name in names:
        if name not in configured:
            raise UnknownDestination(name, configured)
    if user is not None and len(roles) != 1:
        raise click.UsageError("--user renames one: give one --role with it")
    if make and folder is None:
        raise click.UsageError("--make makes passwords in a folder: give --passwords")
    users = [(role if user is None else user, role) for role in roles or ROLES]
    hashes = {} if folder is None else _hashes(folder, [name for name, _ in users], make=make)
    try:
        lines = acl_lines(users, names or list(configured), hashes)
    except ValueError as error:
        raise click.UsageError(f"--user: {error}") from error
    for line in lines:
        click.echo(line)
    return 0


def _hashes(folder: Path, users: list[str], *, make: bool) -> dict[str, str]:
    """Raises ConfigError, naming every file that is missing, empty or cannot be read."""
    problems: list[ConfigProblem] = []
    found: dict[str, str] = {}
    if make:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            mend = "Name one with --passwords that is there or can be made"
            problem = ConfigProblem("the folder", f"cannot be made: {error.strerror}", mend)
            raise ConfigError([problem], source=str(folder)) from error
    for user in users:
        at = folder / user
        try:
            if make and not at.exists():
                _make(at)
            password = at.read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "is no UTF-8"
            problems.append(_problem(at, str(why)))
            continue
        if not password:
            problems.append(_problem(at, "is empty"))
            continue
        if password.startswith("#") and hash_of(password) != password:
            # Taken for a password it would let nobody in who has the one that was hashed.
            problems.append(_problem(at, "begins with # and is no SHA-256 of 64 digits 0-9 a-f"))
            continue
        found[user] = hash_of(password)
    if problems:
        raise ConfigError(problems, source=str(folder))
    return found


def _make(at: Path) -> None:
    # Made with its mode: nobody may read it in the moment before it is changed.
    handle = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(secrets.token_urlsafe(_PASSWORD_BYTES) + "\n")


def _problem(at: Path, why: str) -> ConfigProblem:
    made = "give --make" if not at.exists() else "remove the file and give --make"
    mend = f"Write it there, leave the role out, or {made}"
    return ConfigProblem(f"the password in {at}", why, mend)
