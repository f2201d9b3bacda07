"""Mailgun: the form as its document wants it, merged ones, and what its replies mean."""

from __future__ import annotations

import base64
import json
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import ConfigError, MessageTooLarge, PayloadError
from paceline.settings_file import loads
from paceline_workers.outcome import RETRY_AFTER_CAP_S, Kind, Outcome, Reply, dispose
from paceline_workers.providers.base import RenderedRequest, as_merging
from paceline_workers.providers.mailgun import TABLE, Mailgun
from paceline_workers.providers.registry import build
from support.mails import PLAIN, neutral

CONFIG = """
[destinations.mg]
provider = "mailgun"
url = "https://api.mailgun.example/v3/mail.example/messages"
api_key = { env = "KEY" }
"""
# Mon, 20 Dec 2021 20:33:01 GMT
NOW = 1_640_032_381.0
LIMIT = "Domain mail.example recipient limit exceeded, try again after {}"
NATIVE: dict[str, Any] = {"from": "a@b.example", "to": "c@b.example", "subject": "s", "text": "t"}


def profile(lines: str = "", key: str = "s3cret") -> Mailgun:
    built = build(loads(CONFIG + lines).destinations["mg"], {"KEY": key})
    assert isinstance(built, Mailgun)
    assert as_merging(built) is built
    return built


def judge(status: int, message: Any = None, **more: Any) -> Outcome:
    body = message if isinstance(message, bytes) else json.dumps({"message": message}).encode()
    return profile().judge(Reply(status, more.pop("headers", {}), body, **more), NOW)


Form = list[tuple[str, str | None, bytes]]


def form(request: RenderedRequest) -> Form:
    """(name, file's name, value) of every field, read by parsers that nobody here wrote."""
    content_type = request.headers["Content-Type"]
    if content_type == "application/x-www-form-urlencoded":
        pairs = parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
        return [(name, None, value.encode()) for name, value in pairs]
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    assert message.is_multipart()
    assert not message.defects
    found: Form = []
    for part in message.iter_parts():
        assert not part.defects
        name = part.get_param("name", header="content-disposition")
        value = part.get_payload(decode=True)
        assert isinstance(name, str)
        assert isinstance(value, bytes)
        found.append((name, part.get_filename(), value))
    return found


def fields(request: RenderedRequest) -> list[tuple[str, str]]:
    return [(name, value.decode()) for name, filename, value in form(request) if filename is None]


# --- the request ---


def test_the_headers() -> None:
    headers = profile('headers = { content-type = "x/y" }').render("m-1", neutral()).headers
    assert base64.b64decode(headers.pop("Authorization").removeprefix("Basic ")) == b"api:s3cret"
    assert headers == {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
        "User-Agent": "paceline",
        "Paceline-Message-Id": "m-1",
    }


def test_nothing_shows_the_key() -> None:
    it = profile()
    shown = f"{it!r} {it} {it.render('m', neutral())!r}"
    assert "s3cret" not in shown
    assert base64.b64encode(b"api:s3cret").decode() not in shown
    with pytest.raises(ConfigError, match=r"destinations\.mg\.api_key"):
        profile(key="a\nb")


def test_a_native_payload_is_the_forms_fields() -> None:
    payload = {
        **NATIVE,
        "to": ["c@b.example", "D <d@b.example>"],
        "o:tag": ["x", "y"],
        "o:testmode": True,
        "o:dkim": False,
        "v:n": 5,
        "v:data": {"a": ["ü"]},
        "h:X-A": "1 & 2",
        "recipient-variables": {"c@b.example": {"n": 1}},
        "unknown": "kept",
    }
    request = profile().render("m-1", json.dumps(payload).encode())
    assert (request.method, request.suffix) == ("POST", "")
    assert fields(request) == [
        ("from", "a@b.example"),
        ("to", "c@b.example"),
        ("to", "D <d@b.example>"),
        ("subject", "s"),
        ("text", "t"),
        ("o:tag", "x"),
        ("o:tag", "y"),
        ("o:testmode", "yes"),
        ("o:dkim", "no"),
        ("v:n", "5"),
        ("v:data", '{"a":["ü"]}'),
        ("h:X-A", "1 & 2"),
        ("recipient-variables", '{"c@b.example":{"n":1}}'),
        ("unknown", "kept"),
    ]


def test_files_make_it_multipart() -> None:
    one = {"filename": 'a"b.pdf', "content_type": "application/pdf", "content": "JVBERg=="}
    payload = {**NATIVE, "attachment": [one], "inline": [{"filename": "l.png", "content": ""}]}
    request = profile().render("m-1", json.dumps(payload).encode())
    assert request.headers["Content-Type"].startswith("multipart/form-data; boundary=paceline-")
    assert fields(request) == list(NATIVE.items())
    assert form(request)[-2:] == [("attachment", "a%22b.pdf", b"%PDF"), ("inline", "l.png", b"")]


def test_a_whole_mime_message_goes_to_the_other_endpoint() -> None:
    mime = "From: a@b.example\r\nSubject: ü\r\n\r\nt\r\n"
    payload = {"to": ["c@b.example"], "message": mime, "o:tag": "x"}
    request = profile().render("m-1", json.dumps(payload).encode())
    assert request.suffix == ".mime"
    assert fields(request) == [("to", "c@b.example"), ("o:tag", "x")]
    assert form(request)[-1] == ("message", "message.mime", mime.encode())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"to": ...}, "to"),
        ({"to": []}, "to"),
        ({"to": "nobody"}, "to"),
        ({"to": ["a@b", "nobody"]}, "to[1]"),
        ({"to": "a@b\r\nBcc: c@d"}, "to"),
        ({"cc": 5}, "cc"),
        ({"from": ...}, "from"),
        ({"from": "x"}, "from"),
        ({"text": ...}, "text"),
        ({"subject": "a\nb"}, "subject"),
        ({"h:X-A": "a\r\nb"}, "h:X-A"),
        ({"h:X-A": "a\0"}, "h:X-A"),
        ({"h:X A": "a"}, "h:X A"),
        ({"o:tag": None}, "o:tag"),
        ({"o:tag": [["x"]]}, "o:tag[0]"),
        ({"v:a": "x" * 16384}, ""),
        ({"to": [f"a{n}@b" for n in range(1001)]}, "to"),
        ({"to": ",".join(f"a{n}@b" for n in range(1001))}, "to"),
        ({"attachment": [{"filename": "a\nb", "content": ""}]}, "attachment[0].filename"),
        ({"attachment": [{"filename": "a", "content": "x"}]}, "attachment[0].content"),
        ({"attachment": "x"}, "attachment"),
        ({"inline": [{"filename": "", "content": ""}]}, "inline[0].filename"),
        ({"message": 5}, "message"),
        ({"recipient-variable": {}}, "recipient-variable"),
    ],
)
def test_what_mailgun_would_refuse_is_refused_before_the_wire(
    changes: dict[str, Any], field: str
) -> None:
    document = {k: v for k, v in {**NATIVE, **changes}.items() if v is not ...}
    with pytest.raises(PayloadError) as caught:
        profile().render("m-1", json.dumps(document).encode())
    assert caught.value.field == f"payload.{field}".rstrip(".")


def test_a_payload_over_the_limit_is_refused() -> None:
    with pytest.raises(MessageTooLarge):
        profile("max_payload_bytes = 50").render("m-1", neutral())


# --- a neutral e-mail ---


def test_a_neutral_e_mail_becomes_a_form_with_its_values_put_in() -> None:
    request = profile().render("m-1", neutral(PLAIN, headers={"X-A": "1"}))
    assert fields(request) == [
        ("from", '"Praxis Dr. Öhm, Berlin" <praxis@mail.example>'),
        ("h:Reply-To", "Antwort <antwort@mail.example>"),
        ("h:X-A", "1"),
        ("o:tag", "befund"),
        ("v:case", "a-1"),
        ("v:page", "2"),
        ("to", '"Jürgen" <jan@direct.example>'),
        ("cc", "copy@direct.example"),
        ("bcc", "blind@direct.example"),
        ("subject", "Befund für Jan & <Söhne>"),
        ("text", "Guten Tag Jan & <Söhne>,\nNr. 17"),
        (
            "html",
            "<p>Guten Tag Jan &amp; &lt;Söhne&gt;, Nr. 17</p><style>@media{a{b:c}}</style>",
        ),
    ]
    assert form(request)[-1] == ("attachment", "größe.pdf", b"%PDF")


def test_several_in_to_are_one_visible_list_as_in_any_mail() -> None:
    request = profile().render("m-1", neutral(to=["a@b.example", "c@b.example"]))
    assert ("to", "a@b.example, c@b.example") in fields(request)
    assert "recipient-variables" not in dict(fields(request))


def test_by_a_template_the_values_are_its_variables() -> None:
    payload = neutral(template="welcome", subject="Hi {{name}}", text=...)
    found = dict(fields(profile().render("m-1", payload)))
    assert (found["template"], found["subject"]) == ("welcome", "Hi Jane")
    assert json.loads(found["t:variables"]) == {"name": "Jane"}
    assert profile().portion(payload) is None


def test_an_inline_attachment_is_named_by_its_content_id() -> None:
    one = {"filename": "a.png", "content_type": "image/png", "content": "", "content_id": "logo"}
    assert form(profile().render("m", neutral(attachments=[one])))[-1] == ("inline", "logo", b"")


@pytest.mark.parametrize("payload", [neutral(PLAIN), neutral()])
def test_a_repeated_request_is_the_same_to_the_byte(payload: bytes) -> None:
    assert profile().render("m-1", payload) == profile().render("m-1", payload)


def test_no_file_can_hold_the_boundary() -> None:
    """What it parts is in it: a file that holds the boundary of one body is in another one."""
    payload = neutral(PLAIN)
    first = profile().render("m-1", payload)
    boundary = first.headers["Content-Type"].partition("boundary=")[2]
    forged = base64.b64encode(f"\r\n--{boundary}--\r\n".encode()).decode()
    one = {"filename": "a", "content_type": "a/b", "content": forged}
    second = profile().render("m-1", neutral(PLAIN, attachments=[one]))
    assert boundary not in second.headers["Content-Type"]
    assert form(second)[-1] == ("attachment", "a", base64.b64decode(forged))


# --- merging ---


def merged(*payloads: bytes) -> RenderedRequest:
    it = profile()
    portions = [one for payload in payloads if (one := it.portion(payload))]
    assert len(portions) == len(payloads)
    assert len({one.shared for one in portions}) == 1
    body = it.join(portions[0].shared, [one.part for one in portions])
    request = it.render_merged("r-1", body)
    assert request == it.render_merged("r-1", body)
    assert request.headers["Paceline-Message-Id"] == "r-1"
    return request


@pytest.mark.parametrize("attachments", [..., PLAIN["attachments"]])
def test_recipient_variables_name_every_recipient(attachments: Any) -> None:
    common: dict[str, Any] = {
        "subject": "Nr. {{number}}",
        "text": "{{name}}, {{number}}",
        "html": "<b>{{ name }}</b>",
        "attachments": attachments,
    }
    request = merged(
        *(
            neutral(to=[to], substitution={"name": name, "number": n}, **common)
            for n, (to, name) in enumerate(
                [("a@b.example", "A & B"), ("Zoë <c@b.example>", 'Z"%,'), ("d@b.example", "D")]
            )
        )
    )
    found = fields(request)
    assert [value for name, value in found if name == "to"] == [
        "a@b.example",
        '"Zoë" <c@b.example>',
        "d@b.example",
    ]
    once = dict(found)
    assert json.loads(once["recipient-variables"]) == {
        email: {"name": name, "number": str(n), "name__html": html, "number__html": str(n)}
        for n, (email, name, html) in enumerate(
            [
                ("a@b.example", "A & B", "A &amp; B"),
                ("c@b.example", 'Z"%,', "Z&quot;%,"),
                ("d@b.example", "D", "D"),
            ]
        )
    }
    assert once["subject"] == "Nr. %recipient.number%"
    assert once["text"] == "%recipient.name%, %recipient.number%"
    assert once["html"] == "<b>%recipient.name__html%</b>"
    files = [(name, filename) for name, filename, _ in form(request) if filename]
    assert files == ([] if attachments is ... else [("attachment", "größe.pdf")])


def test_without_values_the_variables_are_empty_and_there() -> None:
    request = merged(
        *(neutral(to=[to], subject="s", text="t", substitution=...) for to in ("a@b.c", "d@b.c"))
    )
    assert json.loads(dict(fields(request))["recipient-variables"]) == {"a@b.c": {}, "d@b.c": {}}


def test_two_to_one_address_are_kept_apart() -> None:
    it = profile()
    portions = [it.portion(neutral(to=[to])) for to in ("a@b.example", "A <A@b.example>", "c@b.c")]
    assert [one.apart if one else None for one in portions] == [
        b"a@b.example",
        b"a@b.example",
        b"c@b.c",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"tags": ["x"]},
        {"metadata": {"a": "b"}},
        {"headers": {"X-A": "b"}},
        {"reply_to": "x@y.example"},
        {"sender": "X <news@acme.example>"},
        {"attachments": PLAIN["attachments"]},
    ],
)
def test_what_is_of_the_call_must_be_equal(changes: dict[str, Any]) -> None:
    it = profile()
    one, other = it.portion(neutral()), it.portion(neutral(**changes))
    assert one
    assert other
    assert one.shared != other.shared


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(NATIVE).encode(),
        neutral(to=["a@b.example", "c@b.example"]),
        neutral(cc=["a@b.example"]),
        b"[]",
        b"{",
    ],
)
def test_what_goes_alone(payload: bytes) -> None:
    assert profile().portion(payload) is None


def test_a_members_fault_is_found_in_a_known_mailing_too() -> None:
    it = profile()
    assert it.portion(neutral()) is not None
    with pytest.raises(PayloadError, match="no value"):
        it.portion(neutral(substitution={}))


# --- the judgement ---


def test_a_yes_brings_mailguns_id() -> None:
    outcome = judge(200, TABLE[0].body)
    assert (outcome.kind, outcome.provider_id) == (Kind.SENT, "<20211220.1@mail.example>")
    assert profile().judge_merged(Reply(200, {}, TABLE[0].body), NOW, 1000) == outcome


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"<html>", b"\xff", b"[" * 5000, b"{}", b'{"id":5}', b'{"id":""}'),
        b'{"message":"Queued. Thank you."}',
    ],
)
def test_a_200_without_an_id_may_have_been_sent(body: bytes) -> None:
    assert judge(200, body).kind is Kind.AMBIGUOUS


def test_a_500_that_says_yes_and_a_yes_cut_short_are_ambiguous() -> None:
    assert judge(500, TABLE[0].body).kind is Kind.AMBIGUOUS
    assert judge(200, TABLE[0].body, truncated=True).kind is Kind.AMBIGUOUS


@pytest.mark.parametrize(
    ("until", "date", "wait_s"),
    [
        ("Mon, 20 Dec 2021 20:33:21 UTC", None, 20),
        ("Mon, 20 Dec 2021 20:33:21 UTC.", "Mon, 20 Dec 2021 20:33:16 GMT", 5),
        ("Mon, 20 Dec 2021 20:33:21 GMT", "nonsense", 20),
        ("mon, 20 dec 2021 20:33:21 +0000", None, 20),
        ("Thu, 2 Dec 2021 20:33:21 UTC", None, 0),
        ("Tue, 20 Dec 2022 20:33:21 UTC", None, RETRY_AFTER_CAP_S),
        ("tomorrow", None, None),
        ("Mon, 20 Foo 2021 20:33:21 UTC", None, None),
        ("Mon, 20 Dec 2021 20:33:21 CET", None, None),
    ],
)
def test_the_time_to_wait_is_in_the_body_of_a_429(
    until: str, date: str | None, wait_s: float | None
) -> None:
    headers = {} if date is None else {"date": date}
    outcome = judge(429, LIMIT.format(until), headers=headers)
    assert (outcome.kind, outcome.retry_after_s) == (Kind.THROTTLED, wait_s)


def test_of_two_times_the_later_counts() -> None:
    message = LIMIT.format("Mon, 20 Dec 2021 20:33:21 UTC")
    for header_s, wait_s in ((5, 20), (30, 30)):
        headers = {"Retry-After": str(header_s)}
        assert judge(429, message, headers=headers).retry_after_s == wait_s


def test_large_batches_are_split_and_other_403s_hold() -> None:
    assert judge(403, "Not allowed to send LARGE BATCHES yet").kind is Kind.TOO_LARGE
    assert judge(403, "Forbidden").kind is Kind.HELD
    assert judge(403, b"<html>").kind is Kind.HELD
    assert judge(400, "large batches").kind is Kind.REJECTED


def test_a_404_is_tried_twice_more() -> None:
    policy = profile().policy
    actions = [dispose(judge(404, "x"), tries, policy, 0.0).action for tries in range(4)]
    assert actions == ["retry", "retry", "dead", "dead"]


@given(st.integers(0, 999), st.binary() | st.sampled_from([row.body for row in TABLE]))
def test_judging_never_raises_and_only_a_yes_is_sent(status: int, body: bytes) -> None:
    if judge(status, body).kind is Kind.SENT:
        assert 200 <= status < 300
        assert body == TABLE[0].body
