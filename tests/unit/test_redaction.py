"""Fields of payloads that nobody is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.connect import connect
from paceline.errors import ConfigError
from paceline.redaction import Redaction
from paceline.settings_file import loads

PAYLOAD = {
    "password": 'hunter2 "ö"',
    "recipients": [{"email": "a@b.example", "name": "A"}, {"email": "c@d.example"}],
    "a/b": {"deep": {"pin": 123456}},
    "open": "seen",
}
BYTES = json.dumps(PAYLOAD, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("pointer", "changes"),
    [
        ("/password", {"password": "***"}),
        ("/recipients/*/email", {"recipients": [{"email": "***", "name": "A"}, {"email": "***"}]}),
        ("/recipients/1", {"recipients": [PAYLOAD["recipients"][0], "***"]}),  # type: ignore[index]
        ("/a~1b/*/pin", {"a/b": {"deep": {"pin": "***"}}}),
        ("/a~1b", {"a/b": "***"}),
        ("/nothing/*/here", {}),
        ("/open/x", {}),
    ],
)
def test_what_stands_there_is_covered_and_nothing_else(
    pointer: str, changes: dict[str, Any]
) -> None:
    assert json.loads(Redaction([pointer]).shown(BYTES)) == PAYLOAD | changes


def test_without_pointers_a_payload_is_shown_to_the_byte() -> None:
    assert Redaction(()).shown(b' {"a": 1.0}') == b' {"a": 1.0}'


def test_a_text_that_quotes_the_payload_is_covered_in_every_spelling() -> None:
    it = Redaction(["/password", "/recipients/*/email", "/a~1b"])
    text = f"in {BYTES.decode()}: {PAYLOAD['password']} to c@d.example, pin 123456"
    told = it.cover(text, BYTES)
    assert not [word for word in ("hunter2", "a@b", "c@d", "123456") if word in told], told
    assert "seen" in told


@pytest.mark.parametrize("payload", [None, b"no json", b"\xff", b"[" * 5000])
def test_what_cannot_be_read_is_covered_whole(payload: bytes | None) -> None:
    it = Redaction(["/a"])
    assert it.cover("says hunter2", payload) == "***"
    assert payload is None or it.shown(payload) == b'"***"'


_DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(),
    lambda one: (
        st.lists(one, max_size=3) | st.dictionaries(st.sampled_from("ab*"), one, max_size=3)
    ),
)
_POINTERS = st.lists(st.sampled_from(["/a", "/*", "/b/*", "/*/a", "/0", "/a/0/b"]), max_size=3)


@given(_DOCUMENTS, _POINTERS)
def test_any_document(document: Any, pointers: list[str]) -> None:
    payload = json.dumps(document).encode()
    it = Redaction(pointers)
    json.loads(it.shown(payload))
    assert it.shown(it.shown(payload)) == it.shown(payload)
    it.cover("text", payload)


def test_the_configuration() -> None:
    text = '[destinations.a]\nprovider = "http"\nurl = "https://h"\nredact = {}\n'
    found = loads(text.format('["/a", "/b/*"]')).destinations["a"]
    assert (found.redact, found.public()["redact"]) == (("/a", "/b/*"), ["/a", "/b/*"])
    for wrong in ('["a"]', '["/a~2"]', '[""]'):
        with pytest.raises(ConfigError, match=r"redact\[0\]"):
            loads(text.format(wrong))


@pytest.mark.parametrize(
    "url", ["redis://:hun/ter2@h:6379/0", "redis://h:hunter2/0", "sentinel+redis://h:hunter2/name",
            "redis://:x@h?socket_timeout=hunter2"],
)  # fmt: skip
def test_a_redis_url_that_cannot_be_read_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(url)
    assert "hun" not in str(caught.value)
