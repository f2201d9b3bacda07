"""The examples of docs/examples do what their pages say: real Redis, real processes."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from paceline import Outbox
from paceline.events import KINDS
from paceline.outbox import OutboxStore
from paceline.settings import Events
from support.cli import open_outbox
from support.node import redis_package
from support.peers import Peer, Talk
from support.wait import until

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def store(redis_client: redis.Redis) -> OutboxStore:
    """The destination of all examples, which takes three messages of 100 bytes."""
    return open_outbox(redis_client, "partner", max_messages=3, max_payload_bytes=100)


def environment(redis_url: str, **more: str) -> dict[str, str]:
    return {**os.environ, "PACELINE_REDIS_URL": redis_url, **more}


# -- django -----------------------------------------------------------------------------------


class Shop:
    """The Django project on a database of its own, with socks in stock and nothing else."""

    def __init__(self, database: Path, redis_url: str) -> None:
        self.database = database
        self._url = redis_url
        assert self("migrate", "--run-syncdb").returncode == 0
        with closing(sqlite3.connect(database)) as table, table:
            table.execute('INSERT INTO shop_stock (item, "left") VALUES (?, ?)', ("socks", 9))
            table.execute('INSERT INTO shop_stock (item, "left") VALUES (?, ?)', ("x" * 100, 9))

    def start(self, *args: str, url: str = "") -> subprocess.Popen[str]:
        """``manage.py``, with another Redis if need be."""
        return subprocess.Popen(
            [sys.executable, "manage.py", *args], cwd=EXAMPLES / "django", text=True,
            env=environment(url or self._url, SHOP_DATABASE=str(self.database)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *args: str, url: str = "") -> subprocess.CompletedProcess[str]:
        with self.start(*args, url=url) as process:
            out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.database)) as table:
            return table.execute(query).fetchall()


@pytest.fixture
def shop(tmp_path: Path, redis_url: str) -> Shop:
    return Shop(tmp_path / "db.sqlite3", redis_url)


def between(redis_url: str, stops: Callable[[Talk, bool, bytes], bool]) -> Peer:
    """Stands between a client and Redis. ``stops`` is shown what passes, and whether it is asked or
    answered; where it returns True that does not pass, and nothing more on this connection."""
    port = int(redis_url.rpartition(":")[2].partition("/")[0])

    def talk(_: Peer, it: Talk) -> None:
        with socket.create_connection(("127.0.0.1", port), 5) as there:
            other = {it.sock: there, there: it.sock}
            while True:
                for source in select.select(list(other), [], [], 20)[0]:
                    data = source.recv(65536)
                    if not data or stops(it, source is it.sock, data):
                        return
                    other[source].sendall(data)

    return Peer(talk)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_django_sends_what_was_committed_and_nothing_else(shop: Shop, store: OutboxStore) -> None:
    # Bought, bought but never to be taken by Paceline, and sold out: which rolls back.
    done = shop("order", "a@shop.example", "socks", "x" * 100, "hats")
    assert "no hats left" in done.stderr
    first, second = (line.split()[-1] for line in done.stdout.splitlines())
    assert shop.rows("SELECT item FROM shop_order ORDER BY id") == [("socks",), ("x" * 100,)]
    assert list(store.all_ids()) == [first]
    assert json.loads(store.payload(first) or b"")["to"] == "a@shop.example"
    [(left, refused)] = shop.rows("SELECT id, refused FROM shop_outboxrow")
    assert left == second
    assert "this destination takes at most 100" in refused

    # Redis away when it is committed; and a process that dies after the commit, before it sends.
    away = shop("order", "b@shop.example", "socks", url=f"redis://127.0.0.1:{closed_port()}/0")
    assert away.returncode == 0
    assert "1 left in the outbox's table: Redis is not available" in away.stderr
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with shop.start("order", "c@shop.example", "socks", url=url) as dying:
            silent.settimeout(30)
            connection, _ = silent.accept()
            dying.kill()
            connection.close()
    assert len(shop.rows("SELECT id FROM shop_order")) == 4
    waiting = shop.rows("SELECT id FROM shop_outboxrow WHERE refused = ''")
    assert len(waiting) == 2
    assert store.census().law["accepted"] == 1

    # Relayed, and once more as after a relay that died before it deleted the rows.
    before = shutil.copy(shop.database, shop.database.with_suffix(".before"))
    for _ in range(2):
        shutil.copy(before, shop.database)
        done = shop("relay", "--older-than", "0")
        assert (done.returncode, done.stdout) == (0, "2 handed over, 0 left\n"), done.stderr
        assert shop.rows("SELECT id FROM shop_outboxrow") == [(second,)]
    assert set(store.all_ids()) == {first, *(row[0] for row in waiting)}
    assert store.census().law["accepted"] == 3


# -- fastapi ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fastapi_app() -> Iterator[ModuleType]:
    name = "example_of_fastapi"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / "fastapi" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks the annotations up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


def test_fastapi_answers_by_what_became_of_the_message(
    fastapi_app: ModuleType, store: OutboxStore, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    order = {"customer": "a@shop.example", "item": "socks"}
    monkeypatch.setenv("PACELINE_REDIS_URL", redis_url)
    with TestClient(fastapi_app.app) as http:

        def place(key: str, **fields: str) -> tuple[int, Any, str | None]:
            reply = http.post("/orders", json={**order, **fields}, headers={"Idempotency-Key": key})
            return reply.status_code, reply.json(), reply.headers.get("Retry-After")

        assert place("o-1") == (202, {"id": "o-1", "already": False}, None)
        assert place("o-1") == (202, {"id": "o-1", "already": True}, None)
        shown = http.get("/orders/o-1")
        assert (shown.status_code, shown.json()["state"]) == (200, "ready")

        for status, words, answer in [
            (409, "'o-1' of 'partner' exists already", place("o-1", item="hats")),
            (422, "A-Z a-z 0-9", place("o 1")),
            (413, "at most 100", place("o-2", item="x" * 100)),
        ]:
            assert answer[0] == status
            assert words in answer[1]["detail"]
        assert http.post("/orders", json=order).status_code == 422
        missing = http.get("/orders/o-2")
        assert (missing.status_code, "'o-2'" in missing.json()["detail"]) == (404, True)

        assert [place(key)[0] for key in ("o-2", "o-3")] == [202, 202]
        status, _, after = place("o-4")
        assert (status, after) == (503, "5")
        store.press("shut", 15.0, 17, "80% of Redis's memory is used", None)
        assert (place("o-4")[0], place("o-4")[2]) == (503, "17")
        assert set(store.all_ids()) == {"o-1", "o-2", "o-3"}

    monkeypatch.setenv("PACELINE_REDIS_URL", f"redis://127.0.0.1:{closed_port()}/0")
    with TestClient(fastapi_app.app) as http:
        reply = http.post("/orders", json=order, headers={"Idempotency-Key": "o-1"})
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert "127.0.0.1" not in reply.text


# -- node -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def producer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The producer in a folder where its one package is installed."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "node_modules").symlink_to(redis_package() / "node_modules")
    return Path(shutil.copy(EXAMPLES / "node" / "producer.mjs", folder))


def run_node(producer: Path, url: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", str(producer), *args], env=environment(url), text=True, timeout=30,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.needs("node", "npm")
def test_node_repeats_with_its_id_after_a_lost_answer(
    producer: Path, store: OutboxStore, redis_url: str
) -> None:
    def loses_the_first_answer(it: Talk, asked: bool, data: bytes) -> bool:
        if it.number == 0 and not asked and b"new" in data:
            it.reset()
        return it.number == 0 and not asked and b"new" in data

    with between(redis_url, loses_the_first_answer) as peer:
        url = f"redis://127.0.0.1:{peer.port}/0"
        done = run_node(producer, url, "partner", '{"to": "a", "n": 1.0}', '{"priority": "high"}')
        assert peer.accepted == 2
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["answer"] == "already"
    assert list(store.all_ids()) == [answer["id"]]
    assert store.payload(answer["id"]) == b'{"to": "a", "n": 1.0}'


@pytest.mark.needs("node", "npm")
def test_node_says_why_it_was_refused(producer: Path, store: OutboxStore, redis_url: str) -> None:
    done = run_node(producer, redis_url, "partner", "{}", '{"id": "a b"}')
    assert done.returncode == 1
    assert done.stderr.startswith("not accepted: PLINVALID options.id: must be 1 to 128")
    assert list(store.all_ids()) == []


# -- events -----------------------------------------------------------------------------------


def test_the_consumer_of_events_is_killed_and_misses_nothing(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    store = open_outbox(redis_client, "partner", events=Events(kinds=KINDS))
    ids = [f"m-{n}" for n in range(200)]
    with Outbox.from_url(redis_url) as outbox:
        # One call, and so one entry of the stream, which comes again whole.
        outbox.send_many([Outbox.message("partner", {}, id=i) for i in ids])
    for message_id in ids[:100]:
        store.cancel([message_id])
    database = tmp_path / "deliveries.sqlite3"
    consumer = EXAMPLES / "events" / "consumer.py"

    def start(url: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(consumer), "partner", "--database", str(database)]
        return subprocess.Popen(command, env=environment(url))

    def rows(query: str) -> list[Any]:
        with closing(sqlite3.connect(database)) as table:
            return table.execute(query).fetchall()

    # Killed when it has booked the first entry and its acknowledgement is on the way.
    acknowledges = threading.Event()

    def holds_the_acknowledgement(it: Talk, asked: bool, data: bytes) -> bool:
        if asked and b"XACK" in data:
            acknowledges.set()
            it.hold()
        return asked and b"XACK" in data

    with (
        between(redis_url, holds_the_acknowledgement) as peer,
        start(f"redis://127.0.0.1:{peer.port}/0") as killed,
    ):
        try:
            assert acknowledges.wait(20), "it never acknowledged anything"
        finally:
            killed.kill()
    assert rows("SELECT count(*), max(seq) FROM happened") == [(200, 200)]
    pending: Any = redis_client.xpending("{partner}:ev", "deliveries")
    assert pending["pending"] > 0

    with start(redis_url) as again:
        try:
            until(lambda: rows("SELECT max(seq) FROM happened") == [(300,)], 20, "all is booked")
            again.terminate()
            assert again.wait(10) == 0
        finally:
            again.kill()
    became = {i: "cancelled" if i in ids[:100] else "accepted" for i in ids}
    assert dict(rows("SELECT id, kind FROM became")) == became
    assert rows("SELECT seq FROM happened ORDER BY seq") == [(n,) for n in range(1, 301)]
    pending = redis_client.xpending("{partner}:ev", "deliveries")
    assert pending["pending"] <= 1  # the last one, if it was told to stop before it asked again
