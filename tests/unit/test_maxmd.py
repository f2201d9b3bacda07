"""MaxMD: the request as its document wants it, and every row of its table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.backoff import POLICIES
from paceline.errors import ConfigError, MessageTooLarge, PayloadError
from paceline.settings_file import loads
from paceline_workers.outcome import Kind, Outcome, Reply, dispose
from paceline_workers.providers.base import Profile
from paceline_workers.providers.maxmd import TABLE, Row
from paceline_workers.providers.registry import build
from support.mails import PLAIN, neutral

CONFIG = """
[destinations.maxmd]
provider = "maxmd"
url = "https://api.example/Send"
username = "acme"
password = { env = "PW" }
"""
PAYLOAD = (
    '{ "sender":"a@direct.example", "recipients":[{"email":"b@direct.example","type":"TO"}],'
    ' "subject":"Gr\\u00fc\\u00dfe", "body":"ü", "n": 12345678901234567890, "e":[] }'
).encode()


def profile(lines: str = "", password: str = "s3cret") -> Profile:
    return build(loads(CONFIG + lines).destinations["maxmd"], {"PW": password})


def judge(status: int, body: bytes, **more: Any) -> Outcome:
    return profile().judge(Reply(status, more.pop("headers", {}), body, **more), 0.0)


def answer(**fields: Any) -> Outcome:
    return judge(200, json.dumps(fields).encode())


# --- the request ---


def test_credentials_go_in_beside_the_message_whose_bytes_stay() -> None:
    request = profile().render("m-1", PAYLOAD)
    assert request.method == "POST"
    assert PAYLOAD in request.body
    body = json.loads(request.body)
    assert body == {
        "authentication": {"username": "acme", "password": "s3cret"},
        "message": json.loads(PAYLOAD),
    }


def test_the_headers_are_json_and_the_messages_id() -> None:
    headers = profile('headers = { user-agent = "Praxis/1" }').render("m-1", PAYLOAD).headers
    assert headers == {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "user-agent": "Praxis/1",
        "Paceline-Message-Id": "m-1",
    }
    assert "m-1" not in profile('id_header = ""').render("m-1", PAYLOAD).headers.values()


def test_a_repeated_request_is_the_same_to_the_byte() -> None:
    one = profile()
    assert (
        one.render("m-1", PAYLOAD) == one.render("m-1", PAYLOAD) == profile().render("m-1", PAYLOAD)
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_password_is_escaped(password: str) -> None:
    body = json.loads(profile(password=password).render("m", PAYLOAD).body)
    assert body["authentication"]["password"] == password


def test_nothing_shows_the_credentials() -> None:
    it = profile()
    assert "s3cret" not in f"{it!r} {it} {it.render('m-1', PAYLOAD)!r}"


@pytest.mark.parametrize(
    "payload",
    [b"{}", b"[]", b"{", b'{}},"x":{"a":1}', PAYLOAD[:-1] + b',"authentication":{}}'],
)
def test_a_payload_that_does_not_fit_is_refused_before_the_wire(payload: bytes) -> None:
    with pytest.raises(PayloadError):
        profile().render("m-1", payload)


def test_a_payload_over_the_limit_is_refused() -> None:
    with pytest.raises(MessageTooLarge):
        profile("max_payload_bytes = 50").render("m-1", PAYLOAD)


def test_a_missing_password_stops_the_worker_at_its_start() -> None:
    with pytest.raises(ConfigError, match=r"destinations\.maxmd\.password.*PW"):
        build(loads(CONFIG).destinations["maxmd"], {})


def test_the_policy_is_the_documents_own_as_configured() -> None:
    assert profile().policy == POLICIES["maxmd"]
    assert profile("retry = { max_retries = 1 }").policy.max_retries == 1
    assert profile().name == "maxmd"


# --- a neutral e-mail ---


def test_a_neutral_e_mail_becomes_a_message_with_its_values_put_in() -> None:
    request = profile().render("m-1", neutral(PLAIN))
    assert request == profile().render("m-1", neutral(PLAIN))
    assert json.loads(request.body)["message"] == {
        "sender": "praxis@mail.example",
        "recipients": [
            {"email": "jan@direct.example", "type": "TO"},
            {"email": "copy@direct.example", "type": "CC"},
            {"email": "blind@direct.example", "type": "BCC"},
        ],
        "subject": "Befund für Jan & <Söhne>",
        "body": "<p>Guten Tag Jan &amp; &lt;Söhne&gt;, Nr. 17</p><style>@media{a{b:c}}</style>",
        "htmlBody": True,
        "replyTo": "antwort@mail.example",
        "attachmentList": [
            {"filename": "größe.pdf", "contentType": "application/pdf", "content": "JVBERg=="}
        ],
    }


def test_without_html_the_text_is_the_body() -> None:
    message = json.loads(profile().render("m-1", neutral()).body)["message"]
    assert (message["subject"], message["body"], message["htmlBody"]) == (
        "Hello Jane",
        "Dear Jane",
        False,
    )


def test_what_the_api_has_no_field_for_is_refused() -> None:
    with pytest.raises(PayloadError, match="MaxMD's API has nothing like it"):
        profile().render("m-1", neutral(headers={"X-A": "b"}))


# --- the table ---


def test_the_table_is_whole() -> None:
    assert len(TABLE) == 12
    assert {row.status for row in TABLE} == {200, 429, 500, 502, 503, 504}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.status} {row.says}")
def test_every_row_of_the_table(row: Row) -> None:
    outcome = judge(row.status, row.body)
    assert (outcome.kind, outcome.status) == (row.kind, row.status)
    assert outcome.reason.startswith(row.says)
    assert outcome.body == row.body


# The provider's document, written out again by hand: the table above is code.
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, Kind.HELD),
        (2, Kind.REJECTED),
        (3, Kind.RETRY),
        (4, Kind.RETRY),
        (999, Kind.REJECTED),
        (0, Kind.AMBIGUOUS),
        (5, Kind.AMBIGUOUS),
        (-1, Kind.AMBIGUOUS),
        (998, Kind.AMBIGUOUS),
    ],
)
def test_codes_without_success(code: int, kind: Kind) -> None:
    assert answer(code=code, success=False).kind is kind
    assert answer(code=code, message="x").kind is kind


def test_sent_takes_code_and_success_both() -> None:
    assert answer(code=0, success=True, smtpId="<7@x>").kind is Kind.SENT
    success: Any
    code: Any
    for success in (False, None, "true", 1, [], {}):
        assert answer(code=0, success=success, smtpId="<7@x>").kind is Kind.AMBIGUOUS
    for code in (False, None, "0", [], {}, 0.5):
        assert answer(code=code, success=True, smtpId="<7@x>").kind is Kind.AMBIGUOUS


@pytest.mark.parametrize("code", [1, 2, 3, 4, 999])
def test_a_reply_that_contradicts_itself_is_ambiguous(code: int) -> None:
    outcome = answer(code=code, success=True)
    assert outcome.kind is Kind.AMBIGUOUS
    assert f"code {code} with success true" in outcome.reason


@pytest.mark.parametrize(
    ("smtp_id", "kept"),
    [("<7@x>", "<7@x>"), (7, "7"), (None, None), ("", None), (True, None), ([1], None)],
)
def test_the_smtp_id_is_kept_where_there_is_one(smtp_id: Any, kept: str | None) -> None:
    assert answer(code=0, success=True, smtpId=smtp_id).provider_id == kept


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"5", b'"ok"', b"OK", b"\xff", b"{", b"[" * 5000, b'{"success":true}'],
)
def test_what_cannot_be_read_may_have_been_sent(body: bytes) -> None:
    assert judge(200, body).kind is Kind.AMBIGUOUS


def test_a_body_cut_short_proves_nothing_even_where_it_reads_well() -> None:
    assert judge(200, TABLE[0].body, truncated=True).kind is Kind.AMBIGUOUS
    assert judge(429, b"x", truncated=True).kind is Kind.THROTTLED


@pytest.mark.parametrize("status", [201, 202, 204])
def test_other_2xx_are_judged_by_their_body_too(status: int) -> None:
    assert judge(status, b"").kind is Kind.AMBIGUOUS
    assert judge(status, TABLE[0].body).kind is Kind.SENT


def test_no_status_but_2xx_is_judged_by_its_body() -> None:
    assert judge(500, TABLE[0].body).kind is Kind.AMBIGUOUS
    assert judge(302, TABLE[0].body).kind is Kind.HELD
    assert judge(400, TABLE[0].body).kind is Kind.REJECTED


def test_the_providers_words_are_in_the_reason() -> None:
    assert "no such template" in answer(code=999, message="no such template").reason
    assert len(answer(code=999, message="x" * 9999).reason) < 300


def test_a_503_with_a_time_closes_the_destination_and_without_one_waits_30_to_60_s() -> None:
    timed = judge(503, b"", headers={"Retry-After": "120"})
    assert (timed.kind, timed.retry_after_s) == (Kind.THROTTLED, 120)
    waits = [dispose(judge(503, b""), 9, profile().policy, r) for r in (0.0, 0.999)]
    assert [30 <= wait.delay_s <= 60 and not wait.charge for wait in waits] == [True, True]


def test_codes_3_and_4_are_tried_three_times_more_and_then_dead() -> None:
    for code in (3, 4):
        actions = [
            dispose(answer(code=code, success=False), tries, profile().policy, 0.0).action
            for tries in range(4)
        ]
        assert actions == ["retry", "retry", "retry", "dead"]


def test_codes_3_and_4_may_be_rejected_at_once() -> None:
    strict = profile('business_errors = "reject"')
    for row in TABLE:
        outcome = strict.judge(Reply(row.status, {}, row.body), 0.0)
        expected = Kind.REJECTED if row.case in ("3", "4") else row.kind
        assert outcome.kind is expected


@given(st.integers(0, 999), st.binary() | st.sampled_from([row.body for row in TABLE]))
def test_judging_never_raises_and_only_a_yes_is_sent(status: int, body: bytes) -> None:
    if judge(status, body).kind is Kind.SENT:
        assert 200 <= status < 300
        assert body == TABLE[0].body
