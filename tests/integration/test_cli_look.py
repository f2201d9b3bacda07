"""``paceline status``, ``show`` and ``audit``: what is told, and that planted damage is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from paceline import keys
from paceline.answers import Settlement
from paceline.audit import DeepAudit
from paceline.cli import COMMANDS
from paceline.outbox import OutboxStore
from paceline.settings import Tenant
from support.cli import Cli, Result, open_outbox, put, shelve, take

LAW = {
    "accepted", "moved_in", "sent", "expired", "cancelled", "dropped", "moved_out", "dead",
    "parked", "ready", "scheduled", "leased",
}  # fmt: skip


def populate(store: OutboxStore) -> None:
    """One of each: sent, dead, parked, leased, ready, scheduled, cancelled."""
    put(store, "done")
    nonce = take(store, 1)
    store.settle(
        [Settlement(id="done", nonce=nonce, action="sent", latency_s=0.04, label="sent:200")]
    )
    shelve(store, "dead", "code 2: no such box", "lost-cause")
    shelve(store, "parked", "ambiguous: reset", "unknown-fate")
    put(store, "gone")
    store.cancel(["gone"])
    put(store, "out")
    take(store, 1)
    put(store, "waits-1", "waits-2", tenant="t")
    put(store, "later", delay_s=4e9)


def test_status_of_everything(cli: Cli, store: OutboxStore) -> None:
    populate(store)
    result = cli("status", "--json")
    assert result.code == 0
    assert result.err == ""
    view = result.json["destinations"]["api"]
    assert set(view) >= LAW
    assert view["sound"] is True
    assert {term: view[term] for term in LAW} == dict(store.census().law)
    assert [view[t] for t in ("sent", "dead", "parked", "leased", "ready", "scheduled")] == [
        1, 1, 1, 1, 2, 1,
    ]  # fmt: skip
    assert (view["rate"], view["burst"], view["bucket"]["size"]) == (90.0, 150, 140)
    assert view["workers"][0]["id"] == "w1"
    assert view["workers"][0]["connections"] == 10
    assert view["live_workers"] == 1
    assert view["why"]["code"] == "no-daemon"
    assert 0.025 <= view["latency"]["api"]["p50_s"] <= 0.05
    assert view["backlog_s"] == pytest.approx(4 / 90)
    assert view["eta_s"] is None
    table = cli("status")
    assert table.code == 0
    assert "no daemon runs" in table.out
    full = cli("status", "api")
    assert "2 ready (high 0, normal 2, bulk 0), 1 scheduled, 1 with workers" in full.out
    assert "w1 on somewhere: 10 connections" in full.out


def test_status_says_why(cli: Cli, store: OutboxStore) -> None:
    nothing = cli("status", "api", "--json").json["destinations"]["api"]
    assert nothing["why"] == {"code": "nothing", "text": "nothing waits"}
    put(store, "a")
    store.hold("pause", for_s=600, why="their maintenance", who="ann@ops")
    paused = cli("status", "api", "--json").json["destinations"]["api"]
    assert paused["why"]["code"] == "paused"
    [closure] = paused["closed"]
    assert (closure["reason"], closure["who"]) == ("their maintenance", "ann@ops")
    assert 590 < closure["left_s"] <= 600
    store.hold("resume")
    store.reap("run", "daemon-1")
    no_worker = cli("status", "api", "--json").json["destinations"]["api"]
    assert no_worker["why"]["code"] == "no-worker"
    assert "paceline worker api" in no_worker["why"]["text"]
    store.reap("run", "daemon-1")  # again: it counts as live for 5 s
    store.slots("beat", "w1", 0)
    rate = cli("status", "api", "--json").json["destinations"]["api"]
    assert rate["why"]["code"] == "rate"
    assert rate["eta_s"] == pytest.approx(1 / 90)
    assert rate["intake_shut"] is None
    store.press("shut", 15.0, 7, "80% of Redis's memory is used", None)
    shut = cli("status", "api", "--json").json["destinations"]["api"]
    assert shut["intake_shut"] == "80% of Redis's memory is used"
    assert "intake      shut: 80% of Redis's memory is used" in cli("status", "api").out


def test_a_tenant_over_its_cap_is_named(cli: Cli, redis_client: redis.Redis) -> None:
    caps = {"acme": Tenant(rate=0.01, burst=2)}
    store = open_outbox(redis_client, tenants=caps)
    put(store, *(f"a-{n}" for n in range(5)), tenant="acme")
    take(store, 5)
    put(store, "b")
    store.reap("run", "daemon-1")
    store.reap("run", "daemon-1")
    shown = cli("show", "api", "a-4")
    assert "tenant acme has used up its own rate, 0.01/s" in shown.out
    assert "goes with the next batch" in cli("show", "api", "b").out
    why = cli("status", "api", "--json").json["destinations"]["api"]["why"]
    assert why["code"] == "tenant-cap"
    assert "acme" in why["text"]


def test_status_where_nothing_is_known(cli: Cli, store: OutboxStore) -> None:
    unknown = cli("status", "apo")
    assert unknown.code == 1
    assert "Known: api" in unknown.err
    store.client.flushall()
    empty = cli("status")
    assert empty.code == 0
    assert "start the daemon" in empty.out


def test_show(cli: Cli, store: OutboxStore) -> None:
    populate(store)
    dead = cli("show", "api", "lost-cause")
    assert dead.code == 0
    assert "api lost-cause: dead" in dead.out
    assert "rejected: code 2: no such box" in dead.out
    assert "[bold]no such box[/]" in dead.out
    assert "paceline dead replay api lost-cause" in dead.out
    as_json = cli("show", "api", "lost-cause", "--json").json
    assert (as_json["state"], as_json["attempts"], as_json["tries"]) == ("dead", 0, 1)
    assert as_json["history"][0]["reason"] == "code 2: no such box"
    assert as_json["age_s"] >= 0
    assert cli("show", "api", "waits-1", "--payload").out == '{"n":"waits-1"}'
    assert "with worker w1" in cli("show", "api", "out").out
    ended = cli("show", "api", "done", "--payload")
    assert ended.code == 1
    assert "is sent" in ended.err
    unknown = cli("show", "api", "nobody")
    assert unknown.code == 1
    assert "knows no message 'nobody'. Check the id" in unknown.err


def test_audit_of_a_sound_outbox(cli: Cli, store: OutboxStore) -> None:
    populate(store)
    result = cli("audit", "--deep")
    assert result.code == 0, result
    assert "accepted 8 + moved_in 0 = 8" in result.out
    assert "+ dead 1 + parked 1 + ready 2 + scheduled 1 + leased 1 = 8" in result.out
    assert "every message agrees with its container" in result.out
    view = cli("audit", "api", "--deep", "--json").json["destinations"]["api"]
    assert set(view) >= LAW
    assert (view["deep"]["messages"], view["deep"]["records"], view["deep"]["places"]) == (6, 2, 6)
    assert view["deep"]["bytes_found"] == view["deep"]["bytes_counter"] > 0
    # Looking changed nothing.
    assert cli("audit", "api", "--deep", "--json").json["destinations"]["api"] == view


def key(name: str) -> str:
    return keys.key("api", name)


Plant = Callable[[redis.Redis], object]
DAMAGE: dict[str, tuple[Plant, str, str, bool]] = {
    "a lost message key": (
        lambda c: c.delete(key("m:waits-1")), "no-message", "waits-1", True,
    ),
    "a message in no container": (
        lambda c: c.zrem(key("r:1:t"), "waits-1"), "no-container", "waits-1", False,
    ),
    "a dead letter off its shelf": (
        lambda c: c.zrem(key("dead"), "lost-cause"), "no-container", "lost-cause", False,
    ),
    "a wrong byte counter": (
        lambda c: c.hincrby(key("n"), "bytes", 7), "bytes", "n.bytes", True,
    ),
    "one in two containers": (
        lambda c: c.zadd(key("parked"), {"waits-1": 1}), "other-state", "waits-1", False,
    ),
    "one in two batches": (
        lambda c: (c.sadd(key("b:ffffffffffffffff"), "out"),
                   c.zadd(key("batches"), {"ffffffffffffffff": 9e15})),
        "other-state", "out", False,
    ),
    "an ended one in a container": (
        lambda c: c.zadd(key("s"), {"done": 9e15}), "other-state", "done", False,
    ),
    "a tenant out of its ring": (
        lambda c: c.zrem(key("t:1"), "t"), "unserved", "r:1:t", False,
    ),
    "a ring without its tenant": (
        lambda c: c.zadd(key("t:0"), {"idle": 0}), "empty-ring", "r:0:idle", True,
    ),
    "a foreign key": (
        lambda c: c.hset(key("m:alien"), "a", "b"), "unreadable", "alien", True,
    ),
    "a garbled message": (
        lambda c: c.set(key("m:alien"), "hello"), "unreadable", "alien", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_deep_audit_finds(
    what: str, cli: Cli, store: OutboxStore, redis_client: redis.Redis
) -> None:
    plant, kind, subject, law_holds = DAMAGE[what]
    populate(store)
    plant(redis_client)
    findings = DeepAudit(store).run()
    assert (kind, subject) in {(fault.kind, fault.subject) for fault in findings.faults}
    assert all(fault.problem and fault.mend for fault in findings.faults)
    assert store.census().sound is law_holds


def test_damage_in_words(cli: Cli, store: OutboxStore, redis_client: redis.Redis) -> None:
    populate(store)
    redis_client.delete(key("m:waits-1"))
    result = cli("audit", "--deep")
    assert result.code == 1
    assert "waits-1: is in ready (r:1:t), but its message is gone" in result.out
    assert "send it again from its source" in result.out
    # The law alone cannot see it: the place is still counted.
    assert cli("audit").code == 0
    redis_client.hincrby(key("n"), "sent", -1)
    law = cli("audit")
    assert law.code == 1
    assert "NOT SOUND: 1 message came in and cannot be accounted for" in law.out
    assert "--deep" in law.out
    as_json = cli("audit", "--json")
    assert as_json.code == 1
    assert (as_json.json["sound"], as_json.json["destinations"]["api"]["difference"]) == (False, 1)
    status = cli("status")
    assert status.code == 1
    assert "NOT SOUND" in status.out


def test_only_the_first_twenty_are_named(store: OutboxStore, redis_client: redis.Redis) -> None:
    put(store, *(f"m{n}" for n in range(50)))
    redis_client.delete(*(key(f"m:m{n}") for n in range(45)))
    findings = DeepAudit(store).run()
    assert findings.counts["no-message"] == 45
    assert len(findings.faults) == 20


class Moving(OutboxStore):
    """An outbox whose messages move just when they are looked at."""

    moves = 0

    def look(self, ids):  # type: ignore[no-untyped-def]
        found = super().look(ids)
        # Taken and settled between the audit's two looks, as a worker would.
        waiting = [i for i, f in zip(ids, found, strict=True) if f and f[0].state == "ready"]
        if waiting:
            self.moves += 1
            nonce = take(self, 1)
            self.settle([Settlement(id=i, nonce=nonce, action="sent") for i in waiting])
            found = super().look(ids)
        return found


def test_what_moves_meanwhile_is_no_fault(store: OutboxStore, redis_client: redis.Redis) -> None:
    moving = Moving(redis_client, "api")
    put(store, *(f"m{n}" for n in range(30)))
    findings = DeepAudit(moving, rest=lambda _: None).run()
    assert moving.moves > 0
    assert findings.sound
    assert findings.bytes_found is None


def test_help_imports_little() -> None:
    """``paceline --help`` stays quick: neither redis (100 ms alone) nor rq, requests, rich's
    tables."""
    code = (
        "import json, sys\n"
        "from paceline.cli import run\n"
        "sys.argv = ['paceline', '--help']\n"
        "assert run() == 0\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"redis", "rq", "requests", "rich.console", "msgspec", "asyncio"}


OURS = [n for n, place in COMMANDS.items() if place[0].startswith("paceline.cli.")]


@pytest.mark.parametrize("name", OURS)
def test_help_of_each_command(name: str, tmp_path: Path) -> None:
    result = Cli(None, tmp_path)(name, "--help")
    assert result.code == 0
    summary = COMMANDS[name][2].rstrip(".")
    assert " ".join(summary.split()) in " ".join(result.out.split())
    assert "..." not in result.out.partition("\nCommands:\n")[2], "a summary is cut off"
    if COMMANDS[name][0] != "paceline.cli.processes":
        assert "Example" in result.out
        assert f"paceline {name}" in result.out


CONFIG = """
[destinations.api]
provider = "http"
url = "http://127.0.0.1:9/none"
allow_plain_http = true
"""


def with_config(cli: Cli, text: str) -> Result:
    (cli.folder / "paceline.toml").write_text(text, encoding="utf-8")
    return cli("status")


def test_bad_configuration_is_named(cli: Cli, store: OutboxStore) -> None:
    put(store, "before")
    assert with_config(cli, CONFIG).code == 0
    unknown = with_config(cli, CONFIG + "ratte = 90\n")
    assert unknown.code == 2
    assert "destinations.api.ratte" in unknown.err
    assert "rate" in unknown.err
    contradictory = with_config(cli, CONFIG + "rate = 90\nburst = 0\n")
    assert contradictory.code == 2
    assert "destinations.api.burst" in contradictory.err
    missing = cli("status", "--config", "nowhere.toml")
    assert missing.code == 2
    assert "nowhere.toml" in missing.err
    assert "--config" in missing.err
    assert store.census().law["ready"] == 1
