"""The SparkPost simulator: what it takes, what it refuses, and its idempotency keys."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from paceline.sink.answers import Request, Verdict
from paceline.sink.idempotency import Keys
from paceline.sink.profiles import SparkPost

PATH = b"/api/v1/transmissions"
GOOD: dict[str, Any] = {
    "recipients": [
        {
            "address": {"email": "bob@example.com", "name": "Bob", "header_to": "b@example.com"},
            "substitution_data": {"name": "Bob"},
            "metadata": {"number": 1},
            "tags": ["a"],
            "return_path": "bounce@example.com",
        },
        {"address": "carl@example.com"},
    ],
    "content": {
        "from": {"email": "ann@example.com", "name": "Ann"},
        "subject": "Grüße",
        "text": "x",
        "html": "<b>x</b>",
        "reply_to": "R <r@example.com>",
        "headers": {"X-Reason": "ü"},
        "attachments": [{"name": "a.txt", "type": "text/plain", "data": "aGVsbG8="}],
    },
    "options": {"open_tracking": True, "transactional": True},
    "campaign_id": "c" * 64,
    "description": "d" * 1024,
    "metadata": {"m": 1},
    "substitution_data": {"s": 1},
    "return_path": "bounce@example.com",
}


def ask(body: object, number: int = 0, **headers: str) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Request(
        data,
        b"application/json",
        number,
        PATH,
        {b"authorization": b"key", **given},
        hashlib.sha256(data).hexdigest(),
    )


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    body = copy.deepcopy(GOOD)
    change(body)
    return body


def codes(verdict: Verdict) -> list[str | None]:
    return [error.get("code") for error in json.loads(verdict.body)["errors"]]


def test_a_good_transmission_is_accepted() -> None:
    verdict = SparkPost().judge(ask(GOOD, number=5))
    assert (verdict.status, verdict.accepted, verdict.name) == (200, True, "ok")
    assert (verdict.recipients, verdict.addresses) == (2, ["bob@example.com", "carl@example.com"])
    results = json.loads(verdict.body)["results"]
    assert results.pop("id").isdecimal()
    assert results == {"total_rejected_recipients": 0, "total_accepted_recipients": 2}
    assert "errors" not in json.loads(verdict.body)


def only_content(content: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
    return lambda body: body.update(content=content)


@pytest.mark.parametrize(
    "change",
    [
        only_content({"template_id": "t", "use_draft_template": True, "from": "ignored"}),
        only_content({"email_rfc822": "From: a@example.com\r\n\r\nx"}),
        only_content({"from": "{{sender}}", "subject": "", "text": ""}),
        only_content({"from": "Ann <a@example.com>", "subject": "s", "amp_html": "x"}),
        lambda b: b.update(recipients={"list_id": "everybody"}),
        lambda b: b.update(recipients=[{"address": f"u{n}@example.com"} for n in range(10_000)]),
    ],
)
def test_other_shapes_are_taken(change: Callable[[dict[str, Any]], object]) -> None:
    assert SparkPost().judge(ask(changed(change))).accepted


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (lambda b: b.pop("recipients"), 422, "1400"),
        (lambda b: b.pop("content"), 422, "1400"),
        (lambda b: b["content"].pop("from"), 422, "1400"),
        (lambda b: b["content"].pop("subject"), 422, "1400"),
        (lambda b: (b["content"].pop("text"), b["content"].pop("html")), 422, "1400"),
        (lambda b: b.update(recipients=[]), 422, "1400"),
        (lambda b: b.update(recipients="bob@example.com"), 422, "1300"),
        (lambda b: b.update(recipients=[{"address": 7}]), 422, "1300"),
        (lambda b: b.update(recipients=[{"adress": "b@example.com"}]), 422, "1300"),
        (lambda b: b.update(recipients=[{"address": "b@x.de"}] * 10_001), 422, "1300"),
        (lambda b: b.update(campaign="c"), 422, "1300"),
        (lambda b: b.update(campaign_id="ü" * 33), 422, "1300"),
        (lambda b: b.update(description="d" * 1025), 422, "1300"),
        (lambda b: b.update(metadata=[]), 422, "1300"),
        (lambda b: b.update(metadata={"m": "x" * 10_000}), 422, "1300"),
        (lambda b: b.update(substitution_data={"s": "x" * 100_000}), 422, "2002"),
        (lambda b: b["recipients"][0].update(substitution_data="x"), 422, "1300"),
        (lambda b: b["recipients"][0].update(metadata=[1]), 422, "1300"),
        (lambda b: b.update(return_path="nobody"), 422, "1300"),
        (lambda b: b["options"].update(open_tracking="yes"), 422, "1300"),
        (lambda b: b["content"].update({"from": "nobody"}), 422, "1300"),
        (lambda b: b["content"].update(subject="a\r\nBcc: b@example.com"), 422, "3002"),
        (lambda b: b["content"]["headers"].update({"To": "x"}), 422, "3002"),
        (lambda b: b["content"]["headers"].update({"X-A": "a\nb"}), 422, "3002"),
        (lambda b: b["content"]["attachments"][0].update(data="!"), 422, "1300"),
        (lambda b: b["content"]["attachments"][0].update(name=""), 422, "1300"),
        (lambda b: b["content"].update(text="x" * 20_000_000), 422, "1300"),
        (lambda b: b["content"].update(template_id="t"), 422, "1301"),
        (lambda b: b["content"].update(email_rfc822="A: b\n\nx"), 422, "1301"),
        (only_content({"email_rfc822": "no header\r\n"}), 422, "3020"),
        (lambda b: b.update(recipients=[{"address": "nobody"}]), 400, "5002"),
        (lambda b: b.update(recipients=[{"address": "u" * 65 + "@example.com"}]), 400, "5002"),
        (lambda b: b.update(recipients=[{"address": "reject-a@example.com"}]), 400, "5002"),
    ],
)
def test_what_is_refused(
    change: Callable[[dict[str, Any]], object], status: int, code: str
) -> None:
    verdict = SparkPost().judge(ask(changed(change)))
    assert (verdict.status, codes(verdict), verdict.accepted) == (status, [code], False)
    assert verdict.recipients == 0


def test_bodies_that_are_no_json() -> None:
    broken = SparkPost().judge(ask(b"{"))
    assert (broken.status, codes(broken)) == (422, ["1300"])
    binary = SparkPost().judge(ask(b'{"content":"\xff"}'))
    assert (binary.status, codes(binary)) == (400, ["1305"])


def test_some_recipients_are_rejected_and_the_answer_does_not_say_which() -> None:
    body = changed(
        lambda b: b["recipients"].extend(
            [{"address": "nobody"}, {"address": {"name": "x"}}, {"address": "reject-d@example.com"}]
        )
    )
    verdict = SparkPost().judge(ask(body))
    answer = json.loads(verdict.body)
    assert (verdict.status, verdict.accepted, verdict.recipients) == (200, True, 2)
    assert verdict.name == "partly_rejected"
    assert codes(verdict) == ["2000"]
    assert answer["results"]["total_rejected_recipients"] == 3
    assert answer["results"]["total_accepted_recipients"] == 2
    assert [e["code"] for e in answer["results"]["rcpt_to_errors"]] == ["1300", "1400", "1300"]


def test_the_marker_may_be_another_or_none() -> None:
    body = {**GOOD, "recipients": [{"address": "reject-a@example.com"}]}
    assert SparkPost(marker="").judge(ask(body)).accepted
    assert not SparkPost(marker="rej").judge(ask(body)).accepted


@pytest.mark.parametrize("given", ["", "another", "Bearer key", "Basic a2V5Og=="])
def test_the_key_is_bare_and_right(given: str) -> None:
    verdict = SparkPost("key").judge(ask(GOOD, authorization=given))
    assert (verdict.status, verdict.name) == (401, "authentication")
    assert json.loads(verdict.body)["errors"]
    assert SparkPost("key").judge(ask(GOOD)).accepted


def test_without_a_key_given_any_bare_one_will_do() -> None:
    assert SparkPost().judge(ask(GOOD, authorization="whatever")).accepted
    assert not SparkPost().judge(ask(GOOD, authorization="")).accepted
    assert not SparkPost().judge(ask(GOOD, authorization="Bearer whatever")).accepted


def test_subaccount_path_and_content_type() -> None:
    sink = SparkPost()
    assert sink.judge(ask(GOOD, x_msys_subaccount="7")).accepted
    assert sink.judge(ask(GOOD, x_msys_subaccount="seven")).status == 401
    good = ask(GOOD)
    slash = Request(good.body, good.content_type, 0, PATH + b"/?num_rcpt_errors=3", good.headers)
    assert sink.judge(slash).accepted
    elsewhere = Request(good.body, good.content_type, 0, b"/api/v2/transmissions", good.headers)
    assert codes(sink.judge(elsewhere)) == ["1101"]
    text = Request(good.body, b"text/plain", 0, PATH, good.headers)
    assert (sink.judge(text).status, codes(sink.judge(text))) == (415, ["1700"])


# -- idempotency keys ------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def acted(sink: SparkPost, request: Request) -> Verdict:
    """Judged, done and answered."""
    verdict = sink.judge(request)
    assert verdict.hold is not None
    verdict.hold.begin()
    verdict.hold.end()
    return verdict


@pytest.mark.parametrize("validate", [True, False])
def test_a_key_answers_the_first_answer_for_a_day(validate: bool) -> None:
    clock = Clock()
    sink = SparkPost(validate=validate, keys=Keys(clock))
    first = acted(sink, ask(GOOD, 1, idempotency_key="k"))
    again = sink.judge(ask(GOOD, 2, idempotency_key="k"))
    assert (again.status, again.body) == (200, first.body)
    assert (again.accepted, again.recipients, again.name) == (False, 0, "replayed")
    assert again.extra == b"X-Idempotent-Replayed: true\r\n"
    clock.now += 24 * 3600 - 1
    assert sink.judge(ask(GOOD, 3, idempotency_key="k")).name == "replayed"
    clock.now += 1
    assert sink.judge(ask(GOOD, 4, idempotency_key="k")).accepted


def test_a_key_in_progress_or_used_for_another_body_is_a_conflict() -> None:
    sink = SparkPost()
    first = sink.judge(ask(GOOD, idempotency_key="k"))
    assert first.hold is not None
    first.hold.begin()
    busy = sink.judge(ask(GOOD, idempotency_key="k"))
    assert (busy.status, codes(busy), busy.accepted) == (409, ["1601"], False)
    first.hold.end()
    other = sink.judge(ask({**GOOD, "campaign_id": "x"}, idempotency_key="k"))
    assert (other.status, codes(other), other.accepted) == (409, ["1600"], False)
    assert sink.judge(ask(GOOD, idempotency_key="k", x_msys_subaccount="7")).accepted


def test_what_was_not_done_leaves_no_key() -> None:
    sink = SparkPost()
    assert sink.judge(ask(GOOD, idempotency_key="k")).hold is not None
    assert sink.judge(ask({**GOOD, "campaign_id": "x"}, idempotency_key="k")).accepted


@pytest.mark.parametrize("key", ['"k"', "", "a b", "k" * 256, "ü"])
def test_a_key_is_bare_and_short(key: str) -> None:
    verdict = SparkPost().judge(ask(GOOD, idempotency_key=key))
    assert (verdict.status, verdict.accepted) == (422, False)


def test_a_reset_forgets_keys() -> None:
    sink = SparkPost()
    acted(sink, ask(GOOD, idempotency_key="k"))
    sink.reset()
    assert sink.judge(ask(GOOD, idempotency_key="k")).accepted


# -- lean ------------------------------------------------------------------------------------------


def test_a_lean_sink_counts_addresses_and_nothing_else() -> None:
    compact = json.dumps(GOOD, separators=(",", ":")).encode()
    for body in (compact, json.dumps(GOOD).encode()):
        verdict = SparkPost(validate=False).judge(ask(body))
        assert (verdict.accepted, verdict.recipients) == (True, 2)
    assert SparkPost(validate=False).judge(ask(b"{")).recipients == 0
