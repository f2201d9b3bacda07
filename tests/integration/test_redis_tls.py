"""Redis over TLS: the server is verified always; a client shows its certificate if it has one."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from paceline import Outbox
from paceline.connect import connect
from paceline.embedded import EmbeddedServer
from paceline.errors import ConfigError, RedisUnavailable
from paceline.scripts import Pinned
from support.cli import CliHere, open_outbox
from support.peers import make_ca, server_context, signed_by
from support.rights import Guarded
from support.tls_front import TlsFront

pytestmark = pytest.mark.needs("openssl")


class Files:
    """Certificates of one CA, and one of another."""

    def __init__(self, folder: Path) -> None:
        (folder / "other").mkdir()
        self.ca, self.other_ca = make_ca(folder), make_ca(folder / "other")
        self.server, self.client = signed_by(self.ca, "localhost"), signed_by(self.ca, "worker-1")
        self.client_key = self.client.with_suffix(".key")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    return Guarded(tmp_path_factory.mktemp("tls") / "acl", ["api"])


@pytest.fixture(scope="module")
def server(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    folder = tmp_path_factory.mktemp("tls-redis")
    with EmbeddedServer(folder, appendfsync="everysec", extra=guarded.options) as it:
        with connect(it.url) as client:
            open_outbox(client)
        yield it


@pytest.fixture
def front(files: Files, server: EmbeddedServer) -> Iterator[TlsFront]:
    with TlsFront(server_context(files.server), server.port) as it:
        yield it


@pytest.fixture
def strict(files: Files, server: EmbeddedServer) -> Iterator[TlsFront]:
    context = server_context(files.server)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(files.ca)
    with TlsFront(context, server.port) as it:
        yield it


def test_an_app_and_a_worker_over_tls(front: TlsFront, files: Files) -> None:
    url = f"rediss://localhost:{front.port}/0?ssl_ca_certs={files.ca}"
    with Outbox.from_url(url) as outbox:
        assert outbox.send("api", {"n": 1}, id="a").status == "new"
        assert outbox.status("api", "a").state == "ready"
    with connect(url) as client:
        pinned = Pinned(client)
        assert pinned.current_run_id()
        pinned.close()
    assert front.clients, "it went past TLS"


def test_who_cannot_show_that_it_is_redis_is_not_spoken_to(front: TlsFront, files: Files) -> None:
    for host, ca in (("localhost", files.other_ca), ("127.0.0.1", files.ca)):
        url = f"rediss://localhost:{front.port}/0?ssl_ca_certs={ca}".replace("localhost", host, 1)
        with Outbox.from_url(url) as outbox, pytest.raises(RedisUnavailable, match="certificate"):
            outbox.send("api", {}, id="never")
    refused = pytest.raises(redis.exceptions.ConnectionError, match="verify failed")
    with connect(f"rediss://localhost:{front.port}/0") as client, refused:
        client.ping()
    assert front.clients == []


@pytest.mark.parametrize("weaker", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
@pytest.mark.parametrize("url", ["rediss://h:1/0", "sentinel+rediss://h:1,i:2/main"])
def test_nobody_can_ask_for_less(url: str, weaker: str) -> None:
    with pytest.raises(ConfigError, match="lets anybody answer"):
        connect(f"{url}?{weaker}")


def test_the_configuration_names_files_user_and_password(
    strict: TlsFront, files: Files, tmp_path: Path, guarded: Guarded
) -> None:
    (tmp_path / "password").write_text("pass-of-operator\n", encoding="utf-8")
    config = tmp_path / "paceline.toml"
    text = f"""
[redis]
url = "rediss://localhost:{strict.port}/0"
username = "operator"
password = {{ file = "{tmp_path}/password" }}
ca_file = "{files.ca}"
cert_file = "{files.client}"
key_file = "{files.client_key}"
[destinations.api]
provider = "http"
url = "http://127.0.0.1:9/none"
"""
    config.write_text(text, encoding="utf-8")
    cli = CliHere("", config)
    assert cli("status", "--json").code == 0
    assert set(strict.clients) == {"worker-1"}
    told = cli("doctor")
    assert "user 'operator' may do all that is needed" in told.out
    assert "pass-of" not in told.out + told.err
    config.write_text(text.replace("cert_file", "# cert_file"), encoding="utf-8")
    half = cli("status")
    assert (half.code, "redis.cert_file" in half.err) == (2, True)
    config.write_text(text.replace("rediss:", "redis:"), encoding="utf-8")
    plain = cli("status")
    assert plain.code == 2
    assert "redis.ca_file: the URL is not one of TLS" in plain.err
    config.write_text(text.replace("key_file", "# ").replace("cert_file", "# "), encoding="utf-8")
    assert cli("status").code == 3, "who shows no certificate is not let in"
