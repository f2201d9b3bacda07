"""The same under ``paceline up``: it keeps the embedded server, the daemon and the workers, and
starts again what ends. Only ``up`` itself is started again by us, as systemd would."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from paceline import Outbox
from paceline.connect import connect
from paceline.embedded import attached_url
from paceline.embedded_process import read_record
from paceline.outbox import OutboxStore
from rampage.plan import Way, Whom
from rampage.scene import Scene, free_port, is_well
from support.proc import children, is_alive
from support.wait import until

_STOP_S = 60.0


@dataclass
class Together(Scene):
    way: ClassVar[Way] = "up"

    def _start(self) -> None:
        self._open_record()
        self.url, self.guarded, self.data = "", None, self.folder / "redis"
        self.port = free_port()
        self.sink = self._start_sink()
        self.config = self.folder / "paceline.toml"
        self.exporter = f"127.0.0.1:{self.port}"
        self.config.write_text(self._toml(), encoding="utf-8")
        self.worker_processes, self.daemon_processes = [], []
        self.up_process = self._run_up()
        self.url = until(lambda: attached_url(self._data) or "", 20, "the embedded server runs")
        self.client = connect(self.url)
        self.store = OutboxStore(self.client, "web")
        self.outbox = Outbox.from_url(self.url)
        self._exits.callback(self.outbox.close)
        until(self.is_whole, 30, "all is up")

    @property
    def _data(self) -> Path:
        assert self.data is not None
        return self.data

    def _run_up(self) -> subprocess.Popen[bytes]:
        return self._spawn(
            "up", "paceline", "up", "--workers", str(self.workers), "--config", str(self.config),
            "--data", str(self._data),
        )  # fmt: skip

    def victims(self, whom: Whom) -> list[int]:
        if whom == "up":
            return [self.up_process.pid]
        if whom == "redis":
            record = read_record(self._data)
            return [] if record is None else [record.pid]
        found = children(self.up_process.pid)
        return sorted(pid for pid, words in found.items() if whom in words)

    def workers_of(self, pid: int) -> list[str]:
        pids = {pid, *children(pid)} if pid == self.up_process.pid else {pid}
        return [w.id for w in self.store.census().workers if w.facts.get("pid") in pids]

    def replace(self, whom: Whom, pid: int) -> int | None:
        if whom != "up":
            until(lambda: not is_alive(pid), _STOP_S, f"{whom} {pid} ends")
            return None
        code = self.up_process.wait(_STOP_S)
        self.up_process = self._run_up()
        return code

    def serves(self) -> bool:
        return is_well(self.port) and len(self.victims("daemon")) == 1
