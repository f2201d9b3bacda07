"""What the base install brings: the light client, and nothing that collides."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SEND = """
import sys
from paceline import Outbox
assert not {"rq", "requests", "urllib3", "click", "rich", "prometheus_client"} & set(sys.modules)
with Outbox.from_url(sys.argv[1]) as outbox:
    print(outbox.send("web", {"n": 1}, id="one").status, outbox.status("web", "one").state)
"""


@pytest.fixture(scope="module")
def base_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment in which somebody ran ``pip install . python-daemon``."""
    folder = tmp_path_factory.mktemp("install")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(folder), str(ROOT)],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("paceline-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [n for n in names if n.startswith(("daemon/", "workers/", "tests/"))]
    assert "paceline/lua/begin.lua" in names
    assert "paceline_workers/jobs.py" in names
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         str(wheel), "python-daemon"],
        check=True,
    )  # fmt: skip
    return python


def test_base_install_pulls_in_redis_and_the_codec_only(base_python: Path) -> None:
    listed = _out(base_python, "-m", "pip", "list", "--format=freeze")
    names = {line.partition("==")[0].lower() for line in listed.splitlines()}
    ours = names - {"pip", "setuptools", "wheel", "python-daemon", "lockfile"}
    assert ours == {"paceline", "redis", "msgspec"}


def test_sending_works_from_the_base_install(base_python: Path, redis_url: str) -> None:
    _configure(redis_url)
    assert _out(base_python, "-c", SEND, redis_url) == "new ready\n"


def test_it_lives_beside_python_daemon(base_python: Path) -> None:
    both = "import daemon, paceline, paceline_workers; daemon.DaemonContext; print(daemon.__file__)"
    assert "site-packages/daemon/" in _out(base_python, "-c", both)


def test_the_command_line_names_the_extra_that_is_missing(base_python: Path) -> None:
    done = subprocess.run(
        [str(base_python), "-m", "paceline", "status"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "paceline[daemon]" in done.stderr


def _configure(redis_url: str) -> None:
    from paceline.connect import connect
    from paceline.outbox import OutboxStore
    from paceline.settings_file import loads
    from paceline.shared_config import publish

    settings = loads(
        '[destinations.web]\nprovider = "http"\nurl = "http://127.0.0.1:8025/messages"\n'
    )
    with connect(redis_url) as client:
        publish(OutboxStore(client, "web"), settings.destinations["web"])
        from paceline.scripts import load_library

        load_library(client)


def _out(python: Path, *arguments: str) -> str:
    return subprocess.run(
        [str(python), *arguments], check=True, capture_output=True, text=True, cwd="/"
    ).stdout
