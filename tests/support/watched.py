"""A stack that a real Prometheus watches by our own rules, in a hurry.

``hasten`` is the one change made to the rules: a minute becomes a second. Windows are kept to 6 to
15 s, so that a scrape a second fills them, and waits to 2 s; thresholds that are no times
stay as they are.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.prometheus import Prometheus, scrape_config
from support.stack import Stack
from support.wait import until

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = ("recording.rules.yml", "alerts.rules.yml")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def hasten(rules: str) -> str:
    """Rules whose minutes are seconds."""

    def window(found: re.Match[str]) -> str:
        return f"[{min(15, max(6, _seconds(found[1]) // 60))}s]"

    def wait(found: re.Match[str]) -> str:
        return f"for: {min(2, _seconds(found[1]) // 60)}s"

    text = re.sub(r"\[(\d+[smhd])\]", window, rules)
    text = re.sub(r"for: (\d+[smhd])", wait, text)
    # "a minute" as a bare number: the age of a backlog, and a backlog by the rate.
    for minute in ("_seconds) > 60", "> on (destination) 60 *"):
        assert minute in text or "alert:" not in text, f"the rules say no {minute!r} any more"
        text = text.replace(minute, minute.replace("60", "1"))
    return text


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * _UNITS[duration[-1]]


@dataclass
class Watched:
    """A stack, its exporter (a process of its own, so that the daemon may die) and Prometheus."""

    stack: Stack
    exporter: Any
    prometheus: Prometheus
    started_s: float = field(default_factory=time.time)

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return self.prometheus.alerts("firing")

    def wait_firing(self, *names: str, timeout_s: float = 30.0) -> None:
        until(lambda: set(names) <= self.firing(), timeout_s, f"{names} fire", 0.1)

    def evaluations(self) -> None:
        """Until every rule was evaluated, over a scrape that began after this call."""
        self.prometheus.wait_for_scrape()
        since = time.time()

        def evaluated() -> bool:
            groups = self.prometheus.api("rules")["groups"]
            return all(_unix(g["lastEvaluation"]) > since for g in groups)

        until(evaluated, 20, "the rules are evaluated", 0.1)

    def play(self, **change: Any) -> None:
        """Tells the sink what to play: POST /_sink/faults."""
        request = urllib.request.Request(
            f"http://{self.stack.sink_address}/_sink/faults",
            data=json.dumps(change).encode(),
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            reply.read()

    def ever(self, expression: str, step: str = "1s") -> list[dict[str, Any]]:
        """The series that an expression gave since the start, without those that are all NaN."""
        found = self.prometheus.api(
            "query_range",
            query=expression,
            start=str(self.started_s),
            end=str(time.time()),
            step=step,
        )
        return [s for s in found["result"] if any(v != "NaN" for _, v in s["values"])]


@contextmanager
def watched(
    folder: Path,
    change_rules: Callable[[str], str] = hasten,
    interval: str = "1s",
    **stack: Any,
) -> Iterator[Watched]:
    """Starts all of it. ``interval``: of scrapes, and what one may last; ``stack``: Stack's own
    options."""
    with Stack(folder, **stack) as running:
        options = ("--listen", "127.0.0.1:0", "--config", str(running.config))
        process = running._spawn("exporter", "paceline", "exporter", *options)
        address = until(lambda: _told(folder), 15, "the exporter says where it listens")
        texts = {name: change_rules(_text(name)) for name in RULES}
        config = scrape_config(address, interval=interval, rules="*.rules.yml")
        with Prometheus(folder, config, rules=texts) as prometheus:
            prometheus.wait_for_scrape()
            yield Watched(running, process, prometheus)


def _text(name: str) -> str:
    return (DEPLOY / "prometheus" / name).read_text(encoding="utf-8")


def _told(folder: Path) -> str:
    log = next(folder.glob("*-exporter.log")).read_text(encoding="utf-8")
    found = re.search(r"metrics on http://([^/\s]+)/metrics", log)
    return found[1] if found else ""


def _unix(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", moment)).timestamp()
