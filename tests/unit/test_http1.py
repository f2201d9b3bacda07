"""Replies as peers write them, in whatever pieces they arrive; requests that HTTP can say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline_workers.transports.http1 import (
    HEAD_BYTES,
    HEAD_FIELDS,
    CutShort,
    RawReply,
    Unreadable,
    read_reply,
    request_bytes,
)

MOST = 1000


def _pieces(data: bytes, cuts: list[int]) -> Callable[[int], bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    parts = iter([data[a:b] for a, b in pairwise(edges)])
    return lambda _: next(parts, b"")


def _read(data: bytes, cuts: list[int] | None = None) -> RawReply:
    return read_reply(_pieces(data, cuts or []), MOST)


SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: t\r\n\r\n"
REPLIES = [
    SIZED,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + SIZED,
    b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED,
    b"HTTP/1.1 200 OK\r\n\r\nhello",
    b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
]


@given(st.sampled_from(REPLIES), st.lists(st.integers(0, 200), max_size=12))
def test_a_reply_is_the_same_in_whatever_pieces_it_comes(data: bytes, cuts: list[int]) -> None:
    reply = _read(data, cuts)
    assert (reply.status, reply.body) == (200, b"hello")
    assert reply.ends_itself == (b"Length" in data or b"chunked" in data)
    assert reply.keeps_alive == reply.ends_itself
    assert [name for name, _ in reply.headers] in (
        ["Content-Length"], ["Transfer-Encoding"], [],
    )  # fmt: skip


@given(st.sampled_from(REPLIES[:4]), st.integers(1, 60))
def test_a_reply_cut_anywhere_is_never_a_whole_one(data: bytes, short: int) -> None:
    end = max(1, len(data) - short)
    with pytest.raises(CutShort):
        _read(data[:end])


def test_a_cut_in_a_reply_without_length_cannot_be_seen() -> None:
    reply = _read(b"HTTP/1.1 200 OK\r\n\r\nhel")
    assert (reply.body, reply.ends_itself, reply.keeps_alive) == (b"hel", False, False)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (HEAD_FIELDS + 1) + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * (HEAD_BYTES + 1),
        b"220 smtp.example ESMTP\r\n",
    ],
)
def test_what_has_two_meanings_or_none_is_not_read(data: bytes) -> None:
    with pytest.raises(Unreadable):
        read_reply(_pieces(data, [100]), MOST)


def test_what_follows_a_reply_is_not_kept_for_the_next() -> None:
    one = REPLIES[0]
    assert _read(one).keeps_alive
    for more in (one, b"HTTP/1.1 500", b"\0garbage"):
        reply = _read(one + more)
        assert (reply.status, reply.body, reply.keeps_alive) == (200, b"hello", False)


def test_a_body_over_the_limit_is_not_read_to_its_end() -> None:
    asked = []

    def endless(_: int) -> bytes:
        asked.append(1)
        if len(asked) == 1:
            return b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
        return b"x" * 100

    reply = read_reply(endless, MOST)
    assert len(reply.body) > MOST
    assert not reply.keeps_alive
    assert len(asked) == 12


@pytest.mark.parametrize("connection", [b"close", b"Close", b"x, close"])
def test_a_peer_that_closes_says_so_in_any_case(connection: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: " + connection + b"\r\n\r\n"
    assert not _read(head).keeps_alive


# -- requests -----------------------------------------------------------------------------------


def test_a_request() -> None:
    pieces = request_bytes("POST", "/a?b", "h:8", {"X-Y": "v"}, b"body")
    assert pieces == [
        b"POST /a?b HTTP/1.1\r\nHost: h:8\r\nAccept-Encoding: identity\r\nX-Y: v\r\n"
        b"Content-Length: 4\r\n\r\nbody"
    ]


def test_a_large_body_is_not_copied() -> None:
    body = b"x" * 100_000
    head, second = request_bytes("PUT", "/", "h", {}, body)
    assert head.endswith(b"Content-Length: 100000\r\n\r\n")
    assert second is body


@pytest.mark.parametrize(
    "headers", [{"X": "a\r\nForged: 1"}, {"X": "a\nb"}, {"X\r\nY": "a"}, {"X:": "a"}, {"": "a"},
                {"X": "a\0"}, {"X": "€"}],
)  # fmt: skip
def test_what_would_forge_a_field_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        request_bytes("POST", "/", "h", headers, b"")
