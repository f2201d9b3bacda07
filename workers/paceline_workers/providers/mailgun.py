"""Mailgun: a form for one message, or for up to a thousand with `recipient-variables`.

A native payload holds the form's fields; a neutral one is rendered. With files the form is
multipart; a native payload that holds `message` is a whole MIME message and goes to
`/messages.mime`. There is no idempotency key: what was ambiguous may arrive twice, and a merged
request that was is parked.

Merged, the messages' recipients stand in `to`, and `recipient-variables` names every one of them:
without it each would see all the others. The values of a message alone are put in here.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from types import MappingProxyType
from typing import Any

import msgspec

from paceline.backoff import RetryPolicy
from paceline.payloads import read
from paceline.schemas.email import Email, rendered, replaced
from paceline_workers.outcome import RETRY_AFTER_CAP_S, Kind, Outcome, Reply, http_date
from paceline_workers.providers.base import Portion, RenderedRequest
from paceline_workers.providers.form import (
    FORM,
    Field,
    File,
    boundary_of,
    escaped,
    multipart,
    piece,
    urlencoded,
)
from paceline_workers.providers.mailgun_table import LARGE_BATCHES, TABLE
from paceline_workers.providers.neutral import NEUTRAL, Peeler, texts
from paceline_workers.providers.table import Row, Table

__all__ = ["TABLE", "Mailgun"]

# "… limit exceeded, try again after Mon, 20 Dec 2021 20:33:21 UTC"
_UNTIL = re.compile(
    r"try again after (?P<day>[a-z]{3}, \d{1,2} [a-z]{3} \d{4} [\d:]{8}) (?:UTC|GMT|[+-]0000)",
    re.ASCII | re.IGNORECASE,
)
# What the shared form is, as its first piece; "-html" where the values are needed escaped too.
_FORM, _MULTIPART, _HTML = b"form", b"multipart", b"-html"
#: Between the two halves of a portion: in `to`, and in `recipient-variables`. Neither can hold it.
_BETWEEN = b"\0"
_MIME = ".mime"
_BYTES = "application/octet-stream"


class Mailgun:
    """The profile. `headers` hold the key and are revealed; `repr` does not show them."""

    name = "mailgun"

    def __init__(
        self,
        *,
        policy: RetryPolicy,
        headers: Mapping[str, str] = MappingProxyType({}),
        id_header: str = "",
        max_payload_bytes: int | None = None,
        table: Sequence[Row] = TABLE,
    ) -> None:
        self.policy = policy
        # The form's own kind is told with each body.
        self._headers = {k: v for k, v in headers.items() if k.lower() != "content-type"}
        self._id_header = id_header
        self._max_payload_bytes = max_payload_bytes
        self._table = Table(table)
        # Tags and metadata are of the call.
        self._peeler = Peeler("mailgun", _shared, shared_metadata=True)

    def __repr__(self) -> str:
        return "Mailgun()"

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:
        """The request for one message. Raises PayloadError (also MessageTooLarge)."""
        found = read("mailgun", payload, max_payload_bytes=self._max_payload_bytes)
        if isinstance(found, Email):
            fields = list(_neutral_fields(found))
            return self.render_merged(message_id, _form(fields, _neutral_files(found)))
        request = self.render_merged(message_id, _form(*_native(found)))
        return replace(request, suffix=_MIME) if "message" in found else request

    def render_merged(self, request_id: str, body: bytes) -> RenderedRequest:
        """The request from its body, which tells by itself what kind of form it is."""
        headers = self._headers.copy()
        boundary = boundary_of(body)
        headers["Content-Type"] = (
            FORM if boundary is None else f"multipart/form-data; boundary={boundary}"
        )
        if self._id_header:
            headers[self._id_header] = request_id
        return RenderedRequest("POST", headers, body)

    def portion(self, payload: bytes) -> Portion | None:
        """The recipient with its values, and the form around them. Of neutral payloads to one
        recipient only: of a form of its own it is not known what may be changed."""
        if not payload.startswith(NEUTRAL):
            return None
        member = self._peeler.peel(payload)
        if member is None:
            return None
        values = dict(texts(member.values))
        if member.shared[0].endswith(_HTML):
            values.update({f"{name}__html": escape(value) for name, value in values.items()})
        email = msgspec.json.encode(member.to.email).decode()
        to, variables = str(member.to), f"{email}:{msgspec.json.encode(values).decode()}"
        if member.shared[0].startswith(_FORM):
            to, variables = f"to={escaped(to)}", escaped(variables)
        return Portion(
            member.shared,
            to.encode() + _BETWEEN + variables.encode(),
            apart=member.to.email.lower().encode(),
        )

    def join(self, shared: tuple[bytes, ...], parts: Sequence[bytes]) -> bytes:
        """The form to all of them. No two may be to the same address (`Portion.apart`)."""
        halves = [part.split(_BETWEEN) for part in parts]
        if shared[0].startswith(_FORM):
            to = b"&".join([half[0] for half in halves])
            variables = b"%2C".join([half[1] for half in halves])
            return b"".join((shared[1], b"&", to, b"&recipient-variables=%7B", variables, b"%7D"))
        pieces = list(shared[1:])
        pieces += (piece(("to", half[0].decode())) for half in halves)
        entries = b",".join([half[1] for half in halves]).decode()
        pieces.append(piece(("recipient-variables", "{" + entries + "}")))
        return multipart(pieces)

    def judge(self, reply: Reply, now: float) -> Outcome:
        """By its status, and for 2xx, 403 and 429 by its body."""
        body = _decoded(reply)
        message = body.get("message") if isinstance(body, dict) else None
        words = message if isinstance(message, str) else ""
        case, wait_s = "", None
        said_id = body.get("id") if isinstance(body, dict) else None
        known = isinstance(said_id, str) and said_id != ""
        if 200 <= reply.status < 300:
            outcome = self._table.judge(
                reply, "sent" if known else "unreadable", now, detail="" if known else words
            )
            return replace(outcome, provider_id=said_id) if outcome.kind is Kind.SENT else outcome
        if reply.status == 403 and LARGE_BATCHES in words.lower():
            case = LARGE_BATCHES
        elif reply.status == 429:
            wait_s = _wait_s(words, now, reply.header("date"))
            case = "" if wait_s is None else "until"
        outcome = self._table.judge(reply, case, now, detail=words, taken=known)
        if wait_s is not None and outcome.kind is Kind.THROTTLED:
            # Either is a minimum.
            return replace(outcome, retry_after_s=max(wait_s, outcome.retry_after_s or 0.0))
        return outcome

    def judge_merged(self, reply: Reply, now: float, count: int) -> Outcome:
        """As `judge`: one id for the call, and no word of its recipients."""
        del count
        return self.judge(reply, now)


def _decoded(reply: Reply) -> Any:
    if reply.truncated:
        return None
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _wait_s(words: str, now: float, date_header: str | None) -> float | None:
    """Seconds until the time that the words name, by the reply's own clock where it can be read;
    None where they name none."""
    found = _UNTIL.search(words)
    if found is None:
        return None
    weekday, day, rest = found["day"].split(" ", 2)
    until = http_date(f"{weekday} {day.zfill(2)} {rest} GMT", now)
    if until is None:
        return None
    said = http_date(date_header.strip(), now) if date_header else None
    return min(RETRY_AFTER_CAP_S, max(0.0, until - (now if said is None else said)))


def _form(fields: Sequence[Field], files: Sequence[File]) -> bytes:
    if files:
        return multipart([*map(piece, fields), *map(piece, files)])
    return urlencoded(fields)


# --- a native body ---


def _native(document: Mapping[str, Any]) -> tuple[list[Field], list[File]]:
    fields: list[Field] = []
    files: list[File] = []
    for name, value in document.items():
        if name in ("attachment", "inline"):
            files += (
                File(
                    name,
                    one["filename"],
                    one.get("content_type", _BYTES),
                    binascii.a2b_base64(one["content"]),
                )
                for one in value
            )
        elif name == "message":
            files.append(File("message", "message.mime", _BYTES, value.encode()))
        else:
            fields += (
                (name, _written(item)) for item in (value if isinstance(value, list) else [value])
            )
    return fields, files


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# --- a neutral e-mail as a form ---


def _neutral_fields(email: Email) -> Iterator[Field]:
    """Of a message alone: its values are put in."""
    yield from _common(email)
    for name in ("to", "cc", "bcc"):
        addresses = getattr(email, name)
        if addresses:
            yield name, ", ".join(map(str, addresses))
    if email.template is not None:
        yield "template", email.template
        if email.subject is not None:
            yield "subject", rendered(email)[0]
        if email.substitution:
            yield "t:variables", msgspec.json.encode(email.substitution).decode()
        return
    subject, text, html = rendered(email)
    yield from _texts(subject, text, html)


def _shared(email: Email) -> tuple[bytes, ...] | None:
    """What messages to one recipient each have in common. A template's variables are of the call:
    messages by one go alone."""
    if email.template is not None:
        return None

    def plain(name: str) -> str:
        return f"%recipient.{name}%"

    def html(name: str) -> str:
        return f"%recipient.{name}__html%"

    fields = [
        *_common(email),
        *_texts(
            replaced(email.subject or "", plain),
            None if email.text is None else replaced(email.text, plain),
            None if email.html is None else replaced(email.html, html),
        ),
    ]
    escaped_too = _HTML if email.html is not None and "{{" in email.html else b""
    files = _neutral_files(email)
    if files:
        return _MULTIPART + escaped_too, *map(piece, fields), *map(piece, files)
    return _FORM + escaped_too, urlencoded(fields)


def _texts(subject: str, text: str | None, html: str | None) -> Iterator[Field]:
    yield "subject", subject
    if text is not None:
        yield "text", text
    if html is not None:
        yield "html", html


def _common(email: Email) -> Iterator[Field]:
    yield "from", str(email.sender)
    if email.reply_to is not None:
        yield "h:Reply-To", str(email.reply_to)
    for name, value in email.headers.items():
        yield f"h:{name}", value
    for tag in email.tags:
        yield "o:tag", tag
    for name, value in email.metadata.items():
        yield f"v:{name}", value


def _neutral_files(email: Email) -> list[File]:
    return [
        File(
            "inline" if one.content_id else "attachment",
            # What a cid: names is the file's name.
            one.content_id or one.filename,
            one.content_type,
            binascii.a2b_base64(one.content),
        )
        for one in email.attachments
    ]
