"""The Mailgun simulator, and the forms it reads."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from paceline.sink.answers import Request, When
from paceline.sink.forms import Field, FormError, fields
from paceline.sink.profiles import Mailgun

URLENCODED = b"application/x-www-form-urlencoded"
MULTIPART = b'multipart/form-data; boundary="xyz"'
GOOD: dict[str, Any] = {
    "from": "Ann <ann@example.com>",
    "to": "Bob <bob@example.com>, carl@example.com",
    "cc": "dora@example.com",
    "bcc": "emil@example.com",
    "subject": "Grüße",
    "text": "Hello %recipient.name%",
    "html": "<b>x</b>",
    "o:tag": ["a", "b"],
    "h:X-Reason": "none",
    "v:number": "7",
    "recipient-variables": '{"bob@example.com":{"name":"Bob"},"carl@example.com":{}}',
}


def ask(
    form: dict[str, Any] | bytes,
    content_type: bytes = URLENCODED,
    path: bytes = b"/v3/example.com/messages",
    user: str = "api:key",
) -> Request:
    body = form if isinstance(form, bytes) else urlencode(form, doseq=True).encode()
    basic = b"Basic " + base64.b64encode(user.encode())
    return Request(body, content_type, 3, path, {b"authorization": basic})


def multipart(*parts: tuple[str, bytes, str | None]) -> bytes:
    body = b""
    for name, value, filename in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        head = f'--xyz\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + value + b"\r\n"
    return body + b"--xyz--\r\n"


def test_a_good_form_is_accepted() -> None:
    verdict = Mailgun().judge(ask(GOOD))
    assert (verdict.status, verdict.accepted, verdict.name) == (200, True, "ok")
    answer = json.loads(verdict.body)
    assert answer["id"].startswith("<")
    assert answer["id"].endswith("@example.com>")
    assert answer["message"] == "Queued. Thank you."
    assert verdict.recipients == 4
    assert list(verdict.addresses) == [
        f"{name}@example.com" for name in ("bob", "carl", "dora", "emil")
    ]
    assert verdict.exposed == 0


def test_without_recipient_variables_recipients_see_one_another() -> None:
    form = {name: value for name, value in GOOD.items() if name != "recipient-variables"}
    assert Mailgun().judge(ask(form)).exposed == 2
    assert Mailgun().judge(ask({**form, "to": "bob@example.com"})).exposed == 0
    assert Mailgun().judge(ask({**form, "recipient-variables": "{}"})).exposed == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"from": None}, "from parameter is missing"),
        ({"to": None}, "to parameter is missing"),
        ({"subject": None}, "subject parameter is missing"),
        ({"text": None, "html": None}, "Need at least one of"),
        ({"template": "t"}, "Only one parameters 'html' or 'template'"),
        ({"to": "nobody"}, "to parameter is not a valid address"),
        ({"to": ""}, "to parameter is not a valid address"),
        ({"from": "Ann"}, "from parameter is not a valid address"),
        ({"cc": "a@"}, "cc parameter is not a valid address"),
        ({"to": "reject-a@example.com"}, "to parameter is not a valid address"),
        ({"bcc": [f"u{n}@example.com" for n in range(998)]}, "Too many recipients; max is 1000"),
        ({"recipient-variables": "{"}, "recipient-variables is not valid JSON"),
        ({"recipient-variables": "[]"}, "recipient-variables is no JSON object"),
        ({"recipient-variables": '{"bob@example.com":1}'}, "are no object"),
        ({"recipient-variables": '{"Bob@example.com":{}}'}, "is no recipient"),
        ({"v:a": "x" * 16_000}, "limited to 16 kB"),
        ({"o:tags": "a"}, "'o:tags' is no option"),
        ({"t:variables": "["}, "t:variables is not valid JSON"),
        ({"replyto": "a@example.com"}, "'replyto' is no parameter"),
        ({"h:": "a"}, "'h:' is no parameter"),
        ({"h:X-Ü": "a"}, "pure ASCII"),
        ({"h:X-A": "a\nBcc: b@example.com"}, "line break"),
        ({"subject": "a\r\nBcc: b@example.com"}, "line break"),
        ({"subject": ["a", "b"]}, "given 2 times"),
    ],
)
def test_what_is_refused(change: dict[str, Any], says: str) -> None:
    form = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    verdict = Mailgun().judge(ask(form))
    assert (verdict.status, verdict.accepted, verdict.recipients) == (400, False, 0)
    assert says in json.loads(verdict.body)["message"]


def test_a_thousand_recipients_are_taken() -> None:
    addresses = [f"u{n}@example.com" for n in range(1000)]
    form = {"from": "a@example.com", "subject": "s", "text": "x", "recipient-variables": "{}"}
    for to in (addresses, ",".join(addresses)):
        assert Mailgun().judge(ask({**form, "to": to})).recipients == 1000


def test_a_message_over_25_mb_is_too_large() -> None:
    verdict = Mailgun().judge(ask({**GOOD, "text": "x" * 25_000_001}))
    assert (verdict.status, verdict.name) == (413, "too_large")


@pytest.mark.parametrize("user", ["api:another", "key:", "user:key", "api:"])
def test_the_key_is_the_password_of_api(user: str) -> None:
    verdict = Mailgun("key").judge(ask(GOOD, user=user))
    assert (verdict.status, verdict.name) == (401, "authentication")
    assert Mailgun("key").judge(ask(GOOD)).accepted
    bare = Request(ask(GOOD).body, URLENCODED, 0, b"/v3/e.com/messages", {b"authorization": b"key"})
    assert Mailgun("key").judge(bare).status == 401


def test_other_paths_are_not_found() -> None:
    assert Mailgun().judge(ask(GOOD, path=b"/v3/messages")).status == 404
    assert Mailgun().judge(ask(GOOD, path=b"/v3/a%2Fb/messages")).status == 404


def test_a_multipart_form_with_files() -> None:
    parts = [(name, str(GOOD[name]).encode(), None) for name in ("from", "to", "subject", "text")]
    body = multipart(*parts, ("attachment", b"\r\n--xy\x00", "a b.bin"), ("inline", b"", "c.png"))
    verdict = Mailgun().judge(ask(body, MULTIPART))
    assert (verdict.accepted, verdict.recipients) == (True, 2)
    body = multipart(*parts, ("cc", b"dora@example.com", "cc.txt"))
    assert Mailgun().judge(ask(body, MULTIPART)).status == 400, "an address is no file"


def test_mime_messages() -> None:
    path = b"/v3/example.com/messages.mime"
    message = b"Subject: x\r\nFrom: ann@example.com\r\n\r\nx"
    to = ("to", b"bob@example.com", None)
    good = Mailgun().judge(ask(multipart(to, ("message", message, "m")), MULTIPART, path))
    assert (good.accepted, good.recipients) == (True, 1)
    for parts, says in (
        ([to], "message parameter is missing"),
        ([to, ("message", message, None)], "is not a file"),
        ([to, ("message", b"x", "m")], "no From header"),
        ([("message", message, "m")], "to parameter is missing"),
    ):
        verdict = Mailgun().judge(ask(multipart(*parts), MULTIPART, path))
        assert verdict.status == 400
        assert says in json.loads(verdict.body)["message"]


def test_the_429_has_its_time_in_the_text() -> None:
    good = Mailgun().judge(ask(GOOD))
    for name in ("429", "429/limit-exceeded"):
        verdict = Mailgun().row(name, good, When(1640032371.2, 29.5))
        assert verdict.status == 429
        message = json.loads(verdict.body)["message"]
        assert message.endswith("limit exceeded, try again after Mon, 20 Dec 2021 20:33:21 UTC")
        assert verdict.extra == b""


def test_a_lean_sink_counts_at_signs_in_recipients() -> None:
    lean = Mailgun(validate=False)
    assert lean.judge(ask(GOOD)).recipients == 4
    assert lean.judge(ask(b"to=a@b.de&to=c%40d.de&from=x@y.de&text=@")).recipients == 2
    body = multipart(("to", b"a@b.de, c@d.de", None), ("text", b"@", None))
    assert lean.judge(ask(body, MULTIPART)).recipients == 2
    assert lean.judge(ask(b"{}", b"application/json")).accepted


# -- forms -----------------------------------------------------------------------------------------


def test_forms_are_read_in_order() -> None:
    assert fields(b"a=1&b=%C3%BC+x&a=", URLENCODED) == [
        Field("a", b"1"),
        Field("b", "ü x".encode()),
        Field("a", b""),
    ]
    assert fields(b"", URLENCODED) == []
    coded = b"--x\r\nContent-Disposition: form-data; name=\"f\"; filename*=utf-8''%C3%BC\r\n\r\n"
    found = fields(coded + b"1\r\n2\r\n--x--", b"multipart/form-data; boundary=x")
    assert found == [Field("f", b"1\r\n2", "ü")]
    assert fields(multipart(('a"', b"", None)).replace(b'a""', rb'a\""'), MULTIPART) == [
        Field('a"', b"")
    ]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"a=1", b""),
        (b"{}", b"application/json"),
        (b"a", URLENCODED),
        (b"a=\xff", URLENCODED),
        (b"a=%FF", URLENCODED),
        (b"--x--", b"multipart/form-data"),
        (b"", MULTIPART),
        (b"--xyz\r\n", MULTIPART),
        (b"--xyz\r\nno headers\r\n--xyz--", MULTIPART),
        (b"--xyz\r\nContent-Type: a/b\r\n\r\nx\r\n--xyz--", MULTIPART),
        (b"--xyz\r\nContent-Disposition: form-data\r\n\r\nx\r\n--xyz--", MULTIPART),
    ],
)
def test_what_is_no_form(body: bytes, content_type: bytes) -> None:
    with pytest.raises(FormError):
        fields(body, content_type)
    assert Mailgun().judge(ask(body, content_type)).status == 400
