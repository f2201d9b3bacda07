"""The neutral e-mail payload: one form of a message that every mail profile can render.

::

    {"email": {
        "from": ADDRESS, "to": [ADDRESS, …], "cc": […], "bcc": […], "reply_to": ADDRESS,
        "subject": "…", "text": "…", "html": "…", "headers": {"X-Name": "value"},
        "attachments": [{"filename": "…", "content_type": "…", "content": "<base64>",
                         "content_id": "…"}],
        "substitution": {"name": "value"},
        "template": "…", "tags": ["…"], "metadata": {"name": "value"}}}

ADDRESS is "a@b.example", "Name <a@b.example>" or {"email": "a@b.example", "name": "Name"}. Needed
are `from`, one `to`, and either `subject` with `text` or `html`, or the id of a `template` that the
provider keeps. `email` stands alone in the payload: a native body is never mistaken for it.

`{{name}}` in subject, text and html stands for the value of that name in `substitution`; in html it
is escaped. Every placeholder must have a value: providers would put nothing there, and send it.

Checked more strictly than a provider's own body: the same message must mean the same everywhere,
and SparkPost does not say which recipient of many it refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

from paceline.errors import PayloadError
from paceline.schemas.fields import (
    array,
    base64,
    content_type,
    header_name,
    keys,
    kind,
    line,
    object_,
    path,
    text,
)

__all__ = [
    "PLACEHOLDER",
    "Address",
    "Attachment",
    "Email",
    "address",
    "is_neutral",
    "parse",
    "rendered",
    "replaced",
]

_FIELDS = (
    *("from", "to", "cc", "bcc", "reply_to", "subject", "text", "html", "headers"),
    *("attachments", "substitution", "template", "tags", "metadata"),
)
# RFC 5321 §4.5.3.1: local part 64, path 256 with its brackets. No quoted local parts and no UTF-8:
# providers do not take them; no braces, which SparkPost would take for a placeholder.
_ADDRESS = re.compile(
    r"(?=[^@]{1,64}@)[A-Za-z0-9!#$%&'*+/=?^_`|~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`|~-]+)*@"
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
# A header's line has no more (RFC 5322 §2.1.1); and what is longer is not looked at for minutes.
_LONGEST = 998
_NAMED = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^"<>]*?))\s*<([^<>]*)>\s*')
_ATOMS = re.compile(r"[A-Za-z0-9 !#$%&'*+/=?^_`{|}~-]+")
_NAME = re.compile(r"(?!.*__)[A-Za-z][A-Za-z0-9_]{0,63}")
#: Its group is the name.
PLACEHOLDER = re.compile(r"(?<!\{)\{\{\s*([A-Za-z][A-Za-z0-9_]*)\s*\}\}")
# Made from the other fields, or the transport's own.
_FORBIDDEN = frozenset(
    (
        *("from", "to", "cc", "bcc", "reply-to", "subject", "sender", "return-path", "received"),
        *("content-type", "content-transfer-encoding", "content-disposition", "content-id"),
        *("mime-version", "dkim-signature", "x-msys-api"),
    )
)


class Address(NamedTuple):
    """A mailbox; `str` writes it for a header."""

    email: str
    name: str = ""

    def __str__(self) -> str:
        if not self.name:
            return self.email
        if _ATOMS.fullmatch(self.name):
            return f"{self.name} <{self.email}>"
        quoted = self.name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}" <{self.email}>'


class Attachment(NamedTuple):
    """`content` is base64, as it came in; `content_id` "" but for an inline one."""

    filename: str
    content_type: str
    content: str
    content_id: str


class Email(NamedTuple):
    """A checked message; of what was left out `subject`, `text`, `html` and `template` are None."""

    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    reply_to: Address | None
    subject: str | None
    text: str | None
    html: str | None
    headers: Mapping[str, str]
    attachments: tuple[Attachment, ...]
    substitution: Mapping[str, str]
    template: str | None
    tags: tuple[str, ...]
    metadata: Mapping[str, str]


def is_neutral(document: Any) -> bool:
    """Whether the payload means to be a neutral one."""
    return isinstance(document, dict) and "email" in document


def parse(document: Mapping[str, Any]) -> Email:
    """The message of a neutral payload, whole and checked. Raises PayloadError."""
    for key in document:
        if key != "email":
            raise PayloadError(
                path("payload", key),
                "beside email, which stands alone",
                "Write all of the message inside email, or all of it in the provider's own form",
            )
    at = "payload.email"
    it = object_(at, document["email"])
    keys(at, it, ("from", "to"), _FIELDS[2:], strict=True)
    recipients = {
        name: tuple(_addresses(f"{at}.{name}", it[name])) if name in it else ()
        for name in ("to", "cc", "bcc")
    }
    if not recipients["to"]:
        raise PayloadError(f"{at}.to", "empty", "Name at least one recipient")
    _no_duplicates(at, recipients)
    email = Email(
        sender=address(f"{at}.from", it["from"]),
        to=recipients["to"],
        cc=recipients["cc"],
        bcc=recipients["bcc"],
        reply_to=address(f"{at}.reply_to", it["reply_to"]) if "reply_to" in it else None,
        subject=line(f"{at}.subject", it["subject"]) if "subject" in it else None,
        text=text(f"{at}.text", it["text"]) if "text" in it else None,
        html=text(f"{at}.html", it["html"]) if "html" in it else None,
        headers=_headers(f"{at}.headers", it["headers"]) if "headers" in it else {},
        attachments=_attachments(f"{at}.attachments", it["attachments"])
        if "attachments" in it
        else (),
        substitution=_named(f"{at}.substitution", it["substitution"])
        if "substitution" in it
        else {},
        template=_word(f"{at}.template", it["template"]) if "template" in it else None,
        tags=_tags(f"{at}.tags", it["tags"]) if "tags" in it else (),
        metadata=_named(f"{at}.metadata", it["metadata"]) if "metadata" in it else {},
    )
    _content(at, email)
    return email


def address(at: str, value: Any) -> Address:
    """One mailbox in any of its three forms."""
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise PayloadError(at, f"{len(value)} characters", f"At most {_LONGEST}")
        if _ADDRESS.fullmatch(value):
            return Address(value)
        line(at, value)
        named = _NAMED.fullmatch(value)
        email, name = value, ""
        if named is not None:
            quoted, plain, email = named.groups()
            name = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
    elif isinstance(value, dict):
        keys(at, value, ("email",), ("name",), strict=True)
        email = line(f"{at}.email", value["email"])
        name = line(f"{at}.name", value.get("name", ""))
    else:
        mend = 'Write "a@b.example", "Name <a@b.example>" or {"email": "…", "name": "…"}'
        raise PayloadError(at, f"{kind(value)} where an address is needed", mend)
    if not _ADDRESS.fullmatch(email):
        raise PayloadError(at, "no mail address", _address_mend(email))
    return Address(email, name)


def replaced(template: str, value_of: Callable[[str], str]) -> str:
    """The text with each placeholder replaced by what `value_of` says of its name."""
    if "{{" not in template:
        return template
    return PLACEHOLDER.sub(lambda match: value_of(match[1]), template)


def rendered(email: Email) -> tuple[str, str | None, str | None]:
    """Subject, text and html with the values put in; in html they are escaped."""
    values = email.substitution

    def plain(name: str) -> str:
        return values[name]

    return (
        replaced(email.subject or "", plain),
        None if email.text is None else replaced(email.text, plain),
        None if email.html is None else replaced(email.html, lambda name: escape(values[name])),
    )


def _address_mend(email: str) -> str:
    if not email.isascii():
        return "Write the domain in its xn-- form; a local part outside ASCII cannot be sent to"
    if "," in email or ";" in email:
        return "One address an entry: they are the elements of an array"
    return ""


def _addresses(at: str, value: Any) -> Iterator[Address]:
    for index, item in enumerate(array(at, value)):
        yield address(f"{at}[{index}]", item)


def _no_duplicates(at: str, recipients: Mapping[str, tuple[Address, ...]]) -> None:
    if sum(map(len, recipients.values())) == 1:
        return
    seen: dict[str, str] = {}
    for name, addresses in recipients.items():
        for index, one in enumerate(addresses):
            here = f"{at}.{name}[{index}]"
            before = seen.setdefault(one.email.lower(), here)
            if before is not here:
                raise PayloadError(here, f"is the same recipient as {before}", "Name it once")


def _headers(at: str, value: Any) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    seen: set[str] = set()
    for name, content in object_(at, value).items():
        here = path(at, name)
        lower = header_name(here, name).lower()
        if lower in _FORBIDDEN or lower.startswith(("x-mailgun-", "resent-")):
            raise PayloadError(
                here, "is not set by hand", "Use the field of the message, or leave it out"
            )
        if lower in seen:
            raise PayloadError(here, "is there twice", "Names of headers have no case")
        seen.add(lower)
        headers[name] = line(here, content)
    return headers


def _attachments(at: str, value: Any) -> tuple[Attachment, ...]:
    found = []
    for index, item in enumerate(array(at, value)):
        here = f"{at}[{index}]"
        it = object_(here, item)
        keys(here, it, ("filename", "content_type", "content"), ("content_id",), strict=True)
        base64(f"{here}.content", it["content"])
        found.append(
            Attachment(
                _word(f"{here}.filename", it["filename"]),
                content_type(f"{here}.content_type", it["content_type"]),
                it["content"],
                _word(f"{here}.content_id", it["content_id"]) if "content_id" in it else "",
            )
        )
    return tuple(found)


def _named(at: str, value: Any) -> Mapping[str, str]:
    """Names with their values. Whole numbers are written as text, the same everywhere."""
    found: dict[str, str] = {}
    for name, content in object_(at, value).items():
        here = path(at, name)
        if not _NAME.fullmatch(name):
            raise PayloadError(
                here,
                "is no name",
                "A letter, then letters, digits and single underscores, 64 at most",
            )
        if isinstance(content, int) and not isinstance(content, bool):
            content = str(content)
        elif not isinstance(content, str):
            raise PayloadError(
                here,
                f"{kind(content)} where a string or a whole number is needed",
                "Write it as a string: providers would each write it in their own way",
            )
        if "\0" in content:
            raise PayloadError(here, "holds a NUL character")
        found[name] = content
    return found


def _tags(at: str, value: Any) -> tuple[str, ...]:
    tags = tuple(_word(f"{at}[{index}]", tag) for index, tag in enumerate(array(at, value)))
    if len(tags) > 10:
        raise PayloadError(at, f"{len(tags)} tags", "At most 10: providers keep no more")
    return tags


def _word(at: str, value: Any) -> str:
    if not line(at, value):
        raise PayloadError(at, "empty")
    return str(value)


def _content(at: str, email: Email) -> None:
    if email.template is not None:
        for name in ("text", "html"):
            if getattr(email, name) is not None:
                raise PayloadError(f"{at}.{name}", "beside template, which has its own")
    else:
        if email.subject is None:
            raise PayloadError(f"{at}.subject", "missing")
        if email.text is None and email.html is None:
            raise PayloadError(f"{at}.text", "missing, and so is html", "Give one of them, or both")
    _placeholders(at, email)


def _placeholders(at: str, email: Email) -> None:
    """Each has its value; and where none is replaced, nothing looks like one."""
    for name in ("subject", "text", "html"):
        content = getattr(email, name)
        if content is None or "{{" not in content:
            continue
        here = f"{at}.{name}"
        for match in PLACEHOLDER.finditer(content):
            if match[1] not in email.substitution:
                raise PayloadError(
                    here,
                    f"the placeholder {match[0]} has no value",
                    f"Give substitution.{match[1]}",
                )
            if name == "subject":
                line(f"{at}.substitution.{match[1]}", email.substitution[match[1]])
        if "{{" in PLACEHOLDER.sub("", content):
            raise PayloadError(
                here, "holds {{ that begins no placeholder", "Write {{name}}, or a single brace"
            )
    named = (
        ("from", email.sender.name),
        ("reply_to", email.reply_to.name if email.reply_to else ""),
        *((f"to[{i}]", one.name) for i, one in enumerate(email.to)),
        *((f"cc[{i}]", one.name) for i, one in enumerate(email.cc)),
        *((f"headers.{key}", value) for key, value in email.headers.items()),
    )
    for name, content in named:
        if "{{" in content:
            raise PayloadError(
                f"{at}.{name}",
                "holds {{: placeholders are replaced in subject, text and html only",
            )
