"""MaxMD: one message as its API takes it, **without** the credentials around it.

::

    {"sender": "a@direct.example", "recipients": [{"email": "b@…", "type": "TO|CC|BCC"}],
     "subject": "…", "body": "…", "htmlBody"?: bool, "replyTo"?: "…",
     "attachmentList"?: [{"filename": "…", "contentType": "…", "content": "<base64>"}]}

Further fields are passed through, unless they look like one of these misspelt.
"""

from __future__ import annotations

from typing import Any

from paceline.errors import PayloadError
from paceline.schemas.email import Email
from paceline.schemas.fields import array, base64, content_type, keys, line, object_, text
from paceline.schemas.fields import loose_address as address

__all__ = ["check_native", "check_neutral"]

_REQUIRED = ("sender", "recipients", "subject", "body")
_OPTIONAL = ("htmlBody", "replyTo", "attachmentList")
_RECIPIENT_TYPES = ("TO", "CC", "BCC")


def check_native(document: Any) -> None:
    """Raises PayloadError where MaxMD could make nothing of it."""
    message = object_("payload", document)
    if "authentication" in message:
        raise PayloadError(
            "payload.authentication",
            "credentials do not belong in a message: secrets never enter Redis",
            "Leave it out; the worker puts in username and password of the destination",
        )
    if "message" in message and "sender" not in message:
        raise PayloadError(
            "payload.message",
            "the message is wrapped once too often",
            'Send what is inside "message"; the worker wraps it',
        )
    keys("payload", message, _REQUIRED, _OPTIONAL)
    address("payload.sender", message["sender"])
    recipients = array("payload.recipients", message["recipients"])
    if not recipients:
        raise PayloadError("payload.recipients", "empty", "Name at least one recipient")
    for index, item in enumerate(recipients):
        at = f"payload.recipients[{index}]"
        if isinstance(item, str):
            raise PayloadError(
                at, "a plain string", 'Write {"email": "…", "type": "TO"} (or CC, BCC)'
            )
        recipient = object_(at, item)
        keys(at, recipient, ("email", "type"))
        address(f"{at}.email", recipient["email"])
        if recipient["type"] not in _RECIPIENT_TYPES:
            raise PayloadError(f"{at}.type", "none of TO, CC, BCC", "Mind the capitals")
    line("payload.subject", message["subject"])
    text("payload.body", message["body"])
    if not isinstance(message.get("htmlBody", False), bool):
        raise PayloadError("payload.htmlBody", "not true or false")
    if "replyTo" in message:
        address("payload.replyTo", message["replyTo"])
    attachments = array("payload.attachmentList", message.get("attachmentList", []))
    for index, item in enumerate(attachments):
        at = f"payload.attachmentList[{index}]"
        attachment = object_(at, item)
        keys(at, attachment, ("filename", "contentType", "content"))
        if not line(f"{at}.filename", attachment["filename"]):
            raise PayloadError(f"{at}.filename", "empty")
        content_type(f"{at}.contentType", attachment["contentType"])
        base64(f"{at}.content", attachment["content"])


def check_neutral(email: Email) -> None:
    """Refuses what its reader would miss: the API has no field for it. Tags, metadata, display
    names and the text beside an html are left out without harm."""
    at = "payload.email"
    for name in ("headers", "template"):
        if getattr(email, name):
            raise PayloadError(f"{at}.{name}", "MaxMD's API has nothing like it", "Leave it out")
    for index, one in enumerate(email.attachments):
        if one.content_id:
            raise PayloadError(
                f"{at}.attachments[{index}].content_id",
                "MaxMD's API has no inline attachments",
                "Leave it out: the file is attached",
            )
