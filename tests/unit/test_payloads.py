"""What a profile cannot render is refused at once, at the path where it stands."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import MessageTooLarge, PayloadError
from paceline.payloads import PROVIDERS, check
from support.mails import neutral

GOOD: dict[str, Any] = {
    "sender": "praxis@direct.example",
    "recipients": [
        {"email": "a@direct.example", "type": "TO"},
        {"email": "b@direct.example", "type": "CC"},
        {"email": "c@direct.example", "type": "BCC"},
    ],
    "subject": "Befund für Jürgen 😀",
    "body": "line\nline",
    "htmlBody": False,
    "replyTo": "Frau Österreich <antwort@direct.example>",
    "attachmentList": [
        {"filename": "größe.pdf", "contentType": "application/pdf", "content": "JVBERg=="}
    ],
}


def changed(path: tuple[Any, ...], value: Any) -> bytes:
    """GOOD with the value at `path` put in, or taken out for `...`."""
    document = copy.deepcopy(GOOD)
    target: Any = document
    for step in path[:-1]:
        target = target[step]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize("optional", ["htmlBody", "replyTo", "attachmentList", "recipients"])
def test_a_good_message_passes_with_and_without_what_is_optional(optional: str) -> None:
    check("maxmd", json.dumps(GOOD).encode())
    check("maxmd", json.dumps(GOOD, ensure_ascii=False).encode())
    if optional != "recipients":
        check("maxmd", changed((optional,), ...))


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("sender",), ..., "payload.sender"),
        (("recipients",), ..., "payload.recipients"),
        (("subject",), ..., "payload.subject"),
        (("body",), ..., "payload.body"),
        (("sender",), "nobody", "payload.sender"),
        (("sender",), None, "payload.sender"),
        (("sender",), "a@b\r\nBcc: x@y", "payload.sender"),
        (("recipients",), [], "payload.recipients"),
        (("recipients",), "a@b", "payload.recipients"),
        (("recipients", 1), "a@b", "payload.recipients[1]"),
        (("recipients", 2, "email"), "@", "payload.recipients[2].email"),
        (("recipients", 2, "email"), "a@", "payload.recipients[2].email"),
        (("recipients", 2, "email"), ..., "payload.recipients[2].email"),
        (("recipients", 0, "type"), "to", "payload.recipients[0].type"),
        (("recipients", 0, "type"), ["TO"], "payload.recipients[0].type"),
        (("recipients", 0, "type"), ..., "payload.recipients[0].type"),
        (("subject",), 5, "payload.subject"),
        (("subject",), "a\nBcc: x@y", "payload.subject"),
        (("body",), {"html": ""}, "payload.body"),
        (("htmlBody",), "true", "payload.htmlBody"),
        (("htmlBody",), 1, "payload.htmlBody"),
        (("replyTo",), "", "payload.replyTo"),
        (("attachmentList",), {}, "payload.attachmentList"),
        (("attachmentList", 0), "x", "payload.attachmentList[0]"),
        (("attachmentList", 0, "filename"), "", "payload.attachmentList[0].filename"),
        (("attachmentList", 0, "filename"), "a\nb", "payload.attachmentList[0].filename"),
        (("attachmentList", 0, "filename"), ..., "payload.attachmentList[0].filename"),
        (("attachmentList", 0, "contentType"), "pdf", "payload.attachmentList[0].contentType"),
        (("attachmentList", 0, "content"), "JVBERg", "payload.attachmentList[0].content"),
        (("attachmentList", 0, "content"), "JV\nBERg==", "payload.attachmentList[0].content"),
        (("attachmentList", 0, "content"), "größe", "payload.attachmentList[0].content"),
        (("attachmentList", 0, "content"), 7, "payload.attachmentList[0].content"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(path: tuple[Any, ...], value: Any, field: str) -> None:
    with pytest.raises(PayloadError) as caught:
        check("maxmd", changed(path, value))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("path", "misspelt", "right"),
    [
        (("recipient",), [], "recipients"),
        (("htmlbody",), True, "htmlBody"),
        (("replyto",), "a@b", "replyTo"),
    ],
)
def test_a_misspelt_field_is_found(path: tuple[str], misspelt: Any, right: str) -> None:
    document = {key: value for key, value in GOOD.items() if key != right}
    document[path[0]] = misspelt
    with pytest.raises(PayloadError, match=f"Did you mean {right}") as caught:
        check("maxmd", json.dumps(document).encode())
    assert caught.value.field == f"payload.{path[0]}"


def test_a_plain_string_for_a_recipient_is_told_the_form_that_is_wanted() -> None:
    with pytest.raises(PayloadError, match='"type": "TO"'):
        check("maxmd", changed(("recipients", 1), "a@b"))


def test_fields_that_the_document_does_not_know_pass_through() -> None:
    check("maxmd", changed(("trackingTag",), "x"))


def test_credentials_in_a_message_are_refused_with_the_reason() -> None:
    with pytest.raises(PayloadError, match="secrets never enter Redis") as caught:
        check("maxmd", changed(("authentication",), {"username": "u", "password": "hunter2"}))
    assert caught.value.field == "payload.authentication"
    assert "hunter2" not in str(caught.value)


def test_a_message_wrapped_as_the_provider_wants_it_is_explained() -> None:
    with pytest.raises(PayloadError, match="wrapped once too often"):
        check("maxmd", json.dumps({"message": GOOD}).encode())


@pytest.mark.parametrize("payload", [b"[]", b"null", b'"x"', b"5", b"true"])
def test_what_stands_there_instead_is_said(payload: bytes) -> None:
    names = {b"[": "an array", b"n": "null", b'"': "a string", b"5": "a number", b"t": "true"}
    with pytest.raises(PayloadError, match=f"payload: {names[payload[:1]]} where"):
        check("maxmd", payload)


@pytest.mark.parametrize("payload", [b"[]", b"null", b'"x"', b"5", b"true"])
def test_a_maxmd_message_is_an_object(payload: bytes) -> None:
    with pytest.raises(PayloadError, match="object is needed"):
        check("maxmd", payload)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b'{}},"message":{', b"NaN", b"\xff", b'"\\ud800"', b"[" * 999 + b"]" * 999],
)
def test_what_is_no_json_fits_no_provider(provider: str, payload: bytes) -> None:
    with pytest.raises(PayloadError) as caught:
        check(provider, payload)
    assert caught.value.field == "payload"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_id_with_a_full_stop_is_nothing_to_a_webhook_alone(provider: str) -> None:
    payload = neutral()
    check(provider, payload, message_id="m-1_a")
    if provider != "webhook":
        check(provider, payload, message_id="m.1")
        return
    with pytest.raises(PayloadError) as caught:
        check(provider, payload, message_id="m.1")
    assert caught.value.field == "id"


def test_a_number_no_parser_holds_is_a_payload_error_too() -> None:
    with pytest.raises(PayloadError):
        check("maxmd", json.dumps(GOOD)[:-1].encode() + b',"n":1e999}')


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("aé"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
)
def test_http_takes_any_document_and_maxmd_never_fails_otherwise(value: Any) -> None:
    payload = json.dumps(value).replace("Infinity", "1").encode()
    check("http", payload)
    with pytest.raises(PayloadError):
        check("maxmd", payload)


def test_the_limit_is_exact() -> None:
    check("http", b'"1234567"', max_payload_bytes=9)
    with pytest.raises(MessageTooLarge) as caught:
        check("http", b'"12345678"', max_payload_bytes=9)
    assert (caught.value.size, caught.value.limit) == (10, 9)
