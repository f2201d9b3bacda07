"""Profiles: what is answered to which request."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from paceline.sink.answers import Request, Verdict, padded
from paceline.sink.profiles import Http, MaxMD
from paceline.sink.wire import response, retry_after_value

GOOD: dict[str, Any] = {
    "authentication": {"username": "u", "password": "p"},
    "message": {
        "sender": "a@direct.example.com",
        "recipients": [
            {"email": "b@direct.example.com", "type": "TO"},
            {"email": "c@direct.example.com", "type": "BCC"},
        ],
        "subject": "s",
        "body": "b",
        "htmlBody": True,
        "replyTo": "r@example.com",
        "attachmentList": [
            {"filename": "f.txt", "contentType": "text/plain", "content": "aGVsbG8="}
        ],
    },
}
JSON = b"application/json; charset=utf-8"


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    body = copy.deepcopy(GOOD)
    change(body)
    return json.dumps(body).encode()


def test_a_good_maxmd_request_is_accepted() -> None:
    verdict = MaxMD().judge(Request(json.dumps(GOOD).encode(), JSON, 5))
    assert (verdict.status, verdict.accepted, verdict.name) == (200, True, "ok")
    answer = json.loads(verdict.body)
    assert answer == {"smtpId": "sink-5", "message": "Success", "code": 0, "success": True}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda b: b.pop("authentication"), "malformed"),
        (lambda b: b.pop("message"), "malformed"),
        (lambda b: b["message"].pop("sender"), "malformed"),
        (lambda b: b["message"].pop("subject"), "malformed"),
        (lambda b: b["message"].update(recipients=[]), "malformed"),
        (lambda b: b["message"].update(recipients="b@example.com"), "malformed"),
        (lambda b: b["message"]["recipients"][0].update(type="To"), "malformed"),
        (lambda b: b["message"].update(htmlBody="yes"), "malformed"),
        (lambda b: b["message"].update(htmlbody=True), "malformed"),
        (lambda b: b["message"]["attachmentList"][0].update(content="!"), "malformed"),
        (lambda b: b["authentication"].update(password=""), "authentication"),
        (lambda b: b["message"]["recipients"][1].update(email="nobody"), "address"),
        (lambda b: b["message"].update(sender="a b@example.com"), "address"),
        (lambda b: b["message"].update(replyTo="x@"), "address"),
    ],
)
def test_what_maxmd_refuses(change: Callable[[dict[str, Any]], object], name: str) -> None:
    verdict = MaxMD().judge(Request(changed(change), JSON, 0))
    answer = json.loads(verdict.body)
    assert (verdict.status, verdict.accepted, verdict.name) == (200, False, name)
    if name == "malformed":
        assert answer == {"code": 999, "message": "error"}
    else:
        assert answer["code"] == {"authentication": 1, "address": 2}[name]
        assert answer["success"] is False


def test_maxmd_knows_its_credentials() -> None:
    body = json.dumps(GOOD).encode()
    assert MaxMD("u", "p").judge(Request(body, JSON, 0)).accepted
    assert MaxMD("u", "q").judge(Request(body, JSON, 0)).name == "authentication"
    assert MaxMD("v", None).judge(Request(body, JSON, 0)).name == "authentication"


def test_maxmd_wants_json() -> None:
    assert MaxMD().judge(Request(b"\xff\xfe", JSON, 0)).name == "malformed"
    assert MaxMD().judge(Request(json.dumps(GOOD).encode(), b"text/plain", 0)).status == 415


def test_lean_profiles_do_not_look() -> None:
    assert MaxMD(validate=False).judge(Request(b"{", b"", 0)).accepted
    assert Http(validate=False).judge(Request(b"{", b"", 0)).accepted


def test_http_answers_any_json() -> None:
    verdict = Http(status=202).judge(Request(b"[1]", b"", 3))
    assert (verdict.status, json.loads(verdict.body)) == (202, {"ok": True, "id": "sink-3"})
    assert Http().judge(Request(b"{", b"", 0)).status == 400
    assert not Http(status=500).judge(Request(b"{}", b"", 0)).accepted


@pytest.mark.parametrize("profile", [MaxMD(), Http()])
def test_a_padded_answer_says_the_same(profile: MaxMD | Http) -> None:
    verdict = profile.judge(Request(json.dumps(GOOD).encode(), JSON, 0))
    grown = padded(verdict.body, 5000)
    assert len(grown) == 5000
    assert json.loads(verdict.body).items() <= json.loads(grown).items()


def test_responses_are_framed() -> None:
    head, _, body = response(200, b"{}", 0, keep_alive=False).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert {b"Content-Length: 2", b"Connection: close"} <= set(lines)
    assert b"Date: Thu, 01 Jan 1970 00:00:00 GMT" in lines
    assert body == b"{}"
    # 204 has no body: sent all the same, it would be read as the next answer's head.
    assert response(204, b"{}", 0).endswith(b"\r\n\r\n")


def test_retry_after_as_a_date() -> None:
    assert retry_after_value("2", 0) == "2"
    assert retry_after_value("date+90", 0) == "Thu, 01 Jan 1970 00:01:30 GMT"


def test_maxmd_tells_the_status_of_what_it_took() -> None:
    sink = MaxMD()
    assert sink.judge(Request(json.dumps(GOOD).encode(), JSON, 5)).accepted

    def ask(path: bytes) -> Verdict:
        return sink.judge(Request(b"", path=path, number=9, method=b"GET"))

    told = ask(b"/message/GetMessageStatus/sink%2D5?x=/1")
    assert (told.status, told.accepted, told.recipients, told.name) == (200, False, 0, "status")
    assert json.loads(told.body) == {
        "smtpId": "sink-5",
        "recipients": [
            {"email": one["email"], "status": "delivered"}
            for one in GOOD["message"]["recipients"]  # type: ignore[index]
        ],
    }
    for unknown in (b"sink-6", b"5", b"sink-", b"", b"sink-5/", b"sink-" + b"9" * 5000):
        assert ask(b"/GetMessageStatus/" + unknown).status == 404
    assert (ask(b"/Send").status, ask(b"/Send").extra) == (405, b"Allow: POST\r\n")
    sink.reset()
    assert ask(b"/GetMessageStatus/sink-5").status == 404


def test_maxmd_remembers_the_last_messages_only() -> None:
    sink = MaxMD(validate=False)
    for number in range(50_001):
        sink.judge(Request(b"", JSON, number))
    status = [
        sink.judge(Request(b"", path=b"/GetMessageStatus/sink-%d" % number, method=b"GET")).status
        for number in (0, 1, 50_000)
    ]
    assert status == [404, 200, 200]
