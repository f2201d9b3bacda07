"""paceline endpoints …, and what send, show and status say of endpoints."""

from __future__ import annotations

import base64
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
import redis

from paceline.endpoint_registry import EndpointRegistry
from paceline.endpoints import Endpoint
from paceline.outbox import OutboxStore
from paceline.settings_file import load
from paceline.shared_config import publish
from support.cli import CliHere, put, take

KEY = "whsec_" + base64.b64encode(b"k" * 24).decode()
CONFIG = f"""
[destinations.hooks]
provider = "webhook"
secrets = ["{KEY}"]
guard_allow = ["127.0.0.0/8"]
[destinations.hooks.endpoints]
in_flight = 4
[destinations.alone]
provider = "webhook"
url = "https://alone.example/hooks"
secrets = ["{KEY}"]
"""
URL = "https://acme.example/hooks?key=hush"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "paceline.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def store(redis_client: redis.Redis, config: Path) -> OutboxStore:
    for destination in load(config).destinations.values():
        publish(OutboxStore(redis_client, destination.name), destination)
    return OutboxStore(redis_client, "hooks")


@pytest.fixture
def registry(store: OutboxStore) -> EndpointRegistry:
    return EndpointRegistry(store)


@pytest.fixture
def cli(store: OutboxStore, redis_url: str, config: Path) -> CliHere:
    # After the store, which the fixture of the URL would empty.
    return CliHere(redis_url, config)


def register(registry: EndpointRegistry, *names: str, **about: Any) -> None:
    registry.put({name: Endpoint(url=URL, **about) for name in names}, "test")


def fail(store: OutboxStore, name: str, at: float, until: float | None = None) -> None:
    """As three failures in a row leave it."""
    store.client.hset("{hooks}:es", name, f"f 3 {at * 1e6:.0f} {at * 1e6:.0f} timeout")
    if until is not None:
        store.client.zadd("{hooks}:eb", {name: until * 1e6})


def test_add_and_show(cli: CliHere, registry: EndpointRegistry) -> None:
    new = cli("endpoints", "add", "hooks", "acme", URL, "--rate", "5", "--burst", "9", "--ordered")
    assert (new.code, new.err) == (0, "")
    assert new.out.startswith("acme: new\n")
    assert "paceline endpoints key hooks acme" in new.out
    assert registry.find("acme") == Endpoint(url=URL, rate=5, burst=9, ordered=True)
    again = cli("endpoints", "add", "hooks", "acme", URL, "--in-flight", "2", "--json")
    assert again.json == {"destination": "hooks", "endpoints": {"acme": "changed"}}
    assert registry.find("acme") == Endpoint(url=URL, in_flight=2)
    assert cli("endpoints", "add", "hooks", "acme", URL, "--in-flight", "2").out == (
        "acme: as it was\n"
    )
    shown = cli("endpoints", "show", "hooks", "acme")
    assert "hooks acme: well" in shown.out
    assert "https://acme.example/hooks?key=***" in shown.out
    assert "2 requests in flight" in shown.out
    view = cli("endpoints", "show", "hooks", "acme", "--json")
    assert (view.json["in_flight"], view.json["ordered"], view.json["why"]) == (2, False, None)
    assert "hush" not in shown.out + view.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("acme", "http://acme.example/"), "acme.url: is plain http to another machine"),
        (("acme", "https://10.0.0.7/"), 'guard_allow = ["10.0.0.7"]'),
        (("acme", "https://0x0a000007/"), "leads to 10.0.0.7 (private)"),
        (("a/b", "https://10.0.0.7/"), "name: 'a/b' cannot name an endpoint"),
        (("acme", "https://user:hush@acme.example/"), "holds credentials"),
        (("acme", URL, "--burst", "5"), "acme.burst: means nothing without rate"),
        (("acme", URL, "--rate", "nan"), "acme.rate: is not a finite number"),
        (("acme", URL, "--in-flight", "0"), "acme.in_flight"),
        (("acme", URL, "--in-flight", "x"), "--in-flight"),
    ],
)
def test_add_refuses(
    cli: CliHere, registry: EndpointRegistry, args: tuple[str, ...], words: str
) -> None:
    refused = cli("endpoints", "add", "hooks", *args)
    assert refused.code == 2
    assert words in refused.err
    assert "hush" not in refused.err
    assert registry.names() == []


def test_a_destination_that_has_none(cli: CliHere) -> None:
    for command in (["list", "alone"], ["enable", "alone", "--all-disabled"]):
        told = cli("endpoints", *command)
        assert told.code == 1
        assert "Configure [destinations.alone.endpoints]" in told.err
    added = cli("endpoints", "add", "alone", "acme", URL)
    assert added.code == 2
    assert "destinations.alone.endpoints: missing" in added.err
    assert "Known: alone, hooks" in cli("endpoints", "list", "hoks").err


def test_import(
    cli: CliHere, registry: EndpointRegistry, store: OutboxStore, tmp_path: Path
) -> None:
    register(registry, "old", "waits")
    put(store, "m1", endpoint="waits")
    lines = [
        json.dumps({"name": "acme", "url": URL, "rate": 5}),
        "",
        json.dumps({"name": "bolt", "url": "https://127.0.0.1/in", "ordered": True}),
        json.dumps({"name": "acme", "url": "https://other.example/"}),
        json.dumps({"name": "bad", "url": "https://169.254.169.254/", "rat": 1, "burst": 0}),
        json.dumps({"url": URL}),
        json.dumps({"name": 5, "url": URL}),
        "[1]",
        '{"name": "cut", ',
        '{"name": "\udcff"}',
        json.dumps({"name": "long", "url": "https://a.example/" + "x" * 150_000}),
        json.dumps({"name": "last", "url": URL}),
    ]
    file = tmp_path / "endpoints.jsonl"
    text = "\ufeff" + "\n".join(lines) + "\n"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    partial = cli("endpoints", "import", "hooks", str(file), "--prune", "--yes")
    assert partial.code == 1
    for words in (
        "line 4: name: 'acme' is also on line 1",
        "line 5: bad.rat: unknown key. Did you mean rate?",
        "line 5: bad.burst",
        "line 5: bad.url: leads to 169.254.169.254 (metadata service)",
        "line 6: name: missing",
        "line 7: name: is no text",
        "line 8: no JSON object",
        "line 9: not JSON",
        "line 10: not JSON",
        "line 11: longer than 65,536 bytes",
        "8 bad lines of 11 left out, as told above; nothing was removed",
    ):
        assert words in partial.err
    assert "3 endpoints registered for hooks: 3 new" in partial.out
    assert registry.names() == ["acme", "bolt", "last", "old", "waits"]
    good = "\n".join((lines[0], lines[2]))
    asked = cli("endpoints", "import", "hooks", "-", "--prune", stdin=good)
    assert asked.code == 2
    assert "would remove 3 endpoints of hooks (last, old, waits): confirm with --yes" in asked.err
    pruned = cli("endpoints", "import", "hooks", "-", "--prune", "--yes", "--json", stdin=good)
    assert pruned.code == 1
    assert pruned.json == {
        "destination": "hooks",
        "read": 2,
        "new": 0,
        "changed": 0,
        "same": 2,
        "removed": ["last", "old"],
        "not_removed": ["waits"],
        "problems": [],
    }
    assert registry.names() == ["acme", "bolt", "waits"]


def test_by_name(cli: CliHere, registry: EndpointRegistry, store: OutboxStore) -> None:
    register(registry, "acme", "bolt", "cord")
    put(store, "m1", endpoint="acme")
    off = cli("endpoints", "disable", "hooks", "acme", "bolt", "acme", "--why", "they\nasked")
    assert (off.code, off.out.count("disabled: nothing is sent")) == (0, 2)
    seen = cli("endpoints", "show", "hooks", "acme", "--json").json
    assert seen["state"] == "disabled"
    assert seen["why"].startswith("they asked, by ")
    mixed = cli("endpoints", "disable", "hooks", "acme", "acne")
    assert mixed.code == 1
    assert mixed.out == "acme: was disabled already\nacne: unknown; did you mean acme?\n"
    on = cli("endpoints", "enable", "hooks", "--all-disabled", "--json")
    assert (on.code, on.json["endpoints"]) == (0, {"acme": "enabled", "bolt": "enabled"})
    assert cli("endpoints", "enable", "hooks", "cord").out == "cord: was in no trouble\n"
    assert (
        "no endpoint of hooks is disabled"
        in cli("endpoints", "enable", "hooks", "--all-disabled").out
    )
    for which in ([], ["acme", "--all-disabled"]):
        assert cli("endpoints", "enable", "hooks", *which).code == 2
    kept = cli("endpoints", "remove", "hooks", "acme", "cord")
    assert kept.code == 1
    assert "acme: not removed, for messages of it wait" in kept.out
    assert "cord: removed" in kept.out
    assert cli("endpoints", "remove", "hooks", "acme", "--force").code == 0
    assert registry.names() == ["bolt"]


def test_list(cli: CliHere, registry: EndpointRegistry, store: OutboxStore) -> None:
    register(registry, *(f"e{n:04}" for n in range(5000)))
    now = store.redis_now_us() / 1e6
    fail(store, "e0007", now)
    fail(store, "e0008", now, until=now + 600)
    registry.disable(["e0009"], "[bold]gone[/]")
    told = cli("endpoints", "list", "hooks")
    assert told.code == 0
    rows = told.out.splitlines()
    assert [row.split()[:2] for row in rows[1:5]] == [
        ["e0009", "disabled"], ["e0008", "waiting"], ["e0007", "failing"], ["e0000", "well"],
    ]  # fmt: skip
    assert "[bold]gone[/]" in rows[1]
    assert "timeout" in rows[2]
    assert rows[-1] == (
        "5,000 endpoints of hooks: 4,997 well, 1 failing, 1 waiting, 1 disabled; 100 shown"
    )
    assert "hush" not in told.out
    every = cli("endpoints", "list", "hooks", "--json").json
    assert len(every["endpoints"]) == 5000
    assert every["states"] == {"well": 4997, "failing": 1, "waiting": 1, "disabled": 1}
    some = cli("endpoints", "list", "hooks", "--state", "well", "--limit", "2", "--json").json
    assert [it["name"] for it in some["endpoints"]] == ["e0000", "e0001"]


def test_key(cli: CliHere, registry: EndpointRegistry) -> None:
    register(registry, "acme")
    derived = hmac.digest(b"k" * 24, b"paceline-endpoint:acme", "sha256")
    text = "whsec_" + base64.b64encode(derived).decode()
    assert cli("endpoints", "key", "hooks", "acme").out == text + "\n"
    assert cli("endpoints", "key", "hooks", "acme", "--json").json["keys"] == [text]
    unknown = cli("endpoints", "key", "hooks", "acne")
    assert unknown.code == 1
    assert "no endpoint 'acne'. Did you mean acme?" in unknown.err


def test_send(cli: CliHere, registry: EndpointRegistry, store: OutboxStore, tmp_path: Path) -> None:
    register(registry, "acme", "bolt", "cord")
    registry.disable(["cord"], "they asked")
    payload = {"type": "order.paid"}
    lines = [
        {"id": "a", "payload": payload},
        {"id": "b", "payload": payload, "endpoint": "bolt"},
        {"id": "c", "payload": payload, "key": "k2"},
        {"id": "d", "payload": payload, "endpoint": "cord"},
        {"id": "e", "payload": payload, "endpoint": "acne"},
    ]
    file = tmp_path / "messages.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    sent = cli("send", "hooks", str(file), "--endpoint", "acme", "--key", "k1")
    assert sent.code == 1
    assert "3 messages accepted" in sent.out
    assert "line 4: endpoint 'cord' of 'hooks' is disabled (" in sent.err
    assert "line 5: endpoint: acne is not registered here" in sent.err
    waiting = [cli("show", "hooks", name, "--json").json["tenant"] for name in "abc"]
    assert waiting == ["acme/k1", "bolt/k1", "acme/k2"]
    for options, code, words in (
        (("--key", "k1"), 2, "--key goes with --endpoint"),
        (("--endpoint", "a/b"), 2, "--endpoint"),
        (("--endpoint", "acne"), 1, "no endpoint 'acne'. Did you mean acme?"),
    ):
        refused = cli("send", "hooks", str(file), *options)
        assert refused.code == code
        assert words in refused.err
    assert "has no endpoints" in cli("send", "alone", str(file), "--endpoint", "acme").err


def test_status_and_show_tell_why_it_waits(
    cli: CliHere, registry: EndpointRegistry, store: OutboxStore
) -> None:
    register(registry, "acme", "bolt", "cord", "dent")
    put(store, "off", endpoint="acme", key="k1")
    put(store, "barred", endpoint="bolt")
    put(store, "later", endpoint="acme", delay_s=4e9)
    put(store, "fine", endpoint="cord")
    put(store, *(f"many{n}" for n in range(5)), endpoint="dent")
    registry.disable(["acme"], "said 410")
    now = store.redis_now_us() / 1e6
    fail(store, "bolt", now - 60, until=now + 600)

    def why(name: str) -> str:
        return str(cli("show", "hooks", name, "--json").json["why"])

    store.slots("beat", "w1", 1, {"host": "somewhere"})
    store.client.zadd("{hooks}:daemons", {"d1": (now + 60) * 1e6})
    assert cli("status", "hooks", "--json").json["destinations"]["hooks"]["why"]["code"] == "rate"
    assert why("off") == (
        "its endpoint acme is disabled: said 410; paceline endpoints enable hooks acme has it sent"
    )
    assert "as          priority normal, endpoint acme, key k1; " in cli("show", "hooks", "off").out
    assert why("later").startswith("to be tried in ")
    assert "its endpoint acme is disabled" in why("later")
    assert why("barred").startswith("nothing is sent to bolt until ")
    assert why("barred").endswith(", after 3 failures: timeout")
    assert "go before it; what binds: the rate" in why("fine")
    put(store, "k-first", "k-second", endpoint="cord", key="k1")
    take(store, 100)
    assert why("k-second") == (
        "another of endpoint cord, key k1 is under way, and they go one after the other"
    )
    store.client.hdel("{hooks}:eo", "cord/k1")
    store.client.zadd("{hooks}:eb", {"cord/k1": (now + 600) * 1e6})
    assert why("k-second").startswith("the first of endpoint cord, key k1 is tried again ")
    assert why("many4") == (
        "4 messages of dent under way or with workers, and no more than 4 may be"
    )
    told = cli("status", "hooks").out
    assert "  endpoints   4, of which 1 failing, 1 disabled\n" in told
    assert "all that is ready waits for its endpoints: 1 failing, 1 disabled; " in told
    view = cli("status", "hooks", "alone", "--json").json["destinations"]
    assert view["hooks"]["endpoints"] == {"registered": 4, "failing": 1, "disabled": 1}
    assert view["hooks"]["why"]["code"] == "endpoints"
    assert view["alone"]["endpoints"] is None
    registry.remove(["bolt"], force=True)
    assert "its endpoint bolt is registered no more" in why("barred")
