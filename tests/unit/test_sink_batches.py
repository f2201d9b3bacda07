"""The SendGrid and Postmark simulators."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from paceline.sink.answers import Request, When
from paceline.sink.profiles import Postmark, SendGrid
from paceline.sink.profiles.sendgrid import Window

JSON = b"application/json"

# -- SendGrid --------------------------------------------------------------------------------------

MAIL: dict[str, Any] = {
    "personalizations": [
        {"to": [{"email": "bob@example.com", "name": "Bob"}], "substitutions": {"n": "1"}},
        {
            "to": [{"email": "carl@example.com"}, {"email": "dora@example.com"}],
            "cc": [{"email": "emil@example.com"}],
            "dynamic_template_data": {"n": 1},
        },
    ],
    "from": {"email": "ann@example.com"},
    "reply_to": {"email": "r@example.com"},
    "subject": "s",
    "content": [{"type": "text/plain", "value": "x"}],
}


def mail(body: object, token: str = "Bearer key", path: bytes = b"/v3/mail/send") -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(data, JSON, 4, path, {b"authorization": token.encode()})


def changed(good: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    body = copy.deepcopy(good)
    change(body)
    return body


def test_sendgrid_accepts_with_an_empty_body_and_headers() -> None:
    verdict = SendGrid(window=Window(lambda: 99.5)).judge(mail(MAIL))
    assert (verdict.status, verdict.body, verdict.accepted) == (202, b"", True)
    assert verdict.extra == (
        b"X-Message-Id: sink-4\r\nX-RateLimit-Limit: 10000\r\n"
        b"X-RateLimit-Remaining: 9999\r\nX-RateLimit-Reset: 100\r\n"
    )
    assert (verdict.recipients, verdict.exposed) == (4, 2)
    assert list(verdict.addresses)[:2] == ["bob@example.com", "carl@example.com"]


def test_sendgrids_limit_is_counted_by_the_second() -> None:
    now = [5.0]
    window = Window(lambda: now[0])
    assert b"Remaining: 9999\r\n" in window.headers()
    assert b"Remaining: 9998\r\n" in window.headers()
    now[0] = 6.0
    assert b"Remaining: 9999\r\n" in window.headers()
    assert b"Remaining: 0\r\n" in window.headers(0)


def many(count: int) -> list[dict[str, Any]]:
    return [{"to": [{"email": f"u{n}@example.com"}]} for n in range(count)]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda b: b.pop("personalizations"), None),
        (lambda b: b.pop("from"), None),
        (lambda b: b.update(subjekt="x"), None),
        (lambda b: b.update(personalizations=[]), "personalizations"),
        (lambda b: b.update(personalizations=many(1001)), "personalizations"),
        (lambda b: b["personalizations"][0].update(to=[]), "personalizations.0.to"),
        (lambda b: b["personalizations"][0]["to"][0].update(email="x"), "personalizations.0.to"),
        (
            lambda b: b["personalizations"][0]["to"][0].update(email="reject-b@example.com"),
            "personalizations.0.to",
        ),
        (
            lambda b: b["personalizations"][1]["cc"][0].update(email="CARL@example.com"),
            "personalizations.1",
        ),
        (
            lambda b: b["personalizations"][0].update(bcc=[p["to"][0] for p in many(1000)]),
            "personalizations",
        ),
        (lambda b: b["from"].update(email="ann"), "from.email"),
        (lambda b: b.pop("subject"), "subject"),
        (lambda b: b.pop("content"), "content"),
        (lambda b: b["content"][0].update(value=""), "content.0.value"),
    ],
)
def test_what_sendgrid_refuses(
    change: Callable[[dict[str, Any]], object], where: str | None
) -> None:
    verdict = SendGrid().judge(mail(changed(MAIL, change)))
    assert (verdict.status, verdict.accepted, verdict.recipients) == (400, False, 0)
    (error,) = json.loads(verdict.body)["errors"]
    assert error["message"]
    assert str(error["field"]).startswith(str(where))


def test_sendgrid_takes_a_thousand_and_templates() -> None:
    assert SendGrid().judge(mail({**MAIL, "personalizations": many(1000)})).recipients == 1000
    template = {"personalizations": many(1), "from": MAIL["from"], "template_id": "t"}
    assert SendGrid().judge(mail(template)).accepted


def test_sendgrids_door() -> None:
    for token in ("", "key", "Bearer ", "Bearer another", "Basic key"):
        assert SendGrid("key").judge(mail(MAIL, token)).status == 401
    assert SendGrid("key").judge(mail(MAIL)).accepted
    assert SendGrid().judge(mail(MAIL, path=b"/v3/mail")).status == 404
    request = mail(MAIL)
    text = Request(request.body, b"text/plain", 0, request.path, request.headers)
    assert SendGrid().judge(text).status == 415
    assert SendGrid().judge(mail(b"{")).status == 400
    assert SendGrid().judge(mail(b" " * 30_000_001)).status == 413


def test_sendgrids_429_says_that_nothing_is_left() -> None:
    verdict = SendGrid().row("429", SendGrid().judge(mail(MAIL)), When(0.0))
    assert b"X-RateLimit-Remaining: 0\r\n" in verdict.extra


def test_a_lean_sendgrid_counts_addresses_but_the_senders() -> None:
    assert SendGrid(validate=False).judge(mail(MAIL)).recipients == 4
    assert SendGrid(validate=False).judge(mail(b"{")).recipients == 0


# -- Postmark --------------------------------------------------------------------------------------

ITEM: dict[str, Any] = {
    "From": "Ann <ann@example.com>",
    "To": "bob@example.com",
    "Subject": "s",
    "TextBody": "x",
    "Headers": [{"Name": "X-A", "Value": "1"}],
    "Attachments": [
        {"Name": "a", "Content": "aGVsbG8=", "ContentType": "text/plain", "ContentID": "cid:a"}
    ],
    "Metadata": {"m": "1"},
    "MessageStream": "outbound",
    "TrackOpens": True,
}


def post(body: object, path: bytes = b"/email/batch", token: str = "key") -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(data, JSON, 4, path, {b"x-postmark-server-token": token.encode()})


def test_postmark_answers_for_each_message_in_order() -> None:
    batch = [
        ITEM,
        {**ITEM, "To": "reject-b@example.com"},
        {**ITEM, "To": "reject-300@example.com"},
        {**ITEM, "To": "carl@example.com, dora@example.com", "Bcc": "emil@example.com"},
    ]
    verdict = Postmark().judge(post(batch))
    answers = json.loads(verdict.body)
    assert (verdict.status, verdict.accepted, verdict.name) == (200, True, "partly_rejected")
    assert [answer["ErrorCode"] for answer in answers] == [0, 406, 300, 0]
    assert "reject-b@example.com" in answers[1]["Message"]
    assert len({answer["MessageID"] for answer in answers if not answer["ErrorCode"]}) == 2
    assert (verdict.recipients, verdict.exposed) == (4, 2)


def test_a_batch_of_none_but_rejected_was_not_accepted() -> None:
    verdict = Postmark().judge(post([{**ITEM, "To": "reject-b@example.com"}]))
    assert (verdict.status, verdict.accepted, verdict.name) == (200, False, "rejected")


def test_a_lone_message() -> None:
    verdict = Postmark().judge(post(ITEM, b"/email"))
    answer = json.loads(verdict.body)
    assert (verdict.status, answer["ErrorCode"], answer["Message"]) == (200, 0, "OK")
    refused = Postmark().judge(post({**ITEM, "To": "reject-b@example.com"}, b"/email"))
    assert (refused.status, json.loads(refused.body)["ErrorCode"]) == (422, 406)
    assert not refused.accepted


@pytest.mark.parametrize(
    "change",
    [
        {"From": None},
        {"From": "ann"},
        {"To": None},
        {"To": "bob"},
        {"Cc": "a@"},
        {"To": ",".join(f"u{n}@example.com" for n in range(51))},
        {"TextBody": None},
        {"Headers": [{"Name": "X-A", "Value": "1\r\nBcc: b@example.com"}]},
    ],
)
def test_what_postmark_refuses_message_by_message(change: dict[str, Any]) -> None:
    item = {name: value for name, value in {**ITEM, **change}.items() if value is not None}
    verdict = Postmark().judge(post([item, ITEM]))
    answers = json.loads(verdict.body)
    assert [answer["ErrorCode"] for answer in answers] == [300, 0]
    assert verdict.recipients == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ([ITEM] * 501, 422, 410),
        ([{**ITEM, "from": "x"}], 422, 403),
        ([{**ITEM, "TrackOpens": "yes"}], 422, 403),
        (ITEM, 422, 403),
        (b"[", 422, 402),
    ],
)
def test_what_postmark_refuses_whole(body: object, status: int, code: int) -> None:
    verdict = Postmark().judge(post(body))
    assert (verdict.status, json.loads(verdict.body)["ErrorCode"]) == (status, code)
    assert not verdict.accepted


def test_postmarks_door() -> None:
    assert Postmark().judge(post([ITEM] * 500)).recipients == 500
    wrong = Postmark("key").judge(post([ITEM], token="another"))
    assert (wrong.status, json.loads(wrong.body)["ErrorCode"]) == (401, 10)
    assert Postmark().judge(post([ITEM], token="")).status == 401
    assert Postmark().judge(post([ITEM], b"/emails")).status == 404
    request = post([ITEM])
    text = Request(request.body, b"text/plain", 0, request.path, request.headers)
    assert Postmark().judge(text).status == 415
    assert Postmark().judge(post(b" " * 50_000_001)).status == 413


def test_a_business_error_of_postmark_is_one_for_each_message() -> None:
    good = Postmark().judge(post([ITEM, ITEM]))
    refused = json.loads(Postmark().business(406, good))
    assert [answer["ErrorCode"] for answer in refused] == [406, 406]
    lone = Postmark().judge(post(ITEM, b"/email"))
    assert json.loads(Postmark().business(300, lone))["ErrorCode"] == 300


def test_a_lean_postmark_counts_messages() -> None:
    verdict = Postmark(validate=False).judge(post([ITEM, ITEM]))
    assert (verdict.recipients, len(json.loads(verdict.body))) == (2, 2)
