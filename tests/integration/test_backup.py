"""Backup and restore as docs/operations.md tells them."""

from __future__ import annotations

import shutil
from pathlib import Path

from paceline import Outbox
from paceline.audit import DeepAudit
from paceline.embedded import EmbeddedServer
from paceline.outbox import OutboxStore
from paceline.settings_file import loads
from paceline.shared_config import publish
from support.servers import connect
from support.wait import until

CONFIG = """
[destinations.web]
provider = "http"
url = "http://127.0.0.1:9/"
"""


def test_a_copy_of_the_append_only_file_is_the_outbox_of_that_moment(
    durable_server: EmbeddedServer, tmp_path: Path
) -> None:
    with connect(durable_server.url) as client, Outbox.from_url(durable_server.url) as outbox:
        store = OutboxStore(client, "web")
        publish(store, loads(CONFIG).destinations["web"])
        outbox.send_many([Outbox.message("web", {"n": n}, id=f"m-{n}") for n in range(500)])
        client.config_set("auto-aof-rewrite-percentage", 0)
        until(lambda: _no_rewrite(client.info("persistence")), 10, "no rewrite is going on")
        folder = Path(client.config_get("dir")["dir"]) / "appendonlydir"
        before = store.census().law
        shutil.copytree(folder, tmp_path / "restored" / "appendonlydir")
        # What comes after the copy is not in it.
        outbox.send_many([Outbox.message("web", {"n": n}, id=f"late-{n}") for n in range(7)])

    with EmbeddedServer(tmp_path / "restored") as restored, connect(restored.url) as client:
        store = OutboxStore(client, "web")
        census = store.census()
        assert census.law == before
        assert census.law["ready"] == 500
        findings = DeepAudit(store).run()
        assert findings.sound, findings
        # The first worker is started after this.
        assert store.hold("pause", why="restored") == ["paused"]


def _no_rewrite(told: dict[str, int]) -> bool:
    return not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]
