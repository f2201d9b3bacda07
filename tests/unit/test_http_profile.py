"""Any JSON API: the payload goes through, and configuration says what a reply means."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import ConfigError, MessageTooLarge, PayloadError
from paceline.settings_file import loads
from paceline_workers.outcome import STATUSES, Kind, Outcome, Reply, judge_status
from paceline_workers.providers.base import Profile
from paceline_workers.providers.registry import build

CONFIG = '[destinations.api]\nprovider = "http"\nurl = "https://api.example/v1"\n'


def profile(lines: str = "", **environ: str) -> Profile:
    return build(loads(CONFIG + lines).destinations["api"], environ)


def headers(lines: str = "", **environ: str) -> dict[str, str]:
    return profile(lines, **environ).render("m-1", b"{}").headers


def judge(lines: str, status: int, body: Any = b"", **more: Any) -> Outcome:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return profile(lines).judge(Reply(status, more.pop("headers", {}), raw, **more), 0.0)


# --- the request ---


@given(st.recursive(st.none() | st.integers() | st.text("aé "), st.lists, max_leaves=5))
def test_the_payload_is_the_body_untouched(value: Any) -> None:
    payload = json.dumps(value, indent=1).encode()
    request = profile().render("m-1", payload)
    assert (request.method, request.body) == ("POST", payload)


def test_method_and_headers_come_from_the_configuration() -> None:
    request = profile(
        'method = "PUT"\n'
        'headers = { content-type = "application/vnd.x+json", X-Key = { env = "K" } }',
        K="s3cret",
    ).render("m-1", b"{}")
    assert request.method == "PUT"
    assert request.headers == {
        "Accept": "application/json",
        "User-Agent": "paceline",
        "content-type": "application/vnd.x+json",
        "X-Key": "s3cret",
        "Paceline-Message-Id": "m-1",
        "Idempotency-Key": "m-1",
    }
    assert "s3cret" not in repr(request)


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("", "m-1"),
        ('idempotency_key = "bare"', "m-1"),
        ('idempotency_key = "quoted"', '"m-1"'),
        ('idempotency_key = "off"', None),
        ('headers = { Idempotency-Key = "fixed" }', "fixed"),
    ],
)
def test_the_idempotency_key(lines: str, key: str | None) -> None:
    assert headers(lines).get("Idempotency-Key") == key


def test_the_id_header_can_be_named_or_left_out() -> None:
    assert headers('id_header = "X-Id"')["X-Id"] == "m-1"
    assert "Paceline-Message-Id" not in headers('id_header = ""')


def test_username_and_password_are_basic_authorization() -> None:
    lines = 'username = "ü"\npassword = { env = "PW" }'
    value = headers(lines, PW="a:b")["Authorization"]
    assert base64.b64decode(value.removeprefix("Basic ")).decode() == "ü:a:b"
    own = headers(lines + '\nheaders = { authorization = "Bearer x" }', PW="p")
    assert [v for k, v in own.items() if k.lower() == "authorization"] == ["Bearer x"]


def test_all_secrets_that_are_missing_or_unfit_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        profile(
            'username = "a:b"\npassword = { env = "NOPE" }\n'
            'headers = { A = { env = "BAD" }, B = { env = "NEITHER" } }',
            BAD="x\r\nInjected: y",
        )
    assert [problem.key for problem in caught.value.problems] == [
        "destinations.api.password",
        "destinations.api.username",
        "destinations.api.headers.A",
        "destinations.api.headers.B",
    ]
    assert "Injected" not in str(caught.value)


def test_a_payload_that_is_no_json_or_too_large_is_refused() -> None:
    with pytest.raises(PayloadError):
        profile().render("m-1", b"{")
    with pytest.raises(MessageTooLarge):
        profile("max_payload_bytes = 5").render("m-1", b'"12345"')


def test_one_request_changes_nothing_of_the_next() -> None:
    it = profile()
    it.render("m-1", b"{}").headers["X"] = "y"
    assert it.render("m-2", b"{}").headers["Idempotency-Key"] == "m-2"
    assert "X" not in it.render("m-2", b"{}").headers


# --- the judgement ---


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 408, 420, 429, 500, 502, 503, 999])
def test_without_rules_the_general_table_holds(status: int) -> None:
    reply = Reply(status, {"Retry-After": "7"}, b"x")
    found, general = profile().judge(reply, 0.0), judge_status(reply, 0.0)
    assert (found.kind, found.retry_after_s) == (general.kind, general.retry_after_s)


def test_a_2xx_outside_the_success_statuses_is_ambiguous() -> None:
    lines = 'success = { statuses = ["200", "202"] }'
    kinds = [judge(lines, status).kind for status in (200, 201, 202, 404)]
    assert kinds == [Kind.SENT, Kind.AMBIGUOUS, Kind.SENT, Kind.REJECTED]


def test_success_may_be_a_status_the_general_table_refuses() -> None:
    lines = 'success = { statuses = ["2xx", "409"] }'
    assert judge(lines, 409).kind is Kind.SENT


@pytest.mark.parametrize(
    ("equals", "body", "kind"),
    [
        ('"ok"', {"status": "ok"}, Kind.SENT),
        ('"ok"', {"status": "error"}, Kind.REJECTED),
        ('"ok"', {"status": None}, Kind.REJECTED),
        ('"ok"', {}, Kind.AMBIGUOUS),
        ('"ok"', [], Kind.AMBIGUOUS),
        ('"ok"', b"", Kind.AMBIGUOUS),
        ('"ok"', b"<html>", Kind.AMBIGUOUS),
        ('"ok"', b"\xff", Kind.AMBIGUOUS),
        ('"ok"', b"[" * 5000, Kind.AMBIGUOUS),
        ("true", {"status": True}, Kind.SENT),
        ("true", {"status": 1}, Kind.REJECTED),
        ("0", {"status": 0}, Kind.SENT),
        ("0", {"status": False}, Kind.REJECTED),
        ("0", {"status": "0"}, Kind.REJECTED),
        ("1.5", {"status": 1.5}, Kind.SENT),
    ],
)
def test_the_body_must_say_yes_too(equals: str, body: Any, kind: Kind) -> None:
    lines = f'success = {{ body = {{ pointer = "/status", equals = {equals} }} }}'
    outcome = judge(lines, 200, body)
    assert outcome.kind is kind
    assert "/status" in outcome.reason


def test_a_body_cut_short_cannot_say_yes_but_matters_only_where_it_is_read() -> None:
    lines = 'success = { body = { pointer = "/s", equals = 1 } }'
    assert judge(lines, 200, {"s": 1}, truncated=True).kind is Kind.AMBIGUOUS
    assert judge("", 200, b"{", truncated=True).kind is Kind.SENT


# The examples of RFC 6901 §5, and what leads nowhere.
DOCUMENT = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, "~1": 5, "x": {"y": [{"id": "z"}]}}


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/foo/0", "bar"),
        ("/foo/1", "baz"),
        ("/", "0"),
        ("/a~1b", "1"),
        ("/m~0n", "8"),
        ("/~01", "5"),
        ("/x/y/0/id", "z"),
        ("/foo/2", None),
        ("/foo/01", None),
        ("/foo/-", None),
        ("/foo/-1", None),
        ("/foo/0/x", None),
        ("/nope", None),
        ("/foo", None),
        ("", None),
    ],
)
def test_the_providers_id_is_found_by_json_pointer(pointer: str, found: str | None) -> None:
    outcome = judge(f'success = {{ id_pointer = "{pointer}" }}', 200, DOCUMENT)
    assert (outcome.kind, outcome.provider_id) == (Kind.SENT, found)


def test_an_unreadable_id_does_not_unsend_a_message() -> None:
    outcome = judge('success = { id_pointer = "/id" }', 200, b"<html>")
    assert (outcome.kind, outcome.provider_id) == (Kind.SENT, None)


@pytest.mark.parametrize("name", ["retry", "rejected", "throttled", "held", "ambiguous"])
@pytest.mark.parametrize("status", [202, 302, 409, 500, 503])
def test_outcomes_override_every_status(name: str, status: int) -> None:
    outcome = judge(f'outcomes = {{ {status} = "{name}" }}', status, b"why")
    assert (outcome.kind, outcome.status, outcome.body) == (Kind(name), status, b"why")
    assert "by configuration" in outcome.reason


def test_the_exact_status_comes_before_success_and_success_before_the_class() -> None:
    lines = """
        success = { statuses = ["2xx", "404"] }
        outcomes = { 202 = "retry", 404 = "held", 4xx = "ambiguous" }
    """.replace(', "404"', "")
    kinds = [judge(lines, status).kind for status in (200, 202, 404, 409, 500)]
    assert kinds == [Kind.SENT, Kind.RETRY, Kind.HELD, Kind.AMBIGUOUS, Kind.AMBIGUOUS]
    lines = 'success = { statuses = ["2xx", "404"] }\noutcomes = { 4xx = "held" }'
    assert [judge(lines, status).kind for status in (404, 409)] == [Kind.SENT, Kind.HELD]


def test_a_configured_outcome_keeps_the_time_the_peer_named() -> None:
    outcome = judge('outcomes = { 409 = "retry" }', 409, headers={"retry-after": "9"})
    assert (outcome.kind, outcome.retry_after_s) == (Kind.RETRY, 9)


@given(st.integers(0, 999), st.binary())
def test_judging_never_raises(status: int, body: bytes) -> None:
    lines = 'success = { body = { pointer = "", equals = 1 }, id_pointer = "/a" }'
    assert judge(lines, status, body).kind in set(STATUSES.values()) | {Kind.AMBIGUOUS}
