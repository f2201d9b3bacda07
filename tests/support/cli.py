"""The command line as its users run it: a process of its own, against a real Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from click.testing import CliRunner

from paceline.answers import Action, Settlement
from paceline.cli import run
from paceline.message import build
from paceline.outbox import OutboxStore, new_nonce
from paceline.scripts import load_library
from paceline.settings import Destination
from paceline.shared_config import publish


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output as JSON."""
        return json.loads(self.out)


class Cli:
    """Runs ``paceline …`` in a folder, against one Redis."""

    def __init__(self, url: str | None, folder: Path) -> None:
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("PACELINE_")}
        if url is not None:
            self.env["PACELINE_REDIS_URL"] = url

    def __call__(self, *args: str, stdin: str | bytes = b"") -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            self.command(*args),
            input=data,
            capture_output=True,
            cwd=self.folder,
            env=self.env,
            timeout=120,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """Starts it and does not wait."""
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            self.command(*args), cwd=self.folder, env=self.env, **{**given, **options}
        )

    @staticmethod
    def command(*args: str) -> list[str]:
        """The command line itself."""
        return [sys.executable, "-m", "paceline", *args]

    def lines(self, *lines: str | dict[str, Any], name: str = "messages.jsonl") -> str:
        """Writes a JSON Lines file; returns its name."""
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (self.folder / name).write_text("".join(text + "\n" for text in texts), encoding="utf-8")
        return name


class CliHere:
    """The same in this process, which is faster: no signals, no terminal, no streams of bytes."""

    def __init__(self, url: str, config: Path) -> None:
        self._env = {"PACELINE_REDIS_URL": url, "PACELINE_CONFIG": str(config)}

    def __call__(self, *args: str, stdin: str = "") -> Result:
        before = sys.argv
        sys.argv = ["paceline", *args]
        try:
            with CliRunner().isolation(input=stdin, env=self._env) as (out, err, _):
                code = run()
                sys.stdout.flush()
                sys.stderr.flush()
                return Result(code, out.getvalue().decode(), err.getvalue().decode())
        finally:
            sys.argv = before


def open_outbox(client: redis.Redis, name: str = "api", **settings: Any) -> OutboxStore:
    """A configured outbox, as the daemon leaves it when it starts."""
    load_library(client)
    store = OutboxStore(client, name)
    given = {"provider": "http", "urls": ("http://127.0.0.1:9/none",), **settings}
    publish(store, Destination(name=name, **given))
    return store


def put(store: OutboxStore, *ids: str, **options: Any) -> None:
    """Hands messages over."""
    for message_id in ids:
        payload = {"n": message_id}
        store.enqueue(build(store.destination, payload, now=0.0, id=message_id, **options))


def take(store: OutboxStore, count: int, worker: str = "w1") -> str:
    """Takes messages as a worker does; returns the batch's nonce."""
    store.slots("beat", worker, 0, {"host": "somewhere"})
    nonce = new_nonce()
    assert store.take(worker, nonce, count, "any").status == "batch"
    return nonce


def shelve(store: OutboxStore, action: Action, reason: str, *ids: str) -> None:
    """Enqueues messages and settles them dead or parked, for a reason."""
    put(store, *ids)
    nonce = take(store, len(ids))
    record = {
        "outcome": "rejected",
        "action": action,
        "reason": reason,
        "status": 200,
        "attempt": 1,
        "at_us": str(store.redis_now_us()),
        "worker": "w1",
        "response": '{"code": 2, "description": "[bold]no such box[/]"}',
    }
    words = store.settle(
        [Settlement(id=i, nonce=nonce, action=action, charge=True, record=record) for i in ids]
    )
    assert words == ["ok"] * len(ids)
