"""`kill -HUP` to `paceline up`: all of its processes go on by the new file, and no message pays."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.gatekeeper import Gatekeeper
from support.stack import DESTINATION, Producer, Stack
from support.wait import until

pytestmark = pytest.mark.timeout(90)


class _Locked(Stack):
    """A stack whose provider is one of ours, with a key in a file."""

    provider: Gatekeeper
    key: Path

    def _toml(self, url: str = "", more: str = "connections = 6") -> str:
        return f"""
[redis]
url = "{self.server.url}"
[exporter]
listen = "off"
[destinations.{DESTINATION}]
provider = "http"
url = "{url or self.provider.url}"
rate = 200
headers = {{ X-Key = {{ file = "{self.key}" }} }}
{more}
"""

    def hang_up(self, text: str | None = None) -> None:
        if text is not None:
            self.config.write_text(text)
        self.daemon_processes[0].send_signal(signal.SIGHUP)

    def log(self) -> list[dict[str, Any]]:
        [at] = self.folder.glob("*-up.log")
        lines = at.read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def count(self, event: str, saying: str = "") -> int:
        found = [line for line in self.log() if line.get("event") == event]
        return sum(int(it.get("repeated", 1)) for it in found if saying in it["message"])


@pytest.mark.skipif(sys.platform != "linux", reason="signals to a family of processes")
def test_credentials_and_configuration_change_while_sending(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first-key\n")
    with Gatekeeper({"first-key"}) as provider, Gatekeeper({"second-key"}) as other:
        stack = _Locked(tmp_path, workers=2, up=True)
        stack.provider, stack.key = provider, key
        with stack:
            producer = Producer(stack, per_s=150)
            producer.start()
            moving = _moving(provider)
            moving("messages flow")
            workers = sorted(w.id for w in stack.store.census().workers)

            # The provider takes both keys while they are exchanged, as providers do.
            provider.keys = {"first-key", "second-key"}
            key.write_text("second-key\n")
            stack.hang_up()
            until(lambda: stack.count("reloaded", "secrets were read anew") == 2, 15, "reloaded")
            until(lambda: provider.last(20) == {"second-key"}, 10, "the new key is shown")
            provider.keys = {"second-key"}
            moving("the old key is worth nothing, and nobody shows it")
            assert provider.peer.accepted <= 6, "for a new key connections were opened"

            good = stack.config.read_text()
            stack.hang_up("[destinations.web\n" + good)
            until(lambda: stack.count("reload_refused", "is not TOML") == 1, 10, "refused")
            stack.hang_up(good + "lease_s = 30\n")
            until(lambda: stack.count("reload_refused", "lease_s") == 1, 10, "refused")
            stack.hang_up(good + f"[destinations.another]{good.partition('web]')[2]}")
            until(lambda: stack.count("reload_refused", "another: came") == 1, 10, "refused")
            key.unlink()
            stack.hang_up(good)
            until(lambda: stack.count("reload_refused", "headers.X-Key") == 2, 10, "by each worker")
            moving("all goes on as before")
            key.write_text("second-key\n")

            stack.hang_up(stack._toml(other.url, "connections = 4"))
            until(
                lambda: stack.count("reloaded", "url, connections changed") == 2, 15, "both workers"
            )
            until(
                lambda: stack.count("reloaded", "web: url, connections") == 1, 15, "and the daemon"
            )
            _moving(other)("the other provider's now")
            seen = len(provider.shown)
            producer.halt()
            stack.wait_done(20)

            assert len(provider.shown) == seen, "one was left behind"
            census = stack.store.census()
            assert sorted(w.id for w in census.workers) == workers, "a process was replaced"
            # Each is told its share at its own heartbeat.
            until(lambda: [w.slots for w in stack.store.census().workers] == [2, 2], 5, "shared")
            assert other.peer.most_open <= 4
            assert census.law["dead"] == census.law["parked"] == 0
            assert census.law["sent"] == len(stack.accepted)
            assert census.counters.get("reaped", 0) == 0
            assert (provider.refused, other.refused) == (0, 0)
            accepted = provider.accepted + other.accepted
            assert dict(accepted) == dict.fromkeys(stack.accepted, 1)
            assert stack.count("config_stale") == 0
            texts = [at.read_text("utf-8") for at in stack.folder.glob("*-up.log")]
            assert "second-key" not in "".join(texts), "a secret read anew is in the log"


def _moving(provider: Gatekeeper) -> Callable[[str], None]:
    def check(what: str) -> None:
        seen = len(provider.shown)
        until(lambda: len(provider.shown) >= seen + 20, 15, what)

    return check
