"""The whole way of a message inside this process: daemon and workers in threads, Redis real."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from paceline import Outbox
from paceline.connect import connect
from paceline.message_status import Status
from paceline.outbox import OutboxStore
from paceline.service import DaemonService, Part
from paceline.settings import Destination
from paceline.settings_file import loads
from paceline_workers.runtime import WorkerRuntime
from support.wait import until

NAME = "d"
#: Retries soon enough for a test.
QUICK = "[destinations.d.retry]\nfirst_s = 0.05\ncap_s = 0.1\nwait_503_s = [0.3, 0.4]\n"

MAXMD: Mapping[str, Any] = {
    "sender": "a@direct.example",
    "recipients": [{"email": "b@direct.example", "type": "TO"}],
    "subject": "s",
    "body": "Grüße",
}


def destination(
    url: str, provider: str = "http", more: str = "", tables: str = QUICK
) -> Destination:
    login = 'username = "u"\npassword = { env = "PW" }\n' if provider == "maxmd" else ""
    text = f'[destinations.{NAME}]\nprovider = "{provider}"\nurl = "{url}"\n{login}{more}\n{tables}'
    return loads(text).destinations[NAME]


class Worker:
    """A WorkerRuntime in a thread."""

    def __init__(self, runtime: WorkerRuntime) -> None:
        self.runtime = runtime
        runtime._rq.pop_timeout_s = 0.1  # how soon it sees that it is to stop
        self.lost: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.lost = self.runtime.run()

    def stop(self, timeout_s: float = 20.0) -> None:
        self.runtime.stop()
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the worker did not stop"


class Line:
    """``with Line(redis_url, destination(sink.url)) as line: line.send(…)``"""

    def __init__(
        self,
        redis_url: str,
        to: Destination,
        *,
        workers: int = 1,
        parts: tuple[Part, ...] = ("scheduler", "reaper"),
        change: Callable[[WorkerRuntime], None] = lambda _: None,
    ) -> None:
        self._url = redis_url
        self.destination = to
        self._count = workers
        self._parts = parts
        self._change = change
        self.workers: list[Worker] = []

    def __enter__(self) -> Self:
        self.client = connect(self._url)
        self.store = OutboxStore(self.client, NAME)
        self.outbox = Outbox.from_url(self._url)
        self._daemon = DaemonService(connect(self._url), [self.destination], self._parts)
        self._daemon.start()
        for _ in range(self._count):
            self.add_worker()
        return self

    def add_worker(self) -> Worker:
        runtime = WorkerRuntime(self.destination, self._url, {**os.environ, "PW": "secret"})
        self._change(runtime)
        self.workers.append(Worker(runtime))
        return self.workers[-1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.runtime.stop()
        for worker in self.workers:
            worker.stop()
        self._daemon.ask_to_stop()
        self.client.lpush("{d}:wake", "1")
        self._daemon.stop()
        self.outbox.close()
        if error is None:
            assert self.store.census().sound, self.store.census().law
        self.client.close()

    def send(self, payload: Any = None, **options: Any) -> str:
        options.setdefault("id", "m-1")
        value = MAXMD if payload is None else payload
        return str(self.outbox.send(NAME, value, **options).id)

    def send_raw(self, payload: bytes, message_id: str = "m-1") -> None:
        """By the function alone, as other languages do: no profile has seen the payload."""
        options = f'{{"id":"{message_id}"}}'
        self.client.execute_command("FCALL", "paceline_enqueue", 1, "{d}", payload, options)

    def status(self, message_id: str = "m-1") -> Status:
        return self.outbox.status(NAME, message_id)

    def wait(self, state: str, message_id: str = "m-1", timeout_s: float = 8.0) -> Status:
        def there() -> Status | None:
            found = self.status(message_id)
            return found if found.state == state else None

        return until(there, timeout_s, f"{message_id} is {state}", 0.02)

    def wait_done(self, timeout_s: float = 15.0) -> None:
        until(lambda: self.store.census().unfinished == 0, timeout_s, "nothing is unfinished", 0.02)
