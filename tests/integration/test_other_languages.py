"""Messages put in by one Redis command, without Python: redis-cli, and Node's `redis` package."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
import redis

from paceline import scripts
from paceline.outbox import OutboxStore
from support.node import redis_package

NUMBERS: dict[str, int | float | str] = {
    "rate": 90, "burst": 150, "connections": 10, "reserve": 5, "lease_us": 10_000_000,
    "max_age_us": 10**12, "record_us": 10**12, "max_payload": 1000, "max_count": 100,
    "max_bytes": 10_000, "max_tries": 3, "retry_first_us": 10**6, "on_ambiguous": "retry",
    "throttle_first_us": 10**6, "throttle_cap_us": 10**7,
}  # fmt: skip
NODE = """
import { createClient } from 'redis'
const [url, payload, options] = process.argv.slice(2)
const client = await createClient({ url }).connect()
try {
  const reply = await client.sendCommand(
    ['FCALL', 'paceline_enqueue', '1', '{maxmd}', Buffer.from(payload, 'hex'), options])
  console.log(reply)
} catch (error) {
  console.log(error.message)
}
client.destroy()
"""

Enqueue = Callable[[bytes, str], str]


@pytest.fixture
def store(redis_client: redis.Redis) -> OutboxStore:
    """The destination "maxmd", published as a daemon does at its start."""
    scripts.load_library(redis_client)
    outbox = OutboxStore(redis_client, "maxmd")
    outbox.publish_config("digest", {}, NUMBERS)
    return outbox


def _run(command: list[str | bytes], stdin: bytes | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode().strip()


def by_redis_cli(url: str) -> Enqueue:
    """As the documents say it, with the payload as an argument."""
    return lambda payload, options: _run(
        ["redis-cli", "-u", url, "FCALL", "paceline_enqueue", "1", "{maxmd}", payload, options]
    )


def by_redis_cli_from_stdin(url: str) -> Enqueue:
    """The payload from stdin, where bytes of every value can stand."""
    return lambda payload, options: _run(
        ["redis-cli", "-u", url, "-X", "STDIN", "FCALL", "paceline_enqueue", "1", "{maxmd}",
         "STDIN", options],
        payload,
    )  # fmt: skip


def by_node(url: str) -> Enqueue:
    """Node's own client."""
    program = redis_package() / "enqueue.mjs"
    program.write_text(NODE)
    return lambda payload, options: _run(["node", str(program), url, payload.hex(), options])


CLI = pytest.param(by_redis_cli, marks=pytest.mark.needs("redis-cli"), id="redis-cli")
STDIN = pytest.param(
    by_redis_cli_from_stdin, marks=pytest.mark.needs("redis-cli"), id="redis-cli-stdin"
)
JS = pytest.param(by_node, marks=pytest.mark.needs("node", "npm"), id="node")
TEXTS = [b"[]", b'{"a":[],"n":1152921504606846976,"f":1.0}', '{"name":"Ærøskøbing 🎉"}'.encode()]
EVERY_BYTE = bytes(range(256))


@pytest.mark.parametrize(
    ("language", "payloads"),
    [
        pytest.param(*CLI.values, TEXTS, marks=CLI.marks, id="redis-cli"),
        pytest.param(*STDIN.values, [*TEXTS, EVERY_BYTE], marks=STDIN.marks, id="redis-cli-stdin"),
        pytest.param(*JS.values, [*TEXTS, EVERY_BYTE], marks=JS.marks, id="node"),
    ],
)
def test_payload_bytes_arrive_unchanged(
    store: OutboxStore, redis_url: str, language: Callable[[str], Enqueue], payloads: list[bytes]
) -> None:
    enqueue = language(redis_url)
    for n, payload in enumerate(payloads):
        options = json.dumps({"id": f"m{n}", "priority": "high", "tenant": "t1"})
        assert enqueue(payload, options) == "new"
        assert enqueue(payload, options) == "already"
        assert store.payload(f"m{n}") == payload
    assert store.census().law["ready"] == len(payloads)


@pytest.mark.parametrize("language", [CLI, STDIN, JS])
def test_a_refusal_says_which_field_and_writes_nothing(
    store: OutboxStore, redis_url: str, language: Callable[[str], Enqueue]
) -> None:
    enqueue = language(redis_url)
    for options, words in [
        ("{}", ["PLINVALID", "options.id", "missing"]),
        ('{"id":"a b"}', ["PLINVALID", "options.id", "A-Z a-z 0-9"]),
        ('{"id":"a","priority":"urgent"}', ["PLINVALID", "options.priority", "high, normal"]),
        ('{"id":"a","delay_s":"5"}', ["PLINVALID", "options.delay_s", "number"]),
        ('{"id":"a","colour":1}', ["PLINVALID", "options.colour", "unknown"]),
        ("[]", ["PLINVALID", "options", "not a JSON object"]),
        ("{", ["PLINVALID", "options", "not a JSON object"]),
    ]:
        answer = enqueue(b"[]", options)
        assert all(word in answer for word in words), answer
    assert "PLTOOBIG payload: 1001 bytes" in enqueue(b"x" * 1001, '{"id":"a"}')
    assert store.census().law["accepted"] == 0
    assert list(store.all_ids()) == []


@pytest.mark.parametrize("language", [CLI, JS])
def test_the_same_id_with_another_payload_is_refused(
    store: OutboxStore, redis_url: str, language: Callable[[str], Enqueue]
) -> None:
    enqueue = language(redis_url)
    assert enqueue(b"[1]", '{"id":"m"}') == "new"
    assert enqueue(b"[2]", '{"id":"m"}').startswith("PLCONFLICT options.id: m was used before")
    assert store.payload("m") == b"[1]"


@pytest.mark.needs("redis-cli")
def test_a_message_is_cancelled_by_one_command(store: OutboxStore, redis_url: str) -> None:
    def cancel(*arguments: str) -> str:
        command = ["redis-cli", "-u", redis_url, "FCALL", "paceline_cancel", "1", *arguments]
        return _run(list(command))

    by_redis_cli(redis_url)(b"[]", '{"id":"m"}')
    assert cancel("{maxmd}", "m") == "cancelled"
    assert cancel("{maxmd}", "m") == "already"
    assert cancel("{maxmd}", "n") == "unknown"
    assert cancel("{maxmd}", "+n").startswith("PLINVALID id: must be 1 to 128 characters")
    assert cancel("{maxmd}").startswith("PLINVALID arguments: must be the id of one message")
    assert cancel("{maxmd}", "m", "n").startswith("PLINVALID arguments")
    assert cancel("maxmd", "m").startswith("PLINVALID key")
    assert cancel("{maxmb}", "m").startswith("PLUNKNOWN destination maxmb is not configured")
    assert store.census().law["cancelled"] == 1


@pytest.mark.needs("redis-cli")
def test_an_unknown_destination_is_refused_by_its_name(store: OutboxStore, redis_url: str) -> None:
    answer = _run(
        ["redis-cli", "-u", redis_url, "FCALL", "paceline_enqueue", "1", "{maxmb}", "[]", "{}"]
    )
    assert answer.startswith("PLUNKNOWN destination maxmb is not configured")
