"""Large bodies go out gzip-compressed, the same bytes every time."""

from __future__ import annotations

import gzip

import pytest

from paceline_workers.packing import packed
from paceline_workers.providers.base import RenderedRequest

BODY = b'{"text":"' + b"abc " * 300 + b'"}'


def _request(body: bytes = BODY, **headers: str) -> RenderedRequest:
    return RenderedRequest("POST", {"Content-Type": "application/json", **headers}, body)


@pytest.mark.parametrize("from_bytes", [1, len(BODY)])
def test_a_body_large_enough_is_packed(from_bytes: int) -> None:
    request = _request()
    found = packed(request, from_bytes)
    assert gzip.decompress(found.body) == BODY
    assert len(found.body) < len(BODY) / 5
    assert found.headers == {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert "Content-Encoding" not in request.headers, "headers may be shared by all requests"


@pytest.mark.parametrize("from_bytes", [0, len(BODY) + 1])
def test_a_smaller_one_and_where_it_is_off(from_bytes: int) -> None:
    request = _request()
    assert packed(request, from_bytes) is request


def test_the_same_body_gives_the_same_bytes_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed(_request(), 1)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert packed(_request(), 1) == first
    assert first.body[4:8] == bytes(4), "the time of packing is in the head"


def test_one_that_is_encoded_already_is_left_alone() -> None:
    request = RenderedRequest("POST", {"content-encoding": "br"}, BODY)
    assert packed(request, 1) is request
