"""SparkPost: the transmission as its document wants it, merged ones, and what its replies mean."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import ConfigError, MessageTooLarge, PayloadError
from paceline.settings_file import loads
from paceline_workers.outcome import RETRY_AFTER_CAP_S, Kind, Outcome, Reply, dispose
from paceline_workers.providers.base import as_merging
from paceline_workers.providers.registry import build
from paceline_workers.providers.sparkpost import TABLE, SparkPost
from support.mails import PLAIN, neutral

CONFIG = """
[destinations.sp]
provider = "sparkpost"
url = "https://api.sparkpost.example/api/v1/transmissions"
api_key = { env = "KEY" }
"""
NOW = datetime(2026, 11, 30, 8, 20, tzinfo=UTC).timestamp()
CONTENT = {"from": "a@b.example", "subject": "s", "text": "t"}


def profile(lines: str = "", key: str = "s3cret") -> SparkPost:
    built = build(loads(CONFIG + lines).destinations["sp"], {"KEY": key})
    assert isinstance(built, SparkPost)
    assert as_merging(built) is built
    return built


def native(*recipients: Any, **more: Any) -> bytes:
    document = {"recipients": list(recipients), "content": CONTENT, **more}
    return json.dumps(document, ensure_ascii=False).encode()


def to(address: str, **more: Any) -> dict[str, Any]:
    return {"address": {"email": address}, **more}


def judge(status: int, body: Any = b"", *, count: int | None = None, **more: Any) -> Outcome:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = Reply(status, more.pop("headers", {}), raw, **more)
    return (
        profile().judge(reply, NOW) if count is None else profile().judge_merged(reply, NOW, count)
    )


def results(accepted: Any, rejected: Any, **more: Any) -> dict[str, Any]:
    counts = {"total_accepted_recipients": accepted, "total_rejected_recipients": rejected}
    return {"results": {**counts, "id": "1166", **more}}


# --- the request ---


def test_a_native_body_is_passed_through_to_the_byte() -> None:
    payload = (
        ' {"content": {"template_id":"t"} , "recipients":[{"address":"ü@b"}],"n":1e3}'.encode()
    )
    request = profile().render("m-1", payload)
    assert (request.method, request.body, request.suffix) == ("POST", payload, "")


def test_the_headers() -> None:
    assert profile("subaccount = 0").render("m-1", native(to("a@b.example"))).headers == {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "paceline",
        "Authorization": "s3cret",
        "X-MSYS-SUBACCOUNT": "0",
        "Paceline-Message-Id": "m-1",
        "Idempotency-Key": "m-1",
    }
    assert "X-MSYS-SUBACCOUNT" not in profile().render("m", native(to("a@b.example"))).headers


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("", "m-1"),
        ('idempotency_key = "off"', None),
        ('headers = { Idempotency-Key = "fixed" }', "fixed"),
    ],
)
def test_the_key_of_a_request(lines: str, key: str | None) -> None:
    request = profile(lines).render("m-1", native(to("a@b.example")))
    assert request.headers.get("Idempotency-Key") == key
    merged = profile(lines).render_merged("m-1", b"{}")
    assert merged.headers == request.headers


def test_nothing_shows_the_key_and_one_that_no_header_can_hold_is_refused() -> None:
    it = profile()
    assert "s3cret" not in f"{it!r} {it} {it.render('m', native(to('a@b.example')))!r}"
    with pytest.raises(ConfigError, match=r"destinations\.sp\.api_key") as caught:
        profile(key="s3cret\r\nX: y")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"api_key.*KEY is empty"):
        profile(key="")


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (native(), "recipients"),
        (native({"adress": "a@b"}), "recipients[0].adress"),
        (native(to("nobody")), "recipients[0].address.email"),
        (native({"address": "nobody"}), "recipients[0].address"),
        (native({"address": 5}), "recipients[0].address"),
        (native(to("a@b", return_path="x")), "recipients[0].return_path"),
        (b'{"recipients":{"list_id":5},"content":{}}', "recipients.list_id"),
        (b'{"recipients":[{"address":"a@b"}]}', "content"),
        (native(to("a@b"), content={"from": "a@b", "subject": "s"}), "content.text"),
        (native(to("a@b"), content={"subject": "s", "text": "t"}), "content.from"),
        (native(to("a@b"), content={**CONTENT, "subject": "a\nb"}), "content.subject"),
        (native(to("a@b"), content={**CONTENT, "from": {"email": 5}}), "content.from.email"),
        (native(to("a@b"), content={**CONTENT, "reply_to": "a@b\r\nc"}), "content.reply_to"),
        (native(to("a@b"), content={**CONTENT, "headers": {"X": "a\0"}}), "content.headers.X"),
        (native(to("a@b"), content={**CONTENT, "headers": {"X Y": "a"}}), "content.headers.X Y"),
        (
            native(to("a@b"), content={**CONTENT, "attachments": [{"name": "a", "type": "a/b"}]}),
            "content.attachments[0].data",
        ),
        (native(to("a@b"), campaign_id="x" * 65), "campaign_id"),
        (native(to("a@b"), description="ü" * 513), "description"),
        (native(to("a@b"), metadata={"a": "x" * 10240}), "metadata"),
        (native(to("a@b"), substitution_data={"a": "x" * 102400}), "substitution_data"),
        (native(to("a@b"), option={}), "option"),
        (b"[]", ""),
    ],
)
def test_what_sparkpost_would_refuse_is_refused_before_the_wire(payload: bytes, field: str) -> None:
    with pytest.raises(PayloadError) as caught:
        profile().render("m-1", payload)
    assert caught.value.field == f"payload.{field}".rstrip(".")


@pytest.mark.parametrize(
    "payload",
    [
        b'{"recipients":{"list_id":"x"},"content":{"template_id":"t"}}',
        native({"multichannel_addresses": [{"channel": "email"}]}),
        native(to("a@b"), content={"email_rfc822": "From: a\r\n\r\nb"}),
        native(to("a@b"), content={"ab_test_id": "x"}),
        native(to("a@b", metadata={}, tags=["x"]), campaign_id="x" * 64, other={"a": 1}),
    ],
)
def test_other_forms_are_taken(payload: bytes) -> None:
    assert profile().render("m-1", payload).body == payload


def test_a_payload_over_the_limit_is_refused() -> None:
    with pytest.raises(MessageTooLarge):
        profile("max_payload_bytes = 50").render("m-1", native(to("a@b.example")))


# --- a neutral e-mail ---


def test_a_neutral_e_mail_becomes_a_transmission() -> None:
    body = json.loads(profile().render("m-1", neutral(PLAIN)).body)
    values = {
        "substitution_data": {"name": "Jan & <Söhne>", "number": "17"},
        "tags": ["befund"],
        "metadata": {"case": "a-1", "page": "2"},
    }
    header_to = '"Jürgen" <jan@direct.example>'
    assert body == {
        "recipients": [
            {"address": {"email": email, "header_to": header_to}, **values}
            for email in ("jan@direct.example", "copy@direct.example", "blind@direct.example")
        ],
        "content": {
            "from": {"email": "praxis@mail.example", "name": "Praxis Dr. Öhm, Berlin"},
            "subject": PLAIN["subject"],
            "reply_to": "Antwort <antwort@mail.example>",
            "headers": {"CC": "copy@direct.example"},
            "text": PLAIN["text"],
            "html": PLAIN["html"],
            "attachments": [{"name": "größe.pdf", "type": "application/pdf", "data": "JVBERg=="}],
        },
    }


def test_to_one_alone_and_by_a_template() -> None:
    body = json.loads(profile().render("m-1", neutral(to=["Jane D <jane@example.org>"])).body)
    assert body["recipients"] == [
        {
            "address": {"email": "jane@example.org", "name": "Jane D"},
            "substitution_data": {"name": "Jane"},
        }
    ]
    by_template = neutral(template="welcome", subject=..., text=...)
    assert json.loads(profile().render("m-1", by_template).body)["content"] == {
        "template_id": "welcome"
    }


def test_an_inline_attachment_is_an_inline_image_by_its_content_id() -> None:
    one = {"filename": "a.png", "content_type": "image/png", "content": "", "content_id": "logo"}
    content = json.loads(profile().render("m", neutral(attachments=[one])).body)["content"]
    assert content["inline_images"] == [{"name": "logo", "type": "image/png", "data": ""}]
    assert "attachments" not in content


def test_a_repeated_request_is_the_same_to_the_byte() -> None:
    payload = neutral(PLAIN)
    assert profile().render("m-1", payload) == profile().render("m-1", payload)


# --- merging ---


def test_native_bodies_share_all_but_their_recipient() -> None:
    it = profile()
    messages = [
        native(to(f"a{n}@b.example", substitution_data={"n": n}), x=[{"y": 1}]) for n in range(3)
    ]
    portions = [it.portion(one) for one in messages]
    assert all(one is not None for one in portions)
    known = [one for one in portions if one is not None]
    assert len({one.shared for one in known}) == 1
    body = json.loads(it.join(known[0].shared, [one.part for one in known]))
    assert body == {
        "recipients": [json.loads(one)["recipients"][0] for one in messages],
        "content": CONTENT,
        "x": [{"y": 1}],
    }
    assert it.join(known[0].shared, [known[0].part]) == messages[0], "one alone is as it was"


def test_what_differs_elsewhere_does_not_share() -> None:
    it = profile()
    bodies = [
        native(to("a@b.example"), campaign_id="x"),
        native(to("a@b.example"), campaign_id="y"),
        native(to("a@b.example")),
        native(to("a@b.example"), content={**CONTENT, "text": "u"}),
        neutral(),
        neutral(text="u {{name}}"),
        neutral(reply_to="x@y.example"),
        neutral(headers={"X-A": "b"}),
    ]
    portions = [it.portion(one) for one in bodies]
    assert None not in portions
    assert len({one.shared for one in portions if one}) == len(bodies)


@pytest.mark.parametrize(
    "payload",
    [
        native(),
        native(to("a@b.example"), to("c@b.example")),
        b'{"recipients":{"list_id":"x"},"content":{}}',
        b'{"content":{}}',
        b'{"recipients":null}',
        b"[]",
        b"{",
        b'{"recipients":[{"address":"a@b.example"}],"x":"\xff"}',
        # Addresses that might be rejected, which of many SparkPost does not say.
        native(to("ä@b.example")),
        native(to("a..b@c.example")),
        native(to("a@b")),
        native({"address": "A <a@b.example>"}),
        native({"address": 5}),
        native({"multichannel_addresses": []}),
        native(5),
        neutral(to=["a@b.example", "c@b.example"]),
        neutral(cc=["c@b.example"]),
        neutral(bcc=["c@b.example"]),
    ],
)
def test_what_goes_alone(payload: bytes) -> None:
    it = profile()
    assert it.portion(native(to("first@b.example"))) is not None
    assert it.portion(payload) is None


@pytest.mark.parametrize("middle", [b"", b",", b'{"address":"a@b.example"},{}', b"[", b"}],["])
def test_what_looks_alike_around_is_not_taken_for_one_recipient(middle: bytes) -> None:
    """Known bytes before and after, and between them something else than one value."""
    it = profile()
    good = it.portion(native(to("first@b.example")))
    assert good is not None
    before, after = good.shared
    assert it.portion(before + middle + after) is None


def test_the_recipients_bytes_may_stand_elsewhere_too() -> None:
    one = {"address": "a@b.example"}
    payload = json.dumps({"x": [one], "content": CONTENT, "recipients": [one], "y": [one]}).encode()
    it = profile()
    portion = it.portion(payload)
    assert portion is not None
    assert json.loads(it.join(portion.shared, [b"1", b"2"])) == {
        **{"x": [one], "content": CONTENT, "y": [one]},
        "recipients": [1, 2],
    }


JSON = st.recursive(
    st.none() | st.integers(-9, 9) | st.sampled_from(["", "a", '"', "]", "{", "recipients"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["recipients", "a", "content"]), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(JSON, JSON, st.sampled_from([None, 1]))
def test_taken_apart_and_joined_again_a_body_means_the_same(
    one: Any, other: Any, indent: int | None
) -> None:
    """And whatever is remembered of other bodies changes nothing."""
    it = profile()
    documents = [
        {"a": one, "recipients": [to("a@b.example", metadata=other)], "content": other},
        {"a": one, "recipients": [to("c@b.example", metadata=one)], "content": other},
        {"recipients": [to("d@b.example")], "content": one},
    ]
    for _ in range(2):
        for document in documents:
            payload = json.dumps(document, indent=indent).encode()
            portion = it.portion(payload)
            assert portion is not None
            assert it.join(portion.shared, [portion.part]) == payload
            twice = json.loads(it.join(portion.shared, [portion.part, portion.part]))
            assert twice == {**document, "recipients": document["recipients"] * 2}


def test_neutral_e_mails_share_their_content() -> None:
    it = profile()
    messages = [
        neutral(
            to=[address],
            substitution={"name": name, "n": n},
            text="{{name}} {{n}}",
            metadata={"k": n},
            tags=["x"],
        )
        for n, (address, name) in enumerate([("a@b.example", "A"), ("Zoë <c@b.example>", "Zoë")])
    ]
    known = [one for message in messages if (one := it.portion(message))]
    assert len(known) == 2
    assert known[0].shared == known[1].shared
    assert json.loads(it.join(known[0].shared, [one.part for one in known])) == {
        "recipients": [
            {
                "address": {"email": "a@b.example"},
                "substitution_data": {"name": "A", "n": "0"},
                "tags": ["x"],
                "metadata": {"k": "0"},
            },
            {
                "address": {"email": "c@b.example", "name": "Zoë"},
                "substitution_data": {"name": "Zoë", "n": "1"},
                "tags": ["x"],
                "metadata": {"k": "1"},
            },
        ],
        "content": {
            "from": {"email": "news@acme.example"},
            "subject": "Hello {{name}}",
            "text": "{{name}} {{n}}",
        },
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"substitution": {}},
        {"substitution": {"nam": "x"}},
        {"substitution": {"name": "a\nb"}},
        {"substitution": {"name": "a", "b-c": "x"}},
        {"substitution": {"name": "a", "b": "x\0"}},
        {"metadata": {"b c": "x"}},
        {"to": ["nobody"]},
        {"to": ["a@b.example\r\nBcc: c@b.example"]},
    ],
)
def test_of_a_known_mailing_each_message_is_checked(changes: dict[str, Any]) -> None:
    it = profile()
    assert it.portion(neutral()) is not None
    with pytest.raises(PayloadError):
        it.portion(neutral(**changes))


def test_many_mailings_at_once_are_kept_apart() -> None:
    it = profile()
    for n in [*range(20), *range(20)]:
        for payload in (native(to("a@b.example"), n=n), neutral(subject=f"{n}")):
            portion = it.portion(payload)
            assert portion is not None
            assert str(n).encode() in b"".join(portion.shared)


# --- the judgement ---


def test_a_yes_brings_the_transmissions_id() -> None:
    assert judge(200, results(1, 0)).provider_id == "1166"
    assert judge(200, results(1, 0, id=7)).provider_id == "7"
    for none in (None, "", True, [], {}):
        outcome = judge(200, results(1, 0, id=none))
        assert (outcome.kind, outcome.provider_id) == (Kind.SENT, None)
    assert judge(202, results(1, 0)).kind is Kind.SENT


@pytest.mark.parametrize(
    ("accepted", "rejected", "count", "kind", "partial"),
    [
        (3, 0, 3, Kind.SENT, 0),
        (2, 1, 3, Kind.SENT, 1),
        (2, 0, 3, Kind.SENT, 1),
        (0, 3, 3, Kind.REJECTED, 0),
        (0, 0, 3, Kind.AMBIGUOUS, 0),
        (2, 1, None, Kind.SENT, 1),
        (0, 1, None, Kind.REJECTED, 0),
        (-1, 0, 3, Kind.AMBIGUOUS, 0),
        (True, 0, 3, Kind.AMBIGUOUS, 0),
        ("3", 0, 3, Kind.AMBIGUOUS, 0),
        (None, 0, 3, Kind.AMBIGUOUS, 0),
    ],
)
def test_recipients_are_counted(
    accepted: Any, rejected: Any, count: int | None, kind: Kind, partial: int
) -> None:
    outcome = judge(200, results(accepted, rejected), count=count)
    assert (outcome.kind, outcome.partial) == (kind, partial)
    assert (f"{partial} not accepted" in outcome.reason) is bool(partial)
    # Each was refused for itself: in smaller requests they would be again.
    assert len(outcome.parts) == (count or 0) * (kind is Kind.REJECTED)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"<html>", b"\xff", b"{", b"[" * 5000, b"{}", b'{"results":5}'],
)
def test_a_200_that_cannot_be_read_may_have_been_sent(body: bytes) -> None:
    assert judge(200, body).kind is Kind.AMBIGUOUS
    assert judge(200, body, count=5).kind is Kind.AMBIGUOUS


def test_a_200_with_errors_and_a_500_with_a_yes_are_neither_sent_nor_lost() -> None:
    assert judge(200, {"errors": [{"code": "1300", "message": "m"}]}).kind is Kind.AMBIGUOUS
    assert judge(500, results(1, 0)).kind is Kind.AMBIGUOUS
    assert judge(200, results(1, 0), truncated=True).kind is Kind.AMBIGUOUS


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"<html>", b"\xff", b'{"errors":5}', b'{"errors":[]}', b'{"errors":[5]}'),
        *(b'{"errors":[{"code":null}]}', b'{"errors":[{"code":true,"message":5}]}'),
    ],
)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((400, Kind.REJECTED), (401, Kind.HELD), (403, Kind.HELD), (404, Kind.HELD)),
        *((409, Kind.REJECTED), (413, Kind.TOO_LARGE), (420, Kind.THROTTLED), (422, Kind.REJECTED)),
        *((429, Kind.THROTTLED), (500, Kind.AMBIGUOUS), (503, Kind.UNAVAILABLE)),
    ],
)
def test_without_a_code_the_status_is_judged(status: int, kind: Kind, body: bytes) -> None:
    assert judge(status, body).kind is kind


def test_sparkposts_own_words_are_in_the_reason() -> None:
    error = {"errors": [{"message": "m\nm", "code": "1300", "description": "d" * 900}]}
    reason = judge(422, error).reason
    assert reason.startswith("invalid data (1300): m m, dddd")
    assert len(reason) < 250


def quota(code: str, at: float = NOW, **headers: str) -> Outcome:
    body = json.dumps({"errors": [{"message": "m", "code": code}]}).encode()
    return profile().judge(Reply(420, headers, body), at)


@pytest.mark.parametrize(
    ("code", "wait_s"),
    [("2101", 40 * 60), ("2102", 3600), ("2103", RETRY_AFTER_CAP_S), ("2105", 56_400), ("9", 3600)],
)
def test_a_quota_holds_the_destination_until_its_window(code: str, wait_s: float) -> None:
    outcome = quota(code)
    assert (outcome.kind, outcome.quota, outcome.retry_after_s) == (Kind.THROTTLED, True, wait_s)
    found = dispose(outcome, 99, profile().policy, 0.0)
    assert (found.action, found.charge, found.delay_s) == ("quota", False, wait_s)


def test_a_quotas_window_is_by_the_peers_clock_and_a_named_time_wins() -> None:
    assert quota("2101", Date="Mon, 30 Nov 2026 08:59:50 GMT").retry_after_s == 10
    assert quota("2101", **{"Retry-After": "7"}).retry_after_s == 7
    middle = datetime(2026, 11, 10, tzinfo=UTC).timestamp()
    assert quota("2105", middle).retry_after_s == RETRY_AFTER_CAP_S
    end = datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC).timestamp()
    assert quota("2105", end).retry_after_s == 30


def test_a_retry_waits_five_seconds_at_least() -> None:
    policy = profile().policy
    for outcome in (judge(400, error("1502")), judge(500), judge(409, error("1601"))):
        found = dispose(outcome, 0, policy, 0.0)
        assert (found.action, found.delay_s) == ("retry", 5)
        assert dispose(outcome, 1, policy, 0.0).delay_s == 10
    waits = [dispose(judge(429), 0, policy, 0.0, throttles=n).delay_s for n in range(5)]
    assert waits == [1, 2, 4, 5, 5]


def error(code: str) -> dict[str, Any]:
    return {"errors": [{"message": "m", "code": code}]}


def test_a_key_conflict_is_final_for_every_member() -> None:
    outcome = judge(409, error("1600"), count=3)
    assert [part.kind for part in outcome.parts] == [Kind.REJECTED] * 3
    assert "must not be sent" in outcome.reason
    # What is in progress is not.
    assert judge(409, error("1601"), count=3).parts == ()
    # A body at fault may be so by one member: it is split.
    assert judge(422, error("1300"), count=3).parts == ()


def test_an_answer_given_again_says_so() -> None:
    headers = {"x-idempotent-replayed": "true"}
    assert "first attempt under this key" in judge(422, error("1300"), headers=headers).reason
    assert judge(200, results(1, 0), headers=headers).kind is Kind.SENT


def test_a_named_time_beats_a_status_but_not_a_code() -> None:
    headers = {"Retry-After": "9"}
    for body, status, kind in [
        (b"", 422, Kind.THROTTLED),
        (b"", 413, Kind.THROTTLED),
        (b"", 503, Kind.THROTTLED),
        (error("1900"), 503, Kind.THROTTLED),
        (error("1300"), 422, Kind.REJECTED),
        (error("1502"), 400, Kind.RETRY),
        (b"", 401, Kind.HELD),
    ]:
        outcome = judge(status, body, headers=headers)
        assert (outcome.kind, outcome.retry_after_s) == (kind, 9)


@given(st.integers(0, 999), st.binary() | st.sampled_from([row.body for row in TABLE]))
def test_judging_never_raises_and_only_a_yes_is_sent(status: int, body: bytes) -> None:
    for outcome in (judge(status, body), judge(status, body, count=2)):
        if outcome.kind is Kind.SENT:
            assert 200 <= status < 300
            assert b"total_accepted_recipients" in body
