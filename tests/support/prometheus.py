"""A real Prometheus for tests, on a free port of loopback, with its data in the test's folder::

    with Prometheus(tmp_path, scrape_config(exporter_address), rules={"alerts.yml": text}) as prom:
        prom.wait_for_scrape()
        assert prom.value("paceline_up") == 1
        for series in prom.query('paceline_messages{state="ready"}'):
            print(series.labels["destination"], series.value)

Tests that use it carry ``@pytest.mark.needs("prometheus")`` (Debian: ``prometheus``, which brings
``promtool`` too).
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.wait import until

_START_S, _SCRAPE_S, _STOP_S = 20.0, 20.0, 10.0


@dataclass(frozen=True)
class Series:
    """One series of an instant query. ``labels`` holds ``__name__`` too, where there is one."""

    labels: Mapping[str, str]
    value: float


def scrape_config(*addresses: str, interval: str = "200ms", rules: str = "") -> str:
    """A configuration that scrapes these ``host:port`` as job "paceline".

    ``rules`` is a pattern of rule files beside it, such as "*.rules.yml".
    """
    targets = json.dumps(list(addresses))
    text = f"""
global: {{scrape_interval: {interval}, evaluation_interval: {interval}}}
scrape_configs:
  - job_name: paceline
    static_configs: [{{targets: {targets}}}]
"""
    return text + (f"rule_files: [{json.dumps(rules)}]\n" if rules else "")


class Prometheus:
    """Started by ``with``; the process is gone afterwards.

    ``config`` is the text of prometheus.yml; ``rules`` maps file names, as its ``rule_files`` name
    them (relative to it), to their texts; ``options`` are further flags.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        *,
        rules: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self._folder = folder / "prometheus"
        self._config = config
        self._rules = dict(rules or {})
        self._options = options
        self.url = ""

    def __enter__(self) -> Self:
        self._folder.mkdir()
        (self._folder / "prometheus.yml").write_text(self._config, encoding="utf-8")
        for name, text in self._rules.items():
            (self._folder / name).write_text(text, encoding="utf-8")
        # It cannot be told to take any port; the one found may be taken before it binds it.
        for _ in range(5):
            self._launch(free_port())
            if self._is_ready():
                return self
            if "address already in use" not in self.log():
                break
        self._end()
        raise AssertionError(f"Prometheus did not start:\n{self.log()[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._end()

    def log(self) -> str:
        """What it wrote."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def query(self, expression: str) -> list[Series]:
        """An instant query, evaluated now. A scalar is one series without labels.

        Raises AssertionError with Prometheus's own words for an expression it refuses.
        """
        found = self.api("query", query=expression)
        if found["resultType"] == "scalar":
            return [Series({}, float(found["result"][1]))]
        return [Series(s["metric"], float(s["value"][1])) for s in found["result"]]

    def value(self, expression: str) -> float:
        """The value of an expression that gives exactly one series."""
        found = self.query(expression)
        assert len(found) == 1, f"{expression}: {len(found)} series: {found[:5]}"
        return found[0].value

    def wait_for(self, expression: str, timeout_s: float = _SCRAPE_S) -> list[Series]:
        """Until the expression gives any series; returns them."""
        return until(lambda: self.query(expression), timeout_s, expression, 0.1)

    def wait_for_scrape(self, timeout_s: float = _SCRAPE_S) -> None:
        """Until every target was scraped, without error, by a scrape that began after this call."""
        since = time.time()
        until(lambda: self._all_scraped(since), timeout_s, "every target is scraped", 0.1)

    def alerts(self, state: str = "firing") -> set[str]:
        """Names of the alerts in this state: pending or firing."""
        found = self.api("alerts")["alerts"]
        return {a["labels"]["alertname"] for a in found if a["state"] == state}

    def api(self, path: str, **parameters: str) -> Any:
        """``data`` of one call of /api/v1/."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error

    def _all_scraped(self, since: float) -> bool:
        targets = self.api("targets", state="active")["activeTargets"]
        return bool(targets) and all(
            t["health"] == "up" and _unix(t["lastScrape"]) > since for t in targets
        )

    def _launch(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus", f"--config.file={self._folder}/prometheus.yml",
                    f"--storage.tsdb.path={self._folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}", *self._options,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _is_ready(self) -> bool:
        """True when it answers, False when it ended."""

        def there() -> str:
            if self._process.poll() is not None:
                return "ended"
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
                    return "ready"
            except OSError:
                return ""

        try:
            return until(there, _START_S, "Prometheus is ready", 0.05) == "ready"
        except AssertionError:
            self._end()
            raise

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _unix(moment: str) -> float:
    """RFC 3339 with nanoseconds, which fromisoformat of 3.11 does not take everywhere."""
    from datetime import datetime

    head, _, rest = moment.partition(".")
    fraction = rest.rstrip("Z").split("+")[0].split("-")[0] if rest else "0"
    zone = "+00:00" if moment.endswith("Z") else moment[-6:]
    whole = datetime.fromisoformat(head.removesuffix("Z").split("+")[0] + zone).timestamp()
    return whole + float("0." + fraction)
