"""One mail, every provider: rendered by each mail profile, accepted by its strict simulator, and
the same to its readers; what a provider cannot express is refused at `Outbox.send`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from email.utils import parseaddr
from html import escape
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from paceline import Outbox
from paceline.errors import PayloadError
from paceline_workers.outcome import Kind
from paceline_workers.providers.base import as_merging
from support.counter import Counter
from support.mails import PLAIN, POSTMARK_MAIL, SENDGRID_MAIL, neutral
from support.published import published
from support.reader import Mailbox, Seen, filled, seen_by_readers

MAIL = ("maxmd", "sparkpost", "mailgun")
EVERYWHERE = pytest.mark.parametrize("name", MAIL)
PDF = {
    "filename": "größe.pdf",
    "content_type": "application/pdf",
    "content": base64.b64encode(b"%PDF\0\r\n--paceline-\r\n\xff").decode(),
}
TXT = {"filename": "a.txt", "content_type": "text/plain", "content": "eHkK"}
LOGO = {"filename": "l.png", "content_type": "image/png", "content": "eHk=", "content_id": "logo"}

# What all of them can express.
MAILS: dict[str, dict[str, Any]] = {
    "plain": {},
    "html": {"text": ..., "html": "<p>Guten Tag {{name}}</p>"},
    "html and text": {"html": "<p>Guten Tag {{ name }}</p>"},
    "many recipients": {
        "to": ["a@example.org", "B. B. <b@example.org>", {"email": "c@example.org"}],
        "cc": ["d@example.org", '"E, e" <e@example.org>'],
        "bcc": ["f@example.org", "G <g@example.org>"],
    },
    "to one, and a copy": {"cc": ["D <d@example.org>"]},
    "reply to": {"reply_to": "Antwort, bitte <answer@acme.example>".replace(", ", " ")},
    "attachments": {"attachments": [TXT, PDF]},
    "attachments and html": {"attachments": [PDF], "html": "<b>{{name}}</b>"},
    "substitution": {
        "subject": "{{name}}, {{number}} & {{name}}",
        "text": "{{name}}\n%recipient_name% 100% {{number}}",
        "html": "<i>{{name}}</i> {{number}}<style>a{b:c}</style>",
        "substitution": {"name": "Jan & <Söhne> \"GmbH\" 'x' 100% %41 \\", "number": -17},
    },
    "other letters": {
        "sender": {"email": "news@acme.example", "name": "Prägung, GmbH 「東京」"},
        "to": [{"email": "jane@example.org", "name": 'Zoë "die" \\ Größe 🎉'}],
        "subject": "Grüße 🎉 – 東京 = + & %",
        "text": "Дорогая {{name}}\r\n\ttab = & + % \u2028 \u00a0 ende\n\n",
    },
    "long lines": {"subject": "s" * 900, "text": "t" * 20_000},
    "tags and metadata": {"tags": ["befund", "grün"], "metadata": {"case": "ä-1", "page": 2}},
    "all of it": {**PLAIN, "to": ["Jürgen <jan@direct.example>", "x@direct.example"]},
}
# What MaxMD's API has no field for.
RICHER: dict[str, dict[str, Any]] = {
    "headers": {"headers": {"X-Case": "a=b; c", "List-Unsubscribe": "<mailto:u@acme.example>"}},
    "inline image": {"html": '<img src="cid:logo">{{name}}', "attachments": [LOGO, TXT]},
}
CASES = [
    *(pytest.param(name, mail, id=f"{name}-{key}") for name in MAIL for key, mail in MAILS.items()),
    *(
        pytest.param(name, mail, id=f"{name}-{key}")
        for name in MAIL[1:]
        for key, mail in RICHER.items()
    ),
]


@pytest.fixture(scope="module")
def counters() -> Iterator[dict[str, Counter]]:
    with ExitStack() as exits:
        yield {name: exits.enter_context(Counter(name)) for name in (*MAIL, "sendgrid", "postmark")}


def meant(name: str, document: Mapping[str, Any]) -> Seen:
    """What readers are to see, from the neutral mail itself."""
    it = document["email"]
    values = it.get("substitution", {})
    html = filled(it.get("html"), values, escape)
    named = name != "maxmd"

    def mailbox(value: Any) -> Mailbox:
        found = (
            parseaddr(value) if isinstance(value, str) else (value.get("name", ""), value["email"])
        )
        return found if named else ("", found[1])

    return Seen(
        sender=mailbox(it["from"]),
        to=[mailbox(one) for one in it["to"]],
        cc=[mailbox(one) for one in it.get("cc", [])],
        bcc={mailbox(one)[1] for one in it.get("bcc", [])},
        reply_to=mailbox(it["reply_to"]) if "reply_to" in it else None,
        subject=filled(it["subject"], values),
        text=None if html is not None and not named else filled(it.get("text"), values),
        html=html,
        headers=it.get("headers", {}),
        files=sorted(
            (
                one.get("content_id", one["filename"]),
                one["content_type"],
                base64.b64decode(one["content"]),
                one.get("content_id", ""),
            )
            for one in it.get("attachments", [])
        ),
    )


def seen(at: Counter, payload: bytes) -> Seen:
    (found,) = seen_by_readers(at.simulator, at.profile.render("m-1", payload))
    return found._replace(files=sorted(found.files))


@pytest.mark.parametrize(("name", "mail"), CASES)
def test_the_same_mail(counters: dict[str, Counter], name: str, mail: dict[str, Any]) -> None:
    at, payload = counters[name], neutral(**mail)
    document = json.loads(payload)
    everyone = sum(len(document["email"].get(field, [])) for field in ("to", "cc", "bcc"))
    outcome, reply = at.send(payload)
    assert outcome.kind is Kind.SENT, reply and reply.body
    arrival = at.last()
    assert (arrival.fault, arrival.accepted, arrival.recipients) == ("ok", True, everyone)
    assert seen(at, payload) == meant(name, document)


_names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30).filter(
    lambda text: "{{" not in text and text.strip() == text
)
_lines = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=60).filter(
    lambda text: "{{" not in text and "%recipient" not in text
)


@given(name=_names, subject=_lines, value=_lines, text=_lines)
def test_any_name_subject_and_value(
    counters: dict[str, Counter], name: str, subject: str, value: str, text: str
) -> None:
    payload = neutral(
        sender={"email": "news@acme.example", "name": name},
        to=[{"email": "a@example.org", "name": name}, {"email": "b@example.org"}],
        cc=[{"email": "c@example.org", "name": name}],
        subject=f"{subject} {{{{x}}}}",
        text=f"{text} {{{{x}}}}",
        html=f"<p>{escape(text)} {{{{x}}}}</p>",
        substitution={"x": value},
    )
    for at in (counters[provider] for provider in MAIL):
        assert seen(at, payload) == meant(at.simulator, json.loads(payload))


@pytest.mark.parametrize("name", MAIL[1:])
@pytest.mark.parametrize(
    "key", ["substitution", "attachments and html", "other letters", "headers"]
)
def test_merged_each_sees_its_own(counters: dict[str, Counter], name: str, key: str) -> None:
    at, mail = counters[name], (MAILS | RICHER)[key]
    values = [{"name": value, "number": n} for n, value in enumerate(("Jan & Co", "<Zoë>", "%"))]
    payloads = [
        neutral(**{**mail, "to": [f"Name {n} <a{n}@example.org>"], "substitution": its})
        for n, its in enumerate(values)
    ]
    outcome, reply = at.send_merged(payloads)
    assert outcome.kind is Kind.SENT, reply and reply.body
    assert (at.last().recipients, at.last().exposed) == (3, 0)
    merging = as_merging(at.profile)
    assert merging is not None
    portions = [one for payload in payloads if (one := merging.portion(payload))]
    body = merging.join(portions[0].shared, [one.part for one in portions])
    found = seen_by_readers(name, merging.render_merged("r-1", body))
    assert [one._replace(files=sorted(one.files)) for one in found] == [
        meant(name, json.loads(payload)) for payload in payloads
    ]


# --- the providers' own bodies ---

NATIVE: dict[str, dict[str, Any]] = {
    "maxmd": {
        "sender": "a@direct.example",
        "recipients": [
            {"email": f"{kind}@direct.example", "type": kind} for kind in ("TO", "CC", "BCC")
        ],
        "subject": "Grüße",
        "body": "<b>x</b>",
        "htmlBody": True,
        "replyTo": "r@direct.example",
        "attachmentList": [{"filename": "ü.txt", "contentType": "text/plain", "content": "eHk="}],
    },
    "sparkpost": {
        "recipients": [
            {"address": {"email": "a@example.org", "name": "Zoë"}, "substitution_data": {"n": 1}},
            {"address": {"email": "b@example.org", "header_to": "a@example.org"}, "tags": ["t"]},
            {"address": "c@example.org", "metadata": {"x": [1]}},
        ],
        "content": {
            "from": {"email": "news@acme.example", "name": "Grün"},
            "subject": "{{n}} Grüße",
            "html": "<b>x</b>",
            "text": "x",
            "reply_to": "r@acme.example",
            "headers": {"CC": "b@example.org"},
            "attachments": [{"name": "ü.txt", "type": "text/plain", "data": "eHk="}],
        },
        "options": {"open_tracking": False},
        "campaign_id": "frühling",
        "metadata": {"m": 1},
    },
    "mailgun": {
        "from": "Grün <news@acme.example>",
        "to": ["Zoë <a@example.org>", "b@example.org"],
        "cc": "c@example.org",
        "subject": "Grüße %recipient.n%",
        "text": "x",
        "html": "<b>x</b>",
        "h:Reply-To": "r@acme.example",
        "h:X-A": "b",
        "o:tag": ["t", "ü"],
        "o:tracking": False,
        "v:number": 7,
        "recipient-variables": {"a@example.org": {"n": 1}, "b@example.org": {"n": 2}},
        "attachment": [{"filename": "ü.txt", "content": "eHk="}],
    },
    "sendgrid": {
        **SENDGRID_MAIL,
        "personalizations": [
            {
                "to": [{"email": "a@example.org", "name": "Zoë"}],
                "cc": [{"email": "b@example.org"}],
                "bcc": [{"email": "c@example.org"}],
                "subject": "Grüße",
                "substitutions": {"-n-": "1"},
            }
        ],
        "content": [
            {"type": "text/plain", "value": "x"},
            {"type": "text/html", "value": "<b>x</b>"},
        ],
        "reply_to": {"email": "r@acme.example"},
        "headers": {"X-A": "b"},
        "attachments": [{"content": "eHk=", "filename": "ü.txt", "type": "text/plain"}],
    },
    "postmark": {
        **POSTMARK_MAIL,
        "To": "Zoë <a@example.org>",
        "Cc": "b@example.org",
        "Bcc": "c@example.org",
        "Subject": "Grüße",
        "HtmlBody": "<b>x</b>",
        "ReplyTo": "r@acme.example",
        "Headers": [{"Name": "X-A", "Value": "b"}],
        "Attachments": [{"Name": "ü.txt", "Content": "eHk=", "ContentType": "text/plain"}],
        "Metadata": {"n": "1"},
    },
}


@pytest.mark.parametrize("name", NATIVE)
def test_a_native_body(counters: dict[str, Counter], name: str) -> None:
    at = counters[name]
    outcome, reply = at.send(json.dumps(NATIVE[name], ensure_ascii=False).encode())
    assert outcome.kind is Kind.SENT, reply and reply.body
    assert (at.last().fault, at.last().recipients) == ("ok", 3)
    assert outcome.provider_id


def test_a_providers_own_template(counters: dict[str, Counter]) -> None:
    mail: dict[str, Any] = {"template": "welcome", "text": ...}
    outcome, _ = counters["mailgun"].send(neutral(**mail))
    assert (outcome.kind, counters["mailgun"].last().fault) == (Kind.SENT, "ok")
    # There the template's own subject holds.
    outcome, _ = counters["sparkpost"].send(neutral(**mail, subject=...))
    assert (outcome.kind, counters["sparkpost"].last().fault) == (Kind.SENT, "ok")


def test_a_whole_mime_message(counters: dict[str, Counter]) -> None:
    at = counters["mailgun"]
    message = "From: a@acme.example\r\nSubject: x\r\n\r\nGrüße\r\n--paceline-\r\n"
    outcome, _ = at.send(json.dumps({"to": "a@example.org", "message": message}).encode())
    assert (outcome.kind, at.last().path) == (Kind.SENT, "/v3/mail.example/messages.mime")


# --- what a provider cannot express ---


@pytest.fixture(scope="module")
def outbox(redis_server: Any) -> Iterator[Outbox]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        for name in MAIL:
            published(client, name, name)
        with Outbox.from_url(redis_server.url) as outbox:
            yield outbox


@EVERYWHERE
def test_what_all_can_express_is_accepted(outbox: Outbox, name: str) -> None:
    for mail in MAILS.values():
        assert outbox.send(name, json.loads(neutral(**mail))).status == "new"


@pytest.mark.parametrize(
    ("name", "mail", "field"),
    [
        ("maxmd", RICHER["headers"], "headers"),
        ("maxmd", RICHER["inline image"], "attachments[0].content_id"),
        ("maxmd", {"template": "t", "subject": ..., "text": ...}, "template"),
        ("sparkpost", {"template": "t", "text": ...}, "subject"),
        ("sparkpost", {"template": "t", "subject": ..., "text": ..., "cc": ["c@x.example"]}, "cc"),
        ("sparkpost", {"substitution": {"name": "x", "if": "y"}}, "substitution.if"),
        ("sparkpost", {"metadata": {"m": "x" * 11_000}}, "metadata"),
        ("mailgun", {"text": "%recipient.name%"}, "text"),
        ("mailgun", {"subject": "%recipient%"}, "subject"),
        ("mailgun", {"bcc": [f"b{n}@example.org" for n in range(1000)]}, "to"),
        ("mailgun", {"headers": {"X-A": "x" * 17_000}}, ""),
        *(
            (name, *wrong)
            for name in MAIL
            for wrong in (
                ({"to": ["jane@example"]}, "to[0]"),
                ({"cc": ["ü@example.org"]}, "cc[0]"),
                ({"subject": "a\r\nBcc: x@example.org"}, "subject"),
                ({"sender": {"email": "a@example.org", "name": "x\ny"}}, "from.name"),
                ({"substitution": {}}, "subject"),
                ({"attachments": [{**TXT, "content": "%%%"}]}, "attachments[0].content"),
                ({"headers": {"X-A": "b\nBcc: c"}}, "headers.X-A"),
            )
        ),
    ],
)
def test_what_one_cannot_is_refused_by_name(
    outbox: Outbox, name: str, mail: dict[str, Any], field: str
) -> None:
    with pytest.raises(PayloadError) as caught:
        outbox.send(name, json.loads(neutral(**mail)), id="refused")
    assert caught.value.field == f"payload.email{'.' if field else ''}{field}"
    assert caught.value.field in str(caught.value)
