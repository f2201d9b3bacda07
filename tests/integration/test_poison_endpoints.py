"""Poison where a destination has many endpoints: names that none has, and what somebody's hand
wrote into the registry and into what is known of each. A message is refused at intake, sent, a dead
letter with its reason, or waits until its endpoint is registered again; the others' go on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from redis.exceptions import ResponseError

from paceline.audit import DeepAudit
from paceline.endpoint_registry import EndpointRegistry
from paceline.endpoints import Endpoint
from paceline.errors import EndpointDisabled
from paceline.exporter.collector import Collector
from paceline.exporter.reading import read
from paceline.settings_file import loads
from support.cli import CliHere
from support.line import NAME, QUICK, Line
from support.peers import OK, Peer, answers
from support.wait import until

SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOML = (
    f'[destinations.{NAME}]\nprovider = "webhook"\nsecrets = ["{SIGNING}"]\nrate = 1000\n'
    f'burst = 400\nguard_allow = ["127.0.0.1"]\n{QUICK}[destinations.{NAME}.endpoints]\n'
    f'[destinations.{NAME}.events]\nkinds = "all"\n'
)
URL = b'{"url":"http://127.0.0.1:1/"'
NO_NAMES: tuple[object, ...] = (
    "", "a/b", "a\0b", "\ud800", "ü", "n" * 65, "n" * 1_000_000, 7, 1e300, True, ["good"], {}, None,
    "nobody", "..",
)  # fmt: skip
#: Records that say nothing: as if it were not registered.
UNREADABLE: Mapping[str, bytes] = {
    "no-json": b"}{",
    "empty": b"",
    "array": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "no-url": b"{}",
    "url-object": b'{"url":{}}',
    "rate-text": URL + b',"rate":"5"}',
    "rate-object": URL + b',"rate":{}}',
    "rate-endless": URL + b',"rate":1e999}',
    "few-text": URL + b',"in_flight":"4"}',
    "few-half": URL + b',"in_flight":1.5}',
    "few-negative": URL + b',"in_flight":-1}',
    "burst-negative": URL + b',"rate":5,"burst":-5}',
    "ordered-text": URL + b',"ordered":"no"}',
    "ordered-null": URL + b',"ordered":null}',
}
#: Those that only a worker finds to be none.
NOWHERE: Mapping[str, bytes] = {
    "no-utf-8": b'{"url":"http://\xff/"}',
    "relative": b'{"url":"/hooks"}',
    "file": b'{"url":"file:///etc/passwd"}',
    "bracket": b'{"url":"http://["}',
    "port": b'{"url":"http://127.0.0.1:99999/"}',
    "forged": b'{"url":"http://127.0.0.1:1/\\r\\nX-A: b"}',
    "nul": b'{"url":"http://127.0.0.1\\u0000/"}',
    "login": b'{"url":"http://u:p@127.0.0.1:1/"}',
}
#: (key, field after the name, value) of what is known of one, which is well again by itself.
SPOILT: Mapping[str, tuple[str, str, bytes]] = {
    "state-junk": ("es", "", b"}{"),
    "state-short": ("es", "", b"f"),
    "state-words": ("es", "", b"f x y z w"),
    "state-huge": ("es", "", b"f " + b"9" * 30 + b" 1 1 x"),
    "leased-text": ("eo", "", b"x"),
    "leased-half": ("eo", "", b"1.5"),
    "leased-huge": ("eo", "", b"9" * 30),
    "level-text": ("tb", ":l", b"x"),
    "level-nan": ("tb", ":l", b"nan"),
    "moment-text": ("tb", ":a", b"x"),
    "moment-endless": ("tb", ":a", b"inf"),
}
#: Disabled, as far as can be seen.
SHUT: Mapping[str, bytes] = {"shut": b"d", "shut-words": b"d x y", "shut-bytes": b"d 1 \xff\0"}


def test_each_message_ends_or_waits_and_the_others_go_on(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        Peer(answers(OK)) as peer,
        Line(redis_url, loads(TOML).destinations[NAME]) as line,
    ):
        good = Endpoint(url=f"http://127.0.0.1:{peer.port}/", rate=500.0)
        _hand_over_and_spoil(line, good)
        _is_refused_at_intake(line)
        line.send({}, id="after-good", endpoint="good")
        line.store.hold("resume")
        waiting = {f"before-{name}" for name in (*UNREADABLE, *SHUT)}
        until(lambda: line.store.census().unfinished == len(waiting), 10, "the others end", 0.02)
        for name in ("before-good", "after-good", *(f"before-{name}" for name in SPOILT)):
            assert line.status(name).state == "sent", name
        for name in NOWHERE:
            dead = line.status(f"before-{name}")
            assert dead.state == "dead", name
            assert f"what is registered of {name} " in dead.history[-1]["reason"]
        assert {line.status(name).state for name in waiting} == {"ready"}
        _can_be_read(line, CliHere(redis_url, _written(tmp_path)))
        registry = EndpointRegistry(line.store)
        registry.put(dict.fromkeys(UNREADABLE, good))
        registry.enable(list(SHUT))
        line.client.zadd("{d}:eb", {"good/k": 1})
        line.wait_done()
        assert {line.status(name).state for name in waiting} == {"sent"}
    unforeseen = [r.getMessage() for r in caplog.records if r.exc_info or "dead" not in r.msg]
    assert not unforeseen, "somebody stumbled"


def _hand_over_and_spoil(line: Line, good: Endpoint) -> None:
    """Each has a message, handed over before it was spoilt; nothing is sent yet."""
    names = ("good", *UNREADABLE, *NOWHERE, *SPOILT, *SHUT)
    EndpointRegistry(line.store).put(dict.fromkeys(names, good))
    line.store.hold("pause")
    for name in names:
        line.send({}, id=f"before-{name}", endpoint=name)
    for name, record in {**UNREADABLE, **NOWHERE}.items():
        line.client.hset("{d}:ep", name, record)
    for name, (key, field, value) in SPOILT.items():
        line.client.hset(f"{{d}}:{key}", name + field, value)
    for name, state in SHUT.items():
        line.client.hset("{d}:es", name, state)


def _is_refused_at_intake(line: Line) -> None:
    for name in (*NO_NAMES, *UNREADABLE):
        options = json.dumps({"id": "m", "endpoint": name})
        with pytest.raises(ResponseError, match=r"^PLINVALID options[:.]") as caught:
            line.client.execute_command("FCALL", "paceline_enqueue", 1, "{d}", b"{}", options)
        assert len(str(caught.value)) < 200, name
    for name in SHUT:
        with pytest.raises(EndpointDisabled):
            line.send({}, id="m", endpoint=name)


def _written(folder: Path) -> Path:
    config = folder / "paceline.toml"
    config.write_text(TOML)
    return config


def _can_be_read(line: Line, cli: CliHere) -> None:
    # Until the end of time, as a producer's user may write it.
    line.client.zadd("{d}:eb", {"port": "inf", "good/k": "inf"})
    line.send({}, id="held", endpoint="good", key="k")
    shown = cli("show", NAME, "held")
    assert (shown.code, shown.err) == (0, "")
    assert cli("endpoints", "list", NAME).code == 0
    shown = cli("endpoints", "list", NAME, "--json", "--limit", "100")
    assert {it["name"] for it in shown.json["endpoints"]} >= {"good", *SPOILT, *SHUT}
    for name in ("good", "port", *SPOILT, *SHUT):
        assert cli("endpoints", "show", NAME, name).code == 0, name
    lost = cli("endpoints", "show", NAME, "deep")
    assert lost.code == 1
    assert "cannot be read" in lost.err
    assert cli("audit", NAME, "--deep").code == 0
    assert DeepAudit(line.store).run().sound
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(lambda: read(line.client)))
    assert b"paceline_endpoints" in generate_latest(registry)
