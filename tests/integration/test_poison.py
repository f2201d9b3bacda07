"""Poison: messages by the function alone, which looks at no payload, among good ones. Each is sent,
or a dead letter with its reason; nothing that reads it afterwards stumbles; the good ones are sent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from paceline.audit import DeepAudit
from paceline.event_forwarder import EventForwarder
from paceline.exporter.collector import Collector
from paceline.exporter.reading import read
from paceline.outbox import OutboxStore
from paceline.settings import Events
from paceline.settings_file import loads
from paceline.sink.thread import SinkThread
from support.cli import CliHere
from support.counter import PLACES
from support.line import NAME, QUICK, Line
from support.mails import PLAIN, neutral
from support.published import published

KEY = "the-only-key"
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MERGE = f"[destinations.{NAME}.merge]\nmost = 20\nlinger_s = 0.02\n"
#: name -> simulator, more lines, tables
CASES = {
    "maxmd": ("maxmd", "", ""),
    "sparkpost": ("sparkpost", "", MERGE),
    "mailgun": ("mailgun", "", MERGE),
    "webhook": ("webhook", "", ""),
    "http": ("http", "", ""),
    "http, merged": ("http", "", MERGE + 'array = ""\n'),
    "http, form": ("http", 'body = "form"\n', ""),
}
POISON: Mapping[str, bytes] = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep-objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "just-deep-enough": b"[" * 99 + b"]" * 99,
    "huge-number": b'{"email":' + b"9" * 10_000 + b"}",
    "huge-exponent": b"1e999",
    "huge-negative": b'{"a":-1e-999999999}',
    "half-a-pair": b'{"email":{"from":"\\ud800","to":["a@b.example"]}}',
    "big-key": b'{"' + b"k" * 10_000_000 + b'":1}',
    "many-keys": b"{" + b",".join(b'"zz%d":1' % n for n in range(100_000)) + b"}",
    "nul": b"\0",
    "nul-within": b'{"a":"\0"}',
    "nul-written": neutral(subject="a\0b", text="\0"),
    "same-key-twice": b'{"email":{"to":["a@b.example"],"to":5},"email":{}}',
    "no-utf-8": b'{"a":"\xff\xfe"}',
    "no-utf-8-in-a-key": b'{"\xff":1}',
    "no-json": b"}{",
    "a-mark": b"\xef\xbb\xbf{}",
    "empty-text": b'""',
    "nothing": b"null",
    "true": b"true",
    "nan": b"NaN",
    "white": b" \n\t",
    "cut": b'{"email":{"from":"a@b.example","to":["c@d',
    "two": b"{}{}",
    "odd-fields": b'{"":[],"\\u0000":"\\u0000","a&b=c":[1e999,-0,null,"\\r\\n",[{}]]}',
    "deep-field": b'{"a":' + b"[" * 98 + b"]" * 98 + b"}",
    "forged-header": neutral(PLAIN, headers={"X-A": "b\r\nBcc: all@example.com"}),
    "long-header": neutral(PLAIN, headers={"X-A": "v" * 60_000}),
    "forged-subject": neutral(subject="a\r\nBcc: all@example.com"),
    "wide": b"[" + b"{}," * 300_000 + b"{}]",
    "types": b'{"email":{"from":[],"to":{},"subject":null,"text":5}}',
    "natives": b'{"recipients":[null],"content":[],"from":{},"to":5,"sender":7,"message":null}',
    # Like a good one that was merged before, but for its address.
    "no-utf-8-in-an-address": neutral().replace(b"jane@example.org", b"j\xffne@example.org"),
    "half-a-pair-as-an-address": neutral().replace(b"jane@example.org", b"\\ud800@example.org"),
    "i.d": neutral(),
    "i" * 128: neutral(),
}
GOOD = {f"good-{n}": neutral() for n in range(5)}


def _toml(case: str, sink: SinkThread) -> str:
    simulator, more, tables = CASES[case]
    path, lines = PLACES[simulator]
    return (
        f'[destinations.{NAME}]\nprovider = "{simulator}"\nurl = "{sink.url}{path}"\n{lines}\n'
        f"rate = 1000\nburst = 400\nmax_payload_bytes = 16000000\n{more}{QUICK}{tables}"
        f'[destinations.{NAME}.events]\nkinds = "all"\n'
    )


@pytest.mark.parametrize("case", CASES)
def test_poison_ends_and_stops_nothing(
    case: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulator = CASES[case][0]
    login = {"username": "u", "password": KEY} if simulator == "maxmd" else {}
    key: dict[str, Any] = {} if simulator in ("maxmd", "http") else {"api_key": KEY}
    key |= {"api_key": SIGNING} if simulator == "webhook" else {}
    if case == "http, form":
        key |= {"validate": False}  # its bodies are no JSON
    monkeypatch.setenv("KEY", KEY)
    monkeypatch.setenv("SIGNING", SIGNING)
    config = tmp_path / "paceline.toml"
    with (
        caplog.at_level(logging.WARNING),
        SinkThread(profile=simulator, recipients=simulator != "http", **login, **key) as sink,
        Line(redis_url, loads(_toml(case, sink)).destinations[NAME]) as line,
    ):
        for message_id, payload in {**POISON, **GOOD}.items():
            line.send_raw(payload, message_id)
        line.wait_done()
        found = {name: line.status(name) for name in (*POISON, *GOOD)}
        assert {status.state for status in found.values()} <= {"sent", "dead"}
        assert {found[name].state for name in GOOD} == {"sent"}, found["good-0"]
        _is_explained(line, case)
        config.write_text(_toml(case, sink))
        _can_be_read(line, CliHere(redis_url, config))
    unforeseen = [r.getMessage() for r in caplog.records if r.exc_info]
    assert not unforeseen, "somebody stumbled"


def _is_explained(line: Line, case: str) -> None:
    for name in POISON:
        status = line.status(name)
        if status.state == "dead":
            reason = status.history[-1]["reason"]
            assert reason, name
            assert reason.isprintable(), (name, reason)
            assert len(reason) < 1000, name
            assert "internal" not in reason, (name, reason)
    # What is no JSON goes out as no JSON, to nobody.
    for name in ("nul", "no-json", "no-utf-8", "cut", "half-a-pair", "deep", "nan", "white", "two"):
        assert line.status(name).state == "dead", (case, name)


def _can_be_read(line: Line, cli: CliHere) -> None:
    """By commands, the audit, the exporter, readers of events, and their forwarder."""
    for command in (
        ("dead", "list", NAME, "--limit", "100", "--json"),
        ("audit", NAME, "--deep", "--json"),
        ("status", NAME, "--json"),
    ):
        seen = cli(*command)
        assert seen.code == 0, seen.err
        json.loads(seen.out)
    assert cli("dead", "list", NAME).code == 0
    for name in ("deep", "no-utf-8", "big-key", "forged-header", "i" * 128):
        assert cli("show", NAME, name).code == 0
        assert json.loads(cli("show", NAME, name, "--json").out)["id"] == name
    assert DeepAudit(line.store).run().sound
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(lambda: read(line.client)))
    assert b"paceline_" in generate_latest(registry)
    told = list(line.outbox.events(NAME, start="first", block_s=0))
    assert {event.id for event in told} >= {*POISON, *GOOD}
    hook: OutboxStore = published(line.client, "hook")
    forwarder = EventForwarder(line.store, hook, Events(kinds=("dead", "sent"), deliver_linger_s=0))
    while forwarder.run_once().events:
        pass
    assert hook.census().law["accepted"] > 0
