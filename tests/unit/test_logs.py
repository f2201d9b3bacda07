"""Logs: one line a second for each cause with no count lost, and no secret in any of them."""

from __future__ import annotations

import http.client
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import redis.exceptions

from paceline import logs
from paceline.errors import PayloadError
from paceline.log_pace import PacedHandler
from paceline.log_veil import Veil, redact, url_password
from paceline.logs import JsonFormatter
from support.wait import until


class Bench:
    """A logger that writes through a PacedHandler with a clock of ours into a list."""

    def __init__(self, *, thread: bool = False) -> None:
        self.now_s = 100.0
        self.stream = io.StringIO()
        target = logging.StreamHandler(self.stream)
        target.setFormatter(JsonFormatter())
        self.handler = PacedHandler(target, monotonic_s=lambda: self.now_s, thread=thread)
        self.log = logging.Logger("it", logging.INFO)
        self.log.addHandler(self.handler)

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.handler.release_due()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def events(lines: list[dict[str, Any]]) -> int:
    return sum(line.get("repeated", 1) for line in lines)


def test_a_repeated_cause_is_one_line_a_second_and_all_are_counted() -> None:
    bench = Bench()
    for n in range(3000):  # 3 s, a thousand a second
        bench.pass_s(0.001)
        bench.log.warning("m-%d: again", n, extra={"event": "retry", "cause": "500"})
    assert 3 <= len(bench.lines) <= 4
    bench.handler.flush()
    assert 4 <= len(bench.lines) <= 5
    assert events(bench.lines) == 3000
    assert "repeated" not in bench.lines[0]
    assert bench.lines[0]["message"] == "m-0: again"
    assert bench.lines[-1]["message"] == "m-2999: again", "the last one is the one that is told"


def test_a_cause_that_stops_keeps_its_count() -> None:
    bench = Bench()
    for _ in range(5):
        bench.log.warning("again", extra={"cause": "x"})
    assert len(bench.lines) == 1
    bench.pass_s(0.5)
    assert len(bench.lines) == 1
    bench.pass_s(0.5)
    assert [line.get("repeated") for line in bench.lines] == [None, 4]
    bench.pass_s(5)
    bench.log.warning("again", extra={"cause": "x"})
    assert [line.get("repeated") for line in bench.lines] == [None, 4, None]


def test_the_thread_writes_what_nobody_follows_up() -> None:
    stream = io.StringIO()
    target = logging.StreamHandler(stream)
    target.setFormatter(JsonFormatter())
    handler = PacedHandler(target, every_s=0.05)
    log = logging.Logger("it", logging.INFO)
    log.addHandler(handler)
    for _ in range(3):
        log.warning("again")
    until(lambda: '"repeated": 2' in stream.getvalue(), 5, "the count is written")
    handler.close()


def test_causes_are_told_apart_by_event_destination_and_worker() -> None:
    bench = Bench()
    for destination in ("a", "b"):
        for cause in ("500", "502"):
            for worker in ("w-1", "w-2"):
                extra = {"event": "retry", "cause": cause, "destination": destination}
                for _ in range(2):
                    bench.log.warning("x", extra={**extra, "worker": worker})
    assert len(bench.lines) == 8


def test_unnamed_causes_are_told_apart_by_their_wording() -> None:
    bench = Bench()
    for n in range(10):
        bench.log.warning("message %d came late", n)
        bench.log.info("worker %d started", n)
    assert [line["message"] for line in bench.lines] == [
        "message 0 came late", *(f"worker {n} started" for n in range(10)),
    ]  # fmt: skip
    bench.handler.flush()
    assert events(bench.lines) == 20


def test_what_comes_after_the_end_is_written_as_it_comes() -> None:
    bench = Bench()
    bench.log.warning("again")
    bench.log.warning("again")
    bench.handler.close()
    bench.log.warning("again")
    assert [line.get("repeated") for line in bench.lines] == [None, 1, None]


def test_memory_is_bounded_whatever_the_wording() -> None:
    bench = Bench()
    for n in range(3000):
        bench.log.info("id %s", n)
    assert len(bench.handler._held) <= 1001
    bench.handler.flush()
    assert events(bench.lines) == 3000


def line_of(
    message: str, *args: object, veil: Veil | None = None, error: Any = None, **fields: object
) -> dict[str, Any]:
    record = logging.LogRecord("it", logging.WARNING, "f.py", 1, message, args, error)
    record.__dict__.update(fields)
    found = json.loads(JsonFormatter(veil).format(record))
    assert isinstance(found, dict)
    return found


def test_fields() -> None:
    line = line_of("x", message_id="m-1", destination="d", attempt=2, cause="500", secret="no")
    assert list(line) == [
        "time", "level", "logger", "message", "destination", "message_id", "attempt", "cause",
    ]  # fmt: skip
    assert line["attempt"] == 2


def test_arguments_that_do_not_fit_show_nothing() -> None:
    assert line_of("%d of %s", "the payload")["message"] == (
        "%d of %s (with arguments that do not fit)"
    )


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:hunter2x@host:6379/0",
        "rediss://:hunter2x@host/0 failed",
        "redis://u:hun@hunter2x@host:6379",
        "unix:///run/r.sock?db=0&password=hunter2x",
        "sentinel+redis://:hunter2x@a:26379,b:26379/main",
        "Max retries exceeded with url: /Send?key=hunter2x&b=1",
        "https://host/Send?key=hunter2x",
        "Authorization: Basic hunter2x",
        "{'Authorization': 'Bearer hunter2x'}",
        'headers={"authorization": "hunter2x"}',
        "sent Basic dXNlcjpodW50ZXIyeA==hunter2x",
        "password=hunter2x, user=a",
        '{"username": "a", "password": "hunter2x"}',
        "api_key=hunter2x",
    ],
)
def test_what_looks_like_a_credential_is_covered(text: str) -> None:
    assert "hunter2x" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "destinations.web.password: missing beside username",
        "Error 111 connecting to 127.0.0.1:6379. Connection refused.",
        "redis://127.0.0.1:6379/0",
        "message a@b of web: HTTP 401",
        "worker host-1-ab12 started, 2 of 3: why?",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert redact(text) == text


def test_known_secrets_are_covered_in_every_spelling() -> None:
    secret = 'p+w/ü"1\\'
    veil = Veil()
    veil.hide_login("ann", secret)
    import base64
    from urllib.parse import quote

    for text in (
        secret, repr(secret), json.dumps(secret), quote(secret, safe=""),
        base64.b64encode(f"ann:{secret}".encode()).decode(), repr(secret.encode()),
    ):  # fmt: skip
        covered = veil.cover(f"it was {text} there")
        assert covered in ("it was *** there", "it was '***' there", 'it was "***" there',
                           "it was b'***' there"), covered  # fmt: skip


def test_a_short_value_does_not_blot_out_the_lines() -> None:
    veil = Veil()
    veil.hide("a", "")
    assert veil.cover("a message") == "a message"


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("redis://h:6379/0", None),
        ("redis://u:p@w@h:6379/0", "p@w"),
        ("rediss://:pw@h", "pw"),
        ("redis://user@h", None),
        ("unix:///s?password=pw&db=1", "pw"),
        ("sentinel+redis://u:pw@a:1,b:2/main", "pw"),
    ],
)
def test_the_password_of_a_redis_url(url: str, password: str | None) -> None:
    assert url_password(url) == password


ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def raised(act: Callable[[], object]) -> ExcInfo:
    try:
        act()
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return type(error), error, error.__traceback__
    raise AssertionError("nothing was raised")


def quoting() -> None:
    int("the payload")


def chained() -> None:
    try:
        quoting()
    except ValueError as error:
        raise http.client.InvalidURL("the payload") from error


def refused() -> None:
    raise ConnectionRefusedError(111, "Connection refused")


def payload_error() -> None:
    raise PayloadError("payload.to", "'the payload' is no address")


def redis_error() -> None:
    raise redis.exceptions.ConnectionError("to redis://u:hunter2x@h: refused")


def test_a_trace_shows_where_and_quotes_nobody() -> None:
    for act in (quoting, chained, payload_error):
        error = line_of("x", error=raised(act))["error"]
        assert "the payload" not in error.replace('int("the payload")', "").replace(
            'InvalidURL("the payload")', ""
        ).replace("'the payload' is no address\")", "")
        assert act.__name__ in error
    both = line_of("x", error=raised(chained))["error"]
    assert "ValueError: (its text is left out" in both
    assert "http.client.InvalidURL: (its text is left out" in both
    assert "which led to" in both
    assert "Connection refused" in line_of("x", error=raised(refused))["error"]
    told = line_of("x", error=raised(redis_error))["error"]
    assert "redis.exceptions.ConnectionError: to redis://***@h: refused" in told


@pytest.fixture
def _root() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.usefixtures("_root")
def test_a_process_logs_as_who_it_is() -> None:
    stream = io.StringIO()
    assert not logs.started()
    logs.start(stream, logging.INFO)
    assert logs.started()
    logs.identify(destination="d", worker="w-1")
    logs.veil().hide("hunter2x")
    try:
        logging.getLogger("paceline.x").info("with hunter2x", extra={"worker": "w-2"})
        logging.getLogger("urllib3.connectionpool").debug("/Send?key=1")
    finally:
        logs._formatter.whose.clear()
        logs._formatter.veil = Veil()
    [line] = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert (line["destination"], line["worker"]) == ("d", "w-2")
    assert line["message"] == "with ***"


@pytest.mark.usefixtures("_root")
def test_a_line_that_cannot_be_written_tells_its_place_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise KeyError("the payload")

    stream = io.StringIO()
    logs.start(stream, logging.INFO)
    monkeypatch.setattr(sys, "stderr", stream)
    logging.getLogger("paceline.x").warning("of %s", Unprintable())
    line = json.loads(stream.getvalue())
    assert "test_logs.py" in line["message"]
    assert line["error"] == "KeyError"
    assert "the payload" not in stream.getvalue()


def test_every_event_is_documented_and_every_documented_one_is_told() -> None:
    root = Path(__file__).parents[2]
    told = set()
    for path in [*(root / "daemon").rglob("*.py"), *(root / "workers").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        for pattern in _EVENT_PATTERNS:
            told |= set(re.findall(pattern, text))
    page = (root / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    table = page.partition("| event | level | |")[2].partition("\n\n")[0]
    documented = {
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert len(told) > 15, "the patterns find no events any more"
    assert told == documented


#: extra={"event": …}, the reaper's _about("…"), Change("…"), News("…"), the narrator's table.
_EVENT_PATTERNS = (
    r'"event": "(\w+)"', r'_about\("(\w+)"', r'Change\("(\w+)"', r'News\(\s*"(\w+)"',
    r'\("(\w+)", logging\.[A-Z]+,',
    r'event = "(\w+)" if', r'else "(failed)"', r'event, level = "(\w+)"',
    r'event, level, text = \(\s*"(\w+)"',
)  # fmt: skip
