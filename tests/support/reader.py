"""What readers would see of a rendered request: taken out of it by parsers that nobody here wrote
(json, urllib, email, Django), and put together as the provider's documents say."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from email import message_from_bytes
from email.message import Message
from email.utils import getaddresses
from html import escape
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from django.conf import settings
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.http.multipartparser import MultiPartParser

from paceline_workers.providers.base import RenderedRequest

Mailbox = tuple[str, str]
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_RECIPIENT = re.compile(r"%recipient\.(\w+)%")


class Seen(NamedTuple):
    """One message. Mailboxes are (name, address); files (name, type, content, content id)."""

    sender: Mailbox
    to: list[Mailbox]
    cc: list[Mailbox]
    bcc: set[str]
    reply_to: Mailbox | None
    subject: str
    text: str | None
    html: str | None
    headers: dict[str, str]
    files: list[tuple[str, str, bytes, str]]


class _Form(NamedTuple):
    fields: dict[str, list[str]]
    files: list[tuple[str, str, str, bytes]]


def seen_by_readers(provider: str, request: RenderedRequest) -> list[Seen]:
    """The messages that the request asks for, in its order."""
    return _READERS[provider](request)


def filled(text: str | None, values: Mapping[str, Any], write: Callable[[str], str] = str) -> Any:
    """The text with what stands for its placeholders."""
    return text and _PLACEHOLDER.sub(lambda found: write(str(values[found[1]])), text)


def _maxmd(request: RenderedRequest) -> list[Seen]:
    body = json.loads(request.body)
    assert body.pop("authentication") == {"username": "u", "password": "the-only-key"}
    it = body.pop("message")
    assert not body

    def of(kind: str) -> list[str]:
        return [one["email"] for one in it["recipients"] if one["type"] == kind]

    return [
        Seen(
            sender=("", it["sender"]),
            to=[("", one) for one in of("TO")],
            cc=[("", one) for one in of("CC")],
            bcc=set(of("BCC")),
            reply_to=("", it["replyTo"]) if "replyTo" in it else None,
            subject=it["subject"],
            text=None if it["htmlBody"] else it["body"],
            html=it["body"] if it["htmlBody"] else None,
            headers={},
            files=[
                (one["filename"], one["contentType"], base64.b64decode(one["content"]), "")
                for one in it.get("attachmentList", [])
            ],
        )
    ]


def _sparkpost(request: RenderedRequest) -> list[Seen]:
    body = json.loads(request.body)
    recipients = body["recipients"]
    shown = {one["address"].get("header_to") for one in recipients}
    if shown == {None}:
        return [_transmission(body["content"], [one]) for one in recipients]
    assert len(shown) == 1, "they see different To lists"
    return [_transmission(body["content"], recipients)]


def _transmission(content: Any, recipients: list[Any]) -> Seen:
    headers = dict(content.get("headers", {}))
    cc = _mailboxes(headers.pop("CC", ""))
    first = recipients[0]["address"]
    shown = first.get("header_to")
    to = _mailboxes(shown) if shown else [(first.get("name", ""), first["email"])]
    (values,) = [json.loads(v) for v in {json.dumps(r.get("substitution_data", {}), sort_keys=True)
                                         for r in recipients}]  # fmt: skip
    everyone = [one["address"]["email"] for one in recipients]
    assert len(set(everyone)) == len(everyone)
    return Seen(
        sender=(content["from"].get("name", ""), content["from"]["email"]),
        to=to,
        cc=cc,
        bcc=set(everyone) - {email for _, email in (*to, *cc)},
        reply_to=_mailboxes(content["reply_to"])[0] if "reply_to" in content else None,
        subject=filled(content["subject"], values),
        text=filled(content.get("text"), values),
        html=filled(content.get("html"), values, escape),
        headers=headers,
        files=[
            (
                one["name"],
                one["type"],
                base64.b64decode(one["data"]),
                one["name"] if kind == "inline_images" else "",
            )
            for kind in ("attachments", "inline_images")
            for one in content.get(kind, [])
        ],
    )


def _mailgun(request: RenderedRequest) -> list[Seen]:
    form = _form(request)
    variables = form.fields.pop("recipient-variables", None)
    to = [box for line in form.fields["to"] for box in _mailboxes(line)]
    if variables is None:
        return [_filed(form, to, {})]
    of_each = json.loads(variables[0])
    assert set(of_each) == {email for _, email in to}, "some would see all the others"
    return [_filed(form, [box], of_each[box[1]]) for box in to]


def _filed(form: _Form, to: list[Mailbox], values: Mapping[str, str]) -> Seen:
    given = {name: texts[0] for name, texts in form.fields.items() if len(texts) == 1}

    def own(name: str) -> Any:
        text = given.get(name)
        return text and _RECIPIENT.sub(lambda found: values[found[1]], text)

    return Seen(
        sender=_mailboxes(given["from"])[0],
        to=to,
        cc=_mailboxes(given.get("cc", "")),
        bcc={email for _, email in _mailboxes(given.get("bcc", ""))},
        reply_to=_mailboxes(given["h:Reply-To"])[0] if "h:Reply-To" in given else None,
        subject=own("subject"),
        text=own("text"),
        html=own("html"),
        headers={k[2:]: v for k, v in given.items() if k[:2] == "h:" and k != "h:Reply-To"},
        files=[
            (name, content_type, content, name if field == "inline" else "")
            for field, name, content_type, content in form.files
        ],
    )


def _form(request: RenderedRequest) -> _Form:
    content_type = request.headers["Content-Type"]
    if content_type == "application/x-www-form-urlencoded":
        fields: dict[str, list[str]] = {}
        for name, value in parse_qsl(
            request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True
        ):
            fields.setdefault(name, []).append(value)
        return _Form(fields, [])
    by_django, by_email = _by_django(request), _by_email(request)
    assert by_django == by_email
    return by_django


def _by_django(request: RenderedRequest) -> _Form:
    if not settings.configured:
        settings.configure()
    meta = {
        "CONTENT_TYPE": request.headers["Content-Type"],
        "CONTENT_LENGTH": str(len(request.body)),
    }
    handler = MemoryFileUploadHandler()
    post, files = MultiPartParser(meta, BytesIO(request.body), [handler], "utf-8").parse()
    return _Form(
        {name: post.getlist(name) for name in post},
        sorted(
            (name, one.name, one.content_type, one.read())
            for name in files
            for one in files.getlist(name)
        ),
    )


def _by_email(request: RenderedRequest) -> _Form:
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    message = message_from_bytes(head + request.body)
    assert not message.defects
    fields: dict[str, list[str]] = {}
    files = []
    for part in message.get_payload():
        assert not part.defects
        disposition = _disposition(part)
        name = str(disposition.get_param("name", header="content-disposition"))
        content, filename = part.get_payload(decode=True), disposition.get_filename()
        if filename is None:
            fields.setdefault(name, []).append(content.decode())
        else:
            files.append((name, filename, part.get_content_type(), content))
    return _Form(fields, sorted(files))


def _disposition(part: Message) -> Message:
    """Its Content-Disposition alone, in UTF-8 as browsers write it: the package keeps bytes beyond
    ASCII as surrogates."""
    alone = Message()
    for name, value in part.raw_items():
        if name.lower() == "content-disposition":
            alone[name] = value.encode("ascii", "surrogateescape").decode()
    return alone


def _mailboxes(line: str) -> list[Mailbox]:
    return getaddresses([line]) if line else []


_READERS: Mapping[str, Callable[[RenderedRequest], list[Seen]]] = {
    "maxmd": _maxmd,
    "sparkpost": _sparkpost,
    "mailgun": _mailgun,
}
