"""SparkPost: the body of a transmission, and what it can make of a neutral e-mail.

::

    {"recipients": [{"address": "a@b" | {"email", "name"?, "header_to"?}, "substitution_data"?,
                     "metadata"?, "tags"?, "return_path"?}] | {"list_id": "…"},
     "content": {"from", "subject", "html"?, "text"?, "reply_to"?, "headers"?, "attachments"?:
                 [{"name", "type", "data": "<base64>"}]} | {"template_id"} | {"email_rfc822"},
     "options"?, "campaign_id"?, "description"?, "metadata"?, "substitution_data"?, "return_path"?}

Further fields are passed through, unless they look like one of these misspelt. Limits: the
Transmissions API's reference; it refuses a recipient of many without saying which, so that every
address is looked at here.
"""

from __future__ import annotations

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
    line,
    object_,
    path,
    size,
    text,
)
from paceline.schemas.fields import loose_address as address

__all__ = [
    "ADVISED_BYTES",
    "CONTENT_BYTES",
    "RESERVED",
    "check_native",
    "check_neutral",
    "check_sizes",
]

CONTENT_BYTES = 20 * 1024**2
#: A message is best below this.
ADVISED_BYTES = 100 * 1024
_METADATA_BYTES, _SUBSTITUTION_BYTES = 10 * 1024, 100 * 1024
_CAMPAIGN_BYTES, _DESCRIPTION_BYTES = 64, 1024
_FIELDS = ("options", "campaign_id", "description", "metadata", "substitution_data", "return_path")
_RECIPIENT = ("address", "substitution_data", "metadata", "tags", "return_path")
_CONTENT = ("from", "subject", "html", "text", "amp_html", "reply_to", "headers", "attachments")
# Where the content comes from elsewhere, the rest of it is the other's to know.
_ELSEWHERE = ("template_id", "ab_test_id", "email_rfc822")
_LIMITS = {"metadata": _METADATA_BYTES, "substitution_data": _SUBSTITUTION_BYTES}
#: Words of SparkPost's template language, which it would not take for a name.
RESERVED = frozenset(
    ("if", "elseif", "else", "end", "each", "and", "or", "not", "in", "null", "true", "false")
)
_PARTS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def check_native(document: Any) -> None:
    """Raises PayloadError where SparkPost could make nothing of it. Sizes: `check_sizes`."""
    it = object_("payload", document)
    keys("payload", it, ("recipients", "content"), _FIELDS)
    recipients = it["recipients"]
    if isinstance(recipients, dict):
        keys("payload.recipients", recipients, ("list_id",))
        text("payload.recipients.list_id", recipients["list_id"])
    else:
        if not array("payload.recipients", recipients):
            raise PayloadError("payload.recipients", "empty", "Name at least one recipient")
        for index, item in enumerate(recipients):
            _recipient(f"payload.recipients[{index}]", item)
    _content("payload.content", object_("payload.content", it["content"]))
    for name, most in (("campaign_id", _CAMPAIGN_BYTES), ("description", _DESCRIPTION_BYTES)):
        if name in it:
            value = line(f"payload.{name}", it[name])
            size(f"payload.{name}", len(value.encode()), most, "that SparkPost takes")
    if it.get("return_path") is not None:
        address("payload.return_path", it["return_path"])


def check_sizes(payload: bytes) -> None:
    """The limits of a native body's parts, by their JSON. Cheap for a small payload."""
    if len(payload) <= _METADATA_BYTES:
        return
    parts = _PARTS.decode(payload)
    for name, most in _LIMITS.items():
        if name in parts:
            size(f"payload.{name}", len(bytes(parts[name])), most, "that SparkPost takes")
    if len(payload) > CONTENT_BYTES and "content" in parts:
        content = len(bytes(parts["content"]))
        size("payload.content", content, CONTENT_BYTES, "(20 MB) that SparkPost takes")


def check_neutral(email: Email) -> None:
    """Refuses what SparkPost cannot express."""
    at = "payload.email"
    bodies = (email.text or "", email.html or "", *(one.content for one in email.attachments))
    content = sum(len(body.encode()) for body in bodies)
    size(at, content, CONTENT_BYTES, "of content (20 MB) that SparkPost takes")
    for name in email.substitution:
        if name.lower() in RESERVED:
            raise PayloadError(
                f"{at}.substitution.{name}",
                "is a word of SparkPost's template language",
                "Choose another name",
            )
    for name, most in (("substitution", _SUBSTITUTION_BYTES), ("metadata", _METADATA_BYTES)):
        values = getattr(email, name)
        if values:
            size(f"{at}.{name}", len(msgspec.json.encode(values)), most, "that SparkPost takes")
    if email.template is not None:
        for name in ("subject", "reply_to", "headers", "attachments", "cc"):
            if getattr(email, name):
                raise PayloadError(
                    f"{at}.{name}",
                    "beside template: SparkPost takes it from the template alone",
                    "Leave it out, or put it into the template",
                )


def _recipient(at: str, item: Any) -> None:
    it = object_(at, item)
    if "multichannel_addresses" in it:
        return
    keys(at, it, ("address",), _RECIPIENT[1:])
    where = it["address"]
    if isinstance(where, dict):
        keys(f"{at}.address", where, ("email",), ("name", "header_to"))
        address(f"{at}.address.email", where["email"])
        for name in ("name", "header_to"):
            if where.get(name) is not None:
                line(f"{at}.address.{name}", where[name])
    else:
        address(f"{at}.address", where)
    if it.get("return_path") is not None:
        address(f"{at}.return_path", it["return_path"])


def _content(at: str, it: dict[str, Any]) -> None:
    if any(name in it for name in _ELSEWHERE):
        return
    keys(at, it, ("from", "subject"), (*_CONTENT[2:], *_ELSEWHERE))
    sender = it["from"]
    if isinstance(sender, dict):
        keys(f"{at}.from", sender, ("email",), ("name",))
        address(f"{at}.from.email", sender["email"])
        if sender.get("name") is not None:
            line(f"{at}.from.name", sender["name"])
    else:
        address(f"{at}.from", sender)
    line(f"{at}.subject", it["subject"])
    bodies = [name for name in ("html", "text", "amp_html") if it.get(name) is not None]
    if not bodies:
        raise PayloadError(f"{at}.text", "missing, and so is html", "Give one of them, or both")
    for name in bodies:
        text(f"{at}.{name}", it[name])
    if it.get("reply_to") is not None:
        line(f"{at}.reply_to", it["reply_to"])
    if it.get("headers") is not None:
        for name, value in object_(f"{at}.headers", it["headers"]).items():
            here = path(f"{at}.headers", name)
            header_name(here, name)
            line(here, value)
    for kind in ("attachments", "inline_images"):
        for index, item in enumerate(array(f"{at}.{kind}", it.get(kind) or [])):
            here = f"{at}.{kind}[{index}]"
            keys(here, object_(here, item), ("name", "type", "data"))
            line(f"{here}.name", item["name"])
            content_type(f"{here}.type", item["type"])
            base64(f"{here}.data", item["data"])
