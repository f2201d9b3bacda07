"""Looks at everything each ten seconds: what processes use, what Redis holds, what has ended."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import redis.exceptions

from paceline.records import Ended
from paceline.rehearsal.ledger import Entry
from paceline.rehearsal.reconcile import Fact
from rampage.scene import Scene
from support.proc import usage
from support.wait import until

EVERY_S = 10.0
_AT_ONCE = 500
_LAST_S = 60.0
MB = 1e6

Series = dict[tuple[str, int], list[tuple[float, Any]]]


class Watch(threading.Thread):
    """``series``: of each process (name, pid), its usage over time, in seconds since the start;
    ``redis``: of Redis, its own figures, in bytes; ``facts``: what became of each message that has
    ended, read before its record expires."""

    def __init__(self, scene: Scene, ledger: Path) -> None:
        super().__init__(name="watch", daemon=True)
        self._scene, self._ledger = scene, ledger
        self._read_bytes = 0
        self._pending: dict[str, None] = {}
        self._over = threading.Event()
        self.began_s = time.monotonic()
        self.series: Series = defaultdict(list)
        self.redis: list[tuple[float, dict[str, float]]] = []
        self.facts: dict[str, Fact] = {}
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._over.wait(EVERY_S):
                self.look()
        except BaseException as error:  # noqa: BLE001  raised where somebody waits for it
            self.failure = error

    def halt(self) -> None:
        """Ends it when all has been seen to end. Raises what went wrong in it."""
        self._over.set()
        self.join()
        if self.failure is not None:
            raise self.failure
        until(self._all_ended, _LAST_S, "what became of each message is read", 0.5)

    def _all_ended(self) -> bool:
        self.look()
        return not self._pending

    def look(self) -> None:
        """Once. What Redis is asked is left out while it is away."""
        at_s = time.monotonic() - self.began_s
        for name, pid in self._processes():
            seen = usage(pid)
            if seen is not None:
                self.series[name, pid].append((at_s, seen))
        try:
            info: Any = self._scene.client.info()
            figures = {"used_memory": float(info["used_memory"])}
            figures["keys"] = float(self._scene.client.dbsize())
            figures["aof_bytes"] = float(info.get("aof_current_size", 0))
            self.redis.append((at_s, figures))
            self._note_ended()
        except redis.exceptions.RedisError:
            return

    def _processes(self) -> list[tuple[str, int]]:
        scene = self._scene
        found = [("redis", scene.server.pid), ("sink", scene.sink.pid)]
        for whom in ("worker", "daemon", "exporter"):
            found += [(f"{whom} {n}", pid) for n, pid in enumerate(scene.victims(whom))]
        return found

    def _note_ended(self) -> None:
        with self._ledger.open("rb") as file:
            file.seek(self._read_bytes)
            fresh = file.read()
        whole = fresh.rfind(b"\n") + 1
        self._read_bytes += whole
        lines = msgspec.json.Decoder(Entry).decode_lines(fresh[:whole])
        self._pending.update(dict.fromkeys(entry.id for entry in lines))
        ids = list(self._pending)
        for start in range(0, len(ids), _AT_ONCE):
            self._note_piece(ids[start : start + _AT_ONCE])

    def _note_piece(self, ids: list[str]) -> None:
        store = self._scene.store
        heads = store.look(ids)
        ended = [
            (its_id, found[0]) for its_id, found in zip(ids, heads, strict=True)
            if found is not None and (isinstance(found[0], Ended) or found[0].state == "dead")
        ]  # fmt: skip
        pipe = store.client.pipeline(transaction=False)
        for its_id, _ in ended:
            pipe.lrange(f"{store.tag}:a:{its_id}", 0, -1)
        for (its_id, head), attempts in zip(ended, pipe.execute(), strict=True):
            sha1 = head.payload_sha1 if isinstance(head, Ended) else None
            records = [msgspec.json.decode(record) for record in attempts]
            self.facts[its_id] = Fact(head.state, sha1, records)
            del self._pending[its_id]
