"""Doctor's judgement: what is fine, what is doubtful, what is wrong; and what "accepted" means."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from paceline import logs
from paceline.census import CONTAINERS, END_TERMS, IN_TERMS, Census, WorkerSeen
from paceline.doctor import endpoint_judge, local_checks, outbox_judge, redis_judge
from paceline.doctor.endpoint_facts import AddressFacts, Certificate, EndpointFacts
from paceline.doctor.finding import Finding, healthy
from paceline.doctor.redis_facts import RedisFacts
from paceline.hidden import hide_secrets_of
from paceline.secrets_ import Secret
from paceline.settings import Destination, RedisSettings, Settings

INFO: dict[str, Any] = {
    "redis_version": "7.2.4", "role": "master", "aof_enabled": 1, "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok", "rdb_last_bgsave_status": "ok", "maxmemory": 1000 * 1024**2,
    "used_memory": 10 * 1024**2, "maxmemory_policy": "noeviction", "connected_slaves": 1,
    "evicted_keys": 0, "aof_current_size": 1024**2,
}  # fmt: skip
CONFIG = {"appendfsync": "always", "min-replicas-to-write": "1"}
WELL = RedisFacts(
    url="redis://r", info=INFO, config=CONFIG, ahead_s=0.01, pings_s=(0.001, 0.0002, 0.0003),
    library=1, user="default", aof_dir="/d", disk_free_bytes=10 * 1024**3, disk_bytes=10**12,
)  # fmt: skip


def bad(findings: list[Finding]) -> dict[str, str]:
    """check -> level of what is not ok."""
    return {f.check: f.level for f in findings if f.level != "ok"}


def info(**changed: Any) -> RedisFacts:
    return replace(WELL, info={**INFO, **changed})


def config(**changed: str) -> RedisFacts:
    return replace(WELL, config={**CONFIG, **{k.replace("_", "-"): v for k, v in changed.items()}})


def test_a_redis_as_it_should_be() -> None:
    findings = redis_judge.judge(WELL, 1)
    assert bad(findings) == {}
    assert len(findings) >= 11
    assert healthy(findings, strict=True)


@pytest.mark.parametrize(
    ("facts", "check", "level"),
    [
        (replace(WELL, trouble="refused", mend="start it"), "answers", "fail"),
        (info(redis_version="6.2.14"), "version", "fail"),
        (info(redis_version=""), "version", "warn"),
        (info(role="slave"), "role", "fail"),
        (info(aof_enabled=0), "append-only file", "fail"),
        (info(aof_last_write_status="err"), "append-only file", "fail"),
        (info(aof_last_bgrewrite_status="err"), "append-only file", "warn"),
        (config(appendfsync="everysec"), "fsync", "warn"),
        (config(appendfsync="no"), "fsync", "fail"),
        (config(no_appendfsync_on_rewrite="yes"), "fsync", "warn"),
        (replace(WELL, config=None), "fsync", "warn"),
        (info(maxmemory_policy="allkeys-lru"), "eviction", "fail"),
        (info(evicted_keys=3), "eviction", "fail"),
        (info(used_memory=701 * 1024**2), "memory", "warn"),
        (info(maxmemory=0, used_memory=9, total_system_memory=10), "memory", "warn"),
        (info(rdb_last_bgsave_status="err"), "snapshot", "fail"),
        (replace(WELL, disk_free_bytes=1024**2), "disk", "fail"),
        (info(aof_current_size=6 * 1024**3), "disk", "warn"),
        (info(connected_slaves=0), "replicas", "fail"),
        (config(min_replicas_to_write="0"), "replicas", "warn"),
        (config(min_replicas_max_lag="0"), "replicas", "warn"),
        (replace(WELL, ahead_s=-3.0), "clock", "warn"),
        (replace(WELL, ahead_s=300.0), "clock", "fail"),
        (replace(WELL, pings_s=(0.02, 0.001, 0.03)), "latency", "warn"),
        (replace(WELL, library=None), "function library", "fail"),
        (replace(WELL, library=0), "function library", "warn"),
        (replace(WELL, lacking=("ZADD on {d}:n",)), "rights", "fail"),
        (replace(WELL, refused=("CONFIG GET",)), "rights", "warn"),
    ],
)
def test_each_thing_that_can_be_wrong_with_redis(facts: RedisFacts, check: str, level: str) -> None:
    findings = redis_judge.judge(facts, 1)
    assert bad(findings) == {check: level}
    [finding] = [f for f in findings if f.level != "ok"]
    assert finding.text
    assert finding.mend
    assert healthy(findings) is (level == "warn")
    assert not healthy(findings, strict=True)


def test_a_library_of_another_version() -> None:
    assert bad(redis_judge.judge(replace(WELL, library=1), 2)) == {"function library": "warn"}
    assert bad(redis_judge.judge(replace(WELL, library=3), 2)) == {}


@pytest.mark.parametrize(
    ("facts", "said", "unsaid"),
    [
        (WELL, "of Redis, and of its machine", "may be lost"),
        (config(appendfsync="everysec"), "up to 2 s of it may be lost", "and of its machine"),
        (config(appendfsync="no"), "half a minute", "and of its machine"),
        (replace(WELL, config=None), "is not known", "and of its machine"),
        (info(aof_enabled=0), "is lost with Redis's process", "survives"),
        (info(maxmemory_policy="allkeys-lru"), "a full Redis evicts", "no replica"),
        (info(aof_last_write_status="err"), "Weakened: the last write", "no replica"),
        (config(no_appendfsync_on_rewrite="yes"), "nothing is synced while", "no replica"),
        (info(connected_slaves=0), "The loss of its disk loses it", "may lose what"),
        (WELL, "a fail-over may lose what was not copied", "no replica"),
        (replace(WELL, trouble="x"), "cannot be told", "survives"),
    ],
)
def test_what_accepted_means(facts: RedisFacts, said: str, unsaid: str) -> None:
    text = redis_judge.durability(facts)
    assert said in text
    assert unsaid not in text


NOW = 1_800_000_000.0
CERTIFICATE = Certificate(subject="api.example", issuer="A CA", expires_s=NOW + 90 * 86400)
REACHED = AddressFacts(
    address="192.0.2.1", connect_s=0.01, tls_s=0.02, tls_version="TLSv1.3", certificate=CERTIFICATE
)
ENDPOINT = EndpointFacts(
    host="api.example", port=443, tls=True, loopback=False, resolve_s=0.001, addresses=(REACHED,)
)
REFUSED = AddressFacts(address="192.0.2.2", trouble="Connection refused")
GUARDED = AddressFacts(address="10.0.0.7", guarded="private")


def expiring(days: float) -> EndpointFacts:
    certificate = replace(CERTIFICATE, expires_s=NOW + days * 86400)
    return replace(ENDPOINT, addresses=(replace(REACHED, certificate=certificate),))


def proxied(address: AddressFacts) -> EndpointFacts:
    return replace(
        ENDPOINT, proxy="proxy.example:3128", proxy_host="proxy.example", addresses=(address,)
    )


def untrusted(code: int) -> EndpointFacts:
    address = replace(REACHED, certificate=None, tls_s=None, tls_trouble="bad", tls_code=code)
    return replace(ENDPOINT, addresses=(address,))


@pytest.mark.parametrize(
    ("facts", "wrong"),
    [
        (ENDPOINT, {}),
        (replace(ENDPOINT, trouble="no such name", addresses=()), {"name": "fail"}),
        (replace(ENDPOINT, unfinished=True), {"name": "fail"}),
        (replace(ENDPOINT, addresses=(REFUSED,)), {"connect": "fail"}),
        (replace(ENDPOINT, addresses=(REFUSED, REACHED)), {"connect": "warn"}),
        (replace(ENDPOINT, addresses=(GUARDED,)), {"guard": "fail"}),
        (replace(ENDPOINT, addresses=(GUARDED, REACHED)), {"guard": "warn"}),
        (replace(ENDPOINT, addresses=(GUARDED, REFUSED)), {"guard": "fail", "connect": "fail"}),
        (replace(ENDPOINT, ca_trouble="ca.pem: no such file"), {"ca_file": "fail"}),
        (replace(ENDPOINT, tls=False), {"plain http": "warn"}),
        (replace(ENDPOINT, tls=False, loopback=True), {}),
        (expiring(20.9), {"certificate": "warn"}),
        (expiring(21.1), {}),
        (expiring(-0.1), {"certificate": "fail"}),
        (untrusted(10), {"certificate": "fail"}),
        (untrusted(62), {"certificate": "fail"}),
        (untrusted(0), {"tls": "fail"}),
        (proxied(REACHED), {}),
        (proxied(REFUSED), {"connect": "fail"}),
        (proxied(replace(REACHED, refused="answered 407")), {"proxy": "fail"}),
    ],
)
def test_endpoints(facts: EndpointFacts, wrong: dict[str, str]) -> None:
    findings = endpoint_judge.judge("web", facts, now_s=NOW)
    assert bad(findings) == wrong
    assert all(f.mend for f in findings if f.level != "ok")


def test_what_the_guard_refuses_is_told_with_what_becomes_of_messages() -> None:
    def told(*addresses: AddressFacts) -> Finding:
        findings = endpoint_judge.judge("web", replace(ENDPOINT, addresses=addresses), now_s=NOW)
        return next(f for f in findings if f.check == "guard")

    alone, beside = told(GUARDED), told(GUARDED, REFUSED)
    assert alone.text.startswith("10.0.0.7:443 is private")
    assert 'guard_allow = ["10.0.0.7"]' in alone.mend
    assert "dead letter" in alone.mend
    assert "dead letter" not in beside.mend, "they wait until the other one answers"


def test_behind_a_proxy_it_is_said_whose_address_is_whose() -> None:
    found = {f.check: f.text for f in endpoint_judge.judge("web", proxied(REACHED), now_s=NOW)}
    assert found["name"].startswith("proxy.example is 192.0.2.1 ")
    assert found["connect"].startswith("192.0.2.1:3128 (the proxy to api.example:443) connects")
    assert found["certificate"].startswith("api.example:443: api.example, by A CA")


def test_an_untrusted_certificate_says_which_file_mends_it() -> None:
    def mend(code: int, has_ca_file: bool) -> str:
        findings = endpoint_judge.judge("w", untrusted(code), now_s=NOW, has_ca_file=has_ca_file)
        return next(f.mend for f in findings if f.level == "fail")

    assert "give" in mend(20, False)
    assert "ca_file does not hold" in mend(20, True)
    assert "renew" in mend(10, True)
    assert "name" in mend(62, False)


def census(**given: Any) -> Census:
    law = dict.fromkeys((*IN_TERMS, *END_TERMS, *CONTAINERS), 0) | given.pop("law", {})
    fields: dict[str, Any] = {
        "destination": "web", "now_us": 10**15, "law": law, "counters": {}, "sizes": {},
        "gate": {}, "config": {"max_count": "100", "max_bytes": "1000", "version": "2"},
        "workers": [WorkerSeen(id="w", live=True, lease_left_s=5, slots=5, facts={})],
        "daemons": 1, "outcomes": {}, "histogram": {},
    }  # fmt: skip
    return Census(**{**fields, **given})


WAITING = {"accepted": 5, "ready": 5}
SILENT = WorkerSeen(id="w", live=False, lease_left_s=-9, slots=5, facts={"host": "h"})


@pytest.mark.parametrize(
    ("given", "differences", "wrong"),
    [
        ({}, "", {}),
        ({}, None, {}),
        ({}, "rate is 9 there, 8 here", {"configuration": "fail"}),
        ({"config": {}}, None, {"published": "warn"}),
        ({"daemons": 0}, "", {"daemon": "warn"}),
        ({"daemons": 0, "law": WAITING}, "", {"daemon": "fail"}),
        ({"workers": []}, "", {"workers": "warn"}),
        ({"workers": [], "law": WAITING}, "", {"workers": "fail"}),
        ({"gate": {"pause_until": "-1", "pause_why": "x"}}, "", {"open": "warn"}),
        ({"gate": {"hold_until": "-1", "hold_kind": "held"}}, "", {"open": "fail"}),
        ({"gate": {"draining": "ann"}}, "", {"open": "warn"}),
        ({"gate": {"full": "900000000000000000 7 80% is used"}}, "", {"intake": "fail"}),
        ({"law": {"accepted": 1}}, "", {"accounts": "fail"}),
        ({"law": {"accepted": 85, "dead": 85}}, "", {"room": "warn"}),
        ({"law": {"accepted": 100, "dead": 100}}, "", {"room": "fail"}),
        ({"counters": {"bytes": 900}}, "", {"room": "warn"}),
    ],
)
def test_outboxes(given: dict[str, Any], differences: str | None, wrong: dict[str, str]) -> None:
    assert bad(outbox_judge.judge(census(**given), differences)) == wrong


def test_a_silent_worker_is_named() -> None:
    findings = outbox_judge.judge(census(workers=[SILENT]), "")
    assert any("w is silent for 9 s" in f.text and "on h" in f.mend for f in findings)


def test_open_files() -> None:
    to = Destination(name="web", provider="http", urls=("http://127.0.0.1:9/",), burst=500,
                     connections=100)  # fmt: skip
    assert local_checks.open_files([to], 1024).level == "ok"
    assert local_checks.open_files([to], 256).level == "fail"


def test_secrets_are_read_and_not_shown(tmp_path: Path) -> None:
    kept = tmp_path / "password"
    kept.write_text("hunter2x\n")
    kept.chmod(0o600)
    to = Destination(
        name="web",
        provider="http",
        urls=("http://127.0.0.1:9/",),
        username=Secret("destinations.web.username", "env", "WHO"),
        password=Secret("destinations.web.password", "file", str(kept)),
    )
    found = list(local_checks.secrets(to, {"WHO": "ann"}))
    assert bad(found) == {}
    kept.chmod(0o644)
    assert bad(list(local_checks.secrets(to, {"WHO": "ann"}))) == {"secrets": "warn"}
    missing = list(local_checks.secrets(to, {}))
    assert [f.text for f in missing if f.level == "fail"] == [
        "destinations.web.username: the environment variable WHO is not set"
    ]
    assert "hunter2x" not in str([*found, *missing])


def test_a_webhooks_key_is_looked_at_and_not_shown() -> None:
    to = Destination(
        name="web",
        provider="webhook",
        urls=("http://127.0.0.1:9/",),
        secrets=tuple(Secret(f"destinations.web.secrets[{n}]", "env", f"K{n}") for n in range(3)),
    )
    environ = {"K0": "whsec_" + "k" * 32, "K1": "whsec_hunter2!", "K2": "whsec_" + "k" * 8}
    found = list(local_checks.secrets(to, environ))
    assert [f.text for f in found] == [
        "destinations.web.secrets[1]: is no base64 behind whsec_",
        "destinations.web.secrets[2]: is a key of 6 bytes, not of 24 to 64",
        "readable: secrets[0]",
    ]


def test_no_secret_of_a_destination_is_forgotten() -> None:
    """Neither by the doctor, who looks whether it is there, nor by what covers secrets in logs."""
    kinds = get_type_hints(Destination)
    names = [name for name, kind in kinds.items() if kind == Secret | None]
    assert len(names) >= 5
    values = {
        name: Secret(f"destinations.web.{name}", "value", f"{name}-hunter9") for name in names
    }
    signs = [Secret(f"s[{n}]", "value", f"whsec_key{n}-hunter9") for n in range(2)]
    more: dict[str, Any] = {"headers": {"X-Key": Secret("k", "value", "header-hunter9")}, **values}
    more["secrets"] = tuple(signs)
    to = Destination(name="web", provider="http", urls=("http://127.0.0.1:9/",), **more)
    assert {secret.ref for _, secret in local_checks.secrets_of(to)} == {
        *(secret.ref for secret in values.values()),
        "header-hunter9",
        *(secret.ref for secret in signs),
    }
    hide_secrets_of(logs.veil(), to, {}, ("value",))
    basic = b64encode(b"api:api_key-hunter9").decode()
    for text in (*(f"{name}-hunter9" for name in names if "username" not in name), basic):
        assert text not in logs.veil().cover(f"it is {text} here")
    for text in ("whsec_key0-hunter9", "key1-hunter9"):
        assert "hunter9" not in logs.veil().cover(f"it is {text} here")
    assert "header-hunter9" not in logs.veil().cover("header-hunter9")


def test_a_configuration_that_holds_secrets_and_that_all_may_read(tmp_path: Path) -> None:
    source = tmp_path / "paceline.toml"
    source.write_text("")
    to = Destination(
        name="web", provider="http", urls=("http://127.0.0.1:9/",),
        password=Secret("destinations.web.password", "value", "hunter2x"),
    )  # fmt: skip
    settings = Settings(redis=RedisSettings(), destinations={"web": to}, warnings=("mind",))
    source.chmod(0o600)
    found = list(local_checks.configuration(source, settings))
    assert [f.text for f in found if f.level == "warn"] == ["mind"]
    source.chmod(0o644)
    found = list(local_checks.configuration(source, settings))
    assert [f.check for f in found if f.level == "warn"] == ["file", "secrets"]
    assert "hunter2x" not in str(found)
