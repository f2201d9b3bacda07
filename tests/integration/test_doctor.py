"""``paceline doctor`` as users run it: against a real Redis, real sockets, real certificates."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from paceline import keys
from paceline.connect import connect
from paceline.doctor import redis_probe
from paceline.doctor.endpoint_judge import judge
from paceline.doctor.endpoint_probe import probe_all
from paceline.doctor.finding import Finding
from paceline.embedded import EmbeddedServer
from paceline.outbox import OutboxStore
from paceline.proxy import Proxy
from support.cli import Cli, Result, open_outbox, put
from support.peers import OK, Peer, answers, make_certificate, server_context
from support.proxy import ForwardProxy
from support.servers import command_calls, frozen

PASSWORD = "hunter2x-in-the-file"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("always")) as it:
        yield it


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    with connect(server.url) as it:
        it.flushall()
        it.function_flush()
        it.config_set("appendfsync", "always")
        it.config_set("maxmemory-policy", "noeviction")
        yield it


@pytest.fixture
def cli(server: EmbeddedServer, client: redis.Redis, tmp_path: Path) -> Cli:
    return Cli(server.url, tmp_path)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer(answers(OK)) as it:
        yield it


def configure(cli: Cli, url: str, more: str = "", name: str = "api") -> None:
    text = f"""
[redis]
url = "redis://127.0.0.1:9/0"
[destinations.{name}]
provider = "http"
url = "{url}"
username = "ann"
password = "{PASSWORD}"
lease_s = 600
{more}
"""
    at = cli.folder / "paceline.toml"
    at.write_text(text, encoding="utf-8")
    at.chmod(0o600)


def found(result: Result) -> dict[str, dict[str, Any]]:
    """check -> the worst finding of it."""
    order = ("ok", "warn", "fail")
    worst: dict[str, dict[str, Any]] = {}
    for finding in result.json["findings"]:
        before = worst.get(finding["check"])
        if before is None or order.index(finding["level"]) > order.index(before["level"]):
            worst[finding["check"]] = finding
    return worst


def levels(result: Result) -> dict[str, str]:
    """check -> level, of what is not ok."""
    return {name: f["level"] for name, f in found(result).items() if f["level"] != "ok"}


def serve(client: redis.Redis, cli: Cli) -> OutboxStore:
    """As a daemon and a worker leave it."""
    from paceline.settings_file import load
    from paceline.shared_config import publish

    store = open_outbox(client)
    publish(store, load(cli.folder / "paceline.toml").destinations["api"], force=True)
    # Live for as long as a busy machine may take.
    client.zadd(keys.key("api", "daemons"), {"daemon-1": 9e15})
    store.slots("beat", "w1", 0, {"host": "here"})
    return store


def test_all_is_well(cli: Cli, client: redis.Redis, peer: Peer) -> None:
    configure(cli, peer.url)
    serve(client, cli)
    result = cli("doctor", "--strict", "--json")
    assert levels(result) == {}
    assert result.code == 0
    assert result.json["healthy"] is True
    assert "of Redis, and of its machine" in result.json["durability"]
    checks = found(result)
    assert {
        "answers", "version", "role", "append-only file", "fsync", "eviction", "memory", "disk",
        "clock", "latency", "function library", "rights", "file", "open files", "configuration",
        "daemon", "workers", "accounts", "secrets", "connect",
    } <= set(checks)  # fmt: skip
    assert peer.accepted == 1
    assert peer.requests == [], "no request is sent"
    words = cli("doctor", "api")
    assert words.code == 0
    assert "Healthy:" in words.out
    assert PASSWORD not in result.out + result.err + words.out + words.err


def test_it_writes_nothing(cli: Cli, client: redis.Redis, peer: Peer) -> None:
    configure(cli, peer.url)
    put(serve(client, cli), "m-1")
    dumps = {key: client.dump(key) for key in client.keys("*")}
    client.config_resetstat()
    assert cli("doctor", "api").code == 0
    assert {key: client.dump(key) for key in client.keys("*")} == dumps
    called = set(command_calls(client))
    writes = {
        name.decode() if isinstance(name, bytes) else name
        for name, flags in ((n, client.execute_command("COMMAND", "INFO", n)) for n in called)
        if flags and "write" in str(flags)
    }
    assert "ping" in called
    assert writes == set()


def test_what_is_wrong_with_redis_is_told_with_its_mend(
    cli: Cli, client: redis.Redis, peer: Peer
) -> None:
    configure(cli, peer.url)
    serve(client, cli)
    client.config_set("appendfsync", "everysec")
    everysec = cli("doctor", "--json")
    assert everysec.code == 0, "a warning fails with --strict only"
    assert levels(everysec) == {"fsync": "warn"}
    assert "up to 2 s" in everysec.json["durability"]
    assert cli("doctor", "--strict").code == 1
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.function_flush()
    evicts = cli("doctor")
    assert evicts.code == 1
    assert "fail  eviction: allkeys-lru: a full Redis deletes messages" in evicts.out
    assert "-> CONFIG SET maxmemory-policy noeviction" in evicts.out
    assert "warn  function library: not loaded" in evicts.out
    assert "NOT HEALTHY" in evicts.out


def test_rights_that_are_missing(
    cli: Cli, client: redis.Redis, server: EmbeddedServer, peer: Peer
) -> None:
    configure(cli, peer.url)
    serve(client, cli)
    secret = "s3cret-of-redis"
    client.acl_setuser(
        "limited", enabled=True, passwords=["+" + secret], keys=["{api}*", "rq:*", "paceline:*"],
        commands=["-zadd", "-config"], categories=["+@all"],
    )  # fmt: skip
    try:
        cli.env["PACELINE_REDIS_URL"] = server.url.replace("://", f"://limited:{secret}@")
        result = cli("doctor", "--json")
        wrong = found(result)
        assert "ZADD on {api}:n" in wrong["rights"]["text"]
        assert wrong["fsync"]["level"] == "warn"
        assert "not known" in result.json["durability"]
        assert secret not in result.out + result.err
        cli.env["PACELINE_REDIS_URL"] = server.url.replace("://", "://limited:wrong-one@")
        denied = cli("doctor", "--json")
        assert "refuses the login" in found(denied)["answers"]["text"]
        assert "wrong-one" not in denied.out + denied.err
    finally:
        client.acl_deluser("limited")


def test_redis_away_and_frozen(cli: Cli, server: EmbeddedServer, peer: Peer) -> None:
    configure(cli, peer.url)
    with frozen(server):
        still = cli("doctor", "--json")
    assert still.code == 1
    assert "does not answer in time" in found(still)["answers"]["text"]
    assert found(still)["connect"]["level"] == "ok", "the rest is looked at all the same"
    del cli.env["PACELINE_REDIS_URL"]
    away = cli("doctor")
    assert away.code == 1
    assert "fail  answers: redis://127.0.0.1:9/0: it cannot be reached" in away.out
    assert "cannot be told" in away.out


def test_a_wrong_configuration_does_not_hide_redis(cli: Cli, client: redis.Redis) -> None:
    open_outbox(client)
    configure(cli, "ftp://nowhere", "ratte = 90")
    result = cli("doctor", "--json")
    assert result.code == 1
    texts = [f["text"] for f in result.json["findings"] if f["level"] == "fail"]
    assert any("destinations.api.url: does not begin with https://" in text for text in texts)
    assert any("destinations.api.ratte" in text for text in texts)
    assert found(result)["fsync"]["level"] == "ok"
    assert found(result)["accounts"]["level"] == "ok", "destinations that Redis knows, too"
    # Its Redis is found in the file, although the rest of that cannot be used.
    del cli.env["PACELINE_REDIS_URL"]
    assert "redis://127.0.0.1:9/0" in found(cli("doctor", "--json"))["answers"]["text"]


def test_a_configuration_that_differs_from_the_shared_one(
    cli: Cli, client: redis.Redis, peer: Peer
) -> None:
    configure(cli, peer.url)
    put(serve(client, cli), "m-1")
    configure(cli, peer.url, "rate = 50")
    result = cli("doctor", "--json")
    assert result.code == 1
    assert "rate is 90.0 there, 50.0 here" in found(result)["configuration"]["text"]


def test_nobody_serves_what_waits(cli: Cli, client: redis.Redis, peer: Peer) -> None:
    configure(cli, peer.url)
    put(open_outbox(client), "m-1")
    wrong = levels(cli("doctor", "--json"))
    assert (wrong["daemon"], wrong["workers"]) == ("fail", "fail")


def test_unknown_destinations(cli: Cli, client: redis.Redis, peer: Peer) -> None:
    configure(cli, peer.url)
    result = cli("doctor", "apo")
    assert result.code == 1
    assert "Known: api" in result.err


def test_secrets_that_are_not_there(cli: Cli, client: redis.Redis, peer: Peer) -> None:
    configure(cli, peer.url, '[destinations.api.headers]\nX-Key = { file = "/nowhere/key" }')
    result = cli("doctor", "--json")
    assert "the file /nowhere/key cannot be read" in found(result)["secrets"]["text"]
    assert result.code == 1


def test_providers_that_cannot_be_reached(cli: Cli, client: redis.Redis) -> None:
    configure(cli, "https://name.invalid/x")
    unnamed = found(cli("doctor", "--json"))["name"]
    assert unnamed["level"] == "fail"
    assert "name.invalid cannot be resolved" in unnamed["text"]
    with Peer(answers(OK)) as gone:
        url = gone.url
    configure(cli, url)
    refused = found(cli("doctor", "--json"))["connect"]
    assert refused["level"] == "fail"
    assert "Connection refused" in refused["text"]
    assert refused["mend"]


@pytest.mark.needs("openssl")
def test_certificates(cli: Cli, client: redis.Redis, tmp_path: Path) -> None:
    at = make_certificate(tmp_path)
    expired = expired_certificate(tmp_path)
    with (
        Peer(answers(OK), tls=server_context(at)) as good,
        Peer(answers(OK), tls=server_context(expired)) as old,
        Peer(answers(OK)) as plain,
    ):
        configure(cli, f"https://localhost:{good.port}/x", f'ca_file = "{at}"')
        soon = found(cli("doctor", "--json"))["certificate"]
        assert soon["level"] == "warn", "it is valid for two days"
        assert "localhost, by localhost, valid for 1 days more (TLSv1.3" in soon["text"]
        assert good.requests == []

        untrusted = looked_at(f"https://localhost:{good.port}/x")
        assert (untrusted.check, untrusted.level) == ("certificate", "fail")
        assert "self-signed certificate" in untrusted.text
        assert "ca_file" in untrusted.mend

        other_name = looked_at(f"https://127.0.0.1:{good.port}/x", at)
        assert "IP address mismatch" in other_name.text
        assert "The URL must carry" in other_name.mend

        over = looked_at(f"https://localhost:{old.port}/x", expired)
        assert (over.check, over.level) == ("certificate", "fail")
        assert "certificate has expired" in over.text
        assert "renew" in over.mend

        no_tls = looked_at(f"https://localhost:{plain.port}/x")
        assert (no_tls.check, no_tls.level) == ("tls", "fail")
        assert "https port" in no_tls.mend

        no_file = looked_at(f"https://localhost:{good.port}/x", Path("/nowhere/ca.pem"))
        assert (no_file.check, no_file.level) == ("ca_file", "fail")
        assert good.requests == old.requests == plain.requests == []


@pytest.mark.needs("openssl")
def test_a_provider_behind_a_proxy(tmp_path: Path) -> None:
    at = make_certificate(tmp_path, "api.example")
    with (
        Peer(answers(OK), tls=server_context(at)) as provider,
        ForwardProxy(login="u:p", leads=("127.0.0.1", provider.port)) as strict,
        ForwardProxy(leads=("127.0.0.1", provider.port)) as lax,
    ):
        refused = looked_at("https://api.example/", at, Proxy("127.0.0.1", strict.port))
        assert (refused.check, refused.level) == ("proxy", "fail")
        assert "407 Proxy Authentication Required" in refused.text
        assert "proxy_password" in refused.mend
        # The name is the proxy's to resolve, and nobody else could.
        there = looked_at("https://api.example/", at, Proxy("127.0.0.1", lax.port))
        assert there.text.startswith(
            "api.example:443: api.example, by api.example, valid for 1 day"
        )
        assert provider.requests == []


def looked_at(url: str, ca_file: Path | None = None, proxy: Proxy | None = None) -> Finding:
    """The worst finding of one URL, without the command around it."""
    [facts] = probe_all(
        [url], connect_timeout_s=5, ca_file=None if ca_file is None else str(ca_file), proxy=proxy
    )
    found = judge("api", facts, now_s=time.time(), has_ca_file=ca_file is not None)
    return max(found, key=lambda finding: ("ok", "warn", "fail").index(finding.level))


def expired_certificate(folder: Path) -> Path:
    key, request, at = folder / "old.key", folder / "old.csr", folder / "old.pem"
    subprocess.run(
        [
            "openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", str(key), "-out", str(request),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    subprocess.run(
        [
            "openssl", "x509", "-req", "-in", str(request), "-signkey", str(key), "-days", "-1",
            "-copy_extensions", "copy", "-out", str(at),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    at.write_bytes(at.read_bytes() + key.read_bytes())
    return at


def test_a_clock_that_differs(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    real = redis_probe.time.time
    monkeypatch.setattr(redis_probe.time, "time", lambda: real() - 100.0)
    facts = redis_probe.probe(client, "redis://r", [])
    assert facts.ahead_s == pytest.approx(100.0, abs=1.0)
