"""deploy/ and docker-compose.yml, judged by the programs that will read them.

No container engine is needed: compose's own binary resolves the files, and what a container or
the image's builder would run is run here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from paceline.embedded import binary_path
from paceline.rights import ROLES
from support.servers import connect
from support.wait import until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
COMPOSE_FILES = [ROOT / "docker-compose.yml", DEPLOY / "compose.provider.yml"]
USERS = DEPLOY / "compose.users.yml"
OURS = ("daemon", "worker", "sink")

packaged_for_this_platform = pytest.mark.skipif(
    not (sys.platform == "linux" and os.uname().machine == "x86_64"),
    reason="docker-compose and hadolint are packaged for x86-64 Linux only",
)


def _run(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        text=True,
        capture_output=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        **more,
    )


def _passes(*command: str | Path, **more: Any) -> str:
    done = _run(*command, **more)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}\n{done.stderr}"
    return done.stdout


# -- compose ------------------------------------------------------------------------------------


def _resolved(*files: Path, **variables: str) -> dict[str, Any]:
    named = [part for file in files for part in ("-f", file)]
    environ = {**os.environ, **variables}
    command = [BIN / "docker-compose", *named, "--profile", "*", "config", "--format", "json"]
    return dict(json.loads(_passes(*command, env=environ, cwd=ROOT)))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    if not (BIN / "docker-compose").exists():
        pytest.skip("docker-compose is packaged for x86-64 Linux only")
    return _resolved(COMPOSE_FILES[0])


@packaged_for_this_platform
def test_compose_takes_the_files_and_warns_of_nothing() -> None:
    for files in (COMPOSE_FILES[:1], COMPOSE_FILES, [*COMPOSE_FILES, USERS]):
        named = [part for file in files for part in ("-f", file)]
        done = _run(BIN / "docker-compose", *named, "config", "-q", cwd=ROOT)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    schema = ("--builtin-schema", "vendor.compose-spec")
    _passes(BIN / "check-jsonschema", *schema, *COMPOSE_FILES, USERS)


def test_every_container_is_hardened_pinned_and_watched(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert int(service["user"].split(":")[0]) > 0, name
        assert service["restart"] == "unless-stopped", name
        assert service["init"] is True, name
        assert service["healthcheck"]["test"], name
        assert "privileged" not in service, name
        if name not in OURS:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), f"{name} is not pinned"


def test_host_ports_are_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [p for service in compose["services"].values() for p in service.get("ports", ())]
    assert len(published) == 5
    assert {port.get("host_ip") for port in published} == {"127.0.0.1"}


def test_workers_can_be_scaled_and_find_all_they_need(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert "container_name" not in worker
    assert "ports" not in worker
    assert worker["depends_on"]["valkey"]["condition"] == "service_healthy"
    shared = set(worker["networks"]) & set(compose["services"]["valkey"]["networks"])
    assert shared, "workers do not reach Redis"
    assert set(worker["networks"]) & set(compose["services"]["sink"]["networks"])
    daemon, prometheus = compose["services"]["daemon"], compose["services"]["prometheus"]
    assert set(daemon["networks"]) & set(prometheus["networks"])
    assert "ports" not in daemon, "the exporter is not for the host"


@packaged_for_this_platform
def test_with_users_each_service_has_its_own_and_redis_is_otherwise_the_same(
    compose: dict[str, Any],
) -> None:
    found = _resolved(COMPOSE_FILES[0], USERS, PACELINE_SECRETS="/somewhere")
    usual, redis = (it["services"]["valkey"] for it in (compose, found))
    assert redis["command"] == [*usual["command"], "--aclfile", "/run/secrets/users_acl"]
    for name, role in (("daemon", "scheduler"), ("worker", "worker")):
        service = found["services"][name]
        assert service["environment"]["PACELINE_REDIS_URL"] == f"redis://{role}@valkey:6379/0"
        [secret] = service["secrets"]
        assert secret["target"].rpartition("/")[2] == "redis_password"
        assert found["secrets"][secret["source"]]["file"] == f"/somewhere/redis/{role}"
        assert role in ROLES


@packaged_for_this_platform
def test_credentials_of_a_real_provider_are_secrets_of_the_workers_alone() -> None:
    found = _resolved(*COMPOSE_FILES, PACELINE_SECRETS="/somewhere")
    assert found["secrets"]["provider_password"]["file"] == "/somewhere/provider_password"
    with_secrets = [name for name, service in found["services"].items() if "secrets" in service]
    assert with_secrets == ["worker"]
    assert found["services"]["sink"]["profiles"] == ["never"]


def test_the_valkey_of_compose_is_durable(compose: dict[str, Any], tmp_path: Path) -> None:
    program, *options = compose["services"]["valkey"]["command"]
    assert program == "valkey-server"
    options = [str(tmp_path) if option == "/data" else option for option in options]
    address = tmp_path / "redis.sock"
    server = subprocess.Popen(
        [binary_path(), *options, "--port", "0", "--unixsocket", str(address)],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(address.exists, 10, "the server listens")
        with connect(f"unix://{address}") as client:
            settings = client.config_get(
                "appendonly", "appendfsync", "maxmemory-policy", "maxmemory", "dir", "save"
            )
    finally:
        server.terminate()
        server.wait(20)
    assert settings == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "maxmemory": str(1024**3),
        "dir": str(tmp_path),
        "save": "",
    }


# -- what a container does with a broken configuration -------------------------------------------

BROKEN = """
[redis]
url = "redis://valkey:6379/0"
[destinations.partner]
provider = "http"
url = "http://sink:8025/messages"
rate = -1
"""


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("daemon", BROKEN, "destinations.partner.rate"),
        ("worker", BROKEN, "destinations.partner.rate"),
        ("daemon", "[redis", "is not TOML"),
        ("worker", '[redis]\nurl = "redis://valkey:6379/0"\n', "destinations: there is none"),
        ("worker", None, "cannot be read"),
    ],
)
def test_a_container_of_ours_ends_and_names_what_is_wrong(
    compose: dict[str, Any], tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    config = tmp_path / "paceline.toml"
    if text is not None:
        config.write_text(text, encoding="utf-8")
    done = _run(
        sys.executable, "-m", "paceline", *compose["services"][name]["command"],
        env={**os.environ, "PACELINE_CONFIG": str(config)}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_of_a_destination_that_is_not_configured_says_which_are(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    done = _run(
        sys.executable, "-m", "paceline", "worker", "partnr",
        env={**os.environ, "PACELINE_CONFIG": str(DEPLOY / "paceline.toml")}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode != 0
    assert "partnr" in done.stderr
    assert "partner" in done.stderr


def test_the_sink_and_valkey_refuse_broken_options(compose: dict[str, Any], tmp_path: Path) -> None:
    sink = compose["services"]["sink"]["command"]
    broken = ["20-60" if option == "20-60ms" else option for option in sink]
    done = _run(sys.executable, "-m", "paceline", *broken)
    assert done.returncode == 2
    assert '"20-60" is not a duration' in done.stderr
    options = compose["services"]["valkey"]["command"][1:]
    broken = ["allways" if option == "always" else option for option in options]
    done = _run(binary_path(), *broken)
    assert done.returncode != 0
    assert "appendfsync" in done.stdout + done.stderr


@pytest.mark.needs("prometheus", "prometheus-alertmanager")
def test_prometheus_and_alertmanager_refuse_a_broken_file(tmp_path: Path) -> None:
    config = tmp_path / "broken.yml"
    for program, source in (
        ("prometheus", "prometheus.yml"),
        ("prometheus-alertmanager", "alertmanager.yml"),
    ):
        text = (DEPLOY / "prometheus" / source).read_text(encoding="utf-8")
        config.write_text(text + "\nnonsense: true\n", encoding="utf-8")
        address = "--web.listen-address=127.0.0.1:0"
        done = _run(program, f"--config.file={config}", address, cwd=tmp_path)
        assert done.returncode != 0
        assert "nonsense" in done.stderr


# -- image --------------------------------------------------------------------------------------


@packaged_for_this_platform
def test_hadolint_has_nothing_against_the_dockerfile(tmp_path: Path) -> None:
    _passes(BIN / "hadolint", DEPLOY / "Dockerfile")
    worse = tmp_path / "Dockerfile"
    worse.write_text("FROM python\nRUN cd /tmp && sudo pip install requests\n", encoding="utf-8")
    assert _run(BIN / "hadolint", worse).returncode == 1


@pytest.mark.long
def test_the_dockerfiles_own_steps_make_an_environment_that_runs(tmp_path: Path) -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    builder = text.split("\nFROM ")[1]
    source = tmp_path / "src"
    source.mkdir()
    quick = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1", "PYTHONPATH": ""}
    environ = {**os.environ, **quick}
    for line in builder.splitlines():
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *names, target = rest.split()
            for name in names:
                _copy(ROOT / name, source / target / ("" if target == name else Path(name).name))
        elif word == "RUN":
            command = rest.replace("/opt/", f"{tmp_path}/opt/").replace(
                "python -m venv", f"{sys.executable} -m venv"
            )
            done = _run("sh", "-ec", command, cwd=source, env=environ)
            assert done.returncode == 0, done.stderr[-2000:]
    paceline = tmp_path / "opt/paceline/bin/paceline"
    assert _passes(paceline, "--version", env=environ).startswith("paceline")
    imports = "import paceline.exporter.service, paceline.sink.command, paceline_workers.runtime"
    _passes(paceline.with_name("python"), "-c", imports, env=environ, cwd=tmp_path)
    assert not paceline.with_name("pip").exists()


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


# -- systemd ------------------------------------------------------------------------------------

UNITS = ["paceline-daemon.service", "paceline-worker@.service", "paceline.target"]


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copies of the units whose program exists, which `verify` wants."""
    program = tmp_path / "bin" / "paceline"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    folder = tmp_path / "units"
    folder.mkdir()
    for name in UNITS:
        text = (DEPLOY / "systemd" / name).read_text(encoding="utf-8")
        text = text.replace("/opt/paceline/bin/paceline", str(program))
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def _verify(folder: Path) -> subprocess.CompletedProcess[str]:
    options = ("--man=no", "--recursive-errors=yes")
    environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"}
    return _run("systemd-analyze", "verify", *options, *folder.iterdir(), env=environ)


@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_the_units(units: Path) -> None:
    done = _verify(units)
    assert (done.returncode, done.stderr) == (0, "")
    unit = units / UNITS[0]
    unit.write_text(unit.read_text().replace("LimitNOFILE", "LimitFiles"), encoding="utf-8")
    assert _verify(units).returncode != 0


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", UNITS[:2])
def test_the_units_expose_little(units: Path, name: str) -> None:
    # Of 100. 20 is "OK"; a unit without hardening has 96.
    judge = ("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager")
    _passes(*judge, units / name)


@pytest.mark.parametrize(
    ("instance", "destination"), [("maxmd", "maxmd"), ("maxmd:2", "maxmd"), ("a-1:12", "a-1")]
)
def test_a_workers_instance_names_its_destination(
    units: Path, instance: str, destination: str
) -> None:
    line = re.search(r"^ExecStart=(.*)$", (units / UNITS[1]).read_text(), re.MULTILINE)
    assert line is not None
    # As systemd reads it: %% and $$ are % and $, %i is the instance.
    command = re.sub(r"%(.)", lambda m: {"%": "%", "i": instance}[m[1]], line[1])
    command = command.replace("$$", "$")
    assert _passes("sh", "-c", command).split() == ["worker", destination]


# -- prometheus, alertmanager --------------------------------------------------------------------


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_rules_and_they_do_what_they_say(tmp_path: Path) -> None:
    folder = DEPLOY / "prometheus"
    _passes("promtool", "check", "config", folder / "prometheus.yml")
    _passes("promtool", "test", "rules", *sorted((folder / "tests").glob("*.test.yml")))
    # The tests can fail: a bound moved by one, a sign forgotten.
    for right, wrong in (
        ("abs(paceline_law_difference)", "(paceline_law_difference)"),
        ("for: 1h", "for: 1m"),
    ):
        worse = tmp_path / "prometheus"
        shutil.copytree(folder, worse)
        rules = worse / "alerts.rules.yml"
        text = rules.read_text(encoding="utf-8")
        assert right in text
        rules.write_text(text.replace(right, wrong), encoding="utf-8")
        done = _run("promtool", "test", "rules", worse / "tests" / "alerts.test.yml")
        assert done.returncode == 1, f"{wrong} passes"
        shutil.rmtree(worse)


@pytest.mark.needs("amtool")
def test_alertmanager_takes_its_file_and_knows_where_alerts_go() -> None:
    config = DEPLOY / "prometheus" / "alertmanager.yml"
    _passes("amtool", "check-config", config)
    route = ("amtool", "config", "routes", "test", f"--config.file={config}")
    assert _passes(*route, "alertname=PacelineHeld", "severity=critical").split() == ["nobody"]


def test_yaml_is_tidy() -> None:
    rules = "{extends: relaxed, rules: {line-length: disable, key-duplicates: enable}}"
    files = [p for p in DEPLOY.rglob("*.yml") if "secrets" not in p.parts]
    _passes(BIN / "yamllint", "--strict", "-d", rules, *files, COMPOSE_FILES[0])
    for file in files:
        assert yaml.safe_load(file.read_text(encoding="utf-8"))
