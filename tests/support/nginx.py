"""A real nginx that limits an account's rate, as providers do, on a free port of loopback::

    with Nginx(tmp_path, rate=100, burst=150) as nginx:
        ...                                # POST to http://{nginx.address}/, as often as wanted
        nginx.limit(1000, 150)             # from now on
        refused = [r for r in nginx.requests() if r.status == 429]

Its ``limit_req`` is a leaky bucket over the whole server, reckoned in milliseconds: at most
1 + burst + rate * T requests are admitted in T seconds, the others answered 429. Tests that use it
carry ``@pytest.mark.needs("nginx")``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from support.prometheus import free_port
from support.wait import until

_START_S, _STOP_S = 10.0, 10.0
_LOG_FORMAT = "$msec $status $request_time $connection $http_paceline_message_id"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the access log has it. Times are unix milliseconds, nginx's own resolution."""

    began_ms: int
    ended_ms: int
    status: int
    connection: int
    message: str


class Nginx:
    """Started by ``with``; its processes are gone afterwards. ``rate`` in requests/s."""

    def __init__(self, folder: Path, rate: float, burst: int) -> None:
        self._folder = folder / "nginx"
        self._rate, self._burst = rate, burst
        self._loads = 0

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._folder.mkdir()
        # It cannot be told to take any port; the one found may be taken before it binds it.
        for _ in range(5):
            self._port = free_port()
            self._launch()
            if self._is_ready():
                return self
            if "Address already in use" not in self.log():
                break
        self._end()
        raise AssertionError(f"nginx did not start:\n{self.log()[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._end()

    def limit(self, rate: float, burst: int) -> None:
        """Another limit, in force when this returns. What the bucket holds stays.

        nginx replaces its worker process: it ends connections that are idle then.
        """
        self._rate, self._burst = rate, burst
        self._write_config()
        self.process.send_signal(signal.SIGHUP)
        until(self._is_loaded, _START_S, "nginx works by the new limit", 0.01)

    def requests(self) -> list[Request]:
        """All that have ended so far, by their beginning."""
        text = (self._folder / "access.log").read_text("utf-8")
        # The last line may be half written.
        lines = text[: text.rfind("\n") + 1].splitlines()
        return sorted((_parse(line) for line in lines), key=lambda r: r.began_ms)

    def log(self) -> str:
        """What it complained of."""
        path = self._folder / "error.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def _launch(self) -> None:
        self._write_config()
        folder = str(self._folder)
        command = ["nginx", "-p", folder, "-c", "nginx.conf", "-e", "error.log"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _write_config(self) -> None:
        self._loads += 1
        text = _config(self._folder, self.address, f"{self._rate:g}", self._burst, self._loads)
        (self._folder / "nginx.conf").write_text(text, encoding="utf-8")

    def _is_loaded(self) -> bool:
        """Whether the config written last is in force; each has a number of its own.

        Over a connection of its own, which only the new worker process accepts.
        """
        try:
            with urllib.request.urlopen(f"http://{self.address}/_load", timeout=2) as reply:
                return bool(reply.read() == str(self._loads).encode())
        except OSError:
            return False

    def _is_ready(self) -> bool:
        """True when it answers, False when it ended."""

        def there() -> str:
            if self.process.poll() is not None:
                return "ended"
            return "ready" if self._is_loaded() else ""

        return until(there, _START_S, "nginx is ready", 0.02) == "ready"

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def _config(folder: Path, address: str, rate: str, burst: int, number: int) -> str:
    """The limit is the account's, whoever asks: its key is a constant.

    ``return`` alone would answer before the limiter is asked; behind ``try_files`` it comes after.
    """
    temporary = "\n  ".join(
        f"{module}_temp_path {folder}/{module};"
        for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # As root it would work as nobody, who may not enter the folders of tests.
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
  {temporary}
  log_format paced '{_LOG_FORMAT}';
  limit_req_zone $server_name zone=account:1m rate={rate}r/s;
  limit_req_log_level info;
  keepalive_requests 1000000;
  keepalive_timeout 75s;
  server {{
    listen {address};
    server_name account;
    root /nonexistent;
    default_type application/json;
    location = /_load {{ access_log off; return 200 "{number}"; }}
    location / {{
      access_log {folder}/access.log paced;
      limit_req zone=account burst={burst} nodelay;
      limit_req_status 429;
      try_files /none @accept;
    }}
    location @accept {{
      access_log {folder}/access.log paced;
      return 200 '{{"accepted": true}}';
    }}
  }}
}}
"""


def _parse(line: str) -> Request:
    ended, status, took, connection, message = line.split(" ", 4)
    ended_ms = round(float(ended) * 1000)
    took_ms = round(float(took) * 1000)
    return Request(ended_ms - took_ms, ended_ms, int(status), int(connection), message)
