"""The http profile's richer rules: by status and body, item by item, merged. And the examples that
ship: SendGrid, Postmark and FCM by configuration alone."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import PayloadError
from paceline.settings import Destination
from paceline.settings_file import load, loads
from paceline_workers.outcome import Kind, Outcome, Reply, dispose
from paceline_workers.providers.base import Profile, as_merging
from paceline_workers.providers.http import MergingJsonApi
from paceline_workers.providers.registry import build

CONFIG = '[destinations.api]\nprovider = "http"\nurl = "https://api.example/v1"\n'
EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
SECRETS = {
    "SENDGRID_AUTHORIZATION": "Bearer SG.x",
    "POSTMARK_SERVER_TOKEN": "t0ken",
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "t0ken",
}


def profile(lines: str = "") -> Profile:
    return build(loads(CONFIG + lines).destinations["api"], {})


def merging(lines: str) -> MergingJsonApi:
    found = profile(lines)
    assert isinstance(found, MergingJsonApi)
    assert as_merging(found) is found
    return found


def reply(status: int, body: Any = b"", **more: Any) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, more.pop("headers", {}), raw, **more)


def judge(lines: str, status: int, body: Any = b"", **more: Any) -> Outcome:
    return profile(lines).judge(reply(status, body, **more), 0.0)


# --- rules by status and body ---


RULES = """
[destinations.api.rules.first]
status = "403"
text = "Too Many"
outcome = "throttled"
[destinations.api.rules.second]
status = "4xx"
pointer = "/error/code"
equals = 7
outcome = "retry"
[destinations.api.rules.third]
status = "200"
text = "queue full"
outcome = "ambiguous"
"""


@pytest.mark.parametrize(
    ("status", "body", "kind", "rule"),
    [
        (403, b"there were too many bad requests", Kind.THROTTLED, "first"),
        (403, b"\xffTOO MANY\xff", Kind.THROTTLED, "first"),
        (403, b"forbidden", Kind.HELD, ""),
        (429, b"too many", Kind.THROTTLED, ""),
        (422, {"error": {"code": 7}}, Kind.RETRY, "second"),
        (422, {"error": {"code": "7"}}, Kind.REJECTED, ""),
        (422, {"error": {}}, Kind.REJECTED, ""),
        (422, b"<html>", Kind.REJECTED, ""),
        (500, {"error": {"code": 7}}, Kind.AMBIGUOUS, ""),
        (403, {"error": {"code": 7}, "m": "too many"}, Kind.THROTTLED, "first"),
        (403, {"error": {"code": 7}}, Kind.RETRY, "second"),
        (200, b"Queue full", Kind.AMBIGUOUS, "third"),
        (200, b"", Kind.SENT, ""),
    ],
)
def test_the_first_rule_that_fits_holds(status: int, body: Any, kind: Kind, rule: str) -> None:
    outcome = judge(RULES, status, body)
    assert (outcome.kind, outcome.status) == (kind, status)
    assert (f"by the rule '{rule}'" in outcome.reason) is bool(rule)


def test_a_rule_comes_before_outcomes_and_keeps_the_time_the_peer_named() -> None:
    lines = 'outcomes = { 403 = "held" }\n' + RULES
    outcome = judge(lines, 403, b"too many", headers={"Retry-After": "9"})
    assert (outcome.kind, outcome.retry_after_s) == (Kind.THROTTLED, 9)
    assert judge(lines, 403, b"x").kind is Kind.HELD


def test_an_id_in_a_header_is_kept() -> None:
    lines = 'success = { id_header = "x-message-ID" }'
    assert judge(lines, 200, headers={"X-Message-Id": "m7"}).provider_id == "m7"
    for headers in ({}, {"X-Message-Id": ""}):
        assert judge(lines, 200, headers=headers).provider_id is None
    assert judge(lines, 400, headers={"X-Message-Id": "m7"}).provider_id is None


# --- item by item ---

ITEMS = """
[destinations.api.merge]
most = 10
array = ""
[destinations.api.items]
pointer = "/results"
success = { pointer = "/code", equals = 0 }
id_pointer = "/id"
code_pointer = "/code"
[destinations.api.items.outcomes]
429 = "throttled"
busy = "retry"
"""


def items(*codes: Any) -> dict[str, Any]:
    return {"results": [{"code": code, "id": f"i{n}"} for n, code in enumerate(codes)]}


def test_each_message_is_judged_by_its_own_item() -> None:
    body = items(0, 300, 429, "busy", True, None, 0)
    body["results"].append({"id": "no code"})
    outcome = merging(ITEMS).judge_merged(reply(200, body), 0.0, 8)
    assert (outcome.kind, len(outcome.parts)) == (Kind.SENT, 8)
    assert "6 of 8 not taken" in outcome.reason
    assert [part.kind for part in outcome.parts] == [
        *(Kind.SENT, Kind.REJECTED, Kind.THROTTLED, Kind.RETRY, Kind.REJECTED, Kind.REJECTED),
        *(Kind.SENT, Kind.AMBIGUOUS),
    ]
    assert [part.provider_id for part in outcome.parts] == ["i0", *[None] * 5, "i6", None]
    assert b'"code":300' in outcome.parts[1].body
    assert "is 300" in outcome.parts[1].reason


def test_where_all_fail_alike_the_whole_does() -> None:
    outcome = merging(ITEMS).judge_merged(reply(200, items(300, 301)), 0.0, 2)
    assert (outcome.kind, len(outcome.parts)) == (Kind.REJECTED, 2)


@pytest.mark.parametrize(
    "body",
    [
        items(0),
        items(0, 0, 0),
        *({}, [], {"results": {}}, {"results": None}),
        *(b"", b"<html>", b"\xff", b'{"results":['),
    ],
)
def test_without_an_item_for_each_nothing_is_known(body: Any) -> None:
    outcome = merging(ITEMS).judge_merged(reply(200, body), 0.0, 2)
    assert (outcome.kind, outcome.parts) == (Kind.AMBIGUOUS, ())
    assert merging(ITEMS).judge_merged(reply(200, items(0, 0), truncated=True), 0.0, 2).kind is (
        Kind.AMBIGUOUS
    )


def test_a_message_alone_has_its_item_too() -> None:
    sent, refused = judge(ITEMS, 200, items(0)), judge(ITEMS, 200, items(300))
    assert (sent.kind, sent.provider_id, sent.parts) == (Kind.SENT, "i0", ())
    assert (refused.kind, refused.status) == (Kind.REJECTED, 200)
    assert judge(ITEMS, 200, items(0, 0)).kind is Kind.AMBIGUOUS
    assert judge(ITEMS, 500, items(0)).kind is Kind.AMBIGUOUS


@given(st.integers(0, 999), st.binary(), st.integers(1, 3))
def test_judging_never_raises(status: int, body: bytes, count: int) -> None:
    for lines in (RULES, ITEMS):
        assert profile(lines).judge(reply(status, body), 0.0).kind in Kind
    assert merging(ITEMS).judge_merged(reply(status, body), 0.0, count).kind in Kind


# --- merging ---


def test_payloads_equal_but_for_one_element_share_a_body() -> None:
    it = merging('merge = { most = 9, array = "/message/to~1all" }')
    one, other = (
        json.dumps({"x": [], "message": {"to/all": [{"a": n}], "text": "t"}}, indent=1).encode()
        for n in (1, 2)
    )
    portions = [it.portion(one), it.portion(other)]
    assert portions[0]
    assert portions[1]
    assert portions[0].shared == portions[1].shared
    body = it.join(portions[0].shared, [portions[0].part, portions[1].part])
    assert json.loads(body) == {"x": [], "message": {"to/all": [{"a": 1}, {"a": 2}], "text": "t"}}
    request = it.render_merged("r-1", body)
    assert (request.body, request.headers["Idempotency-Key"]) == (body, "r-1")
    assert it.render("m-1", one).body == one
    for payload in (b'{"message":{}}', b'{"message":{"to/all":[1,2]}}', b"[]", b"5"):
        assert it.portion(payload) is None


def test_whole_payloads_become_an_array_of_them() -> None:
    it = merging('merge = { most = 9, array = "" }\nidempotency_key = "quoted"')
    portions = [it.portion(payload) for payload in (b'{"a": 1}', b"[2]")]
    assert [one.shared if one else None for one in portions] == [(), ()]
    assert it.join((), [one.part for one in portions if one]) == b'[{"a": 1},[2]]'
    assert it.render("m-1", b'{"a": 1}').body == b'[{"a": 1}]'
    assert it.render_merged("r-1", b"[]").headers["Idempotency-Key"] == '"r-1"'
    with pytest.raises(PayloadError):
        it.portion(b"{},{}")


def test_without_an_array_nothing_merges() -> None:
    assert as_merging(profile()) is None


# --- the examples ---


def example(name: str) -> Destination:
    settings = load(EXAMPLES / f"{name}.toml")
    assert settings.warnings == ()
    return settings.destinations[name]


def shipped(name: str, tmp_path: Path) -> Profile:
    found = example(name)
    if name == "fcm":
        (tmp_path / "secret").write_text("Bearer ya29.x\n")
        text = (EXAMPLES / "fcm.toml").read_text()
        text = text.replace("/run/secrets/fcm-authorization", str(tmp_path / "secret"))
        found = loads(text).destinations["fcm"]
    return build(found, SECRETS)


def test_every_example_is_tried_below() -> None:
    shipped_ = sorted(path.stem for path in EXAMPLES.glob("*.toml"))
    assert shipped_ == ["fcm", "postmark", "sendgrid", "twilio"]


SENDGRID = {"from": {"email": "a@b.example"}, "subject": "s", "content": []}


def test_sendgrid(tmp_path: Path) -> None:
    it = shipped("sendgrid", tmp_path)
    assert isinstance(it, MergingJsonApi)
    assert example("sendgrid").merge.most == 1000
    assert example("sendgrid").merge.on_ambiguous == "park", "it has no idempotency key"
    payloads = [
        json.dumps({"personalizations": [{"to": [{"email": f"a{n}@b"}]}], **SENDGRID}).encode()
        for n in range(3)
    ]
    request = it.render("m-1", payloads[0])
    assert (request.headers["Authorization"], request.body) == ("Bearer SG.x", payloads[0])
    assert "Idempotency-Key" not in request.headers
    portions = [one for payload in payloads if (one := it.portion(payload))]
    body = json.loads(it.join(portions[0].shared, [one.part for one in portions]))
    assert len(body["personalizations"]) == 3
    sent = it.judge_merged(reply(202, headers={"X-Message-Id": "sg-1"}), 0.0, 3)
    assert (sent.kind, sent.provider_id, sent.parts) == (Kind.SENT, "sg-1", ())
    for status, text, kind in [
        (200, "", Kind.AMBIGUOUS),
        (400, "bad", Kind.REJECTED),
        (401, "", Kind.HELD),
        (403, '{"errors":[{"message":"Too many bad requests"}]}', Kind.THROTTLED),
        (403, '{"errors":[{"message":"forbidden"}]}', Kind.HELD),
        (413, "", Kind.TOO_LARGE),
        (429, "", Kind.THROTTLED),
        (500, "", Kind.AMBIGUOUS),
        (503, "", Kind.UNAVAILABLE),
    ]:
        assert it.judge(reply(status, text.encode()), 0.0).kind is kind, status


def test_postmark(tmp_path: Path) -> None:
    it = shipped("postmark", tmp_path)
    assert isinstance(it, MergingJsonApi)
    assert (example("postmark").merge.most, example("postmark").merge.max_bytes) == (
        500,
        50 * 10**6,
    )
    payload = b'{"From":"a@b.example","To":"c@b.example"}'
    request = it.render("m-1", payload)
    assert request.headers["X-Postmark-Server-Token"] == "t0ken"
    assert json.loads(request.body) == [json.loads(payload)]
    answers = [
        {"ErrorCode": 0, "Message": "OK", "MessageID": "pm-1", "To": "c@b.example"},
        {"ErrorCode": 406, "Message": "inactive recipient"},
        {"ErrorCode": 300, "Message": "Invalid 'To' address"},
        {"ErrorCode": 405, "Message": "Not allowed to send"},
        {"ErrorCode": 429, "Message": "Rate limit exceeded"},
    ]
    outcome = it.judge_merged(reply(200, answers), 0.0, 5)
    assert [part.kind for part in outcome.parts] == [
        *(Kind.SENT, Kind.REJECTED, Kind.REJECTED, Kind.HELD, Kind.THROTTLED),
    ]
    assert outcome.parts[0].provider_id == "pm-1"
    actions = [dispose(part, 0, it.policy, 0.0).action for part in outcome.parts]
    assert actions == ["sent", "dead", "dead", "held", "throttled"]
    for status, kind in [
        *((401, Kind.HELD), (413, Kind.TOO_LARGE), (422, Kind.REJECTED), (429, Kind.THROTTLED)),
        *((500, Kind.AMBIGUOUS), (503, Kind.UNAVAILABLE)),
    ]:
        found = it.judge_merged(reply(status, {"ErrorCode": 10, "Message": "m"}), 0.0, 5)
        assert (found.kind, found.parts) == (kind, ())


def test_fcm(tmp_path: Path) -> None:
    it = shipped("fcm", tmp_path)
    assert it.render("m-1", b"{}").headers["Authorization"] == "Bearer ya29.x"
    assert it.judge(reply(200, {"name": "projects/p/messages/1"}), 0.0).provider_id is not None
    gone = {"error": {"code": 404, "details": [{"errorCode": "UNREGISTERED"}]}}
    assert it.judge(reply(404, gone), 0.0).kind is Kind.REJECTED
    assert it.judge(reply(404, b"<html>"), 0.0).kind is Kind.HELD
    throttled = it.judge(reply(429, headers={"Retry-After": "60"}), 0.0)
    assert (throttled.kind, throttled.retry_after_s) == (Kind.THROTTLED, 60)


def test_twilio(tmp_path: Path) -> None:
    it = shipped("twilio", tmp_path)
    payload = '{"To": "+1 555", "Body": "Grüße & 1=1", "MediaUrl": ["a", "b"], "n": 5, "t": true}'
    request = it.render("m-1", payload.encode())
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert base64.b64decode(request.headers["Authorization"][6:]) == b"AC1:t0ken"
    assert parse_qsl(request.body.decode("ascii"), strict_parsing=True) == [
        ("To", "+1 555"),
        ("Body", "Grüße & 1=1"),
        ("MediaUrl", "a"),
        ("MediaUrl", "b"),
        ("n", "5"),
        ("t", "true"),
    ]
    assert it.render("m-1", payload.encode()) == request
    for other in (b"[]", b"5", b'"a"', b"null"):
        with pytest.raises(PayloadError, match="no object"):
            it.render("m-1", other)
    assert it.judge(reply(201, {"sid": "SM1", "status": "queued"}), 0.0).provider_id == "SM1"
    for status, code, kind in [
        (429, 20429, Kind.THROTTLED),
        (400, 20429, Kind.THROTTLED),
        (400, 21610, Kind.REJECTED),
        (401, 20003, Kind.HELD),
        (500, 20500, Kind.AMBIGUOUS),
    ]:
        assert it.judge(reply(status, {"code": code, "message": "m"}), 0.0).kind is kind


def test_what_is_no_text_goes_into_a_form_as_it_is_written() -> None:
    payload = (
        b'{"a": 1.50, "b": [12345678901234567890.123, -0 , 1e999], "c": {"d" : [1.0]}, "e": []}'
    )
    assert profile('body = "form"').render("m-1", payload).body == (
        b"a=1.50&b=12345678901234567890.123&b=-0&b=1e999&c=%7B%22d%22+%3A+%5B1.0%5D%7D"
    )


def test_a_form_with_a_content_type_of_its_own_keeps_it() -> None:
    lines = 'body = "form"\nheaders = { content-type = "application/x-own" }'
    request = profile(lines).render("m-1", b'{"a": 1}')
    assert [v for k, v in request.headers.items() if k.lower() == "content-type"] == [
        "application/x-own"
    ]
