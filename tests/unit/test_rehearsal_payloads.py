"""The messages of a rehearsal: repeatable, of real shape, invalid where they should be."""

from __future__ import annotations

import statistics
from collections import Counter

import pytest

from paceline.errors import InvalidMessage
from paceline.message import check_id
from paceline.payloads import check
from paceline.rehearsal.payloads import Draft, drafts
from paceline.rehearsal.plan import DEFAULT_SEED
from paceline.sink.answers import Request
from paceline.sink.profiles import MaxMD

MIB = 1024**2


@pytest.fixture(scope="module")
def messages() -> list[Draft]:
    return list(drafts(3000, DEFAULT_SEED))


def refused(draft: Draft) -> bool:
    try:
        check("maxmd", draft.payload, max_payload_bytes=MIB)
    except InvalidMessage:
        return True
    return False


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert list(drafts(40, 5)) == list(drafts(40, 5))
    assert [d.payload for d in drafts(40, 5)] != [d.payload for d in drafts(40, 6)]


def test_sizes_are_of_real_shape(messages: list[Draft]) -> None:
    sizes = [len(draft.payload) for draft in messages if draft.kind == "good"]
    assert 3_500 <= statistics.median(sizes) <= 5_000
    assert 0.008 <= sum(size > 500_000 for size in sizes) / len(sizes) <= 0.012
    assert max(sizes) < MIB


def test_content_is_of_real_shape(messages: list[Draft]) -> None:
    good = [draft.payload for draft in messages if draft.kind == "good"]
    assert sum(not payload.isascii() for payload in good) > 0.9 * len(good)
    for way in (b'"TO"', b'"CC"', b'"BCC"'):
        assert sum(way in payload for payload in good) > 0.1 * len(good)
    assert sum(b"attachmentList" in payload for payload in good) == 30


def test_each_invalid_kind_is_invalid_where_it_should_be(messages: list[Draft]) -> None:
    kinds = Counter(draft.kind for draft in messages)
    assert kinds == {"good": 2976, "refused": 12, "unrenderable": 6, "bad-address": 6}
    for draft in messages:
        assert refused(draft) == (draft.kind in ("refused", "unrenderable")), draft.id


def test_the_sink_rejects_bad_addresses_and_takes_the_good(messages: list[Draft]) -> None:
    sink = MaxMD()
    for draft in messages:
        if draft.kind in ("good", "bad-address"):
            body = b'{"authentication":{"username":"u","password":"p"},"message":%s}'
            verdict = sink.judge(Request(body % draft.payload, b"application/json"))
            assert verdict.accepted == (draft.kind == "good"), draft.id


def test_ids_are_unique_and_valid(messages: list[Draft]) -> None:
    assert len({check_id(draft.id) for draft in messages}) == 3000


def test_a_small_run_has_every_kind() -> None:
    assert {draft.kind for draft in drafts(20, 1)} == {
        "good", "refused", "unrenderable", "bad-address",
    }  # fmt: skip
