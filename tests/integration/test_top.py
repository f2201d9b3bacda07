"""``paceline top``: one frame for a pipe, frames on a real terminal, and an outage of Redis."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from paceline.answers import Settlement
from paceline.connect import connect
from paceline.embedded import EmbeddedServer
from paceline.outbox import OutboxStore
from support.cli import Cli, open_outbox, put, shelve, take
from support.servers import freeze, frozen, thaw
from support.wait import until


@pytest.fixture
def cli(redis_url: str, tmp_path: Path) -> Cli:
    return Cli(redis_url, tmp_path)


def test_one_frame_where_nobody_watches(cli: Cli, redis_client: redis.Redis) -> None:
    store = open_outbox(redis_client, connections=7, lease_s=600.0)
    open_outbox(redis_client, "other")
    shelve(store, "dead", "code 2", "d")
    put(store, "a", "b", "c")
    store.hold("pause", for_s=600, why="their maintenance", who="ann@ops")
    result = cli("top", "--interval", "0.1")
    assert result.code == 0
    assert result.err == ""
    header, row, other = result.out.splitlines()[1:4]
    assert header.split()[:6] == ["destination", "ready", "later", "out", "sent/s", "requests/s"]
    assert row.split()[:6] == ["api", "3", "0", "0", "0.0", "0.0/90"]
    assert re.search(r"paused for (10m|9m \d+s) more by ann@ops: their maintenance", row)
    assert other.startswith("other")
    one = cli("top", "api", "--once", "--interval", "0.1")
    assert "processes   0 daemons, 1 live worker" in one.out
    assert "w1 on somewhere: 7 connections" in one.out
    assert "\x1b" not in one.out


def test_rates_come_from_what_happened_meanwhile(cli: Cli, redis_client: redis.Redis) -> None:
    store = open_outbox(redis_client)
    done = threading.Event()

    def work() -> None:
        with connect(cli.env["PACELINE_REDIS_URL"]) as client:
            mine, number = OutboxStore(client, "api"), 0
            while not done.is_set():
                put(mine, f"m-{number}")
                nonce = take(mine, 1)
                one = Settlement(id=f"m-{number}", nonce=nonce, action="sent", latency_s=0.2)
                assert mine.settle([one]) == ["ok"]
                number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        until(lambda: store.census().law["sent"] > 5, 10, "it works")
        result = cli("top", "--once", "--interval", "0.5")
        achieved = cli("status", "--over", "1s", "--json").json["destinations"]["api"]["achieved"]
    finally:
        done.set()
        worker.join()
    row = result.out.splitlines()[2].split()
    assert float(row[4].replace(",", "")) > 0
    assert row[6:8] == ["175", "ms"], "the median between 100 and 250 ms"
    assert achieved["sent_s"] > 0
    assert 0.9 < achieved["over_s"] < 10
    assert cli("status", "--json").json["destinations"]["api"]["achieved"] is None


def test_unknown_and_none(cli: Cli, redis_client: redis.Redis) -> None:
    nothing = cli("top", "--once", "--interval", "0.1")
    assert nothing.code == 0
    assert "No destination is known" in nothing.out
    open_outbox(redis_client)
    unknown = cli("top", "apo")
    assert unknown.code == 1
    assert "Known: api" in unknown.err


def test_redis_away_at_the_start(tmp_path: Path) -> None:
    result = Cli("redis://u:hunter2x@127.0.0.1:9/0", tmp_path)("top", "--once")
    assert result.code == 3
    assert "Redis is not available" in result.err
    assert "hunter2x" not in result.out + result.err


class Terminal:
    """``paceline top`` on a terminal of its own; ``screen`` is all that it wrote, without the
    control sequences."""

    def __init__(self, cli: Cli, *args: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            cli.command("top", *args),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cli.folder,
            env={**cli.env, "TERM": "xterm", "COLUMNS": "200", "LINES": "50"},
            start_new_session=True,
        )
        os.close(slave)
        self._raw = b""

    def read(self) -> str:
        while select.select([self._master], [], [], 0)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other side is closed
                break
            self._raw += data
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._raw.decode("utf-8", "replace"))

    def wait_for(self, text: str) -> None:
        """Until it shows up in what is written from now on."""
        self._raw = b""
        until(lambda: text in self.read(), 20, f"{text!r} on the terminal", 0.02)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def end(self) -> int:
        def ended() -> bool:
            self.read()
            return self.process.poll() is not None

        until(ended, 20, "it ends")
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[EmbeddedServer, Cli]]:
    with EmbeddedServer(tmp_path / "redis", appendfsync="everysec") as server:
        yield server, Cli(server.url, tmp_path)


def test_on_a_terminal_through_an_outage(own: tuple[EmbeddedServer, Cli]) -> None:
    server, cli = own
    with connect(server.url) as client:
        put(open_outbox(client), "a", "b")
    terminal = Terminal(cli, "--interval", "0.1")
    try:
        terminal.wait_for("api")
        freeze(server)
        try:
            terminal.wait_for("Redis does not answer")
            terminal.wait_for("STALE: the figures below are")
            assert "api " in terminal.read(), "the last figures stay"
        finally:
            thaw(server)
        with connect(server.url) as client:
            put(OutboxStore(client, "api"), "c")
        terminal.wait_for("3 ready")
        assert "STALE" not in terminal.read().rpartition("paceline top")[2]
        server.kill()
        terminal.wait_for("Redis does not answer")
        server.start()
        terminal.wait_for("3 ready")
        terminal.press(b"q")
        assert terminal.end() == 0
        raw = terminal._raw
        assert b"\x1b[?1049l" in raw, "the screen is given back"
        assert b"Traceback" not in raw
    finally:
        terminal.close()


def test_ctrl_c_ends_it_as_elsewhere(own: tuple[EmbeddedServer, Cli]) -> None:
    terminal = Terminal(own[1])
    try:
        terminal.wait_for("No destination")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
        assert b"Traceback" not in terminal._raw
    finally:
        terminal.close()


def test_a_frame_is_bounded_while_redis_is_frozen(own: tuple[EmbeddedServer, Cli]) -> None:
    server, cli = own
    with connect(server.url) as client:
        open_outbox(client)
    with frozen(server):
        result = cli("top", "--once")
    assert result.code == 3
