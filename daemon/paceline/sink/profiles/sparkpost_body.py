"""The body of a SparkPost transmission: its shape, its limits, its recipients. Pure.

Source: the provider's Transmissions reference and its table of extended error codes. One thing is
stricter here on purpose: the provider ignores fields it does not know, the sink refuses them, for a
misspelt field would otherwise be found by nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from paceline.sink.addresses import code_wanted, is_address, mailboxes

MOST_RECIPIENTS = 10_000
MOST_BODY_BYTES = 300_000_000
MOST_CONTENT_BYTES = 20_000_000
_MOST_CAMPAIGN, _MOST_DESCRIPTION = 64, 1024
_MOST_METADATA, _MOST_SUBSTITUTION = 10_000, 100_000
# Made by the provider itself; the To header comes from each recipient.
_OWN_HEADERS = frozenset(
    ("subject", "from", "to", "reply-to", "content-type", "content-transfer-encoding")
)


class Refusal(Exception):
    """The whole transmission is refused: HTTP status, code, and what is wrong."""

    def __init__(self, status: int, code: str, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.code = code
        self.description = description


class Accounted(NamedTuple):
    """The addresses accepted, and (code, description) for each recipient refused."""

    accepted: list[str]
    refused: list[tuple[str, str]]


class _Address(msgspec.Struct, forbid_unknown_fields=True):
    email: str = ""
    name: str | None = None
    header_to: str | None = None


class _Recipient(msgspec.Struct, forbid_unknown_fields=True):
    address: str | _Address = ""
    substitution_data: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    tags: list[str] | None = None
    return_path: str | None = None


class _StoredList(msgspec.Struct, forbid_unknown_fields=True):
    list_id: str


class _From(msgspec.Struct, forbid_unknown_fields=True):
    email: str
    name: str | None = None


class _Attachment(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    type: str
    data: bytes  # base64 in JSON; msgspec refuses what does not decode


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    sender: str | _From | None = msgspec.field(name="from", default=None)
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    amp_html: str | None = None
    reply_to: str | None = None
    headers: dict[str, str] | None = None
    attachments: list[_Attachment] | None = None
    inline_images: list[_Attachment] | None = None
    template_id: str | None = None
    use_draft_template: bool | None = None
    email_rfc822: str | None = None
    ab_test_id: str | None = None


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    start_time: str | None = None
    open_tracking: bool | None = None
    initial_open: bool | None = None
    click_tracking: bool | None = None
    transactional: bool | None = None
    sandbox: bool | None = None
    skip_suppression: bool | None = None
    inline_css: bool | None = None
    perform_substitutions: bool | None = None
    ip_pool: str | None = None


class _Transmission(msgspec.Struct, forbid_unknown_fields=True):
    recipients: list[_Recipient] | _StoredList
    content: _Content
    options: _Options | None = None
    campaign_id: str | None = None
    description: str | None = None
    metadata: msgspec.Raw = msgspec.Raw()
    substitution_data: msgspec.Raw = msgspec.Raw()
    return_path: str | None = None


_decode: Callable[[bytes], _Transmission] = msgspec.json.Decoder(_Transmission).decode


def read(body: bytes, marker: str) -> Accounted:
    """Judge a body. Addresses that begin with ``marker`` are refused. Raises Refusal."""
    if len(body) > MOST_BODY_BYTES:
        raise Refusal(413, "", f"the body is over {MOST_BODY_BYTES} bytes")
    try:
        asked = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _unreadable(body, exc) from exc
    _check_content(asked.content)
    _check_length("campaign_id", asked.campaign_id, _MOST_CAMPAIGN)
    _check_length("description", asked.description, _MOST_DESCRIPTION)
    _check_object("metadata", asked.metadata, _MOST_METADATA, "1300")
    _check_object("substitution_data", asked.substitution_data, _MOST_SUBSTITUTION, "2002")
    if asked.return_path is not None and mailboxes(asked.return_path) is None:
        raise Refusal(422, "1300", "return_path must be an email address")
    if isinstance(asked.recipients, _StoredList):
        return Accounted([f"list {asked.recipients.list_id}"], [])
    return _account(asked.recipients, marker)


def _account(recipients: list[_Recipient], marker: str) -> Accounted:
    if not recipients:
        raise Refusal(422, "1400", "at least one recipient is required")
    if len(recipients) > MOST_RECIPIENTS:
        raise Refusal(422, "1300", f"at most {MOST_RECIPIENTS} recipients in one transmission")
    accepted: list[str] = []
    refused: list[tuple[str, str]] = []
    for recipient in recipients:
        address = recipient.address
        if isinstance(address, _Address):
            address = address.email
        if recipient.substitution_data:
            _check_object(
                "substitution_data", recipient.substitution_data, _MOST_SUBSTITUTION, "2002"
            )
        if recipient.metadata:
            _check_object("metadata", recipient.metadata, _MOST_METADATA, "1300")
        if not address:
            refused.append(("1400", "address.email is required for each recipient"))
        elif not is_address(address) or code_wanted(address, marker) is not None:
            refused.append(("1300", f"invalid email address '{address}'"))
        else:
            accepted.append(address)
    if not accepted:
        raise Refusal(400, "5002", "no valid recipients")
    return Accounted(accepted, refused)


def _check_content(content: _Content) -> None:
    written = (content.sender, content.subject, content.text, content.html, content.amp_html)
    bodies = (content.text, content.html, content.amp_html)
    if content.template_id is not None or content.ab_test_id is not None:
        # From, Reply-To, headers and attachments beside a template are ignored by the provider.
        if content.email_rfc822 is not None or any(
            part is not None for part in (content.subject, *bodies)
        ):
            raise Refusal(422, "1301", "Both content object and template_id are specified")
        return
    if content.email_rfc822 is not None:
        if any(part is not None for part in written):
            raise Refusal(422, "1301", "email_rfc822 excludes the other content fields")
        if ":" not in content.email_rfc822.partition("\n")[0]:
            raise Refusal(422, "3020", "email_rfc822 does not begin with a header")
        if len(content.email_rfc822) > MOST_CONTENT_BYTES:
            raise _content_too_long()
        return
    if content.sender is None or content.subject is None:
        raise Refusal(422, "1400", "content.from and content.subject are required")
    if all(part is None for part in bodies):
        raise Refusal(422, "1400", "at least one of content.html and content.text is required")
    sender = content.sender.email if isinstance(content.sender, _From) else content.sender
    # "{{…}}" is filled in later.
    if "{{" not in sender and mailboxes(sender) is None:
        raise Refusal(422, "1300", "content.from must be an email address")
    _check_header("subject", content.subject)
    for name, value in (content.headers or {}).items():
        if name.lower() in _OWN_HEADERS:
            raise Refusal(422, "3002", f"{name} must not be given among the headers")
        _check_header(name, value)
    files = (content.attachments or []) + (content.inline_images or [])
    for file in files:
        if not file.name or len(file.name.encode()) > 255:
            raise Refusal(422, "1300", "an attachment's name has 1 to 255 bytes")
    # Base64 is a third longer than what it carries; it is the text that counts.
    size = sum(len(part or "") for part in bodies) + sum(len(file.data) * 4 // 3 for file in files)
    if size > MOST_CONTENT_BYTES:
        raise _content_too_long()


def _content_too_long() -> Refusal:
    return Refusal(422, "1300", f"content is limited to {MOST_CONTENT_BYTES} bytes")


def _check_header(name: str, value: str) -> None:
    if not name.isascii() or any(sign in f"{name}{value}" for sign in "\r\n\0"):
        raise Refusal(422, "3002", f"invalid header {name!a}")


def _check_length(name: str, text: str | None, most: int) -> None:
    if text is not None and len(text.encode()) > most:
        raise Refusal(422, "1300", f"{name} is limited to {most} bytes")


def _check_object(name: str, raw: msgspec.Raw, most: int, too_large: str) -> None:
    data = bytes(raw)
    if not data:
        return
    if not data.startswith(b"{"):
        raise Refusal(422, "1300", f"{name} must be an object")
    if len(data) > most:
        raise Refusal(422, too_large, f"{name} is limited to {most} bytes")


def _unreadable(body: bytes, error: Exception) -> Refusal:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as exc:
        return Refusal(400, "1305", str(exc))
    if not isinstance(error, msgspec.ValidationError):
        return Refusal(422, "1300", "Problems parsing request as JSON")
    missing = "missing required field" in str(error)
    return Refusal(422, "1400" if missing else "1300", str(error))
