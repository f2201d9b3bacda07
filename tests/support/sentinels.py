"""Three Redis servers on loopback, and three Sentinels that watch over them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from paceline.embedded import EmbeddedServer, binary_path
from support.servers import connect, free_port
from support.wait import until

SERVICE = "paceline"
DOWN_AFTER_MS = 1000
#: A master that was cut off soon takes nothing more that a fail-over would throw away.
SETTINGS = {
    "repl-diskless-sync-delay": "0",
    "min-replicas-to-write": "1",
    "min-replicas-max-lag": "2",
}


class Sentinels:
    """Started by ``with``: ``servers``, the first the master at the start, and ``url``."""

    def __init__(self, folder: Path, options: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._options = SETTINGS | dict(options or {})
        self._exits = ExitStack()
        self.servers: list[EmbeddedServer] = []
        self._by_port: dict[int, EmbeddedServer] = {}
        self.url = ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._exits.close()

    def master(self) -> EmbeddedServer:
        """Who calls itself the master, and is one by the Sentinels' word."""
        with connect(self._sentinel_urls[0]) as sentinel:
            reply = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return self._by_port[int(reply[1])]

    def wait_replicas(self, server: EmbeddedServer, count: int) -> None:
        """Until so many follow it."""
        with connect(server.url) as client:
            until(lambda: _online(client.info("replication")) >= count, 20, f"{count} replicas")

    def _start(self) -> None:
        for number in range(3):
            follow = {"replicaof": f"127.0.0.1 {self.servers[0].port}"} if number else {}
            server = EmbeddedServer(self._folder / f"redis-{number}", extra=self._options | follow)
            server.start()
            self._exits.callback(server.stop)
            self.servers.append(server)
            self._by_port[server.port] = server
        self.wait_replicas(self.servers[0], 2)
        ports = [free_port() for _ in range(3)]
        for number, port in enumerate(ports):
            self._start_sentinel(number, port)
        self._sentinel_urls = [f"redis://127.0.0.1:{port}" for port in ports]
        for url in self._sentinel_urls:
            with connect(url) as client:
                until(lambda it=client: _ready(it), 20, "the Sentinels know each other")
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        self.url = f"sentinel+redis://{hosts}/{SERVICE}"

    def _start_sentinel(self, number: int, port: int) -> None:
        config = self._folder / f"sentinel-{number}.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0].port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n",
            encoding="utf-8",
        )
        log = (self._folder / f"sentinel-{number}.log").open("wb")
        process = subprocess.Popen(
            [str(binary_path()), str(config), "--sentinel"],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        log.close()
        self._exits.callback(_end, process)


def _ready(sentinel: object) -> bool:
    import redis
    from redis.exceptions import ConnectionError as RedisConnectionError

    assert isinstance(sentinel, redis.Redis)
    try:
        reply = sentinel.execute_command("SENTINEL", "MASTER", SERVICE)
    except RedisConnectionError:
        return False
    facts = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
    facts = {_text(name): _text(value) for name, value in facts.items()}
    return int(facts["num-other-sentinels"]) == 2 and int(facts["num-slaves"]) == 2


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _online(info: object) -> int:
    assert isinstance(info, dict)
    return sum(
        isinstance(value, dict) and value.get("state") == "online" for value in info.values()
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
