"""``paceline send``: bad input named by line and field, nothing half-done, safe to repeat."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from paceline.cli.lines import Line, Lines, Refusal, Rules
from paceline.embedded import EmbeddedServer
from paceline.outbox import OutboxStore
from paceline.records import Live
from support.cli import Cli, open_outbox, put
from support.published import published
from support.servers import connect
from support.wait import until


def accepted(store: OutboxStore) -> int:
    return store.census().law["accepted"]


def test_sends_and_repeats_safely(cli: Cli, store: OutboxStore) -> None:
    file = cli.lines(
        {"payload": {"n": 1}, "id": "a"}, "", '{"payload": [1.50], "id": "b", "priority": "high"}'
    )
    first = cli("send", "api", file)
    assert (first.code, first.err) == (0, "")
    assert first.out == "2 messages accepted by api\n"
    assert store.payload("b") == b"[1.50]"
    again = cli("send", "api", file, "--json")
    assert again.code == 0
    assert again.err == ""
    wanted = {"read": 2, "accepted": 0, "already": 2, "refused": [], "skipped": 0}
    assert {key: again.json[key] for key in wanted} == wanted
    assert accepted(store) == 2


def test_made_ids_and_prefix(cli: Cli, store: OutboxStore) -> None:
    lines = '{"payload": 1}\n\n{"payload": 2}\n'
    plain = cli("send", "api", "-", stdin=lines)
    assert plain.code == 0
    assert plain.err.count("--id-prefix NAME") == 1
    for _ in range(2):
        named = cli("send", "api", "-", "--id-prefix", "run-7", stdin=lines)
        assert (named.code, named.err) == (0, "")
    assert store.payload("run-7-1") == b"1"
    assert store.payload("run-7-3") == b"2"
    assert accepted(store) == 4
    bad = cli("send", "api", "-", "--id-prefix", "no blanks", stdin=lines)
    assert bad.code == 2
    assert "--id-prefix" in bad.err


BAD: list[tuple[str, str, str]] = [
    ("{nope", "line", "one JSON object"),
    ("[1]", "line", "one JSON object"),
    ('{"id": "x"}', "payload: missing", '{"payload": {…}'),
    ('{"payload": 1, "priorty": "high"}', "priorty: unknown key", "Did you mean priority"),
    ('{"payload": 1, "id": 7}', "id: Expected", "--help"),
    ('{"payload": 1, "id": "white space"}', "id: ", "Use 1 to 128"),
    ('{"payload": 1, "priority": "urgent"}', "priority: ", "high, normal, bulk"),
    ('{"payload": 1, "tenant": "a/b"}', "tenant: ", "Use 1 to 64"),
    ('{"payload": 1, "expires": 5}', "expires: already past", "Write a later time"),
    ('{"payload": 1, "not_before": "tomorrow"}', "not_before: ", "Write 2026-"),
    ('{"payload": 1, "delay_s": 5, "not_before": 9}', "delay_s: given together", "one of them"),
    ('{"payload": "' + "x" * 300 + '"}', "payload: 302 bytes", "max_payload_bytes"),
    ('{"payload": "' + "x" * 70_000 + '"}', "payload: 70,", "max_payload_bytes"),
    ('{"payload": 2, "id": "good"}', "id: 'good' is also on line 1", "Use a new id"),
]


def test_every_bad_line_is_named_and_nothing_is_sent(cli: Cli, redis_client: redis.Redis) -> None:
    store = open_outbox(redis_client, max_payload_bytes=256)
    put(store, "before")
    file = cli.lines(
        '{"payload": 1, "id": "good"}', *(line for line, _, _ in BAD), '{"payload": 3, "id": "z"}'
    )
    result = cli("send", "api", file)
    assert result.code == 2
    assert result.out == ""
    told = result.err.splitlines()
    assert len(told) == len(BAD) + 1
    for number, ((_, field, mend), line) in enumerate(zip(BAD, told, strict=False), start=2):
        assert line.startswith(f"paceline: line {number}: {field}"), line
        assert mend in line, line
    assert f"{len(BAD)} bad lines of {len(BAD) + 2}: nothing was sent" in told[-1]
    assert "--skip-invalid" in told[-1]
    assert accepted(store) == 1
    as_json = cli("send", "api", file, "--json")
    assert as_json.code == 2
    assert [entry["line"] for entry in as_json.json["refused"]] == list(range(2, len(BAD) + 2))
    assert all(entry["field"] and entry["problem"] for entry in as_json.json["refused"])
    assert as_json.json["refused"][3]["field"] == "priorty"
    assert as_json.json["refused"][-1]["id"] == "good"
    assert accepted(store) == 1

    skipped = cli("send", "api", file, "--skip-invalid", "--max-errors", "3")
    assert skipped.code == 0
    assert "2 messages accepted" in skipped.out
    assert f"{len(BAD)} bad lines skipped" in skipped.err
    assert f"and {len(BAD) - 3} more bad lines" in skipped.err
    assert store.payload("good") == b"1"
    assert accepted(store) == 3


def test_profile_is_checked_too(cli: Cli, redis_client: redis.Redis) -> None:
    store = open_outbox(redis_client, "maxmd", provider="maxmd")
    message: dict[str, Any] = {
        "sender": "a@x.example",
        "recipients": [{"email": "b@x.example", "type": "TOO"}],
        "subject": "s",
        "body": "b",
    }
    result = cli("send", "maxmd", cli.lines({"payload": message}))
    assert result.code == 2
    assert "line 1: payload.recipients[0].type: " in result.err
    assert accepted(store) == 0


def test_dry_run_sends_nothing(cli: Cli, store: OutboxStore) -> None:
    result = cli("send", "api", cli.lines({"payload": 1, "id": "a"}), "--dry-run")
    assert result.code == 0
    assert "1 message for api would be sent; nothing was" in result.out
    assert accepted(store) == 0


def test_other_payload_is_a_conflict(cli: Cli, store: OutboxStore) -> None:
    put(store, "a")
    before = store.payload("a")
    result = cli(
        "send", "api", cli.lines({"payload": "other", "id": "a"}, {"payload": 2, "id": "b"})
    )
    assert result.code == 1
    assert "line 1: id: message 'a' of 'api' exists already, with another payload" in result.err
    assert "Use a new id" in result.err
    assert "1 message accepted" in result.out
    assert store.payload("a") == before
    assert accepted(store) == 2


def test_full_outbox_keeps_what_was_accepted(cli: Cli, redis_client: redis.Redis) -> None:
    store = open_outbox(redis_client, max_messages=150)
    file = cli.lines(*({"payload": n, "id": f"m{n}"} for n in range(1, 1501)))
    result = cli("send", "api", file)
    assert result.code == 1
    assert "max_messages is 150" in result.err
    assert "Try again in about 5 s, or raise the limit" in result.err
    assert "accepted, and stay so: 150 messages: lines 1–150" in result.err
    assert "not accepted: 1,350 messages" in result.err
    assert "the same command" in result.err
    assert accepted(store) == 150
    as_json = cli("send", "api", file, "--json")
    assert as_json.code == 1
    assert as_json.json["already"] == 150
    assert as_json.json["accepted_lines"] == [[1, 150]]
    assert as_json.json["not_tried"] == 1000  # the next piece was under way already
    assert "max_messages is 150" in as_json.json["stopped"]


def test_full_redis_says_how_far_it_came(cli: Cli, redis_client: redis.Redis) -> None:
    store = open_outbox(redis_client, max_payload_bytes=1_000_000)
    redis_client.config_set(
        "maxmemory", str(int(redis_client.info("memory")["used_memory"]) + 2**22)
    )
    big = "x" * 50_000
    file = cli.lines(*({"payload": f"{n} {big}", "id": f"m{n}"} for n in range(1, 301)))
    result = cli("send", "api", file, "--json")
    redis_client.config_set("maxmemory", "0")
    assert result.code == 1
    assert "memory" in result.json["stopped"]
    assert 0 < result.json["accepted"] < 300
    assert result.json["accepted"] == accepted(store)
    again = cli("send", "api", file, "--json")
    assert (again.code, again.json["already"]) == (0, result.json["accepted"])
    assert accepted(store) == 300


def test_a_call_that_redis_refuses_says_how_far_it_came(
    cli: Cli, redis_client: redis.Redis, store: OutboxStore
) -> None:
    redis_client.set("{api}:r:0:", "somebody else's")
    lines: list[dict[str, Any]] = [{"payload": n, "id": f"m{n}"} for n in range(1, 1501)]
    lines[300]["priority"] = "high"
    result = cli("send", "api", cli.lines(*lines), "--json")
    redis_client.delete("{api}:r:0:")
    assert result.code == 1
    assert "WRONGTYPE" in result.json["stopped"]
    assert result.json["accepted_lines"] == [[1, 300], [302, 750]]
    assert result.json["in_doubt_lines"] == []
    assert accepted(store) == result.json["accepted"] == 749


def test_unknown_destination_names_the_known(cli: Cli, store: OutboxStore) -> None:
    result = cli("send", "apo", cli.lines({"payload": 1}))
    assert result.code == 1
    assert "unknown destination 'apo'. Known: api" in result.err


def test_draining_is_told_at_once(cli: Cli, store: OutboxStore) -> None:
    store.hold("drain")
    result = cli("send", "api", cli.lines({"payload": 1}))
    assert result.code == 1
    assert "paceline resume api" in result.err
    assert accepted(store) == 0


def test_missing_file_and_unreachable_redis(tmp_path: Path) -> None:
    cli = Cli("redis://127.0.0.1:1/0", tmp_path)
    missing = cli("send", "api", "nothing.jsonl")
    assert missing.code == 2
    assert "nothing.jsonl" in missing.err
    away = cli("send", "api", cli.lines({"payload": 1}))
    assert away.code == 3
    assert "Redis is not available" in away.err
    assert "Check that it runs" in away.err
    nowhere = Cli(None, tmp_path)("send", "api", "messages.jsonl")
    assert nowhere.code == 3
    assert "PACELINE_REDIS_URL" in nowhere.err


def test_redis_dies_midway_and_the_command_is_repeated(
    durable_server: EmbeddedServer, tmp_path: Path
) -> None:
    total = 40_000
    cli = Cli(durable_server.url, tmp_path)
    file = cli.lines(*({"payload": {"n": n}} for n in range(total)))
    with connect(durable_server.url) as client:
        store = open_outbox(client)
        process = cli.popen("send", "api", file)
        until(lambda: accepted(store) >= 300, 60, "some accepted")
        durable_server.kill()
        _, err_bytes = process.communicate(timeout=60)
    err = err_bytes.decode()
    assert process.returncode == 3
    said = re.search(r"accepted, and stay so: ([\d,]+) messages: lines 1–(\d+)", err)
    doubt = re.search(r"no answer came: (\d+) messages: lines (\d+)–(\d+)", err)
    prefix = re.search(r"--id-prefix (\S+):", err)
    assert said, err
    assert doubt, err
    assert prefix, err
    sure = int(said[2])
    assert int(said[1].replace(",", "")) == sure
    assert int(doubt[2]) == sure + 1
    durable_server.restart()
    cli = Cli(durable_server.url, tmp_path)
    with connect(durable_server.url) as client:
        store = OutboxStore(client, "api")
        there = accepted(store)
        assert sure <= there <= int(doubt[3])
        again = cli("send", "api", file, "--json", "--id-prefix", prefix[1])
        assert again.code == 0, again
        assert (again.json["already"], again.json["accepted"]) == (there, total - there)
        assert accepted(store) == total


def test_interrupt_says_how_far_it_came(cli: Cli, store: OutboxStore) -> None:
    total = 40_000
    file = cli.lines(*({"payload": n} for n in range(total)))
    process = cli.popen("send", "api", file, "--json", "--id-prefix", "n")
    until(lambda: accepted(store) >= 300, 60, "some accepted")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    said = json.loads(out)
    assert said["stopped"] == "interrupted"
    doubt = sum(last - first + 1 for first, last in said["in_doubt_lines"])
    assert said["accepted"] <= accepted(store) <= said["accepted"] + doubt < total
    again = cli("send", "api", file, "--json", "--id-prefix", "n")
    assert again.code == 0
    assert accepted(store) == total


def test_progress_on_a_terminal_only(cli: Cli, store: OutboxStore) -> None:
    file = cli.lines(*({"payload": n, "id": f"m{n}"} for n in range(300)))
    ours, theirs = pty.openpty()
    process = cli.popen("send", "api", file, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says EIO when the other end has closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(30) == 0
    assert b"send api" in shown
    assert cli("send", "api", file).err == ""


def dues(store: OutboxStore, *ids: str) -> list[float]:
    """When each is due, in seconds from the first; a message that is ready is due at once."""
    heads = [found[0] for found in store.look(list(ids)) if found]
    assert all(isinstance(head, Live) for head in heads)
    times = [(head.due_us or head.at_us) / 1e6 for head in heads if isinstance(head, Live)]
    return [at - times[0] for at in times]


def test_spread_evenly_to_finish_in_time(cli: Cli, store: OutboxStore) -> None:
    lines: list[dict[str, Any]] = [{"payload": n, "id": f"m{n}"} for n in range(100)]
    lines[1]["delay_s"] = 1
    lines[3]["delay_s"] = 3000
    started = time.time()
    result = cli("send", "api", cli.lines(*lines, ""), "--finish-by", "1h", "--json")
    ended = time.time()
    assert result.code == 0
    spread = result.json["spread"]
    assert started + 3600 <= spread["finish_by"] <= ended + 3600
    assert spread["until"] == pytest.approx(spread["finish_by"] - 60)
    assert spread["per_s"] == pytest.approx(100 / 3540, rel=0.01)
    assert store.census().law["scheduled"] in (99, 100)
    found = dues(store, *(f"m{n}" for n in range(100)))
    late = found.pop(3)
    assert late == pytest.approx(3000, abs=ended - started)
    wanted = [n * 35.4 for n in range(100) if n != 3]
    assert found == pytest.approx(wanted, abs=ended - started)
    lasts = store.look(["m99"])[0]
    assert lasts
    assert isinstance(lasts[0], Live)
    assert spread["until"] - 36 <= lasts[0].due_us / 1e6 < spread["until"]


def test_a_spread_is_told_and_repeated_safely(cli: Cli, store: OutboxStore) -> None:
    stdin = "".join(f'{{"payload": {n}}}\n' for n in range(400))
    given = ("send", "api", "-", "--id-prefix", "run")
    dry = cli(*given, "--finish-by", "2h", "--dry-run", stdin=stdin)
    assert (dry.code, accepted(store)) == (0, 0)
    assert "would be spread over 1h 59m, 0.056/s, until 20" in dry.out
    first = cli(*given, "--finish-by", "2h", stdin=stdin)
    assert first.code == 0
    assert "400 messages accepted by api\nspread over 1h 59m, 0.056/s, until 20" in first.out
    assert "no live worker" in first.err
    ids = [f"run-{n}" for n in range(1, 401)]
    before = dues(store, *ids)
    again = cli(*given, "--finish-by", "1h", stdin=stdin)
    assert again.code == 0, again
    assert again.out == "0 messages accepted by api, 400 accepted before\n"
    assert dues(store, *ids) == before


def test_a_file_does_not_stand_in_its_own_way(cli: Cli, store: OutboxStore) -> None:
    lines = [{"payload": n, "id": f"m{n}"} for n in range(900)]
    assert cli("send", "api", cli.lines(*lines[:800])).code == 0
    # 900 need 10 s at 90/s. Eight hundred of them are what waits: counted twice, it would be 18.9.
    rest = cli("send", "api", cli.lines(*lines), "--finish-by", "15s", "--json")
    assert rest.code == 0, rest
    assert (rest.json["accepted"], rest.json["already"]) == (100, 800)


def test_a_file_that_cannot_be_done_in_time_is_refused(cli: Cli, store: OutboxStore) -> None:
    put(store, *(f"b{n}" for n in range(900)))
    file = cli.lines(*({"payload": n, "id": f"m{n}"} for n in range(1800)))
    result = cli("send", "api", file, "--finish-by", "20s")
    assert (result.code, result.out) == (2, "")
    assert "1,800 messages beside 900 that wait need 30 s at 90/s: the rate binds" in result.err
    assert re.search(r"--finish-by leaves 19\.\d s, but", result.err)
    assert re.search(r"or ask for a rate of 1[34]\d/s; --force", result.err)
    assert "Nothing was sent" in result.err
    as_json = cli("send", "api", file, "--finish-by", "20s", "--json")
    assert as_json.code == 2
    assert "beside 900 that wait need 30 s" in as_json.json["stopped"]
    assert as_json.json["spread"] is None
    assert accepted(store) == 900
    forced = cli("send", "api", file, "--finish-by", "20s", "--force", "--json")
    assert forced.code == 0
    assert forced.json["spread"]["per_s"] == pytest.approx(1800 / 19.6, rel=0.1)
    assert accepted(store) == 2700


def test_a_spread_longer_than_a_message_may_wait_is_refused(
    cli: Cli, redis_client: redis.Redis
) -> None:
    store = open_outbox(redis_client, max_age_s=3600.0)
    file = cli.lines({"payload": 1, "id": "a"}, {"payload": 2, "id": "b"})
    result = cli("send", "api", file, "--finish-by", "2h", "--force")
    assert result.code == 2
    assert "max_age_s of api gives a message up after 1h" in result.err
    assert accepted(store) == 0


def test_lines_that_do_not_fit_into_the_spread_are_bad(cli: Cli, store: OutboxStore) -> None:
    file = cli.lines(
        {"payload": 1, "delay_s": 3000, "ttl_s": 7200},
        {"payload": 2, "delay_s": 7200},
        {"payload": 3, "ttl_s": 1800},
    )
    result = cli("send", "api", file, "--finish-by", "1h")
    assert (result.code, accepted(store)) == (2, 0)
    later, expires, _ = result.err.splitlines()
    assert re.search(r"line 2: not_before: after --finish-by, by (59m 59s|1h)\. Write", later)
    assert re.search(r"line 3: expires: before --finish-by, by (29m 59s|30m): it might", expires)
    assert cli("send", "api", file).code == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--finish-by", "soon"), "'--finish-by': 'soon' is no time. Write 09:00"),
        (("--finish-by", "2020-01-01T09:00Z"), "is past, by"),
        (("--force",), "--force goes with --finish-by TIME"),
    ],
)
def test_a_bad_finish_is_told(
    cli: Cli, store: OutboxStore, given: tuple[str, ...], told: str
) -> None:
    result = cli("send", "api", cli.lines({"payload": 1}), *given)
    assert (result.code, result.out, accepted(store)) == (2, "", 0)
    assert told in result.err


def test_a_finish_that_passes_while_the_file_is_read(
    cli: Cli, store: OutboxStore, redis_client: redis.Redis
) -> None:
    process = cli.popen("send", "api", "-", "--finish-by", "1s", stdin=subprocess.PIPE)

    def connected() -> bool:
        return any(entry["name"] == "paceline-cli" for entry in redis_client.client_list())

    until(connected, 60, "the command has read its options")
    passed = time.time() + 1
    until(lambda: time.time() > passed, 10, "the time has passed")
    _, err = process.communicate(b'{"payload": 1}\n', timeout=60)
    assert process.returncode == 2
    assert b"--finish-by has passed" in err
    assert accepted(store) == 0


def read(data: bytes, *, now: float = 1000.0, most: int = 1000) -> list[Line | Refusal]:
    return list(Lines(io.BytesIO(data), Rules("api", "http", most, "p"), now))


def test_files_as_editors_write_them() -> None:
    data = b'\xef\xbb\xbf{"payload": 1, "id": "a"}\r\n  \r\n{"payload": 2, "id": null}'
    found = read(data)
    assert [(line.number, line.message.id, line.made_id) for line in found] == [  # type: ignore[union-attr]
        (1, "a", False),
        (3, "p-3", True),
    ]
    assert found[-1].end == len(data)  # type: ignore[union-attr]


def test_an_endless_line_is_not_held_in_memory() -> None:
    huge = b'{"payload": "' + b"x" * 1_000_000 + b'"}'
    bad, good = read(huge + b'\n{"payload": 1, "id": "a"}\n')
    assert isinstance(bad, Refusal)
    assert (bad.number, bad.field) == (1, "payload")
    assert "1,000,016 bytes" in bad.problem
    assert isinstance(good, Line)
    assert (good.number, good.end) == (2, len(huge) + 27)
    assert len(read(huge)) == 1


def test_the_same_line_twice_is_a_repeat() -> None:
    line = b'{"payload": 1, "id": "a"}\n'
    assert all(isinstance(found, Line) for found in read(line * 3))


def test_a_line_can_expire_between_the_passes() -> None:
    line = b'{"payload": 1, "id": "a", "expires": 1500}'
    assert isinstance(read(line, now=1499)[0], Line)
    late = read(line, now=1500)[0]
    assert isinstance(late, Refusal)
    assert (late.field, late.id) == ("expires", "a")


def test_the_providers_advice_is_told_once_with_a_count(
    cli: Cli, redis_client: redis.Redis
) -> None:
    published(redis_client, "sp", "sparkpost")
    bodies = [
        {
            "recipients": [{"address": f"a{n}@b.example"}],
            "content": {"from": "a@b.example", "subject": "s", "text": "t" * (n % 2 * 102_400)},
        }
        for n in range(5)
    ]
    file = cli.lines(*({"payload": body, "id": f"m{n}"} for n, body in enumerate(bodies)))
    sent = cli("send", "sp", file)
    assert (sent.code, sent.out) == (0, "5 messages accepted by sp\n")
    assert sent.err.startswith("paceline: warning: 2 messages over 100 KB: SparkPost advises")
    assert sent.err.count("\n") == 1
    told = cli("send", "sp", file, "--json", "--dry-run").json["warnings"]
    assert [(one["messages"], one["warning"][:11]) for one in told] == [(2, "over 100 KB")]
