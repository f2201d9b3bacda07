"""GetMessageStatus: the question, and what is made of an answer whose shape nobody documented."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.settings_file import loads
from paceline_workers.outcome import Reply
from paceline_workers.providers.base import Polling, as_polling
from paceline_workers.providers.maxmd_status import read_status
from paceline_workers.providers.registry import build
from paceline_workers.transports.adapter import with_sibling

CONFIG = """
[destinations.d]
provider = "{provider}"
url = "https://api.example/Send"
{login}
headers = {{ X-Key = "k" }}
"""


def profile() -> Polling:
    text = CONFIG.format(provider="maxmd", login='username = "acme"\npassword = "s3cret"')
    found = as_polling(build(loads(text).destinations["d"], {}))
    assert found is not None
    return found


def read(body: Any, status: int = 200, *, truncated: bool = False) -> str | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_status(Reply(status, {}, raw, truncated))


def test_the_question_has_the_configured_headers_and_no_credentials() -> None:
    request = profile().render_status("<1.a/b@direct.example>")
    assert (request.method, request.body, request.suffix) == ("GET", b"", "")
    assert request.sibling == "GetMessageStatus/%3C1.a%2Fb%40direct.example%3E"
    assert request.headers == {
        "Accept": "application/json",
        "User-Agent": "paceline",
        "X-Key": "k",
    }


def test_of_other_providers_nothing_can_be_asked() -> None:
    text = CONFIG.format(provider="http", login="")
    assert as_polling(build(loads(text).destinations["d"], {})) is None


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("/rest/api/message/Send", "/rest/api/message/S/1"),
        ("/rest/api/message/Send/", "/rest/api/message/S/1"),
        ("/Send?key=a/b", "/S/1?key=a/b"),
        ("/", "/S/1"),
        ("/?key=a", "/S/1?key=a"),
        ("http://h:80/a/Send", "http://h:80/a/S/1"),
        ("http://h:80/", "http://h:80/S/1"),
    ],
)
def test_it_stands_beside_the_url(target: str, asked: str) -> None:
    assert with_sibling(target, "S/1") == asked


def test_each_recipient_and_its_status() -> None:
    recipients = [
        {"email": "b@direct.example", "status": "delivered"},
        {"email": "c@direct.example", "status": "failed"},
    ]
    line = profile().read_status(
        Reply(200, {}, json.dumps({"smtpId": "1", "recipients": recipients}).encode())
    )
    assert line == "b@direct.example delivered, c@direct.example failed"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ([{"Recipient": "b@x", "messageStatus": "Dispatched"}], "b@x Dispatched"),
        ({"recipients": {"address": "b@x", "STATE": " read\n by  b "}}, "b@x read by b"),
        ({"smtpId": "1", "status": "delivered"}, "delivered"),
        ({"recipients": [7, None, {"email": "b@x"}, {"email": 1, "status": "sent"}]}, "sent"),
        ([{"email": "\x1b[31mb@x", "status": "sent"}], "?[31mb@x sent"),
    ],
)
def test_shapes_that_can_be_understood(body: Any, line: str) -> None:
    assert read(body) == line


@pytest.mark.parametrize(
    "body",
    [
        {"code": 999, "message": "error"}, {"recipients": []}, {"recipients": None},
        {"recipients": [{"email": "b@x", "status": ""}]}, {"status": 4}, [], "delivered", 7, None,
        b"", b"<html>", b"\xff", b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_says_nothing_is_no_answer(body: Any) -> None:
    assert read(body) is None


@pytest.mark.parametrize("status", [202, 404, 429, 500])
def test_only_a_200_is_read(status: int) -> None:
    assert read({"status": "delivered"}, status) is None
    assert read({"status": "delivered"}, truncated=True) is None


@settings(max_examples=30)
@given(st.lists(st.fixed_dictionaries({"email": st.text(), "status": st.text(min_size=1)})))
def test_never_more_than_one_line_of_300_characters(recipients: list[dict[str, str]]) -> None:
    line = read({"recipients": recipients})
    assert line is None or (0 < len(line) <= 300 and line.isprintable())
