"""Mailgun: the fields of its form as a JSON object, and what it can make of a neutral e-mail.

::

    {"from": "…", "to": "…" | ["…"], "cc"?, "bcc"?, "subject", "text"?, "html"?, "template"?,
     "t:variables"?, "o:NAME"?, "h:X-NAME"?, "v:NAME"?, "recipient-variables"?: {…},
     "attachment"?: [{"filename": "…", "content_type"?: "…", "content": "<base64>"}],
     "inline"?: […], "message"?: "<a whole MIME message, sent as /messages.mime>"}

A value is a string, a number, true or false ("yes" or "no"), an array of these (the field is
repeated), or an object (its JSON). Further fields are passed through, unless they look like one of
these misspelt.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from paceline.errors import PayloadError
from paceline.schemas.email import Email
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
    size,
    text,
)
from paceline.schemas.fields import loose_address as address

__all__ = [
    "MESSAGE_BYTES",
    "OPTION_BYTES",
    "RECIPIENTS",
    "check_native",
    "check_neutral",
    "check_sizes",
]

MESSAGE_BYTES = 25 * 1024**2
#: Of the parameters o:, h: and v: together.
OPTION_BYTES = 16 * 1024
RECIPIENTS = 1000
_KNOWN = (
    *("from", "to", "cc", "bcc", "subject", "text", "html", "amp-html", "template", "message"),
    *("t:variables", "t:version", "t:text", "recipient-variables", "attachment", "inline"),
)
_ADDRESSES = ("to", "cc", "bcc")
_FILES = ("attachment", "inline")
_OPTION = re.compile(r"[ohv]:.")
_PLACEHOLDER = re.compile(r"%recipient[.%]")


def check_native(document: Any) -> None:
    """Raises PayloadError where Mailgun could make nothing of it."""
    it = object_("payload", document)
    whole = "message" in it
    keys("payload", it, ("to", "message") if whole else ("from", "to"), _KNOWN)
    if whole:
        text("payload.message", it["message"])
    elif not any(it.get(name) for name in ("text", "html", "amp-html", "template")):
        raise PayloadError("payload.text", "missing, and so are html and template")
    count = options = 0
    for name, value in it.items():
        at = path("payload", name)
        if name in _FILES:
            _files(at, value)
            continue
        items = value if isinstance(value, list) else [value]
        for index, item in enumerate(items):
            here = f"{at}[{index}]" if isinstance(value, list) else at
            if name == "from":
                line(here, address(here, item))
            elif name in _ADDRESSES:
                count += _mailboxes(here, item)
            elif name == "subject" or name.startswith("h:"):
                line(here, item)
            elif isinstance(item, list) or item is None:
                raise PayloadError(here, f"{kind(item)} where a string is needed")
        if _OPTION.match(name):
            header_name(at, name[2:])
            options += sum(len(name) + len(_written(item)) for item in items)
    if it["to"] == []:
        raise PayloadError("payload.to", "empty", "Name at least one recipient")
    if count > RECIPIENTS:
        raise PayloadError("payload.to", f"{count} recipients", f"At most {RECIPIENTS} in a call")
    size("payload", options, OPTION_BYTES, "(16 kB) that o:, h: and v: may have together")


def check_neutral(email: Email) -> None:
    """Refuses what Mailgun cannot express, or would take for something else."""
    at = "payload.email"
    count = len(email.to) + len(email.cc) + len(email.bcc)
    if count > RECIPIENTS:
        raise PayloadError(f"{at}.to", f"{count} recipients", f"At most {RECIPIENTS} in a call")
    for name in ("subject", "text", "html"):
        content = getattr(email, name)
        if content is not None and "%recipient" in content and _PLACEHOLDER.search(content):
            raise PayloadError(
                f"{at}.{name}", "holds %recipient, which is Mailgun's own", "Write {{name}}"
            )
    options = sum(len("h:") + len(k) + len(v.encode()) for k, v in email.headers.items())
    options += sum(len("v:") + len(k) + len(v.encode()) for k, v in email.metadata.items())
    options += sum(len("o:tag") + len(tag.encode()) for tag in email.tags)
    size(at, options, OPTION_BYTES, "(16 kB) that headers, metadata and tags may have together")


def check_sizes(payload: bytes) -> None:
    """The whole message, attachments as they are on the wire."""
    size("payload", len(payload), MESSAGE_BYTES * 4 // 3, "(25 MB) that Mailgun takes")


def _mailboxes(at: str, item: Any) -> int:
    """How many mailboxes the string names; Mailgun takes several with commas between them."""
    address_list = line(at, item)
    parts = [part for part in address_list.split(",") if "@" in part]
    if len(parts) <= 1:
        address(at, item)
    return max(1, len(parts))


def _files(at: str, value: Any) -> None:
    for index, item in enumerate(array(at, value)):
        here = f"{at}[{index}]"
        it = object_(here, item)
        keys(here, it, ("filename", "content"), ("content_type",), strict=True)
        if not line(f"{here}.filename", it["filename"]):
            raise PayloadError(f"{here}.filename", "empty")
        if "content_type" in it:
            content_type(f"{here}.content_type", it["content_type"])
        base64(f"{here}.content", it["content"])


def _written(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)
