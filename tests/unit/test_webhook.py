"""Webhooks: what is signed, verified by a package that nobody here wrote; keys; replies."""

from __future__ import annotations

import base64
import json
import logging
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Receiver
from standardwebhooks import WebhookVerificationError

from paceline import logs
from paceline.cli.common import log_as_worker
from paceline.errors import ConfigError, MessageTooLarge, PayloadError
from paceline.settings import Destination
from paceline.settings_file import loads
from paceline.webhook_key import webhook_key
from paceline_workers.live_profile import LiveProfile
from paceline_workers.outcome import Kind, Outcome, Reply, dispose
from paceline_workers.providers.base import RenderedRequest, as_merging, as_polling
from paceline_workers.providers.registry import build
from paceline_workers.providers.webhook import Webhook
from paceline_workers.providers.webhook_signer import Signer

TABLE = '[destinations.w]\nprovider = "webhook"\nurl = "https://w.example/hooks"\n'
BODY = '{"type": "user.created",  "data": {"name": "Zoë"}}'.encode()
NOW = 1_640_032_381.0


#: The same keys in each process that collects these tests.
_dice = random.Random(20261128)


def new_key(size: int = 32) -> str:
    return "whsec_" + base64.b64encode(_dice.randbytes(size)).decode()


OLD, NEW = new_key(), new_key()


def configured(secrets: str = '[{ env = "NEW" }, { env = "OLD" }]', more: str = "") -> Destination:
    return loads(f"{TABLE}secrets = {secrets}\n{more}").destinations["w"]


def profile(secrets: str = '[{ env = "OLD" }]', more: str = "", **environ: str) -> Webhook:
    built = build(configured(secrets, more), {"OLD": OLD, "NEW": NEW} | environ)
    assert isinstance(built, Webhook)
    return built


def verifies(key: str, request: RenderedRequest) -> bool:
    try:
        Receiver(key).verify(request.body, request.headers)
    except WebhookVerificationError:
        return False
    return True


# --- the request ---


def test_the_request() -> None:
    request = profile(more='headers = { authorization = "Bearer b" }').render("m-1", BODY)
    assert (request.method, request.body, request.suffix) == ("POST", BODY, "")
    signed = {name: request.headers.pop(name) for name in list(request.headers) if "hook" in name}
    assert sorted(signed) == ["webhook-id", "webhook-signature", "webhook-timestamp"]
    assert signed["webhook-id"] == "m-1"
    assert request.headers == {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "paceline",
        "authorization": "Bearer b",
    }


def test_the_standards_own_library_verifies_it_and_nothing_else() -> None:
    request = profile().render("m-1", BODY)
    assert Receiver(OLD).verify(request.body, request.headers) == json.loads(BODY)
    assert not verifies(NEW, request)
    for name, value in (
        ("webhook-id", "m-2"),
        ("webhook-timestamp", str(int(request.headers["webhook-timestamp"]) + 1)),
    ):
        assert not verifies(OLD, RenderedRequest("POST", {**request.headers, name: value}, BODY))
    # To the byte: a receiver that writes the JSON anew has another body.
    for body in (BODY + b" ", BODY.replace(b"  ", b" "), BODY.replace(b"user", b"usar"), b"{}"):
        assert not verifies(OLD, RenderedRequest("POST", request.headers, body))


def test_the_standards_own_example() -> None:
    """The vector of its reference implementations."""
    key = webhook_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = Signer([key]).headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_a_key_is_replaced_the_old_and_the_new_verify() -> None:
    both = '[{ env = "NEW" }, { env = "OLD" }]'
    request = profile(both).render("m-1", BODY)
    assert request.headers["webhook-signature"].count("v1,") == 2
    assert verifies(OLD, request)
    assert verifies(NEW, request)
    assert not verifies(new_key(), request)
    newest = Signer([webhook_key(NEW)]).headers(
        "m-1", int(request.headers["webhook-timestamp"]), BODY
    )
    assert request.headers["webhook-signature"].startswith(newest["webhook-signature"] + " ")
    # A reload: the next request is signed by the new configuration.
    live = LiveProfile(profile())
    assert verifies(OLD, live.render("m-1", BODY))
    live.replace(profile('[{ env = "NEW" }]'))
    assert not verifies(OLD, live.render("m-1", BODY))
    assert verifies(NEW, live.render("m-1", BODY))


def test_a_new_try_has_the_same_id_and_a_fresh_signature() -> None:
    now = [NOW]
    it = build(configured(), {"OLD": OLD, "NEW": NEW}, lambda: now[0])
    first = it.render("m-1", BODY)
    assert first == it.render("m-1", BODY)
    now[0] += 300.9
    second = it.render("m-1", BODY)
    assert first.headers["webhook-timestamp"] == "1640032381"
    assert second.headers["webhook-timestamp"] == "1640032681"
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == "m-1"
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert first.body == second.body


def test_an_id_that_cannot_be_signed_without_doubt() -> None:
    with pytest.raises(PayloadError, match="id: holds a full stop"):
        profile().render("m.1", BODY)


def test_a_payload_that_is_too_large_or_no_json() -> None:
    with pytest.raises(MessageTooLarge):
        profile(more="max_payload_bytes = 10").render("m-1", BODY)
    with pytest.raises(PayloadError):
        profile().render("m-1", b"{")


def test_it_neither_merges_nor_asks() -> None:
    assert as_merging(profile()) is None
    assert as_polling(profile()) is None


@given(
    st.text(st.sampled_from("aZ09_-"), min_size=1, max_size=20), st.integers(0, 2**32), st.text()
)
def test_it_signs_as_the_standards_own_library_does(message_id: str, at_s: int, body: str) -> None:
    data = body.encode("utf-8", "replace")
    found = Signer([webhook_key(OLD)]).headers(message_id, at_s, data)["webhook-signature"]
    when = datetime.fromtimestamp(at_s, UTC)
    assert found == Receiver(OLD).sign(message_id, when, data.decode())


# --- keys, and that nobody sees them ---


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("hunter2x", "does not begin with whsec_"),
        (OLD.removeprefix("whsec_"), "does not begin with whsec_"),
        (OLD.replace("whsec_", "whsk_"), "does not begin with whsec_"),
        ("whsec_hunter2x!", "is no base64"),
        ("whsec_hünter2x", "is no base64"),
        ("whsec_hunter2xx", "is no base64"),
        (new_key(33).replace("=", "") + "-_-_", "is no base64"),
        (new_key(23), "is a key of 23 bytes, not of 24 to 64"),
        (new_key(65), "is a key of 65 bytes, not of 24 to 64"),
        ("whsec_", "is a key of 0 bytes"),
    ],
)
def test_what_is_no_key_stops_the_start_and_is_not_shown(
    tmp_path: Path, value: str, problem: str
) -> None:
    file = tmp_path / "key"
    file.write_text(value + "\n")
    for secrets in (f'["{value}"]', '[{ env = "BAD" }]', f'[{{ file = "{file}" }}]'):
        with pytest.raises(ConfigError) as caught:
            profile(secrets, BAD=value)
        told = str(caught.value)
        assert f"destinations.w.secrets[0]: {problem}" in told
        assert not value[6:] or value[6:] not in told
        chained = caught.value.__cause__ or caught.value.__context__
        assert chained is None or value not in repr(chained)


def test_what_the_file_itself_holds_is_looked_at_when_it_is_read() -> None:
    assert problems('["whsec_hunter2!", { env = "OLD" }]') == {
        "secrets[0]": "is no base64 behind whsec_"
    }
    with pytest.raises(ValueError, match="no base64") as caught:
        webhook_key("whsec_hunter2!")
    assert caught.value.__suppress_context__, "a traceback would go on to what it was made of"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("size", [24, 32, 33, 64])
def test_what_is_a_key(size: int) -> None:
    assert len(webhook_key(new_key(size))) == size
    profile('[{ env = "K" }]', K=new_key(size)).render("m-1", BODY)


def test_every_key_that_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        profile('[{ env = "NOWHERE" }, { env = "OLD" }, { env = "BAD" }]', BAD="hunter2x")
    assert [problem.key for problem in caught.value.problems] == [
        "destinations.w.secrets[0]",
        "destinations.w.secrets[2]",
    ]


def test_nothing_shows_a_key() -> None:
    destination = configured(f'["{NEW}", {{ env = "OLD" }}]')
    it = build(destination, {"OLD": OLD})
    request = it.render("m-1", BODY)
    signer = Signer([webhook_key(OLD), webhook_key(NEW)])
    shown = f"{destination!r} {destination.public()} {it!r} {it} {request!r} {signer!r}"
    for key in (OLD, NEW):
        assert key.removeprefix("whsec_") not in shown
        assert repr(webhook_key(key)) not in shown
    assert destination.public()["secrets"] is True
    assert "secrets[0]" in repr(destination)


def test_the_logs_are_covered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(logs, "_formatter", logs.JsonFormatter())
    kept = new_key()
    file = tmp_path / "key"
    file.write_text(kept)
    destination = configured(f'["{NEW}", {{ env = "OLD" }}, {{ file = "{file}" }}]')
    log_as_worker(destination, "w-1", {"OLD": OLD})
    for key in (OLD, NEW, kept):
        for text in (key, key.removeprefix("whsec_")):
            record = logging.LogRecord("x", logging.INFO, "", 0, "it is %s", (text,), None)
            assert text not in logs._formatter.format(record)


# --- the configuration ---


def problems(
    secrets: str = '[{ env = "OLD" }]', more: str = "", table: str = TABLE
) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        loads(f"{table}secrets = {secrets}\n{more}")
    return {
        problem.key.removeprefix("destinations.w."): problem.problem
        for problem in caught.value.problems
    }


def test_the_defaults() -> None:
    it = configured()
    assert (it.read_timeout_s, it.total_timeout_s, it.max_age_s) == (15, 20, 5 * 86400)
    assert (it.id_header, it.retry.max_retries, it.retry.cap_s) == ("webhook-id", 12, 36000)
    assert configured(more="max_age_s = 7000").max_age_s == 7000


@pytest.mark.parametrize(
    ("secrets", "key", "problem"),
    [
        ("[]", "secrets", "1 to 5"),
        (f'"{OLD}"', "secrets", "1 to 5"),
        ('{ env = "OLD" }', "secrets", "1 to 5"),
        ("[" + ", ".join(f'{{ env = "K{n}" }}' for n in range(6)) + "]", "secrets", "1 to 5"),
        ('[{ env = "A" }, { env = "A" }]', "secrets[1]", "twice"),
        (f'["{OLD}", "{OLD}"]', "secrets[1]", "twice"),
        ('[""]', "secrets[0]", "empty"),
        ("[5]", "secrets[0]", "neither"),
        ('[{ env = "A" }, { nev = "A" }]', "secrets[1].nev", "unknown"),
    ],
)
def test_secrets_that_cannot_be(secrets: str, key: str, problem: str) -> None:
    found = problems(secrets)
    assert list(found) == [key]
    assert problem in found[key]
    assert OLD[6:] not in str(found)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('id_header = "X-Id"', "id_header"),
        ("gzip_from_bytes = 5", "gzip_from_bytes"),
        ('username = "u"\npassword = "p"', "username"),
        ('api_key = "k"', "api_key"),
        ('method = "PUT"', "method"),
        ('idempotency_key = "off"', "idempotency_key"),
        ("merge = { most = 2 }", "merge"),
        ('outcomes = { 409 = "retry" }', "outcomes"),
        ('headers = { Webhook-ID = "5" }', "headers.Webhook-ID"),
        ('headers = { webhook-signature = "v1,x" }', "headers.webhook-signature"),
    ],
)
def test_what_means_nothing_for_a_webhook(more: str, key: str) -> None:
    assert key in problems(more=more)


def test_one_destination_is_one_endpoint() -> None:
    two = TABLE.replace('"https://w.example/hooks"', '["https://a.example", "https://b.example"]')
    assert list(problems(table=two)) == ["url"]
    one = TABLE.replace('"https://w.example/hooks"', '["https://a.example"]')
    loads(f'{one}secrets = [{{ env = "A" }}]')


def test_secrets_are_needed_and_are_of_webhooks_alone() -> None:
    with pytest.raises(ConfigError, match=r"destinations\.w\.secrets: missing"):
        loads(TABLE)
    http = TABLE.replace('"webhook"', '"http"')
    assert problems(table=http) == {"secrets": "means nothing for http"}


# --- the judgement ---


def judge(status: int, more: str = "", **headers: str) -> Outcome:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return profile(more=more).judge(Reply(status, named, b"whatever"), NOW)


def test_any_2xx_is_a_yes_whatever_its_body() -> None:
    for status in (200, 201, 202, 204, 299):
        assert judge(status).kind is Kind.SENT
    assert profile().judge(Reply(200, {}, b"<html>", truncated=True), NOW).kind is Kind.SENT


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        (Kind.HELD, "301 308 300 304 305 401 403 407 410"),
        (Kind.AMBIGUOUS, "302 303 500 501 505 599"),
        (Kind.RETRY, "307 408 425"),
        (Kind.REJECTED, "400 402 404 405 406 409 415 418 422 451"),
        (Kind.TOO_LARGE, "413"),
        (Kind.THROTTLED, "429 502 504"),
        (Kind.UNAVAILABLE, "503"),
    ],
)
def test_what_its_page_says(kind: Kind, statuses: str) -> None:
    assert {status: judge(int(status)).kind for status in statuses.split()} == dict.fromkeys(
        statuses.split(), kind
    )


def test_what_is_gone_is_gone_whenever_it_says_to_come_again() -> None:
    assert judge(410).reason == "endpoint is gone"
    assert judge(410, retry_after="5").kind is Kind.HELD
    assert judge(401, retry_after="5").kind is Kind.HELD


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_the_time_that_it_names_is_the_least_wait(status: int) -> None:
    outcome = judge(status, retry_after="7")
    assert (outcome.kind, outcome.retry_after_s) == (Kind.THROTTLED, 7)
    found = dispose(outcome, 0, profile().policy, 0.5)
    assert (found.action, found.charge, found.delay_s) == ("throttled", False, 7)


def test_who_parks_what_is_ambiguous_parks_what_a_proxy_lost() -> None:
    park = 'retry = { on_ambiguous = "park" }'
    for status in (500, 502, 504):
        outcome = judge(status, park)
        assert dispose(outcome, 0, profile(more=park).policy, 0.5).action == "parked", status
    assert judge(429, park).kind is Kind.THROTTLED


@given(st.integers(0, 999), st.binary(max_size=20), st.text(max_size=10))
def test_judging_never_raises_and_only_2xx_is_sent(status: int, body: bytes, wait: str) -> None:
    it: Any = profile()
    outcome = it.judge(Reply(status, {"Retry-After": wait}, body), NOW)
    assert (outcome.kind is Kind.SENT) == (200 <= status < 300)
