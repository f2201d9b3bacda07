"""The neutral e-mail: what it may hold, what is refused and where, and the quick look at it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import PayloadError
from paceline.payloads import PROVIDERS, advise, check, read
from paceline.schemas.email import Address, Email, address, parse, rendered
from paceline.schemas.quick import is_plain_email, is_plain_transmission
from support.mails import PLAIN, SHORT, neutral

MAIL = [name for name in PROVIDERS if name not in ("http", "webhook")]


def refused(payload: bytes, provider: str = "sparkpost") -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        check(provider, payload)
    assert not is_plain_email(payload)
    return caught.value


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("base", [PLAIN, SHORT])
def test_every_provider_takes_it(provider: str, base: dict[str, Any]) -> None:
    check(provider, neutral(base))


def test_it_is_read_whole() -> None:
    email = read("sparkpost", neutral(PLAIN))
    assert isinstance(email, Email)
    assert email.sender == Address("praxis@mail.example", "Praxis Dr. Öhm, Berlin")
    assert [one.email for one in (*email.to, *email.cc, *email.bcc)] == [
        "jan@direct.example",
        "copy@direct.example",
        "blind@direct.example",
    ]
    assert email.to[0].name == "Jürgen"
    assert email.substitution == {"name": "Jan & <Söhne>", "number": "17"}
    assert email.metadata == {"case": "a-1", "page": "2"}
    assert rendered(email) == (
        "Befund für Jan & <Söhne>",
        "Guten Tag Jan & <Söhne>,\nNr. 17",
        "<p>Guten Tag Jan &amp; &lt;Söhne&gt;, Nr. 17</p><style>@media{a{b:c}}</style>",
    )


@pytest.mark.parametrize(
    ("text", "email", "name", "written"),
    [
        ("a@b.example", "a@b.example", "", "a@b.example"),
        ("A B <a@b.example>", "a@b.example", "A B", "A B <a@b.example>"),
        (" <a@b.example> ", "a@b.example", "", "a@b.example"),
        ('"B, A" <a@b.example>', "a@b.example", "B, A", '"B, A" <a@b.example>'),
        (r'"A \"x\" \\" <a@b.example>', "a@b.example", 'A "x" \\', r'"A \"x\" \\" <a@b.example>'),
        ("Zoë <a.b+c@x-1.b.example>", "a.b+c@x-1.b.example", "Zoë", '"Zoë" <a.b+c@x-1.b.example>'),
    ],
)
def test_the_three_forms_of_an_address(text: str, email: str, name: str, written: str) -> None:
    found = address("at", text)
    assert (found.email, found.name, str(found)) == (email, name, written)
    assert address("at", {"email": email, "name": name}) == found
    assert address("at", str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "@", "a@", "@b.example", "a@b", "a@b..example", "a@.example", "a@b.example."),
        *(".a@b.example", "a.@b.example", "a..b@b.example", "a b@c.example", "a@b@c.example"),
        *("a@-b.example", "a@b-.example", "ä@b.example", "a@ö.example", "a@b.example,c@d.example"),
        *("x" * 65 + "@b.example", "a@" + "b" * 64 + ".example", "a@" + "b." * 130 + "example"),
        *(
            "A <a@b.example",
            "A <>",
            "<a@b.example> x",
            "a@b.example\n",
            "a@b.example\r\nBcc:c@d",
        ),
        *("A\0 <a@b.example>", "{{a}}@b.example", '"a"@b.example', "a@[127.0.0.1]"),
    ],
)
@pytest.mark.parametrize("field", ["sender", "reply_to", "to"])
def test_what_is_no_address(text: str, field: str) -> None:
    name = "from" if field == "sender" else field
    at = refused(neutral(**{field: [text] if field == "to" else text})).field
    assert at == f"payload.email.{name}" + ("[0]" if field == "to" else "")


def test_a_long_text_for_an_address_is_refused_at_once() -> None:
    for text in ("a" + " " * 100_000, '"' * 100_001, "a@" * 50_000, "<" * 100_000):
        with pytest.raises(PayloadError, match="At most 998"):
            address("at", text)
    assert address("at", "a" * 979 + " <a@b.example.org>").email == "a@b.example.org"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sender": ...}, "from"),
        ({"to": ...}, "to"),
        ({"to": []}, "to"),
        ({"to": "a@b.example"}, "to"),
        ({"to": [5]}, "to[0]"),
        ({"to": [{"email": "a@b.example", "nam": "x"}]}, "to[0].nam"),
        ({"to": [{"name": "x"}]}, "to[0].email"),
        ({"to": [{"email": "a@b.example", "name": "x\ny"}]}, "to[0].name"),
        ({"to": ["a@b.example", "A@B.example"]}, "to[1]"),
        ({"cc": ["Jane <JANE@example.org>"]}, "cc[0]"),
        ({"cc": ["x@b.example"], "bcc": ["x@b.example"]}, "bcc[0]"),
        ({"subject": ...}, "subject"),
        ({"subject": "a\nBcc: x@y"}, "subject"),
        ({"subject": "a\0"}, "subject"),
        ({"subject": 5}, "subject"),
        ({"text": ...}, "text"),
        ({"text": None}, "text"),
        ({"htlm": "x"}, "htlm"),
        ({"priority": 1}, "priority"),
        ({"headers": {"X-A": "b\r\nBcc: c"}}, "headers.X-A"),
        ({"headers": {"X-A": "b\0"}}, "headers.X-A"),
        ({"headers": {"X-A": 5}}, "headers.X-A"),
        ({"headers": {"X A": "b"}}, "headers.X A"),
        ({"headers": {"X:A": "b"}}, "headers.X:A"),
        ({"headers": {"X\nA": "b"}}, "headers.X\\nA"),
        ({"headers": {"X\n" * 100: "b"}}, "headers." + ("X\\n" * 27)[:79] + "…"),
        ({"headers": {"": "b"}}, "headers."),
        ({"headers": {"X-A": "b", "x-a": "c"}}, "headers.x-a"),
        ({"headers": {"BCC": "x@y.example"}}, "headers.BCC"),
        ({"headers": {"Content-Type": "text/plain"}}, "headers.Content-Type"),
        ({"headers": {"X-MSYS-API": "{}"}}, "headers.X-MSYS-API"),
        ({"headers": {"X-Mailgun-Tag": "x"}}, "headers.X-Mailgun-Tag"),
        ({"headers": {"X-A": "{{name}}"}}, "headers.X-A"),
        ({"headers": []}, "headers"),
        ({"sender": "{{name}} <a@b.example>"}, "from"),
        ({"tags": ["a", "b\nc"]}, "tags[1]"),
        ({"tags": [""]}, "tags[0]"),
        ({"tags": ["x"] * 11}, "tags"),
        ({"metadata": {"a": [1]}}, "metadata.a"),
        ({"metadata": {"a": True}}, "metadata.a"),
        ({"metadata": {"a": 1.5}}, "metadata.a"),
        ({"metadata": {"a-b": "x"}}, "metadata.a-b"),
        ({"substitution": {"name": None}}, "substitution.name"),
        ({"substitution": {"name": "a\0"}}, "substitution.name"),
        ({"substitution": {"name": "a\nb"}}, "substitution.name"),
        ({"substitution": {"name": "x", "a__b": "x"}}, "substitution.a__b"),
        ({"substitution": {"name": "x", "1": "x"}}, "substitution.1"),
        ({"substitution": {"name": "x", "n" * 65: "x"}}, "substitution." + "n" * 65),
        ({"substitution": {}}, "subject"),
        ({"text": "{{other}}"}, "text"),
        ({"text": "{{#if x}}"}, "text"),
        ({"text": "{{{name}}}"}, "text"),
        ({"text": "{{ name"}, "text"),
        ({"text": "{{name}} {{{name}}"}, "text"),
        ({"html": "{{>x}} {{name}}"}, "html"),
        ({"template": "t"}, "text"),
        ({"template": ""}, "template"),
        ({"template": "a\nb", "text": ...}, "template"),
        ({"attachments": [{}]}, "attachments[0].filename"),
        ({"attachments": {}}, "attachments"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(changes: dict[str, Any], field: str) -> None:
    assert refused(neutral(**changes)).field == f"payload.email.{field}"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"filename": "a\r\nb"}, "filename"),
        ({"filename": ""}, "filename"),
        ({"filename": "a\0"}, "filename"),
        ({"content_type": "pdf"}, "content_type"),
        ({"content_type": "a/b;\nc"}, "content_type"),
        ({"content": "JVBERg"}, "content"),
        ({"content": "JV\nBERg=="}, "content"),
        ({"content_id": "a\nb"}, "content_id"),
        ({"size": 5}, "size"),
    ],
)
def test_attachments_are_checked(changes: dict[str, Any], field: str) -> None:
    good = {"filename": "a.pdf", "content_type": "application/pdf", "content": "JVBERg=="}
    found = refused(neutral(attachments=[good, {**good, **changes}]))
    assert found.field == f"payload.email.attachments[1].{field}"


def test_email_stands_alone() -> None:
    payload = json.dumps({"email": SHORT, "recipients": []}).encode()
    assert refused(payload).field == "payload.recipients"
    assert refused(b'{"email": "a@b.example"}').field == "payload.email"


@pytest.mark.parametrize(
    ("provider", "changes", "field"),
    [
        ("maxmd", {"headers": {"X-A": "b"}}, "headers"),
        ("maxmd", {"template": "t", "text": ..., "subject": ...}, "template"),
        ("sparkpost", {"substitution": {"name": "x", "If": "y"}}, "substitution.If"),
        ("sparkpost", {"template": "t", "text": ...}, "subject"),
        ("sparkpost", {"metadata": {"a": "x" * 10240}}, "metadata"),
        ("sparkpost", {"substitution": {"name": "x", "b": "x" * 102400}}, "substitution"),
        ("mailgun", {"text": "%recipient.name%"}, "text"),
        ("mailgun", {"subject": "%recipient%"}, "subject"),
        ("mailgun", {"headers": {"X-A": "b" * 16384}}, ""),
        ("mailgun", {"to": [f"a{n}@b.example" for n in range(1001)]}, "to"),
    ],
)
def test_what_a_provider_cannot_express_is_refused_by_it_alone(
    provider: str, changes: dict[str, Any], field: str
) -> None:
    payload = neutral(**changes)
    assert refused(payload, provider).field == f"payload.email.{field}".rstrip(".")
    parse(json.loads(payload))


def test_an_inline_attachment_has_no_place_in_maxmd() -> None:
    one = {"filename": "a", "content_type": "a/b", "content": "", "content_id": "logo"}
    assert refused(neutral(attachments=[one]), "maxmd").field == (
        "payload.email.attachments[0].content_id"
    )
    for provider in ("sparkpost", "mailgun"):
        check(provider, neutral(attachments=[one]))


# --- sizes ---


def test_sparkpost_takes_content_of_20_mb() -> None:
    content = {"from": "a@b.example", "subject": "s", "text": ""}
    around = len(json.dumps(content, separators=(",", ":")))
    for over in (0, 1):
        content["text"] = "x" * (20 * 1024**2 - around + over)
        payload = json.dumps(
            {"recipients": [{"address": "a@b.example"}], "content": content},
            separators=(",", ":"),
        ).encode()
        if over:
            with pytest.raises(PayloadError, match="20 MB") as caught:
                check("sparkpost", payload)
            assert caught.value.field == "payload.content"
        else:
            check("sparkpost", payload)


def test_the_neutral_ones_have_their_limits_too() -> None:
    large = neutral(text="x" * (20 * 1024**2 + 1))
    with pytest.raises(PayloadError, match="20 MB"):
        check("sparkpost", large)
    check("mailgun", large)
    with pytest.raises(PayloadError, match="25 MB"):
        check("mailgun", neutral(text="x" * 34 * 1024**2))


def test_advice_is_a_warning_and_small_payloads_have_none() -> None:
    small, large = neutral(), neutral(text="x" * 110_000)
    check("sparkpost", large)
    assert advise("sparkpost", small) == ()
    assert [line[:11] for line in advise("sparkpost", large)] == ["over 100 KB"]
    assert advise("sparkpost", large) == advise("sparkpost", large + b" ")
    assert advise("maxmd", large) == advise("http", large) == advise("mailgun", large) == ()
    assert [line[:9] for line in advise("maxmd", b"x" * (2**20 + 1))] == ["over 1 MB"]


# --- the quick look ---

NAMES = st.sampled_from(["name", "n", "if", "a__b", "a-b", "1", "n" * 65, "", "ü"])
TEXTS = st.sampled_from(
    [
        *("", "a", "a\nb", "a\0b", "{{name}}", "{{ n }}", "{{", "{{if}}", "}}", "{{{n}}}", "ü"),
        *("%recipient.name%", "%recipient%", "{{x}} {{name}}", "x" * 70, "Zoë <a@b.example>"),
        *(
            "a@b.example",
            "A <a@b.example>",
            "a..b@c.example",
            "a@b",
            "a@-b.example",
            "<a@b.example>",
        ),
        *(
            "a" * 65 + "@b.example",
            "A, B <a@b.example>",
            "{a}@b.example",
            "a@b.example ",
            "<a@b.example>",
        ),
    ]
)
VALUES = st.dictionaries(NAMES, TEXTS | st.integers() | st.none() | st.booleans(), max_size=3)
FIELDS = st.fixed_dictionaries(
    {"from": TEXTS, "to": st.lists(TEXTS, max_size=2), "subject": TEXTS},
    optional={
        "text": TEXTS,
        "html": TEXTS,
        "substitution": VALUES,
        "metadata": VALUES,
        "tags": st.lists(TEXTS, max_size=11),
        "cc": st.lists(TEXTS, max_size=1),
        "headers": st.dictionaries(TEXTS, TEXTS, max_size=1),
        "sbject": TEXTS,
    },
)


@given(FIELDS, st.booleans())
def test_what_passes_at_a_glance_passes_the_full_check(email: dict[str, Any], raw: bool) -> None:
    payload = json.dumps({"email": email}, ensure_ascii=raw).encode()
    if is_plain_email(payload):
        for provider in MAIL:
            read(provider, payload)


def test_the_usual_passes_at_a_glance() -> None:
    assert is_plain_email(neutral())
    assert is_plain_email(neutral(sender="Acme Ltd. <a@b.example>", text="a\nb", tags=["x"]))
    assert is_plain_transmission(json.dumps(NATIVE).encode())
    by_template = NATIVE | {"content": {"template_id": "spring", "use_draft_template": False}}
    assert is_plain_transmission(json.dumps(by_template).encode())
    for missing in ("from", "subject", "text"):
        content = {k: v for k, v in NATIVE["content"].items() if k != missing}
        assert not is_plain_transmission(json.dumps(NATIVE | {"content": content}).encode())


@pytest.mark.parametrize("escape", ["\\u0025recipient.name%", "\\u007b{nobody}}", "\\u007B{x"])
def test_an_escape_hides_nothing(escape: str) -> None:
    payload = neutral(text="TEXT").replace(b"TEXT", escape.encode())
    for provider in ("mailgun", "sparkpost"):
        if provider == "mailgun" or "{" in json.loads(payload)["email"]["text"]:
            with pytest.raises(PayloadError):
                check(provider, payload)


NATIVE: dict[str, Any] = {
    "recipients": [{"address": {"email": "jane@example.org", "name": "Jane"}}],
    "content": {"from": "a@b.example", "subject": "s", "text": "t"},
    "campaign_id": "spring",
    "options": {"transactional": True},
}
MAILBOX = TEXTS | st.fixed_dictionaries({"email": TEXTS}, optional={"name": TEXTS, "nam": TEXTS})


@given(
    st.fixed_dictionaries(
        {
            "recipients": st.lists(
                st.fixed_dictionaries({"address": MAILBOX}, optional={"tags": st.lists(TEXTS)}),
                max_size=2,
            ),
            "content": st.fixed_dictionaries(
                {},
                optional={
                    "from": MAILBOX,
                    "subject": TEXTS,
                    "text": TEXTS,
                    "html": TEXTS,
                    "template_id": TEXTS,
                },
            ),
        },
        optional={
            "campaign_id": TEXTS,
            "metadata": st.dictionaries(TEXTS, TEXTS),
            "recipient": st.none(),
        },
    )
)
def test_a_transmission_that_passes_at_a_glance_passes_the_full_check(
    document: dict[str, Any],
) -> None:
    payload = json.dumps(document).encode()
    if is_plain_transmission(payload):
        read("sparkpost", payload)
