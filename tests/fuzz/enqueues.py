"""``python -m fuzz.enqueues --count 1000000 --seed 7``: malformed enqueues, by the function and by
the client.

Every one gets its answer: taken, or refused by an error of ours that quotes no payload. Afterwards
the law holds, what was taken is what was said to be, and what was purged leaves Redis as it was.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgspec
import redis
from redis.exceptions import ResponseError

from fuzz.objects import objects
from paceline import Outbox
from paceline.connect import connect
from paceline.embedded import EmbeddedServer
from paceline.errors import PacelineError
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.scripts import load_library
from paceline.settings_file import loads
from paceline.shared_config import publish

NAME = "d"
#: In every payload, and in no answer.
MARK = b"PAYL04D"
_PIPELINE = 200
_PURGE_EVERY = 10_000
_TOML = f"""
[destinations.{NAME}]
provider = "http"
url = "http://127.0.0.1:9/x"
max_payload_bytes = 5000
max_messages = 100000
record_ttl_s = 1
[destinations.{NAME}.events]
kinds = "all"
max_count = 100
"""
_NUMBERS = (
    b"0", b"-1", b"1e11", b"1e400", b"-0", b"1e308", b"9" * 400, b"NaN", b"Infinity", b"0x10",
    b"1.5", b"true", b'"5"', b"null", b"[1]", b"{}",
)  # fmt: skip
_TEXTS = (
    b'""', b'"a"', b'"A.b_c-9"', b'"a b"', b'"a/b"', b'"\\u0000"', b'"\\ud800"', b'"\xff\xfe"',
    b'"' + b"x" * 64 + b'"', b'"' + b"x" * 65 + b'"', b'"' + b"k" * 9000 + b'"', b"5", b"null",
    b"[]", b"{}", b"true", b'"high"', b'"bulk"', b'"HIGH"', b'"}:{d}"', b'"{d}"',
)  # fmt: skip
_NAMES = (
    b"id", b"priority", b"tenant", b"campaign", b"endpoint", b"key", b"not_before", b"expires",
    b"delay_s", b"ttl_s", b"ID", b"", b"\\u0000", b"x\\n\\u001b[2J", b"__index",
)  # fmt: skip
_OF_NUMBERS = frozenset((b"not_before", b"expires", b"delay_s", b"ttl_s"))
_TAGS = (
    b"{nobody}", b"d", b"{}", b"{D}", b"{d}:x", b"", b"{d" + b"d" * 300 + b"}", b"{d\n}", b"\xff",
)  # fmt: skip
_WHOLE = (
    b"", b"{}", b"[]", b"null", b"5", b"[" * 2000, b'{"id":' * 500, b"{" * 8000, b"x" * 9000,
    b'{"id":"a","id":"b"}', b"\xff", b"\0", b'{"id":"a"', b" {} ", b'["id"]',
)  # fmt: skip


def calls(seed: int) -> Iterator[list[bytes]]:
    """Arguments of FCALL, without end; about a quarter of them are right."""
    draw = random.Random(seed)
    number = 0
    while True:
        number += 1
        yield _call(draw, number)


def _call(draw: random.Random, number: int) -> list[bytes]:
    how = draw.random()
    tag = draw.choice(_TAGS) if draw.random() < 0.1 else b"{d}"
    if how < 0.8:
        given = [_payload(draw), _options(draw, number)]
        given += [_noise(draw)] * (draw.random() < 0.02)
        return [b"paceline_enqueue", b"1", tag, *given]
    if how < 0.9:
        many = [part for i in range(draw.randrange(4)) for part in
                (_payload(draw), _options(draw, number * 4 + i))]  # fmt: skip
        return [b"paceline_enqueue_many", b"1", tag, *many[: len(many) - draw.randrange(2)]]
    bulk = [draw.choice((b"", b"", b"", b"x", b"-1")), draw.choice((b"{}", _options(draw, number)))]
    for i in range(draw.randrange(4)):
        bulk += [draw.choice((b"b-%d-%d" % (number, i), _noise(draw))), _payload(draw)]
    return [b"paceline_enqueue_bulk", b"1", tag, *bulk[: len(bulk) - draw.randrange(2)]]


def _payload(draw: random.Random) -> bytes:
    body = draw.choice((b"{}", b"[" * 200, b"\0", b"\xff\xff", b"x" * 4980, b"x" * 5001, b"1e999"))
    # The space: shifted into the place of an id, it would be a good one, and quoted as such.
    return b"" if draw.random() < 0.05 else b" " + MARK + body


def _options(draw: random.Random, number: int) -> bytes:
    if draw.random() < 0.15:
        return draw.choice(_WHOLE)
    # Now and then one that was there before, perhaps with another payload.
    known = draw.random() < 0.1
    fields = [b'"id":"m-%d"' % (draw.randrange(number) if known else number)]
    for _ in range(draw.choice((0, 0, 1, 1, 2, 3))):
        name = draw.choice(_NAMES)
        value = draw.choice(_NUMBERS if name in _OF_NUMBERS else _TEXTS)
        fields.append(b'"%b":%b' % (name, value))
    return b"{" + b",".join(fields) + b"}"


def _noise(draw: random.Random) -> bytes:
    return draw.choice((b"", b"\0", b"\xff", b"5", b"{", b"x" * 200, b"nan", b"-1", b"1e99"))


def told(reply: Any, where: object) -> Counter[str]:
    """What an answer says, by its words and codes. Raises AssertionError for one that is none."""
    if isinstance(reply, list):
        return sum((told(one, where) for one in reply if not isinstance(one, int)), Counter())
    if isinstance(reply, ResponseError):
        text = str(reply)
        assert text.startswith("PL"), f"no error of ours: {text}\nto {where!r}"
        assert MARK.decode() not in text, "an error quotes a payload"
        assert len(text) < 600
        assert text.isprintable(), f"an error forges a line: {text!r}"
        return Counter([text.split(" ")[0]])
    assert reply in (b"new", b"already"), (reply, where)
    return Counter([cast(bytes, reply).decode()])


class Trial:
    """One outbox, to be pelted."""

    def __init__(self, client: redis.Redis, outbox: Outbox) -> None:
        self.client, self.outbox = client, outbox
        load_library(client)
        self.store = OutboxStore(client, NAME)
        publish(self.store, loads(_TOML).destinations[NAME])
        self.answers: Counter[str] = Counter()

    def by_function(self, count: int, seed: int) -> None:
        """``count`` calls, pipelined."""
        source = calls(seed)
        for start in range(0, count, _PIPELINE):
            some = [next(source) for _ in range(min(_PIPELINE, count - start))]
            pipe = self.client.pipeline(transaction=False)
            for one in some:
                pipe.execute_command("FCALL", *one)
            for one, reply in zip(some, pipe.execute(raise_on_error=False), strict=True):
                self.answers += told(reply, one)
            self._purge(start + _PIPELINE)

    def by_client(self, count: int, seed: int) -> None:
        """``count`` calls of ``Outbox.message``, and of ``send_many`` with what that takes."""
        source = objects(seed)
        for start in range(0, count, _PIPELINE):
            good: list[Message] = []
            for _ in range(min(_PIPELINE, count - start)):
                destination, payload, options = next(source)
                try:
                    good.append(Outbox.message(destination, payload, **options))
                except PacelineError as error:
                    self._refused(error)
            for answer in self.outbox.send_many(good):
                if isinstance(answer, PacelineError):
                    self._refused(answer)
                else:
                    self.answers[f"client: {answer.status}"] += 1
            self._purge(start + _PIPELINE)

    def settle_down(self) -> None:
        """Purges what was taken, and waits until its records are gone."""
        while self.store.purge(1000):
            pass
        census = self.store.census()
        assert census.sound, census.law
        end = time.monotonic() + 20
        while time.monotonic() < end and any(self.client.scan_iter("{d}:m:*", 1000)):
            time.sleep(0.2)

    def used_bytes(self) -> int:
        """Of Redis's memory, data alone."""
        return int(cast(dict[str, Any], self.client.info("memory"))["used_memory_dataset"])

    def _refused(self, error: PacelineError) -> None:
        text = str(error)
        assert MARK.decode() not in text, f"an error quotes a payload: {text}"
        assert text.isprintable(), f"an error forges a line: {text!r}"
        assert len(text) < 1500
        self.answers[f"client: {type(error).__name__}"] += 1

    def _purge(self, done: int) -> None:
        if done % _PURGE_EVERY == 0:
            while self.store.purge(1000):
                pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs it on a server of its own and prints the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.enqueues")
    parser.add_argument("--count", type=int, default=1_000_000, help="by each of the two ways")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as folder, EmbeddedServer(
        Path(folder), appendfsync="everysec"
    ) as server, connect(server.url, timeout_s=60) as client, Outbox.from_url(
            server.url, timeout_s=60
        ) as outbox:  # fmt: skip
        trial = Trial(client, outbox)
        trial.by_function(_PURGE_EVERY, given.seed + 1)
        trial.by_client(_PURGE_EVERY, given.seed + 1)
        trial.settle_down()
        before, answers = trial.used_bytes(), trial.answers.copy()
        began = time.monotonic()
        trial.by_function(given.count, given.seed)
        between = time.monotonic()
        trial.by_client(given.count, given.seed)
        ended = time.monotonic()
        trial.settle_down()
        census = trial.store.census()
        taken = trial.answers["new"] + trial.answers["client: new"]
        log = server.log_path.read_bytes()
        found = {
            "count": given.count,
            "seed": given.seed,
            "answers": dict(sorted((trial.answers - answers).items())),
            "function_s": round(between - began, 1),
            "client_s": round(ended - between, 1),
            "law": {name: number for name, number in census.law.items() if number},
            "sound": census.sound,
            "redis_bytes_before": before,
            "redis_bytes_after": trial.used_bytes(),
            "slowest_command_ms": max(
                (one["duration"] / 1000 for one in client.slowlog_get(128)), default=0
            ),
            "payloads_in_the_servers_log": log.count(MARK),
            # In bulk, those that are new are not told.
            "told_new": taken,
        }
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    return 0 if census.sound and taken <= census.law["accepted"] else 1


if __name__ == "__main__":
    sys.exit(main())
