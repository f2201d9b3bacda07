"""The Lua transitions as callables, and the connection that knows which Redis it reached.

A script's text is its own file with ``lib.lua`` in the place of the ``--@lib`` line (and so for the
others of PARTS): fixed texts, the same for all, never composed from values. Scripts are called by
hash, and sent whole once where the server does not know them (a restart without a script cache, a
fail-over).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, Protocol

import redis
from redis.exceptions import NoScriptError, ResponseError

Argument = str | bytes | int | float

#: Texts that scripts share, each put in the place of its ``--@name`` line; one may hold
#: others that come after it.
PARTS = (
    "lib",
    "events",
    "campaigns",
    "endpoints",
    "merged",
    "health",
    "tenants",
    "bucket",
    "walk",
    "wish",
    "wishes",
    "cancelling",
)

#: The function library's version: a daemon loads its own where the one present is lower, never
#: where it is higher (an older daemon in a rolling upgrade must not take a newer one back).
LIBRARY_VERSION = 7


@cache
def source(name: str) -> str:
    """The text of one transition as Redis gets it. Raises FileNotFoundError for an unknown name."""
    folder = resources.files("paceline") / "lua"
    text = (folder / f"{name}.lua").read_text(encoding="utf-8")
    for part in PARTS:
        if f"--@{part}\n" in text:
            library = (folder / f"{part}.lua").read_text(encoding="utf-8")
            text = text.replace(f"--@{part}\n", library, 1)
    return text


@cache
def sha1(name: str) -> str:
    """The hash by which Redis knows the script."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


class Caller(Protocol):
    """What can run a script: a client, or a pinned connection."""

    def execute_command(self, *args: Any) -> Any:
        """Sends one command and returns its reply."""


def run(
    caller: Caller,
    name: str,
    tag: str,
    arguments: Sequence[Argument],
    others: Sequence[str] = (),
) -> Any:
    """Runs one transition on the keys of ``tag``, and of ``others`` where it has to do with several
    destinations.

    Raises redis.exceptions.RedisError as the client does; it is not repeated here: whether a
    transition may be repeated is its caller's knowledge.
    """
    rest = (1 + len(others), tag, *others, *arguments)
    try:
        return caller.execute_command("EVALSHA", sha1(name), *rest)
    except NoScriptError:
        return caller.execute_command("EVAL", source(name), *rest)


def run_reading(caller: Caller, name: str, tag: str, arguments: Sequence[Argument]) -> Any:
    """As ``run``, for a script that writes nothing: who may only read may run it."""
    rest = (1, tag, *arguments)
    try:
        return caller.execute_command("EVALSHA_RO", sha1(name), *rest)
    except NoScriptError:
        return caller.execute_command("EVAL_RO", source(name), *rest)


def run_together(
    pinned: Pinned, tag: str, calls: Sequence[tuple[str, Sequence[Argument]]]
) -> list[Any]:
    """Runs transitions (name, arguments) one after the other, sent in one write.

    An error reply stands in its place as the exception; the others are carried out all the same.
    Raises ConnectionError and TimeoutError: then any of them may have been carried out.
    """
    replies = pinned.execute_many(
        [("EVALSHA", sha1(name), 1, tag, *arguments) for name, arguments in calls]
    )
    for place, reply in enumerate(replies):
        if isinstance(reply, NoScriptError):
            name, arguments = calls[place]
            try:
                replies[place] = pinned.execute_command("EVAL", source(name), 1, tag, *arguments)
            except ResponseError as error:
                replies[place] = error
    return replies


def load_library(client: Caller) -> bool:
    """Loads the function library where it is missing or older. True if it was loaded."""
    try:
        present = int(client.execute_command("FCALL_RO", "paceline_version", 0))
    except ResponseError as error:
        if "unction not found" not in str(error):
            raise
        present = 0
    if present >= LIBRARY_VERSION:
        return False
    client.execute_command("FUNCTION", "LOAD", "REPLACE", source("enqueue"))
    return True


def own_connection(client: redis.Redis) -> Any:
    """A connection like those of the client's pool, and none of them; not connected yet.

    The pool's ``make_connection`` counts what it made against its limit (100 in redis-py 8), and
    never hears that it is gone.
    """
    pool: Any = client.connection_pool
    return pool.connection_class(**pool.connection_kwargs)


class Pinned:
    """One connection of its own, which never reconnects under a command.

    ``run_id`` names the server process that the connection reached. A pooled client reconnects
    silently with arguments packed before; the gate must know that it speaks to the Redis it
    believes it speaks to, or a restarted one would be given the level of the old one's bucket.
    One thread at a time. Raises redis.exceptions.ConnectionError and TimeoutError as they come; the
    next call connects anew.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._connection = own_connection(client)
        self.run_id = ""

    def ready(self) -> str:
        """Connects if needed; returns the server's run_id."""
        if not self._connection.is_connected:
            self._connection.connect()
            try:
                self._connection.send_command("INFO", "server")
                self.run_id = _run_id(self._connection.read_response())
            except BaseException:
                # Not half-way: connected to a new Redis, with the run_id of the old one.
                self.close()
                raise
        return self.run_id

    def current_run_id(self) -> str:
        """The run_id, after a round trip: a connection that lay idle may be dead."""
        self.execute_command("PING")
        return self.run_id

    def execute_command(self, *args: Any) -> Any:
        """Sends one command on this very connection; a broken one is closed, not replaced."""
        self.ready()
        try:
            self._connection.send_command(*args, check_health=False)
            return self._connection.read_response()
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
            self.close()
            raise

    def execute_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Sends commands in one write and reads their replies; an error reply is in its place."""
        self.ready()
        replies: list[Any] = []
        try:
            self._connection.send_packed_command(
                self._connection.pack_commands(commands), check_health=False
            )
            for _ in commands:
                try:
                    replies.append(self._connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
            self.close()
            raise
        return replies

    def close(self) -> None:
        """Closes the connection; the next call opens another."""
        self._connection.disconnect()


def _run_id(info: bytes | str) -> str:
    text = info.decode() if isinstance(info, bytes) else str(info)
    for line in text.splitlines():
        if line.startswith("run_id:"):
            return line.partition(":")[2].strip()
    return ""
